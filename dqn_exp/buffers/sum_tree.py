"""A wide sum tree per seed, for sampling in proportion to priorities.

A node is the sum of FANOUT children, two lines of the cache, so that a few vectorised levels replace
the twenty of a binary tree. Parents are recomputed from their children, never adjusted by differences,
so rounding does not pile up.
Letters: S seeds, B batch, C leaves.
"""

import functools
import operator

import torch
from torch import Tensor
from torch.nn.functional import pad

from dqn_exp.buffers.memory import allocate
from dqn_exp.types import widest_float

FANOUT = 16
MAX_SEARCHED = 4096  # nodes of a level that are searched at once, operation by operation


def _widths(n_leaves: int) -> list[int]:
    """Nodes of each level of one seed, leaves (rounded up) first; each FANOUT times the next."""
    above = 0
    while FANOUT ** (above + 1) < n_leaves:
        above += 1
    top = -(-n_leaves // FANOUT**above)
    return [top * FANOUT**level for level in reversed(range(above + 1))]


class SumTree:
    """Non-negative priorities of C leaves for each of S seeds; all zero at first."""

    def __init__(self, n_seeds: int, n_leaves: int, device: torch.device):
        self.dtype = widest_float(device)
        self._widths = widths = _widths(n_leaves)
        rows = torch.arange(n_seeds, device=device).unsqueeze(1)
        # Each of all seeds, one after the other.
        self._levels = [allocate((n_seeds * width,), self.dtype, device) for width in widths]
        self._rows = [rows * width for width in widths]  # [S, 1] where a seed begins

    @staticmethod
    def n_bytes(n_seeds: int, n_leaves: int, device: torch.device) -> int:
        """Bytes that a tree takes."""
        return n_seeds * sum(_widths(n_leaves)) * widest_float(device).itemsize

    def total(self) -> Tensor:
        """Sum of each seed's priorities, [S]."""
        return self._whole_level(len(self._levels) - 1).sum(1)

    def state_dict(self) -> dict[str, Tensor]:
        """All levels: sums made anew from the leaves might differ in the last bit."""
        return {f"tree{level}": sums for level, sums in enumerate(self._levels)}

    def update(self, index: Tensor, priority: Tensor) -> None:
        """Set leaves int64 [S, B] to priorities [S, B]; equal indices must have equal priorities."""
        self._levels[0][self._rows[0] + index] = priority
        for level in range(1, len(self._levels)):
            index = index // FANOUT
            if self._widths[level] <= 4 * index.shape[1]:  # all of them: in order, that is quicker
                self._levels[level].copy_(_sum(self._levels[level - 1].view(-1, FANOUT)))
            else:
                node = self._rows[level] + index
                self._levels[level][node] = _sum(self._children(level, node))

    def find(self, mass: Tensor) -> tuple[Tensor, Tensor]:
        """Leaves int64 [S, B] at mass [S, B] in [0, total) of the prefix sums, and their priorities.

        Leaf i is found for sum_{j<i} p_j <= mass < sum_{j<=i} p_j, so never if its priority is 0.
        """
        # Compiled, a narrow level is cheaper than a wide one; if not, each costs its operations.
        at_once = FANOUT if torch.compiler.is_compiling() else MAX_SEARCHED
        first = next(i for i, width in enumerate(self._widths) if width <= at_once)
        node, mass, sums = _descend(self._whole_level(first), mass)
        for level in reversed(range(1, first + 1)):
            children = self._children(level, self._rows[level] + node)
            child, mass, sums = (x.squeeze(-1) for x in _descend(children, mass.unsqueeze(-1)))
            node = node * FANOUT + child
        return node, sums

    def _whole_level(self, level: int) -> Tensor:
        """The sums of all nodes of a level, [S, W]."""
        return self._levels[level].view(-1, self._widths[level])

    def _children(self, level: int, node: Tensor) -> Tensor:
        """Sums [..., FANOUT] below the nodes [...] of a level, numbered over all seeds."""
        return self._levels[level - 1].view(-1, FANOUT)[node]


def _sum(children: Tensor) -> Tensor:
    """Sums [...] of children [..., FANOUT]."""
    if torch.compiler.is_compiling():  # which sums nodes side by side, not the children of each
        return functools.reduce(operator.add, children.unbind(-1))
    return children.sum(-1)


def _descend(sums: Tensor, mass: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The children int64 [..., B] that masses [..., B] fall in, given their sums [..., W], the
    masses left within them, and their own sums.
    """
    if torch.compiler.is_compiling():
        return _descend_one_by_one(sums, mass)
    prefix = pad(sums, (1, 0)).cumsum(-1)
    mass = torch.minimum(mass, _below(prefix[..., -1:]))
    child = torch.searchsorted(prefix, mass, right=True) - 1
    return child, mass - prefix.gather(-1, child), sums.gather(-1, child)


def _descend_one_by_one(sums: Tensor, mass: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same in elementwise steps, one for each child: a single loop over B, without branches, when
    compiled, where prefix sums and searches are calls of functions that guess at every comparison.
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
    """The largest mass [...] below the wholes [...]: rounding may bring one up to the whole, but it
    belongs to the last child then that is not empty.
    """
    return whole * (1.0 - torch.finfo(whole.dtype).eps / 2.0)
