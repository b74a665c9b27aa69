"""From a checked config to a finished run: builds all parts, trains, and writes the summary."""

import gc
import json
import logging
import platform
import shlex
import subprocess
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from dqn_exp import registry
from dqn_exp.buffers.memory import human
from dqn_exp.deviations import deviations
from dqn_exp.evaluation import (
    CompiledPlay,
    Evaluation,
    Play,
    confidence_interval,
    interquartile_mean,
)
from dqn_exp.learner import Learner
from dqn_exp.loop import MAX_UNROLLED, CompiledSteps, Loop, WholeLoop, updates_of_period
from dqn_exp.registry import ConfigError
from dqn_exp.stopping import StopRule
from dqn_exp.tracking import Tracker
from dqn_exp.trainer import Trainer
from dqn_exp.types import Context

for room in ("envs", "agents", "nets", "buffers", "optim", "exploration"):
    registry.discover(f"dqn_exp.{room}")

log = logging.getLogger(__name__)

FORMS: dict[type[Loop], str] = {
    Loop: "not compiled",
    CompiledSteps: "steps compiled",
    WholeLoop: "whole loop compiled",
}
# With compile=auto: gradient steps from which the seconds saved outweigh those of a cold compilation.
WORTH_COMPILING = {CompiledSteps: 50_000, WholeLoop: 10_000}
CHECKED = 64  # periods of updates that a debugged run first compares with and without compilation
CHECK_TOLERANCE = 1e-3  # rounding, as Adam spreads it
LIBRARIES = ("dqn-exp", "torch", "gymnasium", "numpy", "hydra-core", "tensorboard")


def resolve_device(name: str) -> torch.device:
    """The torch device that the config key `device` names; "auto" is cuda where there is one.

    Raises:
        ConfigError: no such device here.
    """
    visible = ["cpu"]
    if torch.cuda.is_available():
        visible += ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        visible.append("mps")
    if name == "auto":
        return torch.device("cuda" if "cuda" in visible else "cpu")
    if name not in visible:
        raise ConfigError([f"device={name}: must be auto or one of those here: {', '.join(visible)}"])
    return torch.device(name)


class Experiment:
    """One run: S seeds in lockstep.

    Args:
        config: checked, as plain dicts and lists.
        run_dir: the run folder.
        progress: show a progress bar on a terminal.
        dtype: of parameters and values; float64 is for tests.

    Raises:
        ConfigError: the parts do not fit together, or not into memory, or the folder holds a run;
            nothing has been written.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        run_dir: Path,
        progress: bool = False,
        dtype: torch.dtype = torch.float32,
    ):
        if (run_dir / "summary.json").exists():
            raise ConfigError([f"hydra.run.dir={run_dir}: holds a run already; choose another folder"])
        torch.set_num_threads(config["threads"])
        # The moments of dead units decay into denormal numbers, which CPUs handle many times slower.
        torch.set_flush_denormal(True)
        device = resolve_device(config["device"])
        train, rounds = config["train"], config["eval"]
        self.config, self.run_dir, self.progress = config, run_dir, progress
        self.seeds = list(range(config["seed"], config["seed"] + config["seeds"]))
        seeds = torch.tensor(self.seeds, dtype=torch.int64, device=device)

        self.env = registry.build("env", config["env"], seeds, "train")
        eval_node = {**config["env"], "n": rounds["episodes"]}
        self.eval_env = registry.build("env", eval_node, seeds, "eval")
        n_envs = config["env"]["n"]
        before = (train["learning_starts"] - 1) // n_envs * n_envs  # the last step without updates
        times = config["total_steps"] // train["every"] - before // train["every"]
        self.context = Context(
            seeds=seeds,
            n_envs=n_envs,
            batch_size=train["batch_size"],
            spec=self.env.spec,
            device=device,
            dtype=dtype,
            total_steps=config["total_steps"],
            total_updates=times * train["updates"],
        )
        self.agent = registry.build("agent", config["agent"])
        try:
            self.net = registry.build("net", config["net"], self.context, self.agent)
        except ValueError as error:
            raise ConfigError([f"net={config['net']['name']}: {error}"]) from error
        self.buffer = registry.build("buffer", config["buffer"], self.context, self.agent)
        self.exploration = registry.build("exploration", config["exploration"], self.context)
        self.learner = Learner(
            self.context,
            self.net,
            self.agent,
            registry.build("optim", config["optim"], self.context),
            self.exploration.probabilities,
        )
        self.form = self._form()

    def run(self) -> float:
        """Train, evaluate, write everything into the run folder; returns the objective.

        The objective is the interquartile mean over seeds of the final greedy evaluation.
        """
        log.info(self.describe())
        for line in deviations(self.config):
            log.warning(line)
        if log.isEnabledFor(logging.DEBUG) and self.form is not Loop:
            self.check_compiled()
        began = time.perf_counter()
        summary = {
            "status": "running",
            "objective": None,
            "seeds": self.seeds,
            "final_returns": None,
            "steps_per_second": None,
            "versions": {"python": platform.python_version()} | {p: version(p) for p in LIBRARIES},
            "git_revision": _git_revision(),
            "device": str(self.context.device),
            "wall_seconds": None,
        }
        self._write(summary)
        tracker = Tracker(self.run_dir, self.seeds, _flatten(self.config))
        try:
            trainer = self.trainer(tracker)
            final = trainer.run()
        except BaseException as error:
            # Here, because a parallel launcher loses the traceback on its way to the parent process.
            log.exception("run failed")
            self._write(summary | {"status": "failed", "error": repr(error)})
            tracker.close(succeeded=False)
            raise
        finally:
            self.env.close()
            self.eval_env.close()
        tracker.close(succeeded=True)
        scores = final.returns.mean(1)
        summary |= {
            "status": "finished",
            "objective": float(interquartile_mean(scores)),
            "objective_ci95": confidence_interval(scores),
            "final_returns": scores.tolist(),
            "steps_per_second": trainer.loop.step * len(self.seeds) / trainer.seconds,
            "train_seconds": trainer.seconds,
            "wall_seconds": time.perf_counter() - began,
        }
        if any(rule is not None for rule in self.config["train"]["stop"].values()):
            summary["stop_rule_met"] = [e and e._asdict() for e in trainer.stop.met_at]
        if (solved := self.config["eval"]["solved"]) is not None:
            summary["solved"] = [bool(score >= solved) for score in scores]
        self._write(summary)
        log.info(_report(summary, final))
        return summary["objective"]

    def describe(self) -> str:
        """One line: what is about to run, and how to watch it."""
        return (
            f"{self.config['env']['id']} | {self.net.n_params:,} parameters x "
            f"{len(self.seeds)} seed(s) | {self.context.device} | {FORMS[self.form]} "
            f"(compile={str(self.config['compile']).lower()}, "
            f"{self.context.total_updates:,} updates) | replay {human(self.buffer.n_bytes)} | "
            f"{self.run_dir} | "
            f"tensorboard --logdir {shlex.quote(str(self.run_dir))}"
        )

    def loop(self) -> Loop:
        """The inner loop over this experiment's parts, at its first step."""
        train = self.config["train"]
        return self.form(
            context=self.context,
            env=self.env,
            buffer=self.buffer,
            agent=self.agent,
            learner=self.learner,
            exploration=self.exploration,
            learning_starts=train["learning_starts"],
            train_every=train["every"],
            updates=train["updates"],
        )

    def trainer(self, tracker: Tracker) -> Trainer:
        """The training over this experiment's parts, at its first step."""
        rounds, q = self.config["eval"], self.learner.q
        gc.freeze()  # the collector need not look through the imported libraries again and again
        whole = self.form is WholeLoop
        return Trainer(
            loop=self.loop(),
            eval_env=self.eval_env,
            play=CompiledPlay(self.eval_env, q, self.context.device, self.agent.gamma)
            if whole
            else Play(self.eval_env, q, self.agent.gamma),
            tracker=tracker,
            eval_every=rounds["every"],
            final_rounds=rounds["final_episodes"] // rounds["episodes"],
            log_every=self.config["log"]["every"],
            progress=self.progress,
            stop=StopRule(len(self.seeds), **self.config["train"]["stop"]),
        )

    def check_compiled(self) -> None:
        """Compare parameters of two twins, compiled and not, after some updates.

        Raises:
            RuntimeError: they differ by more than rounding.
        """
        stop = self.config["train"]["learning_starts"] + CHECKED * self.config["train"]["every"]
        twins = [Experiment({**self.config, "compile": mode}, self.run_dir) for mode in (False, True)]
        loops = [twin.loop() for twin in twins]
        for loop in loops:
            loop.advance(stop)
        plain, compiled = (loop.learner.params for loop in loops)
        difference = float((plain - compiled).abs().max())
        updates = loops[0].gradient_step
        log.debug("compiled and not: %.1e apart after %d updates", difference, updates)
        if not difference < CHECK_TOLERANCE:
            raise RuntimeError(f"compiled code learns something else: {difference} apart")

    def _form(self) -> type[Loop]:
        """The form of the inner loop that the config key `compile` asks for, or auto chooses."""
        train, mode = self.config["train"], self.config["compile"]
        pattern = updates_of_period(self.context.n_envs, train["every"], train["updates"])
        short = max(len(pattern), sum(pattern)) <= MAX_UNROLLED
        native = self.config["env"]["backend"] == "native"
        form = WholeLoop if native and short else CompiledSteps
        if mode == "auto" and self.context.total_updates < WORTH_COMPILING[form]:
            form = Loop
        return form if mode else Loop

    def _write(self, summary: Mapping[str, Any]) -> None:
        (self.run_dir / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")


def _flatten(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys of a config to plain scalars, for the HPARAMS tab."""
    flat: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value if isinstance(value, bool | int | float | str) else str(value)
    return flat


def _report(summary: Mapping[str, Any], final: Evaluation) -> str:
    """The block at the end of a run."""
    lines = [f"final greedy evaluation, {final.returns.shape[1]} episodes per seed:"]
    for seed, returns in zip(summary["seeds"], final.returns, strict=True):
        mean, std = returns.mean(), returns.std()
        lines.append(f"  seed {seed:<4} {mean:8.1f} +- {std:.1f}  worst {returns.min():.1f}")
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


def _git_revision() -> str | None:
    """The commit of the code that runs; None outside a repository."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
