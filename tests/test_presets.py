"""Presets are what the notebooks did, and say where they deviate from what one should do."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import options

from dqn_exp.config import typed
from dqn_exp.config.compose import compose
from dqn_exp.parts import Parts
from dqn_exp.run.run import Run

NOTEBOOKS: dict[str, dict[str, Any]] = {
    "tutorial": {
        "env.id": "CartPole-v1", "agent.name": "dqn", "agent.gamma": 0.99, "agent.n_step": 1,
        "agent.loss": "huber", "agent.target.tau": 0.005, "net.hidden": [128, 128],
        "buffer.capacity": 10_000, "optim.name": "adamw", "optim.lr": 1e-4, "optim.amsgrad": True,
        "optim.weight_decay": 0.01, "optim.clip.kind": "value", "optim.clip.max": 100.0,
        "exploration.name": "exponential", "exploration.start": 0.9, "exploration.end": 0.05,
        "exploration.decay_steps": 1000, "train.batch_size": 128, "train.every": 1,
        "train.stop.episodes": 600,
    },
    "per_dueling_ddqn": {
        "env.id": "CartPole-v0", "agent.name": "ddqn", "agent.gamma": 0.99, "agent.n_step": 1,
        "agent.loss": "huber", "agent.target.tau": 1.0, "agent.target.episodes": 2,
        "net.name": "dueling", "net.hidden": [32, 32, 32], "net.stream_hidden": [],
        "buffer.name": "notebook_per", "buffer.capacity": 10_000, "buffer.epsilon": 1e-4,
        "buffer.beta_end": 0.0,
        "optim.name": "adam", "optim.lr": 1e-4, "exploration.name": "per_episode",
        "exploration.start": 0.5, "exploration.end": 0.0, "train.batch_size": 32, "train.every": 1,
        "train.stop.episodes": 500, "train.stop.successes": 10, "train.stop.success_return": 196,
    },
    "practical_rl": {
        "env.id": "CartPole-v1", "env.max_episode_steps": 1000, "agent.name": "dqn",
        "agent.gamma": 0.99, "agent.n_step": 1, "agent.loss": "mse", "agent.target.tau": 1.0,
        "agent.target.every": 100, "net.hidden": [150], "net.name": "relu_output_mlp",
        "buffer.capacity": 10_000, "optim.name": "adam", "optim.lr": 1e-4,
        "optim.clip.kind": "norm", "optim.clip.max": 5000.0, "exploration.start": 1.0,
        "exploration.end": 0.1, "exploration.hold_steps": 10_000, "exploration.decay_steps": 10_000,
        "train.batch_size": 32, "train.learning_starts": 10_000, "train.every": 1,
        "total_steps": 50_000, "eval.every": 1000, "eval.episodes": 3, "eval.final_episodes": 30,
        "eval.solved": 300,
    },
}  # fmt: skip


@pytest.mark.parametrize("preset", NOTEBOOKS)
def test_a_preset_has_its_notebooks_settings(preset: str) -> None:
    composed = typed.flatten(typed.plain(compose(f"experiment={preset}")))
    assert {path: composed[path] for path in NOTEBOOKS[preset]} == NOTEBOOKS[preset]


@pytest.mark.parametrize(
    ("preset", "words"),
    [
        ("tutorial", []),
        ("rainbow", []),
        ("practical_rl", ["net.name=relu_output_mlp"]),
        (
            "per_dueling_ddqn",
            [
                "buffer.name=notebook_per",
                "outcome_reward",
                "time_limit_is_terminal",
                "agent.target.episodes",
            ],
        ),
    ],
)
def test_each_deviation_is_said_in_a_line(
    make: Callable[..., Parts], preset: str, words: list[str]
) -> None:
    said = make(f"experiment={preset}", *SHRUNK).deviations()
    assert [line.partition(":")[0] for line in said] == words


SHRUNK = ["train.learning_starts=40", "train.batch_size=16", "buffer.capacity=240", "net.hidden=[16]"]


@pytest.mark.parametrize(
    "preset",
    [
        pytest.param(preset, marks=[pytest.mark.slow] * preset.startswith("rainbow_no_"))
        for preset in options("experiment")
    ],
)
def test_every_preset_runs(make: Callable[..., Parts], preset: str, tmp_path: Path) -> None:
    parts = make(f"experiment={preset}", *SHRUNK, "total_steps=300")
    before = parts.learner.params.clone()
    assert Run(parts, tmp_path, progress=False).run() is not None
    assert torch.isfinite(parts.learner.params).all()
    assert not torch.equal(parts.learner.params, before)


ABLATIONS = {
    "rainbow_no_c51": ("agent", "name", "ddqn"),
    "rainbow_no_double": ("agent", "double", False),
    "rainbow_no_dueling": ("net", "name", "mlp"),
    "rainbow_no_n_step": ("agent", "n_step", 1),
    "rainbow_no_noisy": ("net", "sigma", None),
    "rainbow_no_per": ("buffer", "name", "uniform"),
}


def test_there_is_a_preset_without_each_ingredient_of_rainbow() -> None:
    assert set(ABLATIONS) == {preset for preset in options("experiment") if "_no_" in preset}


@pytest.mark.parametrize(("preset", "difference"), ABLATIONS.items())
def test_an_ablation_is_rainbow_without_one_ingredient(
    preset: str, difference: tuple[str, str, Any]
) -> None:
    rainbow, ablated = compose("experiment=rainbow"), compose(f"experiment={preset}")
    group, key, value = difference
    assert getattr(getattr(ablated, group), key) == value
    assert getattr(getattr(rainbow, group), key) != value
    others = [
        name for name in ("env", "agent", "net", "buffer", "optim", "exploration") if name != group
    ]
    if preset == "rainbow_no_noisy":  # it explores in another way
        others.remove("exploration")
    assert all(getattr(ablated, name) == getattr(rainbow, name) for name in others)
