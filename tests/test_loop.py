"""The compiled forms of the loop do what the eager one does, and give way where nothing compiles."""

import csv
import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import TINY, options
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor
from torch._dynamo.utils import counters
from torch.testing import assert_close

from dqn_exp import registry
from dqn_exp.compilation import Graph
from dqn_exp.evaluation import CompiledPlay, Play, evaluate
from dqn_exp.experiment import Experiment
from dqn_exp.loop import Compiled, CompiledSteps, Loop, WholeLoop

Make = Callable[..., Experiment]
ROOT = Path(__file__).parent.parent
STOPS = 137, 300, 301, 500  # learning starts at 40; the ring of 210 goes round twice
HARD, SOFT = "agent.target={tau:1,every:50}", "agent.target={tau:0.01,every:null}"

# Together: every part, every way to clip, several envs, seeds and updates. Each update of a whole loop
# takes a while to compile, so little is unrolled.
WHOLE = [
    f"{HARD} agent=dqn agent.n_step=1 net=mlp buffer=uniform optim=rmsprop optim.momentum=0.5 "
    "optim.clip={kind:value,max:0.001} exploration=exponential exploration.decay_steps=100 "
    "env=mountaincar env.n=3 seeds=2",
    "agent=ddqn agent.n_step=3 net=dueling buffer=per optim=adam optim.amsgrad=true train.every=1 "
    "optim.clip={kind:norm,max:0.1} exploration=linear exploration.decay_steps=300",
]
MORE = [
    "env=acrobot exploration=per_episode optim=sgd optim.clip.kind=none train.updates=3",
    "seeds=3 buffer=per optim=adamw optim.weight_decay=0.1 agent.target={tau:0.5,every:7} env.n=2",
]
STEPS = [
    # Greedy, and learning fast: acting before the update instead of after it would show.
    "agent=dqn agent.n_step=3 net=dueling buffer=uniform optim=sgd optim.lr=0.02 optim.anneal=false "
    "optim.clip.kind=none exploration=per_episode exploration.start=0 seeds=8 train.updates=2",
    f"{HARD} agent=ddqn agent.n_step=1 net=mlp buffer=uniform optim=adamw optim.amsgrad=true "
    "exploration=exponential exploration.decay_steps=100 env.n=3",
    # Too long a period to compile as a whole.
    "env.backend=native agent.n_step=3 buffer=per optim=rmsprop train.every=16 "
    "optim.clip={kind:value,max:0.001} exploration=constant",
]
slow = pytest.mark.slow


def tensors(experiment: Experiment, loop: Loop) -> dict[str, Tensor]:
    """All that a loop changes, by name."""
    learner, buffer = experiment.learner, experiment.buffer
    found = {**buffer.state_dict(), "obs": loop.obs, "episodes": experiment.env.episode_counts}
    assert any(len(value) == loop.obs.shape[0] * 210 for value in found.values())  # what is stored
    of_learner = learner.state_dict().items()  # metrics are summed otherwise, and compared elsewhere
    return found | {k: v for k, v in of_learner if not k.startswith(("pending", "metric"))}


def compare_with_eager(make: Make, form: type[Loop], *overrides: str) -> None:
    """Take both forms from stop to stop, and compare all that they change or report."""
    both = [
        make("total_steps=600", *overrides, f"compile={mode}", dtype=torch.float64)
        for mode in ("false", "true")
    ]
    eager, compiled = (experiment.loop() for experiment in both)
    assert type(eager) is Loop
    assert type(compiled) is form
    graphs = counters["stats"]["unique_graphs"]
    for stop in STOPS:
        for loop in (eager, compiled):
            loop.advance(stop)
        assert (compiled.step, compiled.gradient_step) == (eager.step, eager.gradient_step)
        assert compiled.env.take_episodes() == eager.env.take_episodes()
        first, second = (tensors(*pair) for pair in zip(both, (eager, compiled), strict=True))
        assert_close(second, first, rtol=1e-9, atol=1e-12)
        first, second = (
            loop.learner.take_metrics() | loop.buffer.metrics(loop.step, loop.gradient_step)
            for loop in (eager, compiled)
        )
        assert_close(second, first, rtol=1e-9, atol=1e-12)
    assert isinstance(compiled, Compiled)
    assert not compiled._graph.failed
    assert counters["stats"]["unique_graphs"] == graphs + 1  # compiled it was, and once
    assert eager.gradient_step > 25


@pytest.mark.parametrize("overrides", [*WHOLE, *(pytest.param(more, marks=slow) for more in MORE)])
def test_the_whole_loop_compiled_does_what_the_eager_loop_does(make: Make, overrides: str) -> None:
    compare_with_eager(make, WholeLoop, "env.backend=native", *overrides.split())


@pytest.mark.parametrize("overrides", STEPS)
def test_compiled_steps_do_what_the_eager_loop_does(make: Make, overrides: str) -> None:
    compare_with_eager(make, CompiledSteps, *overrides.split())


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
    compare_with_eager(make, form, f"env.backend={backend}", "seeds=2", *overrides.split())


@pytest.mark.parametrize(
    ("form", "overrides"),
    [(CompiledSteps, STEPS[0]), pytest.param(WholeLoop, f"{WHOLE[0]} env.backend=native", marks=slow)],
    ids=["steps", "whole"],
)
def test_a_compiled_seed_in_lockstep_equals_its_solo_run(
    make: Make, form: type[Loop], overrides: str
) -> None:
    parts = ["total_steps=600", *overrides.split(), "compile=true"]
    together = make(*parts, dtype=torch.float64)
    alone = make(*parts, "seed=1", "seeds=1", dtype=torch.float64)
    episodes = []
    for experiment in (together, alone):
        loop = experiment.loop()
        loop.advance(300)
        assert isinstance(loop, Compiled)
        assert loop._graph._compiled
        index = experiment.seeds.index(1)
        episodes.append([e[1:] for e in loop.env.take_episodes() if e.seed_index == index])
    assert episodes[0] == episodes[1]
    assert_close(together.learner.params[1:2], alone.learner.params)
    assert_close(together.learner.target_params[1:2], alone.learner.target_params)


def test_compiled_play_scores_what_eager_play_scores() -> None:
    # Seed 0's policy falls after some 9 steps, seed 1's balances to the time limit.
    policies = torch.tensor([[[0.1] * 4, [0.0] * 4], [[0.0] * 4, [0.1, 0.5, 2.0, 1.0]]])
    node = {"backend": "native", "id": "CartPole-v1", "n": 3, "max_episode_steps": 150}
    bias = torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]]])
    node |= {"kwargs": {}, "wrappers": []}
    env = registry.build("env", node, torch.tensor([3, 8]), "eval")

    def q(obs: Tensor) -> Tensor:
        return obs @ policies.mT + bias

    play = CompiledPlay(env, q, torch.device("cpu"))
    for step, rounds in ((0, 1), (700, 3)):
        compiled, eager = (evaluate(env, q, p, step, rounds) for p in (play, Play(env, q)))
        assert compiled.returns.tolist() == eager.returns.tolist()
        assert compiled.initial_state_value.tolist() == eager.initial_state_value.tolist()
        assert compiled.returns.max() == 150
        assert compiled.returns.min() < 15
    assert play._graph._compiled


class Power:
    """Code that means something else for every object."""

    def __init__(self, exponent: int):
        self.exponent = exponent

    def __call__(self, x: Tensor) -> tuple[Tensor]:
        return (x + 1 if self.exponent >= 0 else x - 1,)


def test_a_process_may_compile_the_same_code_for_many_runs() -> None:
    for exponent in range(20):  # as many jobs of a sweep
        graph = Graph(Power(exponent).__call__, torch.device("cpu"))
        assert graph(torch.zeros(3)) is not None, f"run {exponent} is not compiled"


@pytest.mark.parametrize(
    ("overrides", "form", "words"),
    [
        ("compile=auto", Loop, "not compiled (compile=auto, 131 updates)"),
        ("compile=auto env.backend=native", Loop, "not compiled (compile=auto, 131 updates)"),
        ("compile=true", CompiledSteps, "steps compiled (compile=true, 131 updates)"),
        ("compile=true env.backend=native", WholeLoop, "whole loop compiled (compile=true"),
        ("compile=true env.backend=native train.every=16", CompiledSteps, "steps compiled"),
        ("compile=auto env.backend=native total_steps=20_100", WholeLoop, "whole loop compiled"),
        ("compile=auto total_steps=20_100", Loop, "not compiled (compile=auto, 10,031 updates)"),
        ("compile=auto total_steps=100_100", CompiledSteps, "steps compiled (compile=auto, 50,031"),
        ("compile=false total_steps=900_000", Loop, "not compiled (compile=false"),
    ],
)
def test_the_start_line_says_which_form_was_chosen(
    make: Make, overrides: str, form: type[Loop], words: str
) -> None:
    experiment = make(*overrides.split())
    assert type(experiment.loop()) is form
    assert words in experiment.describe()


def train(folder: Path, *overrides: str, **environment: str) -> Path:
    """A run of the program in a new folder."""
    command = [sys.executable, str(ROOT / "train.py"), *TINY, f"hydra.run.dir={folder}", *overrides]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
    return folder


@pytest.mark.parametrize("backend", [pytest.param("native", marks=slow), "gymnasium"])
def test_without_a_compiler_a_run_goes_on_and_says_so_once(tmp_path: Path, backend: str) -> None:
    nothing = {"CXX": "/nonexistent", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    run = train(tmp_path / "run", "compile=true", f"env.backend={backend}", **nothing)
    log = (run / "train.log").read_text()
    assert "Traceback" not in log
    complaints = [line.partition("cannot compile ")[2] for line in log.splitlines()]
    complaints = [line for line in complaints if line]
    loop = "WholeLoop" if backend == "native" else "CompiledSteps"
    graphs = [loop, "CompiledPlay"] if backend == "native" else [loop]
    assert [line.split(".")[0] for line in sorted(complaints, reverse=True)] == graphs
    assert all("/nonexistent" in line or "compiler" in line for line in complaints), complaints


def scalars(run: Path) -> dict[tuple[str, ...], float]:
    with (run / "metrics.csv").open() as file:
        rows = [tuple(row) for row in csv.reader(file)][1:]
    return {row[:3]: float(row[3]) for row in rows if row[2] != "time/steps_per_second"}


def tags(run: Path) -> list[str]:
    events = EventAccumulator(str(run / "seed=0"))
    events.Reload()
    return sorted(events.Tags()["scalars"])


def test_a_compiled_run_of_the_program_leaves_what_an_eager_one_leaves(tmp_path: Path) -> None:
    native = "env.backend=native", "agent.n_step=1"
    compiled = train(tmp_path / "compiled", *native, "compile=true")
    eager = train(tmp_path / "eager", *native, "compile=false")
    assert "compiled WholeLoop._compute in" in (compiled / "train.log").read_text()
    assert "compiled CompiledPlay._compute in" in (compiled / "train.log").read_text()
    names = [sorted(p.name for p in run.iterdir()) for run in (compiled, eager)]
    assert names[0] == names[1]
    assert (compiled / "episodes.csv").read_text() == (eager / "episodes.csv").read_text()
    assert scalars(compiled) == pytest.approx(scalars(eager), rel=1e-3, abs=1e-4)
    assert tags(compiled) == tags(eager)
    assert {"train/td_loss", "eval/return_mean", "time/steps_per_second"} <= set(tags(compiled))
