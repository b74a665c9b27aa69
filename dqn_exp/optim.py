"""Gradient clipping and first-order optimizers on one parameter matrix [S, P].

The update rules are those of torch.optim (a test holds them equal), elementwise on the whole matrix:
one call serves all seeds, and no seed touches another.
Letters: S seeds, P parameters.
"""

import math

import torch
from torch import Tensor

from dqn_exp import schedules
from dqn_exp.registry import register
from dqn_exp.types import Context, Step, TensorState


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


class Optimizer(TensorState):
    """Clips a gradient, then applies a rule at the learning rate of the step."""

    n_states: int  # state matrices [S, P] that the rule keeps, zero at first

    def __init__(self, context: Context, lr: float, anneal: bool, clip: dict):
        self._lr = lr
        self._anneal_steps = context.total_steps if anneal else None
        self.clip = Clip(**clip)
        self._states: list[Tensor] = []

    def start(self, params: Tensor) -> None:
        """Make the state for parameters like params [S, P]."""
        self._states = [torch.zeros_like(params) for _ in range(self.n_states)]

    def state_dict(self) -> dict[str, Tensor]:
        """The matrices that the rule keeps."""
        return {f"moment{i}": state for i, state in enumerate(self._states)}

    def lr(self, env_step: Step) -> float | Tensor:
        """The learning rate at an env step: constant, or annealed linearly to 0 at the last one."""
        if self._anneal_steps is None:
            return self._lr
        return schedules.linear(env_step, self._lr, 0.0, self._anneal_steps)

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
            learns: bool [S]; nothing of a seed changes where it is false. None: all learn.
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

    decoupled = False

    def __init__(
        self,
        context: Context,
        *,
        lr: float,
        betas: list[float],
        eps: float,
        weight_decay: float,
        amsgrad: bool,
        anneal: bool,
        clip: dict,
    ):
        super().__init__(context, lr, anneal, clip)
        self.n_states = 3 if amsgrad else 2
        # The kernels behind torch.optim's fused=True, called without torch.optim, whose bookkeeping
        # takes longer than the update of a small net; ten separate operations take longer still.
        self._count = torch.zeros((), device=context.device)
        kernels = torch._fused_adam_, torch._fused_adamw_  # pyright: ignore[reportPrivateImportUsage]
        self._kernel = kernels[self.decoupled]
        self._options = {
            "beta1": betas[0],
            "beta2": betas[1],
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": False,
        }

    def apply(
        self,
        params: Tensor,
        grad: Tensor,
        states: list[Tensor],
        lr: float | Tensor,
        count: Step,
    ) -> None:
        if isinstance(count, Tensor):  # in compiled code
            self._formula(params, grad, states, lr, count)
            return
        mean, square, *largest = states
        self._count.fill_(count)
        self._kernel([params], [grad], [mean], [square], largest, [self._count], lr=lr, **self._options)

    def _formula(
        self,
        params: Tensor,
        grad: Tensor,
        states: list[Tensor],
        lr: float | Tensor,
        count: Tensor,
    ) -> None:
        """The kernel's arithmetic, which the compiler merges with what comes before and after."""
        mean, square, *largest = states
        beta1, beta2, decay = (self._options[name] for name in ("beta1", "beta2", "weight_decay"))
        if self.decoupled:
            params.mul_(1.0 - lr * decay)
        else:
            grad = grad + decay * params
        mean.lerp_(grad, 1.0 - beta1)
        square.mul_(beta2).addcmul_(grad, grad, value=1.0 - beta2)
        for maximum in largest:
            torch.maximum(maximum, square, out=maximum)
        factor1, factor2 = (
            1.0 / (1.0 - torch.exp(count.double() * math.log(b))) for b in (beta1, beta2)
        )
        root = (largest or [square])[-1].sqrt() * factor2.sqrt() + self._options["eps"]
        params.sub_(lr * factor1 * mean / root)


@register("optim", "adamw")
class AdamW(Adam):
    """Adam with decoupled weight decay. Loshchilov & Hutter 2019."""

    decoupled = True


@register("optim", "rmsprop")
class RMSprop(Optimizer):
    """Hinton 2012, uncentred (Mnih et al. 2015 centre it); `momentum` as in torch.optim.RMSprop."""

    n_states = 2

    def __init__(
        self,
        context: Context,
        *,
        lr: float,
        alpha: float,
        eps: float,
        weight_decay: float,
        momentum: float,
        anneal: bool,
        clip: dict,
    ):
        super().__init__(context, lr, anneal, clip)
        self._alpha, self._eps = alpha, eps
        self._weight_decay, self._momentum = weight_decay, momentum

    def apply(
        self,
        params: Tensor,
        grad: Tensor,
        states: list[Tensor],
        lr: float | Tensor,
        count: Step,
    ) -> None:
        square, velocity = states
        if self._weight_decay:
            grad = grad + self._weight_decay * params
        square.mul_(self._alpha).addcmul_(grad, grad, value=1.0 - self._alpha)
        velocity.mul_(self._momentum).addcdiv_(grad, square.sqrt().add_(self._eps))
        params.sub_(lr * velocity)


@register("optim", "sgd")
class SGD(Optimizer):
    """Stochastic gradient descent with `momentum` as in torch.optim.SGD."""

    n_states = 1

    def __init__(
        self,
        context: Context,
        *,
        lr: float,
        weight_decay: float,
        momentum: float,
        anneal: bool,
        clip: dict,
    ):
        super().__init__(context, lr, anneal, clip)
        self._weight_decay, self._momentum = weight_decay, momentum

    def apply(
        self,
        params: Tensor,
        grad: Tensor,
        states: list[Tensor],
        lr: float | Tensor,
        count: Step,
    ) -> None:
        (velocity,) = states
        if self._weight_decay:
            grad = grad + self._weight_decay * params
        velocity.mul_(self._momentum).add_(grad)
        params.sub_(lr * velocity)
