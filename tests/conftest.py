"""Fixtures, settings of the test process, and environments with known values."""

from collections.abc import Callable

import gymnasium
import numpy as np
import pytest
import torch
from helpers import tiny

from dqn_exp.parts import Parts, build

torch.set_num_threads(1)
torch.set_flush_denormal(True)  # as runs do


@pytest.fixture
def make() -> Callable[..., Parts]:
    """Builds the parts of a tiny run with overrides."""

    def parts(*overrides: str, dtype: torch.dtype = torch.float32) -> Parts:
        return build(tiny(*overrides), dtype)

    return parts


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
