"""What a run leaves behind, read back through a real TensorBoard server over HTTP."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tensorboard_server import tensorboard

from dqn_exp.experiment import Experiment
from dqn_exp.tracking import Tracker
from dqn_exp.types import Episode

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


def test_tensorboard_serves_all_runs_tags_values_and_hparams(make: Callable[..., Experiment]) -> None:
    experiment = make("seed=4", "seeds=2", "agent=dqn", "buffer=per")
    experiment.run()
    with tensorboard(experiment.run_dir) as ask:
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


def test_the_mean_over_100_episodes_is_not_padded(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, [0], {})
    assert np.isnan(tracker.recent_returns()[0])
    tracker.episodes(Episode(0, 0, i, i, reward_sum=10.0 * i, length=1) for i in (1, 2, 3))
    assert tracker.recent_returns() == [20.0]
    tracker.episodes(Episode(0, 0, i, i, reward_sum=1.0, length=1) for i in range(100))
    assert tracker.recent_returns() == [1.0]
    tracker.close(succeeded=True)


def test_csv_rows_are_on_disk_as_soon_as_they_are_logged(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, [7, 8], {})
    tracker.scalars(50, {"train/td_loss": np.array([0.5, 0.25])})
    tracker.episodes([Episode(1, 0, 0, 33, reward_sum=9.0, length=33)])
    metrics = (tmp_path / "metrics.csv").read_text().splitlines()
    assert metrics == ["seed,step,tag,value", "7,50,train/td_loss,0.5", "8,50,train/td_loss,0.25"]
    episodes = (tmp_path / "episodes.csv").read_text().splitlines()
    assert episodes == ["seed,episode,step,return,length", "8,0,33,9.0,33"]
    tracker.close(succeeded=True)
