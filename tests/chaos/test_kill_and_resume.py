"""Runs that are killed and resumed end as if nothing had happened, to the last bit."""

import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import result, rows, saved, summary, train
from runs import SMALL, finish, kill, logged, running, start_and_kill, wait_for

Whole = Callable[..., dict[str, Any]]
NATIVE = "env.backend=native"
ASYNC = ["env.vectorization=async", "env.n=2"]
QUICK = [
    ["buffer=per", "agent.n_step=3", "seeds=2"],
]
SLOW = [
    ["buffer=per", "agent.n_step=3", "seeds=4", NATIVE],
    ["agent.n_step=1"],
    ["agent=c51", "buffer=per", "net=noisy_dueling", "agent.n_step=3"],
    ["agent=iqn", "buffer=per", *ASYNC],
    ["agent=sarsa", "exploration=boltzmann", "train.every=4", "train.updates=2"],
    ["compile=true", "buffer=per", "agent.n_step=3", "seeds=4", NATIVE],
    ["compile=true", "agent.n_step=1", "exploration=ez_greedy"],
    ["compile=true", "agent=c51", "net=noisy_dueling", "buffer=per", NATIVE],
    ["compile=true", "agent=iqn", "buffer=per", "optim=adam", *ASYNC],
    ["agent=dqn", "buffer=per", "agent.n_step=3", "seeds=4", "optim=adam"],
    ["agent=munchausen", "net=dueling", "optim=rmsprop", "seeds=4", NATIVE],
    ["agent=double_c51", "net=noisy_mlp", "optim=sgd", "agent.n_step=1", NATIVE],
    ["agent=qr_dqn", "exploration=ez_greedy", "env.n=2", "seeds=4"],
    ["agent=expected_sarsa", "exploration=ez_greedy", "env.n=2", "seeds=4", NATIVE],
    ["experiment=rainbow", "agent.n_step=3"],
    ["env=frozenlake", "buffer=per", "agent.target={tau:1.0,every:null,episodes:3}"],
    ["env=acrobot", "agent=ddqn", "agent.target={tau:1.0,every:150,episodes:null}"],
    ["env=lunarlander", "optim=adamw", "optim.anneal=true"],
    ["exploration=per_episode", "train.stop.episodes=170", "seeds=2"],
    ["checkpoint.every=77", "log.every=33", "eval.every=101", "buffer=per", *ASYNC],
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Gives the result of a run that nothing has ended early."""

    @cache
    def run(*overrides: str) -> dict[str, Any]:
        folder = tmp_path_factory.mktemp("whole")
        finish(folder, folder, *overrides)
        return result(folder)

    return run


def named(overrides: list[str]) -> str:
    return " ".join(overrides)


@pytest.mark.parametrize(
    "overrides", [*QUICK, *(pytest.param(case, marks=pytest.mark.slow) for case in SLOW)], ids=named
)
def test_a_run_killed_at_a_random_moment_and_resumed_ends_bit_for_bit_like_one_that_was_not(
    whole: Whole, tmp_path: Path, overrides: list[str]
) -> None:
    cut = tmp_path / "cut"
    start_and_kill(tmp_path, cut, *SMALL, *overrides, after=random.randrange(200, 1600))
    finish(tmp_path, cut, *SMALL, *overrides)
    assert result(cut) == whole(*SMALL, *overrides)


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [["buffer=per", "seeds=2"], ["agent=iqn", NATIVE]], ids=named)
def test_five_kills_in_one_run_leave_no_trace(
    whole: Whole, tmp_path: Path, overrides: list[str]
) -> None:
    cut = tmp_path / "cut"
    for after in (200, 600, 800, 1200, 1800):
        start_and_kill(tmp_path, cut, *SMALL, *overrides, after=after, delay=0.05)
    finish(tmp_path, cut, *SMALL, *overrides)
    assert result(cut) == whole(*SMALL, *overrides)


@pytest.mark.slow
@pytest.mark.parametrize("after", [200, 600], ids=["before learning starts", "while it learns"])
def test_a_run_killed_before_its_first_checkpoint_begins_anew(
    whole: Whole, tmp_path: Path, after: int
) -> None:
    cut, overrides = tmp_path / "cut", [*SMALL, "checkpoint.every=2000"]
    start_and_kill(tmp_path, cut, *overrides, after=after, delay=0.0)
    assert saved(cut) == []
    finish(tmp_path, cut, *overrides)
    assert result(cut) == whole(*overrides)


@pytest.mark.slow
@pytest.mark.parametrize("step", [800, 2400], ids=["between", "final"])
def test_a_run_killed_in_the_middle_of_an_evaluation_repeats_it(
    whole: Whole, tmp_path: Path, step: int
) -> None:
    cut = tmp_path / "cut"
    overrides = [*SMALL, "eval.episodes=200", "eval.final_episodes=400"]
    with running(tmp_path, *overrides, f"hydra.run.dir={cut}") as process:
        wait_for(lambda: logged(cut) == step and (step < 2400 or step in saved(cut)), process)
        kill(process)
    found = [(row["step"], row["tag"]) for row in rows(cut / "metrics.csv")]
    assert (str(step), "eval/return_mean") not in found
    finish(tmp_path, cut, *overrides)
    assert result(cut) == whole(*overrides)


@pytest.mark.slow
def test_a_run_killed_twice_at_its_end_does_not_count_anything_twice(
    whole: Whole, tmp_path: Path
) -> None:
    cut = tmp_path / "cut"
    overrides = [*SMALL, "eval.episodes=200", "eval.final_episodes=400"]
    for _ in range(2):
        with running(tmp_path, *overrides, f"hydra.run.dir={cut}", "resume=auto") as process:
            wait_for(lambda: (cut / "train.log").exists() and 2400 in saved(cut), process)
            kill(process)
    finish(tmp_path, cut, *overrides)
    assert result(cut) == whole(*overrides)


@pytest.mark.slow
@pytest.mark.parametrize("chdir", ["false", "true"])
def test_a_run_can_be_resumed_from_another_working_directory(
    whole: Whole, tmp_path: Path, chdir: str
) -> None:
    home, away, overrides = tmp_path / "home", tmp_path / "away", [*SMALL, f"hydra.job.chdir={chdir}"]
    home.mkdir()
    away.mkdir()
    with running(home, *overrides, "hydra.run.dir=runs/cut") as process:
        wait_for(lambda: logged(home / "runs/cut") >= 800, process)
        kill(process)
    assert {path.name for path in home.iterdir()} == {"runs"}
    done = train(away, "resume=../home/runs/cut", f"hydra.job.chdir={chdir}")
    assert done.returncode == 0, done.stderr
    assert list(away.iterdir()) == []
    assert summary(home / "runs/cut")["resumed_from"] >= 400
    assert result(home / "runs/cut") == whole(*SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [["buffer=per"], ["compile=true", NATIVE]], ids=named)
def test_a_job_alone_does_what_it_does_third_in_a_sweep(
    whole: Whole, tmp_path: Path, overrides: list[str]
) -> None:
    jobs = ["agent=c51,sarsa,ddqn", "hydra.sweep.dir=sweep", *SMALL, *overrides]
    done = train(tmp_path, "--multirun", *jobs)
    assert done.returncode == 0, done.stderr
    (third,) = tmp_path.glob("sweep/2_*")
    assert result(third) == whole("agent=ddqn", *SMALL, *overrides)


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device to move to and from")
@pytest.mark.parametrize(("first", "second"), [("cpu", "cuda"), ("cuda", "cpu")])
def test_a_run_continues_on_another_device_with_a_warning(
    tmp_path: Path, first: str, second: str
) -> None:
    run = tmp_path / "run"
    start_and_kill(tmp_path, run, *SMALL, "buffer=per", f"device={first}", after=800)
    done = train(tmp_path, f"resume={run}", f"device={second}")
    assert done.returncode == 0, done.stderr
    assert f"not bit-exact: device was {first}, is {second}" in (run / "train.log").read_text()
    assert summary(run)["resumed_from"] >= 400
    assert summary(run)["status"] == "finished"
