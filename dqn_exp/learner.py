"""The learner: parameters, target and optimizer of all seeds, as matrices [S, P].

Letters: S seeds, N envs per seed, B batch, A actions, P parameters.
"""

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.autograd.graph import _engine_run_backward

from dqn_exp.optim import Optimizer
from dqn_exp.types import Agent, Batch, Context, QNetwork, Step, Weights

METRICS = (
    "train/td_loss",
    "train/td_error_abs",
    "train/q_mean",
    "train/target_mean",
    "train/grad_norm",
)
LEARNED_FROM = ("obs", "action", "reward", "discount", "next_obs", "weight")  # fields of a Batch
METRICS_BLOCK = 32  # updates whose metrics are summed at once: one by one costs as much as Adam


class Learner:
    """Acts with the online network and learns from minibatches."""

    def __init__(self, context: Context, net: QNetwork, agent: Agent, optimizer: Optimizer):
        self._net = net
        self._agent = agent
        self._optimizer = optimizer
        self.lr = optimizer.lr
        self.params = net.init(context.seeds).to(context.dtype)
        self.target_params = self.params.clone()
        optimizer.start(self.params)
        # Views once and for all: the matrices are only ever changed in place.
        self._leaves = [view.requires_grad_() for view in net.views(self.params.detach())]
        self._acting = net.views(self.params)  # the same, without gradient
        self._target = net.views(self.target_params)
        self._trace: torch.fx.GraphModule | None = None
        self._pending: list[tuple[Tensor, ...]] = []  # metrics of updates not yet summed
        self._sums = torch.zeros(len(METRICS) + 1, context.n_seeds).to(self.params)  # last: a count

    def q(self, obs: Tensor) -> Tensor:
        """Q-values [S, N, A] of obs [S, N, *obs] under the online parameters."""
        compiling = torch.compiler.is_compiling()  # which can do without the views, but not with them
        weights = self._net.views(self.params) if compiling else self._acting
        return self._agent.q_values(self._net(weights, obs))

    def update(self, batch: Batch, env_step: Step, gradient_step: Step) -> Tensor:
        """One gradient step of every seed on its minibatch; returns |TD error| [S, B].

        Args:
            batch: leading dims [S, B].
            env_step: sets the learning rate.
            gradient_step: how many have gone before.
        """
        if torch.compiler.is_compiling():
            assert self._trace is not None, "trace() comes before compilation"
            fields = (getattr(batch, name) for name in LEARNED_FROM)
            grad, *metrics = self._trace(self.params, self.target_params, *fields)
        else:
            grad, *metrics = self._gradient(self._leaves, self._target, batch)
        norm = self._optimizer.step(self.params, grad, self.lr(env_step), gradient_step + 1)
        if self._agent.target_every is None:
            self.update_target()
        if torch.compiler.is_compiling():
            self._sum([(*metrics, norm)])
        else:
            self._pending.append((*metrics, norm))
            if len(self._pending) == METRICS_BLOCK:
                self._sum_pending()
        return metrics[1]

    def trace(self, batch: Batch) -> None:
        """Record the gradient's operations for batches of this shape, which compiled code needs:
        the compiler cannot differentiate within a loop.
        """

        from torch.fx.experimental.proxy_tensor import make_fx  # slow to import

        def gradient(params: Tensor, target_params: Tensor, *fields: Tensor) -> tuple[Tensor, ...]:
            leaves = [view.detach().requires_grad_() for view in self._net.views(params)]
            learned_from = dict(zip(LEARNED_FROM, fields, strict=True))
            return self._gradient(
                leaves, self._net.views(target_params), replace(batch, **learned_from)
            )

        fields = (getattr(batch, name) for name in LEARNED_FROM)
        # A sum after a product is merged with what follows it; a product onto a bias is not.
        decompositions = {torch.ops.aten.baddbmm.default: lambda bias, x, y: torch.bmm(x, y) + bias}
        self._trace = make_fx(gradient, decompositions)(self.params, self.target_params, *fields)

    def _gradient(self, leaves: Weights, target: Weights, batch: Batch) -> tuple[Tensor, ...]:
        """The gradient [S, P], then loss, |TD|, estimate and target, all [S, B]."""
        loss = self._agent.loss(partial(self._net, leaves), partial(self._net, target), batch)
        # Mean over the batch, sum over seeds: each seed's gradient is what it would be alone.
        share = batch.weight / batch.weight.shape[1]
        # The engine call inside torch.autograd.grad, whose checks of its arguments take as long as a
        # sixth of forward and backward together for a small net.
        grads = _engine_run_backward(
            (loss.loss,), (share,), False, False, tuple(leaves), False, accumulate_grad=False
        )
        grad = torch.cat([grad.reshape(len(grad), -1) for grad in grads], dim=1)
        return grad, loss.loss.detach(), *loss[1:]

    def update_target(self, due: Tensor | None = None) -> None:
        """Move the target parameters by the agent's tau towards the online ones, if `due` (bool [])."""
        if due is None:
            self.target_params.lerp_(self.params, self._agent.tau)
        else:
            moved = self.target_params.lerp(self.params, self._agent.tau)
            self.target_params.copy_(torch.where(due, moved, self.target_params))

    def take_metrics(self) -> dict[str, Tensor]:
        """Tag -> [S], averaged over the updates since the last call; empty if there were none."""
        self._sum_pending()
        *sums, count = self._sums.clone()
        self._sums.zero_()
        return (
            {tag: total / count for tag, total in zip(METRICS, sums, strict=True)} if count[0] else {}
        )

    def _sum_pending(self) -> None:
        if self._pending:
            self._sum(self._pending)
            self._pending.clear()

    def _sum(self, updates: list[tuple[Tensor, ...]]) -> None:
        *of_batch, norms = (torch.stack(values) for values in zip(*updates, strict=True))
        means = [values.mean(-1) for values in of_batch]
        self._sums.add_(torch.stack([*means, norms, torch.ones_like(norms)]).sum(1))
