"""DQN. Mnih et al. 2015, "Human-level control through deep reinforcement learning".

Deviations: n-step returns, a target that may move softly, Huber or squared loss, all by configuration.
"""

from torch import Tensor

from dqn_exp import td
from dqn_exp.agents.rule import Rule
from dqn_exp.registry import register
from dqn_exp.types import Batch, Forward, Loss, Networks


@register("agent", "dqn")
class DQN(Rule):
    """Q-learning towards R + discount * max_a Q_target(s', a)."""

    def __init__(self, *, gamma: float, n_step: int, loss: str, target: dict):
        super().__init__(gamma, n_step, target)
        self._loss = td.LOSSES[loss]

    def q_values(self, net: Forward, obs: Tensor) -> Tensor:
        """The network's outputs [S, B, A] are the Q-values."""
        return net(obs)

    def bootstrap(self, nets: Networks, next_obs: Tensor) -> Tensor:
        """Value [S, B] of the states bootstrapped from."""
        return td.q_learning_bootstrap(nets.target(next_obs))

    def target(self, nets: Networks, batch: Batch) -> Tensor:
        """What the estimates [S, B] are moved towards."""
        return td.target(batch.reward, batch.discount, self.bootstrap(nets, batch.next_obs))

    def loss(self, nets: Networks, batch: Batch) -> Loss:
        """Per-sample loss [S, B] of the batch; no gradient reaches the target."""
        q = td.select(nets.online(batch.obs), batch.action)
        y = self.target(nets, batch).detach()
        estimate = q.detach()
        return Loss(self._loss(q, y), (y - estimate).abs(), estimate, y)
