"""Statistics of groups of seeds, and between two groups.

Letters: S seeds, T points of a curve, R resamples, P points of a profile.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from gymnasium.envs.registration import registry
from scipy import stats

from dqn_exp.analysis.groups import Group
from dqn_exp.analysis.runs import EVALUATION, Series
from dqn_exp.statistics import band, confidence_interval, interquartile_mean

WINDOW = 100  # training episodes whose mean is a point of the curve
POINTS = 60  # of a curve at most
RESAMPLES = 10_000
LEVEL = 0.05  # of an interval (two-sided), and of all comparisons of a report together
POWER = 0.8  # with which the seeds needed would tell two groups apart


class Curve(NamedTuple):
    """The IQM over seeds, by env step, with its 95 % bootstrap interval."""

    steps: np.ndarray  # [T]
    middle: np.ndarray  # [T]
    ends: np.ndarray | None  # [2, T]; None for one seed
    n_seeds: int


class Result(NamedTuple):
    """The final evaluation of a group, one score a seed."""

    scores: np.ndarray  # [S] in the order of seeds; empty if no run has finished
    iqm: float
    interval: tuple[float, float] | None
    median: float
    mean: float
    target: float | None  # the return that counts as solved, if one is known
    optimality_gap: float | None  # mean shortfall below the target, in returns
    reached: list[int]  # env steps of the evaluation that first reached the target, of those seeds
    wall_seconds: float  # of all runs of the group


class Comparison(NamedTuple):
    """Whether the seeds of one group score higher than those of another."""

    probability: float  # P(X > Y) + P(X = Y) / 2
    interval: tuple[float, float]
    p: float  # of the Mann-Whitney test, Holm's correction for all comparisons included
    needed: int | None  # about how many seeds of each would tell them apart; None: no number would

    @property
    def told_apart(self) -> bool:
        """Whether both the interval and the test say so."""
        low, high = self.interval
        return (low > 0.5 or high < 0.5) and self.p < LEVEL

    def reversed(self) -> "Comparison":
        """The same with the groups exchanged."""
        low, high = self.interval
        return self._replace(probability=1 - self.probability, interval=(1 - high, 1 - low))


def result(group: Group) -> Result:
    """The results of a group."""
    scores = np.array(list(group.final().values()))
    goal, known = target(group), len(scores) > 0
    gap = float(np.maximum(goal - scores, 0).mean()) if known and goal is not None else None
    evaluations = group.metric(EVALUATION).values()
    first = [s.steps[s.values >= goal][:1] for s in evaluations] if goal is not None else []
    walls = [run.summary.get("wall_seconds") for run in group.runs]
    return Result(
        scores=scores,
        iqm=float(interquartile_mean(scores)) if known else math.nan,
        interval=confidence_interval(scores) if known else None,
        median=float(np.median(scores)) if known else math.nan,
        mean=float(scores.mean()) if known else math.nan,
        target=goal,
        optimality_gap=gap,
        reached=[int(step) for steps in first for step in steps],
        wall_seconds=sum(w for w in walls if isinstance(w, int | float) and 0 <= w < 1e12),
    )


def target(group: Group) -> float | None:
    """The return that counts as solved: `eval.solved`, else the threshold of Gymnasium's registry."""
    solved = [run.settings.get("eval.solved") for run in group.runs]
    if known := [value for value in solved if isinstance(value, int | float)]:
        return float(known[0])
    spec = registry.get(group.settings["env.id"])  # gymnasium.spec would import what "module:id" names
    return spec.reward_threshold if spec else None


def evaluation_curve(series: Mapping[int, Series]) -> Curve | None:
    """The curve over at most 60 of the env steps at which all seeds have a value; None without any."""
    if not series:
        return None
    steps = sorted(set.intersection(*(set(s.steps.tolist()) for s in series.values())))
    values = [s.values[np.searchsorted(s.steps, steps, side="right") - 1] for s in series.values()]
    drawn = np.unique(np.linspace(0, len(steps) - 1, POINTS).round().astype(int)) if steps else []
    return _curve(np.array(steps)[drawn], np.array(values)[:, drawn]) if steps else None


def training_curve(series: Mapping[int, Series]) -> Curve | None:
    """The curve of each seed's mean over its last 100 episodes, on a grid of env steps.

    The mean is over fewer at first. The curve ends where the first seed ends.
    """
    ends = [s.steps[-1] for s in series.values() if len(s.steps)]
    if not ends:
        return None
    begin, end = max(int(s.steps[0]) for s in series.values()), int(min(ends))
    grid = np.unique(np.linspace(begin, end, POINTS).round().astype(np.int64)) if end >= begin else []
    values = np.array([recent_mean(s, np.asarray(grid)) for s in series.values()])
    return _curve(np.asarray(grid), values) if len(grid) else None


def recent_mean(series: Series, grid: np.ndarray) -> np.ndarray:
    """The mean of the last 100 values (fewer at first) up to each step of a grid [T].

    The grid begins at the first value or later.
    """
    sums = np.concatenate([[0.0], np.cumsum(series.values)])
    end = np.searchsorted(series.steps, grid, side="right")
    begin = np.maximum(end - WINDOW, 0)
    return (sums[end] - sums[begin]) / (end - begin)


def _curve(steps: np.ndarray, values: np.ndarray) -> Curve:
    """The curve of values [S, T]."""
    ends = band(values) if len(values) > 1 else None
    return Curve(steps, interquartile_mean(values), ends, len(values))


def profile(scores: np.ndarray, grid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The share of scores [S] above each value of a grid [P], and the ends [2, P] of its interval.

    Performance profile: Agarwal et al. 2021, https://arxiv.org/abs/2108.13264.
    """
    above = (scores[:, None] > grid).astype(float)
    shares = _resampled(len(scores), seed=0) @ above / len(scores)
    return above.mean(0), np.percentile(shares, [2.5, 97.5], axis=0)


def compare(groups: Sequence[np.ndarray]) -> dict[tuple[int, int], Comparison]:
    """Every pair (i, j), i < j, of groups of scores [S] with at least two seeds each."""
    pairs = [
        (i, j)
        for i, x in enumerate(groups)
        for j, y in enumerate(groups)
        if i < j and min(len(x), len(y)) > 1
    ]
    tests = [stats.mannwhitneyu(groups[i], groups[j]).pvalue for i, j in pairs]
    return {
        (i, j): Comparison(
            *improvement(groups[i], groups[j]), p, needed(groups[i], groups[j], len(pairs))
        )
        for (i, j), p in zip(pairs, holm(tests), strict=True)
    }


def improvement(x: np.ndarray, y: np.ndarray) -> tuple[float, tuple[float, float]]:
    """P(X > Y) + P(X = Y) / 2 of scores [S] and [S'], and its 95 % percentile-bootstrap interval.

    Agarwal et al. 2021. Seeds of both are resampled independently.
    """
    wins = _wins(x, y)
    counts_x, counts_y = _resampled(len(x), seed=0), _resampled(len(y), seed=1)
    means = ((counts_x @ wins) * counts_y).sum(1) / wins.size
    low, high = np.percentile(means, [2.5, 97.5])
    return float(wins.mean()), (float(low), float(high))


def _wins(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """1 where a score of x [S] is above one of y [S'], 1/2 where they are equal: [S, S']."""
    return (x[:, None] > y) + 0.5 * (x[:, None] == y)


def _resampled(n: int, seed: int) -> np.ndarray:
    """How often each of n seeds is drawn in each of R resamples [R, n]."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), RESAMPLES).astype(float)


def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected for their number. Holm 1979, https://www.jstor.org/stable/4615733."""
    order = np.argsort(p, kind="stable")
    factors = len(p) - np.arange(len(p))
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(np.maximum.accumulate(np.asarray(p)[order] * factors), 1)
    return corrected.tolist()


def needed(x: np.ndarray, y: np.ndarray, comparisons: int = 1) -> int | None:
    """About how many seeds of each would tell them apart with 80 % power; None if they are equal.

    Noether 1987, https://doi.org/10.1080/01621459.1987.10478478, for groups of equal size and no ties:
    (z(1 - alpha / 2) + z(power))^2 / (6 (P - 1/2)^2), with alpha shared between the comparisons.
    P is taken from the seeds at hand, so it is as uncertain as they are.
    """
    difference = float(_wins(x, y).mean()) - 0.5
    if not difference:
        return None
    z = stats.norm.ppf(1 - LEVEL / comparisons / 2) + stats.norm.ppf(POWER)
    return math.ceil(z**2 / (6 * difference**2))
