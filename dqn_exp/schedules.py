"""Schedules: pure functions of a step count (env steps or gradient steps).

An int gives a float; a tensor, as compiled code counts, gives a float64 tensor of the same shape.
"""

import math
from typing import overload

import torch
from torch import Tensor


@overload
def linear(step: int, start: float, end: float, steps: int) -> float: ...
@overload
def linear(step: Tensor, start: float, end: float, steps: int) -> Tensor: ...
def linear(step: int | Tensor, start: float, end: float, steps: int) -> float | Tensor:
    """Straight from `start` at step 0 to `end` at `steps`, constant after."""
    if isinstance(step, Tensor):
        return start + (end - start) * (step.double() / steps).clamp(max=1.0)
    return start + (end - start) * min(1.0, step / steps)


@overload
def exponential(step: int, start: float, end: float, steps: float) -> float: ...
@overload
def exponential(step: Tensor, start: float, end: float, steps: float) -> Tensor: ...
def exponential(step: int | Tensor, start: float, end: float, steps: float) -> float | Tensor:
    """end + (start - end) exp(-step / steps): `steps` is the time constant, as in the DQN tutorial."""
    if isinstance(step, Tensor):
        return end + (start - end) * torch.exp(-step.double() / steps)
    return end + (start - end) * math.exp(-step / steps)
