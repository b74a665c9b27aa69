"""The program in processes forked from a warm one: they start in milliseconds, not in seconds."""

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import NamedTuple

from dqn_exp.__main__ import main

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["dqn_exp.cli.train", "dqn_exp.run.run"])
LIMIT = 60.0  # seconds after which a command hangs


class Ended(NamedTuple):
    """What became of a command."""

    code: int | None  # None: it did not end
    text: str  # of both output streams


def start(
    cwd: Path, *arguments: str, out: str = "output", err: str = "output", **environment: str
) -> ForkServerProcess:
    """Begin a command; what it prints is appended to files in its working directory."""
    process = FORKS.Process(target=_become_program, args=(cwd, arguments, out, err, environment))
    process.start()
    with contextlib.suppress(ProcessLookupError):  # it has ended already
        while os.getsid(process.pid or 0) != process.pid:  # not the program yet: signals are lost
            time.sleep(0.001)
    return process


def forked(cwd: Path, *arguments: str) -> Ended:
    """Run a command to its end."""
    (cwd / "output").write_bytes(b"")
    process = start(cwd, *arguments)
    process.join(LIMIT)
    code = process.exitcode
    process.kill()
    process.join()
    return Ended(code, (cwd / "output").read_text(errors="replace"))


def _become_program(
    cwd: Path, arguments: tuple[str, ...], out: str, err: str, environment: dict[str, str]
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # as the program does first
    os.setsid()
    multiprocessing.set_start_method(None, force=True)  # the usual one, not that of this process
    os.chdir(cwd)
    for stream, name in enumerate((out, err), 1):
        os.dup2(os.open(name, os.O_CREAT | os.O_WRONLY | os.O_APPEND), stream)
    os.environ.update(environment)
    sys.path[1:1] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    sys.dont_write_bytecode = "PYTHONDONTWRITEBYTECODE" in environment
    sys.argv = ["train.py", *arguments]
    main("train")
