"""TensorBoard's files that cannot be written, or are cut off, and clocks that go backwards."""

import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import latest, result, rows, summary, train
from runs import SMALL, finish, kill, logged, running, start_and_kill, wait_for
from tensorboard_server import tensorboard

WARNING = "TensorBoard events are no longer written"
TINY = latest(*SMALL, "total_steps=800", "checkpoint.every=200", "eval.every=400")


@pytest.mark.slow
def test_a_file_in_the_way_of_tensorboard_costs_a_warning_and_nothing_else(tmp_path: Path) -> None:
    blocked, free = tmp_path / "blocked", tmp_path / "free"
    blocked.mkdir()
    (blocked / "seed=1").write_text("in the way")
    done = train(tmp_path, "seeds=3", *TINY, f"hydra.run.dir={blocked}")
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).count(WARNING) == 1
    assert "Traceback" not in done.stderr
    finish(tmp_path, free, "seeds=3", *TINY)
    assert result(blocked) == result(free)


@pytest.mark.slow
def test_a_full_disk_under_tensorboard_costs_a_warning_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    disk = folder / "seed=0"
    disk.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("may not mount a file system here")
    try:
        done = train(tmp_path, *SMALL, f"hydra.run.dir={folder}")
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).count(WARNING) == 1
    assert "Traceback" not in done.stderr
    assert summary(folder)["status"] == "finished"
    assert logged(folder) == 2400


def shown(ask: Callable[..., Any], run: str, tag: str, last: int) -> list[int]:
    """Steps of a curve, once the server shows the last: it reads its folder in the background."""
    for _ in range(300):
        points = ask("data/plugin/scalars/scalars", run=run, tag=tag)
        if last in (found := [step for _, step, _ in points]):
            return found
        time.sleep(0.2)
    raise TimeoutError(f"{run} {tag} has no {last}")


def check_curves(ask: Callable[..., Any], folder: Path) -> None:
    """Each curve has a point for each row of the CSV files, in the same order."""
    metrics, episodes = rows(folder / "metrics.csv"), rows(folder / "episodes.csv")
    for seed in ("0", "1"):
        for tag in ("train/epsilon", "time/steps_per_second", "eval/return_mean"):
            expected = [int(r["step"]) for r in metrics if (r["seed"], r["tag"]) == (seed, tag)]
            assert len(expected) == len(set(expected))
            assert shown(ask, f"seed={seed}", tag, 2400) == expected
        expected = [int(row["step"]) for row in episodes if row["seed"] == seed]
        assert shown(ask, f"seed={seed}", "train/episode_return", expected[-1]) == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    "new",
    [
        pytest.param(True, id="a new server"),
        pytest.param(False, id="one that runs all the while"),
    ],
)
def test_after_kills_a_server_shows_each_step_once(tmp_path: Path, new: bool) -> None:
    folder, overrides = tmp_path / "run", [*SMALL, "seeds=2"]
    folder.mkdir()
    with tensorboard(folder) as ask:
        for after in (600, 1400):
            with running(tmp_path, *overrides, f"hydra.run.dir={folder}", "resume=auto") as process:
                wait_for(lambda at=after: logged(folder) >= at, process)
                time.sleep(0.02)  # the events of a step are written after its CSV rows
                process.send_signal(signal.SIGSTOP)
                shown(ask, "seed=1", "train/epsilon", logged(folder))  # what is to be forgotten
                kill(process)
        finish(tmp_path, folder, *overrides)
        if not new:
            check_curves(ask, folder)
            return
    with tensorboard(folder) as ask:
        check_curves(ask, folder)


@pytest.mark.slow
@pytest.mark.parametrize("ends", [b"\0" * 100, b"x"], ids=["zeros", "half a record"])
def test_after_a_power_cut_a_server_shows_what_comes_after_what_was_lost(
    tmp_path: Path, ends: bytes
) -> None:
    folder, overrides = tmp_path / "run", [*SMALL, "seeds=2"]
    start_and_kill(tmp_path, folder, *overrides, after=1000)
    for path in [*folder.glob("seed=*/events*"), folder / "metrics.csv", folder / "episodes.csv"]:
        with path.open("ab") as file:
            file.write(ends)
    finish(tmp_path, folder, *overrides)
    with tensorboard(folder) as ask:
        check_curves(ask, folder)


# What Python runs first in a process, if it is on its path.
BACKWARDS = """
import time
now = time.time()
def backwards():
    global now
    now -= 10
    return now
time.time = backwards
"""


@pytest.mark.slow
def test_a_clock_that_goes_backwards_makes_no_duration_negative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, module = tmp_path / "run", tmp_path / "path/sitecustomize.py"
    module.parent.mkdir()
    module.write_text(BACKWARDS)
    monkeypatch.setenv("PYTHONPATH", str(module.parent))
    start_and_kill(tmp_path, folder, *SMALL, "seeds=2", after=1000)
    finish(tmp_path, folder, *SMALL, "seeds=2")
    found = summary(folder)
    assert found["wall_seconds"] > 0
    assert found["train_seconds"] > 0
    assert found["steps_per_second"] > 0
    speeds = [r for r in rows(folder / "metrics.csv") if r["tag"] == "time/steps_per_second"]
    assert all(float(row["value"]) > 0 for row in speeds)
    monkeypatch.delenv("PYTHONPATH")
    with tensorboard(folder) as ask:
        check_curves(ask, folder)
