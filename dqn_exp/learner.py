"""The learner: parameters, target and optimizer of all seeds, as matrices [S, P].

Letters: S seeds, N envs per seed, B batch, A actions, P parameters.
"""

from functools import partial

import torch
from torch import Tensor

from dqn_exp.optim import Optimizer
from dqn_exp.types import Agent, Batch, Context, Loss, QNetwork

METRICS = (
    "train/td_loss",
    "train/td_error_abs",
    "train/q_mean",
    "train/target_mean",
    "train/grad_norm",
)


class Learner:
    """Acts with the online network and learns from minibatches."""

    def __init__(self, context: Context, net: QNetwork, agent: Agent, optimizer: Optimizer):
        self._agent = agent
        self._optimizer = optimizer
        self.lr = optimizer.lr
        self.params = net.init(context.seeds).to(context.dtype)
        self.target_params = self.params.clone()
        # Views once and for all: the matrices are only ever changed in place.
        self._leaves = [view.requires_grad_() for view in net.views(self.params.detach())]
        self._online = partial(net, self._leaves)
        self._target = partial(net, net.views(self.target_params))
        self._updates = 0  # since the metrics were taken
        self._sums = self._norm_sum = torch.empty(0)  # [4, S, B] and [S], of those updates

    @torch.inference_mode()
    def q(self, obs: Tensor) -> Tensor:
        """Q-values [S, N, A] of obs [S, N, *obs] under the online parameters."""
        return self._agent.q_values(self._online(obs))

    def update(self, batch: Batch, env_step: int) -> Tensor:
        """One gradient step of every seed on its minibatch; returns |TD error| [S, B].

        Args:
            batch: leading dims [S, B].
            env_step: sets the learning rate.
        """
        loss = self._agent.loss(self._online, self._target, batch)
        # Mean over the batch, sum over seeds: each seed's gradient is what it would be alone.
        share = batch.weight / batch.weight.shape[1]
        grads = torch.autograd.grad(loss.loss, self._leaves, grad_outputs=share)
        grad = torch.cat([grad.flatten(1) for grad in grads], dim=1)
        norm = self._optimizer.step(self.params, grad, self.lr(env_step))
        if self._agent.target_every is None:
            self.update_target()
        self._add_metrics(loss, norm)
        return loss.td_abs

    def update_target(self) -> None:
        """Move the target parameters by the agent's tau towards the online ones."""
        self.target_params.lerp_(self.params, self._agent.tau)

    def take_metrics(self) -> dict[str, Tensor]:
        """Tag -> [S], averaged over the updates since the last call; empty if there were none."""
        if not self._updates:
            return {}
        means = [*(self._sums / self._updates).mean(-1), self._norm_sum / self._updates]
        self._updates = 0
        return dict(zip(METRICS, means, strict=True))

    @torch.no_grad()
    def _add_metrics(self, loss: Loss, norm: Tensor) -> None:
        values = torch.stack(loss)
        if self._updates:
            self._sums += values
            self._norm_sum += norm
        else:
            self._sums, self._norm_sum = values, norm
        self._updates += 1
