"""Saves that are cut off, or do not fit, leave the last checkpoint as it was."""

import multiprocessing
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers import latest, result, saved, summary, train
from runs import SMALL, finish, logged, running, wait_for
from save_and_die import ABOUT, begin, die_after, die_at_stage, state

from dqn_exp.run.checkpoint import Checkpoints, verified

# One process that has imported torch; those that are to die are forked from it.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["dqn_exp.run.checkpoint"])


def check(folder: Path, at_least: int, at_most: int) -> int:
    """The step of the newest checkpoint, which must be whole."""
    newest = Checkpoints(folder).newest()
    step = newest.step if newest else 0
    assert at_least <= step <= at_most
    if newest:
        expected, found = state(step), newest.load(like=state(step))
        assert found["step"] == step
        for key in ("new", "same"):
            assert torch.equal(found["below"][key], expected["below"][key])
        assert torch.equal(found["small"], expected["small"])
    return step


@pytest.mark.slow
def test_a_save_killed_at_any_stage_leaves_the_new_checkpoint_or_the_last(tmp_path: Path) -> None:
    kills, stage, outcomes, folder = 0, 0, set(), tmp_path / "checkpoints"
    for keeps in ("nothing", "one", "all"):  # a first save, one that prunes nothing, one that does
        while True:
            shutil.rmtree(folder, ignore_errors=True)
            for step in range(1, {"nothing": 0, "one": 1, "all": 2}[keeps] + 1):
                begin(folder)[0].save(step, state(step), ABOUT)
            before = len(saved(tmp_path))
            process = PROCESSES.Process(target=die_at_stage, args=(folder, stage))
            process.start()
            process.join()
            after = check(folder, before, before + 1)
            if process.exitcode == 0:
                assert after == before + 1
                break
            assert process.exitcode == -signal.SIGKILL
            outcomes.add(after - before)
            begin(folder)[0].save(after + 1, state(after + 1), ABOUT)
            check(folder, after + 1, after + 1)
            leftovers = [path.name for path in folder.iterdir() if path.name.startswith(".")]
            assert leftovers == []
            assert len(saved(tmp_path)) == min(2, after + 1)
            kills, stage = kills + 1, stage + 1
        stage = 0
    assert kills >= 30
    assert outcomes == {0, 1}


@pytest.mark.slow
def test_a_hundred_saves_in_a_row_killed_at_random_moments_leave_a_whole_checkpoint(
    tmp_path: Path,
) -> None:
    folder, step = tmp_path / "checkpoints", 0
    for _ in range(100):
        process = PROCESSES.Process(target=die_after, args=(folder, random.uniform(0.001, 0.1)))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGALRM
        step = check(folder, step, 10**6)
    assert step > 100
    begin(folder)[0].save(step + 1, state(step + 1), ABOUT)
    assert {path.name for path in folder.iterdir()} == {f"step={step}", f"step={step + 1}"}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(path)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("may not mount a file system here")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(disk: Path, leave: int) -> Path:
    """Fill a disk but for some bytes."""
    ballast = disk / "ballast"
    ballast.write_bytes(b"\0" * (shutil.disk_usage(disk).free - leave))
    return ballast


# Checkpoints of about 500 kB.
LARGE = [*SMALL, "net.hidden=[128,128]", "checkpoint.every=200", "total_steps=3600"]


@pytest.mark.slow
def test_a_checkpoint_that_does_not_fit_on_the_disk_is_left_out_and_tried_again(disk: Path) -> None:
    folder = disk / "run"
    log = folder / "train.log"
    with running(disk, *LARGE, f"hydra.run.dir={folder}") as process:
        wait_for(lambda: len(saved(folder)) == 2, process)
        ballast = fill(disk, leave=150_000)
        before = saved(folder)
        wait_for(lambda: log.read_text().count("not saved: [Errno 28]") >= 2, process)
        assert len(saved(folder)) == 2
        assert saved(folder)[-1] <= before[-1] + 200  # it may just have been written
        for step in saved(folder):
            verified(folder / f"checkpoints/step={step}")
        at = logged(folder)
        ballast.unlink()
        assert process.wait() == 0
    assert logged(folder) == 3600 > at
    assert saved(folder) == [3400, 3600]
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == [
        "step=3400",
        "step=3600",
    ]
    assert Checkpoints(folder / "checkpoints").newest() is not None


@pytest.mark.slow
def test_a_signal_while_the_disk_is_full_is_not_answered_as_if_all_were_saved(disk: Path) -> None:
    folder = disk / "run"
    with running(disk, *LARGE, f"hydra.run.dir={folder}") as process:
        wait_for(lambda: len(saved(folder)) == 2, process)
        ballast = fill(disk, leave=150_000)
        before = saved(folder)
        process.terminate()
        assert process.wait() == 1
    assert saved(folder)[-1] <= before[-1] + 200
    ballast.unlink()
    done = train(disk, f"resume={folder}")
    assert done.returncode == 0, done.stderr
    assert saved(folder)[-1] == 3600


@pytest.mark.slow
def test_a_run_whose_last_checkpoint_cannot_be_saved_fails(disk: Path) -> None:
    folder = disk / "run"
    once = [*LARGE, "checkpoint.every=null", "log.every=100"]
    with running(disk, *latest(*once), f"hydra.run.dir={folder}") as process:
        wait_for(lambda: logged(folder) >= 200, process)
        ballast = fill(disk, leave=150_000)
        assert process.wait() == 1
    assert summary(folder)["status"] == "failed"
    assert "No space left" in summary(folder)["error"]
    ballast.unlink()
    finish(disk, folder, *latest(*once))


@pytest.mark.slow
@pytest.mark.parametrize("room", [True, False], ids=["room again", "full until the end"])
def test_rows_that_find_no_room_wait(disk: Path, tmp_path: Path, room: bool) -> None:
    folder = disk / "run"
    with running(disk, *LARGE, f"hydra.run.dir={folder}") as process:
        wait_for(lambda: len(saved(folder)) == 2, process)
        ballast = fill(disk, leave=0)
        size = (folder / "metrics.csv").stat().st_size
        time.sleep(1.0)  # some log points; the log, on the same disk, cannot tell of them
        assert (folder / "metrics.csv").stat().st_size - size < 4096
        if room:
            ballast.unlink()
        assert process.wait() == (0 if room else 1)
    if not room:
        assert summary(folder)["status"] == "failed"
        ballast.unlink()
        finish(disk, folder, *LARGE)
    finish(tmp_path, tmp_path / "whole", *LARGE)
    assert result(folder) == result(tmp_path / "whole")
