"""Operations with two implementations: one for plain torch, one that compiles to faster code.

Both compute the same. Algorithms call these and do not know whether they are being compiled.
Letters: S seeds, P parameters.
"""

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

# The kernels behind torch.optim's fused=True (torch 2.6 to 2.13). Around them, torch.optim groups
# tensors and checks arguments, which takes four times as long as the update of a small net: 4 % of
# a training step in plain code. Where they are missing, torch.optim is called.
FUSED_ADAM: list[Any] = [getattr(torch, name, None) for name in ("_fused_adam_", "_fused_adamw_")]


# The engine inside torch.autograd.grad (torch 2.6 to 2.13). For a small net, the checks around it take
# as long as a sixth of forward and backward together, and importing sympy for them takes 0.25 s.
try:
    from torch.autograd.graph import _engine_run_backward
except ImportError:
    _engine_run_backward = None


def gradients(loss: Tensor, leaves: Sequence[Tensor], weight: Tensor) -> Sequence[Tensor]:
    """The gradients of the sum of loss * weight, both [S, B], with respect to leaves."""
    if _engine_run_backward is None:
        return torch.autograd.grad(loss, leaves, weight)
    return _engine_run_backward(
        (loss,), (weight,), False, False, tuple(leaves), False, accumulate_grad=False
    )  # fmt: skip


def stack(values: Sequence[Tensor], dim: int) -> Tensor:
    """torch.stack of small tensors.

    Compiled, torch.stack would write each into a tensor of its own; here every element is selected
    instead. Not for tensors that are expensive and read often: each reader may compute them anew.
    """
    if not torch.compiler.is_compiling():
        return torch.stack(values, dim)  # pyright: ignore[reportArgumentType]
    shape = [1] * (values[0].ndim + 1)
    shape[dim] = len(values)
    place = torch.arange(len(values), device=values[0].device).view(shape)
    *parts, stacked = (value.unsqueeze(dim) for value in values)
    for i, part in enumerate(parts):
        stacked = torch.where(place == i, part, stacked)
    return stacked


def affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x W + b for every seed: [S, B, in], [S, in, out], [S, 1, out] -> [S, B, out]."""
    if torch.compiler.is_compiling():  # the compiler fuses a separate addition with the activation
        return torch.bmm(x, weight) + bias
    return torch.baddbmm(bias, x, weight)


class Views:
    """The weights of a network as views of its parameter matrix [S, P].

    Plain code makes them once, because the matrix only ever changes in place; compiled code makes
    them where they are used, because it takes the matrix itself as an input.
    """

    def __init__(self, views: Callable[[Tensor], list[Tensor]], params: Tensor):
        self._views, self._params = views, params
        self._made = views(params)

    def __call__(self) -> list[Tensor]:
        """The weights [S, *shape], in the network's order."""
        return self._views(self._params) if torch.compiler.is_compiling() else self._made


def free_to_read(tensor: Tensor) -> bool:
    """Whether Python can look at a value without waiting: on the CPU, in plain code."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def sum_children(children: Tensor) -> Tensor:
    """Sums [...] of the children [..., FANOUT] of tree nodes."""
    if torch.compiler.is_compiling():  # vectorised over nodes, not over the children of each
        return functools.reduce(operator.add, children.unbind(-1))
    return children.sum(-1)


def descend(sums: Tensor, mass: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One level of a search in a sum tree.

    Args:
        sums: [..., W] of the children.
        mass: [..., B] to find among their prefix sums.

    Returns:
        The children int64 [..., B] found, the masses left within them, and their sums.
    """
    if torch.compiler.is_compiling():
        return _descend_elementwise(sums, mass)
    prefix = torch.nn.functional.pad(sums, (1, 0)).cumsum(-1)
    mass = torch.minimum(mass, _below(prefix[..., -1:]))
    child = torch.searchsorted(prefix, mass, right=True) - 1
    return child, mass - prefix.gather(-1, child), sums.gather(-1, child)


def levels_at_once(widths: Sequence[int], fanout: int, most: int) -> int:
    """The lowest level of a sum tree that is searched as a whole: compiled, a narrow one is cheaper."""
    widest = fanout if torch.compiler.is_compiling() else most
    return next(i for i, width in enumerate(widths) if width <= widest)


def _descend_elementwise(sums: Tensor, mass: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`descend` as one loop over B without branches; compiled, prefix sums and searches are library
    calls with unpredictable branches.
    """
    first, *others = sums.unsqueeze(-2).unbind(-1)
    prefix = [first]
    for other in others:
        prefix.append(prefix[-1] + other)
    mass = torch.minimum(mass, _below(prefix[-1]))
    child = before = torch.zeros_like(mass)
    own = first
    for i, other in enumerate(others):
        beyond = prefix[i] <= mass
        child = torch.where(beyond, i + 1.0, child)
        before, own = torch.where(beyond, prefix[i], before), torch.where(beyond, other, own)
    return child.long(), mass - before, own


def _below(whole: Tensor) -> Tensor:
    """The largest mass [...] below the wholes [...]: rounding could raise a mass to the whole, which
    would select a child with sum 0.
    """
    return whole * (1.0 - torch.finfo(whole.dtype).eps / 2.0)


def adam(
    params: Tensor,
    grad: Tensor,
    moments: Sequence[Tensor],
    lr: float | Tensor,
    count: int | Tensor,
    decoupled: bool,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
) -> None:
    """Update params [S, P] and moments (mean, square, and the largest square for AMSGrad) in place.

    Plain code calls torch.optim's fused kernel; compiled code states the formula, which the compiler
    fuses with what comes before and after. `count` is 1 at the first update.
    """
    mean, square, *largest = moments
    if not torch.compiler.is_compiling():
        fused, state = FUSED_ADAM[decoupled], ([params], [grad], [mean], [square], largest)
        options: dict[str, Any] = {
            "amsgrad": bool(largest),
            "beta1": beta1,
            "beta2": beta2,
            "eps": eps,
            "lr": lr,
            "weight_decay": weight_decay,
            "maximize": False,
        }
        if fused:
            fused(*state, [torch.full((), float(count), device=params.device)], **options)
        else:
            from torch.optim.adam import adam as torch_adam  # slow to import; it counts by itself

            counts = [torch.full((), float(count) - 1.0, device=params.device)]
            torch_adam(*state, counts, fused=True, decoupled_weight_decay=decoupled, **options)
        return
    if decoupled:
        params.mul_(1.0 - lr * weight_decay)
    else:
        grad = grad + weight_decay * params
    mean.lerp_(grad, 1.0 - beta1)
    square.mul_(beta2).addcmul_(grad, grad, value=1.0 - beta2)
    for maximum in largest:
        torch.maximum(maximum, square, out=maximum)
    counted = torch.as_tensor(count, dtype=torch.float64)
    factor1, factor2 = (1.0 / (1.0 - torch.exp(counted * math.log(b))) for b in (beta1, beta2))
    root = (largest or [square])[-1].sqrt() * factor2.sqrt() + eps
    params.sub_(lr * factor1 * mean / root)
