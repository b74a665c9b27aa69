"""Deviations of the notebooks that this project grew out of, to reproduce them faithfully.

Presets load this module with `plugins: [dqn_exp.notebooks]`; nothing else uses it. A run with one of
these parts prints its `deviation` when it starts.
"""

from typing import Any

import gymnasium
import torch
from torch import Tensor
from torch.nn import functional as F

from dqn_exp.buffers.per import PrioritizedBuffer
from dqn_exp.config import schema
from dqn_exp.interfaces import Agent, Context, Step, Transition, Weights
from dqn_exp.nets.mlp import MLP
from dqn_exp.registry import register

UNIFORM_EPISODES = 30


@register("buffer", "notebook_per")
class NotebookPER(PrioritizedBuffer):
    """Samples as the PER notebook did: uniformly for a seed's first 30 episodes, then the transition
    after the one drawn.
    """

    config: schema.PER
    deviation = (
        "buffer.name=notebook_per: samples uniformly for 30 episodes, then the transition after the "
        "one drawn (Schaul 2016: prioritised from the start, the one drawn)"
    )

    def __init__(self, context: Context, agent: Agent, config: schema.PER):
        super().__init__(context, agent, config)
        S, device = context.n_seeds, context.device
        self._episodes = torch.zeros(S, 1, dtype=torch.int64, device=device)  # finished

    def add(self, transition: Transition, step: Step) -> None:
        """Store a transition [S, N] and count finished episodes."""
        super().add(transition, step)
        self._episodes.add_(transition.ended.sum(1, keepdim=True))

    def choose(self, position: Tensor, share: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        """Slots [S, B] as the notebook chose them, and the priorities [S, B] of those drawn."""
        index, priority = super().choose(position, share, step)
        size = self.size(step)
        uniform = (position / self._batch_size * size).long()
        after = (index + 1).clamp(max=size - 1)
        return torch.where(self._episodes < UNIFORM_EPISODES, uniform, after), priority

    def state_dict(self) -> dict[str, Tensor]:
        """That of prioritised replay, and the episode counts."""
        return super().state_dict() | {"episodes": self._episodes}


@register("net", "relu_output_mlp")
class ReluOutputMLP(MLP):
    """The Practical-RL notebook's network: a ReLU on the Q-values. For rules that output Q-values."""

    config: schema.MLP
    deviation = "net.name=relu_output_mlp: a ReLU on the Q-values, which cannot be negative then"

    def __init__(self, context: Context, agent: Agent, config: schema.MLP):
        if agent.n_atoms or agent.implicit:
            raise ValueError("a ReLU on the outputs needs an agent whose outputs are Q-values")
        super().__init__(context, agent, config)

    def __call__(
        self,
        weights: Weights,
        obs: Tensor,
        noise: Tensor | None = None,
        fractions: Tensor | None = None,
    ) -> Tensor:
        """Obs [S, B, D] -> Q-values [S, B, A], none negative."""
        return F.relu(super().__call__(weights, obs, noise, fractions))


@schema.config
class OutcomeRewardConfig(schema.Wrapper):
    success_steps: int = schema.key("an episode longer than this is a success", schema.COUNT)


@register("wrapper", "time_limit_is_terminal")
class TimeLimitIsTerminal(gymnasium.Wrapper):
    """Treats an episode cut off by a time limit as terminated, with a successor worth nothing."""

    config: schema.Wrapper
    deviation = "time_limit_is_terminal: no bootstrapping at time limits (Pardo 2018: there should be)"

    def __init__(self, env: gymnasium.Env, config: schema.Wrapper):
        super().__init__(env)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As the env, but terminated where that was truncated."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        return obs, reward, terminated or truncated, False, info


@register("wrapper", "outcome_reward")
class OutcomeReward(gymnasium.Wrapper):
    """Rewards 0 at every step; at an episode's end 1 if it was longer than `success_steps`, else -1."""

    config: OutcomeRewardConfig
    deviation = "outcome_reward: learns from rewards -1, 0 and 1; logged returns are the env's own"

    def __init__(self, env: gymnasium.Env, config: OutcomeRewardConfig):
        super().__init__(env)
        self._success_steps = config.success_steps
        self._steps = 0

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """As the env."""
        self._steps = 0
        return self.env.reset(**kwargs)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """As the env, but for the reward."""
        obs, _, terminated, truncated, info = self.env.step(action)
        self._steps += 1
        outcome = 1.0 if self._steps > self._success_steps else -1.0
        return obs, outcome * (terminated or truncated), terminated, truncated, info
