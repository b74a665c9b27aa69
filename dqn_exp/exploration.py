"""Exploration and its schedules. Letters: S seeds, N envs per seed, B batch, A actions."""

from functools import partial

import torch
from torch import Tensor

from dqn_exp import rng, schedules, td
from dqn_exp.registry import register
from dqn_exp.types import Context, Step, TensorState


class EpsilonGreedy(TensorState):
    """A uniformly random action with probability epsilon, else the greedy one."""

    tag = "train/epsilon"

    def __init__(self, context: Context):
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
        """Of each action, [S, B, A], given Q-values [S, B, A] and epsilon [] or [S]."""
        epsilon, A = rate.view(-1, 1, 1), q.shape[-1]
        greedy = q.argmax(-1, keepdim=True) == torch.arange(A, device=q.device)
        return epsilon / A + (1.0 - epsilon) * greedy.to(q.dtype)

    def draw_ahead(self, step: Tensor, n: int) -> None:
        """Draw for n steps of every env from env step `step` on, before compiled code makes them."""
        step_of_env = step // self._n_envs
        for draws in (self._chance, self._action):
            draws.ahead(step_of_env, n)


@register("exploration", "linear")
class Linear(EpsilonGreedy):
    """Epsilon from `start` to `end` in a straight line over `decay_steps` env steps.

    Args:
        hold_steps: env steps before the line begins.
    """

    def __init__(
        self, context: Context, *, start: float, end: float, decay_steps: int, hold_steps: int = 0
    ):
        super().__init__(context)
        self.start, self.end, self.decay_steps = start, end, decay_steps
        self._hold_steps = hold_steps

    def rate(self, step: Step, episode: Tensor) -> float | Tensor:
        since = step - self._hold_steps
        since = since.clamp(min=0) if isinstance(since, Tensor) else max(0, since)
        return schedules.linear(since, self.start, self.end, self.decay_steps)


@register("exploration", "exponential")
class Exponential(EpsilonGreedy):
    """Epsilon decays from `start` to `end` with time constant `decay_steps` env steps."""

    def __init__(self, context: Context, *, start: float, end: float, decay_steps: int):
        super().__init__(context)
        self.start, self.end, self.decay_steps = start, end, decay_steps

    def rate(self, step: Step, episode: Tensor) -> float | Tensor:
        return schedules.exponential(step, self.start, self.end, self.decay_steps)


@register("exploration", "constant")
class Constant(EpsilonGreedy):
    """Epsilon stays at `start`."""

    def __init__(self, context: Context, *, start: float):
        super().__init__(context)
        self.start = start

    def rate(self, step: Step, episode: Tensor) -> float:
        return self.start


@register("exploration", "per_episode")
class PerEpisode(EpsilonGreedy):
    """Epsilon is start / (episode + 1), but never below `end`."""

    def __init__(self, context: Context, *, start: float, end: float):
        super().__init__(context)
        self.start, self.end = start, end

    def rate(self, step: Step, episode: Tensor) -> Tensor:
        return (self.start / (episode + 1)).clamp(min=self.end)


@register("exploration", "ez_greedy")
class EpsilonZGreedy(Linear):
    """With probability epsilon a random action, repeated for a while drawn from a zeta distribution.

    P(n) ~ n^-mu for n in 1, ..., max_duration; episodes that end meanwhile do not break it off.
    On-policy rules learn about single steps of it: `probabilities` knows no repetition.
    Dabney, Ostrovski, Barreto 2020, https://arxiv.org/abs/2006.01782.
    """

    def __init__(
        self,
        context: Context,
        *,
        start: float,
        end: float,
        decay_steps: int,
        mu: float,
        max_duration: int,
    ):
        super().__init__(context, start=start, end=end, decay_steps=decay_steps)
        shape, device = (context.n_seeds, context.n_envs), context.device
        mass = torch.arange(1, max_duration + 1, device=device, dtype=torch.float64) ** -mu
        self._longer = (mass.cumsum(0) / mass.sum())[:-1].float()  # P(duration <= n)
        self._duration = rng.Draws(rng.uniform, context.seeds, "explore/duration", (context.n_envs,))
        self._left = torch.zeros(shape, dtype=torch.int64, device=device)  # steps still to repeat
        self._repeated = torch.zeros(shape, dtype=torch.int64, device=device)

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

    def draw_ahead(self, step: Tensor, n: int) -> None:
        """Draw for n steps of every env from env step `step` on, before compiled code makes them."""
        super().draw_ahead(step, n)
        self._duration.ahead(step // self._n_envs, n)

    def state_dict(self) -> dict[str, Tensor]:
        """The actions being repeated, and for how long still."""
        return {"left": self._left, "repeated": self._repeated}


@register("exploration", "boltzmann")
class Boltzmann(TensorState):
    """Actions with probabilities softmax(Q / temperature); the temperature goes in a straight line."""

    tag = "train/temperature"
    COLDEST = 1e-6  # as good as greedy

    def __init__(self, context: Context, *, start: float, end: float, decay_steps: int):
        self.start, self.end, self.decay_steps = start, end, decay_steps
        self._n_envs = context.n_envs
        self._chance = rng.Draws(rng.uniform, context.seeds, "explore", (context.n_envs,))

    def rate(self, step: Step, episode: Tensor) -> float | Tensor:
        """Temperature at env step `step`."""
        return schedules.linear(step, self.start, self.end, self.decay_steps)

    def act(self, q: Tensor, step: Step, episode: Tensor) -> Tensor:
        """Q-values [S, N, A] -> int64 actions [S, N]; the draw is keyed by the env step."""
        temperature = torch.as_tensor(self.rate(step, episode), dtype=q.dtype, device=q.device)
        return td.sample_action(self.probabilities(q, temperature), self._chance(step // self._n_envs))

    def probabilities(self, q: Tensor, rate: Tensor) -> Tensor:
        """Of each action, [S, B, A], given Q-values [S, B, A] and a temperature [] or [S]."""
        return (q / rate.clamp(min=self.COLDEST).view(-1, 1, 1)).softmax(-1)

    def draw_ahead(self, step: Tensor, n: int) -> None:
        """Draw for n steps of every env from env step `step` on, before compiled code makes them."""
        self._chance.ahead(step // self._n_envs, n)
