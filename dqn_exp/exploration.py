"""Epsilon-greedy exploration and its schedules. Letters: S seeds, N envs per seed, A actions."""

from functools import partial

import torch
from torch import Tensor

from dqn_exp import rng, schedules
from dqn_exp.registry import register
from dqn_exp.types import Context, Step


class EpsilonGreedy:
    """A uniformly random action with probability epsilon, else the greedy one."""

    def __init__(self, context: Context):
        self._n_envs = context.n_envs
        shape = (context.n_envs,)
        actions = partial(rng.integers, high=context.spec.n_actions)
        self._chance = rng.Draws(rng.uniform, context.seeds, "explore", shape)
        self._action = rng.Draws(actions, context.seeds, "explore/action", shape)

    def epsilon(self, step: Step, episode: Tensor) -> float | Tensor:
        """Probability of a random action at env step `step`, after [S] finished episodes."""
        raise NotImplementedError

    def act(self, q: Tensor, step: Step, episode: Tensor) -> Tensor:
        """Q-values [S, N, A] -> int64 actions [S, N]; the draw is keyed by the env step."""
        step_of_env = step // self._n_envs
        epsilon = self.epsilon(step, episode)
        if isinstance(epsilon, Tensor):
            epsilon = epsilon.to(q.device, torch.float32).view(-1, 1)
        explore = self._chance(step_of_env) < epsilon
        return torch.where(explore, self._action(step_of_env), q.argmax(-1))

    def draw_ahead(self, step: Tensor, n: int) -> None:
        """Draw for n steps of every env from env step `step` on, before compiled code makes them."""
        for draws in (self._chance, self._action):
            draws.ahead(step // self._n_envs, n)


@register("exploration", "linear")
class Linear(EpsilonGreedy):
    """Epsilon from `start` to `end` in a straight line over `decay_steps` env steps."""

    def __init__(self, context: Context, *, start: float, end: float, decay_steps: int):
        super().__init__(context)
        self.start, self.end, self.decay_steps = start, end, decay_steps

    def epsilon(self, step: Step, episode: Tensor) -> float | Tensor:
        return schedules.linear(step, self.start, self.end, self.decay_steps)


@register("exploration", "exponential")
class Exponential(EpsilonGreedy):
    """Epsilon decays from `start` to `end` with time constant `decay_steps` env steps."""

    def __init__(self, context: Context, *, start: float, end: float, decay_steps: int):
        super().__init__(context)
        self.start, self.end, self.decay_steps = start, end, decay_steps

    def epsilon(self, step: Step, episode: Tensor) -> float | Tensor:
        return schedules.exponential(step, self.start, self.end, self.decay_steps)


@register("exploration", "constant")
class Constant(EpsilonGreedy):
    """Epsilon stays at `start`."""

    def __init__(self, context: Context, *, start: float):
        super().__init__(context)
        self.start = start

    def epsilon(self, step: Step, episode: Tensor) -> float:
        return self.start


@register("exploration", "per_episode")
class PerEpisode(EpsilonGreedy):
    """Epsilon is start / (episode + 1), but never below `end`."""

    def __init__(self, context: Context, *, start: float, end: float):
        super().__init__(context)
        self.start, self.end = start, end

    def epsilon(self, step: Step, episode: Tensor) -> Tensor:
        return (self.start / (episode + 1)).clamp(min=self.end)
