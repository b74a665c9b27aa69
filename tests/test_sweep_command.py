"""`dqn-exp sweep`: what it shows of jobs that run, ended or vanished, and that it runs them again."""

import json
import math
import os
import pty
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from forks import start
from helpers import TINY, latest, result, saved, summary, tiny_run

from dqn_exp.cli import sweep
from dqn_exp.config.problems import ConfigError
from dqn_exp.run import lock
from dqn_exp.sweeps import status

LONG = latest(*TINY, "checkpoint.every=100", "total_steps=500", "seeds=2")


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run the command; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["dqn-exp sweep", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        sweep.main()
    assert isinstance(caught.value.code, int)
    return caught.value.code


def job(
    folder: Path, number: int, said: str, config: str = "total_steps: 1000\nseeds: 2\n", **facts: object
) -> Path:
    """The folder of a job of a status."""
    path = folder / f"{number}_lr={number}"
    (path / ".hydra").mkdir(parents=True)
    (path / ".hydra/config.yaml").write_text(f"{config}optim: {{lr: {number}}}\n")
    (path / "summary.json").write_text(json.dumps({"status": said, **facts}))
    return path


def test_a_running_job_shows_how_far_it_is(tmp_path: Path) -> None:
    path = job(tmp_path, 3, "running")
    lock.write_owner(path)  # this process
    rows = [
        "0,100,eval/return_mean,5.0",
        "1,100,eval/return_mean,6.0",
        "0,100,time/steps_per_second,40",
    ]
    rows += ["0,200,eval/return_mean,7.0", "1,200,eval/return_mean,10.0", "0,250,train/td_loss,nan"]
    (path / "metrics.csv").write_text("seed,step,tag,value\n" + "\n".join(rows) + "\n0,300,eval/ret")
    (found,) = status.jobs(tmp_path)
    assert found.state == "running"
    assert found.progress == (250, 8.5, 40.0)
    assert found.seconds_left == (1000 - 250) * 2 / 40
    assert [re.split(r"  +", line.strip()) for line in status.table([found])] == [
        ["IQM", "95 % CI", "step", "last return", "steps/s", "left", "state"],
        ["3", "250", "8.5", "40", "00:37", "running"],
    ]


def test_a_job_whose_process_is_gone_is_lost(tmp_path: Path) -> None:
    path = job(tmp_path, 0, "running")
    assert status.jobs(tmp_path)[0].state == "lost"
    lock.write_owner(path)
    owner = json.loads((path / ".lock").read_text())
    (path / ".lock").write_text(json.dumps(owner | {"started": owner["started"] - 1}))
    assert status.jobs(tmp_path)[0].state == "lost"  # its number belongs to another process now


@pytest.mark.parametrize(("age", "state"), [(0, "running"), (1000, "lost")])
def test_a_job_of_another_machine_lives_as_long_as_its_files_change(
    tmp_path: Path, age: int, state: str
) -> None:
    path = job(tmp_path, 0, "running")
    (path / ".lock").write_text('{"process": 1, "host": "elsewhere", "started": 5.0}')
    for each in path.iterdir():
        os.utime(each, (time.time() - age, time.time() - age))
    assert status.jobs(tmp_path)[0].state == state


def test_odd_files_of_a_job_neither_stop_nor_fool_the_command(tmp_path: Path) -> None:
    path = job(tmp_path, 0, "running")
    (path / ".lock").write_text(json.dumps({"process": math.inf, "host": socket.gethostname()}))
    os.mkfifo(path / "metrics.csv")
    (path / "train.log").symlink_to("/dev/zero")
    for each in path.iterdir():
        os.utime(each, (0, 0), follow_symlinks=False)
    (found,) = status.jobs(tmp_path)
    assert (found.state, found.progress, found.traceback()) == ("lost", (0, None, None), [])


def test_tracebacks_are_shown_to_their_end_without_control_characters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = job(tmp_path, 0, "failed", error="OSError('gone')")
    older = "[time] Traceback (most recent call last):\n  older\n"
    newer = "".join(f"  line {i}\n" for i in range(20))
    (path / "train.log").write_text(
        f"{older}{older.replace('older', 'newer')}{newer}OSError: \x1b[2J\n"
    )
    job(tmp_path, 1, "finished", objective=5.0)
    job(tmp_path, 2, "failed", error="RuntimeError('it left no log')")
    assert command(monkeypatch, tmp_path, "--failed") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"job 0, failed: {path}"
    assert lines[1 : 1 + status.MOST_LINES] == [
        *(f"    line {i}" for i in range(20 - status.MOST_LINES + 1, 20)),
        "  OSError:  [2J",
    ]
    assert "  RuntimeError('it left no log')" in lines
    assert "older" not in " ".join(lines)
    assert lines[-1] == "3 jobs: 1 finished, 2 failed; best IQM 5.0 (job 1)"


def test_off_a_terminal_it_is_one_line_with_the_exit_code_of_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job(tmp_path, 0, "finished", objective=7.25)
    job(tmp_path, 1, "interrupted")
    assert command(monkeypatch, tmp_path) == 75
    expected = "2 jobs: 1 finished, 1 interrupted; best IQM 7.2 (job 0)\n"
    assert capsys.readouterr().out == expected


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_folder_that_is_no_sweep_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(sys, "argv", ["dqn-exp sweep", str(tmp_path / name)])
    with pytest.raises(ConfigError, match="contains no jobs of a sweep"):
        sweep.main()


def test_a_killed_job_is_run_again_to_the_same_bits_and_shown_while_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_run(tmp_path / "whole", *LONG).run()
    swept = ["--multirun", "seed=0", "hydra.sweep.dir=here", *LONG]
    process, cut = start(tmp_path, *swept), tmp_path / "here/0"
    while not (cut / "checkpoints").exists() or not saved(cut):
        assert process.is_alive()
        time.sleep(0.01)
    assert command(monkeypatch, "here") == 0
    assert "1 running" in capsys.readouterr().out
    process.kill()
    process.join()
    assert command(monkeypatch, "here") == 1
    assert "1 lost" in capsys.readouterr().out
    assert command(monkeypatch, "here", "--rerun", "failed") == 0
    assert summary(cut)["resumed_from"] > 0
    assert result(cut) == result(tmp_path / "whole")


def test_a_job_that_needs_code_of_others_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    job(tmp_path, 0, "failed", "plugins: [mine]\n")
    job(tmp_path, 1, "failed", "env: {id: 'mine:Env-v0'}\n")
    job(tmp_path, 2, "failed", "agent: {name: dqn}\n")
    assert command(monkeypatch, tmp_path, "--rerun", "failed") == 1
    said = capsys.readouterr().err
    assert "the run needs plug-ins, which run code; repeat plugins=[mine] if you trust them" in said
    assert "the run's env imports a module; repeat env.id=mine:Env-v0 if you trust it" in said
    assert "seed: must be set (first seed)" in said
    assert not (tmp_path / "ran").exists()


def test_on_a_terminal_it_is_a_table_that_follows_the_jobs(tmp_path: Path) -> None:
    path = job(tmp_path, 0, "running")
    lock.write_owner(path)
    ours, theirs = pty.openpty()
    program = [sys.executable, "-m", "dqn_exp", "sweep", str(tmp_path)]
    with subprocess.Popen(
        program, stdin=theirs, stdout=theirs, env={**os.environ, "COLUMNS": "120"}
    ) as shown:
        os.close(theirs)
        seen = b""
        while b"running" not in seen:
            seen += os.read(ours, 10_000)
        (path / "summary.json").write_text('{"status": "finished", "objective": 9.5}')
        while b"best IQM" not in seen:
            seen += os.read(ours, 10_000)
        assert shown.wait() == 0
    os.close(ours)
    assert "1 job: 1 finished; best IQM 9.5 (job 0)" in seen.decode()
    assert seen.endswith(b"\r\n")
    assert b"\x1b[?25h" in seen  # the cursor is back
