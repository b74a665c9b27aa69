"""A patch of torch 2.13's compiler: loops allocate their memory once, not at every iteration.

The compiler (inductor, its C++ wrapper) allocates every buffer of a loop body anew at every iteration:
some thirty for an env step and its update, and ten more that no kernel uses. For a small net that takes
longer than the arithmetic. The patch changes where memory comes from, not what is computed. Inductor
plans memory per scope since https://github.com/pytorch/pytorch/pull/120777; the body of a loop is a
scope of its own, and nothing plans across its iterations. Without the patch, in any other version,
everything works, and small nets are slower.
"""

import functools
from typing import Any

import torch

VERSION = "2.13."  # of torch, whose private parts these are; other versions are left unpatched


@functools.cache
def patch_inductor() -> None:
    """Patch the compiler of this process, if it is the version that the patch is for."""
    if not torch.__version__.startswith(VERSION):
        return
    from torch._inductor.codegen.cpp_wrapper_cpu import CppWrapperCpu  # slow to import
    from torch._inductor.graph import GraphLowering

    codegen, plan = GraphLowering.codegen_subgraph, CppWrapperCpu.memory_plan_reuse

    def codegen_subgraph(self: GraphLowering, parent_graph: GraphLowering) -> None:
        codegen(self, parent_graph)
        # Buffers that no kernel needs: noted in the graph of the body, looked up in that around it.
        parent_graph.removed_buffers |= self.removed_buffers

    def memory_plan_reuse(self: CppWrapperCpu) -> None:
        plan(self)
        self.lines = _allocating_before_loops(self.lines)

    GraphLowering.codegen_subgraph = codegen_subgraph
    CppWrapperCpu.memory_plan_reuse = memory_plan_reuse
    # Code made without this, or by another edition of it, is not to be taken from the compiler's cache.
    torch.compiler.config.cache_key_tag += "dqn_exp.inductor_patch 1"


def _allocating_before_loops(lines: list[Any]) -> list[Any]:
    """The lines of a graph with what its outermost loops allocate moved to before each loop, except
    what one iteration hands to the next.
    """
    from torch._inductor.codegen.wrapper import AllocateLine, ReuseLine

    before: dict[int, list[Any]] = {}  # the line that opens a loop -> lines to put before it
    moved: set[int] = set()
    for opening, inside in _loops(lines).items():
        about_memory = _of_temporary_buffers({i: lines[i] for i in inside})
        moved.update(about_memory)
        allocating = [x for x in about_memory.values() if isinstance(x, AllocateLine | ReuseLine)]
        before[opening] = [_reference(x) if isinstance(x, ReuseLine) else x for x in allocating]
    kept = ([] if i in moved else [line] for i, line in enumerate(lines))
    return [line for i, own in enumerate(kept) for line in [*before.get(i, []), *own]]


def _loops(lines: list[Any]) -> dict[int, list[int]]:
    """The line that opens each outermost loop -> the lines of its condition and its body."""
    from torch._inductor.codegen.wrapper import EnterSubgraphLine, ExitSubgraphLine

    loops: dict[int, list[int]] = {}
    depth = 0
    for i, line in enumerate(lines):
        if depth == 0 and line == "while (1) {":
            loops[i] = []
        depth += isinstance(line, EnterSubgraphLine) - isinstance(line, ExitSubgraphLine)
        if depth and loops:
            loops[max(loops)].append(i)
    return loops


def _of_temporary_buffers(lines: dict[int, Any]) -> dict[int, Any]:
    """The lines of a loop, by number, that allocate, reuse or free memory that no iteration hands to
    the next: memory that is freed in the end, whichever buffers have used it in turn.
    """
    from torch._inductor.codegen.wrapper import AllocateLine, FreeIfNotReusedLine, ReuseLine

    def of(*kinds: type) -> dict[int, Any]:
        return {i: line for i, line in lines.items() if isinstance(line, kinds)}

    reuses, frees = of(ReuseLine), of(FreeIfNotReusedLine)
    next_user = {line.node.get_name(): line.reused_as.get_name() for line in reuses.values()}
    freed = {line.node.get_name() for line in frees.values() if not line.is_reused}
    temporary = set()
    for line in of(AllocateLine).values():
        users = [line.node.get_name()]
        while users[-1] in next_user:
            users.append(next_user[users[-1]])
        if users[-1] in freed:
            temporary.update(users)
    about_memory = of(AllocateLine, ReuseLine, FreeIfNotReusedLine)
    return {i: line for i, line in about_memory.items() if line.node.get_name() in temporary}


def _reference(reuse: Any) -> Any:
    """A line by which a buffer takes the memory of another, which keeps it for the next iteration."""
    old, new = reuse.node, reuse.reused_as
    if old.get_size() == new.get_size() and old.get_stride() == new.get_stride():
        return f"auto& {new.get_name()} = {old.get_name()};"
    reuse.delete_old = False
    return reuse
