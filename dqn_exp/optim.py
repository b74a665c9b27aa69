"""Gradient clipping and first-order optimizers on one parameter matrix [S, P].

The update rules are those of torch.optim (a test compares them), elementwise on the whole matrix:
one call serves all seeds, and no seed affects another.
Letters: S seeds, P parameters.
"""

import torch
from torch import Tensor

from dqn_exp import schedules
from dqn_exp.compiled import kernels
from dqn_exp.config import schema
from dqn_exp.interfaces import Context, Step
from dqn_exp.registry import register
from dqn_exp.state import TensorState


class Optimizer(TensorState):
    """Clips a gradient, then applies its rule with the learning rate of the env step."""

    config: schema.Optim
    n_states: int  # state matrices [S, P] that the rule keeps, zero at first

    def __init__(self, context: Context, config: schema.Optim):
        self.config = config
        self._anneal_steps = context.total_steps if config.anneal else None
        self._states: list[Tensor] = []

    def start(self, params: Tensor) -> None:
        """Create the state for parameters shaped like params [S, P]."""
        self._states = [torch.zeros_like(params) for _ in range(self.n_states)]

    def state_dict(self) -> dict[str, Tensor]:
        """The matrices that the rule keeps."""
        return {f"moment{i}": state for i, state in enumerate(self._states)}

    def lr(self, env_step: Step) -> float | Tensor:
        """The learning rate at an env step: constant, or annealed linearly to 0 at the last one."""
        if self._anneal_steps is None:
            return self.config.lr
        return schedules.linear(env_step, self.config.lr, 0.0, self._anneal_steps)

    def clip(self, grad: Tensor) -> Tensor:
        """Clip grad [S, P] in place, by value or by each seed's norm; returns the norms [S] before."""
        largest, norm = self.config.clip.max, torch.linalg.vector_norm(grad, dim=1)
        if self.config.clip.kind == "norm":
            grad.mul_((largest / (norm + 1e-6)).clamp(max=1.0).unsqueeze(1))
        elif self.config.clip.kind == "value":
            grad.clamp_(-largest, largest)
        return norm

    def step(
        self,
        params: Tensor,
        grad: Tensor,
        lr: float | Tensor,
        count: Step,
        learns: Tensor | None = None,
    ) -> None:
        """Update params [S, P] in place with the clipped grad [S, P], for the count-th time.

        Args:
            learns: bool [S]; a seed where it is false stays unchanged. None: all seeds learn.
        """
        if learns is None:
            self.apply(params, grad, self._states, lr, count)
            return
        matrices = [params, *self._states]
        before = [matrix.clone() for matrix in matrices]
        self.apply(params, grad, self._states, lr, count)
        for matrix, old in zip(matrices, before, strict=True):
            matrix.copy_(torch.where(learns.unsqueeze(1), matrix, old))

    def apply(
        self,
        params: Tensor,
        grad: Tensor,
        states: list[Tensor],
        lr: float | Tensor,
        count: Step,
    ) -> None:
        """The rule: update params and states [S, P] in place; `count` is 1 the first time."""
        raise NotImplementedError


@register("optim", "adam")
class Adam(Optimizer):
    """Kingma & Ba 2015, weight decay added to the gradient; `amsgrad`: Reddi et al. 2018."""

    config: schema.Adam
    decoupled = False

    def __init__(self, context: Context, config: schema.Adam):
        super().__init__(context, config)
        self.n_states = 3 if config.amsgrad else 2

    def apply(
        self,
        params: Tensor,
        grad: Tensor,
        states: list[Tensor],
        lr: float | Tensor,
        count: Step,
    ) -> None:
        beta1, beta2 = self.config.betas
        eps, weight_decay = self.config.eps, self.config.weight_decay
        kernels.adam(
            params, grad, states, lr, count, self.decoupled, beta1, beta2, eps, weight_decay
        )  # fmt: skip


@register("optim", "adamw")
class AdamW(Adam):
    """Adam with decoupled weight decay. Loshchilov & Hutter 2019."""

    decoupled = True


@register("optim", "rmsprop")
class RMSprop(Optimizer):
    """Hinton 2012, uncentred (Mnih et al. 2015 centre it); `momentum` as in torch.optim.RMSprop."""

    config: schema.RMSprop
    n_states = 2

    def apply(
        self,
        params: Tensor,
        grad: Tensor,
        states: list[Tensor],
        lr: float | Tensor,
        count: Step,
    ) -> None:
        square, velocity = states
        if self.config.weight_decay:
            grad = grad + self.config.weight_decay * params
        square.mul_(self.config.alpha).addcmul_(grad, grad, value=1.0 - self.config.alpha)
        velocity.mul_(self.config.momentum).addcdiv_(grad, square.sqrt().add_(self.config.eps))
        params.sub_(lr * velocity)


@register("optim", "sgd")
class SGD(Optimizer):
    """Stochastic gradient descent with `momentum` as in torch.optim.SGD."""

    config: schema.SGD
    n_states = 1

    def apply(
        self,
        params: Tensor,
        grad: Tensor,
        states: list[Tensor],
        lr: float | Tensor,
        count: Step,
    ) -> None:
        (velocity,) = states
        if self.config.weight_decay:
            grad = grad + self.config.weight_decay * params
        velocity.mul_(self.config.momentum).add_(grad)
        params.sub_(lr * velocity)
