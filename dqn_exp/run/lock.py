"""The lock of a run folder: one process at a time, on any file system."""

import errno
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from dqn_exp import files
from dqn_exp.files import OddFileError

NO_FLOCK = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
HEARTBEAT = 30.0  # seconds between signs of life of an owner, where the system does not lock
STALE = 10 * HEARTBEAT  # seconds without one, after which an owner counts as dead
BEGINNING = '{"process": '  # of what an owner writes
MAX_BYTES = 4096  # of an owner's name


class LockedError(RuntimeError):
    """Another process has the lock."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder; the end of this process, however it ends, lets them in.

    The system locks `.lock`. Where it cannot, as on some network file systems, the file `.lock.owner`
    is the lock: it exists while its owner lives, which shows by a new time stamp every 30 seconds.

    Raises:
        LockedError: another process is in.
        OddFileError: a file of the lock is not a regular file.
        OSError: the folder is not writable.
    """
    path = folder / ".lock"
    is_new = not path.exists()
    with ExitStack() as stack:
        file = stack.enter_context(open(path, "a+", errors="replace", opener=files.opener))
        file.seek(0)
        owner = file.read(MAX_BYTES).strip("\0")  # zeros are what a power failure may leave
        if owner and not owner.startswith(BEGINNING):
            raise OddFileError(f"{path}: not written by this program")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockedError(f"in use by {_shown(owner)}") from None
        except OSError as error:
            if error.errno not in NO_FLOCK:
                raise
            stack.enter_context(_owned(folder / ".lock.owner"))
        try:
            yield
        finally:
            if is_new and not os.fstat(file.fileno()).st_size:  # no run has begun
                path.unlink()


def is_held(folder: Path) -> bool:
    """Whether the process that has last begun a run in a folder lives, as far as can be seen from here.

    It takes no lock, so that it is in nobody's way. Of a process on another machine, files that have
    changed lately are the sign.
    """
    try:
        content = _content(folder / ".lock")
        if not content:
            return False
        lives = _lives(content)
        if lives is not None:
            return lives
        return time.time() - max(path.lstat().st_mtime for path in folder.iterdir()) < STALE
    except (OSError, OddFileError):
        return False


def write_owner(folder: Path) -> None:
    """Name this process, which has the lock, for those that are kept out."""
    with open(folder / ".lock", "w", opener=files.opener) as file:
        file.write(json.dumps(_owner()))


@contextmanager
def _owned(path: Path) -> Iterator[None]:
    """Own a file that shows by its time stamp that the owner lives."""
    _take_over(path)
    try:
        with open(path, "x", opener=files.opener) as file:
            file.write(json.dumps(_owner()))
    except FileExistsError:
        raise LockedError(f"in use by {_shown(_content(path))}") from None
    ended = threading.Event()

    def live() -> None:
        while not ended.wait(HEARTBEAT):
            with suppress(OSError):
                os.utime(path)

    thread = threading.Thread(target=live, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        path.unlink(missing_ok=True)


def _take_over(path: Path) -> None:
    """Remove the file of an owner that is dead."""
    content = _content(path)
    if content is None or not _dead(path, content):
        return
    mine = path.with_name(f"{path.name}.{socket.gethostname()}.{os.getpid()}")
    with suppress(FileNotFoundError, FileExistsError):  # another process takes it over, too
        path.rename(mine)
        if _content(mine) != content:  # it has done so already: this is its file
            os.link(mine, path)
        mine.unlink()


def _dead(path: Path, content: str) -> bool:
    """Whether the owner of a file has ended, or has not shown for long that it lives."""
    lives = _lives(content)
    if lives is not None:
        return not lives
    probe = path.with_name(f"{path.name}.{os.getpid()}.now")  # the time by the file server's clock
    probe.touch()
    age = probe.stat().st_mtime - path.stat().st_mtime
    probe.unlink()
    return age > STALE


def _lives(content: str) -> bool | None:
    """Whether the owner that a file names is a process of this machine; None: that cannot be seen."""
    try:
        owner: Any = json.loads(content.strip("\0"))
        if owner["host"] == socket.gethostname():
            return psutil.Process(int(owner["process"])).create_time() == owner["started"]
    except psutil.NoSuchProcess:
        return False
    except (ValueError, TypeError, KeyError, OverflowError, psutil.Error):
        pass
    return None


def _owner() -> dict[str, Any]:
    """Who holds the lock. The time of its start tells a process from a later one of its number."""
    started = psutil.Process().create_time()
    return {"process": os.getpid(), "host": socket.gethostname(), "started": started}


def _content(path: Path) -> str | None:
    try:
        return files.read(path, MAX_BYTES).decode(errors="replace")
    except FileNotFoundError:
        return None


def _shown(owner: str | None) -> str:
    """The owner of a lock, for people."""
    try:
        facts: Any = json.loads(owner or "")
        return f"process {int(facts['process'])} on {str(facts['host'])[:100]}"
    except (ValueError, TypeError, KeyError):
        return "another process"
