"""What summary.json says of a run, and the block at its end."""

import math
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dqn_exp.evaluation import Evaluation, confidence_interval, interquartile_mean
from dqn_exp.trainer import Trainer

LIBRARIES = ("dqn-exp", "torch", "gymnasium", "numpy", "hydra-core", "tensorboard")


def versions() -> dict[str, str]:
    """Of Python and of the libraries that results depend on."""
    return {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES}


def git_revision() -> str | None:
    """The commit of the code that runs; None outside a repository."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def results(trainer: Trainer, final: Evaluation, config: Mapping[str, Any]) -> dict[str, Any]:
    """What a training has come to, given its last evaluation.

    Raises:
        FloatingPointError: the objective is not finite.
    """
    scores, context = final.returns.mean(1), trainer.loop.context
    objective = float(interquartile_mean(scores))
    if not math.isfinite(objective):
        raise FloatingPointError(f"the final returns are not finite: {scores.tolist()}")
    found = {
        "step": trainer.loop.step,
        "objective": objective,
        "objective_ci95": confidence_interval(scores),
        "final_returns": scores.tolist(),
        "steps_per_second": trainer.loop.step * context.n_seeds / trainer.seconds,
        "train_seconds": trainer.seconds,
    }
    if failures := trainer.loop.learner.failures():
        found["dropped"] = {
            int(context.seeds[i]): {"step": failure.step, "reason": str(failure)}
            for i, failure in failures.items()
        }
    if any(rule is not None for rule in config["train"]["stop"].values()):
        found["stop_rule_met"] = [e and e._asdict() for e in trainer.stop.met_at]
    if (solved := config["eval"]["solved"]) is not None:
        found["solved"] = [bool(score >= solved) for score in scores]
    return found


def report(summary: Mapping[str, Any], final: Evaluation) -> str:
    """The block at the end of a run."""
    lines = [f"final greedy evaluation, {final.returns.shape[1]} episodes per seed:"]
    for seed, returns in zip(summary["seeds"], final.returns, strict=True):
        mean, std = returns.mean(), returns.std()
        lines.append(f"  seed {seed:<4} {mean:8.1f} +- {std:.1f}  worst {returns.min():.1f}")
    for seed, failure in summary.get("dropped", {}).items():
        lines.append(f"  seed {seed} learned until env step {failure['step']}: {failure['reason']}")
    if "solved" in summary:
        solved = summary["solved"]
        lines.append(f"  solved: {sum(solved)} of {len(solved)} seed(s)")
    interval = summary["objective_ci95"]
    ci = f"95 % CI [{interval[0]:.1f}, {interval[1]:.1f}]" if interval else "one seed: no interval"
    lines.append(f"  IQM {summary['objective']:.1f}, {ci}")
    lines.append(
        f"  {summary['steps_per_second']:,.0f} env steps/s over all seeds, "
        f"{summary['train_seconds']:.1f} s training, {summary['wall_seconds']:.1f} s in all"
    )
    return "\n".join(lines)
