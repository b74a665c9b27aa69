"""Expected SARSA. van Seijen et al. 2009; Sutton & Barto 2018, eq. 6.9."""

from torch import Tensor

from dqn_exp.agents.dqn import DQN
from dqn_exp.interfaces import Networks
from dqn_exp.registry import register


@register("agent", "expected_sarsa")
class ExpectedSARSA(DQN):
    """Bootstraps from the mean over the actions that exploration would choose now."""

    on_policy = True

    def bootstrap(self, nets: Networks, next_obs: Tensor) -> Tensor:
        """sum_a pi(a|s') Q_target(s', a): value [S, B] of the states bootstrapped from."""
        probabilities = nets.behaviour(nets.selector(next_obs))
        return (probabilities * nets.target(next_obs)).sum(-1)
