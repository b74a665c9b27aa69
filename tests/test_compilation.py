"""What helps the compiler changes nothing but the time."""

import re

import pytest
import torch
from torch import Tensor
from torch._higher_order_ops import while_loop
from torch._inductor import config
from torch._inductor.graph import GraphLowering

from dqn_exp.compiled.graph import Graph
from dqn_exp.compiled.inductor_patch import VERSION
from dqn_exp.compiled.kernels import stack

CPU = torch.device("cpu")


def test_compiled_stack_is_stack() -> None:
    values, dims = [torch.arange(6.0).view(2, 3) + 10 * i for i in range(3)], (0, 1, 2, -1)

    def compute(*values: Tensor) -> list[Tensor]:
        return [stack(values, dim) for dim in dims]

    graph = Graph(compute, CPU, "test")
    compiled = graph(*values)
    assert not graph.failed
    for dim, result in zip(dims, compiled, strict=True):
        assert torch.equal(result, torch.stack(values, dim))
        assert torch.equal(stack(values, dim), torch.stack(values, dim))


@pytest.mark.skipif(not torch.__version__.startswith(VERSION), reason=f"patched in torch {VERSION}x")
def test_a_compiled_loop_allocates_once_what_its_kernels_use(monkeypatch: pytest.MonkeyPatch) -> None:
    source: list[str] = []
    monkeypatch.setattr(GraphLowering, "save_output_code", staticmethod(source.append))
    state, mean = torch.ones(8, 64), torch.full((8, 64), 0.5)

    def turn(i: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        # Products have buffers: one that others take over, in the same shape and in another, and one
        # that the next turn gets.
        product = state.t() @ (state @ state.t() @ mean / 600)
        mean.copy_(0.9 * mean + 0.1 * state)  # of both, so it counts as worth a buffer
        state.copy_(state - 0.5 * mean)
        return i + 1, x.t() @ product / (1 + product.sum())

    def compute(stop: Tensor) -> tuple[Tensor, Tensor]:
        start = torch.zeros((), dtype=torch.int64), torch.ones(64, 64)
        return while_loop(lambda i, x: i < stop, turn, start)

    with config.patch(fx_graph_cache=False):
        _, result = Graph(compute, CPU, "test")(torch.tensor(3))
    (code,) = (text for text in source if "while (1)" in text)
    before, _, loop = code.partition("// inductor_entry_impl\n")[0].partition("while (1)")
    outside, inside = (re.findall(r"empty_strided\(.*&(\w+)_handle\)", text) for text in (before, loop))
    handed_on = re.findall(r"= std::move\((\w+)\)", loop)
    assert set(inside) < set(handed_on)
    once = [name for name in outside if "_body_" in name]
    assert len(once) >= 3
    assert not [name for name in once if not re.search(rf"\b{name}\b", loop)], "no kernel uses it"

    compiled = state.clone(), mean.clone()
    state.fill_(1.0)
    mean.fill_(0.5)
    i, x = torch.tensor(0), torch.ones(64, 64)
    for _ in range(3):
        i, x = turn(i, x)
    torch.testing.assert_close((result, *compiled), (x, state, mean))
