"""The default recipe over many seeds: minutes long, run with `pytest -m slow`."""

from pathlib import Path

import pytest

from dqn_exp.config import compose
from dqn_exp.experiment import Experiment


@pytest.mark.slow
@pytest.mark.parametrize("agent", ["dqn", "ddqn"])
@pytest.mark.parametrize("buffer", ["uniform", "per"])
@pytest.mark.parametrize("net", ["mlp", "dueling"])
def test_cartpole_is_solved_within_50000_steps(
    tmp_path: Path, agent: str, buffer: str, net: str
) -> None:
    config = compose("seeds=10", f"agent={agent}", f"buffer={buffer}", f"net={net}")
    assert Experiment(config, tmp_path).run() >= 475  # IQM over seeds of 100 greedy episodes
