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
        self._draws = rng.Blocks(rng.uniform, context.seeds, "explore")

    def epsilon(self, step: int, episode: Tensor) -> float | Tensor:
        """Probability of a random action at env step `step`, after [S] finished episodes."""
        raise NotImplementedError

    def act(self, q: Tensor, step: int, episode: Tensor) -> Tensor:
        """Q-values [S, N, A] -> int64 actions [S, N]; the draw is keyed by the env step."""
        explore, choice = self._draws(step // self._n_envs, (2, self._n_envs)).unbind(1)
        epsilon = self.epsilon(step, episode)
        if isinstance(epsilon, Tensor):
            epsilon = epsilon.to(q.device).unsqueeze(1)
        random_action = (choice * self._n_actions).long()
        return torch.where(explore < epsilon, random_action, q.argmax(-1))


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
