"""Prioritised experience replay, proportional. Schaul et al. 2016, https://arxiv.org/abs/1511.05952.

Deviation: none known; where Algorithm 1 leaves open over what the largest weight is taken, it is taken
over the minibatch.
"""

import torch
from torch import Tensor

from dqn_exp import rng, schedules
from dqn_exp.buffers.ring import Ring
from dqn_exp.buffers.sum_tree import SumTree
from dqn_exp.registry import register
from dqn_exp.types import Agent, Batch, Context, Step, TensorState, Transition

UNIFORM_EPISODES = 30  # of the notebook that `compat` follows


@register("buffer", "per")
class PrioritizedBuffer(TensorState):
    """Transitions drawn with probability proportional to (|TD| + epsilon)^alpha.

    A new transition gets the largest priority so far of its seed. The importance exponent beta goes
    linearly from `beta_start` to `beta_end` at the last gradient step.

    Args:
        compat: "notebook" samples as the PER notebook that this project grew out of: uniformly for the
            first 30 episodes, then by its sampler, which takes the item after the right one.
    """

    def __init__(
        self,
        context: Context,
        agent: Agent,
        *,
        capacity: int,
        alpha: float,
        beta_start: float,
        beta_end: float,
        epsilon: float,
        compat: str | None = None,
    ):
        S, device = context.n_seeds, context.device
        self._ring = Ring(context, agent, capacity, SumTree.n_bytes(S, capacity, device))
        self._tree = SumTree(S, capacity, device)
        self._max_priority = torch.ones(S, 1, dtype=self._tree.dtype, device=device)
        self._envs = torch.arange(context.n_envs, device=device).repeat(S, 1)
        self._draws = rng.Draws(rng.uniform, context.seeds, "replay", (context.batch_size,))
        self._alpha, self._epsilon = alpha, epsilon
        self._beta_schedule = (beta_start, beta_end, max(1, context.total_updates - 1))
        self._batch_size, self._dtype = context.batch_size, context.dtype
        self._compat = compat
        self._episodes = torch.zeros(S, 1, dtype=torch.int64, device=device)  # finished
        self.n_bytes = self._ring.n_bytes

    def add(self, transition: Transition, step: Step) -> None:
        """Store a transition [S, N] at its seed's largest priority so far (Algorithm 1, line 6)."""
        index = self._ring.add(transition, step) + self._envs
        self._tree.update(index, self._max_priority.expand_as(index))
        if self._compat:
            ended = transition.terminated | transition.truncated
            self._episodes.add_(ended.sum(1, keepdim=True))

    def sample(self, step: Step, gradient_step: Step) -> Batch:
        """A minibatch [S, B] after env step `step`, keyed by the gradient step.

        One transition is drawn from each of B equal shares of the priority mass. The weights are
        (size * P(i))^-beta over their largest in the minibatch (sec. 3.4).
        """
        batch_size = self._batch_size
        share = self._tree.total().unsqueeze(1) / batch_size
        stratum = torch.arange(batch_size, device=share.device)
        # In the tree's precision: float32 would miss rare transitions of a large buffer.
        position = stratum + self._draws(gradient_step).to(self._tree.dtype)
        index, priority = self._tree.find(position * share)
        if self._compat:
            index = self._as_the_notebook(index, position / batch_size, self._ring.size(step))
        beta = schedules.linear(gradient_step, *self._beta_schedule)
        # size and total are the same for all of a seed, so they cancel in the division.
        weight = (priority.amin(1, keepdim=True) / priority) ** beta
        return self._ring.gather(index, weight.to(self._dtype))

    def _as_the_notebook(self, index: Tensor, fraction: Tensor, size: Step) -> Tensor:
        """Slots [S, B]: uniform until a seed's 30th episode ends, then each one after that drawn."""
        after = (index + 1).clamp(max=size - 1)
        return torch.where(self._episodes < UNIFORM_EPISODES, (fraction * size).long(), after)

    def draw_ahead(self, gradient_step: Tensor, n: int) -> None:
        """Draw for n updates from `gradient_step` on, before compiled code makes them."""
        self._draws.ahead(gradient_step, n)

    def update_priorities(self, index: Tensor, td_abs: Tensor) -> None:
        """Set the priorities of transitions [S, B] from their |TD| [S, B]."""
        priority = (td_abs.to(self._tree.dtype) + self._epsilon) ** self._alpha
        self._tree.update(index, priority)
        largest = priority.amax(1, keepdim=True)
        self._max_priority.copy_(torch.maximum(self._max_priority, largest))

    def state_dict(self) -> dict[str, Tensor]:
        """The transitions, the tree of priorities, and the largest of them so far."""
        own = {"max_priority": self._max_priority, "episodes": self._episodes}
        return self._ring.state_dict() | self._tree.state_dict() | own

    def end_windows(self) -> None:
        """Let no n-step window reach beyond the newest transitions."""
        self._ring.end_windows()

    def age(self, index: Tensor, step: int) -> Tensor:
        """Env steps [S, B] since the transitions at index [S, B] were stored."""
        return self._ring.age(index, step)

    def metrics(self, step: int, gradient_step: int) -> dict[str, Tensor]:
        """`buffer/size` and `buffer/beta`, each [S]."""
        S = len(self._max_priority)
        beta = schedules.linear(max(0, gradient_step - 1), *self._beta_schedule)
        return {
            "buffer/size": torch.full((S,), float(self._ring.size(step))),
            "buffer/beta": torch.full((S,), beta),
        }
