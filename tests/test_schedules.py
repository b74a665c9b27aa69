"""Schedules at their ends, between, and long after."""

import math
from itertools import pairwise

import pytest
import torch

from dqn_exp import schedules


@pytest.mark.parametrize(
    ("step", "value"),
    [(0, 1.0), (250, 0.775), (500, 0.55), (999, 0.1009), (1000, 0.1), (1001, 0.1), (10**9, 0.1)],
)
def test_linear_falls_straight_from_start_to_end_and_stays(step: int, value: float):
    assert schedules.linear(step, 1.0, 0.1, 1000) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(("step", "value"), [(0, 0.4), (5, 0.7), (10, 1.0), (11, 1.0)])
def test_linear_may_rise(step: int, value: float):
    assert schedules.linear(step, 0.4, 1.0, 10) == pytest.approx(value, rel=1e-12)


def test_linear_of_one_step_jumps_to_the_end():
    assert [schedules.linear(step, 3.0, 7.0, 1) for step in range(3)] == [3.0, 7.0, 7.0]


@pytest.mark.parametrize("schedule", [schedules.linear, schedules.exponential])
def test_every_step_before_the_end_changes_the_value(schedule):
    values = [schedule(step, 1.0, 0.05, 100) for step in range(101)]
    assert all(after < before for before, after in pairwise(values))


@pytest.mark.parametrize("schedule", [schedules.linear, schedules.exponential])
@pytest.mark.parametrize(("start", "end"), [(1.0, 0.05), (0.4, 1.0)])
def test_tensors_of_steps_give_what_ints_give(schedule, start: float, end: float):
    steps = [0, 1, 7, 99, 100, 101, 2**33]
    values = schedule(torch.tensor(steps), start, end, 100)
    assert values.dtype == torch.float64
    assert values.tolist() == pytest.approx([schedule(s, start, end, 100) for s in steps], rel=1e-14)
    assert schedule(torch.tensor(7), start, end, 100).shape == ()


@pytest.mark.parametrize("schedule", [schedules.linear, schedules.exponential])
def test_equal_ends_make_a_constant(schedule):
    assert {schedule(step, 0.3, 0.3, 10) for step in (0, 1, 5, 10, 100)} == {0.3}


@pytest.mark.parametrize(
    ("step", "value"),
    [(0, 0.9), (1000, 0.05 + 0.85 / math.e), (2000, 0.05 + 0.85 / math.e**2), (10**6, 0.05)],
)
def test_exponential_loses_a_factor_e_each_time_constant(step: int, value: float):
    assert schedules.exponential(step, 0.9, 0.05, 1000) == pytest.approx(value, rel=1e-12)


def test_exponential_halves_the_distance_in_ln_2_time_constants():
    assert schedules.exponential(7, 1.0, 0.0, 7 / math.log(2)) == pytest.approx(0.5, rel=1e-12)
