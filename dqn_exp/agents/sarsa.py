"""SARSA. Rummery & Niranjan 1994; Sutton & Barto 2018, eq. 6.7.

Deviation: from replay, the next action is drawn from the present policy, not the one that was done
then; so it exists at time limits too, and is on-policy however old the transition.
"""

from torch import Tensor

from dqn_exp import td
from dqn_exp.agents.dqn import DQN
from dqn_exp.interfaces import Networks
from dqn_exp.registry import register


@register("agent", "sarsa")
class SARSA(DQN):
    """Bootstraps from one action drawn as exploration would choose now."""

    on_policy = True

    def n_draws(self, batch_size: int) -> int:
        """One for each transition."""
        return batch_size

    def bootstrap(self, nets: Networks, next_obs: Tensor) -> Tensor:
        """Q_target(s', a') with a' ~ pi(.|s'): value [S, B] of the states bootstrapped from."""
        probabilities = nets.behaviour(nets.selector(next_obs))
        return td.select(nets.target(next_obs), td.sample_action(probabilities, nets.draws))
