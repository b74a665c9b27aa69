"""Quantile-regression DQN. Dabney et al. 2018, https://arxiv.org/abs/1710.10044.

Deviation: `double` chooses the next action by the online network.
"""

import torch
from torch import Tensor

from dqn_exp import td
from dqn_exp.agents.agent import Agent
from dqn_exp.config import schema
from dqn_exp.interfaces import Batch, Context, Forward, Loss, Networks, td_metrics
from dqn_exp.registry import register


@register("agent", "qr_dqn")
class QRDQN(Agent):
    """Learns K quantiles of the distribution of returns, at the midpoints of equal shares."""

    config: schema.QRDQN

    def __init__(self, context: Context, config: schema.QRDQN):
        super().__init__(context, config)
        self.n_atoms = config.quantiles

    def q_values(self, net: Forward, obs: Tensor) -> Tensor:
        """Means [S, B, A] of the distributions."""
        return net(obs).mean(-1)

    def loss(self, nets: Networks, batch: Batch) -> Loss:
        """Quantile Huber loss [S, B], eq. 10 and algorithm 1."""
        quantiles = td.select_atoms(nets.online(batch.obs), batch.action)
        K = quantiles.shape[-1]
        midpoints = (torch.arange(K, dtype=quantiles.dtype, device=quantiles.device) + 0.5) / K
        following = nets.target(batch.next_obs)
        selector = nets.selector(batch.next_obs) if self.config.double else following
        best = td.select_atoms(following, selector.mean(-1).argmax(-1))
        y = td.target(batch.reward.unsqueeze(-1), batch.discount.unsqueeze(-1), best).detach()
        loss = td.quantile_huber(quantiles, midpoints, y)
        metrics = td_metrics(loss, quantiles.detach().mean(-1), y.mean(-1))
        return Loss(loss, metrics["train/td_error_abs"], metrics)
