"""Implicit quantile networks. Dabney et al. 2018b, https://arxiv.org/abs/1806.06923.

Deviations: actions are chosen from evenly spaced fractions, not random ones, so that acting draws
nothing; `double` chooses the next action by the online network.
"""

import torch
from torch import Tensor

from dqn_exp import td
from dqn_exp.agents.agent import Agent
from dqn_exp.config import schema
from dqn_exp.interfaces import Batch, Forward, Loss, Networks, td_metrics
from dqn_exp.registry import register


@register("agent", "iqn")
class IQN(Agent):
    """Learns the quantile function of returns at random fractions."""

    config: schema.IQN
    implicit = True

    def n_draws(self, batch_size: int) -> int:
        """A fraction for each sample of estimate and target."""
        return batch_size * (self.config.samples + self.config.target_samples)

    def q_values(self, net: Forward, obs: Tensor) -> Tensor:
        """Means [S, B, A] of the quantile functions."""
        K = self.config.act_samples
        midpoints = (torch.arange(K, device=obs.device) + 0.5) / K
        return net(obs, fractions=midpoints.expand(len(obs), 1, K)).mean(-1)

    def loss(self, nets: Networks, batch: Batch) -> Loss:
        """Quantile Huber loss [S, B], eq. 3."""
        S, B = batch.action.shape
        draws = nets.draws.to(batch.reward.dtype).view(S, B, -1)
        fractions, target_fractions = draws.split([self.config.samples, self.config.target_samples], -1)
        estimates = nets.online(batch.obs, fractions=fractions)
        quantiles = td.select_atoms(estimates, batch.action)
        chooser = nets.selector if self.config.double else nets.target
        action = self.q_values(chooser, batch.next_obs).argmax(-1)
        best = td.select_atoms(nets.target(batch.next_obs, fractions=target_fractions), action)
        y = td.target(batch.reward.unsqueeze(-1), batch.discount.unsqueeze(-1), best).detach()
        loss = td.quantile_huber(quantiles, fractions, y)
        metrics = td_metrics(loss, quantiles.detach().mean(-1), y.mean(-1))
        return Loss(loss, metrics["train/td_error_abs"], metrics)
