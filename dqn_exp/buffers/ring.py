"""Storage of transitions, and the n-step windows read from it.

Letters: S seeds, N envs per seed, T capacity in time steps, B batch. Slot t * N + e of a seed holds the
transition of env e at time t, slot i of the s-th seed is row s * capacity + i of a table; all seeds
write to the same slots, because they step together. The slot of a transition follows from the env step.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from dqn_exp import td
from dqn_exp.buffers.memory import allocate, require_memory
from dqn_exp.compiled.kernels import stack
from dqn_exp.interfaces import Agent, Batch, Context, Step, Transition
from dqn_exp.state import TensorState, require

SCALARS = ("action", "reward", "terminated", "stop")  # stop: windows end here (episode, or newest)


class Ring(TensorState):
    """The newest `capacity` transitions of each seed, preallocated on the device; the base of buffers.

    Args:
        capacity: transitions per seed; a multiple of N, and more than N times the n of n-step.
        extra_bytes: what the buffer will allocate beside the ring.

    Raises:
        ConfigError: the bytes needed exceed those available; nothing has been allocated then.
    """

    def __init__(self, context: Context, agent: Agent, capacity: int, extra_bytes: int = 0):
        S, N = context.n_seeds, context.n_envs
        self.capacity = capacity
        self._n_envs, self._n_step = N, agent.n_step
        spec = context.spec
        self._n_actions = spec.n_actions
        # Two tables, so that a random transition lies in few cache lines.
        obs_bytes = 2 * math.prod(spec.obs_shape) * spec.obs_dtype.itemsize
        slot_bytes = obs_bytes + len(SCALARS) * context.dtype.itemsize
        self.n_bytes = S * capacity * slot_bytes + extra_bytes
        require_memory(self.n_bytes, context.device, "buffer.capacity", capacity)
        rows = S * capacity
        # A row holds obs and next_obs.
        self._obs = allocate((rows, 2, *spec.obs_shape), spec.obs_dtype, context.device)
        self._scalars = allocate((rows, len(SCALARS)), context.dtype, context.device)
        self._row = torch.arange(S, device=context.device).unsqueeze(1) * capacity
        self._rows = self._row + torch.arange(N, device=context.device)
        steps = torch.arange(self._n_step, device=context.device)
        self._window = steps * N
        self._gamma = agent.gamma
        self._powers = agent.gamma ** steps.to(context.dtype)  # at step k of a window
        self._discounts = self._powers * agent.gamma  # after it
        # Stored with their stop flag at the next add.
        self._newest = self._scalars.new_zeros(S, N, len(SCALARS))

    def size(self, step: Step) -> Step:
        """Transitions stored per seed after `step` env steps."""
        return step.clamp(max=self.capacity) if isinstance(step, Tensor) else min(step, self.capacity)

    def store(self, transition: Transition, step: Step) -> Step:
        """Store a transition [S, N], over the oldest once the ring is full; returns its first slot."""
        obs, action, reward, next_obs, terminated, _ = transition
        slot = step % self.capacity
        rows = self._rows + slot
        self._obs[rows] = stack([obs, next_obs], 2)
        dtype = self._scalars.dtype
        columns = [action.to(dtype), reward.to(dtype), terminated.to(dtype)]
        scalars = stack([*columns, torch.ones_like(columns[0])], -1)
        if self._n_step > 1:
            # Windows stop at the newest transition for now; the next add stores its own stop flag.
            # Whole rows, because compiled code would copy the table to write one column.
            before = self._rows + (step - self._n_envs) % self.capacity
            self._scalars[stack([before, rows], 0)] = stack([self._newest, scalars], 0)
            ended = transition.ended.to(dtype)
            self._newest.copy_(stack([*columns, ended], -1))
        else:
            self._scalars[rows] = scalars
        return slot

    def state_dict(self) -> dict[str, Tensor]:
        """The tables, and the newest transitions."""
        return {"observations": self._obs, "scalars": self._scalars, "newest": self._newest}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a state of `state_dict`; raises ValueError if it does not fit."""
        super().load_state_dict(state)
        for table in (self._scalars, self._newest):
            require("action", table[..., 0], table.dtype, table.shape[:-1], below=self._n_actions)

    def end_windows(self) -> None:
        """Stop all n-step windows at the newest transitions, as if their episodes had ended."""
        self._newest[..., -1] = 1.0

    def age(self, index: Tensor, step: int) -> Tensor:
        """Env steps between env step `step` and those whose transitions lie at slots [S, B]."""
        return (step - 1 - index) % self.capacity

    def metrics(self, step: int, gradient_step: int) -> dict[str, Tensor]:
        """`buffer/size`: transitions stored, [S]."""
        return {"buffer/size": torch.full((len(self._row),), float(min(step, self.capacity)))}

    def gather(self, index: Tensor, weight: Tensor) -> Batch:
        """The n-step transitions that start at slots [S, B], with their weights [S, B].

        A window ends early at its episode's end and at the newest transition of its env.
        """
        first = index + self._row
        if self._n_step == 1:  # the common case, cheaper without windows
            action, reward, terminated, _ = self._scalars[first].unbind(-1)
            discount = self._gamma
            obs, next_obs = self._observations(self._obs, first).unbind(2)
        else:
            slots = index.unsqueeze(-1) + self._window
            beyond = slots >= self.capacity  # faster than the remainder
            slots = slots - beyond * self.capacity + self._row.unsqueeze(-1)
            actions, rewards, ends, stop = self._scalars[slots].unbind(-1)
            reward, last = td.n_step(rewards, stop > 0, self._powers)
            discount, final = self._discounts.take(last), td.select(slots, last)
            action, terminated = actions[..., 0], td.select(ends, last)
            each = self._obs.flatten(0, 1)
            obs = self._observations(each, 2 * first)
            next_obs = self._observations(each, 2 * final + 1)
        return Batch(
            obs=obs,
            action=action.long(),
            reward=reward,
            discount=(1.0 - terminated) * discount,
            next_obs=next_obs,
            weight=weight,
            index=index,
        )

    @staticmethod
    def _observations(table: Tensor, rows: Tensor) -> Tensor:
        """Entries [S, B, *] of a table at rows [S, B]; `embedding` is the fastest way."""
        return F.embedding(rows, table.flatten(1)).view(*rows.shape, *table.shape[1:])
