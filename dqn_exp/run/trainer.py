"""The training of a run, with its logs, evaluations and checkpoints.

Letters: S seeds, N envs per seed.
"""

import logging
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from dqn_exp.config import typed
from dqn_exp.diagnostics import scalars
from dqn_exp.interfaces import EPISODE_LOG
from dqn_exp.parts import Parts
from dqn_exp.run.checkpoint import Checkpoints
from dqn_exp.run.evaluation import Evaluation, Interrupted, evaluate
from dqn_exp.run.stopping import StopRule
from dqn_exp.run.tracker import Tracker
from dqn_exp.state import State
from dqn_exp.statistics import interquartile_mean

log = logging.getLogger(__name__)

Scalar = bool | int | float | str  # what the HPARAMS tab takes


class Trainer:
    """Trains all seeds in lockstep. Steps and intervals are env steps of each seed.

    Args:
        folder: the run folder, which exists.
        progress: show a bar, if standard error is a terminal.
        about: what each checkpoint says about the run.
    """

    def __init__(self, parts: Parts, folder: Path, progress: bool, about: Mapping[str, Any]):
        self.parts, self._progress, self._about = parts, progress, about
        config = parts.config
        hparams = {
            k: v if isinstance(v, Scalar) else str(v)
            for k, v in typed.flatten(typed.plain(config)).items()
        }
        self.tracker = Tracker(folder, parts.context.seeds.tolist(), hparams)
        self.stop = StopRule(parts.context.n_seeds, config.train.stop)
        self._checkpoints = Checkpoints(folder / "checkpoints", config.checkpoint.keep)
        self._final_rounds = config.eval.final_episodes // config.eval.episodes
        self.seconds = 0.0  # spent on training, not on evaluation
        self._logged = 0, 0.0  # step and seconds at the last log point
        self._owes_evaluation = False  # that of the current step has been interrupted
        self._saved: tuple[int, int] | None = None  # env steps and updates of the last checkpoint
        self._failed: set[int] = set()

    @property
    def step(self) -> int:
        """Env steps made."""
        return self.parts.loop.step

    def state_dict(self) -> State:
        """The state of the whole training."""
        return {
            "loop": self.parts.loop.state_dict(),
            "stop": self.stop.state_dict(),
            "tracker": self.tracker.state_dict(),
            "seconds": self.seconds,
            "owes_evaluation": self._owes_evaluation,
        }

    def load_state_dict(self, state: State, new_episodes: bool = False) -> None:
        """Continue from a state of `state_dict`; what was saved or written after it is deleted.

        Args:
            new_episodes: begin new episodes if the env's current ones cannot be restored.

        Raises:
            NotDeterministicError, ValueError, KeyError: it cannot; no file has changed.
        """
        seconds, owes_evaluation = state["seconds"], state["owes_evaluation"]
        if type(seconds) is not float or not 0 <= seconds < math.inf:
            raise ValueError(f"seconds is {seconds}, must be a number >= 0")
        if type(owes_evaluation) is not bool:
            raise ValueError(f"owes_evaluation is {owes_evaluation}, must be true or false")
        self.parts.loop.load_state_dict(state["loop"], new_episodes)
        self.stop.load_state_dict(state["stop"])
        self.seconds, self._owes_evaluation = seconds, owes_evaluation
        self._logged = self.step, self.seconds
        self.tracker.load_state_dict(state["tracker"], self.step)
        self._checkpoints.drop_after(self.step)
        self._saved = self.step, self.parts.loop.gradient_step

    def run(self) -> Evaluation | None:
        """Train for `total_steps`; returns the final greedy evaluation.

        None if a signal has interrupted it; a checkpoint has been saved then.

        Raises:
            FloatingPointError: a seed's values are not finite.
            OSError: the last checkpoint cannot be saved.
        """
        self.tracker.open()
        total, loop = self.parts.context.total_steps, self.parts.loop
        bar = tqdm(total=total, unit=" steps", disable=None if self._progress else True)
        with bar, logging_redirect_tqdm(_printing_loggers()):
            while not self._ended():
                if self._owes_evaluation:
                    self._evaluate()
                else:
                    self._train()
                    bar.update(self.step - bar.n)
                if loop.interrupted:
                    self._save(required=True)
                    return None
            self._save(required=True)
        return self._play(self._final_rounds)

    def _train(self) -> None:
        """Train until the next env step with something to do, and do it, unless a signal interrupts."""
        began, config, loop = time.perf_counter(), self.parts.config, self.parts.loop
        stop = self._next_stop()
        loop.advance(stop)
        self._see_failures()
        finished = self.parts.env.take_episodes()
        self.tracker.episodes(finished)
        self.stop.see(finished)
        self.seconds += time.perf_counter() - began
        if self.step < stop or loop.updates_left:
            return
        if self._ended() or self._reached(config.log.every):
            self._log()
        if self._ended():
            return
        if self._reached(config.eval.every):
            self._evaluate()
        if self._reached(config.checkpoint.every) and not self._owes_evaluation:
            self._save()

    def _ended(self) -> bool:
        """Whether the training has ended. The stop rule counts only where every run looks at it."""
        done = self.step == self.parts.context.total_steps or (self.stop.met and self._at_stop())
        return done and not self.parts.loop.updates_left

    def _next_stop(self) -> int:
        """The env step until which to train now: the next with something to do."""
        if self.parts.loop.updates_left and self._at_stop():
            return self.step
        total = self.parts.context.total_steps
        return min(total, *((self.step // every + 1) * every for every in self._intervals()))

    def _at_stop(self) -> bool:
        """Whether there is something to do at this env step: a signal may interrupt between two."""
        return any(map(self._reached, self._intervals()))

    def _intervals(self) -> list[int]:
        """Env steps between those with something to do; one is to take episodes in time."""
        config, n_envs = self.parts.config, self.parts.context.n_envs
        intervals = [config.log.every, config.eval.every, EPISODE_LOG * n_envs]
        return intervals + ([config.checkpoint.every] if config.checkpoint.every else [])

    def _reached(self, every: int | None) -> bool:
        """Whether the last step of N envs has reached a multiple of `every` env steps."""
        before = self.step - self.parts.context.n_envs
        return every is not None and self.step // every > before // every

    def _see_failures(self) -> None:
        """Raise or report that seeds have stopped learning."""
        for i, failure in self.parts.learner.finite.failures().items():
            if i in self._failed:
                continue
            self._failed.add(i)
            seed = int(self.parts.context.seeds[i])
            line = f"env step {failure.step}: seed {seed} is not finite: {failure}"
            if self.parts.config.train.on_divergence == "stop":
                raise FloatingPointError(line)
            log.warning("%s; it stops learning", line)

    def _save(self, required: bool = False) -> None:
        """Save a checkpoint; a full disk ends the training only if it is required."""
        began, step = time.perf_counter(), self.step
        at = step, self.parts.loop.gradient_step
        if at == self._saved:
            return
        try:
            self._checkpoints.save(step, self.state_dict(), self._about)
            self._saved = at
            log.debug("checkpoint of step %d: %.0f ms", step, 1e3 * (time.perf_counter() - began))
        except OSError as error:
            log.error("checkpoint of step %d not saved: %s", step, error)
            if required:
                raise
        self.seconds += time.perf_counter() - began

    def _log(self) -> None:
        """Record the interval since the last log point."""
        began, S = time.perf_counter(), self.parts.context.n_seeds
        step, seconds = self._logged
        speed = (self.step - step) * S / (self.seconds - seconds)
        values = scalars(self.parts.loop) | {"time/steps_per_second": np.full(S, speed)}
        self.tracker.scalars(self.step, values)
        self._logged = self.step, self.seconds
        self.seconds += time.perf_counter() - began

    def _evaluate(self) -> None:
        """The evaluation of this env step, which is owed until it has been made."""
        self._owes_evaluation = self._play(1) is None

    def _play(self, rounds: int) -> Evaluation | None:
        """Evaluate and record it; None if a signal interrupts it."""
        parts, loop = self.parts, self.parts.loop
        env, q = parts.eval_env, parts.learner.q
        try:
            result = evaluate(env, q, parts.play, self.step, rounds, lambda: loop.interrupted)
        except Interrupted:
            return None
        values = result.scalars()
        self.tracker.scalars(self.step, values)
        greedy = spread(values["eval/return_mean"])
        recent = spread(np.array(self.tracker.recent_returns()))
        log.info("step %7d  greedy return %s  training return %s", self.step, greedy, recent)
        return result


def _printing_loggers() -> list[logging.Logger]:
    """The loggers whose messages appear on the terminal, above the progress bar."""

    def prints(handler: logging.Handler) -> bool:
        return getattr(handler, "stream", None) in (sys.stdout, sys.stderr)

    loggers = [logging.root, logging.getLogger("dqn_exp")]
    return [logger for logger in loggers if any(map(prints, logger.handlers))]


def spread(values: np.ndarray) -> str:
    """The IQM of values [S], and their range if there are several; for people."""
    if np.isnan(values).any():
        return "none yet"
    middle = f"{float(interquartile_mean(values)):.1f}"
    return middle if len(values) == 1 else f"{middle} ({values.min():.1f} to {values.max():.1f})"
