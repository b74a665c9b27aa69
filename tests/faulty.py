"""An environment that goes wrong at a known step of known episodes, and one for each broken API."""

import itertools
from typing import Any

import gymnasium
import numpy as np
import torch

from dqn_exp import rng

LENGTH = 20  # steps of an episode
MARK = 1234.0  # the reward that a sick learning rule chokes on


def episode_seed(seed: int, episode: int) -> int:
    """What an episode of a seed's only training env starts from."""
    draw = rng.integers(torch.tensor([seed]), "env/train", torch.tensor([episode]), (1,), 2**31)
    return int(draw.flatten()[0])


class Faulty(gymnasium.Env):
    """Random observations; episodes only end by the time limit.

    Args:
        bad: seeds of the episodes in which it goes wrong.
        at: the step of them at which it does.
        fault: what happens then.
    """

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    calls = itertools.count()

    def __init__(self, fault: str, bad: list[int] | None = None, at: int = 10):
        self._fault, self._bad, self._at = fault, bad or [], at

    def _obs(self) -> np.ndarray:
        obs = self.np_random.normal(size=3).astype(np.float32)
        return obs + next(self.calls) % 2**10 if self._fault == "fickle" else obs

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        super().reset(seed=seed)
        self._is_bad, self._steps = seed in self._bad, 0
        if self._is_bad and self._fault == "reset raises":
            raise OSError("the simulator is gone")
        return self._obs(), {}

    def step(self, action):
        self._steps += 1
        obs, reward = self._obs(), float(action)
        if self._is_bad and self._steps == self._at:
            if self._fault == "step raises":
                raise OSError("the simulator is gone")
            obs[1] = {"nan observation": np.nan, "inf observation": -np.inf}.get(self._fault, obs[1])
            rewards = {"nan reward": np.nan, "inf reward": np.inf, "mark": MARK}
            reward = rewards.get(self._fault, reward)
        return obs, reward, False, False, {}


class Misfit(Faulty):
    """Does not do what Gymnasium's API says."""

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        obs, info = super().reset(seed=seed)
        return {"bare reset": obs}.get(self._fault, (self._changed(obs), info))

    def step(self, action) -> Any:
        obs, *rest = super().step(action)
        return (obs, *rest[:2], {}) if self._fault == "4-tuple" else (self._changed(obs), *rest)

    def _changed(self, obs: np.ndarray) -> Any:
        changes = {"shape": obs[:2], "dtype": obs.astype(np.complex64), "list": None}
        return changes.get(self._fault, obs)


gymnasium.register("Faulty-v0", "faulty:Faulty", max_episode_steps=LENGTH)
gymnasium.register("Misfit-v0", "faulty:Misfit", max_episode_steps=LENGTH)
