"""What a run leaves behind, read back through a real TensorBoard server over HTTP."""

from pathlib import Path
from typing import Any

import helpers
import numpy as np
import pytest
from tensorboard_server import tensorboard

import dqn_exp
from dqn_exp.glossary import CHARTS, MEANINGS
from dqn_exp.interfaces import Episode
from dqn_exp.run.tensorboard import TensorBoard
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
    "buffer/size",
    "buffer/beta",
    "buffer/effective_sample_size",
    "time/steps_per_second",
    "eval/return_mean",
    "eval/return_std",
    "train/lr",
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
    tiny = ["seed=4", "seeds=2", "agent=dqn", "net=mlp", "buffer=per", *LINEAR]
    parts = dqn_exp.build(helpers.tiny(*tiny))
    typed = ["agent=dqn", "optim.lr=0.01"]
    dqn_exp.Run(parts, tmp_path, False, overrides=typed, varied=["agent", "optim.lr"]).run()
    with tensorboard(tmp_path) as ask:
        assert sorted(ask("data/runs")) == ["mean", "seed=4", "seed=5"]  # no nested runs for hparams
        expected = {
            "mean": TAGS - {"train/episode_return", "train/episode_length"},
            "seed=4": TAGS,
            "seed=5": TAGS,
        }

        def complete(answer: dict[str, dict[str, Any]]) -> bool:
            return {run: set(tags) for run, tags in answer.items()} == expected

        tags = ask("data/plugin/scalars/tags", until=complete)
        facts = tags["seed=5"]["train/epsilon"]
        assert facts["description"] == "<p>probability of a random action</p>"

        values = {}
        for run in ("seed=4", "seed=5", "mean"):
            points = ask("data/plugin/scalars/scalars", run=run, tag="eval/return_mean")
            values[run] = {step: value for _, step, value in points}
        assert values["mean"] == pytest.approx(
            {step: (value + values["seed=5"][step]) / 2 for step, value in values["seed=4"].items()}
        )
        points = ask("data/plugin/scalars/scalars", run="seed=5", tag="train/epsilon")
        assert [(step, pytest.approx(value)) for _, step, value in points] == [
            (100, 1 - 0.95 * 100 / 25_000),
            (200, 1 - 0.95 * 200 / 25_000),
            (300, 1 - 0.95 * 300 / 25_000),
        ]

        columns = ask("data/plugin/hparams/experiment", {"experimentName": ""})["hparamInfos"]
        assert {c["name"] for c in columns} == {"seed", "agent.name", "optim.lr"}
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

        layout = ask("data/plugin/custom_scalars/layout")["category"]
        assert [category["title"] for category in layout] == list(CHARTS)
        text = ask("data/plugin/text/text", run="mean", tag="config/typed")[0]["text"]
        assert "agent=dqn optim.lr=0.01" in text
        text = ask("data/plugin/text/text", run="mean", tag="config/composed")[0]["text"]
        assert "total_steps: 300" in text


def test_what_the_config_makes_constant_is_not_logged(tmp_path: Path) -> None:
    constant = ["buffer=uniform", "exploration=constant", "optim.anneal=false"]
    helpers.tiny_run(tmp_path / "constant", *constant).run()
    logged = {row["tag"] for row in helpers.rows(tmp_path / "constant/metrics.csv")}
    left_out = {"buffer/beta", "buffer/effective_sample_size", "train/epsilon", "train/lr"}
    assert logged == TAGS - left_out - {"train/episode_length"}
    helpers.tiny_run(tmp_path / "per", "buffer=per", "buffer.beta_start=1", "buffer.beta_end=1").run()
    assert "buffer/beta" not in {row["tag"] for row in helpers.rows(tmp_path / "per/metrics.csv")}


def test_the_charts_show_every_metric_once() -> None:
    shown = [tag for charts in CHARTS.values() for tags in charts.values() for tag in tags]
    assert len(shown) == len(set(shown))
    assert set(shown) == MEANINGS.keys() - {"train/episode_return", "eval/return_std"}


def opened(folder: Path, seeds: list[int]) -> Tracker:
    tracker = Tracker(folder, seeds, [TensorBoard(folder, seeds, {}, {})])
    tracker.open()
    return tracker


def test_the_mean_over_100_episodes_is_not_padded(tmp_path: Path) -> None:
    tracker = opened(tmp_path, [0])
    assert np.isnan(tracker.recent_returns()[0])
    tracker.episodes(Episode(0, 0, i, i, reward_sum=10.0 * i, length=1) for i in (1, 2, 3))
    assert tracker.recent_returns().tolist() == [20.0]
    tracker.episodes(Episode(0, 0, i, i, reward_sum=1.0, length=1) for i in range(100))
    assert tracker.recent_returns().tolist() == [1.0]
    tracker.close(succeeded=True)


def test_csv_rows_are_on_disk_as_soon_as_they_are_logged(tmp_path: Path) -> None:
    tracker = opened(tmp_path, [7, 8])
    tracker.scalars(50, {"train/td_loss": np.array([0.5, 0.25])})
    tracker.episodes([Episode(1, 0, 0, 33, reward_sum=9.0, length=33)])
    metrics = (tmp_path / "metrics.csv").read_text().splitlines()
    assert metrics == [
        "seed,step,tag,value",
        "7,50,train/td_loss,0.5",
        "8,50,train/td_loss,0.25",
        "8,33,train/episode_return,9.0",
        "8,33,train/episode_return_mean100,9.0",
    ]
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
    again = Tracker(tmp_path, [7], [TensorBoard(tmp_path, [7], {}, {})])
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files
    again.load_state_dict(state, 50)
    assert again.recent_returns().tolist() == [9.0]
    again.open()
    again.scalars(70, {"train/td_loss": np.array([0.125])})
    again.close(succeeded=True)
    metrics = (tmp_path / "metrics.csv").read_text().splitlines()
    assert metrics == [
        "seed,step,tag,value",
        "7,50,train/td_loss,0.5",
        "7,33,train/episode_return,9.0",
        "7,33,train/episode_return_mean100,9.0",
        "7,70,train/td_loss,0.125",
    ]
    episodes = (tmp_path / "episodes.csv").read_text().splitlines()
    assert episodes == ["seed,episode,step,return,length", "7,0,33,9.0,33"]
