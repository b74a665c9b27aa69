"""The inner loop: act, step, store, learn. Letters: S seeds, N envs per seed, B batch.

One body of code in three forms. `Loop` runs it operation by operation; `CompiledSteps` compiles all
that lies between two env steps into one graph; `WholeLoop` compiles the env too, and many steps.
They change the same tensors in place, so any of them can go on where another has stopped.
"""

import logging
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._higher_order_ops import while_loop

from dqn_exp.compilation import Graph
from dqn_exp.learner import Learner
from dqn_exp.types import (
    Agent,
    Context,
    Env,
    Exploration,
    NotDeterministicError,
    ReplayBuffer,
    State,
    Step,
    Transition,
)

log = logging.getLogger(__name__)

AHEAD = 256  # periods of env steps that one call of compiled code makes at most
MAX_UNROLLED = 8  # env steps, and updates, of a period that is compiled as a whole


def updates_of_period(n_envs: int, train_every: int, updates: int) -> list[int]:
    """Gradient steps after each step of N envs, over the shortest period that repeats."""
    steps = range(0, math.lcm(train_every, n_envs), n_envs)
    return [((s + n_envs) // train_every - s // train_every) * updates for s in steps]


@dataclass
class Loop:
    """Steps all envs in lockstep and learns. Steps and intervals are env steps of each seed."""

    context: Context
    env: Env
    buffer: ReplayBuffer
    agent: Agent
    learner: Learner
    exploration: Exploration
    learning_starts: int
    train_every: int
    updates: int  # gradient steps each time

    def __post_init__(self) -> None:
        self.step = self.gradient_step = 0
        self.obs = self.env.reset()
        self._action: Tensor | None = None  # the next, if compiled code has chosen it already
        self.interrupted = False

    def advance(self, stop: int) -> None:
        """Go on until env step `stop`."""
        while self.step < stop and not self.interrupted:
            transition, self.obs = self.env.step(self._next_action())
            self._learn_from(transition)

    def interrupt(self) -> None:
        """Let `advance` return as soon as it can; a signal handler may call this."""
        self.interrupted = True

    def state_dict(self) -> State:
        """Of the loop and its parts."""
        return {
            "step": self.step,
            "gradient_step": self.gradient_step,
            "obs": self.obs,
            "action": self._action,
            "learner": self.learner.state_dict(),
            "buffer": self.buffer.state_dict(),
            "exploration": self.exploration.state_dict(),
            "env": self.env.state_dict(),
        }

    def load_state_dict(self, state: State, new_episodes: bool = False) -> None:
        """Go on from a state of `state_dict`, whatever the form of the loop that it is of.

        Args:
            new_episodes: begin new ones if the env's cannot be restored.

        Raises:
            NotDeterministicError: the env's episodes cannot be restored.
            ValueError: it is no such state.
        """
        device = self.context.device
        self.learner.load_state_dict(state["learner"])
        self.buffer.load_state_dict(state["buffer"])
        self.exploration.load_state_dict(state["exploration"])
        self.step, self.gradient_step = state["step"], state["gradient_step"]
        self.obs = state["obs"].to(device)
        self._action = None if state["action"] is None else state["action"].to(device)
        try:
            self.env.load_state_dict(state["env"])
        except NotDeterministicError:
            if not new_episodes:
                raise
            log.warning("not bit-exact: the env is not deterministic; new episodes begin")
            self.obs, self._action = self.env.begin_new_episodes(), None
            self.buffer.end_windows()

    def _next_action(self) -> Tensor:
        """Actions int64 [S, N] to do now."""
        action, self._action = self._action, None
        return self._act(self.obs, self.step) if action is None else action

    def _learn_from(self, transition: Transition) -> None:
        """Store a transition [S, N] and make the updates due."""
        self.buffer.add(transition, self.step)
        self.step += self.context.n_envs
        for _ in range(self._updates_due(self.step)):
            self._update(self.step, self.gradient_step)
            self.gradient_step += 1
        if self.agent.target_every and self._times(self.step, self.agent.target_every):
            self.learner.update_target()
        if self.agent.target_episodes:
            self.learner.update_target(self._episodes_due(transition, self.agent.target_episodes))

    def _act(self, obs: Tensor, step: Step) -> Tensor:
        """Actions int64 [S, N] for obs [S, N, *obs]."""
        return self.exploration.act(self.learner.q(obs, step), step, self.env.episode_counts)

    def _update(self, step: Step, gradient_step: Step) -> None:
        """One gradient step."""
        batch = self.buffer.sample(step, gradient_step)
        rate = self.exploration.rate(step, self.env.episode_counts) if self.agent.on_policy else 0.0
        priority = self.learner.update(batch, step, gradient_step, rate)
        self.buffer.update_priorities(batch.index, priority)

    def _episodes_due(self, transition: Transition, every: int) -> Tensor:
        """Whether each seed has just ended episode 0, every, 2 every, ...: bool [S, 1]."""
        ended = (transition.terminated | transition.truncated).sum(1)
        count = self.env.episode_counts.to(ended.device) + every - 1
        return (count // every > (count - ended) // every).unsqueeze(1)

    def _times(self, step: Any, every: int) -> Any:
        """How many multiples of `every` the step of N envs that led to `step` reached."""
        return step // every - (step - self.context.n_envs) // every

    def _updates_due(self, step: int) -> int:
        """Gradient steps due when env step `step` has been made."""
        return self._times(step, self.train_every) * self.updates if step >= self.learning_starts else 0


class Compiled(Loop):
    """What the compiled forms share. The graph is made when learning starts."""

    _graph: Graph

    def _trace(self) -> None:
        self.learner.trace(self.buffer.sample(self.step, self.gradient_step))

    def _run_graph(self, counts: tuple[int, ...], *args: Tensor) -> Any:
        """The graph's result; None if there is no compiling it, and nothing has been done."""
        device = self.context.device
        return self._graph(*(torch.tensor(count, device=device) for count in counts), *args)

    def _move_target(self, step: Tensor, transition: Transition) -> None:
        """Move a target that moves at intervals, if it is time."""
        if self.agent.target_every:
            self.learner.update_target(self._times(step, self.agent.target_every) > 0)
        if self.agent.target_episodes:
            self.learner.update_target(self._episodes_due(transition, self.agent.target_episodes))


class CompiledSteps(Compiled):
    """One graph per env step: store, learn, and choose the next action. For every env."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._graph = Graph(self._compute, self.context.device, self._trace)
        self._drawn_until = 0

    def advance(self, stop: int) -> None:
        """Go on until env step `stop`."""
        while self.step < stop and not self.interrupted:
            if self._graph.failed or self.step < self.learning_starts:
                super().advance(min(stop, self.step + self.context.n_envs))
                continue
            if self.step >= self._drawn_until:
                self._draw_ahead()
            transition, self.obs = self.env.step(self._next_action())
            updates = self._updates_due(self.step + self.context.n_envs)
            counts = (self.step, self.gradient_step, self.gradient_step + updates)
            # A copy: obs is next_obs unless an episode ends, and the graph would be made for that.
            result = self._run_graph(counts, self.obs.clone(), *transition)
            if result:
                self._action, _ = result
                self.step += self.context.n_envs
                self.gradient_step += updates
            else:
                self._learn_from(transition)

    def _draw_ahead(self) -> None:
        device, steps = self.context.device, AHEAD * self.context.n_envs
        n_updates = (steps // self.train_every + 1) * self.updates
        step, gradient_step = (torch.tensor(c, device=device) for c in (self.step, self.gradient_step))
        self.exploration.draw_ahead(step, AHEAD + 1)
        self.buffer.draw_ahead(gradient_step, n_updates)
        self.learner.draw_ahead(step, AHEAD + 1, gradient_step, n_updates)
        self._drawn_until = self.step + steps

    def _compute(
        self, step: Tensor, gradient_step: Tensor, last: Tensor, obs: Tensor, *transition: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Store the transition of env step `step`, learn up to gradient step `last`, and act on obs."""
        self.buffer.add(Transition(*transition), step)
        step = step + self.context.n_envs

        def unfinished(gradient_step: Tensor) -> Tensor:
            return gradient_step < last

        def update(gradient_step: Tensor) -> tuple[Tensor]:
            self._update(step, gradient_step)
            return (gradient_step + 1,)

        (reached,) = while_loop(unfinished, update, (gradient_step,))
        # The compiler does not see that the loop changes the parameters, and might read them before:
        # what follows is made to wait for it.
        after = reached == last
        obs, step = obs * after, step * after
        self._move_target(step, Transition(*transition))
        return self._act(obs, step), reached  # a loop whose result nobody uses would be left out


class WholeLoop(Compiled):
    """Whole periods of env steps, with the updates due in them, in one graph. For native envs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._graph = Graph(self._compute, self.context.device, self._trace)
        self._pattern = updates_of_period(self.context.n_envs, self.train_every, self.updates)
        self._period = len(self._pattern) * self.context.n_envs

    def advance(self, stop: int) -> None:
        """Go on until env step `stop`; what is no whole period is made step by step."""
        while self.step < stop and not self.interrupted:
            periods = min(AHEAD, (stop - self.step) // self._period)
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
        """Periods from env step `step` to `stop`, at most AHEAD: the counts then, and the obs."""
        self.env.draw_ahead(AHEAD * len(self._pattern))
        self.exploration.draw_ahead(step, AHEAD * len(self._pattern))
        self.buffer.draw_ahead(gradient_step, AHEAD * sum(self._pattern))
        self.learner.draw_ahead(
            step, AHEAD * len(self._pattern), gradient_step, AHEAD * sum(self._pattern)
        )

        def unfinished(step: Tensor, gradient_step: Tensor, obs: Tensor) -> Tensor:
            return step < stop

        def period(step: Tensor, gradient_step: Tensor, obs: Tensor) -> tuple[Tensor, ...]:
            for updates in self._pattern:
                transition, obs = self.env.step(self._act(obs, step))
                self.buffer.add(transition, step)
                step = step + self.context.n_envs
                for _ in range(updates):
                    self._update(step, gradient_step)
                    gradient_step = gradient_step + 1
                self._move_target(step, transition)
            return step, gradient_step, obs

        return while_loop(unfinished, period, (step, gradient_step, obs))
