"""Double DQN. van Hasselt, Guez, Silver 2016, https://arxiv.org/abs/1509.06461."""

from torch import Tensor

from dqn_exp import td
from dqn_exp.agents.dqn import DQN
from dqn_exp.interfaces import Networks
from dqn_exp.registry import register


@register("agent", "ddqn")
class DoubleDQN(DQN):
    """DQN whose online network chooses the action that the target network evaluates."""

    def bootstrap(self, nets: Networks, next_obs: Tensor) -> Tensor:
        """Q_target(s', argmax_a Q_online(s', a)): value [S, B] of the states bootstrapped from."""
        return td.double_q_bootstrap(nets.target(next_obs), nets.selector(next_obs))
