"""What agents reach over many seeds: minutes long each, run with `pytest -m slow`."""

from pathlib import Path

import pytest

from dqn_exp import Run, build, compose

pytestmark = pytest.mark.slow
NATIVE = "env.backend=native compile=true"


def objective(folder: Path, overrides: str) -> float:
    """IQM over seeds of 100 greedy episodes each."""
    given = [] if "seeds=" in overrides else ["seeds=10"]
    iqm = Run(build(compose(*given, *overrides.split())), folder, progress=False).run()
    assert iqm is not None
    return iqm


@pytest.mark.parametrize("agent", ["dqn", "ddqn"])
@pytest.mark.parametrize("buffer", ["uniform", "per"])
@pytest.mark.parametrize("net", ["mlp", "dueling"])
def test_cartpole_is_solved_within_50000_steps(
    tmp_path: Path, agent: str, buffer: str, net: str
) -> None:
    assert objective(tmp_path, f"agent={agent} buffer={buffer} net={net}") >= 475


@pytest.mark.parametrize(
    "recipe", ["agent=munchausen", "agent=c51", "agent=qr_dqn", "agent=iqn", "experiment=rainbow"]
)
def test_the_family_solves_cartpole_within_50000_steps(tmp_path: Path, recipe: str) -> None:
    assert objective(tmp_path, f"{NATIVE} {recipe}") >= 475


@pytest.mark.parametrize(
    ("recipe", "score"),
    [
        (f"{NATIVE} env=acrobot total_steps=100_000", -90),
        (f"{NATIVE} experiment=mountaincar", -120),
        ("env=lunarlander total_steps=200_000 compile=true seeds=5", 200),
    ],
)
def test_other_environments_are_learned(tmp_path: Path, recipe: str, score: float) -> None:
    assert objective(tmp_path, recipe) >= score
