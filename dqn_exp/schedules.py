"""Schedules: pure functions of a step count (env steps or gradient steps) to a float."""

import math


def linear(step: int, start: float, end: float, steps: int) -> float:
    """Straight from `start` at step 0 to `end` at `steps`, constant after."""
    return start + (end - start) * min(1.0, step / steps)


def exponential(step: int, start: float, end: float, steps: float) -> float:
    """end + (start - end) exp(-step / steps): `steps` is the time constant, as in the DQN tutorial."""
    return end + (start - end) * math.exp(-step / steps)
