"""Stops the learning of seeds whose values are no longer finite. Letters: S seeds, B batch."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from dqn_exp.compiled import kernels
from dqn_exp.interfaces import Context, Step, widest_float
from dqn_exp.state import TensorState


class Failure(NamedTuple):
    """The update at which a seed stopped learning."""

    step: int  # env steps made
    priority: float  # largest |TD error| of its minibatch
    grad_norm: float

    def __str__(self) -> str:
        return f"largest |TD error| {self.priority}, gradient norm {self.grad_norm}"


class FiniteGate(TensorState):
    """Decides which seeds learn: a seed stops for good at its first value that is not finite."""

    def __init__(self, context: Context):
        S, device = context.n_seeds, context.device
        self._all_learn = True  # as far as is known without waiting for the device
        self._learns = torch.ones(S, dtype=torch.bool, device=device)
        columns, dtype = len(Failure._fields), widest_float(device)
        self._failure = torch.zeros(columns, S, dtype=dtype, device=device)  # a column is a Failure

    def learns(self, priority: Tensor, norm: Tensor, env_step: Step) -> Tensor | None:
        """Which seeds learn, bool [S], given priorities [S, B] and gradient norms [S]; None: all do."""
        if kernels.free_to_read(norm):
            low, high = torch.aminmax(priority)
            if low.item() >= 0.0 and high.item() + norm.sum().item() < math.inf and self._all_learn:
                return None
            self._all_learn = False
        lowest, largest = torch.aminmax(priority, dim=1)
        learns = (lowest >= 0.0) & (largest + norm < math.inf) & self._learns  # false for NaN
        failure = kernels.stack([torch.zeros_like(norm) + env_step, largest.to(norm), norm], 0)
        failed = self._learns & ~learns
        self._failure.copy_(torch.where(failed, failure.to(self._failure), self._failure))
        self._learns.copy_(learns)
        return learns

    def failures(self) -> dict[int, Failure]:
        """The seeds that have stopped learning, by position."""
        if self._learns.all():
            return {}
        columns = self._failure.T.tolist()
        return {
            i: Failure(int(columns[i][0]), *columns[i][1:])
            for i, learns in enumerate(self._learns.tolist())
            if not learns
        }

    def state_dict(self) -> dict[str, Tensor]:
        """Which seeds learn, and why the others do not."""
        return {"learns": self._learns, "failure": self._failure}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a state of `state_dict`."""
        super().load_state_dict(state)
        self._all_learn = bool(self._learns.all())
