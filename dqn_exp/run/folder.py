"""The run folder: whether a run may begin or continue in it, its lock, its log, and its summary."""

import fcntl
import json
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from dqn_exp import manifest
from dqn_exp.config import typed
from dqn_exp.config.problems import ConfigError, Problem
from dqn_exp.config.schema import Config
from dqn_exp.manifest import CheckpointError
from dqn_exp.run.checkpoint import Checkpoint, Checkpoints, verified

log = logging.getLogger(__name__)

# What may differ when a run continues; of a name with a dot at its end, all keys below it.
MAY_CHANGE = ("total_steps", "log.", "eval.", "checkpoint.", "device", "compile", "resume")
OWN_FILES = (
    ".lock", "*.json", "*.csv", "*.log", "seed=*", "seed=*/*", "checkpoints", "checkpoints/*", ".hydra",
    ".hydra/*",
)  # fmt: skip


class RunFolder:
    """Where a run leaves everything.

    Args:
        resume: the config's: None, "auto", or the path of this folder or of a checkpoint in it.
    """

    def __init__(self, path: Path, resume: str | None):
        self.path = Path(os.path.abspath(path))
        self._resume = resume
        self._summary = self.path / "summary.json"

    def checkpoint(self, config: Config) -> Checkpoint | None:
        """The checkpoint from which a run of this config continues; None if the run begins.

        Raises:
            ConfigError: it may do neither.
        """
        summary = self.summary()
        if self._resume is None and summary and summary.get("status") != "refused":
            raise self._refused("contains a run; resume=auto continues it, or choose another folder")
        try:
            checkpoint = self._saved()
        except CheckpointError as error:
            raise ConfigError([Problem("resume", str(error), self._resume)]) from error
        if checkpoint is None:
            return None
        problems = [
            Problem(key, f"the run began with {before}; it continues with its own value", now)
            for key, (before, now) in changes(checkpoint.manifest["config"], config).items()
            if not _may_change(key)
        ]
        if config.total_steps < checkpoint.step:
            message = f"{checkpoint.step} steps have already been made"
            problems.append(Problem("total_steps", message, config.total_steps))
        if problems:
            raise ConfigError(problems)
        return checkpoint

    def _saved(self) -> Checkpoint | None:
        if self._resume is None:
            return None
        run, named = manifest.split(Path(self._resume))
        checkpoints = Checkpoints(self.path / "checkpoints")
        if self._resume == "auto":
            return checkpoints.newest()
        if run != self.path:
            raise CheckpointError(f"neither auto nor a checkpoint of this run, in {self.path}")
        return verified(named) if named else checkpoints.newest()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out; the end of this process, however it ends, lets them in.

        Raises:
            ConfigError: another process is in, or a file of a run is a symbolic link.
        """
        if self.path.is_symlink():
            raise self._refused("is a symbolic link")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._refused(f"cannot be created: {error.strerror}") from error
        for found in (path for pattern in OWN_FILES for path in self.path.glob(pattern)):
            if found.is_symlink():  # everything written, truncated or deleted lies in the folder
                raise self._refused(f"{found} is a symbolic link")
        with (self.path / ".lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                owner = (self.path / ".lock").read_text(errors="replace") or "another process"
                raise self._refused(f"in use by {owner}") from None
            yield

    def begin(self, config: Config) -> None:
        """Write who holds the lock, and the config for people and other tools."""
        (self.path / ".lock").write_text(f"process {os.getpid()} on {socket.gethostname()}")
        (self.path / ".hydra").mkdir(exist_ok=True)
        text = yaml.safe_dump(typed.plain(config), sort_keys=False)
        (self.path / ".hydra/config.yaml").write_text(text)

    @contextmanager
    def logged(self) -> Iterator[None]:
        """Write the package's messages to train.log; print them if nothing else does."""
        logger = logging.getLogger("dqn_exp")
        file = logging.FileHandler(self.path / "train.log")
        file.setFormatter(logging.Formatter("[%(asctime)s] %(message)s"))
        handlers: list[logging.Handler] = [file]
        if not logger.hasHandlers():  # neither Hydra nor the user has set up logging
            handlers.append(logging.StreamHandler())
        level = logger.level
        if not logger.isEnabledFor(logging.INFO):
            logger.setLevel(logging.INFO)
        for handler in handlers:
            logger.addHandler(handler)
        try:
            yield
        finally:
            logger.setLevel(level)
            for handler in handlers:
                logger.removeHandler(handler)
            file.close()

    def summary(self) -> dict[str, Any]:
        """The summary as last written; empty if there is none."""
        return json.loads(self._summary.read_text()) if self._summary.exists() else {}

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Replace the summary atomically."""
        new = self.path / ".summary.json"
        new.write_text(json.dumps(summary, indent=2) + "\n")
        new.replace(self._summary)

    def shown(self) -> str:
        """The path as it is printed: relative to the working directory if it lies in it."""
        here = Path.cwd()
        inside = self.path.is_relative_to(here) and self.path != here
        return str(self.path.relative_to(here) if inside else self.path)

    def _refused(self, message: str) -> ConfigError:
        return ConfigError([Problem("run folder", message, self.shown())])


def changes(saved: Mapping[str, Any], config: Config) -> dict[str, tuple[Any, Any]]:
    """Dotted keys that differ between a saved config and one, with both values."""
    old, new = typed.flatten(saved), typed.flatten(typed.plain(config))
    both = {
        k: (old.get(k, "(absent)"), new.get(k, "(absent)")) for k in sorted(old.keys() | new.keys())
    }
    return {key: values for key, values in both.items() if values[0] != values[1]}


def _may_change(key: str) -> bool:
    return any(key.startswith(k) if k.endswith(".") else key == k for k in MAY_CHANGE)
