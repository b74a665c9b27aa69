"""Any Gymnasium environment with discrete actions, through Gymnasium's own vector API.

Every episode starts from a seed drawn from (seed value, env index, episode number), so the course of
an env depends on nothing else, whatever the number of seeds or their order.
Letters: S seeds, N envs per seed.
"""

import math
import reprlib
from functools import partial

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Tensor

from dqn_exp import rng
from dqn_exp.config import schema
from dqn_exp.config.typed import LARGEST
from dqn_exp.envs import single
from dqn_exp.envs.workers import Workers
from dqn_exp.interfaces import Episode, NotDeterministicError, Transition
from dqn_exp.registry import register
from dqn_exp.state import State, require

EPISODE_BLOCK = 256  # episode seeds drawn at once


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
        self._seeds, self._stream = seeds.cpu(), f"env/{stream}"
        self._device = seeds.device
        self._strict, self._config = strict, config
        self._shape = (len(seeds), config.n)
        # First, for clear messages about a wrong id or unsupported spaces.
        self.spec = single.inspect(config, self._trial)
        self._names = [f"seed {seed}, env {i}" for seed in seeds.tolist() for i in range(config.n)]
        self._envs = self._vectorized(self._names)
        self._finished: list[Episode] = []
        self.episode_counts = torch.zeros(len(seeds), dtype=torch.int64)
        self._steps = 0  # of each env since reset
        self._deterministic: bool | None = None  # not examined yet

    @property
    def deterministic(self) -> bool:
        """Whether episodes can be repeated; found by playing some, when first asked.

        Raises:
            ConfigError: the env raises an error.
        """
        if self._deterministic is None:
            self._deterministic = single.is_deterministic(self._config, self._trial)
        return self._deterministic

    def reset(self, first_episode: int = 0) -> Tensor:
        """First observations [S, N, *obs] of the episodes numbered from `first_episode`."""
        self._first_episode = first_episode
        self._episode = np.zeros(self._shape[0] * self._shape[1], dtype=np.int64)  # of each env
        self._episode_seeds: dict[int, np.ndarray] = {}  # [EPISODE_BLOCK, S * N] of blocks in use
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
        actions = action.reshape(-1).cpu().numpy() + self.spec.first_action
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
            ValueError: the state does not fit; nothing has changed.
            NotDeterministicError: the env is not deterministic, or the replay leads elsewhere.
        """
        self._refuse_unfit(state)
        self.reset(state["first_episode"])
        self._steps = state["steps"]
        self._episode[:], self._ages[:] = state["episode"], state["ages"]
        self.episode_counts.copy_(torch.tensor(state["episode_counts"]))
        self._actions = state["actions"].numpy()
        self._n_actions = len(self._actions)
        if not self.deterministic:
            raise self._not_deterministic()
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

    def _refuse_unfit(self, state: State) -> None:
        """Raise ValueError if a state is none that `state_dict` makes."""
        S, n_envs = len(self._seeds), len(self._names)
        lengths = {"episode": n_envs, "episode_counts": S, "ages": n_envs}
        for name, length in {"steps": None, "first_episode": None, **lengths}.items():
            given = state.get(name)
            counts = given if length else [given]
            if (
                not isinstance(counts, list)
                or len(counts) != (length or 1)
                or not all(type(count) is int and 0 <= count < LARGEST[int] for count in counts)
            ):
                wanted = f"a list of {length} integers" if length else "an integer"
                raise ValueError(f"{name} is {reprlib.repr(given)} in the state, must be {wanted} >= 0")
        shape = torch.Size([*self._shape, *self.spec.obs_shape])
        require("obs", state.get("obs"), self.spec.obs_dtype, shape)
        shape = torch.Size([max(state["ages"]), n_envs])
        require("actions", state.get("actions"), torch.int64, shape)
        first, last = self.spec.first_action, self.spec.first_action + self.spec.n_actions - 1
        if not ((state["actions"] >= first) & (state["actions"] <= last)).all():
            raise ValueError(f"actions in the state must be from {first} to {last}")

    def begin_new_episodes(self) -> Tensor:
        """Abandon all current episodes, uncounted, and begin the next: first obs [S, N, *obs]."""
        self._episode += 1
        self._ages[:] = 0
        obs, _ = self._envs.reset(seed=self._current_seeds())
        return self._observe(obs)

    def _trial(self, check: bool) -> single.Envs:
        """One env, to look at it."""
        return self._vectorized(["a trial"], check)

    def _vectorized(self, names: list[str], check: bool = False) -> single.Envs:
        """A new env for each name."""
        make, timeout = partial(single.make, self._config, check), self._config.timeout
        if self._config.vectorization == "async":
            return Workers(make, names, timeout)
        return SyncVectorEnv(
            [make] * len(names),
            copy=False,  # observations are copied to the device anyway
            autoreset_mode=AutoresetMode.DISABLED,
        )

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
            f"env.id={self._config.id}: cannot be resumed exactly: the actions of its episodes, "
            "repeated from the same seeds, lead to other observations, rewards or ends"
        )

    def close(self) -> None:
        """Close the environments."""
        self._envs.close()

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
        blocks, rows = np.divmod(self._episode, EPISODE_BLOCK)
        drawn = self._episode_seeds
        self._episode_seeds = {
            block: drawn[block] if block in drawn else self._draw_episode_seeds(block)
            for block in set(blocks.tolist())
        }
        seeds = np.empty_like(self._episode)
        for block, of_block in self._episode_seeds.items():
            envs = np.flatnonzero(blocks == block)
            seeds[envs] = of_block[rows[envs], envs]
        return [*seeds.tolist()]

    def _draw_episode_seeds(self, block: int) -> np.ndarray:
        """Reset seeds [EPISODE_BLOCK, S * N] of each env's episodes of a block."""
        episodes = torch.arange(EPISODE_BLOCK) + block * EPISODE_BLOCK + self._first_episode
        draws = rng.integers(self._seeds, self._stream, episodes, self._shape[1:], 2**31)
        return draws.flatten(1).numpy()
