"""Environments that are tensor functions: they step on the device, and compile with the learner.

Letters: S seeds, N envs per seed, D state variables, L steps in the log of episodes.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from dqn_exp import rng
from dqn_exp.compiled.kernels import stack
from dqn_exp.config import schema
from dqn_exp.config.problems import ConfigError, Problem, nearest
from dqn_exp.config.typed import LARGEST
from dqn_exp.envs.classic_control import Acrobot, CartPole, MountainCar, System
from dqn_exp.interfaces import EPISODE_LOG, Episode, Spec, Transition, widest_float
from dqn_exp.registry import register
from dqn_exp.state import TensorState, copy_state

SYSTEMS: dict[str, tuple[type[System], int]] = {  # Gymnasium id -> physics, time limit
    "Acrobot-v1": (Acrobot, 500),
    "CartPole-v0": (CartPole, 200),
    "CartPole-v1": (CartPole, 500),
    "MountainCar-v0": (MountainCar, 200),
}


@register("env", "native")
class NativeEnv(TensorState):
    """S * N environments as one batch of tensors, changed in place.

    An episode depends only on (seed value, env index, episode number) and the actions.

    Args:
        seeds: [S] int64 seed values, on the device to run on.
        stream: name of the random stream that starts episodes ("train", "eval").
        strict: has no effect here, where values are always finite.

    Raises:
        ConfigError: an id that is not native, or options that only Gymnasium has.
    """

    config: schema.Env
    compilable = deterministic = True

    def __init__(self, seeds: Tensor, stream: str, strict: bool, config: schema.Env):
        env_id, n, problems = config.id, config.n, []
        if env_id not in SYSTEMS:
            problems.append(Problem("env.id", f"no native env{nearest(env_id, SYSTEMS)}", env_id))
        for key in ("kwargs", "wrappers", "timeout"):
            if value := getattr(config, key):
                message = "native envs have none; use env.backend=gymnasium"
                problems.append(Problem(f"env.{key}", message, value))
        if config.vectorization != "sync":
            message = "native envs are one batch of tensors; use sync"
            problems.append(Problem("env.vectorization", message, config.vectorization))
        if problems:
            raise ConfigError(problems)
        system, limit = SYSTEMS[env_id]
        self._system, self._limit = system(), config.max_episode_steps or limit
        self.spec = Spec((self._system.n_obs,), torch.float32, self._system.n_actions)
        S, device = len(seeds), seeds.device
        self._n_envs = n
        self._seeds = seeds
        self._word = torch.tensor(rng.word_of(f"env/{stream}"), device=device)
        self._env_index = torch.arange(n, device=device)
        shape, float_type = (S, n), widest_float(device)
        self._episode = torch.zeros(shape, dtype=torch.int64, device=device)  # numbers of each env
        self._first_episode = torch.zeros((), dtype=torch.int64, device=device)
        # The physics' variables, then return and length of the episode so far.
        n_variables = self._system.n_state + 2
        self._state = torch.zeros(*shape, n_variables, dtype=float_type, device=device)
        self._steps = torch.zeros(1, dtype=torch.int64, device=device)  # of each env since reset
        # Returns and lengths of the episodes that ended at a step; length 0 where none did.
        self._log = torch.zeros(EPISODE_LOG, *shape, 2, dtype=float_type, device=device)

    @property
    def episode_counts(self) -> Tensor:
        """Finished episodes of each seed since `reset`, [S]."""
        return (self._episode - self._first_episode).sum(1)

    def reset(self, first_episode: int = 0) -> Tensor:
        """First observations [S, N, *obs] of the episodes numbered from `first_episode`."""
        self._episode.fill_(first_episode)
        self._first_episode.fill_(first_episode)
        self._steps.zero_()
        self._state.copy_(self._first_states())
        self._taken = 0  # steps whose episodes have been taken
        self._numbers = np.zeros(len(self._seeds), dtype=np.int64)  # of each seed's next episode
        return self._system.observe(self._state[..., :-2])

    def step(self, action: Tensor) -> tuple[Transition, Tensor]:
        """Act with int64 [S, N]; finished episodes are recorded and their envs reset."""
        physics, so_far = self._state[..., :-2], self._state[..., -2:]
        state, reward, terminated = self._system.step(physics, action)
        obs, next_obs = self._system.observe(physics), self._system.observe(state)
        so_far = so_far + stack([reward, torch.ones_like(reward)], -1)
        truncated = so_far[..., 1] >= self._limit
        ended = (terminated | truncated).unsqueeze(-1)
        self._log.index_copy_(0, self._steps % EPISODE_LOG, (so_far * ended).unsqueeze(0))
        self._steps.add_(1)
        self._episode.add_(ended.squeeze(-1))
        moved = stack([*state.unbind(-1), *so_far.unbind(-1)], -1)
        new = torch.where(ended, self._first_states(), moved)
        self._state.copy_(new)
        transition = Transition(obs, action, reward, next_obs, terminated, truncated)
        return transition, self._system.observe(new[..., :-2])

    def take_episodes(self) -> list[Episode]:
        """Episodes finished since the last call or `reset`, in order."""
        steps = int(self._steps)
        assert steps - self._taken <= EPISODE_LOG, (
            "episodes must be taken at least every EPISODE_LOG steps"
        )
        rows = torch.arange(self._taken, steps) % EPISODE_LOG
        returns, lengths = np.moveaxis(self._log[rows].cpu().numpy(), -1, 0)
        episodes = []
        for step, seed, env in zip(*np.nonzero(lengths), strict=True):
            episodes.append(
                Episode(
                    int(seed),
                    int(env),
                    number=int(self._numbers[seed]),
                    step=(self._taken + int(step) + 1) * self._n_envs,
                    reward_sum=float(returns[step, seed, env]),
                    length=int(lengths[step, seed, env]),
                )
            )
            self._numbers[seed] += 1
        self._taken = steps
        return episodes

    def state_dict(self) -> dict[str, Tensor]:
        """The state of the envs. Call after `take_episodes`."""
        return {
            "episode": self._episode,
            "first_episode": self._first_episode,
            "state": self._state,
            "steps": self._steps,
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a state of `state_dict`; raises ValueError if it does not fit."""
        loaded = {name: tensor.clone() for name, tensor in self.state_dict().items()}
        copy_state(state, loaded)
        length, first = loaded["state"][..., -1], loaded["first_episode"]
        possible = {
            "steps": (loaded["steps"] >= 0) & (loaded["steps"] < LARGEST[int]),
            "first_episode": first >= 0,
            "episode": (loaded["episode"] >= first) & (loaded["episode"] < LARGEST[int]),
            "state": loaded["state"].isfinite().all(-1) & (length >= 0) & (length < self._limit),
        }
        for name, fits in possible.items():
            if not fits.all():
                raise ValueError(f"{name} has values in the state that are out of range")
        super().load_state_dict(loaded)
        self._taken = int(self._steps)
        self._numbers = self.episode_counts.cpu().numpy()

    def begin_new_episodes(self) -> Tensor:
        """Abandon all current episodes, uncounted, and begin the next: first obs [S, N, *obs]."""
        self._episode.add_(1)
        self._first_episode.add_(1)
        self._state.copy_(self._first_states())
        return self._system.observe(self._state[..., :-2])

    def close(self) -> None:
        """Nothing to close."""

    def _first_states(self) -> Tensor:
        """States [S, N, D + 2] that the envs' current episodes start from."""
        return self._draw_starts(self._episode)

    def _draw_starts(self, episode: Tensor) -> Tensor:
        """The states [..., S, N, D + 2] that episodes [..., S, N] start from."""
        low, high = rng.words(self._seeds.unsqueeze(1))
        counter = (self._env_index, *rng.words(episode), high)
        unit = rng.unit(stack(rng.philox(counter, (low, self._word)), -1))
        return nn.functional.pad(self._system.start(unit.to(self._state.dtype)), (0, 2))
