"""Categorical DQN (C51). Bellemare, Dabney, Munos 2017, https://arxiv.org/abs/1707.06887.

Deviations: `double` chooses the next action by the online network, as Rainbow does (Hessel et al. 2018,
whose prioritised replay ranks by the loss; so does ours).
"""

import torch
from torch import Tensor

from dqn_exp import td
from dqn_exp.agents.agent import Agent
from dqn_exp.config import schema
from dqn_exp.interfaces import Batch, Context, Forward, Loss, Networks, td_metrics
from dqn_exp.registry import register


@register("agent", "c51")
class C51(Agent):
    """Learns the distribution of returns on K fixed atoms from v_min to v_max."""

    config: schema.C51

    def __init__(self, context: Context, config: schema.C51):
        super().__init__(context, config)
        self.n_atoms = config.atoms

    def _support(self, like: Tensor) -> Tensor:
        """The atoms [K]."""
        low, high = self.config.v_min, self.config.v_max
        return torch.linspace(low, high, self.config.atoms, dtype=like.dtype, device=like.device)

    def q_values(self, net: Forward, obs: Tensor) -> Tensor:
        """Means [S, B, A] of the distributions."""
        return self._mean(net(obs))

    def _mean(self, logits: Tensor) -> Tensor:
        return logits.softmax(-1) @ self._support(logits)

    def loss(self, nets: Networks, batch: Batch) -> Loss:
        """Cross entropy [S, B] from the projected target distribution, sec. 4."""
        logits = td.select_atoms(nets.online(batch.obs), batch.action)
        support = self._support(logits)
        next_logits = nets.target(batch.next_obs)
        selector = nets.selector(batch.next_obs) if self.config.double else next_logits
        best = td.select_atoms(next_logits, self._mean(selector).argmax(-1))
        y = td.categorical_projection(support, best.softmax(-1), batch.reward, batch.discount).detach()
        loss = -(y * logits.log_softmax(-1)).sum(-1)
        metrics = td_metrics(loss, self._mean(logits.detach()), y @ support)
        return Loss(loss, loss.detach(), metrics)
