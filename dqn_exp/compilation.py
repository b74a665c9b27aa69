"""Functions on tensors, compiled at their first call."""

import logging
import time
import types
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dqn_exp import compiled_loops

log = logging.getLogger(__name__)


def stack(values: Sequence[Tensor], dim: int) -> Tensor:
    """torch.stack of small tensors, which compiled code would write one by one, each into a tensor of
    its own: there, every element is chosen instead. Not for what is long to compute and read often,
    such as the stages of an integration: compiled readers may each compute it anew.
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


class Graph:
    """A function compiled for the shapes of its first call; static in all but its tensors.

    The function may change tensors in place that it finds elsewhere than in its arguments.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        device: torch.device,
        prepare: Callable[[], None] = lambda: None,  # comes before compilation, and may fail like it
    ):
        # A C++ driver between the kernels, not a Python one: half the time for a small net.
        options: dict[str, Any] = {"cpp_wrapper": True} if device.type == "cpu" else {}
        own = _with_code_of_its_own(function)
        self._graph = torch.compile(own, fullgraph=True, dynamic=False, options=options)
        self._name = function.__qualname__
        self._prepare = prepare
        self._compiled = False
        self.failed = False

    def __call__(self, *args: Tensor) -> Any:
        """The function's result; None, and nothing done, if it cannot be compiled (`failed`)."""
        if self._compiled:
            with torch.no_grad():
                return self._graph(*args)
        began = time.perf_counter()
        try:
            compiled_loops.mend()
            self._prepare()
            with torch.no_grad():
                result = self._graph(*args)
        except Exception as error:  # of whatever kind: each part of the compiler has its own
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            log.warning("cannot compile %s, going on without: %s", self._name, reason)
            log.debug("the compiler's error", exc_info=True)
            self.failed = True
            return None
        log.info("compiled %s in %.1f s", self._name, time.perf_counter() - began)
        self._compiled = True
        return result


def _with_code_of_its_own(function: Callable[..., Any]) -> Callable[..., Any]:
    """A copy of a function or method: the compiler counts by code object, and gives up after eight
    graphs of one, which are the ninth job of a sweep.
    """
    plain = getattr(function, "__func__", function)
    copy = types.FunctionType(
        plain.__code__.replace(),
        plain.__globals__,
        plain.__name__,
        plain.__defaults__,
        plain.__closure__,
    )
    return types.MethodType(copy, function.__self__) if hasattr(function, "__self__") else copy  # type: ignore[attr-defined]
