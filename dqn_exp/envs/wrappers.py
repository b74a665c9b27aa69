"""Reward wrappers for `env.wrappers`; logged returns stay those of the env itself."""

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
