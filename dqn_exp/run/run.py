"""A run: trains the parts of a config in a folder, and reports."""

import gc
import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from dqn_exp import manifest
from dqn_exp.config import typed
from dqn_exp.config.problems import ConfigError, Problem
from dqn_exp.extras import extra
from dqn_exp.film import Film
from dqn_exp.interfaces import NotDeterministicError
from dqn_exp.manifest import CheckpointError
from dqn_exp.parts import Parts
from dqn_exp.run.checkpoint import Checkpoint
from dqn_exp.run.folder import RunFolder, changes
from dqn_exp.run.summary import ending, git_revision, opening, program, results, versions
from dqn_exp.run.trainer import Trainer
from dqn_exp.signals import exits_are_errors, on_signal

log = logging.getLogger(__name__)

LARGE_BLOCK = 31 << 20  # bytes; glibc learns nothing from 32 MB and more


class Run:
    """One run: S seeds in lockstep, in a folder of their own.

    Args:
        parts: of `build`; the run trains them, so they belong to one run.
        folder: where to write everything; None: the folder of the run that `resume` names, or a new one
            in `outputs/`.
        progress: show a progress bar on a terminal.
        overrides: what was typed for this run, for TensorBoard.
        varied: keys that TensorBoard's HPARAMS tab shows; None: those that were typed.
    """

    def __init__(
        self,
        parts: Parts,
        folder: str | Path | None = None,
        progress: bool = True,
        overrides: Sequence[str] = (),
        varied: Sequence[str] | None = None,
    ):
        self.parts, self.progress, self._overrides, self._varied = parts, progress, overrides, varied
        self.folder = RunFolder(Path(folder or _default_folder(parts)), parts.config.resume)
        self._objective: float | None = None
        self._used = False

    def run(self) -> float | None:
        """Train, evaluate, and write everything into the run folder; returns the objective.

        The environments are closed in the end, however it ends.

        The objective is the interquartile mean over seeds of the final greedy evaluation. A finished
        run only returns it, with the trained parameters restored. None if a signal has ended the run
        with a checkpoint saved.

        Raises:
            ConfigError: the run may not begin or continue in this folder; nothing has changed.
            FloatingPointError: a seed's values are not finite.
            RuntimeError: this run was interrupted before, or has failed.
        """
        if self._objective is not None:
            return self._objective
        if self._used:
            raise RuntimeError("this Run has ended early; build its parts again with resume=auto")
        config, folder = self.parts.config, self.folder
        with closing(self.parts), exits_are_errors(), folder.locked():
            checkpoint, before = folder.checkpoint(config), folder.summary()
            deterministic = self.parts.env.deterministic
            set_up_process(config.threads)
            if "wandb" in config.loggers:
                extra("wandb", "wandb")
            if config.log.video:  # that it cannot be filmed should not be known in the end only
                Film(config.env, self.parts.learner.q, config.seed, "rgb_array").close()
            if checkpoint is None:
                folder.begin()
            with folder.logged():
                self._used = True
                trainer = Trainer(
                    self.parts,
                    folder.path,
                    self.progress,
                    self._about(),
                    self._overrides,
                    self._varied,
                )
                if checkpoint and self._unchanged(checkpoint, before):
                    self._restore(trainer.parts.loop.load_state_dict, checkpoint, "loop")
                    self._objective = float(before["objective"])
                    log.info("%s is finished: IQM %.1f", folder.shown(), self._objective)
                    return self._objective
                if checkpoint:
                    self._restore(trainer.load_state_dict, checkpoint)
                    self._say_what_changed(checkpoint)
                folder.describe(config)
                for line in opening(self.parts, folder.shown()):
                    log.info(line)
                for line in self.parts.deviations():
                    log.warning("deviation: %s", line)
                if not deterministic:
                    log.warning(
                        "env.id=%s is not deterministic: this run cannot be resumed exactly, only "
                        "with checkpoint.new_episodes=true",
                        config.env.id,
                    )
                self._objective = self._train(trainer, checkpoint)
        return self._objective

    def _train(self, trainer: Trainer, checkpoint: Checkpoint | None) -> float | None:
        context, folder = self.parts.context, self.folder
        summary: dict[str, Any] = {
            "status": "running",
            "objective": None,
            "seeds": context.seeds.tolist(),
            "final_returns": None,
            "steps_per_second": None,
            "versions": versions(),
            "git_revision": git_revision(),
            "device": str(context.device),
            "wall_seconds": None,
            "resumed_from": checkpoint and checkpoint.step,
        }
        folder.write_summary(summary)
        with on_signal(self.parts.loop.interrupt):
            try:
                final = trainer.run()
                if final is not None:
                    summary |= results(trainer, final, self.parts.config)
            except BaseException as error:
                # Here, because a parallel launcher loses the traceback on its way to its parent.
                expected = isinstance(error, FloatingPointError | OSError)
                log.error("run failed: %s", error, exc_info=not expected)
                folder.write_summary(summary | {"status": "failed", "error": repr(error)})
                trainer.tracker.close(succeeded=False)
                raise
            trainer.tracker.close(succeeded=None if final is None else True)
            if missing := trainer.tracker.missing_rows:
                summary["missing_rows"] = missing  # of the CSV files: the disk was full
            summary["wall_seconds"] = trainer.wall_seconds
            summary["status"] = "interrupted" if final is None else "finished"
            folder.write_summary(summary)
            if final is None:
                log.warning(
                    "stopped at env step %d; a checkpoint is saved. Continue with", trainer.step
                )
                log.warning("  %s", program(f"resume={folder.shown()}"))
            else:
                for line in ending(summary, final, folder.shown()):
                    log.info(line)
        return summary["objective"]

    def _restore(self, load: Any, checkpoint: Checkpoint, part: str | None = None) -> None:
        """Load the state of a checkpoint, or a part of it."""
        config = self.parts.config
        try:
            state = checkpoint.load(like=self.parts.loop.state_dict())
            load(state[part] if part else state, config.checkpoint.new_episodes)
        except NotDeterministicError as error:
            message = "; checkpoint.new_episodes=true continues with new episodes"
            raise ConfigError([Problem("env.id", f"{error}{message}", config.env.id)]) from error
        except Exception as error:  # what a changed checkpoint may hold has no end
            log.debug("the checkpoint's state", exc_info=True)
            reason = error if isinstance(error, CheckpointError | ValueError) else repr(error)
            message = f"{checkpoint.path} cannot be restored: {reason}"
            raise ConfigError([Problem("resume", message, config.resume)]) from error

    def _say_what_changed(self, checkpoint: Checkpoint) -> None:
        for reason in checkpoint.damaged:
            log.warning("damaged checkpoint skipped: %s", reason)
        log.info("resumed at env step %d", checkpoint.step)
        for key, (before, now) in changes(checkpoint.manifest["config"], self.parts.config).items():
            if key != "resume":
                log.info("changed: %s=%s, was %s", key, now, before)
        for key, now in self._about().items():
            before = checkpoint.manifest.get(key)
            if key != "config" and before != now:
                log.warning("not bit-exact: %s was %s, is %s", key, before, now)

    def _unchanged(self, checkpoint: Checkpoint, before: Mapping[str, Any]) -> bool:
        """Whether a finished run has nothing more to train or to evaluate."""
        step, objective = before.get("step"), before.get("objective")
        if before.get("status") != "finished" or type(step) is not int or type(objective) is not float:
            return False
        changed = changes(checkpoint.manifest["config"], self.parts.config)
        evaluates = any(key == "total_steps" or key.startswith("eval.") for key in changed)
        return checkpoint.step >= step and not evaluates

    def _about(self) -> dict[str, Any]:
        """What a checkpoint says about the run: what its results depend on, to the last bit."""
        spec = self.parts.context.spec
        dtype = str(spec.obs_dtype).removeprefix("torch.")
        return {
            "config": typed.plain(self.parts.config),
            "versions": versions(),
            "device": self.parts.context.device.type,
            "form": self.parts.form,
            "spec": typed.plain(spec) | {"obs_shape": [*spec.obs_shape], "obs_dtype": dtype},
        }


def _default_folder(parts: Parts) -> Path:
    config = parts.config
    if config.resume == "auto":
        message = "needs the folder of the run: Run(parts, folder)"
        raise ConfigError([Problem("resume", message, config.resume)])
    if config.resume:
        return manifest.split(Path(config.resume))[0]
    names = (
        f"{config.env.id.replace('/', '-')}_{config.agent.name}-{config.buffer.name}-{config.net.name}"
    )
    return Path("outputs") / f"{datetime.now():%Y-%m-%d/%H-%M-%S-%f}_{names}"


def set_up_process(threads: int) -> None:
    """Settings of this process that make training faster."""
    torch.set_num_threads(threads)
    # The moments of dead units decay into denormal numbers, which CPUs handle many times slower.
    torch.set_flush_denormal(True)
    # glibc returns memory to the system, and takes it again, at nearly every update until it has seen
    # a large block freed: it then keeps twice as much.
    torch.empty(LARGE_BLOCK, dtype=torch.uint8)
    gc.freeze()  # the garbage collector need not look through the imported libraries again and again
