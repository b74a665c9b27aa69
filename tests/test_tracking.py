"""What a run leaves behind, read back through a real TensorBoard server over HTTP."""

from pathlib import Path

import numpy as np
import pytest
from helpers import tiny_run
from tensorboard_server import tensorboard

from dqn_exp.interfaces import Episode
from dqn_exp.run.tracker import Tracker

TAGS = {
    "train/episode_return",
    "train/episode_length",
    "train/episode_return_mean100",
    "train/td_loss",
    "train/td_error_abs",
    "train/grad_norm",
    "train/epsilon",
    "train/q_mean",
    "train/target_mean",
    "train/lr",
    "buffer/size",
    "buffer/beta",
    "buffer/effective_sample_size",
    "time/steps_per_second",
    "eval/return_mean",
    "eval/return_std",
    "eval/initial_state_value",
    "buffer/sample_age",
    "buffer/terminal_fraction",
    "eval/discounted_return",
    "eval/overestimation",
    "train/target_lag",
    "train/dead_units",
}


LINEAR = ["exploration=linear", "exploration.start=1", "exploration.end=0.05"]
LINEAR += ["exploration.decay_steps=25_000", "exploration.hold_steps=0"]


def test_tensorboard_serves_all_runs_tags_values_and_hparams(tmp_path: Path) -> None:
    tiny_run(tmp_path, "seed=4", "seeds=2", "agent=dqn", "net=mlp", "buffer=per", *LINEAR).run()
    with tensorboard(tmp_path) as ask:
        assert ask("data/runs") == ["seed=4", "seed=5"]  # no nested runs for hparams
        tags = ask("data/plugin/scalars/tags")
        assert {run: set(found) for run, found in tags.items()} == {"seed=4": TAGS, "seed=5": TAGS}

        query = {"run": "seed=5", "tag": "train/epsilon"}
        points = ask("data/plugin/scalars/scalars", **query)
        assert [(step, pytest.approx(value)) for _, step, value in points] == [
            (100, 1 - 0.95 * 100 / 25_000),
            (200, 1 - 0.95 * 200 / 25_000),
            (300, 1 - 0.95 * 300 / 25_000),
        ]

        columns = ask("data/plugin/hparams/experiment", {"experimentName": ""})["hparamInfos"]
        assert {"seed", "agent.name", "buffer.alpha", "optim.lr"} <= {c["name"] for c in columns}
        groups = ask(
            "data/plugin/hparams/session_groups",
            {
                "experimentName": "",
                "allowedStatuses": ["STATUS_SUCCESS"],
                "colParams": [{"metric": {"group": "", "tag": "eval/return_mean"}}],
                "startIndex": 0,
                "sliceSize": 10,
            },
        )["sessionGroups"]
        assert sorted(group["hparams"]["seed"] for group in groups) == [4, 5]
        assert all(group["hparams"]["agent.name"] == "dqn" for group in groups)
        assert all(group["metricValues"][0]["trainingStep"] == 300 for group in groups)


def opened(folder: Path, seeds: list[int]) -> Tracker:
    tracker = Tracker(folder, seeds, {})
    tracker.open()
    return tracker


def test_the_mean_over_100_episodes_is_not_padded(tmp_path: Path) -> None:
    tracker = opened(tmp_path, [0])
    assert np.isnan(tracker.recent_returns()[0])
    tracker.episodes(Episode(0, 0, i, i, reward_sum=10.0 * i, length=1) for i in (1, 2, 3))
    assert tracker.recent_returns() == [20.0]
    tracker.episodes(Episode(0, 0, i, i, reward_sum=1.0, length=1) for i in range(100))
    assert tracker.recent_returns() == [1.0]
    tracker.close(succeeded=True)


def test_csv_rows_are_on_disk_as_soon_as_they_are_logged(tmp_path: Path) -> None:
    tracker = opened(tmp_path, [7, 8])
    tracker.scalars(50, {"train/td_loss": np.array([0.5, 0.25])})
    tracker.episodes([Episode(1, 0, 0, 33, reward_sum=9.0, length=33)])
    metrics = (tmp_path / "metrics.csv").read_text().splitlines()
    assert metrics == ["seed,step,tag,value", "7,50,train/td_loss,0.5", "8,50,train/td_loss,0.25"]
    episodes = (tmp_path / "episodes.csv").read_text().splitlines()
    assert episodes == ["seed,episode,step,return,length", "8,0,33,9.0,33"]
    tracker.close(succeeded=True)


def test_a_tracker_touches_nothing_before_it_is_opened_or_resumed(tmp_path: Path) -> None:
    tracker = opened(tmp_path, [7])
    tracker.scalars(50, {"train/td_loss": np.array([0.5])})
    tracker.episodes([Episode(0, 0, 0, 33, reward_sum=9.0, length=33)])
    state = tracker.state_dict()
    tracker.scalars(60, {"train/td_loss": np.array([0.25])})
    tracker.episodes([Episode(0, 0, 1, 55, reward_sum=1.0, length=22)])
    tracker.close(succeeded=None)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    again = Tracker(tmp_path, [7], {})
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files
    again.load_state_dict(state, 50)
    assert again.recent_returns() == [9.0]
    again.open()
    again.scalars(70, {"train/td_loss": np.array([0.125])})
    again.close(succeeded=True)
    metrics = (tmp_path / "metrics.csv").read_text().splitlines()
    assert metrics == ["seed,step,tag,value", "7,50,train/td_loss,0.5", "7,70,train/td_loss,0.125"]
    episodes = (tmp_path / "episodes.csv").read_text().splitlines()
    assert episodes == ["seed,episode,step,return,length", "7,0,33,9.0,33"]
