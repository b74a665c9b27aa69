"""Statistics, groups and conclusions of a report, against slow and obvious ones."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_folders import PER, run_folder
from scipy import stats

from dqn_exp.analysis import folders, runs
from dqn_exp.analysis.conclusions import conclusions
from dqn_exp.analysis.groups import group
from dqn_exp.analysis.results import (
    compare,
    evaluation_curve,
    holm,
    improvement,
    needed,
    profile,
    recent_mean,
    result,
    training_curve,
)  # fmt: skip
from dqn_exp.analysis.runs import Series

X = np.array([200.0, 310.0, 475.0, 500.0, 500.0, 120.0, 333.0])
Y = np.array([90.0, 200.0, 310.0, 150.0, 475.0])


def read(*paths: Path) -> list[runs.Run]:
    return [runs.read(folder) for folder in folders.runs_in(list(paths))]


def iqm(scores: list[float]) -> float:
    """Without the lowest and the highest quarter."""
    cut = len(scores) // 4
    middle = sorted(scores)[cut : len(scores) - cut]
    return sum(middle) / len(middle)


def test_the_results_of_a_group_by_hand(tmp_path: Path) -> None:
    evaluations = {0: {100: 50.0, 200: 480.0}, 1: {100: 475.0, 200: 10.0}, 2: {100: 1.0, 200: 2.0}}
    final = {0: 500.0, 1: 475.0, 2: 100.0, 3: 0.0}
    run_folder(tmp_path / "a", final, evaluations)
    found = result(group(read(tmp_path))[0])
    assert (found.iqm, found.median, found.mean) == (287.5, 287.5, 268.75)
    assert found.target == 475.0  # Gymnasium's threshold
    assert found.optimality_gap == (0 + 0 + 375 + 475) / 4
    assert found.reached == [200, 100]
    assert found.wall_seconds == 2.0


def test_the_target_is_the_config_s_if_it_has_one(tmp_path: Path) -> None:
    run_folder(tmp_path, {0: 5.0}, eval={"solved": 10.0})
    assert result(group(read(tmp_path))[0]).target == 10.0


def test_an_unknown_environment_has_no_target(tmp_path: Path) -> None:
    run_folder(tmp_path, {0: 5.0}, env={"id": "no_such_module:Env-v0"})
    found = result(group(read(tmp_path))[0])
    assert (found.target, found.optimality_gap, found.reached) == (None, None, [])


def test_the_probability_of_improvement_equals_loops_and_resampling_by_hand() -> None:
    def naive(x: np.ndarray, y: np.ndarray) -> float:
        total = 0.0
        for a in x:
            for b in y:
                total += 1.0 if a > b else 0.5 if a == b else 0.0
        return total / (len(x) * len(y))

    probability, interval = improvement(X, Y)
    assert probability == pytest.approx(naive(X, Y))
    rng = np.random.default_rng(5)
    draws = [naive(rng.choice(X, len(X)), rng.choice(Y, len(Y))) for _ in range(4000)]
    assert interval == pytest.approx(np.percentile(draws, [2.5, 97.5]), abs=0.03)
    assert improvement(Y, X)[0] == pytest.approx(1 - probability)


def test_improvement_and_profiles_equal_those_of_rliable() -> None:
    metrics = pytest.importorskip("rliable.metrics")
    library = pytest.importorskip("rliable.library")
    probability, interval = improvement(X, Y)
    assert probability == pytest.approx(metrics.probability_of_improvement(X[:, None], Y[:, None]))
    pair = {"x": (X[:, None], Y[:, None])}
    estimate = lambda x, y: np.array([metrics.probability_of_improvement(x, y)])  # noqa: E731
    _, theirs = library.get_interval_estimates(pair, estimate, reps=1000)
    assert interval == pytest.approx(theirs["x"].ravel(), abs=0.05)
    scores, taus = np.random.default_rng(0).normal(size=40), np.linspace(-2, 2, 9)
    shares, ends = profile(scores, taus)
    their_shares, their_ends = library.create_performance_profile(
        {"x": scores[:, None]}, taus, reps=1000
    )
    assert shares == pytest.approx(their_shares["x"])
    assert ends == pytest.approx(their_ends["x"], abs=0.06)


def test_the_p_values_are_mann_whitney_s_corrected_by_holm_s_method() -> None:
    assert holm([0.01, 0.04, 0.03, 0.9]) == pytest.approx([0.04, 0.09, 0.09, 0.9])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    pairs = compare([X, Y, X + 1000])
    raw = [stats.mannwhitneyu(a, b).pvalue for a, b in ((X, Y), (X, X + 1000), (Y, X + 1000))]
    assert [pair.p for pair in pairs.values()] == pytest.approx(holm(raw))
    assert [pair.told_apart for pair in pairs.values()] == [False, True, True]


def test_the_number_of_seeds_needed_has_the_power_that_it_is_for() -> None:
    assert needed(np.array([1.0, 3.0]), np.array([0.0, 3.0])) == 84  # 7.849 / (6 / 8 ** 2)
    assert needed(X, X) is None
    assert (needed(X, Y, comparisons=28) or 0) > (needed(X, Y) or 0)
    rng, shift = np.random.default_rng(3), 0.8
    x, y = np.linspace(0, 1, 400), np.linspace(0, 1, 400)
    x, y = stats.norm.ppf(x[1:-1]) + shift, stats.norm.ppf(y[1:-1])
    n = needed(x, y)
    assert n is not None
    draws = rng.normal(size=(2, 1000, n))
    tests = stats.mannwhitneyu(draws[0] + shift, draws[1], axis=1, method="asymptotic")
    assert (tests.pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.05)


def test_learning_curves_equal_loops() -> None:
    rng = np.random.default_rng(0)
    episodes = {s: np.sort(rng.choice(5000, 300, replace=False)) for s in range(5)}
    series = {s: Series(steps, rng.normal(size=300).cumsum()) for s, steps in episodes.items()}
    curve = training_curve(series)
    assert curve is not None
    assert curve.steps[0] == max(steps[0] for steps in episodes.values())
    assert curve.steps[-1] == min(steps[-1] for steps in episodes.values())
    for i in (0, 17, len(curve.steps) - 1):
        scores = []
        for each in series.values():
            so_far = [v for t, v in zip(*each, strict=True) if t <= curve.steps[i]]
            scores.append(sum(so_far[-100:]) / len(so_far[-100:]))
        assert curve.middle[i] == pytest.approx(iqm(scores))
        draws = np.sort(rng.choice(scores, size=(20_000, 5)), axis=1)[:, 1:4].mean(1)
        assert curve.ends is not None
        span = np.ptp(scores)
        assert curve.ends[:, i] == pytest.approx(np.percentile(draws, [2.5, 97.5]), abs=0.1 * span)


def test_an_evaluation_curve_has_the_steps_of_all_seeds() -> None:
    long = Series(np.array([10, 20, 30, 40]), np.array([1.0, 2.0, 3.0, 4.0]))
    short = Series(np.array([20, 40]), np.array([6.0, 8.0]))
    curve = evaluation_curve({0: long, 1: short})
    assert curve is not None
    assert (curve.steps.tolist(), curve.middle.tolist()) == ([20, 40], [4.0, 6.0])
    alone = evaluation_curve({0: long})
    assert alone is not None
    assert alone.ends is None
    assert evaluation_curve({}) is None
    assert evaluation_curve({0: short, 1: Series(np.array([10]), np.array([1.0]))}) is None


def test_the_mean_of_the_last_100_is_of_fewer_at_first() -> None:
    series = Series(np.arange(1, 301), np.arange(300.0))
    assert recent_mean(series, np.array([1, 2, 100, 101, 300])).tolist() == [0, 0.5, 49.5, 50.5, 249.5]


# --- groups ---


def test_eight_combinations_are_named_by_their_parts(tmp_path: Path) -> None:
    for i in range(8):
        agent, buffer, net = ("dqn", "ddqn")[i // 4], (PER, None)[i // 2 % 2], ("mlp", "dueling")[i % 2]
        other: dict[str, Any] = {"buffer": buffer} if buffer else {}
        settings = {
            "agent": {"name": agent, "gamma": 0.99},
            "net": {"name": net, "hidden": [64 + i % 2]},
        }
        run_folder(tmp_path / f"{i}_job", {0: 1.0}, **settings, **other)
    assert [each.name for each in group(read(tmp_path))] == [
        f"{agent} {buffer} {net}"
        for agent in ("dqn", "ddqn")
        for buffer in ("per", "uniform")
        for net in ("mlp", "dueling")
    ]


def test_seeds_are_pooled_and_keys_that_change_no_result_make_no_group(tmp_path: Path) -> None:
    run_folder(tmp_path / "0", {0: 1.0, 1: 2.0})
    run_folder(tmp_path / "1", {1: 2.0, 2: 3.0}, seed=1, log={"every": 7}, device="cpu", compile=True)
    run_folder(tmp_path / "2", {0: 9.0}, optim={"name": "adam", "lr": 0.01})
    low, high = group(read(tmp_path))
    assert (low.name, high.name) == ("lr=0.001", "lr=0.01")
    assert low.final() == {0: 1.0, 1: 2.0, 2: 3.0}
    assert any("counted once: seed 1." in note for note in low.notes)
    assert high.notes == []


def test_the_only_group_is_named_by_its_parts(tmp_path: Path) -> None:
    assert [each.name for each in group(read(run_folder(tmp_path, {0: 1.0})))] == ["dqn uniform mlp"]


def test_many_differing_keys_give_the_shortest_name_that_tells_groups_apart(tmp_path: Path) -> None:
    for i in range(3):
        keys: dict[str, Any] = {f"key{j}": i for j in range(6)}
        run_folder(tmp_path / str(i), {0: 1.0}, **keys)
    assert [each.name for each in group(read(tmp_path))] == ["key0=0", "key0=1", "key0=2"]


def test_unfinished_runs_are_left_out_where_others_finished_and_both_is_said(tmp_path: Path) -> None:
    run_folder(tmp_path / "0", {0: 1.0}, {0: {100: 1.0}})
    run_folder(tmp_path / "1", {1: 2.0}, {1: {100: 2.0}}, status="failed")
    run_folder(tmp_path / "2", {0: 1.0}, {0: {50: 3.0}}, status="interrupted", buffer=PER)
    uniform, per = group(read(tmp_path))
    assert list(uniform.metric(runs.EVALUATION)) == [0]
    assert "1 of 2 runs not finished" in uniform.notes[0]
    assert per.final() == {}
    assert list(per.metric(runs.EVALUATION)) == [0]
    assert "no run has finished" in per.notes[0]


# --- conclusions ---


def concluded(tmp_path: Path, x: list[float], y: list[float]) -> list[str]:
    run_folder(tmp_path / "0", dict(enumerate(x)))
    run_folder(tmp_path / "1", dict(enumerate(y)), buffer=PER)
    groups = group(read(tmp_path))
    results = [result(each) for each in groups]
    return conclusions(groups, results, compare([r.scores for r in results]))


def test_a_clear_difference_is_a_conclusion(tmp_path: Path) -> None:
    lines = concluded(tmp_path, [1.0, 2, 3, 4, 5, 6, 7, 8], [11.0, 12, 13, 14, 15, 16, 17, 18])
    assert lines[0].startswith("per has the highest IQM, 14.5 [")
    assert lines[1] == (
        "per is better than uniform: P = 1.00 [1.00, 1.00] that a seed of per scores higher than "
        "one of uniform (8 and 8 seeds, p < 0.001)."
    )


def test_an_unclear_difference_is_none(tmp_path: Path) -> None:
    lines = concluded(tmp_path, [1.0, 2, 3, 4, 5, 6], [2.5, 3.5, 4.5, 5.5, 6.5, 1.2])
    assert "the 6 seeds of each do not tell them apart, P = " in lines[1]
    assert re.search(r"; about \d+ seeds of each would, if the difference", lines[1])
    assert "better" not in "".join(lines)


@pytest.mark.parametrize("n", [2, 3])
def test_too_few_seeds_never_make_a_conclusion(tmp_path: Path, n: int) -> None:
    lines = concluded(tmp_path, [1.0, 2.0, 3.0][:n], [11.0, 12.0, 13.0][:n])
    assert f"the {n} seeds of each do not tell them apart, P = 1.00 [1.00, 1.00]" in lines[1]


def test_equal_scores_do_not_tell_groups_apart(tmp_path: Path) -> None:
    lines = concluded(tmp_path, [500.0] * 5, [500.0] * 5)
    assert lines[1].endswith("the 5 seeds of each do not tell them apart, P = 0.50 [0.50, 0.50].")


def test_one_seed_says_nothing(tmp_path: Path) -> None:
    lines = concluded(tmp_path, [1.0], [100.0, 101.0])
    assert lines[1].endswith("one seed of uniform says nothing about which is better.")
