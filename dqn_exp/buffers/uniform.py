"""Uniform experience replay. Lin 1992; Mnih et al. 2015."""

import torch
from torch import Tensor

from dqn_exp import rng
from dqn_exp.buffers.ring import Ring
from dqn_exp.registry import register
from dqn_exp.types import Agent, Batch, Context, Transition, widest_float


@register("buffer", "uniform")
class UniformBuffer:
    """The newest `capacity` transitions of each seed, sampled uniformly."""

    def __init__(self, context: Context, agent: Agent, *, capacity: int):
        self._ring = Ring(context, agent, capacity)
        self._seeds = context.seeds
        self._weight = torch.ones(0, dtype=context.dtype)  # [S, B] once a batch has been drawn
        self._draws = rng.Blocks(_stratified, context.seeds, "replay")
        self.n_bytes = self._ring.n_bytes

    def __len__(self) -> int:
        """Transitions stored per seed."""
        return len(self._ring)

    def add(self, transition: Transition) -> None:
        """Store a transition [S, N]."""
        self._ring.add(transition)

    def sample(self, batch_size: int, step: int) -> Batch:
        """A minibatch [S, B], keyed by the gradient step `step`.

        Each of B equal shares of the ring, turned by a random rotation, gives one transition: all
        are equally likely, and none comes twice but where it lies in two shares.
        """
        index = (self._draws(step, (batch_size,)) * len(self)).long()
        if self._weight.shape != index.shape:
            self._weight = torch.ones_like(index, dtype=self._weight.dtype)
        return self._ring.gather(index, self._weight)

    def update_priorities(self, index: Tensor, td_abs: Tensor) -> None:
        """Uniform replay has no priorities."""

    def metrics(self) -> dict[str, Tensor]:
        """`buffer/size`: transitions stored, [S]."""
        return {"buffer/size": torch.full((len(self._seeds),), float(len(self)))}


def _stratified(seeds: Tensor, stream: str, step: int | Tensor, shape: tuple[int]) -> Tensor:
    """Fractions in [0, 1), one from each of B equal shares of a circle: [S, B] or [L, S, B]."""
    (batch_size,) = shape
    draw = rng.uniform(seeds, stream, step, (batch_size + 1,))
    draw = draw.to(widest_float(draw.device))  # float32 could round a fraction up to 1
    share = torch.arange(batch_size, device=seeds.device)
    return ((share + draw[..., :-1]) / batch_size + draw[..., -1:]) % 1.0
