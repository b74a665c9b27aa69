"""A run that is interrupted anywhere and resumed ends as if nothing had happened, to the last bit."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import TINY, latest, result, summary, tiny_run

from dqn_exp.compiled.loops import MAX_UPDATES
from dqn_exp.run.run import exits_are_errors

SHORT = latest(*TINY, "total_steps=120", "log.every=25", "eval.every=40", "checkpoint.every=50")
RECIPES = {
    "updates": ["train.every=3", "train.updates=4", "agent.target.every=7"],
    "stop rule": ["train.stop.episodes=3", "agent.target={tau:0.5,episodes:1}", "env.n=2"],
    "repeated actions": ["exploration=ez_greedy", "env.backend=native", "agent.n_step=3", "seeds=2"],
    "many updates": ["train.every=30", f"train.updates={2 * MAX_UPDATES + 9}", "compile=true"],
}
PLACES = 40  # at which each of them is interrupted


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
    [pytest.param(i / PLACES, marks=[pytest.mark.slow] * (i % 10 != 3)) for i in range(PLACES)],
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


@pytest.mark.parametrize("name", ["sys.exit", "os._exit"])
def test_code_that_ends_the_process_makes_a_run_fail(name: str) -> None:
    own = os._exit
    with pytest.raises(RuntimeError, match=rf"{name}\(0\) was called"), exits_are_errors():
        getattr(sys.modules[name.partition(".")[0]], name.partition(".")[2])(0)
    assert os._exit is own


def test_a_forked_process_may_still_end(tmp_path: Path) -> None:
    with exits_are_errors():
        child = os.fork()
        if not child:
            os._exit(3)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
