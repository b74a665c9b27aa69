"""The real config, shrunk and redirected to a temporary folder; environments with known values."""

from collections.abc import Callable

import gymnasium
import numpy as np
import pytest
import torch

from dqn_exp import config
from dqn_exp.experiment import Experiment

# A run of a second that still learns, evaluates and logs.
TINY = [
    "total_steps=300",
    "buffer.capacity=210",
    "train.learning_starts=40",
    "train.batch_size=16",
    "net.hidden=[16]",
    "eval.every=200",
    "eval.episodes=2",
    "eval.final_episodes=4",
    "log.every=100",
]


def options(group: str) -> list[str]:
    """The shipped options of a config group."""
    return sorted(path.stem for path in (config.CONF / group).glob("*.yaml"))


@pytest.fixture
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Experiment]:
    """Builds an experiment from TINY and overrides, in a folder of its own."""

    def build(*overrides: str, dtype: torch.dtype = torch.float32) -> Experiment:
        folder = tmp_path_factory.mktemp("run")
        return Experiment(config.compose(*TINY, *overrides), folder, dtype=dtype)

    return build


class Probe(gymnasium.Env):
    """A chain of states 0, 1, ..., observed one-hot; action 1 earns `bonus` more than action 0.

    Args:
        length: states.
        reward: of every step.
        terminates: whether the chain ends in a terminal state or goes round for ever.
    """

    def __init__(self, length: int, reward: float, bonus: float, terminates: bool):
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (length,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(2)
        self._length, self._reward, self._bonus = length, reward, bonus
        self._terminates = terminates
        self._state = 0

    def _obs(self) -> np.ndarray:
        return np.eye(self._length, dtype=np.float32)[self._state % self._length]

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        super().reset(seed=seed)
        self._state = 0
        return self._obs(), {}

    def step(self, action):
        self._state += 1
        terminated = self._terminates and self._state == self._length
        return self._obs(), self._reward + self._bonus * int(action), terminated, False, {}


gymnasium.register("ProbeEnding-v0", "conftest:Probe", max_episode_steps=100)
gymnasium.register("ProbeEndless-v0", "conftest:Probe", max_episode_steps=5)
