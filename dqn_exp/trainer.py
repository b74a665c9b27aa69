"""A run: the loop with its logs and evaluations. Letters: S seeds, N envs per seed."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from dqn_exp.checkpoint import Checkpoints
from dqn_exp.diagnostics import scalars
from dqn_exp.evaluation import Evaluation, Play, evaluate
from dqn_exp.loop import Loop
from dqn_exp.stopping import StopRule
from dqn_exp.tracking import Tracker
from dqn_exp.types import EPISODE_LOG, Env, State

log = logging.getLogger(__name__)


@dataclass
class Trainer:
    """Trains all seeds in lockstep. Steps and intervals are env steps of each seed."""

    loop: Loop
    eval_env: Env
    play: Play
    tracker: Tracker
    eval_every: int
    final_rounds: int  # episodes of each eval env in the final evaluation
    log_every: int
    progress: bool  # show a bar, if standard error is a terminal
    stop: StopRule
    checkpoints: Checkpoints
    checkpoint_every: int | None
    about: Mapping[str, Any]  # the run, in each checkpoint
    drop: bool  # go on with the other seeds once one has failed

    def __post_init__(self) -> None:
        self.seconds = 0.0  # spent on training, not on evaluation
        self._logged = self.loop.step, self.seconds
        self._failed: set[int] = set()

    def state_dict(self) -> State:
        """Of the whole training."""
        return {
            "loop": self.loop.state_dict(),
            "stop": self.stop.state_dict(),
            "tracker": self.tracker.state_dict(),
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: State) -> None:
        """Go on from a state of `state_dict`, of which the loop and the tracker have theirs already."""
        self.stop.load_state_dict(state["stop"])
        self.seconds = state["seconds"]
        self._logged = self.loop.step, self.seconds

    def run(self) -> Evaluation | None:
        """Train for `total_steps`; returns the final greedy evaluation.

        None if the loop has been interrupted; a checkpoint has been saved then.

        Raises:
            FloatingPointError: a seed's values are not finite.
        """
        total = self.loop.context.total_steps
        bar = tqdm(total=total, unit=" steps", disable=None if self.progress else True)
        with bar, logging_redirect_tqdm():
            while self.loop.step < total and not self.stop.met:
                began, before = time.perf_counter(), self.loop.step
                self.loop.advance(self._next_stop())
                self._see_failures()
                finished = self.loop.env.take_episodes()
                self.tracker.episodes(finished)
                self.stop.see(finished)
                self.seconds += time.perf_counter() - began
                step = self.loop.step
                last = step == total or self.stop.met
                if step // self.log_every > before // self.log_every or last:
                    self._log()
                    bar.update(step - bar.n)
                if step // self.eval_every > before // self.eval_every and not last:
                    self._evaluate(rounds=1)
                every = self.checkpoint_every
                due = every is not None and step // every > before // every
                if due or last or self.loop.interrupted:
                    self._save()
                if self.loop.interrupted:
                    return None
        return self._evaluate(rounds=self.final_rounds)

    def _next_stop(self) -> int:
        """The next env step at which there is something to do, be it to take episodes in time."""
        step, total = self.loop.step, self.loop.context.total_steps
        intervals = [self.log_every, self.eval_every, EPISODE_LOG * self.loop.context.n_envs]
        intervals += [self.checkpoint_every] if self.checkpoint_every else []
        return min(total, *((step // every + 1) * every for every in intervals))

    def _see_failures(self) -> None:
        """Stop at seeds that learn no more, or say so."""
        for i, failure in self.loop.learner.failures().items():
            if i in self._failed:
                continue
            self._failed.add(i)
            seed = int(self.loop.context.seeds[i])
            line = f"env step {failure.step}: seed {seed} is not finite: {failure}"
            if not self.drop:
                raise FloatingPointError(line)
            log.warning("%s; it learns no more", line)

    def _save(self) -> None:
        """Save a checkpoint; a full disk does not end the training."""
        began, step = time.perf_counter(), self.loop.step
        try:
            self.checkpoints.save(step, self.state_dict(), self.about)
            log.debug("checkpoint of step %d: %.0f ms", step, 1e3 * (time.perf_counter() - began))
        except OSError as error:
            log.error("checkpoint of step %d not saved: %s", step, error)
            if self.loop.interrupted:
                raise
        self.seconds += time.perf_counter() - began

    def _log(self) -> None:
        """Record the interval since the last log."""
        began, loop, S = time.perf_counter(), self.loop, self.loop.context.n_seeds
        step, seconds = self._logged
        speed = (loop.step - step) * S / (self.seconds - seconds)
        values = scalars(loop) | {"time/steps_per_second": np.full(S, speed)}
        self.tracker.scalars(loop.step, values)
        self._logged = loop.step, self.seconds
        self.seconds += time.perf_counter() - began

    def _evaluate(self, rounds: int) -> Evaluation:
        result = evaluate(self.eval_env, self.loop.learner.q, self.play, self.loop.step, rounds)
        values = result.scalars()
        self.tracker.scalars(self.loop.step, values)
        log.info(
            "step %d: greedy return %s, last 100 training episodes %s",
            self.loop.step,
            " ".join(f"{value:.1f}" for value in values["eval/return_mean"]),
            " ".join(f"{value:.1f}" for value in self.tracker.recent_returns()),
        )
        return result
