"""Uniform experience replay. Lin 1992; Mnih et al. 2015."""

import torch
from torch import Tensor

from dqn_exp import rng
from dqn_exp.buffers.ring import Ring
from dqn_exp.registry import register
from dqn_exp.types import Agent, Batch, Context, Step, TensorState, Transition, widest_float


@register("buffer", "uniform")
class UniformBuffer(TensorState):
    """The newest `capacity` transitions of each seed, sampled uniformly."""

    def __init__(self, context: Context, agent: Agent, *, capacity: int):
        self._ring = Ring(context, agent, capacity)
        self._weight = torch.ones(
            context.n_seeds, context.batch_size, dtype=context.dtype, device=context.device
        )
        self._draws = rng.Draws(_stratified, context.seeds, "replay", (context.batch_size,))
        self.n_bytes = self._ring.n_bytes

    def add(self, transition: Transition, step: Step) -> None:
        """Store a transition [S, N] made at env step `step`."""
        self._ring.add(transition, step)

    def sample(self, step: Step, gradient_step: Step) -> Batch:
        """A minibatch [S, B] after env step `step`, keyed by the gradient step.

        Each of B equal shares of the ring gives one transition: all are equally likely, and none
        comes twice but where it lies in two shares.
        """
        index = (self._draws(gradient_step) * self._ring.size(step)).long()
        return self._ring.gather(index, self._weight)

    def draw_ahead(self, gradient_step: Tensor, n: int) -> None:
        """Draw for n updates from `gradient_step` on, before compiled code makes them."""
        self._draws.ahead(gradient_step, n)

    def update_priorities(self, index: Tensor, td_abs: Tensor) -> None:
        """Uniform replay has no priorities."""

    def state_dict(self) -> dict[str, Tensor]:
        """The transitions."""
        return self._ring.state_dict()

    def end_windows(self) -> None:
        """Let no n-step window reach beyond the newest transitions."""
        self._ring.end_windows()

    def age(self, index: Tensor, step: int) -> Tensor:
        """Env steps [S, B] since the transitions at index [S, B] were stored."""
        return self._ring.age(index, step)

    def metrics(self, step: int, gradient_step: int) -> dict[str, Tensor]:
        """`buffer/size`: transitions stored, [S]."""
        return {"buffer/size": torch.full((len(self._weight),), float(self._ring.size(step)))}


def _stratified(seeds: Tensor, stream: str | int, step: int | Tensor, shape: tuple[int]) -> Tensor:
    """Fractions in [0, 1), one from each of B equal shares: [S, B] or [L, S, B]."""
    (batch_size,) = shape
    draw = rng.uniform(seeds, stream, step, shape)
    share = torch.arange(batch_size, device=seeds.device)
    fraction = (share + draw.to(widest_float(draw.device))) / batch_size
    return fraction.clamp(max=1.0 - torch.finfo(fraction.dtype).eps)  # float32 may round up to 1
