"""The training loop. Letters: S seeds, N envs per seed, B batch."""

import logging
import time
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from dqn_exp.evaluation import Evaluation, evaluate
from dqn_exp.learner import Learner
from dqn_exp.tracking import Tracker
from dqn_exp.types import Agent, Context, Env, Exploration, ReplayBuffer

log = logging.getLogger(__name__)


@dataclass
class Trainer:
    """Trains all seeds in lockstep. Steps and intervals are env steps of each seed."""

    context: Context
    env: Env
    eval_env: Env
    buffer: ReplayBuffer
    agent: Agent
    learner: Learner
    exploration: Exploration
    tracker: Tracker
    batch_size: int
    learning_starts: int
    train_every: int
    updates: int  # gradient steps each time
    eval_every: int
    final_rounds: int  # episodes of each eval env in the final evaluation
    log_every: int
    progress: bool  # show a bar, if standard error is a terminal

    def __post_init__(self) -> None:
        self.step = self.gradient_step = 0
        self._eval_seconds = 0.0
        self._obs = self.env.reset()
        self._start_interval()

    def run(self) -> Evaluation:
        """Train for `total_steps`; returns the final greedy evaluation."""
        began, total = self._clock(), self.context.total_steps
        bar = tqdm(total=total, unit=" steps", disable=None if self.progress else True)
        with bar, logging_redirect_tqdm():
            while self.step < total:
                self.act_and_learn()
                if self._times(self.log_every) or self.step == total:
                    self._log()
                    bar.update(self.step - bar.n)
                if self._times(self.eval_every) and self.step < total:
                    self._evaluate(rounds=1)
        self.seconds = self._clock() - began
        return self._evaluate(rounds=self.final_rounds)

    def act_and_learn(self) -> None:
        """One step of every env, and the updates due after it."""
        q = self.learner.q(self._obs)
        action = self.exploration.act(q, self.step, self.env.episode_counts)
        transition, self._obs = self.env.step(action)
        self.buffer.add(transition)
        self.step += self.context.n_envs
        if self.step >= self.learning_starts:
            for _ in range(self._times(self.train_every) * self.updates):
                batch = self.buffer.sample(self.batch_size, self.gradient_step)
                td_abs = self.learner.update(batch, self.step)
                self.buffer.update_priorities(batch.index, td_abs)
                self.gradient_step += 1
        if self.agent.target_every and self._times(self.agent.target_every):
            self.learner.update_target()

    def _times(self, every: int) -> int:
        """How many multiples of `every` the last step of N envs reached."""
        return self.step // every - (self.step - self.context.n_envs) // every

    def _clock(self) -> float:
        """Seconds on a monotonic clock that stands still during evaluation."""
        return time.perf_counter() - self._eval_seconds

    def _start_interval(self) -> None:
        self._interval_began, self._interval_step = self._clock(), self.step

    def _log(self) -> None:
        """Record the interval since the last log, in one copy from the device."""
        self.tracker.episodes(self.env.episodes)
        self.env.episodes.clear()
        S, device = self.context.n_seeds, self.context.device
        rows = self.learner.take_metrics() | self.buffer.metrics()
        matrix = torch.stack([row.to(device, torch.float32) for row in rows.values()])
        values = dict(zip(rows, matrix.cpu().numpy(), strict=True))
        epsilon = self.exploration.epsilon(self.step, self.env.episode_counts)
        values["train/epsilon"] = np.broadcast_to(np.asarray(epsilon), (S,))
        values["train/lr"] = np.full(S, self.learner.lr(self.step))
        speed = (self.step - self._interval_step) * S / (self._clock() - self._interval_began)
        values["time/steps_per_second"] = np.full(S, speed)
        self.tracker.scalars(self.step, values)
        self._start_interval()

    def _evaluate(self, rounds: int) -> Evaluation:
        began = time.perf_counter()
        result = evaluate(self.eval_env, self.learner.q, self.step, rounds)
        values = {
            "eval/return_mean": result.returns.mean(1),
            "eval/return_std": result.returns.std(1),
            "eval/initial_state_value": result.initial_state_value,
        }
        self.tracker.scalars(self.step, values)
        log.info(
            "step %d: greedy return %s, last 100 training episodes %s",
            self.step,
            " ".join(f"{value:.1f}" for value in values["eval/return_mean"]),
            " ".join(f"{value:.1f}" for value in self.tracker.recent_returns()),
        )
        self._eval_seconds += time.perf_counter() - began
        return result
