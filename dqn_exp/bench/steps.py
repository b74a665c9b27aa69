"""Microseconds per env step, and per sample of a prioritised buffer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import dqn_exp
from dqn_exp import registry
from dqn_exp.bench.baselines import TutorialLoop, cpprb, installed, products, stable_baselines3
from dqn_exp.bench.timing import Case, interleave, report, rows
from dqn_exp.compiled.graph import Graph, while_loop
from dqn_exp.compiled.loops import PERIODS
from dqn_exp.interfaces import Context, Spec
from dqn_exp.loop import Loop

NATIVE = "env.backend=native"
SLICE = 4 * PERIODS  # env steps: several whole calls of compiled code, as in a run
NOT_INSTALLED = 'not installed: pip install -e ".[bench]"'


def learning_loop(*overrides: str) -> Loop:
    """The training loop of the config that overrides describe, past its first updates."""
    config = dqn_exp.compose(*overrides)
    loop = dqn_exp.build(config).loop
    for stop in range(500, config.train.learning_starts + 1000, 500):
        loop.advance(stop)
        loop.env.take_episodes()
    return loop


def case(name: str, *overrides: str) -> Case:
    """Env steps of a config, per seed."""
    loop = learning_loop(*overrides)

    def run(steps: int) -> None:
        loop.advance(loop.step + steps)
        loop.env.take_episodes()

    return Case(name, run, SLICE, share=loop.context.n_seeds)


def floor(S: int, width: int, B: int, forwards: int, every: int) -> Case:
    """The bare products of the same shapes, per env step and seed; CartPole's net of two layers."""
    run = products(S, B, [4, width, width, 2], forwards, acts=every)
    return Case("floor: bare products", lambda steps: [run() for _ in range(steps // every)], SLICE, S)


def tutorial(out: Path) -> None:
    """The tutorial's work: CartPole-v1, net 128-128, batch 128, one update per env step, one seed."""
    preset = "experiment=tutorial"
    base = Case("tutorial loop", TutorialLoop())
    bare = floor(1, 128, 128, forwards=2, every=1)
    cases = [
        base,
        case("dqn_exp, not compiled", preset, "compile=false"),
        case("dqn_exp, steps compiled", preset, "compile=true"),
        case("dqn_exp, whole loop compiled", preset, "compile=true", NATIVE),
    ]
    if installed("stable_baselines3"):
        cases.append(Case("stable-baselines3", stable_baselines3()))
    interleave([*cases, bare])
    table = rows([*cases, bare], tutorial=base, floor=bare)
    if not installed("stable_baselines3"):
        table.append({"case": "stable-baselines3", "us": NOT_INSTALLED})
    report("tutorial", table, out)


def scale(out: Path, seeds: list[int], widths: list[int]) -> None:
    """Whole loop, nets and batches of 32, 64, 128: cost per env step and seed as seeds are added."""
    table: list[dict[str, Any]] = []
    for width in widths:
        sizes = [f"net.hidden=[{width},{width}]", f"train.batch_size={width}"]
        base = Case("tutorial loop", TutorialLoop(width, width))
        for S in seeds:
            own = case(
                f"net {width}-{width}/{width}, {S} seeds",
                "experiment=tutorial", "compile=true", NATIVE, f"seeds={S}", *sizes,
            )  # fmt: skip
            bare = floor(S, width, width, forwards=2, every=1)
            base.times.clear()
            interleave([base, own, bare], slices=9)
            table += rows([own], tutorial=base, floor=bare)
    report("scale", table, out)


def per(out: Path) -> None:
    """sample(128) + update_priorities at 1e4 to 1e6 transitions; a PER run against a uniform one."""
    capacities = (10**4, 10**5, 10**6)
    table: list[dict[str, Any]] = []
    kinds: dict[str, Callable[[int], Callable[[int], None]]] = {
        "dqn_exp, not compiled": lambda capacity: _sampling(capacity, compiled=False),
        "dqn_exp, compiled": lambda capacity: _sampling(capacity, compiled=True),
    }
    if installed("cpprb"):
        kinds["cpprb"] = lambda capacity: cpprb(capacity, 128)
    else:
        table.append({"case": "cpprb", "us": NOT_INSTALLED})
    cases = {
        (kind, capacity): Case(f"{kind}, {capacity:.0e}", make(capacity), units=PERIODS)
        for kind, make in kinds.items()
        for capacity in capacities
    }
    interleave(list(cases.values()))
    for (kind, capacity), own in cases.items():
        bases = {"of 1e4": cases[kind, 10**4]}
        if installed("cpprb"):
            bases["of cpprb"] = cases["cpprb", capacity]
        table += rows([own], **bases)
    common = ["compile=true", NATIVE]
    uniform, prioritised = (
        case(f"run, buffer={b}", f"buffer={b}", *common) for b in ("uniform", "per")
    )
    interleave([uniform, prioritised])
    table += [
        row | {"of uniform": row.pop("base")} for row in rows([uniform, prioritised], base=uniform)
    ]
    report("per", table, out)


def _sampling(capacity: int, compiled: bool) -> Callable[[int], None]:
    """sample(128) and update_priorities of a full prioritised buffer."""
    B, device = 128, torch.device("cpu")
    seeds, spec = torch.arange(1), Spec((4,), torch.float32, 2)
    context = Context(seeds, 1, spec, device, torch.float32, B, 10**6, 10**6)
    config = dqn_exp.compose("buffer=per", f"buffer.capacity={capacity}", "agent.n_step=1")
    agent = registry.build("agent", config.agent, context)
    buffer = registry.build("buffer", config.buffer, context, agent)
    td_abs = torch.rand(1, B, generator=torch.Generator().manual_seed(0))
    for first in range(0, capacity, B):  # priorities for all, as after a long run
        buffer.update_priorities(
            torch.arange(first, min(first + B, capacity))[None], td_abs[:, : capacity - first]
        )

    def use(step: Any) -> Tensor:
        batch = buffer.sample(capacity, step)
        buffer.update_priorities(batch.index, td_abs)
        return batch.obs.sum() + batch.next_obs.sum() + (batch.reward * batch.discount).sum() + (
            batch.weight * batch.action
        ).sum()  # fmt: skip

    def compute(first: Tensor) -> tuple[Tensor, ...]:
        assert while_loop is not None
        return while_loop(
            lambda step, _: step < first + PERIODS,
            lambda step, used: (step + 1, used + use(step)),
            (first.clone(), torch.zeros(())),
        )

    graph, done = Graph(compute, device, "sampling"), [0]

    def run(times: int) -> None:
        if compiled:
            graph(torch.tensor(done[0]))
        else:
            for step in range(done[0], done[0] + times):
                use(step)
        done[0] += times

    return run


def gpu(out: Path) -> None:
    """Seed-steps per second on a CUDA device: S = 1, 16, 256, 1024, compiled and not."""
    if not torch.cuda.is_available():
        print("no CUDA device here: nothing measured")
        return
    table: list[dict[str, Any]] = []
    for S in (1, 16, 256, 1024):
        common = ["experiment=tutorial", NATIVE, "device=cuda", f"seeds={S}"]
        cases = [
            case("not compiled", "compile=false", *common),
            case("steps compiled", "compile=true", *common),
        ]
        for own in cases:
            advance = own.run
            own.run = lambda steps, advance=advance: (advance(steps), torch.cuda.synchronize())
        interleave(cases)
        table += [
            {"seeds": S, **row, "seed-steps/s": round(1e6 / row["us"])}
            for row in rows(cases, baseline=cases[0])
        ]
    report("gpu", table, out)
