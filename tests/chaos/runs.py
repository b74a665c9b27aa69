"""Runs of the real program: begun, killed at some moment, resumed, and compared bit for bit."""

import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from helpers import command, latest, train

# A run of some seconds, whose buffer wraps around twice.
SMALL = [
    "total_steps=2400",
    "buffer.capacity=1000",
    "train.learning_starts=300",
    "train.batch_size=32",
    "net.hidden=[32,32]",
    "checkpoint.every=400",
    "eval.every=800",
    "eval.episodes=3",
    "eval.final_episodes=6",
    "log.every=200",
    "compile=false",
]


def finish(cwd: Path, folder: Path, *overrides: str) -> None:
    """Begin or continue a run of the program, to its successful end."""
    done = train(cwd, *latest(*overrides), f"hydra.run.dir={folder}", "resume=auto")
    assert done.returncode == 0, done.stderr


@contextmanager
def running(cwd: Path, *arguments: str, apart: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    """The program in the background, if asked in a process group of its own; killed in the end."""
    none, line = subprocess.DEVNULL, command(*latest(*arguments))
    with subprocess.Popen(line, cwd=cwd, stdout=none, stderr=none, start_new_session=apart) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(happened: Callable[[], Any], process: subprocess.Popen[bytes]) -> None:
    """Wait until something has happened to a running program."""
    until = time.monotonic() + 300
    while not happened():
        assert process.poll() is None, f"ended too early, with {process.returncode}"
        assert time.monotonic() < until
        time.sleep(0.002)


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL; the program must be running still."""
    process.kill()
    assert process.wait() == -signal.SIGKILL


def start_and_kill(cwd: Path, folder: Path, *overrides: str, after: int, delay: float = 0.1) -> None:
    """Begin or continue a run, and kill it at a random moment after an env step."""
    with running(cwd, *overrides, f"hydra.run.dir={folder}", "resume=auto") as process:
        wait_for(lambda: logged(folder) >= after, process)
        time.sleep(random.random() * delay)
        kill(process)


def logged(folder: Path) -> int:
    """The last env step in metrics.csv."""
    path = folder / "metrics.csv"
    whole_lines = path.read_text().split("\n")[1:-1] if path.exists() else []
    return int(whole_lines[-1].split(",")[1]) if whole_lines else 0
