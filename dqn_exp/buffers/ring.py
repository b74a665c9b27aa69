"""Storage of transitions, and the n-step windows read from it.

Letters: S seeds, N envs per seed, T capacity in time steps, B batch. Slot t * N + e of a seed holds the
transition of env e at time t; all seeds share one write head, because they step together.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from dqn_exp import td
from dqn_exp.buffers.memory import available_bytes, human
from dqn_exp.registry import ConfigError
from dqn_exp.types import Agent, Batch, Context, Transition


class Ring:
    """The newest `capacity` transitions of each seed, preallocated on the device.

    Args:
        capacity: transitions per seed; a multiple of N.
        extra_bytes: what the buffer will allocate beside the ring.

    Raises:
        ConfigError: the bytes needed exceed those available; nothing has been allocated then.
    """

    def __init__(self, context: Context, agent: Agent, capacity: int, extra_bytes: int = 0):
        S, N = context.n_seeds, context.n_envs
        self.capacity, self._obs_shape = capacity, context.spec.obs_shape
        self._n_envs, self._time, self._n_step = N, capacity // N, agent.n_step
        fields = {
            "obs": (context.spec.obs_shape, context.spec.obs_dtype),
            "action": ((), torch.int64),
            "reward": ((), context.dtype),
            "next_obs": (context.spec.obs_shape, context.spec.obs_dtype),
            "terminated": ((), torch.bool),
            "stop": ((), torch.bool),  # windows may not go on: an episode's end, or the newest
        }
        slot_bytes = sum(math.prod(shape) * dtype.itemsize for shape, dtype in fields.values())
        self.n_bytes = S * capacity * slot_bytes + extra_bytes
        available = available_bytes(context.device)
        if self.n_bytes > available:
            raise ConfigError(
                [
                    f"buffer.capacity={capacity}: {S} seed(s) need {human(self.n_bytes)}, "
                    f"but {human(available)} are available on {context.device}"
                ]
            )
        # Filled with zeros for real: memory is committed now, not page by page hours later.
        self._data = {
            name: torch.empty(S, self._time, N, *shape, dtype=dtype, device=context.device).zero_()
            for name, (shape, dtype) in fields.items()
        }
        self._flat = {name: data.flatten(0, 2) for name, data in self._data.items()}
        self._tables = {name: self._flat[name].flatten(1) for name in ("obs", "next_obs")}
        self._row = torch.arange(S, device=context.device).unsqueeze(1) * capacity
        steps = torch.arange(self._n_step + 1, device=context.device)
        powers = agent.gamma ** steps.to(context.dtype)
        self._powers, self._discounts = powers[:-1], powers[1:]  # at, and after, step k of a window
        self._window = steps[:-1] * N
        self._newest_ended = torch.zeros(S, N, dtype=torch.bool, device=context.device)
        self._head = 0  # time written next
        self._filled = 0  # times in use

    def __len__(self) -> int:
        """Transitions stored per seed."""
        return self._filled * self._n_envs

    def add(self, transition: Transition) -> int:
        """Store a transition [S, N], over the oldest once the ring is full; returns its first slot."""
        obs, action, reward, next_obs, terminated, truncated = transition
        data, head = self._data, self._head
        data["obs"][:, head] = obs
        data["action"][:, head] = action
        data["reward"][:, head] = reward
        data["next_obs"][:, head] = next_obs
        data["terminated"][:, head] = terminated
        if self._n_step > 1:
            # Nothing lies beyond the newest transition yet; what it really was is told next time.
            data["stop"][:, head - 1] = self._newest_ended
            data["stop"][:, head] = True
            self._newest_ended = terminated | truncated
        self._head = (head + 1) % self._time
        self._filled = min(self._filled + 1, self._time)
        return head * self._n_envs

    def gather(self, index: Tensor, weight: Tensor) -> Batch:
        """The n-step transitions that start at slots [S, B], with their weights [S, B].

        A window ends early at its episode's end and at the newest transition of its env.
        """
        flat, first = self._flat, index + self._row
        if self._n_step == 1:  # the common case, for which a window costs more than it gives
            reward, discount, final = flat["reward"].take(first), self._discounts, first
        else:
            slots = (index.unsqueeze(-1) + self._window) % self.capacity + self._row.unsqueeze(-1)
            rewards, stop = flat["reward"].take(slots), flat["stop"].take(slots)
            reward, last = td.n_step(rewards, stop, self._powers)
            discount, final = self._discounts.take(last), td.select(slots, last)
        return Batch(
            obs=self._observations("obs", first),
            action=flat["action"].take(first),
            reward=reward,
            discount=torch.where(flat["terminated"].take(final), 0.0, discount),
            next_obs=self._observations("next_obs", final),
            weight=weight,
            index=index,
        )

    def _observations(self, name: str, rows: Tensor) -> Tensor:
        """Observations [S, B, *obs] at rows [S, B]; `embedding` is the quickest way to gather rows."""
        return F.embedding(rows, self._tables[name]).view(*rows.shape, *self._obs_shape)
