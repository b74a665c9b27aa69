"""The run folder: whether a run may begin or continue in it, its lock, its log, and its summary."""

import json
import logging
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

from dqn_exp import files, manifest
from dqn_exp.config import typed
from dqn_exp.config.problems import ConfigError, Problem, printable
from dqn_exp.config.schema import Config
from dqn_exp.files import OddFileError
from dqn_exp.manifest import CheckpointError
from dqn_exp.run import lock
from dqn_exp.run.checkpoint import Checkpoint, Checkpoints, verified
from dqn_exp.run.lock import LockedError

log = logging.getLogger(__name__)

# What may differ when a run continues; of a name with a dot at its end, all keys below it.
MAY_CHANGE = (
    "total_steps", "log.", "eval.", "checkpoint.", "device", "compile", "resume", "logger",
    "env.timeout",
)  # fmt: skip
# The entries of a run folder. Of those in the second row, a run leaves none before summary.json.
FILES = (
    ".lock", ".lock.owner", ".summary.json", "summary.json",
    "train.log", "metrics.csv", "episodes.csv", ".hydra/config.yaml",
)  # fmt: skip
FOLDERS = re.compile(r"seed=\d+|mean|checkpoints|\.hydra")
MAX_SUMMARY = 64 << 20  # bytes


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
        if self._resume is None and summary.get("status") not in (None, "refused"):
            raise self._refused("contains a run; resume=auto continues it, or choose another folder")
        try:
            checkpoint = self._saved()
        except CheckpointError as error:
            raise ConfigError([Problem("resume", str(error), self._resume)]) from error
        if checkpoint is None:
            if summary.get("status") == "damaged":
                message = "contains a damaged summary.json and no checkpoint; choose another folder"
                raise self._refused(message)
            if not summary and (others := self._others()):
                raise self._refused(f"contains {others[0]} and no run; choose another folder")
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

    def _others(self) -> list[str]:
        """Entries with names of a run's own, which no run has left if there is no summary."""
        found = [name for name in FILES[4:] if os.path.lexists(self.path / name)]
        return found + [p.name for p in self._folders() if p.name != ".hydra" and any(p.iterdir())]

    def _folders(self) -> list[Path]:
        return sorted(path for path in self.path.iterdir() if FOLDERS.fullmatch(path.name))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out; the end of this process, however it ends, lets them in.

        Raises:
            ConfigError: another process is in, or an entry is a link or otherwise odd.
        """
        if self.path.is_symlink():
            raise self._refused("is a symbolic link")
        with ExitStack() as stack:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                self._refuse_odd_entries()
                stack.enter_context(lock.locked(self.path))
            except (OddFileError, LockedError) as error:
                raise self._refused(str(error)) from error
            except OSError as error:
                raise self._refused(f"cannot be written to: {error.strerror}") from error
            yield

    def _refuse_odd_entries(self) -> None:
        """Everything written, cut or deleted lies in the folder, and nothing waits for a pipe.

        Raises:
            OddFileError: an entry is not what a run leaves.
        """
        for path in self._folders():
            if not files.is_folder(path):
                raise OddFileError(f"{path} is not a folder, or a symbolic link")
        own = [self.path / name for name in FILES]
        own += [path for folder in self._folders() for path in folder.glob("events.out.*")]
        for path in filter(os.path.lexists, own):
            found = path.lstat()
            if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
                raise OddFileError(f"{path} is not a regular file, or a link")

    def begin(self) -> None:
        """Make the folder that of a run, before anything else is written."""
        self.write_summary({"status": "running"})

    def describe(self, config: Config) -> None:
        """Write who runs here, and the config, for people and other tools."""
        lock.write_owner(self.path)
        (self.path / ".hydra").mkdir(exist_ok=True)
        with open(self.path / ".hydra/config.yaml", "w", opener=files.opener) as file:
            yaml.safe_dump(typed.plain(config), file, sort_keys=False)

    @contextmanager
    def logged(self) -> Iterator[None]:
        """Write the package's messages to train.log; print them if nothing else does."""
        logger = logging.getLogger("dqn_exp")
        file = LogFile(self.path / "train.log")
        handlers: list[logging.Handler] = [file]
        if not logger.hasHandlers():  # neither Hydra nor the user has set up logging
            handlers.append(logging.StreamHandler())
        filtered = [*handlers, *logging.root.handlers, *logger.handlers]
        for handler in filtered:
            handler.addFilter(_without_control_characters)
        level = logger.level
        if not logger.isEnabledFor(logging.INFO):
            logger.setLevel(logging.INFO)
        for handler in handlers:
            logger.addHandler(handler)
        try:
            yield
        finally:
            logger.setLevel(level)
            for handler in filtered:
                handler.removeFilter(_without_control_characters)
            for handler in handlers:
                logger.removeHandler(handler)
            file.close()

    def summary(self) -> dict[str, Any]:
        """The summary as last written; empty if there is none; of status "damaged" if it is not one."""
        try:
            found = json.loads(files.read(self._summary, MAX_SUMMARY))
        except FileNotFoundError:
            return {}
        except (OSError, OddFileError, ValueError, RecursionError):
            found = None
        return found if isinstance(found, dict) and "status" in found else {"status": "damaged"}

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Replace the summary atomically, and make it safe on disk.

        On a full disk, the new one takes the old one's place on it.
        """
        data, new = f"{json.dumps(summary, indent=2)}\n".encode(), self.path / ".summary.json"
        try:
            _write_through(new, "wb", data)
        except OSError:
            if not self._summary.exists():
                raise
            new.unlink(missing_ok=True)
            _write_through(self._summary, "rb+", data)
        else:
            new.replace(self._summary)

    def shown(self) -> str:
        """The path as it is printed: relative to the working directory if it lies in it."""
        here = Path.cwd()
        inside = self.path.is_relative_to(here) and self.path != here
        return str(self.path.relative_to(here) if inside else self.path)

    def _refused(self, message: str) -> ConfigError:
        return ConfigError([Problem("run folder", message, self.shown())])


def _write_through(path: Path, mode: str, data: bytes) -> None:
    with open(path, mode, opener=files.opener) as file:
        file.write(data)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())


class LogFile(logging.FileHandler):
    """train.log: a full disk loses lines of it, and nothing else."""

    def __init__(self, path: Path):
        super().__init__(path, encoding="utf-8", errors="replace")
        self.setFormatter(logging.Formatter("[%(asctime)s] %(message)s"))

    def _open(self) -> Any:
        return open(self.baseFilename, "a", encoding="utf-8", errors="replace", opener=files.opener)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Do not print a traceback for each line that is lost."""


def _without_control_characters(record: logging.LogRecord) -> bool:
    """Messages may contain text from a run folder, which must not control the terminal."""
    record.msg, record.args = printable(record.getMessage()), ()
    return True


def changes(saved: Mapping[str, Any], config: Config) -> dict[str, tuple[Any, Any]]:
    """Dotted keys that differ between a saved config and one, with both values."""
    old, new = typed.flatten(saved), typed.flatten(typed.plain(config))
    both = {
        k: (old.get(k, "(absent)"), new.get(k, "(absent)")) for k in sorted(old.keys() | new.keys())
    }
    return {key: values for key, values in both.items() if values[0] != values[1]}


def _may_change(key: str) -> bool:
    return any(key.startswith(k) if k.endswith(".") else key == k for k in MAY_CHANGE)
