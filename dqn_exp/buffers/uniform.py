"""Uniform experience replay. Lin 1992; Mnih et al. 2015."""

import torch
from torch import Tensor

from dqn_exp import rng
from dqn_exp.buffers.ring import Ring
from dqn_exp.registry import register
from dqn_exp.types import Agent, Batch, Context, Transition


@register("buffer", "uniform")
class UniformBuffer:
    """The newest `capacity` transitions of each seed, sampled uniformly without replacement."""

    def __init__(self, context: Context, agent: Agent, *, capacity: int):
        self._ring = Ring(context, agent, capacity)
        self._seeds, self._dtype = context.seeds, context.dtype
        self._draws = rng.Blocks(rng.uniform, context.seeds, "replay")
        self.n_bytes = self._ring.n_bytes

    def __len__(self) -> int:
        """Transitions stored per seed."""
        return len(self._ring)

    def add(self, transition: Transition) -> None:
        """Store a transition [S, N]."""
        self._ring.add(transition)

    def sample(self, batch_size: int, step: int) -> Batch:
        """A minibatch [S, B], keyed by the gradient step `step`.

        The ring is cut into B strata of equal size, turned by a random rotation, and one transition
        is drawn from each: every transition is equally likely, and none comes twice.
        """
        size, width = len(self), len(self) // batch_size
        draw = self._draws(step, (batch_size + 1,))
        stratum = torch.arange(batch_size, device=draw.device) * width
        rotation = (draw[:, -1:] * size).long()
        index = (stratum + (draw[:, :-1] * width).long() + rotation) % size
        return self._ring.gather(index, torch.ones_like(index, dtype=self._dtype))

    def update_priorities(self, index: Tensor, td_abs: Tensor) -> None:
        """Uniform replay has no priorities."""

    def metrics(self) -> dict[str, Tensor]:
        """`buffer/size`: transitions stored, [S]."""
        return {"buffer/size": torch.full((len(self._seeds),), float(len(self)))}
