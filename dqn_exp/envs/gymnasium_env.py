"""Any Gymnasium environment with discrete actions, through Gymnasium's own vector API.

Every episode starts from a seed drawn from (seed value, env index, episode number), so the course of
an env depends on nothing else, whatever the number of seeds or their order.
Letters: S seeds, N envs per seed.
"""

import atexit
import math
import signal

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import DtypeObservation, FlattenObservation, RecordEpisodeStatistics
from torch import Tensor

from dqn_exp import registry, rng
from dqn_exp.config import schema
from dqn_exp.config.problems import ConfigError, Problem
from dqn_exp.interfaces import Episode, NotDeterministicError, Spec, Transition
from dqn_exp.registry import register
from dqn_exp.signals import SIGNALS
from dqn_exp.state import State

EPISODE_BLOCK = 256  # episode seeds drawn at once
VECTOR_ENVS = {"sync": SyncVectorEnv, "async": AsyncVectorEnv}  # async: a process for each env


@register("env", "gymnasium")
class GymnasiumEnv:
    """S * N environments in lockstep, in this process or, "async", each in its own process.

    Args:
        seeds: [S] int64 seed values, on the device that observations should be on.
        stream: name of the random stream that starts episodes ("train", "eval").
        strict: whether observations and rewards that are NaN or infinite raise an error.

    Raises:
        ConfigError: unknown id, or spaces other than Discrete actions and Box or Discrete observations.
    """

    config: schema.Env
    compilable = False

    def __init__(self, seeds: Tensor, stream: str, strict: bool, config: schema.Env):
        env_id, n, wrappers, kwargs = config.id, config.n, config.wrappers, config.kwargs
        if config.max_episode_steps is not None:
            kwargs = {"max_episode_steps": config.max_episode_steps, **kwargs}
        self._seeds, self._stream = seeds.cpu(), f"env/{stream}"
        self._device = seeds.device
        self._strict = strict
        self._shape = (len(seeds), n)
        # Before the vector env, for clear messages about a wrong id or unsupported spaces.
        self.spec, self._first_action = _spec(env_id, kwargs, wrappers)

        def make() -> gymnasium.Env:
            if config.vectorization == "async":  # a process of its own, which ends with the run
                for each in SIGNALS:
                    signal.signal(each, signal.SIG_IGN)
            return _make(env_id, {**kwargs, "disable_env_checker": True}, wrappers)

        self._envs = VECTOR_ENVS[config.vectorization](
            [make] * (len(seeds) * n),
            copy=False,  # observations are copied to the device anyway
            autoreset_mode=AutoresetMode.DISABLED,
        )
        self._id = env_id
        # Before multiprocessing ends the processes itself: with a signal that they ignore.
        atexit.register(self.close)
        self._finished: list[Episode] = []
        self.episode_counts = torch.zeros(len(seeds), dtype=torch.int64)
        self._steps = 0  # of each env since reset

    def reset(self, first_episode: int = 0) -> Tensor:
        """First observations [S, N, *obs] of the episodes numbered from `first_episode`."""
        self._first_episode = first_episode
        self._episode = np.zeros(self._shape[0] * self._shape[1], dtype=np.int64)  # of each env
        self._episode_seeds = self._draw_episode_seeds(0)
        self._finished.clear()
        self.episode_counts.zero_()
        self._steps = 0
        self._ages = np.zeros_like(self._episode)  # steps of each env's episode so far
        # [steps, S * N], back to the start of the oldest of them, and how many
        self._actions, self._n_actions = np.zeros((0, self._ages.size), np.int64), 0
        obs, _ = self._envs.reset(seed=self._current_seeds())
        return self._observe(obs)

    def step(self, action: Tensor) -> tuple[Transition, Tensor]:
        """Act with int64 [S, N]; finished episodes are recorded and their envs reset."""
        obs = self._obs
        actions = action.reshape(-1).cpu().numpy() + self._first_action
        next_obs, reward, terminated, truncated, info = self._envs.step(actions)
        self._steps += 1
        if self._strict:
            self._refuse_not_finite(next_obs, reward)
        self._remember(actions)
        self._ages += 1
        transition = Transition(
            obs,
            action,
            self._tensor(reward.astype(np.float32)),
            self._observe(next_obs),
            self._tensor(terminated),
            self._tensor(truncated),
        )
        done = terminated | truncated
        if done.any():
            self._finish_episodes(done, info["episode"])
            self._episode += done
            self._ages[done] = 0
            self._observe(self._reset(done))
        return transition, self._obs

    def take_episodes(self) -> list[Episode]:
        """Episodes finished since the last call or `reset`, in order."""
        finished, self._finished = self._finished, []
        return finished

    def state_dict(self) -> State:
        """The current episodes, the actions taken in them, and the current observations."""
        return {
            "steps": self._steps,
            "first_episode": self._first_episode,
            "episode": self._episode.tolist(),
            "episode_counts": self.episode_counts.tolist(),
            "ages": self._ages.tolist(),
            "actions": torch.from_numpy(self._current_actions()),
            "obs": self._obs,
        }

    def load_state_dict(self, state: State) -> None:
        """Continue from a state of `state_dict`: replay the current episodes.

        Raises:
            NotDeterministicError: the replay leads to other observations.
        """
        self.reset(state["first_episode"])
        self._steps = state["steps"]
        self._episode[:], self._ages[:] = state["episode"], state["ages"]
        self.episode_counts.copy_(torch.tensor(state["episode_counts"]))
        self._actions = state["actions"].numpy()
        self._n_actions = len(self._actions)
        obs, _ = self._envs.reset(seed=self._current_seeds())
        for left, actions in zip(range(len(self._actions), 0, -1), self._actions, strict=True):
            if (begins := self._ages == left).any():
                self._reset(begins)
            obs, _, terminated, truncated, _ = self._envs.step(actions)
            if (done := terminated | truncated).any():
                if (done & (self._ages >= left)).any():
                    raise self._not_deterministic()
                self._reset(done)  # its current episode begins later in the replay
        if self._n_actions and (begins := self._ages == 0).any():
            obs = self._reset(begins)
        if not torch.equal(self._observe(obs), state["obs"].to(self._device)):
            raise self._not_deterministic()

    def begin_new_episodes(self) -> Tensor:
        """Abandon all current episodes, uncounted, and begin the next: first obs [S, N, *obs]."""
        self._episode += 1
        self._ages[:] = 0
        obs, _ = self._envs.reset(seed=self._current_seeds())
        return self._observe(obs)

    def _remember(self, actions: np.ndarray) -> None:
        """Keep actions [S * N]; those of finished episodes are dropped when space runs out."""
        if self._n_actions == len(self._actions):
            current = self._current_actions()
            self._n_actions = len(current)
            self._actions = np.concatenate([current, current, np.zeros((64, len(actions)), np.int64)])
        self._actions[self._n_actions] = actions
        self._n_actions += 1

    def _current_actions(self) -> np.ndarray:
        """Actions [steps, S * N] since the oldest of the current episodes began."""
        return self._actions[self._n_actions - self._ages.max() : self._n_actions]

    def _not_deterministic(self) -> NotDeterministicError:
        return NotDeterministicError(
            f"env.id={self._id}: cannot be resumed exactly: the actions of its episodes, repeated "
            "from the same seeds, lead to other observations"
        )

    def close(self) -> None:
        """Close the environments."""
        self._envs.close()
        atexit.unregister(self.close)

    def _refuse_not_finite(self, obs: np.ndarray, reward: np.ndarray) -> None:
        """Raise FloatingPointError if an observation [S * N, ...] or reward [S * N] is not finite."""
        for name, values in (("observation", obs), ("reward", reward)):
            # A sum is cheaper to test than all values; it can overflow although every value is finite.
            if values.dtype.kind == "f" and not math.isfinite(values.sum()):
                for env in np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(1)):
                    raise FloatingPointError(
                        f"env step {self._steps * self._shape[1]}: seed "
                        f"{int(self._seeds[env // self._shape[1]])}: {name} {values[env]} is not finite"
                    )

    def _observe(self, obs: np.ndarray) -> Tensor:
        self._obs = self._tensor(obs.copy())  # the vector env reuses the array
        return self._obs

    def _tensor(self, array: np.ndarray) -> Tensor:
        """An array [S * N, ...] as a tensor [S, N, ...] on the device."""
        return torch.from_numpy(array.reshape(self._shape + array.shape[1:])).to(self._device)

    def _finish_episodes(self, done: np.ndarray, statistics: dict) -> None:
        n_envs = self._shape[1]
        for env in np.flatnonzero(done):
            seed, env_index = divmod(int(env), n_envs)
            self._finished.append(
                Episode(
                    seed,
                    env_index,
                    number=int(self.episode_counts[seed]),
                    step=self._steps * n_envs,
                    reward_sum=float(statistics["r"][env]),
                    length=int(statistics["l"][env]),
                )
            )
            self.episode_counts[seed] += 1

    def _reset(self, mask: np.ndarray) -> np.ndarray:
        """Begin the current episodes where the mask [S * N] is true; returns all observations."""
        return self._envs.reset(seed=self._current_seeds(), options={"reset_mask": mask})[0]

    def _current_seeds(self) -> list[int | None]:
        """The reset seed of each env's current episode."""
        while self._episode.max() >= len(self._episode_seeds):
            more = self._draw_episode_seeds(len(self._episode_seeds))
            self._episode_seeds = np.concatenate([self._episode_seeds, more])
        return self._episode_seeds[self._episode, np.arange(len(self._episode))].tolist()

    def _draw_episode_seeds(self, start: int) -> np.ndarray:
        """Reset seeds [EPISODE_BLOCK, S * N] of each env's episodes from number `start`."""
        episodes = torch.arange(start, start + EPISODE_BLOCK) + self._first_episode
        draws = rng.integers(self._seeds, self._stream, episodes, self._shape[1:], 2**31)
        return draws.flatten(1).numpy()


def _make(id: str, kwargs: dict, wrappers: list[schema.Wrapper]) -> gymnasium.Env:
    """One env that records raw returns; discrete observations become one-hot vectors of uint8."""
    env = RecordEpisodeStatistics(gymnasium.make(id, **kwargs))
    for node in wrappers:
        env = registry.build("wrapper", node, env)
    if isinstance(env.observation_space, spaces.Discrete):
        env = DtypeObservation(FlattenObservation(env), np.uint8)
    return env


def _spec(id: str, kwargs: dict, wrappers: list[schema.Wrapper]) -> tuple[Spec, int]:
    """The spec of the env, and the number of its first action."""
    try:
        env = _make(id, kwargs, wrappers)
    except ConfigError:
        raise
    except gymnasium.error.Error as error:
        raise _invalid(id, str(error)) from error
    except Exception as error:  # an env may raise anything
        raise _invalid(id, f"{type(error).__name__}: {error}") from error
    observations, actions = env.observation_space, env.action_space
    if env.spec is None or env.spec.max_episode_steps is None:
        raise _invalid(id, "has no time limit; set env.max_episode_steps")
    if not isinstance(actions, spaces.Discrete):
        raise _invalid(id, f"actions are {actions}; the DQN family needs Discrete")
    if not isinstance(observations, spaces.Box):
        raise _invalid(id, f"observations are {observations}; supported are Box and Discrete")
    _try_out(id, env, observations, actions.start)
    env.close()
    dtype = torch.from_numpy(np.empty(0, observations.dtype)).dtype
    return Spec(observations.shape, dtype, int(actions.n)), int(actions.start)


def _invalid(id: str, message: str) -> ConfigError:
    return ConfigError([Problem("env.id", message, id)])


def _try_out(id: str, env: gymnasium.Env, space: spaces.Box, action: np.integer) -> None:
    """Raise ConfigError if a reset or a step shows that an env does not follow Gymnasium's API."""
    try:
        first, _ = env.reset(seed=0)
        obs, _, _, _, _ = env.step(action)
    except Exception as error:  # an env may raise anything
        line = f"{type(error).__name__}: {error}"
        raise _invalid(id, f"does not follow Gymnasium's API: {line}") from error
    for seen in (np.asarray(first), np.asarray(obs)):
        if seen.shape != space.shape or not np.can_cast(seen.dtype, space.dtype, "same_kind"):
            raise _invalid(id, f"an observation is {seen.dtype} {seen.shape}, its space is {space}")
