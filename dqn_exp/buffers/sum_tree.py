"""A wide sum tree per seed, for sampling in proportion to priorities.

A node is the sum of FANOUT children, two lines of the cache, so that a few vectorised levels replace
the twenty of a binary tree. Parents are recomputed from their children, never adjusted by differences,
so rounding errors do not accumulate.
Letters: S seeds, B batch, C leaves.
"""

import torch
from torch import Tensor

from dqn_exp.buffers.memory import allocate
from dqn_exp.compiled import kernels
from dqn_exp.interfaces import widest_float
from dqn_exp.state import require

FANOUT = 16
LARGEST = 1e200  # priorities and their sums are smaller
MAX_SEARCHED = 4096  # nodes of a level that plain code searches at once


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
        # A level holds the nodes of all seeds, one seed after the other.
        self._levels = [allocate((n_seeds * width,), self.dtype, device) for width in widths]
        self._rows = [rows * width for width in widths]  # [S, 1] where a seed begins

    @staticmethod
    def n_bytes(n_seeds: int, n_leaves: int, device: torch.device) -> int:
        """Size of a tree in bytes."""
        return n_seeds * sum(_widths(n_leaves)) * widest_float(device).itemsize

    def total(self) -> Tensor:
        """Sum of each seed's priorities, [S]."""
        return self._whole_level(len(self._levels) - 1).sum(1)

    def state_dict(self) -> dict[str, Tensor]:
        """All levels, because sums recomputed from the leaves could differ in the last bit."""
        return {f"tree{level}": sums for level, sums in enumerate(self._levels)}

    def require_sums(self) -> None:
        """Check loaded levels.

        Compiled code may leave the highest level as it was before the last update, because the next one
        computes all of it before it is read; here it is made right.

        Raises:
            ValueError: a node is not a finite number >= 0, or not the sum of its children.
        """
        for level, sums in enumerate(self._levels):
            require(f"tree{level}", sums, sums.dtype, sums.shape, below=LARGEST)
            below = self._levels[level - 1].view(-1, FANOUT).sum(1) if level else sums
            if torch.allclose(sums, below):
                continue
            if level < len(self._levels) - 1:
                raise ValueError(f"tree{level} does not hold the sums of priorities")
            sums.copy_(below)

    def update(self, index: Tensor, priority: Tensor) -> None:
        """Set leaves int64 [S, B] to priorities [S, B]; equal indices must have equal priorities."""
        self._levels[0][self._rows[0] + index] = priority
        for level in range(1, len(self._levels)):
            index = index // FANOUT
            if self._widths[level] <= 4 * index.shape[1]:  # all nodes, in order: faster
                self._levels[level].copy_(
                    kernels.sum_children(self._levels[level - 1].view(-1, FANOUT))
                )
            else:
                node = self._rows[level] + index
                self._levels[level][node] = kernels.sum_children(self._children(level, node))

    def find(self, mass: Tensor) -> tuple[Tensor, Tensor]:
        """Leaves int64 [S, B] at mass [S, B] in [0, total) of the prefix sums, and their priorities.

        Leaf i is found for sum_{j<i} p_j <= mass < sum_{j<=i} p_j, so never if its priority is 0.
        """
        first = kernels.levels_at_once(self._widths, FANOUT, MAX_SEARCHED)
        node, mass, sums = kernels.descend(self._whole_level(first), mass)
        for level in reversed(range(1, first + 1)):
            children = self._children(level, self._rows[level] + node)
            child, mass, sums = (x.squeeze(-1) for x in kernels.descend(children, mass.unsqueeze(-1)))
            node = node * FANOUT + child
        return node, sums

    def _whole_level(self, level: int) -> Tensor:
        """The sums of all nodes of a level, [S, W]."""
        return self._levels[level].view(-1, self._widths[level])

    def _children(self, level: int, node: Tensor) -> Tensor:
        """Sums [..., FANOUT] below the nodes [...] of a level, numbered over all seeds."""
        return self._levels[level - 1].view(-1, FANOUT)[node]
