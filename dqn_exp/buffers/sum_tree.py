"""A wide sum tree per seed, for sampling in proportion to priorities.

A node is the sum of FANOUT children, so a few vectorised levels replace the seventeen of a binary
tree. Parents are recomputed from their children, never adjusted by differences, so rounding does not
pile up. The top level is searched as one prefix sum.
Letters: S seeds, B batch, C leaves.
"""

import torch
from torch import Tensor

from dqn_exp.types import widest_float

FANOUT = 64
MAX_TOP = 1024  # nodes of the top level


def _widths(n_leaves: int) -> list[int]:
    """Nodes of each level of one seed, leaves (rounded up) first; each FANOUT times the next."""
    levels = 1
    while -(-n_leaves // FANOUT ** (levels - 1)) > MAX_TOP:
        levels += 1
    top = -(-n_leaves // FANOUT ** (levels - 1))
    return [top * FANOUT**level for level in reversed(range(levels))]


class SumTree:
    """Non-negative priorities of C leaves for each of S seeds; all zero at first."""

    def __init__(self, n_seeds: int, n_leaves: int, device: torch.device):
        self.dtype = widest_float(device)
        widths = _widths(n_leaves)
        levels = [torch.zeros(n_seeds, width, dtype=self.dtype, device=device) for width in widths]
        self.leaves = levels[0][:, :n_leaves]  # [S, C]
        self._top = levels[-1]
        self._flat = [level.view(-1) for level in levels]
        rows = torch.arange(n_seeds, device=device).unsqueeze(1)
        self._rows = [rows * width for width in widths]

    @staticmethod
    def n_bytes(n_seeds: int, n_leaves: int, device: torch.device) -> int:
        """Bytes that a tree takes."""
        return n_seeds * sum(_widths(n_leaves)) * widest_float(device).itemsize

    def total(self) -> Tensor:
        """Sum of each seed's priorities, [S]."""
        return self._top.sum(1)

    def update(self, index: Tensor, priority: Tensor) -> None:
        """Set leaves int64 [S, B] to priorities [S, B]; equal indices must have equal priorities."""
        self._flat[0][self._rows[0] + index] = priority
        for level in range(1, len(self._flat)):
            index = index // FANOUT
            node = self._rows[level] + index
            self._flat[level][node] = self._children(level, node).sum(-1)

    def find(self, mass: Tensor) -> Tensor:
        """Leaves int64 [S, B] at mass [S, B] in [0, total) of the prefix sums.

        Leaf i is found for sum_{j<i} p_j <= mass < sum_{j<=i} p_j, so never if its priority is 0.
        """
        node, mass = _descend(self._top, mass)
        for level in reversed(range(1, len(self._flat))):
            children = self._children(level, self._rows[level] + node)
            child, mass = (x.squeeze(-1) for x in _descend(children, mass.unsqueeze(-1)))
            node = node * FANOUT + child
        return node

    def _children(self, level: int, node: Tensor) -> Tensor:
        """Sums [..., FANOUT] below the nodes [...] of a level, numbered over all seeds."""
        return self._flat[level - 1].view(-1, FANOUT)[node]


def _descend(sums: Tensor, mass: Tensor) -> tuple[Tensor, Tensor]:
    """The children int64 [..., B] that masses [..., B] fall in, given their sums [..., W], and the
    masses left within them.
    """
    prefix = sums.cumsum(-1)
    # Rounding may bring a mass up to the whole: it belongs to the last non-empty child then.
    mass = torch.minimum(mass, torch.nextafter(prefix[..., -1:], torch.zeros_like(mass)))
    child = torch.searchsorted(prefix, mass, right=True)
    before = prefix.gather(-1, (child - 1).clamp(min=0)) * (child > 0)
    return child, mass - before
