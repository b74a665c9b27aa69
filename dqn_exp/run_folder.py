"""The run folder: whether a run may begin or go on in it, its lock, and its summary."""

import fcntl
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dqn_exp.checkpoint import Checkpoint, CheckpointError, Checkpoints, verified
from dqn_exp.registry import ConfigError

# What may differ when a run goes on; of a name with a dot at its end, all below it.
MAY_CHANGE = ("total_steps", "log.", "eval.", "checkpoint.", "device", "compile", "resume")
OWN_FILES = (".lock", "*.json", "*.csv", "seed=*", "seed=*/*", "checkpoints", "checkpoints/*")
FREE = ", ".join(f"{key}*" if key.endswith(".") else key for key in MAY_CHANGE)


class RunFolder:
    """Where a run leaves everything.

    Args:
        resume: the config's: None, "auto", or the path of this folder or of a checkpoint in it.
    """

    def __init__(self, path: Path, resume: str | None):
        self.path = path
        self._resume = resume
        self._summary = path / "summary.json"

    def checkpoint(self, config: Mapping[str, Any]) -> Checkpoint | None:
        """The checkpoint that a run of this config goes on from; None if it begins.

        Raises:
            ConfigError: it may do neither.
        """
        here = f"hydra.run.dir={self.path}"
        if self._resume is None and self._summary.exists():
            raise ConfigError(
                [f"{here}: holds a run already; resume=auto goes on with it, or choose another folder"]
            )
        for found in (path for pattern in OWN_FILES for path in self.path.glob(pattern)):
            if found.is_symlink():  # what is written, cut or deleted lies in the folder
                raise ConfigError([f"{here}: {found} is a symbolic link"])
        if owner := self._owner():
            raise ConfigError([f"{here}: in use by {owner}"])
        try:
            checkpoint = self._saved()
        except CheckpointError as error:
            raise ConfigError([f"resume={self._resume}: {error}"]) from error
        if checkpoint is None:
            return None
        if not isinstance(checkpoint.manifest.get("config"), dict):
            raise ConfigError([f"resume={self._resume}: {checkpoint.path} is of no run"])
        problems = [
            f"{key}={now}: the run began with {before}; when it goes on, only {FREE} may differ"
            for key, (before, now) in changes(checkpoint.manifest["config"], config).items()
            if not _may_change(key)
        ]
        if (total := config["total_steps"]) < checkpoint.step:
            problems.append(f"total_steps={total}: {checkpoint.step} have been made already")
        if problems:
            raise ConfigError(problems)
        return checkpoint

    def _saved(self) -> Checkpoint | None:
        folder = self.path / "checkpoints"
        if self._resume is None:
            return None
        path = Path(self._resume).absolute()
        if self._resume == "auto" or path == self.path.absolute():
            return Checkpoints(folder).newest()
        if path.parent != folder.absolute():
            raise CheckpointError(f"neither auto nor a checkpoint of this run, in {folder}")
        return verified(path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out meanwhile; the end of this one, however it comes, lets them in.

        Raises:
            ConfigError: one is in already.
        """
        with (self.path / ".lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                owner = self._owner()
                raise ConfigError([f"hydra.run.dir={self.path}: in use by {owner}"]) from None
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            yield

    def summary(self) -> dict[str, Any]:
        """The summary as last written; empty if there is none."""
        return json.loads(self._summary.read_text()) if self._summary.exists() else {}

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Put a summary in the place of the last, at once and as a whole."""
        new = self.path / ".summary.json"
        new.write_text(json.dumps(summary, indent=2) + "\n")
        new.replace(self._summary)

    def _owner(self) -> str | None:
        """Who holds the lock; None if nobody does."""
        try:
            descriptor = os.open(self.path / ".lock", os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return os.read(descriptor, 1000).decode(errors="replace") or "another process"
        finally:
            os.close(descriptor)
        return None


def flatten(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A config by dotted keys; lists are values."""
    flat: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def changes(saved: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Dotted keys that differ between two configs, with both values."""
    old, new = flatten(saved), flatten(config)
    both = {
        k: (old.get(k, "(absent)"), new.get(k, "(absent)")) for k in sorted(old.keys() | new.keys())
    }
    return {key: values for key, values in both.items() if values[0] != values[1]}


def _may_change(key: str) -> bool:
    return any(key.startswith(k) if k.endswith(".") else key == k for k in MAY_CHANGE)
