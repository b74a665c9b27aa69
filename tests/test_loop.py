"""The compiled forms of the loop do what the plain one does, which runs where nothing compiles."""

import itertools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import TINY, latest, options, part, rows, train
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor
from torch._dynamo.utils import counters
from torch.testing import assert_close

from dqn_exp.compiled.gradient import RecordedGradient
from dqn_exp.compiled.graph import Graph
from dqn_exp.compiled.loops import CompiledSteps, WholeLoop
from dqn_exp.compiled.play import CompiledPlay
from dqn_exp.loop import Loop
from dqn_exp.parts import Parts
from dqn_exp.play import Play
from dqn_exp.run.evaluation import evaluate
from dqn_exp.run.summary import opening

Make = Callable[..., Parts]
STOPS = 137, 300, 301, 500  # learning starts at 40; the ring of 210 goes round twice
HARD, SOFT = "agent.target={tau:1,every:50}", "agent.target={tau:0.01,every:null}"

slow = pytest.mark.slow
# Together: every part, every way to clip, several envs, seeds and updates. Each update of a whole loop
# takes a while to compile, so little is unrolled, and one of each form is not slow.
WHOLE = [
    "agent=ddqn agent.n_step=1 net=mlp buffer=uniform optim=sgd train.every=1 "
    "optim.clip={kind:norm,max:0.1} exploration=constant",
    "agent=ddqn agent.n_step=3 net=mlp buffer=per optim=adam optim.amsgrad=true train.every=1 "
    "optim.clip={kind:norm,max:0.1} exploration=linear exploration.decay_steps=300",
    f"{HARD} agent=dqn agent.n_step=1 net=dueling buffer=uniform optim=rmsprop optim.momentum=0.5 "
    "optim.clip={kind:value,max:0.001} exploration=exponential exploration.decay_steps=100 "
    "env=mountaincar env.n=3 seeds=2",
    "env=acrobot exploration=per_episode optim=sgd optim.clip.kind=none train.updates=3",
    "seeds=3 buffer=per optim=adamw optim.weight_decay=0.1 agent.target={tau:0.5,every:7} env.n=2",
]
STEPS = [
    f"{HARD} agent=ddqn agent.n_step=1 net=mlp buffer=uniform optim=adamw optim.amsgrad=true "
    "exploration=exponential exploration.decay_steps=100 env.n=3",
    # Greedy, and learning fast: acting before the update instead of after it would show.
    "agent=dqn agent.n_step=3 net=dueling buffer=uniform optim=sgd optim.lr=0.02 optim.anneal=false "
    "optim.clip.kind=none exploration=per_episode exploration.start=0 seeds=8 train.updates=2",
    # Too long a period to compile as a whole.
    "env.backend=native agent.n_step=3 buffer=per optim=rmsprop train.every=16 "
    "optim.clip={kind:value,max:0.001} exploration=constant",
]


def first_of(cases: list[str]) -> list[Any]:
    """All cases; those after the first are slow."""
    return [case if case == cases[0] else pytest.param(case, marks=slow) for case in cases]


def tensors(parts: Parts) -> dict[str, Tensor]:
    """All that a loop changes, by name."""
    learner, buffer = parts.learner.state_dict(), parts.buffer.state_dict()
    found = {**buffer, "obs": parts.loop.obs, "episodes": parts.env.episode_counts}
    assert any(
        len(value) == parts.loop.obs.shape[0] * 210 for value in found.values()
    )  # what is stored
    # Metrics are summed otherwise, and compared elsewhere.
    return found | learner["matrices"] | learner["finite"]


def compare_with_plain(make: Make, form: type[Loop], *overrides: str) -> None:
    """Take both forms from stop to stop, and compare all that they change or report."""
    plain, compiled = (
        make(
            *latest("total_steps=600", "train.every=2", *overrides, f"compile={mode}"),
            dtype=torch.float64,
        )
        for mode in ("false", "true")
    )
    both = compiled, plain
    assert type(plain.loop) is Loop
    assert type(compiled.loop) is form
    graphs = counters["stats"]["unique_graphs"]
    for stop in STOPS:
        for parts in both:
            parts.loop.advance(stop)
        assert compiled.loop.step == plain.loop.step
        assert compiled.loop.gradient_step == plain.loop.gradient_step
        assert compiled.env.take_episodes() == plain.env.take_episodes()
        assert_close(tensors(compiled), tensors(plain), rtol=1e-9, atol=1e-12)
        first, second = (
            p.learner.means.take() | p.buffer.metrics(p.loop.step, p.loop.gradient_step) for p in both
        )
        assert_close(first, second, rtol=1e-9, atol=1e-12)
    assert counters["stats"]["unique_graphs"] == graphs + 1  # compiled it was, and once
    assert plain.loop.gradient_step > 25


@pytest.mark.parametrize("overrides", first_of(WHOLE))
def test_the_whole_loop_compiled_does_what_the_plain_loop_does(make: Make, overrides: str) -> None:
    compare_with_plain(make, WholeLoop, "env.backend=native", *overrides.split())


@pytest.mark.parametrize("env", ["env.backend=native", "env.backend=gymnasium"])
def test_plain_updates_of_a_compiled_form_round_as_its_compiled_ones(make: Make, env: str) -> None:
    # A resumed process makes updates before it compiles that the one before made afterwards.
    parts = make(env, "compile=true", "train.every=8")
    Loop.advance(parts.loop, 64)  # step by step, without compiling
    assert parts.loop.gradient_step > 0
    assert isinstance(parts.learner.gradient, RecordedGradient)
    assert parts.learner.means.block == 1


@pytest.mark.parametrize("overrides", first_of(STEPS))
def test_compiled_steps_do_what_the_plain_loop_does(make: Make, overrides: str) -> None:
    compare_with_plain(make, CompiledSteps, *overrides.split())


def every_option() -> list[str]:
    """Every agent with every net, each pair with another buffer, optimizer, exploration and target."""
    groups = ("buffer", "optim", "exploration")
    return [
        " ".join(
            [f"agent={agent} net={net}", HARD if i % 2 else SOFT]
            + [f"{g}={options(g)[(i + i // len(options(g))) % len(options(g))]}" for g in groups]
        )
        for i, (agent, net) in enumerate(itertools.product(options("agent"), options("net")))
    ]


@slow
@pytest.mark.parametrize(("backend", "form"), [("native", WholeLoop), ("gymnasium", CompiledSteps)])
@pytest.mark.parametrize("overrides", every_option(), ids=every_option())
def test_every_option_compiles_to_what_it_does(
    make: Make, backend: str, form: type[Loop], overrides: str
) -> None:
    compare_with_plain(make, form, f"env.backend={backend}", "seeds=2", *overrides.split())


@slow
@pytest.mark.parametrize(
    ("form", "overrides"),
    [(CompiledSteps, STEPS[1]), (WholeLoop, f"{WHOLE[1]} env.backend=native")],
    ids=["steps", "whole"],
)
def test_a_compiled_seed_in_lockstep_equals_its_solo_run(
    make: Make, caplog: pytest.LogCaptureFixture, form: type[Loop], overrides: str
) -> None:
    shared = ["total_steps=600", "train.every=2", *overrides.split(), "compile=true"]
    together = make(*latest(*shared, "seeds=3"), dtype=torch.float64)
    alone = make(*latest(*shared, "seed=1", "seeds=1"), dtype=torch.float64)
    episodes = []
    for parts, index in ((together, 1), (alone, 0)):
        assert type(parts.loop) is form
        with caplog.at_level(logging.INFO):
            parts.loop.advance(300)
        episodes.append([e[1:] for e in parts.env.take_episodes() if e.seed_index == index])
    assert caplog.text.count("compiled in") == 2
    assert episodes[0] == episodes[1]
    assert_close(together.learner.params[1:2], alone.learner.params)
    assert_close(together.learner.target.params[1:2], alone.learner.target.params)


@slow
def test_compiled_play_scores_what_plain_play_scores(caplog: pytest.LogCaptureFixture) -> None:
    # Seed 0's policy falls after some 9 steps, seed 1's balances to the time limit.
    policies = torch.tensor([[[0.1] * 4, [0.0] * 4], [[0.0] * 4, [0.1, 0.5, 2.0, 1.0]]])
    bias = torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]]])
    keys = {"backend": "native", "n": 3, "max_episode_steps": 150}
    env = part("env", "cartpole", torch.tensor([3, 8]), "eval", True, **keys)

    def q(obs: Tensor) -> Tensor:
        return obs @ policies.mT + bias

    play = CompiledPlay(env, q, torch.device("cpu"), gamma=0.9)
    for step, rounds in ((0, 1), (700, 3)):
        with caplog.at_level(logging.INFO):
            both = [evaluate(env, q, p, step, rounds) for p in (play, Play(env, q, gamma=0.9))]
        compiled, plain = both
        assert compiled.returns.tolist() == plain.returns.tolist()
        assert compiled.initial_state_value.tolist() == plain.initial_state_value.tolist()
        assert compiled.discounted_return == pytest.approx(plain.discounted_return)
        assert compiled.returns.max() == 150
        assert compiled.returns.min() < 15
    assert caplog.text.count("compiled in") == 1


class Power:
    """Code that means something else for every object."""

    def __init__(self, exponent: int):
        self.exponent = exponent

    def __call__(self, x: Tensor) -> tuple[Tensor]:
        return (x + 1 if self.exponent >= 0 else x - 1,)


@pytest.mark.slow
def test_a_process_may_compile_the_same_code_for_many_runs() -> None:
    for exponent in range(20):  # as many jobs of a sweep
        graph = Graph(Power(exponent).__call__, torch.device("cpu"), "test")
        assert graph(torch.zeros(3)) is not None, f"run {exponent} is not compiled"


@pytest.mark.parametrize(
    ("overrides", "form", "words", "updates"),
    [
        ("compile=auto", Loop, "not compiled", "131"),
        ("compile=auto env.backend=native", Loop, "not compiled", "131"),
        ("compile=true", CompiledSteps, "steps compiled", "131"),
        ("compile=true env.backend=native", WholeLoop, "whole loop compiled", "131"),
        ("compile=true env.backend=native train.every=16", CompiledSteps, "steps compiled", "16"),
        ("compile=auto env.backend=native total_steps=20_100", WholeLoop, "whole loop", "10,031"),
        ("compile=auto total_steps=20_100", Loop, "not compiled", "10,031"),
        ("compile=auto total_steps=100_100", CompiledSteps, "steps compiled", "50,031"),
        ("compile=false total_steps=900_000", Loop, "not compiled", "449,981"),
    ],
)
def test_the_start_says_which_form_was_chosen_and_how_many_updates_follow(
    make: Make, overrides: str, form: type[Loop], words: str, updates: str
) -> None:
    parts = make(*latest("train.every=2", "train.updates=1", *overrides.split()))
    assert type(parts.loop) is form
    told = dict(line.split(maxsplit=1) for line in opening(parts, "folder"))
    assert told["form"].startswith(words)
    assert told["form"].endswith(f"({overrides.split()[0]})")
    assert f" {updates} updates per seed" in told["steps"]


def run(folder: Path, *overrides: str, **environment: str) -> list[str]:
    """What a run of the program in a new folder prints."""
    done = train(folder.parent, *TINY, f"hydra.run.dir={folder}", *overrides, **environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    "backend", [pytest.param("native", marks=slow), pytest.param("gymnasium", marks=slow)]
)
def test_without_a_compiler_a_run_continues_and_says_so_once(tmp_path: Path, backend: str) -> None:
    nothing = {"CXX": "/nonexistent", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    lines = run(tmp_path / "run", "compile=true", f"env.backend={backend}", **nothing)
    graphs = ["training loop", "evaluation"] if backend == "native" else ["learning step"]
    began = [i for i, line in enumerate(lines) if line.startswith("compiling the ")]
    assert len(began) == len(graphs)
    for i, graph in zip(began, graphs, strict=True):
        assert lines[i].startswith(f"compiling the {graph} (")
        assert lines[i].endswith(" ...")
        said, _, reason = lines[i + 1].partition(": ")
        assert said == f"cannot compile the {graph}, continuing without compilation"
        assert "/nonexistent" in reason or "compiler" in reason
    log = (tmp_path / "run/train.log").read_text()
    assert log.count("cannot compile") == len(graphs)
    assert "Traceback" not in log


def scalars(folder: Path) -> dict[tuple[str, ...], float]:
    return {
        (row["seed"], row["step"], row["tag"]): float(row["value"])
        for row in rows(folder / "metrics.csv")
        if row["tag"] != "time/steps_per_second"
    }


def tags(folder: Path) -> list[str]:
    events = EventAccumulator(str(folder / "seed=0"))
    events.Reload()
    return sorted(events.Tags()["scalars"])


@slow
def test_a_compiled_run_of_the_program_leaves_what_a_plain_one_leaves(tmp_path: Path) -> None:
    native = "env.backend=native", "agent.n_step=1", "train.every=2"
    compiled, plain = tmp_path / "compiled", tmp_path / "plain"
    lines = run(compiled, *native, "compile=true")
    assert not [line for line in run(plain, *native, "compile=false") if "compiling" in line]
    for what in ("training loop", "evaluation"):  # what will take a while is announced
        (announced,) = (i for i, line in enumerate(lines) if line.startswith(f"compiling the {what} "))
        assert lines[announced + 1].startswith("compiled in ")
    names = [sorted(p.name for p in folder.iterdir()) for folder in (compiled, plain)]
    assert names[0] == names[1]
    assert (compiled / "episodes.csv").read_text() == (plain / "episodes.csv").read_text()
    assert scalars(compiled) == pytest.approx(scalars(plain), rel=1e-3, abs=1e-4)
    assert tags(compiled) == tags(plain)
    assert {"train/td_loss", "eval/return_mean", "time/steps_per_second"} <= set(tags(compiled))
