"""The learner: parameters, target and optimizer of all seeds, as matrices [S, P].

Letters: S seeds, N envs per seed, B batch, A actions, P parameters.
"""

from functools import partial

import torch
from torch import Tensor
from torch.autograd.graph import _engine_run_backward

from dqn_exp.optim import Optimizer
from dqn_exp.types import Agent, Batch, Context, QNetwork

METRICS = (
    "train/td_loss",
    "train/td_error_abs",
    "train/q_mean",
    "train/target_mean",
    "train/grad_norm",
)
METRICS_BLOCK = 32  # updates whose metrics are summed at once: one by one costs as much as Adam


class Learner:
    """Acts with the online network and learns from minibatches."""

    def __init__(self, context: Context, net: QNetwork, agent: Agent, optimizer: Optimizer):
        self._agent = agent
        self._optimizer = optimizer
        self.lr = optimizer.lr
        self.params = net.init(context.seeds).to(context.dtype)
        self.target_params = self.params.clone()
        # Views once and for all: the matrices are only ever changed in place.
        self._leaves = tuple(view.requires_grad_() for view in net.views(self.params.detach()))
        self._online = partial(net, list(self._leaves))
        self._acting = partial(net, net.views(self.params))  # the same, without gradient
        self._target = partial(net, net.views(self.target_params))
        self._pending: list[tuple[Tensor, ...]] = []  # metrics of updates not yet summed
        self._sums = torch.zeros(len(METRICS), len(context.seeds))
        self._updates = 0  # in the sums

    def q(self, obs: Tensor) -> Tensor:
        """Q-values [S, N, A] of obs [S, N, *obs] under the online parameters."""
        return self._agent.q_values(self._acting(obs))

    def update(self, batch: Batch, env_step: int) -> Tensor:
        """One gradient step of every seed on its minibatch; returns |TD error| [S, B].

        Args:
            batch: leading dims [S, B].
            env_step: sets the learning rate.
        """
        loss = self._agent.loss(self._online, self._target, batch)
        # Mean over the batch, sum over seeds: each seed's gradient is what it would be alone.
        share = batch.weight / batch.weight.shape[1]
        # The engine call inside torch.autograd.grad, whose checks of its arguments take as long as a
        # sixth of forward and backward together for a small net.
        grads = _engine_run_backward(
            (loss.loss,), (share,), False, False, self._leaves, False, accumulate_grad=False
        )
        grad = torch.cat([grad.reshape(len(grad), -1) for grad in grads], dim=1)
        norm = self._optimizer.step(self.params, grad, self.lr(env_step))
        if self._agent.target_every is None:
            self.update_target()
        self._pending.append((loss.loss.detach(), *loss[1:], norm))
        if len(self._pending) == METRICS_BLOCK:
            self._sum_metrics()
        return loss.td_abs

    def update_target(self) -> None:
        """Move the target parameters by the agent's tau towards the online ones."""
        self.target_params.lerp_(self.params, self._agent.tau)

    def take_metrics(self) -> dict[str, Tensor]:
        """Tag -> [S], averaged over the updates since the last call; empty if there were none."""
        self._sum_metrics()
        if not self._updates:
            return {}
        means = self._sums / self._updates
        self._sums, self._updates = torch.zeros_like(means), 0
        return dict(zip(METRICS, means, strict=True))

    def _sum_metrics(self) -> None:
        if self._pending:
            *of_batch, norms = (torch.stack(values) for values in zip(*self._pending, strict=True))
            sums = torch.stack([*(values.mean(-1) for values in of_batch), norms]).sum(1)
            self._sums = self._sums.to(sums) + sums
            self._updates += len(self._pending)
            self._pending.clear()
