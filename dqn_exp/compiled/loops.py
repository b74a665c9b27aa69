"""Two compiled forms of the training loop. Letters: S seeds, N envs per seed.

`CompiledSteps` compiles everything between two env steps into one graph; `WholeLoop` compiles the env
too, and many steps. Compiled code counts steps in tensors, whose values Python does not know.
"""

import math
from typing import Any

import torch
from torch import Tensor

from dqn_exp.compiled.gradient import record
from dqn_exp.compiled.graph import Graph, while_loop
from dqn_exp.interfaces import Step, Transition
from dqn_exp.loop import Loop
from dqn_exp.target import multiples_passed

PERIODS = 256  # that one call of compiled code runs at most
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

    def _run_graph(self, counts: tuple[int, ...], *args: Tensor) -> Any:
        """The graph's result; None, with nothing done, if it cannot be compiled."""
        device = self.context.device
        return self._graph(*(torch.tensor(count, device=device) for count in counts), *args)


class CompiledSteps(Compiled):
    """One graph per env step: store, learn, and choose the next action. For every env."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._graph = Graph(self._compute, self.context.device, "learning step", self._prepare)

    def advance(self, stop: int) -> None:
        """Run until env step `stop`."""
        n_envs = self.context.n_envs
        while self.step < stop and not self.interrupted:
            if self._graph.failed or self.step < self.learning_starts:
                super().advance(min(stop, self.step + n_envs))
                continue
            transition, self.obs = self.env.step(self._next_action())
            due = self._updates_due(self.step + n_envs)
            # A copy: obs is next_obs unless an episode ends, and the graph would be compiled for that.
            result = self._run_graph(
                (self.step, self.gradient_step, due), self.obs.clone(), *transition
            )
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
        """Make the updates due, in compiled code in a loop whose length is a tensor."""
        if not isinstance(due, Tensor):
            return super()._updates(step, gradient_step, due)
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

    def advance(self, stop: int) -> None:
        """Run until env step `stop`; what is not a whole period runs step by step."""
        while self.step < stop and not self.interrupted:
            periods = min(PERIODS, (stop - self.step) // self._period)
            aligned = self.step >= self.learning_starts and self.step % self._period == 0
            if aligned and periods and not self._graph.failed:
                counts = (self.step, self.gradient_step, self.step + periods * self._period)
                result = self._run_graph(counts, self.obs)
                if result:
                    _, _, self.obs = result
                    self.step += periods * self._period
                    self.gradient_step += periods * sum(self._pattern)
            else:
                super().advance(self.step + self.context.n_envs)

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
