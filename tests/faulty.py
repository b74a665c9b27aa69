"""An environment that goes wrong at a known step of known episodes, and one for each broken API."""

import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
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
            if self._fault == "step raises what cannot be sent":
                raise UnpicklableError("lost", "badly")
            obs[1] = {"nan observation": np.nan, "inf observation": -np.inf}.get(self._fault, obs[1])
            rewards = {"nan reward": np.nan, "inf reward": np.inf, "mark": MARK}
            reward = rewards.get(self._fault, reward)
        return obs, reward, False, False, {}


class UnpicklableError(Exception):
    """Cannot be sent to another process."""

    def __init__(self, *parts: Any):
        super().__init__(*parts)
        self.hold = lambda: None


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


ENDS: dict[str, Callable[[], Any]] = {
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "SIGSTOP": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "sys.exit": lambda: sys.exit(3),
    "os._exit": lambda: os._exit(0),
    "hang": lambda: time.sleep(3600),
    "simulator": lambda: subprocess.run(["sleep", "3600"]),
}


class Ending(Faulty):
    """Ends its process, or hangs.

    Args:
        fault: of ENDS.
        where: "init", "close", or of bad episodes "reset" or "step".
        bad: seeds of episodes; None: all.
        here: also in the main process.
    """

    def __init__(
        self, fault: str, where: str = "step", bad: list[int] | None = None, here: bool = False
    ):
        super().__init__(fault, bad)
        self._where, self._all, self._here = where, bad is None, here
        self._end("init")

    def _end(self, where: str) -> None:
        if where == self._where and (self._here or multiprocessing.parent_process()):
            ENDS[self._fault]()

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        result = super().reset(seed=seed)
        self._is_bad |= self._all
        if self._is_bad:
            self._end("reset")
        return result

    def step(self, action):
        if self._is_bad:
            self._end("step")
        return super().step(action)

    def close(self) -> None:
        self._end("close")


class Sticky(Faulty):
    """At times it repeats the previous action, also that of the previous episode, as MinAtar does.

    Its `fault` says what shows which action was taken: the observation, reward, end or time limit.
    """

    _previous = 0

    def step(self, action) -> Any:
        if self.np_random.random() < 0.1:
            action = self._previous
        self._previous = action
        obs, *_ = super().step(action)
        shown = {self._fault: bool(action)}
        reward, ends = float(shown.get("reward", 0)), shown.get("end", False)
        return obs + shown.get("observation", 0), reward, ends, shown.get("limit", False), {}


class OfType(gymnasium.Env):
    """Observations of a type and shape."""

    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, dtype: str, shape: tuple[int, ...] = (2,)):
        self.observation_space = gymnasium.spaces.Box(0, 1, tuple(shape), np.dtype(dtype))

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, False, {}


gymnasium.register("Ending-v0", "faulty:Ending", max_episode_steps=LENGTH)
gymnasium.register("Sticky-v0", "faulty:Sticky", max_episode_steps=LENGTH)
gymnasium.register("OfType-v0", "faulty:OfType", max_episode_steps=LENGTH)
gymnasium.register("Faulty-v0", "faulty:Faulty", max_episode_steps=LENGTH)
gymnasium.register("Misfit-v0", "faulty:Misfit", max_episode_steps=LENGTH)
