"""Gradient clipping and first-order optimizers on one parameter matrix [S, P].

The update rules are those of torch.optim (a test holds them equal), elementwise on the whole matrix:
one call serves all seeds, and no seed touches another.
Letters: S seeds, P parameters.
"""

from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from dqn_exp import schedules
from dqn_exp.registry import register
from dqn_exp.types import Context


class Clip:
    """Gradient clipping: by "value" of each element, by global "norm" of each seed, or "none"."""

    def __init__(self, kind: str, max: float):
        self._kind = kind
        self._max = max

    def __call__(self, grad: Tensor) -> Tensor:
        """Clip [S, P] in place; returns each seed's norm [S] before clipping."""
        norm = torch.linalg.vector_norm(grad, dim=1)
        if self._kind == "norm":
            grad.mul_((self._max / (norm + 1e-6)).clamp(max=1.0).unsqueeze(1))
        elif self._kind == "value":
            grad.clamp_(-self._max, self._max)
        return norm


class Rule(Protocol):
    """How a gradient moves the parameters, given state matrices."""

    n_states: int  # state matrices [S, P], zero at first

    def __call__(
        self, params: Tensor, grad: Tensor, states: list[Tensor], lr: float, updates: Tensor
    ) -> None:
        """Update params and states [S, P] in place; `updates` counts this one, from 1."""
        ...


class Adam:
    """Kingma & Ba 2015; `amsgrad`: Reddi et al. 2018; `decoupled`: Loshchilov & Hutter 2019."""

    def __init__(
        self, betas: list[float], eps: float, weight_decay: float, amsgrad: bool, decoupled: bool
    ):
        self.n_states = 3 if amsgrad else 2
        ops = torch.ops.aten
        # The kernel behind torch.optim's fused=True, called without torch.optim, whose bookkeeping
        # takes longer than the update of a small net; ten separate operations take longer still.
        self._update = partial(
            (ops._fused_adamw_ if decoupled else ops._fused_adam_).default,
            beta1=betas[0],
            beta2=betas[1],
            eps=eps,
            weight_decay=weight_decay,
            amsgrad=amsgrad,
            maximize=False,
        )

    def __call__(
        self, params: Tensor, grad: Tensor, states: list[Tensor], lr: float, updates: Tensor
    ) -> None:
        mean, square, *largest = states
        self._update([params], [grad], [mean], [square], largest, [updates], lr=lr)


class RMSprop:
    """Hinton 2012, uncentred; `momentum` as in torch.optim.RMSprop."""

    def __init__(self, alpha: float, eps: float, weight_decay: float, momentum: float):
        self.alpha = alpha
        self.eps = eps
        self.weight_decay = weight_decay
        self.momentum = momentum
        self.n_states = 2

    def __call__(
        self, params: Tensor, grad: Tensor, states: list[Tensor], lr: float, updates: Tensor
    ) -> None:
        square, velocity = states
        if self.weight_decay:
            grad = grad + self.weight_decay * params
        square.mul_(self.alpha).addcmul_(grad, grad, value=1.0 - self.alpha)
        velocity.mul_(self.momentum).addcdiv_(grad, square.sqrt().add_(self.eps))
        params.sub_(velocity, alpha=lr)


class SGD:
    """Stochastic gradient descent with `momentum` as in torch.optim.SGD."""

    def __init__(self, weight_decay: float, momentum: float):
        self.weight_decay = weight_decay
        self.momentum = momentum
        self.n_states = 1

    def __call__(
        self, params: Tensor, grad: Tensor, states: list[Tensor], lr: float, updates: Tensor
    ) -> None:
        (velocity,) = states
        if self.weight_decay:
            grad = grad + self.weight_decay * params
        velocity.mul_(self.momentum).add_(grad)
        params.sub_(velocity, alpha=lr)


class Optimizer:
    """Clip, then apply a rule at the learning rate of the step."""

    def __init__(self, context: Context, rule: Rule, lr: float, anneal: bool, clip: dict):
        self._rule = rule
        self._lr = lr
        self._anneal_steps = context.total_steps if anneal else None
        self._clip = Clip(**clip)
        self._states: list[Tensor] = []
        self._updates = torch.zeros((), device=context.device)

    def lr(self, env_step: int) -> float:
        """The learning rate at an env step: constant, or annealed linearly to 0 at the last one."""
        if self._anneal_steps is None:
            return self._lr
        return schedules.linear(env_step, self._lr, 0.0, self._anneal_steps)

    def step(self, params: Tensor, grad: Tensor, lr: float) -> Tensor:
        """Update params [S, P] in place with grad [S, P], clipped in place.

        Returns each seed's gradient norm [S] before clipping.
        """
        if not self._states:
            self._states = [torch.zeros_like(params) for _ in range(self._rule.n_states)]
        norm = self._clip(grad)
        self._updates += 1
        self._rule(params, grad, self._states, lr, self._updates)
        return norm


@register("optim", "adamw")
def adamw(
    context: Context,
    *,
    lr: float,
    betas: list[float],
    eps: float,
    weight_decay: float,
    amsgrad: bool,
    anneal: bool,
    clip: dict,
) -> Optimizer:
    """Adam with decoupled weight decay. Loshchilov & Hutter 2019."""
    rule = Adam(betas, eps, weight_decay, amsgrad, decoupled=True)
    return Optimizer(context, rule, lr, anneal, clip)


@register("optim", "adam")
def adam(
    context: Context,
    *,
    lr: float,
    betas: list[float],
    eps: float,
    weight_decay: float,
    amsgrad: bool,
    anneal: bool,
    clip: dict,
) -> Optimizer:
    """Adam; weight decay, if any, is added to the gradient."""
    rule = Adam(betas, eps, weight_decay, amsgrad, decoupled=False)
    return Optimizer(context, rule, lr, anneal, clip)


@register("optim", "rmsprop")
def rmsprop(
    context: Context,
    *,
    lr: float,
    alpha: float,
    eps: float,
    weight_decay: float,
    momentum: float,
    anneal: bool,
    clip: dict,
) -> Optimizer:
    """RMSprop, the optimizer of Mnih et al. 2015 (there centred)."""
    return Optimizer(context, RMSprop(alpha, eps, weight_decay, momentum), lr, anneal, clip)


@register("optim", "sgd")
def sgd(
    context: Context, *, lr: float, weight_decay: float, momentum: float, anneal: bool, clip: dict
) -> Optimizer:
    """Stochastic gradient descent."""
    return Optimizer(context, SGD(weight_decay, momentum), lr, anneal, clip)
