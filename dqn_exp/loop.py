"""The training loop: act, step, store, learn. Letters: S seeds, N envs per seed, B batch.

`Loop` runs it operation by operation. `compiled/loops.py` has two compiled forms of it, which run the
same body; they change the same tensors in place, so each form can continue where another has stopped.
"""

import logging
from dataclasses import dataclass

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
from dqn_exp.state import State
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
        self.interrupted = False

    def advance(self, stop: int) -> None:
        """Run until env step `stop`."""
        while self.step < stop and not self.interrupted:
            transition, self.obs = self.env.step(self._next_action())
            due = self._updates_due(self.step + self.context.n_envs)
            self.step, self.gradient_step = self.learn(transition, self.step, self.gradient_step, due)  # type: ignore[assignment]

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
        step, gradient_step = self._updates(step, gradient_step, due)
        params, episodes = self.learner.params, self.env.episode_counts
        self.learner.target.after_step(params, step, transition, episodes)
        return step, gradient_step

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
        """The actions int64 [S, N] to take now."""
        action, self._action = self._action, None
        return self._act(self.obs, self.step) if action is None else action

    def _act(self, obs: Tensor, step: Step) -> Tensor:
        """Actions int64 [S, N] for obs [S, N, *obs]."""
        return self.exploration.act(self.learner.q(obs, step), step, self.env.episode_counts)

    def _updates(self, step: Step, gradient_step: Step, due: Step) -> tuple[Step, Step]:
        """Make the updates due after env step `step`; returns both counts."""
        for _ in range(int(due)):
            self._update(step, gradient_step)
            gradient_step = gradient_step + 1
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
