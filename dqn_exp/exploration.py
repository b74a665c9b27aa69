"""Exploration and its schedules. Letters: S seeds, N envs per seed, B batch, A actions."""

from functools import partial

import torch
from torch import Tensor

from dqn_exp import rng, schedules, td
from dqn_exp.config import schema
from dqn_exp.interfaces import Context, Step
from dqn_exp.registry import register
from dqn_exp.state import TensorState


class EpsilonGreedy(TensorState):
    """A uniformly random action with probability epsilon, else the greedy one."""

    tag = "train/epsilon"

    def __init__(self, context: Context, config: schema.Exploration):
        self._n_envs = context.n_envs
        shape = (context.n_envs,)
        actions = partial(rng.integers, high=context.spec.n_actions)
        self._chance = rng.Draws(rng.uniform, context.seeds, "explore", shape)
        self._action = rng.Draws(actions, context.seeds, "explore/action", shape)

    def rate(self, step: Step, episode: Tensor) -> float | Tensor:
        """Epsilon: probability of a random action at env step `step`, after [S] finished episodes."""
        raise NotImplementedError

    def act(self, q: Tensor, step: Step, episode: Tensor) -> Tensor:
        """Q-values [S, N, A] -> int64 actions [S, N]; the draw is keyed by the env step."""
        explore = self._explores(step, episode)
        return torch.where(explore, self._action(step // self._n_envs), q.argmax(-1))

    def _explores(self, step: Step, episode: Tensor) -> Tensor:
        """True with probability epsilon, bool [S, N]."""
        epsilon, chance = self.rate(step, episode), self._chance(step // self._n_envs)
        if isinstance(epsilon, Tensor):
            epsilon = epsilon.to(chance.device, torch.float32).view(-1, 1)
        return chance < epsilon

    def probabilities(self, q: Tensor, rate: Tensor) -> Tensor:
        """Action probabilities [S, B, A], given Q-values [S, B, A] and epsilon [] or [S]."""
        epsilon, A = rate.view(-1, 1, 1), q.shape[-1]
        greedy = q.argmax(-1, keepdim=True) == torch.arange(A, device=q.device)
        return epsilon / A + (1.0 - epsilon) * greedy.to(q.dtype)


@register("exploration", "linear")
class Linear(EpsilonGreedy):
    """Epsilon changes linearly from `start` to `end` in `decay_steps` env steps, after `hold_steps`."""

    config: schema.Linear

    def __init__(self, context: Context, config: schema.Linear):
        super().__init__(context, config)
        self._line, self._hold_steps = (config.start, config.end, config.decay_steps), config.hold_steps

    def rate(self, step: Step, episode: Tensor) -> float | Tensor:
        since = step - self._hold_steps
        since = since.clamp(min=0) if isinstance(since, Tensor) else max(0, since)
        return schedules.linear(since, *self._line)


@register("exploration", "exponential")
class Exponential(EpsilonGreedy):
    """Epsilon decays from `start` to `end` with time constant `decay_steps` env steps."""

    config: schema.Decay

    def __init__(self, context: Context, config: schema.Decay):
        super().__init__(context, config)
        self._curve = config.start, config.end, config.decay_steps

    def rate(self, step: Step, episode: Tensor) -> float | Tensor:
        return schedules.exponential(step, *self._curve)


@register("exploration", "constant")
class Constant(EpsilonGreedy):
    """Epsilon stays at `start`."""

    config: schema.Constant

    def __init__(self, context: Context, config: schema.Constant):
        super().__init__(context, config)
        self._epsilon = config.start

    def rate(self, step: Step, episode: Tensor) -> float:
        return self._epsilon


@register("exploration", "per_episode")
class PerEpisode(EpsilonGreedy):
    """Epsilon is start / (episode + 1), but never below `end`."""

    config: schema.PerEpisode

    def __init__(self, context: Context, config: schema.PerEpisode):
        super().__init__(context, config)
        self._start, self._end = config.start, config.end

    def rate(self, step: Step, episode: Tensor) -> Tensor:
        return (self._start / (episode + 1)).clamp(min=self._end)


@register("exploration", "ez_greedy")
class EpsilonZGreedy(EpsilonGreedy):
    """With probability epsilon a random action, repeated for a zeta-distributed number of steps.

    P(n) ~ n^-mu for n in 1, ..., max_duration; the end of an episode does not end the repetition.
    On-policy rules learn about single steps of it: `probabilities` ignores repetition.
    Dabney, Ostrovski, Barreto 2020, https://arxiv.org/abs/2006.01782.
    """

    config: schema.EpsilonZ

    def __init__(self, context: Context, config: schema.EpsilonZ):
        super().__init__(context, config)
        self._line = config.start, config.end, config.decay_steps
        shape, device = (context.n_seeds, context.n_envs), context.device
        durations = torch.arange(1, config.max_duration + 1, device=device, dtype=torch.float64)
        mass = durations**-config.mu
        self._longer = (mass.cumsum(0) / mass.sum())[:-1].float()  # P(duration <= n)
        self._duration = rng.Draws(rng.uniform, context.seeds, "explore/duration", (context.n_envs,))
        self._left = torch.zeros(shape, dtype=torch.int64, device=device)  # steps still to repeat
        self._repeated = torch.zeros(shape, dtype=torch.int64, device=device)

    def rate(self, step: Step, episode: Tensor) -> float | Tensor:
        return schedules.linear(step, *self._line)

    def act(self, q: Tensor, step: Step, episode: Tensor) -> Tensor:
        """Q-values [S, N, A] -> int64 actions [S, N]; the draw is keyed by the env step."""
        step_of_env = step // self._n_envs
        begins = (self._left == 0) & self._explores(step, episode)
        duration = 1 + (self._longer <= self._duration(step_of_env).unsqueeze(-1)).sum(-1)
        left = torch.where(begins, duration, self._left)
        repeated = torch.where(begins, self._action(step_of_env), self._repeated)
        self._repeated.copy_(repeated)
        self._left.copy_((left - 1).clamp(min=0))
        return torch.where(left > 0, repeated, q.argmax(-1))

    def state_dict(self) -> dict[str, Tensor]:
        """The actions being repeated, and for how many more steps."""
        return {"left": self._left, "repeated": self._repeated}


@register("exploration", "boltzmann")
class Boltzmann(TensorState):
    """Actions with probabilities softmax(Q / temperature); the temperature changes linearly."""

    config: schema.Boltzmann
    tag = "train/temperature"
    COLDEST = 1e-6  # practically greedy

    def __init__(self, context: Context, config: schema.Boltzmann):
        self._line = config.start, config.end, config.decay_steps
        self._n_envs = context.n_envs
        self._chance = rng.Draws(rng.uniform, context.seeds, "explore", (context.n_envs,))

    def rate(self, step: Step, episode: Tensor) -> float | Tensor:
        """Temperature at env step `step`."""
        return schedules.linear(step, *self._line)

    def act(self, q: Tensor, step: Step, episode: Tensor) -> Tensor:
        """Q-values [S, N, A] -> int64 actions [S, N]; the draw is keyed by the env step."""
        temperature = torch.as_tensor(self.rate(step, episode), dtype=q.dtype, device=q.device)
        return td.sample_action(self.probabilities(q, temperature), self._chance(step // self._n_envs))

    def probabilities(self, q: Tensor, rate: Tensor) -> Tensor:
        """Action probabilities [S, B, A], given Q-values [S, B, A] and a temperature [] or [S]."""
        return (q / rate.clamp(min=self.COLDEST).view(-1, 1, 1)).softmax(-1)
