"""Whatever the configuration, it is refused with a reason or it works."""

import math
import re
import tempfile
from pathlib import Path

import pytest
from helpers import latest, options, summary, tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dqn_exp.config import schema
from dqn_exp.config.problems import ConfigError
from dqn_exp.manifest import newest
from dqn_exp.parts import build
from dqn_exp.run.run import Run

BASE = ["total_steps=200", "eval.episodes=1", "eval.final_episodes=1", "compile=false"]
CHOICES: dict[str, tuple[list, list]] = {  # key -> good values, bad values
    **{
        kind: (options(kind), ["no_such"])
        for kind in schema.GROUPS
        if kind not in ("env", "experiment")
    },
    "env": (["cartpole", "acrobot", "frozenlake", "cliffwalking", "mountaincar"], ["no_such"]),
    "env.backend": (["gymnasium", "native"], ["no_such"]),
    "env.n": ([1, 2, 3, 5, 10], [0, -1, 1.5, "true"]),
    "env.max_episode_steps": ([1, 7, 30, "null"], [0, "x"]),
    "env.vectorization": (["sync"], ["threads"]),
    "agent.gamma": ([0, 0.9, 1], [1.5, -0.1, "nan"]),
    "agent.n_step": ([1, 2, 7, 10], [0, 1.5, 100_000]),
    "agent.loss": (["huber", "mse"], ["l1"]),
    "agent.double": (["true", "false"], ["maybe"]),
    "agent.target.tau": ([1, 0.1], [0, 2, "inf"]),
    "agent.target.every": ([1, 7, 50, "null"], [0, -3]),
    "agent.target.episodes": ([1, 3, "null"], [0, "x"]),
    "net.hidden": (["[]", "[8]", "[8,8]", "[1]"], ["[0]", 8, "[a]"]),
    "net.activation": (["relu", "tanh", "gelu", "elu"], ["no_such"]),
    "net.sigma": ([0.5, 0.1, "null"], [0, -1, "nan"]),
    "buffer.capacity": ([60, 120, 210, 900], [0, 3, 10**13]),
    "buffer.alpha": ([0, 0.6, 1], [-1, "nan"]),
    "optim.lr": ([1e-5, 1e-3, 0.01], [0, -1, "nan", "inf"]),
    "optim.anneal": (["true", "false"], ["x"]),
    "optim.weight_decay": ([0, 0.01], [-1]),
    "optim.clip.kind": (["value", "norm"], ["none_"]),
    "optim.clip.max": ([0.1, 10], [0, "nan"]),
    "exploration.start": ([1, 0.5], [-1, "nan"]),
    "exploration.end": ([0.1, 0.5], [-1, 3]),
    "exploration.decay_steps": ([1, 100, 10**6], [0, 0.5]),
    "train.batch_size": ([1, 3, 16, 40], [0, 5000]),
    "train.learning_starts": ([40, 77, 199], [0, 200, -1]),
    "train.every": ([1, 2, 7, 300], [0, 1.5]),
    "train.updates": ([1, 2], [0, "x"]),
    "train.on_divergence": (["stop", "drop"], ["maybe"]),
    "train.stop.episodes": ([1, 5, "null"], [0]),
    "total_steps": ([120, 150, 210, "0.2k", "2e2"], [0, 39, "1e-3"]),
    "log.every": ([1, 50, 1000], [0]),
    "eval.every": ([20, 90, 1000], [0, "nan"]),
    "checkpoint.every": ([30, 77, 1000, "null"], [0, -1]),
    "checkpoint.keep": ([1, 3], [0, "x"]),
    "seed": ([0, 5, 2**40], [-1, "x", 0.5]),
    "seeds": ([1, 2, 4], [0, "true"]),
    "threads": ([1], [0]),
    "device": (["cpu", "auto"], ["cuda:77", "gpu"]),
}
REASONS = re.compile(
    "must be|unknown|has no|observations|no native env|native envs|needs |cannot be set together"
)


@st.composite
def configs(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    """Overrides, and those among them that are bad whatever the others are."""
    keys = draw(st.lists(st.sampled_from(sorted(CHOICES)), min_size=3, max_size=9, unique=True))
    spoilt = draw(st.sampled_from([False, True, False]))
    bad = {key for key in keys[: draw(st.integers(1, 2))] if spoilt}
    return [f"{key}={draw(st.sampled_from(CHOICES[key][key in bad]))}" for key in keys], sorted(bad)


def refusal(folder: Path, overrides: list[str]) -> str | Run:
    """The run, or why there is none."""
    try:
        return Run(build(tiny(*latest(*BASE, *overrides))), folder, progress=False)
    except ConfigError as error:
        return str(error)


def check(overrides: list[str], bad: list[str]) -> None:
    """Refused with a reason and without a file, or run to a good end."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = refusal(folder, overrides)
        if isinstance(run, str):
            assert not list(folder.iterdir())
            assert run
            for line in run.splitlines():
                assert REASONS.search(line), line
            named = [re.search(rf"^{re.escape(key)}[=:.]", run, re.MULTILINE) for key in bad]
            assert any(named) or not bad, run
            return
        assert not bad, f"accepted: {overrides}"
        objective = run.run()
        assert objective is not None
        assert math.isfinite(objective)
        said = summary(folder)
        assert (said["status"], said["objective"]) == ("finished", objective)
        assert "dropped" not in said
        total = run.parts.context.total_steps
        assert newest(folder)["step"] == total or "train.stop.episodes" in str(overrides)
        assert run.parts.learner.params.isfinite().all()


def many(examples: int) -> settings:
    return settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )


@given(configs())
@many(6)
def test_a_config_is_refused_or_works(config: tuple[list[str], list[str]]) -> None:
    check(*config)


@pytest.mark.slow
@given(configs())
@many(1500)
def test_many_configs_are_refused_or_work(config: tuple[list[str], list[str]]) -> None:
    check(*config)
