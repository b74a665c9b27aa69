"""The training loop: act, step, store, learn. Letters: S seeds, N envs per seed, B batch.

`Loop` runs it operation by operation. `compiled/loops.py` has two compiled forms of it, which run the
same body; they change the same tensors in place, so each form can continue where another has stopped.
"""

import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from dqn_exp.interfaces import (
    Agent,
    Context,
    Env,
    Exploration,
    NotDeterministicError,
    ReplayBuffer,
    Step,
    Transition,
)
from dqn_exp.learner import Learner
from dqn_exp.state import State, require
from dqn_exp.target import multiples_passed

log = logging.getLogger(__name__)


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
        self.step: int = 0
        self.gradient_step: int = 0
        self.obs = self.env.reset()
        self._action: Tensor | None = None  # the next one, if compiled code has already chosen it
        self.updates_left = 0  # of the last env step, if a signal has interrupted them
        self._ended: Tensor | None = None  # bool [S, N], which episodes that step has ended
        self.interrupted = False

    def advance(self, stop: int) -> None:
        """Run until env step `stop`, with all of its updates."""
        while self._unfinished(stop):
            if self._ended is not None:
                counts = self._finish_step(
                    self.step, self.gradient_step, self.updates_left, self._ended
                )
                self._ended = self._ended if self.updates_left else None
            else:
                transition, self.obs = self.env.step(self._next_action())
                due = self._updates_due(self.step + self.context.n_envs)
                counts = self.learn(transition, self.step, self.gradient_step, due)
                self._ended = transition.ended if self.updates_left else None
            self.step, self.gradient_step = counts  # type: ignore[assignment]

    def learn(
        self, transition: Transition, step: Step, gradient_step: Step, due: Step
    ) -> tuple[Step, Step]:
        """The body of every form: store a transition [S, N], make the updates due, move the target.

        Args:
            step: env steps made before the transition.
            gradient_step: updates made before.
            due: updates to make now.

        Returns:
            Env steps and updates made after it.
        """
        self.buffer.add(transition, step)
        step = step + self.context.n_envs
        return self._finish_step(step, gradient_step, due, transition.ended)

    def interrupt(self) -> None:
        """Make `advance` return as soon as it can; a signal handler may call this."""
        self.interrupted = True

    def state_dict(self) -> State:
        """The state of the loop and its parts."""
        return {
            "step": self.step,
            "gradient_step": self.gradient_step,
            "obs": self.obs,
            "action": self._action,
            "updates_left": self.updates_left,
            "ended": self._ended,
            "learner": self.learner.state_dict(),
            "buffer": self.buffer.state_dict(),
            "exploration": self.exploration.state_dict(),
            "env": self.env.state_dict(),
        }

    def load_state_dict(self, state: State, new_episodes: bool = False) -> None:
        """Continue from a state of `state_dict` of any form of the loop.

        Args:
            new_episodes: begin new episodes if the env's current ones cannot be restored.

        Raises:
            NotDeterministicError: the env's episodes cannot be restored.
            ValueError: the state does not fit.
        """
        counts = state["step"], state["gradient_step"], state["updates_left"]
        if not all(type(count) is int and count >= 0 for count in counts):
            raise ValueError(f"steps and updates are {counts}, must be integers >= 0")
        obs, action, ended = state["obs"], state["action"], state["ended"]
        shape, device = self.obs.shape[:2], self.obs.device
        require("obs", obs, self.obs.dtype, self.obs.shape)
        if action is not None:
            require("action", action, torch.int64, shape, below=self.context.spec.n_actions)
        if ended is not None:
            require("ended", ended, torch.bool, shape)
        self.learner.load_state_dict(state["learner"])
        self.buffer.load_state_dict(state["buffer"])
        self.exploration.load_state_dict(state["exploration"])
        self.step, self.gradient_step, self.updates_left = counts
        self.obs = obs.to(device)
        self._action = None if action is None else action.to(device)
        self._ended = None if ended is None else ended.to(device)
        try:
            self.env.load_state_dict(state["env"])
        except NotDeterministicError:
            if not new_episodes:
                raise
            log.warning("not bit-exact: the env is not deterministic; new episodes begin")
            self.obs, self._action = self.env.begin_new_episodes(), None
            self.buffer.end_windows()

    def _next_action(self) -> Tensor:
        """The actions int64 [S, N] to take now."""
        action, self._action = self._action, None
        return self._act(self.obs, self.step) if action is None else action

    def _act(self, obs: Tensor, step: Step) -> Tensor:
        """Actions int64 [S, N] for obs [S, N, *obs]."""
        return self.exploration.act(self.learner.q(obs, step), step, self.env.episode_counts)

    def _unfinished(self, stop: int) -> bool:
        """Whether `advance` has something to do, and may do it."""
        return (self.step < stop or self.updates_left > 0) and not self.interrupted

    def _finish_step(
        self, step: Step, gradient_step: Step, due: Step, ended: Tensor
    ) -> tuple[Step, Step]:
        """Make the updates due after env step `step`, then move the target; returns both counts.

        A signal interrupts the updates; the target moves when the last of them has been made.
        """
        step, gradient_step = self._updates(step, gradient_step, due)
        if not self.updates_left:
            params, episodes = self.learner.params, self.env.episode_counts
            self.learner.target.after_step(params, step, ended, episodes)
        return step, gradient_step

    def _updates(self, step: Step, gradient_step: Step, due: Step) -> tuple[Step, Step]:
        """Make updates until none is left or a signal interrupts them; returns both counts."""
        self.updates_left = int(due)
        while self.updates_left and not self.interrupted:
            self._update(step, gradient_step)
            gradient_step = gradient_step + 1
            self.updates_left -= 1
        return step, gradient_step

    def _update(self, step: Step, gradient_step: Step) -> None:
        """One gradient step."""
        batch = self.buffer.sample(step, gradient_step)
        rate = self.exploration.rate(step, self.env.episode_counts) if self.agent.on_policy else 0.0
        priority = self.learner.update(batch, step, gradient_step, rate)
        self.buffer.update_priorities(batch.index, priority)

    def _updates_due(self, step: int) -> int:
        """Updates due when env step `step` has been made."""
        if step < self.learning_starts:
            return 0
        return int(multiples_passed(step, self.train_every, self.context.n_envs)) * self.updates
