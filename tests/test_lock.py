"""One process at a time in a run folder, also where the file system does not lock."""

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dqn_exp.files import OddFileError
from dqn_exp.run import lock
from dqn_exp.run.lock import LockedError, locked, write_owner

HOLD = """
import errno, fcntl, sys
from pathlib import Path
from dqn_exp.run import lock
def refuse(*_):
    raise OSError(errno.ENOLCK, "No locks available")
if {without_flock}:
    fcntl.flock = refuse
with lock.locked(Path(sys.argv[1])):
    lock.write_owner(Path(sys.argv[1]))
    print("in", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(params=["flock", "no flock"])
def flock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the file system locks files."""
    if request.param == "no flock":
        take_flock_away(monkeypatch)
    return request.param == "flock"


def take_flock_away(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.fixture
def holder(tmp_path: Path, flock: bool) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the lock of a folder."""
    code, pipe = HOLD.format(without_flock=not flock), subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=pipe, stdout=pipe, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "in\n"
        yield process
        process.kill()


def test_a_second_process_is_told_who_has_the_lock(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    owner = f"process {holder.pid} on {socket.gethostname()}"
    with pytest.raises(LockedError, match=owner), locked(tmp_path):
        pytest.fail("two processes are in")
    assert holder.poll() is None


def test_the_lock_of_a_process_that_was_killed_is_free(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    holder.kill()
    holder.wait()
    with locked(tmp_path):
        pass


def test_a_lock_can_be_taken_again(tmp_path: Path, flock: bool) -> None:
    for _ in range(2):
        with locked(tmp_path):
            write_owner(tmp_path)
            assert (tmp_path / ".lock.owner").exists() == (not flock)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_process_without_a_run_leaves_no_file(tmp_path: Path, flock: bool) -> None:
    with locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def owned_by(folder: Path, age: float = 0.0, **changes: object) -> None:
    """Leave the file of an owner that has shown that it lives some seconds ago."""
    owner = {"process": os.getpid(), "host": "elsewhere", "started": 1.0} | changes
    (folder / ".lock.owner").write_text(json.dumps(owner))
    now = time.time()
    os.utime(folder / ".lock.owner", (now - age, now - age))


@pytest.mark.parametrize(
    ("age", "changes"),
    [
        (lock.STALE + 60, {}),  # on another host, and silent
        (0.0, {"host": socket.gethostname(), "process": 2**22 + 1}),  # no such process
        (0.0, {"host": socket.gethostname()}),  # this process, but it started at another time
    ],
)
def test_the_lock_of_an_owner_that_is_dead_is_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age: float, changes: dict[str, object]
) -> None:
    take_flock_away(monkeypatch)
    owned_by(tmp_path, age, **changes)
    with locked(tmp_path):
        assert json.loads((tmp_path / ".lock.owner").read_text())["host"] == socket.gethostname()
        with pytest.raises(LockedError), locked(tmp_path):
            pass
    assert not (tmp_path / ".lock.owner").exists()


def test_an_owner_elsewhere_that_lives_is_not_disturbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_flock_away(monkeypatch)
    owned_by(tmp_path, lock.STALE - 60)
    before = (tmp_path / ".lock.owner").read_bytes()
    with pytest.raises(LockedError, match="on elsewhere"), locked(tmp_path):
        pass
    assert (tmp_path / ".lock.owner").read_bytes() == before


def test_an_owner_shows_that_it_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take_flock_away(monkeypatch)
    monkeypatch.setattr(lock, "HEARTBEAT", 0.01)
    with locked(tmp_path):
        os.utime(tmp_path / ".lock.owner", (0, 0))
        until = time.monotonic() + 60
        while (tmp_path / ".lock.owner").stat().st_mtime < 1:
            assert time.monotonic() < until
            time.sleep(0.01)


def test_a_file_of_somebody_else_is_not_a_lock(tmp_path: Path, flock: bool) -> None:
    (tmp_path / ".lock").write_text("mine")
    with pytest.raises(OddFileError, match="not written by this program"), locked(tmp_path):
        pass
    assert (tmp_path / ".lock").read_text() == "mine"
