"""Values and parts that make no sense together are refused, with the reason."""

from collections.abc import Callable

import pytest

from dqn_exp.config import compose
from dqn_exp.experiment import Experiment
from dqn_exp.registry import ConfigError


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("agent=c51 agent.v_min=5 agent.v_max=5", r"agent\.v_min=5\.0: must be below agent\.v_max=5"),
        ("agent.target.every=10 agent.target.episodes=2", r"instead of agent\.target\.every"),
        ("train.stop.successes=3", r"train\.stop\.success_return: both or neither"),
        ("train.stop.success_return=3", r"train\.stop\.success_return: both or neither"),
        ("agent=c51 agent.atoms=1", r"agent\.atoms=1: must be an integer >= 2"),
        ("exploration=boltzmann exploration.end=0", r"exploration\.end=0\.0: must be a number > 0"),
        ("net=noisy_mlp net.sigma=0", r"net\.sigma=0\.0: must be a number > 0"),
        ("agent=munchausen agent.clip=0.5", r"agent\.clip=0\.5: must be a number < 0"),
        ("env.vectorization=threads", r"env\.vectorization=threads: must be one of: sync, async"),
        ("buffer=per buffer.compat=book", r"buffer\.compat=book: must be one of: notebook"),
    ],
)
def test_it_is_refused_before_anything_is_built(overrides: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose(*overrides.split())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("agent=c51 net.output_activation=relu", "this agent's outputs are distributions"),
        ("agent=iqn net.output_activation=relu", "this agent's outputs are distributions"),
        ("env.backend=native env.vectorization=async", "native envs are one batch of tensors"),
        ("env=cliffwalking env.max_episode_steps=null", "has no time limit"),
    ],
)
def test_it_is_refused_when_it_is_built(
    make: Callable[..., Experiment], overrides: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make(*overrides.split())
