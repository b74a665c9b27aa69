"""A run made from Python is the same as one from the command line, and each continues the other."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import TINY, rows, saved, summary

SCRIPT = """
import sys
import dqn_exp

folder, *overrides = sys.argv[1:]
run = dqn_exp.Run(dqn_exp.build(dqn_exp.compose(*overrides)), folder or None)
print("objective", run.run())
"""
CHOSEN = [*TINY, "seeds=2", "buffer=per"]


def from_python(cwd: Path, folder: str, *overrides: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SCRIPT, folder, *overrides]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def program(cwd: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """`dqn-exp train`."""
    command = [sys.executable, "-m", "dqn_exp", "train", *overrides]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds a run from each, in folders `python` and `program`, and what they printed."""
    home = tmp_path_factory.mktemp("home")
    done = from_python(home, "python", *CHOSEN)
    (home / "python.printed").write_text(done.stderr)
    (home / "python.returned").write_text(done.stdout)
    done = program(home, *CHOSEN, "hydra.run.dir=program")
    (home / "program.printed").write_text(done.stdout)
    return home


def files(folder: Path) -> set[str]:
    """Every file by its path, without the time in names of TensorBoard's files."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {re.sub(r"tfevents\.\d+", "tfevents", str(path.relative_to(folder))) for path in found}


def told(lines: str) -> list[str]:
    """Lines without what must differ: names of folders and programs, and speeds."""
    without_speeds = re.sub(r"[\d,]+ env steps/s .*", "env steps/s", lines)
    return re.sub(
        r"python train\.py|dqn-exp train|\b(python|program)\b", "-", without_speeds
    ).splitlines()


def test_both_leave_the_same_files(home: Path) -> None:
    assert files(home / "python") == files(home / "program")
    assert {"train.log", "summary.json", ".hydra/config.yaml"} <= files(home / "python")
    configs = [(home / name / ".hydra/config.yaml").read_text() for name in ("python", "program")]
    assert configs[0] == configs[1]


def test_both_print_and_log_the_same(home: Path) -> None:
    printed = [(home / f"{name}.printed").read_text() for name in ("python", "program")]
    assert told(printed[0]) == told(printed[1])
    assert "greedy return" in printed[0]
    assert printed[1].endswith("  dqn-exp train resume=program\n")
    for name, text in zip(("python", "program"), printed, strict=True):
        log = (home / name / "train.log").read_text()
        assert re.sub(r"(?m)^\[[^]]*\] ", "", log) == text


def test_both_return_or_save_the_same_result(home: Path) -> None:
    found = summary(home / "program")
    assert summary(home / "python")["final_returns"] == found["final_returns"]
    assert (home / "python.returned").read_text() == f"objective {found['objective']}\n"


def numbers(folder: Path) -> list[dict[str, str]]:
    metrics = [row for row in rows(folder / "metrics.csv") if row["tag"] != "time/steps_per_second"]
    return metrics + rows(folder / "episodes.csv")


@pytest.mark.slow
def test_each_continues_the_other_with_the_same_bits(home: Path) -> None:
    program(home, "resume=python", "total_steps=400")
    from_python(home, "", "resume=program", "total_steps=400")
    for name in ("python", "program"):
        assert summary(home / name)["status"] == "finished"
        assert summary(home / name)["resumed_from"] == 300
        assert saved(home / name)[-1] == 400
    assert numbers(home / "python") == numbers(home / "program")
    assert summary(home / "python")["final_returns"] == summary(home / "program")["final_returns"]
    assert sorted(p.name for p in home.iterdir() if p.is_dir()) == ["program", "python"]
