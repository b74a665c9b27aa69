"""Implicit quantile networks. Dabney et al. 2018b, https://arxiv.org/abs/1806.06923.

Deviations: actions are chosen from evenly spaced fractions, not random ones, so that acting draws
nothing; `double` chooses the next action by the online network.
"""

import torch
from torch import Tensor

from dqn_exp import td
from dqn_exp.agents.rule import Rule
from dqn_exp.registry import register
from dqn_exp.types import Batch, Forward, Loss, Networks


@register("agent", "iqn")
class IQN(Rule):
    """Learns the quantile function of returns at random fractions.

    Args:
        samples: fractions N for the estimate.
        target_samples: fractions N' for the target.
        act_samples: fractions K that Q-values are means over.
    """

    implicit = True

    def __init__(
        self,
        *,
        gamma: float,
        n_step: int,
        target: dict,
        double: bool,
        samples: int,
        target_samples: int,
        act_samples: int,
    ):
        super().__init__(gamma, n_step, target)
        self._double = double
        self._samples, self._target_samples = samples, target_samples
        self._act_samples = act_samples

    def n_draws(self, batch_size: int) -> int:
        """A fraction for each sample of estimate and target."""
        return batch_size * (self._samples + self._target_samples)

    def q_values(self, net: Forward, obs: Tensor) -> Tensor:
        """Means [S, B, A] of the quantile functions."""
        K = self._act_samples
        midpoints = (torch.arange(K, device=obs.device) + 0.5) / K
        return net(obs, fractions=midpoints.expand(len(obs), 1, K)).mean(-1)

    def loss(self, nets: Networks, batch: Batch) -> Loss:
        """Quantile Huber loss [S, B], eq. 3."""
        S, B = batch.action.shape
        draws = nets.draws.to(batch.reward.dtype).view(S, B, -1)
        fractions, target_fractions = draws.split([self._samples, self._target_samples], -1)
        estimates = nets.online(batch.obs, fractions=fractions)
        quantiles = td.select_atoms(estimates, batch.action)
        chooser = nets.selector if self._double else nets.target
        action = self.q_values(chooser, batch.next_obs).argmax(-1)
        best = td.select_atoms(nets.target(batch.next_obs, fractions=target_fractions), action)
        y = td.target(batch.reward.unsqueeze(-1), batch.discount.unsqueeze(-1), best).detach()
        loss = td.quantile_huber(quantiles, fractions, y)
        estimate, target = quantiles.detach().mean(-1), y.mean(-1)
        return Loss(loss, (target - estimate).abs(), estimate, target)
