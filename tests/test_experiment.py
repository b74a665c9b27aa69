"""Whole runs: seeds do not touch each other, and every part works in one."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import options
from gymnasium.wrappers import ReshapeObservation
from torch.testing import assert_close

from dqn_exp.experiment import Experiment
from dqn_exp.registry import ConfigError, register
from dqn_exp.schema import PARTS

Make = Callable[..., Experiment]
CHOICES = [f"{group}={option}" for group in PARTS for option in options(group)]


def rows(path: Path, seed: int) -> list[dict[str, str]]:
    with path.open() as file:
        return [row for row in csv.DictReader(file) if row["seed"] == str(seed)]


def floats(run_dir: Path, seed: int) -> list[tuple[str, str, float]]:
    """All metrics of a seed that do not depend on the clock or on how many seeds there were."""
    metrics = rows(run_dir / "metrics.csv", seed)
    return [
        (row["step"], row["tag"], float(row["value"]))
        for row in metrics
        if row["tag"] != "time/steps_per_second"
    ]


@pytest.mark.parametrize(
    "choice", [*CHOICES, "env.n=3", "env.backend=native", "agent.target={tau:1,every:50}"]
)
def test_a_seed_in_lockstep_equals_its_solo_run(make: Make, choice: str) -> None:
    together = make("seed=5", "seeds=3", choice, dtype=torch.float64)
    alone = make("seed=7", "seeds=1", choice, dtype=torch.float64)
    together.run()
    alone.run()
    assert rows(together.run_dir / "episodes.csv", 7) == rows(alone.run_dir / "episodes.csv", 7)
    assert_close(together.learner.params[2:], alone.learner.params)
    assert_close(together.learner.target_params[2:], alone.learner.target_params)
    for (*key, value), (*same_key, same) in zip(
        floats(together.run_dir, 7), floats(alone.run_dir, 7), strict=True
    ):
        assert (key, value) == (same_key, pytest.approx(same, rel=1e-5, abs=1e-6))


def test_seeds_differ_in_initial_weights_and_in_what_they_do(make: Make) -> None:
    experiment = make("seeds=3")
    initial = experiment.learner.params.clone()
    assert len({tuple(row.tolist()) for row in initial}) == 3
    experiment.run()
    returns = [rows(experiment.run_dir / "episodes.csv", seed) for seed in range(3)]
    assert len({tuple(row["step"] for row in episodes) for episodes in returns}) == 3


def test_the_same_run_twice_is_the_same_run_bit_for_bit(make: Make) -> None:
    first, second = make("seeds=2", "buffer=per"), make("seeds=2", "buffer=per")
    first.run()
    torch.rand(3)  # the global generator has no part in it
    second.run()
    assert torch.equal(first.learner.params, second.learner.params)
    assert floats(first.run_dir, 1) == floats(second.run_dir, 1)


def test_the_global_random_state_is_left_alone(make: Make) -> None:
    before = torch.get_rng_state()
    make().run()
    assert torch.equal(before, torch.get_rng_state())


def test_the_summary_holds_what_a_sweep_needs(make: Make) -> None:
    experiment = make("seed=3", "seeds=4")
    objective = experiment.run()
    summary = json.loads((experiment.run_dir / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert summary["objective"] == objective
    assert summary["seeds"] == [3, 4, 5, 6]
    middle = sorted(summary["final_returns"])[1:3]  # of four scores the mean of the middle two
    assert objective == pytest.approx(sum(middle) / 2)
    low, high = summary["objective_ci95"]
    assert low <= objective <= high
    assert summary["steps_per_second"] > 0
    assert summary["wall_seconds"] > 0
    assert summary["device"] == "cpu"
    assert {"torch", "gymnasium", "hydra-core"} <= set(summary["versions"])


def test_a_failing_run_says_so_in_its_summary(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = make()
    step, calls = experiment.env.step, iter(range(50))

    def break_at_step_50(action):
        next(calls)
        return step(action)

    monkeypatch.setattr(experiment.env, "step", break_at_step_50)
    with pytest.raises(StopIteration):
        experiment.run()
    summary = json.loads((experiment.run_dir / "summary.json").read_text())
    assert (summary["status"], summary["error"]) == ("failed", "StopIteration()")


def test_a_folder_that_holds_a_run_is_not_written_over(make: Make) -> None:
    first = make()
    first.run()
    episodes = (first.run_dir / "episodes.csv").read_text()
    with pytest.raises(ConfigError, match="holds a run already"):
        Experiment(first.config, first.run_dir)
    assert (first.run_dir / "episodes.csv").read_text() == episodes


def test_too_large_a_replay_is_refused_with_its_bytes(make: Make) -> None:
    with pytest.raises(ConfigError, match=r"buffer\.capacity=1000000000000.*need .* TB"):
        make("buffer.capacity=1_000_000_000_000")


def test_a_net_for_vectors_refuses_images(make: Make) -> None:
    register("wrapper", "as_image")(lambda env: ReshapeObservation(env, (2, 2)))
    with pytest.raises(ConfigError, match=r"net=mlp: observations of shape \(2, 2\)"):
        make("env.wrappers=[{name: as_image}]")
