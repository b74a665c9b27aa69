"""Signals that ask a run to end, and a folder that two runs want."""

import os
import signal
import time
from pathlib import Path
from signal import Signals
from typing import Any

import pytest
from helpers import digests, latest, result, rows, saved, summary, train
from runs import SMALL, finish, kill, logged, running, wait_for

INTERRUPTED = 75
LONG_EVALUATION = ["eval.episodes=2000", "eval.final_episodes=20000"]
NATIVE = "env.backend=native"
ASYNC = ["env.vectorization=async", "env.n=2"]
SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1]
Overrides = list[str]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing has interrupted."""
    folder = tmp_path_factory.mktemp("signals") / "whole"
    finish(folder.parent, folder, *SMALL)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_ends_a_run_with_a_checkpoint_from_which_it_continues_bit_for_bit(
    whole: Path, tmp_path: Path, number: Signals
) -> None:
    cut = tmp_path / "cut"
    with running(tmp_path, *SMALL, f"hydra.run.dir={cut}") as process:
        wait_for(lambda: logged(cut) >= 600, process)
        process.send_signal(number)
        assert process.wait() == INTERRUPTED
    assert summary(cut)["status"] == "interrupted"
    assert "python train.py resume=cut\n" in (cut / "train.log").read_text()
    stopped_at = saved(cut)[-1]
    assert 600 <= stopped_at < 2400
    done = train(tmp_path, f"resume={cut}")
    assert done.returncode == 0, done.stderr
    assert summary(cut)["resumed_from"] == stopped_at
    assert result(cut) == result(whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [[NATIVE], ASYNC],
    ids=" ".join,
)
def test_ctrl_c_reaches_the_whole_process_group_and_still_leaves_a_checkpoint(
    tmp_path: Path, overrides: Overrides
) -> None:
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    arguments = [*SMALL, *overrides, f"hydra.run.dir={cut}"]
    with running(tmp_path, *arguments, apart=True) as process:
        wait_for(lambda: logged(cut) >= 600, process)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait() == INTERRUPTED, (cut / "train.log").read_text()
    assert summary(cut)["status"] == "interrupted"
    finish(tmp_path, cut, *SMALL, *overrides)
    finish(tmp_path, whole, *SMALL, *overrides)
    assert result(cut) == result(whole)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(signal.SIGTERM, signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, signal.SIGINT, marks=pytest.mark.slow),
    ],
    ids=lambda number: number.name,
)
def test_a_second_signal_ends_the_process_at_once(
    whole: Path, tmp_path: Path, first: Signals, second: Signals
) -> None:
    cut, overrides = tmp_path / "cut", [*SMALL, *LONG_EVALUATION]
    with running(tmp_path, *overrides, f"hydra.run.dir={cut}") as process:
        wait_for(lambda: logged(cut) == 800, process)  # an evaluation begins
        process.send_signal(first)
        time.sleep(0.1)
        assert process.poll() is None
        process.send_signal(second)
        assert process.wait() == -second
    found = [(row["step"], row["tag"]) for row in rows(cut / "metrics.csv")]
    assert ("800", "eval/return_mean") not in found  # the evaluation has not ended
    if second == signal.SIGINT:
        finish(tmp_path, cut, *SMALL)
        whole_result, cut_result = result(whole), result(cut)
        assert cut_result["tensors"] == whole_result["tensors"]
        assert cut_result["final_returns"] == whole_result["final_returns"]


@pytest.mark.slow
def test_ctrl_c_ends_a_sweep_and_no_later_job_begins(tmp_path: Path) -> None:
    jobs = ["--multirun", "agent=dqn,ddqn,sarsa", "hydra.sweep.dir=sweep", *SMALL]
    with running(tmp_path, *jobs, apart=True) as process:
        wait_for(lambda: any(logged(p) >= 600 for p in tmp_path.glob("sweep/1_*")), process)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait() == INTERRUPTED
    folders = sorted(path.parent for path in tmp_path.glob("sweep/*/summary.json"))
    assert [summary(path)["status"] for path in folders] == ["finished", "interrupted"]
    assert list(tmp_path.glob("sweep/2_*")) == []


@pytest.mark.slow
def test_of_two_processes_in_one_folder_the_second_is_refused_and_told_whose_it_is(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "run"
    with running(tmp_path, *SMALL, *LONG_EVALUATION, f"hydra.run.dir={folder}") as process:
        wait_for(lambda: logged(folder) == 800, process)  # and now does nothing else for a while
        fixed = (".lock", ".hydra/config.yaml", "summary.json")  # while it runs
        before = {name: digests(folder)[name] for name in fixed}
        refused = train(
            tmp_path, *latest(*SMALL, *LONG_EVALUATION), f"hydra.run.dir={folder}", "resume=auto"
        )
        assert refused.returncode == 2
        assert f"in use by process {process.pid} on " in refused.stderr
        assert digests(folder).items() >= before.items()
        assert process.poll() is None
        kill(process)
    assert str(process.pid) in (folder / ".lock").read_text()
    finish(tmp_path, folder, *SMALL)  # the lock of the killed process is no obstacle


@pytest.mark.slow
def test_a_folder_with_a_run_is_not_touched_without_resume(whole: Path) -> None:
    before = digests(whole)
    refused = train(whole.parent, *SMALL, "seed=1", f"hydra.run.dir={whole}")
    assert refused.returncode == 2
    assert "contains a run; resume=auto continues it" in refused.stderr
    assert digests(whole) == before


@pytest.mark.slow
def test_a_run_of_another_config_is_not_continued_and_all_differences_are_named(whole: Path) -> None:
    before: Any = digests(whole)
    others = ["optim.lr=0.5", "seeds=3", "log.every=50"]
    refused = train(whole.parent, *latest(*SMALL, *others), f"hydra.run.dir={whole}", "resume=auto")
    assert refused.returncode == 2
    assert "optim.lr=0.5: the run began with" in refused.stderr
    assert "seeds=3: the run began with 1" in refused.stderr
    assert "log.every=50:" not in refused.stderr
    assert digests(whole) == before


@pytest.mark.slow
def test_a_finished_run_is_not_trained_again(whole: Path) -> None:
    before = digests(whole)
    finish(whole.parent, whole, *SMALL)
    after = digests(whole)
    assert {name for name in after if after[name] != before.get(name)} <= {"train.log"}
    assert summary(whole)["status"] == "finished"
