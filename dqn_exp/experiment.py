"""From a checked config to a finished run: builds all parts, trains, and writes the summary."""

import gc
import logging
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dqn_exp import registry
from dqn_exp.buffers.memory import human, require
from dqn_exp.checkpoint import CheckpointError, Checkpoints
from dqn_exp.deviations import deviations
from dqn_exp.evaluation import CompiledPlay, Play
from dqn_exp.learner import Learner
from dqn_exp.loop import MAX_UNROLLED, CompiledSteps, Loop, WholeLoop, updates_of_period
from dqn_exp.registry import ConfigError
from dqn_exp.run_folder import RunFolder, changes, flatten
from dqn_exp.signals import on_signal
from dqn_exp.stopping import StopRule
from dqn_exp.summary import git_revision, report, results, versions
from dqn_exp.tracking import Tracker
from dqn_exp.trainer import Trainer
from dqn_exp.types import Context, NotDeterministicError, State

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
MATRICES = 6  # of parameters: online, target, gradient, the optimizer's two or three
CHECKED = 64  # periods of updates that a debugged run first compares with and without compilation
CHECK_TOLERANCE = 1e-3  # rounding, as Adam spreads it
LARGE_BLOCK = 31 << 20  # bytes; glibc learns nothing from 32 MB and more
Scalar = bool | int | float | str  # what the HPARAMS tab takes


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
        ConfigError: the parts do not fit together, or not into memory, or the run may not begin or go
            on in the folder; nothing has been written.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        run_dir: Path,
        progress: bool = False,
        dtype: torch.dtype = torch.float32,
    ):
        self.folder = RunFolder(run_dir, config["resume"])
        self.resumes = self.folder.checkpoint(config)
        torch.set_num_threads(config["threads"])
        # The moments of dead units decay into denormal numbers, which CPUs handle many times slower.
        torch.set_flush_denormal(True)
        # glibc hands memory back to the system, and takes it again, at nearly every update until it
        # has seen a large block freed: it then keeps twice as much.
        torch.empty(LARGE_BLOCK, dtype=torch.uint8)
        device = resolve_device(config["device"])
        train, rounds = config["train"], config["eval"]
        self.config, self.run_dir, self.progress = config, run_dir, progress
        self.seeds = list(range(config["seed"], config["seed"] + config["seeds"]))
        seeds = torch.tensor(self.seeds, dtype=torch.int64, device=device)

        strict = train["on_divergence"] == "stop"
        self.env = registry.build("env", config["env"], seeds, "train", strict)
        eval_node = {**config["env"], "n": rounds["episodes"]}
        self.eval_env = registry.build("env", eval_node, seeds, "eval", strict)
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
        n_bytes = MATRICES * len(seeds) * self.net.n_params * dtype.itemsize
        require(n_bytes, device, f"net.hidden={config['net']['hidden']}: {len(seeds)} seed(s)")
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

    def run(self) -> float | None:
        """Train, evaluate, write everything into the run folder; returns the objective.

        The objective is the interquartile mean over seeds of the final greedy evaluation. A run that is
        finished already only returns it. None if a signal has ended the run, with a checkpoint.

        Raises:
            ConfigError: the folder is in use, or its checkpoint is of no use; nothing has changed.
            FloatingPointError: a seed's values are not finite.
        """
        with self.folder.locked():
            before = self.folder.summary()
            if before.get("status") == "finished" and self._nothing_to_do(before):
                log.info("%s is finished already: IQM %s", self.run_dir, before["objective"])
                return before["objective"]
            log.info(self.describe())
            for line in deviations(self.config):
                log.warning(line)
            if log.isEnabledFor(logging.DEBUG) and self.form is not Loop:
                self.check_compiled()
            return self._train_and_report()

    def _train_and_report(self) -> float | None:
        began = time.perf_counter()
        trainer = self.trainer()
        summary = {
            "status": "running",
            "objective": None,
            "seeds": self.seeds,
            "final_returns": None,
            "steps_per_second": None,
            "versions": versions(),
            "git_revision": git_revision(),
            "device": str(self.context.device),
            "wall_seconds": None,
            "resumed_from": self.resumes and self.resumes.step,
        }
        self.folder.write_summary(summary)
        with on_signal(trainer.loop.interrupt):
            try:
                final = trainer.run()
                if final is not None:
                    summary |= results(trainer, final, self.config)
            except BaseException as error:
                # Here, because a parallel launcher loses the traceback on its way to its parent.
                log.exception("run failed")
                self.folder.write_summary(summary | {"status": "failed", "error": repr(error)})
                trainer.tracker.close(succeeded=False)
                raise
            finally:
                self.env.close()
                self.eval_env.close()
            trainer.tracker.close(succeeded=None if final is None else True)
            ended = "interrupted" if final is None else "finished"
            summary |= {"status": ended, "wall_seconds": time.perf_counter() - began}
            self.folder.write_summary(summary)
            if final is None:
                goes_on = f"resume={shlex.quote(str(self.run_dir))} goes on"
                log.warning("stopped at env step %d, with a checkpoint: %s", trainer.loop.step, goes_on)
            else:
                log.info(report(summary, final))
        return summary["objective"]

    def _nothing_to_do(self, before: Mapping[str, Any]) -> bool:
        """Whether a finished run would not go on from its end, nor be evaluated otherwise."""
        if self.resumes is None or self.resumes.step < before["step"]:
            return False
        changed = changes(self.resumes.manifest["config"], self.config)
        return not any(key == "total_steps" or key.startswith("eval.") for key in changed)

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

    def trainer(self) -> Trainer:
        """The training over this experiment's parts, at its first step or where it goes on.

        Raises:
            ConfigError: the checkpoint is of no use.
        """
        loop, q, checkpoint = self.loop(), self.learner.q, self.resumes
        state = self._restore(loop) if checkpoint else None
        checkpoints = Checkpoints(self.run_dir / "checkpoints", self.config["checkpoint"]["keep"])
        if checkpoint:
            checkpoints.use(checkpoint)
        rounds = self.config["eval"]
        gc.freeze()  # the collector need not look through the imported libraries again and again
        trainer = Trainer(
            loop=loop,
            eval_env=self.eval_env,
            play=CompiledPlay(self.eval_env, q, self.context.device, self.agent.gamma)
            if self.form is WholeLoop
            else Play(self.eval_env, q, self.agent.gamma),
            tracker=Tracker(
                self.run_dir,
                self.seeds,
                {k: v if isinstance(v, Scalar) else str(v) for k, v in flatten(self.config).items()},
                state and state["tracker"],
                loop.step,
            ),
            eval_every=rounds["every"],
            final_rounds=rounds["final_episodes"] // rounds["episodes"],
            log_every=self.config["log"]["every"],
            progress=self.progress,
            stop=StopRule(len(self.seeds), **self.config["train"]["stop"]),
            checkpoints=checkpoints,
            checkpoint_every=self.config["checkpoint"]["every"],
            about=self._about(),
            drop=self.config["train"]["on_divergence"] == "drop",
        )
        if state:
            trainer.load_state_dict(state)
        return trainer

    def _restore(self, loop: Loop) -> State:
        """Take the loop to where the checkpoint was saved; returns all of its state."""
        checkpoint = self.resumes
        assert checkpoint
        new_episodes = self.config["checkpoint"]["new_episodes"]
        try:
            state = checkpoint.load(like=loop.state_dict())
            loop.load_state_dict(state["loop"], new_episodes)
        except NotDeterministicError as error:
            raise ConfigError(
                [f"{error}; checkpoint.new_episodes=true goes on with new episodes"]
            ) from error
        except (CheckpointError, ValueError, KeyError) as error:
            raise ConfigError(
                [f"resume={self.config['resume']}: {checkpoint.path}: {error}"]
            ) from error
        for reason in checkpoint.damaged:
            log.warning("damaged checkpoint skipped: %s", reason)
        log.info("resumed at env step %d", loop.step)
        for key, (before, now) in changes(checkpoint.manifest["config"], self.config).items():
            if key != "resume":
                log.info("changed: %s=%s, was %s", key, now, before)
        for key, now in self._about().items():
            before = checkpoint.manifest[key]
            if key != "config" and before != now:
                log.warning("not bit-exact: %s was %s, is %s", key, before, now)
        return state

    def _about(self) -> dict[str, Any]:
        """What a checkpoint says about the run: what its results depend on, to the last bit."""
        return {
            "config": self.config,
            "versions": versions(),
            "device": self.context.device.type,
            "form": FORMS[self.form],
        }

    def check_compiled(self) -> None:
        """Compare parameters of two twins, compiled and not, after some updates.

        Raises:
            RuntimeError: they differ by more than rounding.
        """
        stop = self.config["train"]["learning_starts"] + CHECKED * self.config["train"]["every"]
        config = {**self.config, "resume": None}
        nowhere = self.run_dir / "twins"  # which write nothing
        twins = [Experiment({**config, "compile": mode}, nowhere) for mode in (False, True)]
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
