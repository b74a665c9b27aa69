"""The program in odd processes: without streams, with full or broken ones, and ended before it runs."""

import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest
from helpers import TINY, command, summary

FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")


def run(cwd: Path, arguments: list[str], redirected: str) -> subprocess.CompletedProcess[str]:
    """Run the program by a shell that redirects its streams; its exit code is in the file `code`."""
    line = f"{shlex.join(command(*arguments))} {redirected}; echo ${{PIPESTATUS[0]}} > code"
    return subprocess.run(["bash", "-c", line], cwd=cwd, capture_output=True, text=True)


@pytest.mark.parametrize(
    "redirected",
    [
        *(pytest.param(one, marks=pytest.mark.slow) for one in ("<&-", ">&-", "2>&-")),
        "<&- >&- 2>&-",
        pytest.param("> /dev/full 2> /dev/full", marks=[FULL, pytest.mark.slow]),
    ],
)
def test_a_run_needs_no_standard_streams(tmp_path: Path, redirected: str) -> None:
    done = run(tmp_path, [*TINY, "hydra.run.dir=run"], redirected)
    assert (tmp_path / "code").read_text().strip() == "0", done.stderr
    assert done.stderr == ""
    assert summary(tmp_path / "run")["status"] == "finished"


@pytest.mark.slow
def test_a_sweep_whose_output_nobody_reads_ends_well(tmp_path: Path) -> None:
    swept = ["--multirun", "seed=0,1", "hydra.sweep.dir=sweep", *TINY]
    done = run(tmp_path, swept, "| head -1")
    assert ((tmp_path / "code").read_text().strip(), done.stderr) == ("0", "")
    ended = [summary(path.parent)["status"] for path in tmp_path.glob("sweep/*/summary.json")]
    assert ended == ["finished", "finished"]


@pytest.mark.parametrize(
    "redirected", ["2>&-", "<&- >&- 2>&-", pytest.param("2> /dev/full", marks=FULL)]
)
def test_a_refusal_that_nobody_reads_is_exit_code_2(tmp_path: Path, redirected: str) -> None:
    run(tmp_path, ["agent.gamma=2"], redirected)
    assert (tmp_path / "code").read_text().strip() == "2"
    assert [path.name for path in tmp_path.iterdir()] == ["code"]


@FULL
def test_help_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    done = run(tmp_path, ["--help"], "> /dev/full")
    assert ((tmp_path / "code").read_text().strip(), done.stderr) == ("0", "")


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        *(pytest.param(n, marks=pytest.mark.slow) for n in (signal.SIGINT, signal.SIGUSR1)),
    ],
)
def test_a_signal_before_the_run_ends_the_program_without_a_traceback(
    tmp_path: Path, number: signal.Signals
) -> None:
    arguments = command(*TINY, "hydra.run.dir=run")
    for delay in (0.1, 0.2, 0.4):
        with subprocess.Popen(
            arguments, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        ) as process:
            time.sleep(delay)
            process.send_signal(number)
            _, said = process.communicate(timeout=120)
        # Python's own start, before any of this program, may still be interrupted with a traceback.
        assert "Traceback" not in said or "dqn_exp" not in said, said
        assert process.returncode in (-number, 75)  # 75: it had begun
    done = run(tmp_path, [*TINY, "hydra.run.dir=run"], "> /dev/null")
    assert done.stderr == ""
    assert summary(tmp_path / "run")["status"] == "finished"
