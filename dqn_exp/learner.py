"""The learner: parameters, target and optimizer of all seeds, as matrices [S, P].

Letters: S seeds, N envs per seed, B batch, A actions, P parameters, M noise.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from dqn_exp import rng
from dqn_exp.compiled import kernels
from dqn_exp.config import schema
from dqn_exp.finite import FiniteGate
from dqn_exp.interfaces import Agent, Batch, Context, Networks, QNetwork, Step, Weights
from dqn_exp.means import Means
from dqn_exp.optim import Optimizer
from dqn_exp.state import State, copy_state
from dqn_exp.target import TargetNetwork

NETWORKS = ("online", "selector", "target")
NO_DRAWS = torch.empty(0)


class Gradient(NamedTuple):
    """What a minibatch gives the optimizer, the replay buffer and the log."""

    grad: Tensor  # [S, P]
    priority: Tensor  # [S, B]
    metrics: dict[str, Tensor]  # tag -> [S, B]


class Learner:
    """Acts with the online network and learns from minibatches.

    A seed stops learning once its |TD error| or gradient is not finite: its parameters, the optimizer's
    state and a target that moves at every update stay as they were before that update.

    Args:
        behaviour: (Q-values [S, B, A], rate) -> action probabilities, for on-policy rules.
    """

    def __init__(
        self,
        context: Context,
        net: QNetwork,
        agent: Agent,
        target: schema.Target,
        optimizer: Optimizer,
        behaviour: Callable[[Tensor, Tensor], Tensor],
    ):
        self.net, self._agent, self._optimizer = net, agent, optimizer
        self._behaviour = behaviour
        self._n_envs = context.n_envs
        self.lr = optimizer.lr
        self.params = net.init(context.seeds).to(context.dtype)
        self.target = TargetNetwork(context, target, self.params)
        optimizer.start(self.params)
        self._leaves = [view.requires_grad_() for view in net.views(self.params.detach())]
        self._online = kernels.Views(net.views, self.params)  # the same, without gradient
        self._target = kernels.Views(net.views, self.target.params)
        noise = partial(rng.Draws, rng.normal, context.seeds, shape=(net.n_noise,))
        self._act_noise = noise(stream="noise/act") if net.n_noise else None
        # What an update draws: noise for each network, and what the rule draws itself.
        self._draws = [noise(stream=f"noise/{role}") for role in NETWORKS if net.n_noise]
        if n_draws := agent.n_draws(context.batch_size):
            self._draws.append(rng.Draws(rng.uniform, context.seeds, "learn", (n_draws,)))
        self.finite = FiniteGate(context)
        self.means = Means(self.params)

    def q(self, obs: Tensor, step: Step | None = None) -> Tensor:
        """Q-values [S, N, A] of obs [S, N, *obs] under the online parameters.

        A noisy net takes the noise of env step `step`; without a step, no noise.
        """
        net = partial(self.net, self._online())
        if self._act_noise and step is not None:
            net = partial(net, noise=self._act_noise(step // self._n_envs))
        return self._agent.q_values(net, obs)

    def update(
        self, batch: Batch, env_step: Step, gradient_step: Step, rate: float | Tensor = 0.0
    ) -> Tensor:
        """One gradient step of every seed on its minibatch; returns the priorities [S, B].

        Args:
            batch: leading dims [S, B].
            env_step: sets the learning rate.
            gradient_step: updates made so far.
            rate: of exploration now, a number or [S], for on-policy rules.
        """
        grad, priority, metrics = self.gradient(batch, self.draw(batch, gradient_step, rate))
        norm = self._optimizer.clip(grad)
        learns = self.finite.learns(priority, norm, env_step)
        self._optimizer.step(self.params, grad, self.lr(env_step), gradient_step + 1, learns)
        self.target.after_update(self.params, learns)
        self.means.add(metrics | {"train/grad_norm": norm})
        return priority if learns is None else torch.where(learns.unsqueeze(1), priority, 0.0)

    def draw(self, batch: Batch, gradient_step: Step, rate: float | Tensor) -> list[Tensor]:
        """What the gradient depends on beside the parameters and the batch."""
        drawn = [draws(gradient_step) for draws in self._draws]
        if self._agent.on_policy:
            like = batch.reward
            drawn.append(torch.as_tensor(rate, dtype=like.dtype, device=like.device))
        return drawn

    def gradient(self, batch: Batch, drawn: list[Tensor]) -> Gradient:
        """The gradient on a batch; compiled loops replace this method by a recording of it."""
        return self.gradient_at(self._leaves, self._online(), self._target(), batch, drawn)

    def gradient_at(
        self, leaves: Weights, online: Weights, target: Weights, batch: Batch, drawn: list[Tensor]
    ) -> Gradient:
        """The gradient with respect to `leaves`: the online weights again, requiring gradients."""
        drawn = list(drawn)
        rate = drawn.pop() if self._agent.on_policy else NO_DRAWS
        networks = [partial(self.net, weights) for weights in (leaves, online, target)]
        if self.net.n_noise:
            noise, drawn = drawn[: len(NETWORKS)], drawn[len(NETWORKS) :]
            networks = [partial(net, noise=e) for net, e in zip(networks, noise, strict=True)]
        online_net, selector, target_net = networks
        draws = drawn[0] if drawn else NO_DRAWS
        nets = Networks(online_net, selector, target_net, draws, lambda q: self._behaviour(q, rate))
        loss, priority, metrics = self._agent.loss(nets, batch)
        # Mean over the batch, sum over seeds: each seed's gradient is what it would be alone.
        share = batch.weight / batch.weight.shape[1]
        grads = kernels.gradients(loss, leaves, share)
        grad = torch.cat([grad.reshape(len(grad), -1) for grad in grads], dim=1)
        return Gradient(grad, priority, metrics)

    def diagnostics(self, batch: Batch) -> dict[str, Tensor]:
        """Tag -> [S], about the parameters now, given a minibatch [S, B].

        `train/target_lag`: distance of the target from the online parameters, relative to their norm.
        `train/dead_units`: share of the last common hidden layer that is 0 for the whole minibatch.
        """
        weights = self._online()
        lag = (self.params - self.target.params).norm(dim=1) / self.params.norm(dim=1)
        dead = (self.net.features(weights, batch.obs) == 0.0).all(1).float().mean(1)
        metrics = {"train/target_lag": lag, "train/dead_units": dead}
        return metrics | self.net.metrics(weights)

    def state_dict(self) -> State:
        """Parameters, target, optimizer, which seeds learn, and the metrics not yet taken."""
        return {
            "matrices": self._matrices(),
            "finite": self.finite.state_dict(),
            "means": self.means.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        """Continue from a state of `state_dict`; raises ValueError if it does not fit."""
        copy_state(state["matrices"], self._matrices())
        self.finite.load_state_dict(state["finite"])
        self.means.load_state_dict(state["means"])

    def _matrices(self) -> dict[str, Tensor]:
        own = {"params": self.params, "target_params": self.target.params}
        return own | self._optimizer.state_dict()
