"""Reward wrappers for `env.wrappers`; logged returns stay those of the env itself."""

import gymnasium
from gymnasium.wrappers import ClipReward, TransformReward

from dqn_exp.config import schema
from dqn_exp.registry import register


@register("wrapper", "clip_reward")
def clip_reward(env: gymnasium.Env, config: schema.ClipReward) -> gymnasium.Env:
    """Rewards clipped to [low, high] (Mnih et al. 2015 use [-1, 1])."""
    return ClipReward(env, config.low, config.high)


@register("wrapper", "scale_reward")
def scale_reward(env: gymnasium.Env, config: schema.ScaleReward) -> gymnasium.Env:
    """Rewards multiplied by `factor`."""
    return TransformReward(env, lambda reward: float(reward) * config.factor)
