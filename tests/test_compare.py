"""`dqn-exp compare`: what differs between two runs, and where equal ones part."""

import subprocess
import sys
from pathlib import Path

import pytest
from helpers import tiny_run
from run_folders import PER, run_folder

from dqn_exp.analysis import runs
from dqn_exp.analysis.difference import difference


def compare(a: Path, b: Path) -> str:
    return "\n".join(difference(runs.read(a), runs.read(b)))


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "dqn_exp", "compare", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True)


def test_equal_runs_are_equal_to_the_last_digit(tmp_path: Path) -> None:
    for name in "ab":
        tiny_run(tmp_path / name, "seeds=2", "log.every=50" if name == "b" else "log.every=100").run()
    text = compare(tmp_path / "a", tmp_path / "b")
    assert "log.every  100  50" in text
    episodes = (tmp_path / "a/episodes.csv").read_text().splitlines()
    for seed in (0, 1):
        count = sum(line.startswith(f"{seed},") for line in episodes)
        assert f"  seed {seed}: equal to the last digit of {count} episodes and " in text
    assert "better" not in text
    assert "tell them apart" not in text  # they are the same seeds


def test_the_first_difference_of_each_seed_is_named(tmp_path: Path) -> None:
    values = {0: {100: 1.0, 200: 2.0, 300: 3.0}, 1: {100: 1.0}}
    ended = {0: [(10, 1.0), (20, 2.0), (30, 3.0)], 1: [(10, 1.0)]}
    run_folder(tmp_path / "a", {0: 1.0, 1: 1.0}, values, ended)
    values[0] |= {200: 2.5, 300: 3.5}
    ended[0][1:] = [(20, 2.1), (30, 3.1)]
    run_folder(tmp_path / "b", {0: 1.0, 1: 1.0}, values, ended)
    lines = compare(tmp_path / "a", tmp_path / "b").splitlines()
    assert lines[-2:] == [
        "  seed 0: first differs in episode 1: return 2.0, length 2.0, ends at step 20 in A, return "
        "2.1, length 2.1, ends at step 20 in B; first differs in step 200 eval/return_mean: 2.0 in A, "
        "2.5 in B",
        "  seed 1: equal to the last digit of 1 episodes and 1 metric values",
    ]


def test_only_what_differs_is_shown(tmp_path: Path) -> None:
    run_folder(tmp_path / "a", dict(enumerate([1.0, 2, 3, 4, 5, 6, 7, 8])))
    run_folder(tmp_path / "b", dict(enumerate([11.0, 12, 13, 14, 15, 16, 17, 18])), buffer=PER)
    text = compare(tmp_path / "a", tmp_path / "b")
    assert [line.split() for line in text.splitlines() if "buffer." in line] == [
        ["buffer.alpha", "-", "0.6"],
        ["buffer.name", "uniform", "per"],
    ]
    assert "agent.name" not in text
    assert "B is better than A: P = 1.00" in text
    assert ["IQM", "4.5", "14.5"] in [line.split() for line in text.splitlines()]


def test_runs_without_much_are_compared_as_far_as_they_go(tmp_path: Path) -> None:
    run_folder(tmp_path / "a", {0: 1.0}, status="failed", env={"id": "Acrobot-v1"})
    run_folder(tmp_path / "b", {0: 1.0})
    (tmp_path / "c").mkdir()
    (tmp_path / "c/summary.json").write_text('{"status": "refused", "error": "x\\u001b[31m"}')
    assert "returns of Acrobot-v1 and CartPole-v1 cannot be compared" in compare(
        tmp_path / "a", tmp_path / "b"
    )
    text = compare(tmp_path / "b", tmp_path / "c")
    assert "a config is missing" in text
    assert "\x1b" not in text


def test_the_command_exits_with_0_whether_runs_differ_or_not(tmp_path: Path) -> None:
    run_folder(tmp_path / "a", {0: 1.0})
    run_folder(tmp_path / "b", {0: 2.0}, buffer=PER)
    for other in "ab":
        done = command(tmp_path / "a", tmp_path / other)
        assert (done.returncode, done.stderr) == (0, "")
        assert ("buffer.name" in done.stdout) == (other == "b")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a"], "required: RUN_B"),
        (["a", "nowhere"], "nowhere: no such folder"),
        (["a", "sweep"], "contains 2 runs"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    for name in ("a", "sweep/0", "sweep/1"):
        run_folder(tmp_path / name, {0: 1.0})
    done = command(*(tmp_path / name for name in arguments))
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert message in done.stderr
