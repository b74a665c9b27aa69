"""DQN. Mnih et al. 2015, "Human-level control through deep reinforcement learning".

Deviations: n-step returns, a target that may move softly, Huber or squared loss, all by configuration.
"""

from torch import Tensor

from dqn_exp import td
from dqn_exp.registry import register
from dqn_exp.types import Batch, Forward, Loss


@register("agent", "dqn")
class DQN:
    """Q-learning towards R + discount * max_a Q_target(s', a)."""

    def __init__(self, *, gamma: float, n_step: int, loss: str, target: dict):
        self.gamma = gamma
        self.n_step = n_step
        self.tau: float = target["tau"]
        self.target_every: int | None = target["every"]
        self._loss = td.LOSSES[loss]

    def q_values(self, output: Tensor) -> Tensor:
        """The network's outputs [..., A] are the Q-values."""
        return output

    def bootstrap(self, online: Forward, target: Forward, next_obs: Tensor) -> Tensor:
        """Value [S, B] of the states bootstrapped from."""
        return td.q_learning_bootstrap(target(next_obs))

    def loss(self, online: Forward, target: Forward, batch: Batch) -> Loss:
        """Per-sample loss [S, B] of the batch; no gradient reaches the target."""
        q = td.select(online(batch.obs), batch.action)
        bootstrap = self.bootstrap(online, target, batch.next_obs)
        y = td.target(batch.reward, batch.discount, bootstrap).detach()
        estimate = q.detach()
        return Loss(self._loss(q, y), (y - estimate).abs(), estimate, y)
