"""Parts that do not fit together, or onto this machine, are refused with the reason."""

import sys
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from helpers import latest, tiny

from dqn_exp.agents.dqn import DQN
from dqn_exp.config import schema
from dqn_exp.config.problems import ConfigError
from dqn_exp.interfaces import Context
from dqn_exp.nets.mlp import MLP
from dqn_exp.parts import build
from dqn_exp.registry import register
from dqn_exp.run.run import Run


class Odd(gymnasium.Env):
    """Observations of a kind that no part serves."""

    KINDS = {  # noqa: RUF012
        "image": spaces.Box(0, 255, (8, 8, 3), np.uint8),
        "dict": spaces.Dict({"a": spaces.Discrete(2)}),
        "tuple": spaces.Tuple([spaces.Discrete(2)]),
        "bits": spaces.MultiBinary(3),
        "text": spaces.Text(3),
    }

    def __init__(self, kind: str, actions: int = 1):
        self.observation_space = self.KINDS[kind]
        self.action_space = spaces.Discrete(2) if actions == 1 else spaces.MultiDiscrete([2] * actions)

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, False, {}


gymnasium.register("Odd-v0", "test_bad_inputs:Odd", max_episode_steps=5)

RELU = "plugins=[dqn_exp.notebooks] net.name=relu_output_mlp"
CASES = [
    # Environments that do not exist, or cannot be made.
    ("env.id=CartPol-v1", ["env.id=CartPol-v1: Environment `CartPol` doesn't exist. Did you mean"]),
    ("env.id=CartPole-v9", ["env.id=CartPole-v9: Environment version `v9`"]),
    ("env.id=", ["env.id=: Malformed"]),
    ("env.id=no_such_module:Env-v0", ["env.id=no_such_module:Env-v0: ModuleNotFoundError"]),
    ("+env.kwargs={no_such:1}", ["env.id=CartPole-v1: TypeError: CartPoleEnv.__init__() got an unexp"]),
    ("env=cliffwalking env.max_episode_steps=null", ["env.id=CliffWalking-v1: has no time limit; set"]),
    (
        "env.wrappers=[{name:clip_reward,low:1,high:-1}]",
        ["env.id=CartPole-v1: Min reward (1.0) must be smaller than max"],
    ),
    # Spaces that the parts do not serve.
    ("env.id=Pendulum-v1", ["env.id=Pendulum-v1: actions are Box(-2.0, 2.0, (1,), float32); the DQN"]),
    (
        "env.id=Odd-v0 +env.kwargs={kind:dict,actions:2}",
        ["env.id=Odd-v0: actions are MultiDiscrete([2"],
    ),
    ("env.id=Odd-v0 +env.kwargs={kind:image}", ["net=mlp: observations of shape (8, 8, 3)"]),
    ("env.id=Odd-v0 net=dueling +env.kwargs={kind:image}", ["net=dueling: observations of shape"]),
    (
        "env.id=Odd-v0 +env.kwargs={kind:dict}",
        ["env.id=Odd-v0: observations are Dict('a': Discrete(2)); supported are Box and Discrete"],
    ),
    ("env.id=Odd-v0 +env.kwargs={kind:tuple}", ["env.id=Odd-v0: observations are Tuple(Discrete(2));"]),
    ("env.id=Odd-v0 +env.kwargs={kind:bits}", ["env.id=Odd-v0: observations are MultiBinary(3);"]),
    ("env.id=Odd-v0 +env.kwargs={kind:text}", ["env.id=Odd-v0: observations are Text("]),
    # Options that only Gymnasium has.
    ("env.backend=native env.id=LunarLander-v3", ["env.id=LunarLander-v3: no native env - did you"]),
    (
        "env.backend=native env.wrappers=[{name:scale_reward,factor:2}] env.vectorization=async",
        ["env.wrappers=", "env.vectorization=async: native envs are one batch of tensors; use sync"],
    ),
    ("env.backend=native +env.kwargs.a=1", ["env.kwargs={'a': 1}: native envs have none; use"]),
    # Rules and networks.
    (
        f"agent=c51 {RELU}",
        ["net=relu_output_mlp: a ReLU on the outputs needs an agent whose outputs are"],
    ),
    (
        f"agent=iqn {RELU}",
        ["net=relu_output_mlp: a ReLU on the outputs needs an agent whose outputs are"],
    ),
    # This machine.
    ("device=cuda:99", ["device=cuda:99: must be auto or a device of this machine: cpu"]),
    ("device=gpu", ["device=gpu: must be auto or a device of this machine: cpu"]),
    ("buffer.capacity=9999999999999", ["buffer.capacity=9999999999999: needs 480 TB, but cpu has "]),
    (
        "buffer=per seeds=9 buffer.capacity=9999999999",
        ["buffer.capacity=9999999999: needs 5.31 TB, but"],
    ),
    ("net.hidden=[100000000,100000000]", ["net=mlp with seeds=1: needs 2.4e+05 TB, but cpu has "]),
    # Sizes that cannot be: refused before any of it is made.
    (
        "seeds=1000000",
        ["eval.episodes=2 with seeds=1000000: at most 100,000 envs are made in Python; th"],
    ),
    (
        "eval.episodes=1000000 eval.final_episodes=1000000",
        ["eval.episodes=1000000 with seeds=1: at most 100,000 envs are made in Python; these would be"],
    ),
    (
        "env.n=99999 total_steps=99999000 buffer.capacity=99999000 env.vectorization=async",
        ["env.n=99999 with seeds=1: at most 100,000 envs"],
    ),
    (
        "env.backend=native seeds=1000000 eval.episodes=1000000 eval.final_episodes=1000000",
        ["eval.episodes=1000000 with seeds=1000000: needs 1.64e+04 TB, but cpu has "],
    ),
    (
        "train.batch_size=99999999999 train.learning_starts=99999999999 total_steps=999999999999 "
        "buffer.capacity=99999999999",
        ["train.batch_size=99999999999, seeds=1, train.batch_size=99999999999: needs "],
    ),
    (
        "agent.n_step=99999999999 buffer.capacity=999999999999",
        ["agent.n_step=99999999999, seeds=1, train.batch_size=16: needs 64 TB, but cpu has "],
    ),
    (
        "agent=qr_dqn agent.quantiles=10000 seeds=100 train.batch_size=210 train.learning_starts=210",
        ["agent=qr_dqn with 10000 values per action, seeds=100, train.batch_size=210: needs 8.4 TB"],
    ),
    (
        "agent=iqn agent.samples=10000 seeds=1000 train.batch_size=210 train.learning_starts=210 "
        "env.backend=native",
        ["agent.samples=10008, seeds=1000, train.batch_size=210: needs "],
    ),
]
LARGE = [  # sizes that are unusual, but fit
    "seeds=256 env.backend=native",
    "seeds=100 eval.episodes=20 eval.final_episodes=100",
    "buffer.capacity=1000000",
    "train.every=2000000000",
    "train.every=2000000001 env.n=7 total_steps=700 buffer.capacity=700 env.backend=native",
    "train.every=2000000001 env.n=7 total_steps=700 buffer.capacity=700 compile=true",
    "agent=c51 agent.atoms=1001",
    "agent=iqn agent.samples=200 agent.target_samples=200",
]


@pytest.mark.parametrize(("overrides", "lines"), CASES, ids=[overrides for overrides, _ in CASES])
def test_parts_that_do_not_fit_are_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: str, lines: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = tiny(*latest("env=cartpole", "net=mlp", "buffer=uniform", *overrides.split()))
    with pytest.raises(ConfigError) as caught:
        build(config)
    said = [str(problem) for problem in caught.value.problems]
    assert len(said) == len(lines)
    assert all(seen.startswith(line) for seen, line in zip(said, lines, strict=True)), said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("overrides", LARGE)
def test_sizes_that_are_large_but_fit_are_accepted(overrides: str) -> None:
    build(tiny(*overrides.split())).close()


@register("agent", "test_exits")
class Exits(DQN):
    """A part whose code ends the process, as if all were well."""

    config: schema.DQN

    def __init__(self, context: Context, config: schema.DQN):
        sys.exit(0)


@register("net", "test_without_keys")
class WithoutKeys(MLP):
    """A network whose only key is its name."""

    config: schema.Net

    def __init__(self, context: Context, agent: DQN, config: schema.Net):
        own = schema.MLP(name=config.name, hidden=[], activation="relu", sigma=None)
        super().__init__(context, agent, own)


def test_a_part_that_ends_the_process_while_it_is_built_is_an_error() -> None:
    with pytest.raises(RuntimeError, match=r"a part has called sys.exit\(0\)"):
        build(tiny("agent=dqn", "agent.name=test_exits"))


def test_a_network_without_hidden_layers_among_its_keys_trains(tmp_path: Path) -> None:
    config = replace(tiny(), net=schema.Net(name="test_without_keys"))
    run = Run(build(config), tmp_path, progress=False)
    assert run.run() is not None
