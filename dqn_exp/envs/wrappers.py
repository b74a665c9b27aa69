"""Wrappers for `env.wrappers`; logged returns stay those of the env itself."""

from typing import Any

import gymnasium
from gymnasium.wrappers import ClipReward, TransformReward

from dqn_exp.registry import register


@register("wrapper", "clip_reward")
def clip_reward(env: gymnasium.Env, *, low: float, high: float) -> gymnasium.Env:
    """Rewards clipped to [low, high] (Mnih et al. 2015 use [-1, 1])."""
    return ClipReward(env, low, high)


@register("wrapper", "scale_reward")
def scale_reward(env: gymnasium.Env, *, factor: float) -> gymnasium.Env:
    """Rewards multiplied by `factor`."""
    return TransformReward(env, lambda reward: float(reward) * factor)


@register("wrapper", "time_limit_is_terminal")
class TimeLimitIsTerminal(gymnasium.Wrapper):
    """Episodes cut off by a time limit count as ended in a terminal state, worth nothing.

    An error (Pardo et al. 2018) that notebooks make, to be able to reproduce them.
    """

    def __init__(self, env: gymnasium.Env):
        super().__init__(env)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As of the env, but terminated where that was truncated."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        return obs, reward, terminated or truncated, False, info


@register("wrapper", "outcome_reward")
class OutcomeReward(gymnasium.Wrapper):
    """0 at every step, and at an episode's end 1 if it was longer than `success_steps`, else -1."""

    def __init__(self, env: gymnasium.Env, *, success_steps: int):
        super().__init__(env)
        self._success_steps = success_steps
        self._steps = 0

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """As of the env."""
        self._steps = 0
        return self.env.reset(**kwargs)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """As of the env, but for the reward."""
        obs, _, terminated, truncated, info = self.env.step(action)
        self._steps += 1
        outcome = 1.0 if self._steps > self._success_steps else -1.0
        return obs, outcome * (terminated or truncated), terminated, truncated, info
