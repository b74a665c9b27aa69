"""Munchausen DQN. Vieillard, Pietquin, Geist 2020, https://arxiv.org/abs/2007.14430.

Deviation: with n-step returns (the paper has none) the bonus is that of the first action alone.
"""

from torch import Tensor

from dqn_exp import td
from dqn_exp.agents.dqn import DQN
from dqn_exp.registry import register
from dqn_exp.types import Batch, Networks


@register("agent", "munchausen")
class MunchausenDQN(DQN):
    """DQN with a soft bootstrap, whose reward gains alpha * [tau log pi(a|s)] clipped to [clip, 0]."""

    def __init__(
        self,
        *,
        gamma: float,
        n_step: int,
        loss: str,
        target: dict,
        alpha: float,
        temperature: float,
        clip: float,
    ):
        super().__init__(gamma=gamma, n_step=n_step, loss=loss, target=target)
        self._alpha, self._temperature, self._clip = alpha, temperature, clip

    def bootstrap(self, nets: Networks, next_obs: Tensor) -> Tensor:
        """Soft value [S, B] of the states bootstrapped from."""
        return td.soft_bootstrap(nets.target(next_obs), self._temperature)

    def target(self, nets: Networks, batch: Batch) -> Tensor:
        """What the estimates [S, B] are moved towards, eq. 2."""
        q = nets.target(batch.obs)
        bonus = td.munchausen_bonus(q, batch.action, self._temperature, self._clip)
        return super().target(nets, batch) + self._alpha * bonus
