"""What the compiler is helped with changes nothing but the time."""

import re

import pytest
import torch
from torch import Tensor
from torch._higher_order_ops import while_loop
from torch._inductor import config
from torch._inductor.graph import GraphLowering

from dqn_exp.compilation import Graph, stack

CPU = torch.device("cpu")


@pytest.mark.parametrize("dim", [0, 1, 2, -1])
def test_compiled_stack_is_stack(dim: int) -> None:
    values = [torch.arange(6.0).view(2, 3) + 10 * i for i in range(3)]

    def compute(*values: Tensor) -> Tensor:
        return stack(values, dim)

    graph = Graph(compute, CPU)
    assert torch.equal(graph(*values), torch.stack(values, dim))
    assert not graph.failed
    assert torch.equal(stack(values, dim), torch.stack(values, dim))


def test_a_compiled_loop_allocates_only_what_its_kernels_use(monkeypatch: pytest.MonkeyPatch) -> None:
    source: list[str] = []
    monkeypatch.setattr(GraphLowering, "save_output_code", staticmethod(source.append))
    state, mean = torch.ones(8, 64), torch.zeros(8, 64)

    def compute(stop: Tensor) -> tuple[Tensor]:
        def turn(i: Tensor) -> tuple[Tensor]:
            mean.copy_(0.9 * mean + 0.1 * state)  # of both, so it counts as worth a buffer
            state.copy_(state - 0.5 * mean)
            return (i + 1,)

        return while_loop(lambda i: i < stop, turn, (torch.zeros((), dtype=torch.int64),))

    with config.patch(fx_graph_cache=False):
        assert Graph(compute, CPU)(torch.tensor(3)) is not None
    (code,) = (text for text in source if "while (1)" in text)
    loop = code.partition("while (1)")[2].partition("// inductor_entry_impl\n")[0]
    allocated = re.findall(r"empty_strided\(.*&(\w+)_handle\)", loop)
    assert allocated
    unused = [name for name in allocated if f"{name}.data_ptr()" not in loop]
    assert not unused, f"of {allocated}"
