"""Presets are what the notebooks did, and say where they deviate from what one should do."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from dqn_exp import config
from dqn_exp.agents.dqn import DQN
from dqn_exp.buffers.per import UNIFORM_EPISODES, PrioritizedBuffer
from dqn_exp.deviations import deviations
from dqn_exp.experiment import Experiment
from dqn_exp.types import Context, Spec, Transition

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
        "buffer.capacity": 10_000, "buffer.epsilon": 1e-4, "buffer.beta_end": 0.0,
        "optim.name": "adam", "optim.lr": 1e-4, "exploration.name": "per_episode",
        "exploration.start": 0.5, "exploration.end": 0.0, "train.batch_size": 32, "train.every": 1,
        "train.stop.episodes": 500, "train.stop.successes": 10, "train.stop.success_return": 196,
    },
    "practical_rl": {
        "env.id": "CartPole-v1", "env.max_episode_steps": 1000, "agent.name": "dqn",
        "agent.gamma": 0.99, "agent.n_step": 1, "agent.loss": "mse", "agent.target.tau": 1.0,
        "agent.target.every": 100, "net.hidden": [150], "net.output_activation": "relu",
        "buffer.capacity": 10_000, "optim.name": "adam", "optim.lr": 1e-4,
        "optim.clip.kind": "norm", "optim.clip.max": 5000.0, "exploration.start": 1.0,
        "exploration.end": 0.1, "exploration.hold_steps": 10_000, "exploration.decay_steps": 10_000,
        "train.batch_size": 32, "train.learning_starts": 10_000, "train.every": 1,
        "total_steps": 50_000, "eval.every": 1000, "eval.episodes": 3, "eval.final_episodes": 30,
        "eval.solved": 300,
    },
}  # fmt: skip


def value(node: Any, path: str) -> Any:
    for key in path.split("."):
        node = node[key]
    return node


@pytest.mark.parametrize("preset", NOTEBOOKS)
def test_a_preset_has_its_notebooks_settings(preset: str) -> None:
    composed = config.compose(f"experiment={preset}")
    assert {path: value(composed, path) for path in NOTEBOOKS[preset]} == NOTEBOOKS[preset]


@pytest.mark.parametrize(
    ("preset", "words"),
    [
        ("tutorial", []),
        ("rainbow", []),
        ("practical_rl", ["net.output_activation=relu"]),
        (
            "per_dueling_ddqn",
            [
                "buffer.compat=notebook",
                "agent.target.episodes",
                "outcome_reward",
                "time_limit_is_terminal",
            ],
        ),
    ],
)
def test_each_deviation_is_said_in_a_line(preset: str, words: list[str]) -> None:
    lines = list(deviations(config.compose(f"experiment={preset}")))
    assert [line.partition(":")[0] for line in lines] == words


SHRUNK = ["train.learning_starts=40", "train.batch_size=16", "buffer.capacity=240", "net.hidden=[16]"]


@pytest.mark.parametrize(
    "preset", sorted(path.stem for path in (config.CONF / "experiment").glob("*.yaml"))
)
def test_every_preset_runs(make: Callable[..., Experiment], preset: str) -> None:
    experiment = make(f"experiment={preset}", *SHRUNK, "total_steps=300")
    experiment.run()
    assert torch.isfinite(experiment.learner.params).all()


def notebook_buffer(epsilon: float = 1e-4) -> PrioritizedBuffer:
    spec, device = Spec((1,), torch.float64, n_actions=2), torch.device("cpu")
    context = Context(torch.tensor([3]), 1, spec, device, torch.float64, 400, 1000, 100)
    agent = DQN(gamma=0.9, n_step=1, loss="huber", target={"tau": 1.0, "every": None, "episodes": None})
    keys = {"alpha": 1.0, "beta_start": 0.0, "beta_end": 0.0, "epsilon": epsilon}
    return PrioritizedBuffer(context, agent, capacity=4, compat="notebook", **keys)


def fill(buffer: PrioritizedBuffer, episodes: int) -> None:
    """Store so many episodes of one step."""
    one, ended = torch.ones(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.bool)
    for step in range(episodes):
        buffer.add(Transition(one[..., None], one.long(), one, one[..., None], ended, ~ended), step)


def frequencies(buffer: PrioritizedBuffer) -> list[float]:
    buffer.update_priorities(torch.arange(4)[None], torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
    index = torch.cat([buffer.sample(100, step).index.flatten() for step in range(20)])
    return (index.bincount(minlength=4) / len(index)).tolist()


def test_the_notebooks_replay_is_uniform_until_its_30th_episode_then_takes_the_next_item() -> None:
    # Priorities 1, 2, 3, 4 want .1, .2, .3, .4; its sampler gave 0, .1, .2, .7.
    buffer = notebook_buffer(epsilon=1e-9)
    fill(buffer, UNIFORM_EPISODES - 1)
    assert frequencies(buffer) == pytest.approx([0.25] * 4, abs=0.02)
    fill(buffer, 1)
    assert frequencies(buffer) == pytest.approx([0.0, 0.1, 0.2, 0.7], abs=0.02)
