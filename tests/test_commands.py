"""`dqn-exp`, `python -m dqn_exp` and `python train.py`: the same program, with the same exit codes."""

import pkgutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from helpers import PROGRAM, train

import dqn_exp.__main__ as package

MODULE = [sys.executable, "-m", "dqn_exp"]
SCRIPT = [sys.executable, str(PROGRAM)]


def run(cwd: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def test_the_installed_command_is_the_module() -> None:
    scripts = tomllib.loads((PROGRAM.parent / "pyproject.toml").read_text())["project"]["scripts"]
    assert pkgutil.resolve_name(scripts["dqn-exp"]) is package.main


@pytest.mark.parametrize(
    "command", [[*MODULE, "--version"], [*MODULE, "train", "--version"], [*SCRIPT, "--version"]]
)
def test_each_prints_its_version(tmp_path: Path, command: list[str]) -> None:
    done = run(tmp_path, *command)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"dqn-exp {version('dqn-exp')}\n"


def test_the_commands_are_listed(tmp_path: Path) -> None:
    done = run(tmp_path, *MODULE, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    listed = {line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")}
    assert listed == set(package.COMMANDS)
    assert "train" in listed
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_an_unknown_command_exits_2(tmp_path: Path) -> None:
    done = run(tmp_path, *MODULE, "tarin")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("tarin: unknown command")
    assert "train" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_module_refuses_what_the_script_refuses(tmp_path: Path) -> None:
    done = run(tmp_path, *MODULE, "train", "agent.gamma=2", "+agent.typo=1")
    same = train(tmp_path, "agent.gamma=2", "+agent.typo=1")
    assert (done.returncode, same.returncode) == (2, 2)
    assert done.stderr == same.stderr
    assert "agent.gamma=2" in done.stderr
    assert not list(tmp_path.iterdir())
