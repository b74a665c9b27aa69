"""A run: the loop with its logs and evaluations. Letters: S seeds, N envs per seed."""

import logging
import time
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from dqn_exp.evaluation import Evaluation, Play, evaluate
from dqn_exp.loop import Loop
from dqn_exp.stopping import StopRule
from dqn_exp.tracking import Tracker
from dqn_exp.types import EPISODE_LOG, Env

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

    def __post_init__(self) -> None:
        self._eval_seconds = 0.0
        self._start_interval()

    def run(self) -> Evaluation:
        """Train for `total_steps`; returns the final greedy evaluation."""
        began, total = self._clock(), self.loop.context.total_steps
        bar = tqdm(total=total, unit=" steps", disable=None if self.progress else True)
        with bar, logging_redirect_tqdm():
            while self.loop.step < total and not self.stop.met:
                before = self.loop.step
                self.loop.advance(self._next_stop())
                finished = self.loop.env.take_episodes()
                self.tracker.episodes(finished)
                self.stop.see(finished)
                step = self.loop.step
                last = step == total or self.stop.met
                if step // self.log_every > before // self.log_every or last:
                    self._log()
                    bar.update(step - bar.n)
                if step // self.eval_every > before // self.eval_every and not last:
                    self._evaluate(rounds=1)
        self.seconds = self._clock() - began
        return self._evaluate(rounds=self.final_rounds)

    def _next_stop(self) -> int:
        """The next env step at which there is something to do, be it to take episodes in time."""
        step, total = self.loop.step, self.loop.context.total_steps
        intervals = (self.log_every, self.eval_every, EPISODE_LOG * self.loop.context.n_envs)
        return min(total, *((step // every + 1) * every for every in intervals))

    def _clock(self) -> float:
        """Seconds on a monotonic clock that stands still during evaluation."""
        return time.perf_counter() - self._eval_seconds

    def _start_interval(self) -> None:
        self._interval_began, self._interval_step = self._clock(), self.loop.step

    def _log(self) -> None:
        """Record the interval since the last log, in one copy from the device."""
        loop, context = self.loop, self.loop.context
        rows = loop.learner.take_metrics() | loop.buffer.metrics(loop.step, loop.gradient_step)
        matrix = torch.stack([row.to(context.device, torch.float32) for row in rows.values()])
        values = dict(zip(rows, matrix.cpu().numpy(), strict=True))
        rate = torch.as_tensor(loop.exploration.rate(loop.step, loop.env.episode_counts)).cpu()
        values[loop.exploration.tag] = np.broadcast_to(rate.numpy(), (context.n_seeds,))
        if loop.gradient_step:
            values |= self._diagnostics()
        values["train/lr"] = np.full(context.n_seeds, loop.learner.lr(loop.step))
        steps = (loop.step - self._interval_step) * context.n_seeds
        speed = steps / (self._clock() - self._interval_began)
        values["time/steps_per_second"] = np.full(context.n_seeds, speed)
        self.tracker.scalars(loop.step, values)
        self._start_interval()

    def _diagnostics(self) -> dict[str, np.ndarray]:
        """Tag -> [S], about the parameters and a minibatch as the next update might draw it."""
        loop = self.loop
        batch = loop.buffer.sample(loop.step, loop.gradient_step)
        rows = loop.learner.diagnostics(batch) | {
            "buffer/sample_age": loop.buffer.age(batch.index, loop.step).float().mean(1),
            "buffer/terminal_fraction": (batch.discount == 0.0).float().mean(1),
        }
        return dict(zip(rows, torch.stack([*rows.values()]).float().cpu().numpy(), strict=True))

    def _evaluate(self, rounds: int) -> Evaluation:
        began = time.perf_counter()
        result = evaluate(self.eval_env, self.loop.learner.q, self.play, self.loop.step, rounds)
        values = {
            "eval/return_mean": result.returns.mean(1),
            "eval/return_std": result.returns.std(1),
            "eval/initial_state_value": result.initial_state_value,
            "eval/discounted_return": result.discounted_return,
            "eval/overestimation": result.initial_state_value - result.discounted_return,
        }
        self.tracker.scalars(self.loop.step, values)
        log.info(
            "step %d: greedy return %s, last 100 training episodes %s",
            self.loop.step,
            " ".join(f"{value:.1f}" for value in values["eval/return_mean"]),
            " ".join(f"{value:.1f}" for value in self.tracker.recent_returns()),
        )
        self._eval_seconds += time.perf_counter() - began
        return result
