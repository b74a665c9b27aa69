"""The learner: parameters, target and optimizer of all seeds, as matrices [S, P].

Letters: S seeds, N envs per seed, B batch, A actions, P parameters, M noise.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import _engine_run_backward

from dqn_exp import rng
from dqn_exp.compilation import stack
from dqn_exp.optim import Optimizer
from dqn_exp.types import (
    Agent,
    Batch,
    Context,
    Networks,
    QNetwork,
    State,
    Step,
    Weights,
    copy_state,
    widest_float,
)

METRICS = (
    "train/td_loss",
    "train/td_error_abs",
    "train/q_mean",
    "train/target_mean",
    "train/grad_norm",
)
LEARNED_FROM = ("obs", "action", "reward", "discount", "next_obs", "weight")  # fields of a Batch
NETWORKS = ("online", "selector", "target")
METRICS_BLOCK = 32  # updates whose metrics are summed at once: one by one costs as much as Adam
NO_DRAWS = torch.empty(0)


class Failure(NamedTuple):
    """The update at which a seed stopped learning."""

    step: int  # env steps then
    priority: float  # largest |TD| of its minibatch
    grad_norm: float

    def __str__(self) -> str:
        return f"largest |TD| {self.priority}, gradient norm {self.grad_norm}"


class Learner:
    """Acts with the online network and learns from minibatches.

    A seed learns no more once its |TD| or gradient is not finite: its parameters, the optimizer's state
    and a target that moves at every update stay as they were before that update.

    Args:
        behaviour: probabilities of exploring actions, for rules that learn about them.
    """

    def __init__(
        self,
        context: Context,
        net: QNetwork,
        agent: Agent,
        optimizer: Optimizer,
        behaviour: Callable[[Tensor, Tensor], Tensor],
    ):
        self._net = net
        self._agent = agent
        self._optimizer = optimizer
        self._behaviour = behaviour
        self._n_envs = context.n_envs
        self.lr = optimizer.lr
        self.params = net.init(context.seeds).to(context.dtype)
        self.target_params = self.params.clone()
        optimizer.start(self.params)
        # Views once and for all: the matrices are only ever changed in place.
        self._leaves = [view.requires_grad_() for view in net.views(self.params.detach())]
        self._online = net.views(self.params)  # the same, without gradient
        self._target = net.views(self.target_params)
        noise = partial(rng.Draws, rng.normal, context.seeds, shape=(net.n_noise,))
        self._act_noise = noise(stream="noise/act") if net.n_noise else None
        # What an update draws: noise for each network, and what the rule draws by itself.
        roles = NETWORKS if net.n_noise else ()
        self._draws = [noise(stream=f"noise/{role}") for role in roles]
        if n_draws := agent.n_draws(context.batch_size):
            self._draws.append(rng.Draws(rng.uniform, context.seeds, "learn", (n_draws,)))
        self._trace: torch.fx.GraphModule | None = None
        self._pending: list[tuple[Tensor, ...]] = []  # metrics of updates not yet summed
        self._sums = torch.zeros(len(METRICS) + 1, context.n_seeds).to(self.params)  # last: a count
        self._all_learn = True  # as far as is known without asking the device
        self._learns = torch.ones(context.n_seeds, dtype=torch.bool, device=context.device)
        self._failure = torch.zeros(  # a column is a Failure
            len(Failure._fields),
            context.n_seeds,
            dtype=widest_float(context.device),
            device=context.device,
        )

    def q(self, obs: Tensor, step: Step | None = None) -> Tensor:
        """Q-values [S, N, A] of obs [S, N, *obs] under the online parameters.

        With the noise of env step `step`, if the net is noisy; without one, none.
        """
        compiling = torch.compiler.is_compiling()  # which can do without the views, but not with them
        weights = self._net.views(self.params) if compiling else self._online
        if self._act_noise and step is not None:
            noise = self._act_noise(step // self._n_envs)
            return self._agent.q_values(partial(self._net, weights, noise=noise), obs)
        return self._agent.q_values(partial(self._net, weights), obs)

    def draw_ahead(self, step: Tensor, steps: int, gradient_step: Tensor, updates: int) -> None:
        """Draw for acting `steps` times from env step `step` on, and for `updates`, before compiled
        code does that.
        """
        if self._act_noise:
            self._act_noise.ahead(step // self._n_envs, steps)
        for draws in self._draws:
            draws.ahead(gradient_step, updates)

    def update(
        self, batch: Batch, env_step: Step, gradient_step: Step, rate: float | Tensor = 0.0
    ) -> Tensor:
        """One gradient step of every seed on its minibatch; returns the priorities [S, B].

        Args:
            batch: leading dims [S, B].
            env_step: sets the learning rate.
            gradient_step: how many have gone before.
            rate: of exploration now, a number or [S], for a rule that is on-policy.
        """
        drawn = self._drawn(batch, gradient_step, rate)
        if torch.compiler.is_compiling():
            assert self._trace is not None, "trace() comes before compilation"
            learned_from = (getattr(batch, name) for name in LEARNED_FROM)
            grad, *values = self._trace(self.params, self.target_params, *learned_from, *drawn)
        else:
            grad, *values = self._gradient(self._leaves, self._online, self._target, batch, drawn)
        priority, *metrics = values
        norm = self._optimizer.clip(grad)
        learns = self._finite(priority, norm, env_step)
        self._optimizer.step(self.params, grad, self.lr(env_step), gradient_step + 1, learns)
        if self._agent.target_every is None and self._agent.target_episodes is None:
            self.update_target(None if learns is None else learns.unsqueeze(1))
        if torch.compiler.is_compiling():
            self._sum([(*metrics, norm)])
        else:
            self._pending.append((*metrics, norm))
            if len(self._pending) == METRICS_BLOCK:
                self._sum_pending()
        return priority if learns is None else torch.where(learns.unsqueeze(1), priority, 0.0)

    def _finite(self, priority: Tensor, norm: Tensor, env_step: Step) -> Tensor | None:
        """Which seeds learn, bool [S], given the priorities [S, B] and gradient norms [S] of their
        updates; None if all do.
        """
        if norm.device.type == "cpu" and not torch.compiler.is_compiling():
            # The usual case. Elsewhere, asking would wait for the device.
            low, high = torch.aminmax(priority)
            if low.item() >= 0.0 and high.item() + norm.sum().item() < math.inf and self._all_learn:
                return None
            self._all_learn = False
        lowest, largest = torch.aminmax(priority, dim=1)
        learns = (lowest >= 0.0) & (largest + norm < math.inf) & self._learns  # false for NaN
        failure = stack([torch.zeros_like(norm) + env_step, largest.to(norm), norm], 0)
        failed = self._learns & ~learns
        self._failure.copy_(torch.where(failed, failure.to(self._failure), self._failure))
        self._learns.copy_(learns)
        return learns

    def failures(self) -> dict[int, Failure]:
        """Of the seeds, by position, that learn no more."""
        if self._learns.all():
            return {}
        columns = self._failure.T.tolist()
        return {
            i: Failure(int(columns[i][0]), *columns[i][1:])
            for i, learns in enumerate(self._learns.tolist())
            if not learns
        }

    def _drawn(self, batch: Batch, gradient_step: Step, rate: float | Tensor) -> list[Tensor]:
        """What the gradient depends on beside the parameters and the batch."""
        drawn = [draws(gradient_step) for draws in self._draws]
        if self._agent.on_policy:
            like = batch.reward
            drawn.append(torch.as_tensor(rate, dtype=like.dtype, device=like.device))
        return drawn

    def trace(self, batch: Batch) -> None:
        """Record the gradient's operations for batches of this shape, which compiled code needs:
        the compiler cannot differentiate within a loop.
        """

        from torch.fx.experimental.proxy_tensor import make_fx  # slow to import

        def gradient(params: Tensor, target_params: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
            online, target = self._net.views(params), self._net.views(target_params)
            leaves = [view.detach().requires_grad_() for view in online]
            learned_from = dict(zip(LEARNED_FROM, inputs, strict=False))
            drawn = [*inputs[len(LEARNED_FROM) :]]
            return self._gradient(leaves, online, target, replace(batch, **learned_from), drawn)

        rate = torch.zeros(len(self.params), device=self.params.device)
        inputs = [getattr(batch, name) for name in LEARNED_FROM] + self._drawn(batch, 0, rate)
        # A sum after a product is merged with what follows it; a product onto a bias is not.
        decompositions = {torch.ops.aten.baddbmm.default: lambda bias, x, y: torch.bmm(x, y) + bias}
        self._trace = make_fx(gradient, decompositions)(self.params, self.target_params, *inputs)

    def _gradient(
        self, leaves: Weights, online: Weights, target: Weights, batch: Batch, drawn: list[Tensor]
    ) -> tuple[Tensor, ...]:
        """The gradient [S, P], then priority, loss, estimate and target, all [S, B]."""
        rate = drawn.pop() if self._agent.on_policy else NO_DRAWS
        networks = [partial(self._net, weights) for weights in (leaves, online, target)]
        if self._net.n_noise:
            noise, drawn = drawn[: len(NETWORKS)], drawn[len(NETWORKS) :]
            networks = [partial(net, noise=e) for net, e in zip(networks, noise, strict=True)]
        online_net, selector, target_net = networks
        draws = drawn[0] if drawn else NO_DRAWS
        nets = Networks(online_net, selector, target_net, draws, lambda q: self._behaviour(q, rate))
        loss = self._agent.loss(nets, batch)
        # Mean over the batch, sum over seeds: each seed's gradient is what it would be alone.
        share = batch.weight / batch.weight.shape[1]
        # The engine call inside torch.autograd.grad, whose checks of its arguments take as long as a
        # sixth of forward and backward together for a small net.
        grads = _engine_run_backward(
            (loss.loss,), (share,), False, False, tuple(leaves), False, accumulate_grad=False
        )
        grad = torch.cat([grad.reshape(len(grad), -1) for grad in grads], dim=1)
        return grad, loss.priority, loss.loss.detach(), loss.q, loss.target

    def update_target(self, due: Tensor | None = None) -> None:
        """Move the target parameters by the agent's tau towards the online ones.

        Args:
            due: bool [] or, for each seed, [S, 1]; where it is false, they stay.
        """
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

    def diagnostics(self, batch: Batch) -> dict[str, Tensor]:
        """Tag -> [S], about the parameters now, given a minibatch [S, B].

        `train/target_lag`: distance of the target from the online parameters, in norms of these.
        `train/dead_units`: share of the last common hidden layer that is 0 for the whole minibatch.
        """
        lag = (self.params - self.target_params).norm(dim=1) / self.params.norm(dim=1)
        dead = (self._net.features(self._online, batch.obs) == 0.0).all(1).float().mean(1)
        metrics = {"train/target_lag": lag, "train/dead_units": dead}
        return metrics | self._net.metrics(self._online)

    def state_dict(self) -> State:
        """Parameters, target, optimizer, and the metrics since they were last taken."""
        pending = {
            f"pending{i}": torch.stack(values)
            for i, values in enumerate(zip(*self._pending, strict=True))
        }
        return self._tensors() | pending

    def load_state_dict(self, state: State) -> None:
        """Go on from a state of `state_dict`; raises ValueError if it is none."""
        pending = {name: value for name, value in state.items() if name.startswith("pending")}
        copy_state({k: v for k, v in state.items() if k not in pending}, self._tensors())
        self._all_learn = bool(self._learns.all())
        rows = (values.to(self.params.device).unbind() for values in pending.values())
        self._pending = list(zip(*rows, strict=True))

    def _tensors(self) -> dict[str, Tensor]:
        return {
            "params": self.params,
            "target_params": self.target_params,
            "metric_sums": self._sums,
            "learns": self._learns,
            "failure": self._failure,
        } | self._optimizer.state_dict()

    def _sum_pending(self) -> None:
        if self._pending:
            self._sum(self._pending)
            self._pending.clear()

    def _sum(self, updates: list[tuple[Tensor, ...]]) -> None:
        loss, q, target, norms = (torch.stack(values) for values in zip(*updates, strict=True))
        means = [values.mean(-1) for values in (loss, (target - q).abs(), q, target)]
        self._sums.add_(stack([*means, norms, torch.ones_like(norms)], 0).sum(1))
