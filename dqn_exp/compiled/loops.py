"""Two compiled forms of the training loop. Letters: S seeds, N envs per seed.

`CompiledSteps` compiles everything between two env steps into one graph; `WholeLoop` compiles the env
too, and many steps. Compiled code counts steps in tensors, whose values Python does not know.
"""

import math
import time
from typing import Any

import torch
from torch import Tensor

from dqn_exp.compiled.gradient import record
from dqn_exp.compiled.graph import Graph, while_loop
from dqn_exp.interfaces import Step, Transition
from dqn_exp.loop import Loop
from dqn_exp.target import multiples_passed

PERIODS = 256  # that one call of compiled code runs at most
SECONDS = 1.0  # that a call takes at most, about: a signal waits for its end
MAX_UPDATES = 64  # of one env step that one call makes; more are made in several
MAX_UNROLLED = 8  # env steps, and updates, of a period that is compiled as a whole


def updates_of_period(n_envs: int, train_every: int, updates: int) -> list[int]:
    """Gradient steps after each step of N envs, over the shortest period that repeats."""
    steps = range(n_envs, math.lcm(train_every, n_envs) + 1, n_envs)
    return [int(multiples_passed(step, train_every, n_envs)) * updates for step in steps]


class Compiled(Loop):
    """What the compiled forms share. The graph is compiled when learning starts."""

    _graph: Graph

    def _prepare(self) -> None:
        record(self.learner, self.buffer.sample(self.step, self.gradient_step))

    def _update(self, step: Step, gradient_step: Step) -> None:
        """One gradient step, in plain code too by the recorded gradient.

        A resumed process may make it before it compiles, where the one before had compiled already:
        the two ways to the gradient round differently.
        """
        if not isinstance(step, Tensor):
            self._graph.prepare()
        super()._update(step, gradient_step)

    def _run(self, graph: Graph, counts: tuple[int, ...], *args: Tensor) -> Any:
        """A graph's result; None, with nothing done, if it cannot be compiled."""
        device = self.context.device
        return graph(*(torch.tensor(count, device=device) for count in counts), *args)


class CompiledSteps(Compiled):
    """One graph per env step: store, learn, and choose the next action. For every env."""

    def __post_init__(self) -> None:
        super().__post_init__()
        device = self.context.device
        self._graph = Graph(self._compute, device, "learning step", self._prepare)
        self._updates_graph = Graph(self._compute_updates, device, "updates", self._prepare)

    def advance(self, stop: int) -> None:
        """Run until env step `stop`, with all of its updates."""
        n_envs = self.context.n_envs
        while self._unfinished(stop):
            due = self._updates_due(self.step + n_envs)
            by_hand = self._graph.failed or self.step < self.learning_starts
            if by_hand or self.updates_left or due > MAX_UPDATES:
                super().advance(self.step if self.updates_left else self.step + n_envs)
                continue
            transition, self.obs = self.env.step(self._next_action())
            # A copy: obs is next_obs unless an episode ends, and the graph would be compiled for that.
            counts = self.step, self.gradient_step, due
            result = self._run(self._graph, counts, self.obs.clone(), *transition)
            if result:
                self._action, _ = result
                self.step, self.gradient_step = self.step + n_envs, self.gradient_step + due
            else:
                self.step, self.gradient_step = self.learn(  # type: ignore[assignment]
                    transition, self.step, self.gradient_step, due
                )

    def _compute(
        self, step: Tensor, gradient_step: Tensor, due: Tensor, obs: Tensor, *transition: Tensor
    ) -> tuple[Tensor, Step]:
        """Store the transition of env step `step`, make the updates due, and act on obs."""
        last = gradient_step + due
        step, reached = self.learn(Transition(*transition), step, gradient_step, due)  # type: ignore[assignment]
        # Acting must wait for the loop (see `_updates`), whose result must be used.
        return self._act(obs * (reached == last), step), reached

    def _updates(self, step: Step, gradient_step: Step, due: Step) -> tuple[Step, Step]:
        """Make the updates due: within the graph all of them, else many at a time by another graph."""
        if isinstance(due, Tensor):
            return self._compute_updates(step, gradient_step, due)  # type: ignore[arg-type]
        self.updates_left = int(due)
        many = self._updates_due(int(step)) > MAX_UPDATES and not self._graph.failed
        while many and self.updates_left and not (self.interrupted or self._updates_graph.failed):
            n = min(self.updates_left, MAX_UPDATES)
            if self._run(self._updates_graph, (step, gradient_step, n)):  # type: ignore[arg-type]
                gradient_step, self.updates_left = gradient_step + n, self.updates_left - n
        return super()._updates(step, gradient_step, self.updates_left)

    def _compute_updates(
        self, step: Tensor, gradient_step: Tensor, due: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Make the updates due, in a loop whose length is a tensor; returns both counts."""
        last = gradient_step + due

        def unfinished(gradient_step: Tensor) -> Tensor:
            return gradient_step < last

        def update(gradient_step: Tensor) -> tuple[Tensor]:
            self._update(step, gradient_step)
            return (gradient_step + 1,)

        (reached,) = while_loop(unfinished, update, (gradient_step,))
        # The compiler does not see that the loop changes the parameters, and might read them before it:
        # what follows is made to depend on the loop's result.
        return step * (reached == last), reached


class WholeLoop(Compiled):
    """Whole periods of env steps, with the updates due in them, in one graph. For compilable envs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._graph = Graph(self._compute, self.context.device, "training loop", self._prepare)
        self._pattern = updates_of_period(self.context.n_envs, self.train_every, self.updates)
        self._period = len(self._pattern) * self.context.n_envs
        self._periods = PERIODS  # of the next call

    def advance(self, stop: int) -> None:
        """Run until env step `stop`; what is not a whole period runs step by step."""
        while self._unfinished(stop):
            periods = min(self._periods, (stop - self.step) // self._period)
            aligned = self.step >= self.learning_starts and self.step % self._period == 0
            if not aligned or not periods or self.updates_left or self._graph.failed:
                super().advance(self.step if self.updates_left else self.step + self.context.n_envs)
                continue
            began = time.perf_counter()
            counts = self.step, self.gradient_step, self.step + periods * self._period
            result = self._run(self._graph, counts, self.obs)
            if result:
                _, _, self.obs = result
                self.step += periods * self._period
                self.gradient_step += periods * sum(self._pattern)
                share = SECONDS / (time.perf_counter() - began)
                self._periods = max(1, min(PERIODS, int(periods * share)))

    def _updates(self, step: Step, gradient_step: Step, due: Step) -> tuple[Step, Step]:
        """Make the updates due: in compiled code one after the other, without a loop."""
        if not isinstance(step, Tensor):
            return super()._updates(step, gradient_step, due)
        for _ in range(int(due)):
            self._update(step, gradient_step)
            gradient_step = gradient_step + 1
        return step, gradient_step

    def _compute(
        self, step: Tensor, gradient_step: Tensor, stop: Tensor, obs: Tensor
    ) -> tuple[Tensor, ...]:
        """Periods from env step `step` to `stop`: the counts then, and the obs."""

        def unfinished(step: Tensor, gradient_step: Tensor, obs: Tensor) -> Tensor:
            return step < stop

        def period(step: Tensor, gradient_step: Tensor, obs: Tensor) -> tuple[Tensor, ...]:
            for due in self._pattern:
                transition, obs = self.env.step(self._act(obs, step))
                step, gradient_step = self.learn(transition, step, gradient_step, due)  # type: ignore[assignment]
            return step, gradient_step, obs

        return while_loop(unfinished, period, (step, gradient_step, obs))
