"""Prioritised experience replay, proportional. Schaul et al. 2016, https://arxiv.org/abs/1511.05952.

Deviation: none known. Algorithm 1 does not say over what the largest weight is taken; here it is the
minibatch.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from dqn_exp import rng, schedules
from dqn_exp.buffers.ring import Ring
from dqn_exp.buffers.sum_tree import LARGEST, SumTree
from dqn_exp.config import schema
from dqn_exp.interfaces import Agent, Batch, Context, Step, Transition
from dqn_exp.registry import register
from dqn_exp.state import require


@register("buffer", "per")
class PrioritizedBuffer(Ring):
    """Transitions drawn with probability proportional to (|TD error| + epsilon)^alpha.

    A new transition gets the largest priority so far of its seed. The importance exponent beta changes
    linearly from `beta_start` to `beta_end` at the last gradient step.
    """

    config: schema.PER

    def __init__(self, context: Context, agent: Agent, config: schema.PER):
        S, device, capacity = context.n_seeds, context.device, config.capacity
        super().__init__(context, agent, capacity, SumTree.n_bytes(S, capacity, device))
        self._tree = SumTree(S, capacity, device)
        self._max_priority = torch.ones(S, 1, dtype=self._tree.dtype, device=device)
        self._envs = torch.arange(context.n_envs, device=device).repeat(S, 1)
        self._draws = rng.Draws(rng.uniform, context.seeds, "replay", (context.batch_size,))
        self._alpha, self._epsilon = config.alpha, config.epsilon
        last_update = max(1, context.total_updates - 1)
        self._beta_schedule = (config.beta_start, config.beta_end, last_update)
        self._batch_size, self._dtype = context.batch_size, context.dtype

    def add(self, transition: Transition, step: Step) -> None:
        """Store a transition [S, N] at its seed's largest priority so far (Algorithm 1, line 6)."""
        index = self.store(transition, step) + self._envs
        self._tree.update(index, self._max_priority.expand_as(index))

    def sample(self, step: Step, gradient_step: Step) -> Batch:
        """A minibatch [S, B] after env step `step`, keyed by the gradient step.

        One transition is drawn from each of B equal shares of the priority mass. The weights are
        (size * P(i))^-beta over their largest in the minibatch (sec. 3.4).
        """
        share = self._tree.total().unsqueeze(1) / self._batch_size
        stratum = torch.arange(self._batch_size, device=share.device)
        # In the tree's precision: float32 would miss rare transitions of a large buffer.
        position = stratum + self._draws(gradient_step).to(self._tree.dtype)
        index, priority = self.choose(position, share, step)
        beta = schedules.linear(gradient_step, *self._beta_schedule)
        # size and total are the same for all of a seed, so they cancel in the division.
        weight = (priority.amin(1, keepdim=True) / priority) ** beta
        return self.gather(index, weight.to(self._dtype))

    def choose(self, position: Tensor, share: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        """Slots and their priorities, [S, B], at positions [S, B] in shares [S, 1] of priority mass."""
        return self._tree.find(position * share)

    def update_priorities(self, index: Tensor, td_abs: Tensor) -> None:
        """Set the priorities of transitions [S, B] from their |TD error| [S, B]."""
        priority = (td_abs.to(self._tree.dtype) + self._epsilon) ** self._alpha
        self._tree.update(index, priority)
        largest = priority.amax(1, keepdim=True)
        self._max_priority.copy_(torch.maximum(self._max_priority, largest))

    def state_dict(self) -> dict[str, Tensor]:
        """The transitions, the tree of priorities, and the largest priority so far."""
        return super().state_dict() | self._tree.state_dict() | {"max_priority": self._max_priority}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a state of `state_dict`; raises ValueError if it does not fit."""
        super().load_state_dict(state)
        self._tree.require_sums()
        largest = self._max_priority
        require("max_priority", largest, largest.dtype, largest.shape, below=LARGEST)

    def metrics(self, step: int, gradient_step: int) -> dict[str, Tensor]:
        """`buffer/size` and, unless it is constant, `buffer/beta`, each [S]."""
        metrics = super().metrics(step, gradient_step)
        start, end, _ = self._beta_schedule
        if start != end:
            beta = schedules.linear(max(0, gradient_step - 1), *self._beta_schedule)
            metrics["buffer/beta"] = torch.full((len(self._max_priority),), beta)
        return metrics
