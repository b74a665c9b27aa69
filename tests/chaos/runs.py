"""Runs of the real program: begun, killed at some moment, resumed, and compared bit for bit."""

import csv
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).parents[2] / "train.py"

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


def command(*arguments: str) -> list[str]:
    """The program on a command line."""
    return [sys.executable, str(PROGRAM), *arguments]


def train(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program to its end."""
    return subprocess.run(command(*arguments), cwd=cwd, capture_output=True, text=True)


def finish(cwd: Path, folder: Path, *overrides: str) -> None:
    """Run the program, or go on with a run, to its successful end."""
    done = train(cwd, *overrides, f"hydra.run.dir={folder}", "resume=auto")
    assert done.returncode == 0, done.stderr


@contextmanager
def running(cwd: Path, *arguments: str, apart: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    """The program in the background, if asked in a process group of its own; killed in the end."""
    none, line = subprocess.DEVNULL, command(*arguments)
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
    """Begin or go on with a run, and kill it at a random moment after an env step."""
    with running(cwd, *overrides, f"hydra.run.dir={folder}", "resume=auto") as process:
        wait_for(lambda: logged(folder) >= after, process)
        time.sleep(random.random() * delay)
        kill(process)


def logged(folder: Path) -> int:
    """The last env step that metrics.csv tells of."""
    path = folder / "metrics.csv"
    whole_lines = path.read_text().split("\n")[1:-1] if path.exists() else []
    return int(whole_lines[-1].split(",")[1]) if whole_lines else 0


def metrics(folder: Path) -> list[list[str]]:
    """Rows of metrics.csv: seed, step, tag, value."""
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.reader(file))


def summary(folder: Path) -> dict[str, Any]:
    """What a run's summary.json says."""
    return json.loads((folder / "summary.json").read_text())


def saved(folder: Path) -> list[int]:
    """Env steps of a run's checkpoints, in order."""
    return sorted(int(path.name[5:]) for path in (folder / "checkpoints").glob("step=*"))


def result(folder: Path) -> dict[str, Any]:
    """All that must be the same, bit for bit, however often a run was cut off."""
    assert summary(folder)["status"] == "finished"
    step = saved(folder)[-1]
    text = (folder / f"checkpoints/step={step}/manifest.json").read_text()
    manifest = json.loads(text)["manifest"]
    state = manifest["state"]
    del state["seconds"], state["tracker"]["bytes"]
    return {
        "step": step,
        "tensors": {name: facts["sha256"] for name, facts in manifest["files"].items()},
        "state": state,
        "metrics": [row for row in metrics(folder) if row[2] != "time/steps_per_second"],
        "episodes": (folder / "episodes.csv").read_text(),
        "final_returns": summary(folder)["final_returns"],
    }


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest() for path in files}
