"""Munchausen DQN. Vieillard, Pietquin, Geist 2020, https://arxiv.org/abs/2007.14430.

Deviation: with n-step returns (the paper has none) the bonus is that of the first action alone.
"""

from torch import Tensor

from dqn_exp import td
from dqn_exp.agents.dqn import DQN
from dqn_exp.config import schema
from dqn_exp.interfaces import Batch, Networks
from dqn_exp.registry import register


@register("agent", "munchausen")
class MunchausenDQN(DQN):
    """DQN with a soft bootstrap, whose reward gains alpha * [tau log pi(a|s)] clipped to [clip, 0]."""

    config: schema.Munchausen

    def bootstrap(self, nets: Networks, next_obs: Tensor) -> Tensor:
        """Soft value [S, B] of the states bootstrapped from."""
        return td.soft_bootstrap(nets.target(next_obs), self.config.temperature)

    def target(self, nets: Networks, batch: Batch) -> Tensor:
        """TD targets [S, B], eq. 2."""
        c, q = self.config, nets.target(batch.obs)
        bonus = td.munchausen_bonus(q, batch.action, c.temperature, c.clip)
        return super().target(nets, batch) + c.alpha * bonus
