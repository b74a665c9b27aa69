"""Runs whose environments live in processes that are killed, exit, or hang."""

import random
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from faulty import episode_seed
from helpers import summary
from runs import SMALL, logged, running, wait_for

ASYNC = ["env.vectorization=async", "env.n=2"]
LONG = ["total_steps=1_000_000", *ASYNC]
DEATHS = {
    signal.SIGKILL: "its process was killed by SIGKILL",
    signal.SIGSTOP: "did not answer within 2 s (env.timeout)",
}
TESTS = Path(__file__).parents[1]


def wait_until_failed(process: subprocess.Popen[bytes], folder: Path) -> str:
    """The error of a run that ends by itself, as failed, and leaves no process."""
    workers = psutil.Process(process.pid).children(recursive=True)
    assert process.wait(60) == 1
    assert not any(worker.is_running() for worker in workers)
    assert summary(folder)["status"] == "failed"
    return summary(folder)["error"]


def hit(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to one of the processes of a run's environments."""
    random.choice(psutil.Process(process.pid).children(recursive=True)).send_signal(number)


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.slow)]
)
def test_a_process_that_is_killed_or_stopped_fails_the_run(
    tmp_path: Path, number: signal.Signals
) -> None:
    folder = tmp_path / "run"
    overrides = [*SMALL, *LONG, "env.timeout=2", "eval.every=200", f"hydra.run.dir={folder}"]
    with running(tmp_path, *overrides) as process:
        wait_for(lambda: logged(folder) >= 400, process)
        hit(process, number)
        assert DEATHS[number] in wait_until_failed(process, folder)


@pytest.mark.slow
def test_an_env_that_ends_its_process_fails_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    folder, bad = tmp_path / "run", episode_seed(0, 40)
    ends = f"+env.kwargs={{fault:'os._exit',bad:[{bad}]}}"
    overrides = [*SMALL, *LONG, "plugins=[faulty]", "env.id=Ending-v0", ends, f"hydra.run.dir={folder}"]
    with running(tmp_path, *overrides, "seed=0") as process:
        wait_for(lambda: logged(folder) >= 200, process)
        error = wait_until_failed(process, folder)
    assert "seed 0, env 0: its process exited with code 0" in error


@pytest.mark.slow
def test_a_process_that_dies_at_any_moment_fails_the_run(tmp_path: Path) -> None:
    for case in range(20):
        folder, number = tmp_path / str(case), random.choice(list(DEATHS))
        overrides = [*SMALL, *LONG, "env.timeout=2", f"hydra.run.dir={folder}"]
        with running(tmp_path, *overrides) as process:
            wait_for((folder / "summary.json").exists, process)
            time.sleep(random.random() * 5)
            hit(process, number)
            began = time.monotonic()
            assert DEATHS[number] in wait_until_failed(process, folder)
            print(f"{number.name} at env step {logged(folder)}: {time.monotonic() - began:.1f} s")
