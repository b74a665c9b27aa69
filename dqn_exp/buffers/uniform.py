"""Uniform experience replay. Lin 1992; Mnih et al. 2015."""

import torch
from torch import Tensor

from dqn_exp import rng
from dqn_exp.buffers.ring import Ring
from dqn_exp.config import schema
from dqn_exp.interfaces import Agent, Batch, Context, Step, Transition, widest_float
from dqn_exp.registry import register


@register("buffer", "uniform")
class UniformBuffer(Ring):
    """The newest `capacity` transitions of each seed, sampled uniformly."""

    config: schema.Buffer

    def __init__(self, context: Context, agent: Agent, config: schema.Buffer):
        super().__init__(context, agent, config.capacity)
        shape = (context.n_seeds, context.batch_size)
        self._weight = torch.ones(shape, dtype=context.dtype, device=context.device)
        self._draws = rng.Draws(_stratified, context.seeds, "replay", (context.batch_size,))

    def add(self, transition: Transition, step: Step) -> None:
        """Store a transition [S, N] made at env step `step`."""
        self.store(transition, step)

    def sample(self, step: Step, gradient_step: Step) -> Batch:
        """A minibatch [S, B] after env step `step`, keyed by the gradient step.

        Each of B equal shares of the ring gives one transition: all are equally likely, and only one
        that lies in two shares can be drawn twice.
        """
        index = (self._draws(gradient_step) * self.size(step)).long()
        return self.gather(index, self._weight)

    def update_priorities(self, index: Tensor, td_abs: Tensor) -> None:
        """Uniform replay has no priorities."""


def _stratified(seeds: Tensor, stream: str | int, step: int | Tensor, shape: tuple[int]) -> Tensor:
    """Fractions in [0, 1), one from each of B equal shares: [S, B] or [L, S, B]."""
    (batch_size,) = shape
    draw = rng.uniform(seeds, stream, step, shape)
    share = torch.arange(batch_size, device=seeds.device)
    fraction = (share + draw.to(widest_float(draw.device))) / batch_size
    return fraction.clamp(max=1.0 - torch.finfo(fraction.dtype).eps)  # float32 may round up to 1
