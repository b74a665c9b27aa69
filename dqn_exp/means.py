"""Means of metrics over updates, by tag, kept on the device. Letters: S seeds, B batch."""

import re
import reprlib
from collections.abc import Mapping

import torch
from torch import Tensor

from dqn_exp.state import State, require

TAG = re.compile(r"[\w/.-]+")
BLOCK = 32  # updates whose metrics are summed at once: one by one costs as much as Adam


class Means:
    """Adds up metrics of updates until they are taken.

    Args:
        like: a tensor [S, ...] of the device and type that sums should have.
    """

    def __init__(self, like: Tensor):
        self.block = BLOCK
        self._zeros = like.new_zeros(len(like))  # [S]
        self._sums: dict[str, Tensor] = {}  # tag -> [S]
        self._count = torch.zeros_like(self._zeros)
        self._pending: list[Mapping[str, Tensor]] = []

    def expect(self, tags: list[str]) -> None:
        """Make room for tags; compiled code cannot do that."""
        self._sums |= {tag: self._zeros.clone() for tag in tags if tag not in self._sums}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add an update's metrics: tag -> [S], or [S, B], of which the mean over B counts."""
        if self.block == 1:
            for tag, value in values.items():
                self._sums[tag].add_(value.mean(-1) if value.ndim > 1 else value)
            self._count.add_(1.0)
            return
        self._pending.append(values)
        if len(self._pending) >= self.block:
            self._sum_pending()

    def take(self) -> dict[str, Tensor]:
        """Tag -> [S], averaged over the updates since the last call; empty if there were none."""
        self._sum_pending()
        if not self._count[0]:
            return {}
        means = {tag: total / self._count for tag, total in self._sums.items()}
        for total in (*self._sums.values(), self._count):
            total.zero_()
        return means

    def state_dict(self) -> State:
        """Sums by tag, and the metrics not yet summed."""
        tags = list(self._pending[0]) if self._pending else []
        pending = {
            f"pending{i}": torch.stack([v[tag] for v in self._pending]) for i, tag in enumerate(tags)
        }
        sums = torch.stack([*self._sums.values(), self._count])
        return {"tags": list(self._sums), "pending_tags": tags, "sums": sums, **pending}

    def load_state_dict(self, state: State) -> None:
        """Continue from a state of `state_dict`.

        Raises:
            ValueError: it does not fit.
        """
        tags, pending_tags = state["tags"], state["pending_tags"]
        if not all(isinstance(tag, str) and TAG.fullmatch(tag) for tag in tags):
            raise ValueError(f"tags of metrics are {reprlib.repr(tags)}")
        if pending_tags not in ([], tags) and tags:
            raise ValueError(f"tags of metrics are {reprlib.repr(pending_tags)} and {tags}")
        shape = torch.Size([len(tags) + 1, len(self._zeros)])
        require("metric sums", state["sums"], self._zeros.dtype, shape)
        *sums, count = state["sums"].to(self._zeros.device).unbind()
        self.expect(tags)
        for tag, total in zip(tags, sums, strict=True):
            self._sums[tag].copy_(total)
        self._count.copy_(count)
        rows = [state[f"pending{i}"].to(self._zeros) for i in range(len(pending_tags))]
        if any(len(row) >= BLOCK or row.shape[1] != len(self._zeros) for row in rows):
            raise ValueError(f"pending metrics of shapes {[list(row.shape) for row in rows]}")
        updates = zip(*(row.unbind() for row in rows), strict=True)
        self._pending = [dict(zip(pending_tags, values, strict=True)) for values in updates]

    def _sum_pending(self) -> None:
        if not self._pending:
            return
        self.expect(list(self._pending[0]))
        for tag in self._pending[0]:
            values = torch.stack([each[tag] for each in self._pending])  # [updates, S] or with B
            self._sums[tag].add_((values.mean(-1) if values.ndim > 2 else values).sum(0))
        self._count.add_(float(len(self._pending)))
        self._pending.clear()
