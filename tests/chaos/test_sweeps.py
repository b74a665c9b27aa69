"""Sweeps whose jobs fail in parallel, that are killed or interrupted, and several at once."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import torch
from helpers import digests, latest, result, summary, train
from runs import SMALL, finish, kill, logged, running, wait_for

TINY = latest(*SMALL, "total_steps=800", "checkpoint.every=200", "eval.every=400")


def jobs(cwd: Path) -> dict[str, Path]:
    """Folders of the jobs of a sweep that have begun, by what is special about them."""
    return {path.parent.name: path.parent for path in sorted(cwd.glob("sweep/*/summary.json"))}


@pytest.mark.slow
def test_one_failing_job_of_a_parallel_sweep_leaves_the_others_alone_and_is_named_in_the_end(
    tmp_path: Path,
) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    swept = ["--multirun", "optim.lr=0.001,1e29,0.002", "hydra.sweep.dir=sweep", *TINY]
    done = train(tmp_path, *swept, "hydra/launcher=joblib", "hydra.launcher.n_jobs=1")
    assert done.returncode == 1, done.stderr
    found = jobs(tmp_path)
    assert list(found) == ["0_lr=0.001", "1_lr=1e+29", "2_lr=0.002"]
    assert [summary(path)["status"] for path in found.values()] == ["finished", "failed", "finished"]
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("1 "))
    assert "failed: FloatingPointError('env step" in line


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_a_killed_sweep_continues_where_it_was_and_ends_as_if_nothing_had_happened(
    tmp_path: Path, launcher: str
) -> None:
    if launcher == "joblib":
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    swept = ["--multirun", "agent=dqn,munchausen,c51", "hydra.sweep.dir=sweep", *TINY]
    swept += [f"hydra/launcher={launcher}"] + ["hydra.launcher.n_jobs=1"] * (launcher == "joblib")
    for path in (whole, cut):
        path.mkdir()
    with running(cut, *swept, "resume=auto") as process:
        wait_for(lambda: any(logged(path) >= 400 for path in cut.glob("sweep/1_*")), process)
        kill(process)
    first, second = jobs(cut).values()
    assert [summary(first)["status"], summary(second)["status"]] == ["finished", "running"]
    before = digests(first)
    done = train(cut, *swept, "resume=auto")
    assert done.returncode == 0, done.stderr
    after = digests(first)
    assert {name for name in after if after[name] != before.get(name)} <= {"train.log"}
    assert summary(second)["resumed_from"] in (200, 400, 600)

    assert train(whole, *swept).returncode == 0
    assert list(jobs(cut)) == list(jobs(whole))
    for name, path in jobs(cut).items():
        assert result(path) == result(jobs(whole)[name])


@pytest.mark.slow
def test_two_sweeps_begun_at_once_get_different_folders(tmp_path: Path) -> None:
    swept = ["--multirun", "seed=0,1", *TINY]
    with running(tmp_path, *swept) as one, running(tmp_path, *swept) as other:
        assert one.wait() == other.wait() == 0
    sweeps = list(tmp_path.glob("multirun/*/*"))
    assert len(sweeps) == 2
    assert len(list(tmp_path.glob("multirun/*/*/*/summary.json"))) == 4


@pytest.mark.slow
def test_an_interrupted_sweep_continues_only_if_that_is_asked_for(tmp_path: Path) -> None:
    swept = ["--multirun", "seed=0,1", "hydra.sweep.dir=sweep", *TINY]
    with running(tmp_path, *swept) as process:
        wait_for(lambda: any(logged(path) >= 400 for path in tmp_path.glob("sweep/0_*")), process)
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 75
    refused = train(tmp_path, *swept)
    assert refused.returncode == 2
    assert "contains a run; resume=auto continues it" in refused.stderr
    assert train(tmp_path, *swept, "resume=auto").returncode == 0
    assert [summary(path)["status"] for path in jobs(tmp_path).values()] == ["finished"] * 2


PARALLEL = latest(
    *SMALL, "total_steps=20000", "eval.every=20000", "checkpoint.every=20000", "hydra.sweep.dir=sweep"
)


@contextmanager
def parallel(cwd: Path) -> Iterator[tuple[subprocess.Popen[bytes], list[psutil.Process]]]:
    """A sweep of four jobs, two of which are under way; and the processes in which jobs run."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    launcher = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    with running(cwd, "--multirun", "seed=0,1,2,3", *PARALLEL, *launcher, apart=True) as process:
        wait_for(lambda: sum(logged(path) >= 400 for path in cwd.glob("sweep/*")) == 2, process)
        children = psutil.Process(process.pid).children(recursive=True)
        yield process, [child for child in children if "popen_loky" in " ".join(child.cmdline())]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_jobs_of_a_parallel_sweep_that_has_ended_save_a_checkpoint_and_end(
    tmp_path: Path, number: signal.Signals
) -> None:
    with parallel(tmp_path) as (process, workers):
        assert len(workers) >= 2
        if number == signal.SIGINT:  # as a terminal sends it
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        assert process.wait() == -number
        _, left = psutil.wait_procs(workers, timeout=60)
    assert not left
    ended = [summary(path)["status"] for path in jobs(tmp_path).values()]
    assert ended == ["interrupted", "interrupted"]


@pytest.mark.slow
def test_a_job_that_a_scheduler_cancels_ends_alone_and_the_sweep_says_that_it_can_continue(
    tmp_path: Path,
) -> None:
    with parallel(tmp_path) as (process, workers):
        busy = [worker for worker in workers if worker.cpu_times().user > 1]
        busy[0].send_signal(signal.SIGTERM)
        assert process.wait() == 75
    ended = [summary(path)["status"] for path in jobs(tmp_path).values()]
    assert sorted(ended) == ["finished", "finished", "finished", "interrupted"]


@pytest.mark.slow
def test_a_killed_job_of_a_parallel_sweep_makes_it_a_failed_one(tmp_path: Path) -> None:
    with parallel(tmp_path) as (process, workers):
        busy = [worker for worker in workers if worker.cpu_times().user > 1]
        busy[0].kill()
        assert process.wait() == 1


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device whose memory runs out")
def test_a_job_that_runs_out_of_gpu_memory_fails_alone(tmp_path: Path) -> None:
    swept = ["--multirun", "net.hidden=[500000,500000],[32,32]", "hydra.sweep.dir=sweep", "device=cuda"]
    done = train(tmp_path, *swept, *(a for a in TINY if "hidden" not in a))
    assert done.returncode != 0
    assert "out of memory" in done.stderr
    (second,) = tmp_path.glob("sweep/1_*")
    assert summary(second)["status"] == "finished"
    finish(tmp_path, tmp_path / "alone", "device=cuda", *TINY)
    assert result(second) == result(tmp_path / "alone")
