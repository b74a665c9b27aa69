"""What a run says when it begins and ends, and what summary.json holds."""

import math
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from dqn_exp.buffers.memory import format_bytes
from dqn_exp.config.schema import Config
from dqn_exp.parts import Parts
from dqn_exp.run.evaluation import Evaluation
from dqn_exp.run.trainer import Trainer
from dqn_exp.statistics import confidence_interval, interquartile_mean

LIBRARIES = ("dqn-exp", "torch", "gymnasium", "numpy", "hydra-core", "tensorboard")
LISTED = 10  # seeds that the end of a run lists one by one


def versions() -> dict[str, str]:
    """The versions of Python and of the libraries that results depend on."""
    return {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES}


def git_revision() -> str | None:
    """The commit of the code that runs; None outside a repository."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def results(trainer: Trainer, final: Evaluation, config: Config) -> dict[str, Any]:
    """The results of a training, given its final evaluation.

    Raises:
        FloatingPointError: the objective is not finite.
    """
    scores, context = final.returns.mean(1), trainer.parts.context
    objective = float(interquartile_mean(scores))
    if not math.isfinite(objective):
        raise FloatingPointError(f"the final returns are not finite: {scores.tolist()}")
    found = {
        "step": trainer.step,
        "objective": objective,
        "objective_ci95": confidence_interval(scores),
        "final_returns": scores.tolist(),
        "steps_per_second": trainer.step * context.n_seeds / trainer.seconds,
        "train_seconds": trainer.seconds,
    }
    if failures := trainer.parts.learner.finite.failures():
        found["dropped"] = {
            int(context.seeds[i]): {"step": failure.step, "reason": str(failure)}
            for i, failure in failures.items()
        }
    if trainer.stop.exists:
        found["stop_rule_met"] = [e and e._asdict() for e in trainer.stop.met_at]
    if config.eval.solved is not None:
        found["solved"] = [bool(score >= config.eval.solved) for score in scores]
    return found


def opening(parts: Parts, folder: str) -> Iterator[str]:
    """What is about to run, a fact a line."""
    config, context = parts.config, parts.context
    last = config.seed + config.seeds - 1
    seeds = f"{config.seed} to {last}, in lockstep" if config.seeds > 1 else str(config.seed)
    yield f"env     {config.env.id} ({config.env.backend}), {counted(config.env.n, 'env')} per seed"
    yield f"seeds   {seeds}"
    yield f"agent   {config.agent.name}, {config.agent.n_step}-step returns"
    yield f"net     {config.net.name}, {parts.net.n_params:,} parameters"
    yield f"buffer  {config.buffer.name}, {config.buffer.capacity:,} transitions per seed"
    yield f"memory  {format_bytes(parts.buffer.n_bytes)} of replay on {context.device}"
    yield f"steps   {context.total_steps:,} env steps and {context.total_updates:,} updates per seed"
    yield f"form    {parts.form} (compile={str(config.compile).lower()})"
    yield f"folder  {folder}"


def ending(summary: Mapping[str, Any], final: Evaluation, folder: str) -> Iterator[str]:
    """The results of a run, and what to do next, a fact a line."""
    scores = summary["final_returns"]
    yield f"final evaluation: {counted(final.returns.shape[1], 'greedy episode')} per seed"
    yield from per_seed(summary["seeds"], final.returns)
    for seed, failure in summary.get("dropped", {}).items():
        yield f"  seed {seed} stopped learning at env step {failure['step']}: {failure['reason']}"
    if "solved" in summary:
        yield f"solved: {sum(summary['solved'])} of {counted(len(scores), 'seed')}"
    interval = summary["objective_ci95"]
    spread = f", 95 % CI [{interval[0]:.1f}, {interval[1]:.1f}]" if interval else ""
    yield f"IQM {summary['objective']:.1f} over {counted(len(scores), 'seed')}{spread}"
    yield (
        f"{summary['steps_per_second']:,.0f} env steps/s over all seeds, "
        f"{summary['train_seconds']:.1f} s of training"
    )
    own = shlex.quote(folder)
    yield "see the curves, a report, or the agent; or continue with a larger total_steps:"
    yield f"  tensorboard --logdir {own}"
    yield f"  dqn-exp report {own}"
    yield f"  dqn-exp watch {own}"
    yield f"  {program(f'resume={folder}')}"


def per_seed(seeds: Sequence[int], returns: np.ndarray) -> Iterator[str]:
    """A line for the returns [S, E] of each seed, or of the lowest of many seeds."""
    rows = sorted(zip(returns.mean(1), seeds, returns, strict=True), key=lambda row: row[:2])
    if len(rows) > LISTED:
        yield f"  the {LISTED // 2} lowest of {len(rows)} seeds:"
        rows = rows[: LISTED // 2]
    for score, seed, own in sorted(rows, key=lambda row: row[1]):
        yield f"  seed {seed:<6} {score:8.1f} +- {own.std():.1f}, worst episode {own.min():.1f}"


def program(*arguments: str) -> str:
    """The command line of this program with arguments."""
    own = "python train.py" if Path(sys.argv[0]).name == "train.py" else "dqn-exp train"
    return shlex.join([*own.split(), *arguments])


def counted(n: int, noun: str) -> str:
    """'1 seed', '2 seeds'."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
