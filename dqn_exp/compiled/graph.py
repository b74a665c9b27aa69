"""Functions on tensors, compiled at their first call."""

import logging
import time
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# The only loop that compiled code can contain; it has no public name in torch 2.6 to 2.13. Where it is
# missing, nothing compiles, and the run says so and continues without.
try:
    from torch._higher_order_ops import while_loop
except ImportError:
    while_loop = None

from dqn_exp.compiled.inductor_patch import patch_inductor
from dqn_exp.signals import held_back

__all__ = ["Graph", "while_loop"]
log = logging.getLogger(__name__)


class Graph:
    """A function compiled for the shapes of its first call; static in everything but its tensors.

    The function may change tensors in place that are not among its arguments.

    Args:
        prepare: called once, before compilation or by `prepare`; if it fails, so does compilation.
        what: what the function computes, for messages.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        device: torch.device,
        what: str,
        prepare: Callable[[], None] = lambda: None,
    ):
        # A C++ driver between the kernels instead of a Python one: half the time for a small net.
        self._options: dict[str, Any] = {"cpp_wrapper": True} if device.type == "cpu" else {}
        self._function = _with_code_of_its_own(function)
        self._graph: Callable[..., Any] | None = None  # torch.compile imports a lot: at the first call
        self._what = what
        self._prepare, self._prepared = prepare, False
        self.failed = False

    def __call__(self, *args: Tensor) -> Any:
        """The function's result; None, with nothing done, if it cannot be compiled (`failed`)."""
        if self._graph:
            with torch.no_grad():
                return self._graph(*args)
        began = time.perf_counter()
        log.info("compiling the %s (4 to 35 s, less once it is cached) ...", self._what)
        try:
            if while_loop is None:
                raise ImportError(f"torch {torch.__version__} has no while_loop for compiled code")
            patch_inductor()
            self.prepare()
            if self.failed:
                return None
            graph = torch.compile(self._function, fullgraph=True, dynamic=False, options=self._options)
            # Ctrl-C would end the C++ compiler, too, and this run would continue without its code.
            with torch.no_grad(), held_back():
                result = graph(*args)
        except Exception as error:  # each part of the compiler has exceptions of its own
            self._fail(error)
            return None
        log.info("compiled in %.1f s", time.perf_counter() - began)
        self._graph = graph
        return result

    def prepare(self) -> None:
        """Do what comes before compilation, unless it has been done or has failed."""
        if self._prepared or self.failed:
            return
        try:
            self._prepare()
            self._prepared = True
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        log.warning("cannot compile the %s, continuing without compilation: %s", self._what, reason)
        log.debug("the compiler's error", exc_info=True)
        self.failed = True


def _with_code_of_its_own(function: Callable[..., Any]) -> Callable[..., Any]:
    """A copy of a function or method with its own code object: the compiler's recompile limit is 8 per
    code object, and the ninth job of a sweep would reach it.
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
