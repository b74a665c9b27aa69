"""The training of a run, with its logs, evaluations and checkpoints.

Letters: S seeds, N envs per seed.
"""

import logging
import math
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from textwrap import indent
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from dqn_exp.config import typed
from dqn_exp.config.schema import GROUPS, Config
from dqn_exp.diagnostics import histograms, scalars
from dqn_exp.film import Film, as_gif, drawn
from dqn_exp.interfaces import EPISODE_LOG
from dqn_exp.parts import Parts
from dqn_exp.run.checkpoint import Checkpoints
from dqn_exp.run.evaluation import Evaluation, Interrupted, evaluate
from dqn_exp.run.stopping import StopRule
from dqn_exp.run.tensorboard import TensorBoard
from dqn_exp.run.tracker import Logger, Tracker
from dqn_exp.run.wandb import Wandb
from dqn_exp.state import State, require
from dqn_exp.statistics import interquartile_mean

log = logging.getLogger(__name__)

Scalar = bool | int | float | str  # what the HPARAMS tab takes
BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}, {remaining} left, {rate_fmt}]"


class Trainer:
    """Trains all seeds in lockstep. Steps and intervals are env steps of each seed.

    Args:
        folder: the run folder, which exists.
        progress: show a bar, if standard error is a terminal.
        about: what each checkpoint says about the run.
        overrides: what was typed for this run.
        varied: keys that the HPARAMS tab shows; None: those that were typed.
    """

    def __init__(
        self,
        parts: Parts,
        folder: Path,
        progress: bool,
        about: Mapping[str, Any],
        overrides: Sequence[str] = (),
        varied: Sequence[str] | None = None,
    ):
        self.parts, self._progress, self._about = parts, progress, about
        config, seeds = parts.config, parts.context.seeds.tolist()
        if varied is None:
            varied = [text.partition("=")[0].lstrip("+") for text in overrides]
        loggers: list[Logger] = []
        if "tensorboard" in config.loggers:
            hparams, texts = _hparams(config, varied), _texts(config, overrides)
            loggers.append(TensorBoard(folder, seeds, hparams, texts))
        if "wandb" in config.loggers:
            loggers.append(Wandb(folder, seeds, typed.plain(config)))
        self.tracker = Tracker(folder, seeds, loggers)
        self.stop = StopRule(parts.context.n_seeds, config.train.stop)
        self._checkpoints = Checkpoints(folder / "checkpoints", config.checkpoint.keep)
        self._final_rounds = config.eval.final_episodes // config.eval.episodes
        self.seconds = 0.0  # spent on training, not on evaluation
        self._began = time.perf_counter()
        self._wall_before = 0.0  # seconds that the run took before it was resumed
        self._logged = 0, 0.0  # step and seconds at the last log point
        self._owes_evaluation = False  # that of the current step has been interrupted
        # [S] mean return of each seed in the last evaluation
        self._scores = torch.full((parts.context.n_seeds,), math.nan, dtype=torch.float64)
        self._saved: tuple[int, int] | None = None  # env steps and updates of the last checkpoint
        self._failed: set[int] = set()

    @property
    def wall_seconds(self) -> float:
        """Time that the run has taken, without that between a stop and its continuation."""
        return self._wall_before + time.perf_counter() - self._began

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
            "wall_seconds": self.wall_seconds,
            "owes_evaluation": self._owes_evaluation,
            "scores": self._scores,
        }

    def load_state_dict(self, state: State, new_episodes: bool = False) -> None:
        """Continue from a state of `state_dict`; what was saved or written after it is deleted.

        Args:
            new_episodes: begin new episodes if the env's current ones cannot be restored.

        Raises:
            NotDeterministicError, ValueError, KeyError: it cannot; no file has changed.
        """
        owes_evaluation, scores = state["owes_evaluation"], state["scores"]
        for key in ("seconds", "wall_seconds"):
            if type(state[key]) is not float or not 0 <= state[key] < math.inf:
                raise ValueError(f"{key} is {state[key]}, must be a number >= 0")
        if type(owes_evaluation) is not bool:
            raise ValueError(f"owes_evaluation is {owes_evaluation}, must be true or false")
        require("scores", scores, self._scores.dtype, self._scores.shape)
        self.parts.loop.load_state_dict(state["loop"], new_episodes)
        self.stop.load_state_dict(state["stop"])
        self.seconds, self._wall_before = state["seconds"], state["wall_seconds"]
        self._owes_evaluation, self._scores = owes_evaluation, scores
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
        bar = tqdm(
            total=total,
            initial=self.step,
            unit=" steps",
            disable=None if self._progress else True,
            bar_format=BAR.replace("{remaining}", "at most {remaining}") if self.stop.exists else BAR,
        )
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
        final = self._play(self._final_rounds)
        if final is not None and self.parts.config.log.video:
            self._film(int(np.argmax(final.returns.mean(1))))
        return final

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
        if self.parts.config.log.histograms:
            for logger in self.tracker.loggers:
                logger.histograms(self.step, histograms(self.parts.loop))
        self._logged = self.step, self.seconds
        self.seconds += time.perf_counter() - began

    def _film(self, i: int) -> None:
        """Film greedy episodes of the i-th seed for TensorBoard."""
        config, q = self.parts.config, self.parts.learner.q
        seed, S = int(self.parts.context.seeds[i]), self.parts.context.n_seeds

        def of_seed(obs: Tensor) -> Tensor:
            same = obs.to(self.parts.context.device).expand(S, *obs.shape[1:])
            return q(same)[i : i + 1].cpu()

        with closing(Film(config.env, of_seed, seed, "rgb_array")) as film:
            for episode in range(config.log.video):
                frames = list(drawn(film, episode, f"{config.agent.name}, seed {seed}"))
                size = frames[0].shape[1], frames[0].shape[0]
                tag, gif = f"film/episode {episode}", as_gif(frames, film.fps)
                for logger in self.tracker.loggers:
                    logger.film(i, self.step, tag, gif, size)

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
        self._scores = torch.from_numpy(values["eval/return_mean"])
        greedy = spread(values["eval/return_mean"])
        recent = spread(self.tracker.recent_returns())
        log.info("step %7d  greedy return %s  training return %s", self.step, greedy, recent)
        return result


def _hparams(config: Config, keys: Sequence[str]) -> dict[str, Scalar]:
    """The values of some keys; of a config group, the name of its option."""
    flat = typed.flatten(typed.plain(config))
    names = {group: f"{group}.{'id' if group == 'env' else 'name'}" for group in GROUPS}
    chosen = {names.get(key, key) for key in keys}
    return {
        key: value if isinstance(value, Scalar) else str(value)
        for key, value in flat.items()
        if key in chosen or any(key.startswith(f"{parent}.") for parent in chosen)
    }


def _texts(config: Config, overrides: Sequence[str]) -> dict[str, str]:
    """The config as Markdown, as typed and as composed."""
    composed = yaml.safe_dump(typed.plain(config), sort_keys=False)
    blocks = {"typed": " ".join(overrides) or "(nothing)", "composed": composed}
    return {f"config/{tag}": indent(text, "    ") for tag, text in blocks.items()}


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
