"""Epsilon-greedy exploration and its schedules. Letters: S seeds, N envs per seed, A actions."""

import torch
from torch import Tensor

from dqn_exp import rng, schedules
from dqn_exp.registry import register
from dqn_exp.types import Context


class EpsilonGreedy:
    """A uniformly random action with probability epsilon, else the greedy one."""

    def __init__(self, context: Context):
        self._n_envs = context.n_envs
        self._n_actions = context.spec.n_actions
        self._chance = rng.Blocks(rng.uniform, context.seeds, "explore")
        self._action = rng.Blocks(self._random_actions, context.seeds, "explore/action")

    def epsilon(self, step: int, episode: Tensor) -> float | Tensor:
        """Probability of a random action at env step `step`, after [S] finished episodes."""
        raise NotImplementedError

    def act(self, q: Tensor, step: int, episode: Tensor) -> Tensor:
        """Q-values [S, N, A] -> int64 actions [S, N]; the draw is keyed by the env step."""
        step_of_env, shape = step // self._n_envs, (self._n_envs,)
        epsilon = self.epsilon(step, episode)
        if isinstance(epsilon, Tensor):
            epsilon = epsilon.to(q.device).unsqueeze(1)
        explore = self._chance(step_of_env, shape) < epsilon
        return torch.where(explore, self._action(step_of_env, shape), q.argmax(-1))

    def _random_actions(
        self, seeds: Tensor, stream: str, step: int | Tensor, shape: tuple[int, ...]
    ) -> Tensor:
        return rng.integers(seeds, stream, step, shape, self._n_actions)


@register("exploration", "linear")
class Linear(EpsilonGreedy):
    """Epsilon from `start` to `end` in a straight line over `decay_steps` env steps."""

    def __init__(self, context: Context, *, start: float, end: float, decay_steps: int):
        super().__init__(context)
        self.start, self.end, self.decay_steps = start, end, decay_steps

    def epsilon(self, step: int, episode: Tensor) -> float:
        return schedules.linear(step, self.start, self.end, self.decay_steps)


@register("exploration", "exponential")
class Exponential(EpsilonGreedy):
    """Epsilon decays from `start` to `end` with time constant `decay_steps` env steps."""

    def __init__(self, context: Context, *, start: float, end: float, decay_steps: int):
        super().__init__(context)
        self.start, self.end, self.decay_steps = start, end, decay_steps

    def epsilon(self, step: int, episode: Tensor) -> float:
        return schedules.exponential(step, self.start, self.end, self.decay_steps)


@register("exploration", "constant")
class Constant(EpsilonGreedy):
    """Epsilon stays at `start`."""

    def __init__(self, context: Context, *, start: float):
        super().__init__(context)
        self.start = start

    def epsilon(self, step: int, episode: Tensor) -> float:
        return self.start


@register("exploration", "per_episode")
class PerEpisode(EpsilonGreedy):
    """Epsilon is start / (episode + 1), but never below `end`."""

    def __init__(self, context: Context, *, start: float, end: float):
        super().__init__(context)
        self.start, self.end = start, end

    def epsilon(self, step: int, episode: Tensor) -> Tensor:
        return (self.start / (episode + 1)).clamp(min=self.end)
