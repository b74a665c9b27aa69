"""The training of a run, with its logs, evaluations and checkpoints.

Letters: S seeds, N envs per seed.
"""

import logging
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
from dqn_exp.run.evaluation import Evaluation, evaluate, interquartile_mean
from dqn_exp.run.stopping import StopRule
from dqn_exp.run.tracker import Tracker
from dqn_exp.state import State

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
        }

    def load_state_dict(self, state: State, new_episodes: bool = False) -> None:
        """Continue from a state of `state_dict`; what was saved or written after it is deleted.

        Args:
            new_episodes: begin new episodes if the env's current ones cannot be restored.

        Raises:
            NotDeterministicError, ValueError, KeyError: it cannot; no file has changed.
        """
        self.parts.loop.load_state_dict(state["loop"], new_episodes)
        self.stop.load_state_dict(state["stop"])
        self.seconds = state["seconds"]
        self._logged = self.step, self.seconds
        self.tracker.load_state_dict(state["tracker"], self.step)
        self._checkpoints.drop_after(self.step)

    def run(self) -> Evaluation | None:
        """Train for `total_steps`; returns the final greedy evaluation.

        None if the loop has been interrupted; a checkpoint has been saved then.

        Raises:
            FloatingPointError: a seed's values are not finite.
        """
        self.tracker.open()
        total, config = self.parts.context.total_steps, self.parts.config
        bar = tqdm(total=total, unit=" steps", disable=None if self._progress else True)
        with bar, logging_redirect_tqdm(_printing_loggers()):
            while self.step < total and not self.stop.met:
                began, before = time.perf_counter(), self.step
                self.parts.loop.advance(self._next_stop())
                self._see_failures()
                finished = self.parts.env.take_episodes()
                self.tracker.episodes(finished)
                self.stop.see(finished)
                self.seconds += time.perf_counter() - began
                last = self.step == total or self.stop.met
                if last or self._passed(before, config.log.every):
                    self._log()
                    bar.update(self.step - bar.n)
                if not last and self._passed(before, config.eval.every):
                    self._evaluate(rounds=1)
                interrupted = self.parts.loop.interrupted
                if last or interrupted or self._passed(before, config.checkpoint.every):
                    self._save()
                if interrupted:
                    return None
        return self._evaluate(rounds=self._final_rounds)

    def _next_stop(self) -> int:
        """The next env step with something to do; one is to take episodes in time."""
        config, n_envs = self.parts.config, self.parts.context.n_envs
        intervals = [config.log.every, config.eval.every, EPISODE_LOG * n_envs]
        intervals += [config.checkpoint.every] if config.checkpoint.every else []
        total = self.parts.context.total_steps
        return min(total, *((self.step // every + 1) * every for every in intervals))

    def _passed(self, before: int, every: int | None) -> bool:
        """Whether a multiple of `every` lies between env step `before` and now."""
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

    def _save(self) -> None:
        """Save a checkpoint; a full disk does not end the training."""
        began, step = time.perf_counter(), self.step
        try:
            self._checkpoints.save(step, self.state_dict(), self._about)
            log.debug("checkpoint of step %d: %.0f ms", step, 1e3 * (time.perf_counter() - began))
        except OSError as error:
            log.error("checkpoint of step %d not saved: %s", step, error)
            if self.parts.loop.interrupted:
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

    def _evaluate(self, rounds: int) -> Evaluation:
        q = self.parts.learner.q
        result = evaluate(self.parts.eval_env, q, self.parts.play, self.step, rounds)
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
