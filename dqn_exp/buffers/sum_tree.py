"""A wide sum tree per seed, for sampling in proportion to priorities.

A node is the sum of FANOUT children, so a few vectorised levels replace the seventeen of a binary
tree. Parents are recomputed from their children, never adjusted by differences, so rounding does not
pile up. The top level is searched as one prefix sum.
Letters: S seeds, B batch, C leaves.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from dqn_exp.types import widest_float

FANOUT = 32
MAX_TOP = 4096  # nodes of the top level: a prefix sum takes less than one more level would


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
        rows = torch.arange(n_seeds, device=device).unsqueeze(1)
        self._levels = [  # each of all seeds, one after the other
            torch.zeros(n_seeds * width, dtype=self.dtype, device=device) for width in widths
        ]
        self._rows = [rows * width for width in widths]  # [S, 1] where a seed begins

    @staticmethod
    def n_bytes(n_seeds: int, n_leaves: int, device: torch.device) -> int:
        """Bytes that a tree takes."""
        return n_seeds * sum(_widths(n_leaves)) * widest_float(device).itemsize

    def total(self) -> Tensor:
        """Sum of each seed's priorities, [S]."""
        return self._top().sum(1)

    def state_dict(self) -> dict[str, Tensor]:
        """All levels: sums made anew from the leaves might differ in the last bit."""
        return {f"tree{level}": sums for level, sums in enumerate(self._levels)}

    def update(self, index: Tensor, priority: Tensor) -> None:
        """Set leaves int64 [S, B] to priorities [S, B]; equal indices must have equal priorities."""
        self._levels[0][self._rows[0] + index] = priority
        for level in range(1, len(self._levels)):
            index = index // FANOUT
            node = self._rows[level] + index
            self._levels[level][node] = self._children(level, node).sum(-1)

    def find(self, mass: Tensor) -> tuple[Tensor, Tensor]:
        """Leaves int64 [S, B] at mass [S, B] in [0, total) of the prefix sums, and their priorities.

        Leaf i is found for sum_{j<i} p_j <= mass < sum_{j<=i} p_j, so never if its priority is 0.
        """
        node, mass, sums = _descend(self._top(), mass)
        for level in reversed(range(1, len(self._levels))):
            children = self._children(level, self._rows[level] + node)
            child, mass, sums = (x.squeeze(-1) for x in _descend(children, mass.unsqueeze(-1)))
            node = node * FANOUT + child
        return node, sums

    def _top(self) -> Tensor:
        """The top level, [S, W]."""
        return self._levels[-1].view(len(self._rows[-1]), -1)

    def _children(self, level: int, node: Tensor) -> Tensor:
        """Sums [..., FANOUT] below the nodes [...] of a level, numbered over all seeds."""
        return self._levels[level - 1].view(-1, FANOUT)[node]


def _descend(sums: Tensor, mass: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The children int64 [..., B] that masses [..., B] fall in, given their sums [..., W], the
    masses left within them, and their own sums.
    """
    prefix = pad(sums, (1, 0)).cumsum(-1)
    # Rounding may bring a mass up to the whole: it belongs to the last non-empty child then.
    below_whole = prefix[..., -1:] * (1.0 - torch.finfo(sums.dtype).eps / 2.0)
    mass = torch.minimum(mass, below_whole)
    child = torch.searchsorted(prefix, mass, right=True) - 1
    return child, mass - prefix.gather(-1, child), sums.gather(-1, child)
