"""The learner: parameters, target and optimizer of all seeds, as matrices [S, P].

Letters: S seeds, N envs per seed, B batch, A actions, P parameters.
"""

from functools import partial

import torch
from torch import Tensor

from dqn_exp.optim import Optimizer
from dqn_exp.types import Agent, Batch, Context, QNetwork

METRICS = ("td_loss", "td_error_abs", "q_mean", "target_mean", "grad_norm")


class Learner:
    """Acts with the online network and learns from minibatches."""

    def __init__(self, context: Context, net: QNetwork, agent: Agent, optimizer: Optimizer):
        self._net = net
        self._agent = agent
        self._optimizer = optimizer
        self.lr = optimizer.lr
        self.params = net.init(context.seeds).to(context.dtype)
        self.target_params = self.params.clone()

    @torch.no_grad()
    def q(self, obs: Tensor) -> Tensor:
        """Q-values [S, N, A] of obs [S, N, *obs] under the online parameters."""
        return self._agent.q_values(self._net(self.params, obs))

    def update(self, batch: Batch, env_step: int) -> tuple[Tensor, Tensor]:
        """One gradient step of every seed.

        Args:
            batch: leading dims [S, B].
            env_step: sets the learning rate.

        Returns:
            |TD error| [S, B], and the METRICS [len(METRICS), S]: means over the batch, and the
            gradient norm before clipping.
        """
        params = self.params.requires_grad_()
        loss = self._agent.loss(
            partial(self._net, params), partial(self._net, self.target_params), batch
        )
        # Mean over the batch, sum over seeds: each seed's gradient is what it would be alone.
        objective = (batch.weight * loss.loss).mean(1).sum()
        (grad,) = torch.autograd.grad(objective, params)
        with torch.no_grad():
            params = self.params.requires_grad_(False)
            norm = self._optimizer.step(params, grad, self.lr(env_step))
            if self._agent.target_every is None:
                self.update_target()
            td_abs = loss.td_error.abs()
            means = torch.stack([loss.loss, td_abs, loss.q, loss.target]).mean(-1)
            return td_abs, torch.cat([means, norm.unsqueeze(0)])

    def update_target(self) -> None:
        """Move the target parameters by the agent's tau towards the online ones."""
        self.target_params.lerp_(self.params, self._agent.tau)
