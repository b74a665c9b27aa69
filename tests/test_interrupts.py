"""A run that is interrupted anywhere and resumed ends as if nothing had happened, to the last bit."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import TINY, latest, result, summary, tiny_run

from dqn_exp.compiled.loops import MAX_UPDATES
from dqn_exp.signals import exits_are_errors

SHORT = latest(*TINY, "total_steps=120", "log.every=25", "eval.every=40", "checkpoint.every=50")
RECIPES = {
    "updates": ["train.every=3", "train.updates=4", "agent.target.every=7"],
    "stop rule": ["train.stop.episodes=3", "agent.target={tau:0.5,episodes:1}", "env.n=2"],
    "repeated actions": ["exploration=ez_greedy", "env.backend=native", "agent.n_step=3", "seeds=2"],
}
MANY = ["train.every=40", f"train.updates={2 * MAX_UPDATES + 9}"]
PLACES = 20  # at which each of them is interrupted


class Countdown:
    """In the place of `Loop.interrupted`: true from a certain question on."""

    def __init__(self, questions: int):
        self.left = questions

    def __bool__(self) -> bool:
        self.left -= 1
        return self.left < 0


def run_until(folder: Path, overrides: list[str], questions: int) -> int:
    """Begin or continue a run that is interrupted at a question; returns those that were left."""
    run = tiny_run(folder, *latest(*SHORT, *overrides, "resume=auto"))
    run.parts.loop.interrupted = left = Countdown(questions)  # type: ignore[assignment]
    run.run()
    return left.left


@pytest.fixture(scope="module", params=RECIPES)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A recipe, its run without an interruption, and how often the loop asks for one."""
    overrides, folder = RECIPES[request.param], tmp_path_factory.mktemp("whole") / "run"
    return overrides, folder, 10**9 - run_until(folder, overrides, 10**9)


@pytest.mark.parametrize(
    "share",
    [pytest.param(i / PLACES, marks=[pytest.mark.slow] * (i % 20 != 7)) for i in range(PLACES)],
)
def test_a_run_interrupted_twice_ends_as_if_it_had_not_been(
    whole: Any, tmp_path: Path, share: float
) -> None:
    overrides, folder, questions = whole
    cut = tmp_path / "run"
    run_until(cut, overrides, int(share * questions))
    assert summary(cut)["status"] == "interrupted"
    run_until(cut, overrides, questions // 7)
    run_until(cut, overrides, 10**9)
    assert result(cut) == result(folder)


@pytest.mark.parametrize("mode", ["false", pytest.param("true", marks=pytest.mark.slow)])
def test_the_many_updates_of_one_env_step_can_be_interrupted(tmp_path: Path, mode: str) -> None:
    overrides, updates = [*MANY, f"compile={mode}", "train.learning_starts=40"], 2 * MAX_UPDATES + 9
    run_until(tmp_path / "whole", overrides, 10**9)
    run = tiny_run(tmp_path / "cut", *latest(*SHORT, *overrides))
    # Plain code asks once for each env step and each update, compiled code twice and for many.
    run.parts.loop.interrupted = Countdown(82 if mode == "true" else 110)  # type: ignore[assignment]
    run.run()
    loop = run.parts.loop
    assert (loop.step, loop.gradient_step + loop.updates_left) == (40, updates)
    assert 0 < loop.updates_left < updates
    run_until(tmp_path / "cut", overrides, 10**9)
    assert result(tmp_path / "cut") == result(tmp_path / "whole")


@pytest.mark.parametrize("name", ["sys.exit", "os._exit"])
def test_code_that_ends_the_process_makes_a_run_fail(name: str) -> None:
    own = os._exit
    with pytest.raises(RuntimeError, match=rf"a part has called {name}\(0\)"), exits_are_errors():
        getattr(sys.modules[name.partition(".")[0]], name.partition(".")[2])(0)
    assert os._exit is own


def test_a_forked_process_may_still_end(tmp_path: Path) -> None:
    with exits_are_errors():
        child = os.fork()
        if not child:
            os._exit(3)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
