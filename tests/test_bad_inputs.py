"""Bad inputs are refused before anything is written, with the key, the value and what is allowed."""

from pathlib import Path

import gymnasium
import numpy as np
import pytest
from conftest import TINY
from gymnasium import spaces
from hydra.errors import HydraException

from dqn_exp import config
from dqn_exp.experiment import Experiment
from dqn_exp.registry import ConfigError


def said(folder: Path, *overrides: str) -> str:
    """All that is said of a bad config; nothing has been written."""
    with pytest.raises((ConfigError, HydraException)) as caught:
        Experiment(config.compose(*TINY, *overrides), folder)
    assert not list(folder.iterdir())
    return f"{caught.value}\n{caught.value.__cause__}"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("agent.gamma=abc", "could not be converted to Float"),
        ("agent.gamma=null", "is not Optional"),
        ("optim.lr=true", "could not be converted to Float"),
        ("optim.anneal=maybe", "is not a valid bool"),
        ("optim.betas=0.9", "Invalid value assigned: float"),
        ("train.batch_size=1.5", "could not be converted to Integer"),
        ("buffer.capacity=1e3", "could not be converted to Integer"),
        ("seeds=true", "could not be converted to Integer"),
        ("env.n=true", "could not be converted to Integer"),
        ("seed=1.5", "could not be converted to Integer"),
        ("log.every=nan", "could not be converted to Integer"),
        ("total_steps=null", "is not Optional"),
        ("device=null", "is not Optional"),
        ("agent.target=3", "int is not a subclass of Target"),
        ("net.hidden=3", "Invalid value assigned: int"),
        ("net.hidden=[16,true]", "could not be converted to Integer"),
        ("env.wrappers=[3]", "Cannot assign int to Dict"),
        ("agent.gama=1", "+agent.gama=1"),  # what to write, were it meant
        ("typo=1", "+typo=1"),
        ("optim=adm", "adamw"),
        ("net=mpl", "noisy_dueling"),
        ("experiment=rainbo", "rainbow"),
        ("agent.gamma=", "could not be converted to Float"),
    ],
)
def test_wrong_types_and_names_of_options_are_refused(
    tmp_path: Path, override: str, message: str
) -> None:
    words = said(tmp_path, override)
    assert override.replace("=", "/" if "find" in words else "=") in words
    assert message in words


@pytest.mark.parametrize(
    ("overrides", "messages"),
    [
        ("+agent.typo=1 +agent.gama=1", ["agent.typo: unknown key", "did you mean 'gamma'?"]),
        ("+sedes=1 +checkpoint.evry=9", ["did you mean 'seeds'?", "checkpoint.evry: unknown key"]),
        (
            "seed=??? agent.target.tau=???",
            ["seed=???: must be set (first", "agent.target.tau=???:"],
        ),
        (
            "agent.name=ddqnn buffer.name=perr net.name=mpl optim.name=adamm env.backend=gym "
            "exploration.name=linaer",
            ["'ddqn'?", "'per'?", "'mlp'?", "'adam'?", "'gymnasium'?", "'linear'?"],
        ),
        ("agent.name=c51", ["agent.loss: unknown key of agent 'c51'", "agent.atoms: missing"]),
        ("plugins=[no_such_module]", ["plugins: cannot import 'no_such_module'"]),
        ("device=cuda:99", ["device=cuda:99: must be auto or one of those here: cpu"]),
        (
            "train.learning_starts=300 agent.n_step=210 eval.final_episodes=3 train.stop.successes=1",
            [
                "train.learning_starts=300: must be below total_steps=300",
                "agent.n_step=210: must be below the 210 time steps",
                "eval.final_episodes=3: must be a multiple of eval.episodes=2",
                "train.stop.successes and train.stop.success_return: both or neither",
            ],
        ),
        (
            "train.batch_size=250 env.n=7 exploration.end=0.5 exploration.start=0.1",
            [
                "train.learning_starts=40: must be at least train.batch_size=250",
                "buffer.capacity=210: must be at least train.batch_size=250",
                "total_steps=300: must be a multiple of env.n=7",
                "exploration.end=0.5: must be at most exploration.start=0.1",
            ],
        ),
        (
            "agent=c51 agent.v_min=1 agent.v_max=-1 buffer=per buffer.beta_start=0.9 "
            "buffer.beta_end=0.1 agent.target={every:1,episodes:1}",
            ["agent.v_min=1.0: must be below", "buffer.beta_start=0.9: must be at most", "not beside"],
        ),
    ],
)
def test_problems_of_names_and_of_values_together_are_all_listed(
    tmp_path: Path, overrides: str, messages: list[str]
) -> None:
    words = said(tmp_path, *overrides.split())
    assert not [message for message in messages if message not in words], words


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("+env.kwargs._target_=os.system", "env.kwargs._target_"),
        ("+env.kwargs.a._partial_=true", "env.kwargs.a._partial_"),
        ("+agent._target_=os.system", "agent._target_"),
        ("+_target_=os.system", "_target_"),
        ("env.wrappers=[{name:clip_reward,_target_:os.system}]", "env.wrappers.0._target_"),
    ],
)
def test_a_config_cannot_call_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, override: str, key: str
) -> None:
    monkeypatch.chdir(tmp_path)
    words = said(tmp_path, override, "+env.kwargs.command='touch canary'")
    assert f"{key}: parts are built by name" in words


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


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("env.id=CartPol-v1", "env.id=CartPol-v1: Environment `CartPol` doesn't exist. Did you mean"),
        ("env.id=CartPole-v9", "It provides versioned environments: [ `v0`, `v1` ]"),
        ("env.id=", "env.id=: Malformed"),
        (
            "env.id=Pendulum-v1",
            "env.id=Pendulum-v1: actions are Box(-2.0, 2.0, (1,), float32); the",
        ),
        ("env.id=Odd-v0 +env.kwargs={kind:image}", "net=mlp: observations of shape (8, 8, 3)"),
        ("env.id=Odd-v0 net=dueling +env.kwargs={kind:image}", "net=dueling: observations of shape"),
        ("env.id=Odd-v0 +env.kwargs={kind:dict}", "observations are Dict('a': Discrete(2)); supported"),
        ("env.id=Odd-v0 +env.kwargs={kind:tuple}", "observations are Tuple(Discrete(2)); supported"),
        ("env.id=Odd-v0 +env.kwargs={kind:bits}", "observations are MultiBinary(3); supported"),
        ("env.id=Odd-v0 +env.kwargs={kind:text}", "supported are Box and Discrete"),
        ("env.id=Odd-v0 +env.kwargs={kind:dict,actions:2}", "actions are MultiDiscrete([2 2])"),
        ("env=cliffwalking env.max_episode_steps=null", "no time limit; set env.max_episode_steps"),
        ("+env.kwargs={no_such:1}", "got an unexpected keyword argument 'no_such'"),
        ("env.wrappers=[{name:clip_rewards}]", "did you mean 'clip_reward'"),
        ("env.wrappers=[{name:scale_reward}]", "env.wrappers.0.factor: missing"),
        ("env.wrappers=[{name:clip_reward,low:1,high:-1}]", "Min reward (1) must be smaller than max"),
        ("env.backend=native env.id=LunarLander-v3", "no native env"),
        ("env.backend=native env.wrappers=[{name:time_limit_is_terminal}]", "native envs take none"),
        ("agent=iqn net.output_activation=relu", "this agent's outputs are distributions"),
        ("buffer.capacity=9999999999999", "buffer.capacity=9999999999999: 1 seed(s) need 480 TB, but"),
        ("buffer=per seeds=9 buffer.capacity=9999999999", "buffer.capacity=9999999999: 9 seed(s) need"),
    ],
)
def test_parts_that_do_not_fit_are_refused_with_the_reason(
    tmp_path: Path, overrides: str, message: str
) -> None:
    assert message in said(tmp_path, *overrides.split())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("env.id=no_such_module:Env-v0", "env.id=no_such_module:Env-v0: ModuleNotFoundError"),
        ("plugins=['']", "plugins: cannot import '': ValueError"),
        ("agent.gamma=${no_such}", "agent.gamma: Interpolation key 'no_such' not found"),
        ("seed=99999999999999999999", "seed=99999999999999999999: must be"),
        ("threads=99999999999", "threads=99999999999: must be at most 1,024"),
        ("seeds=9999999999", "seeds=9999999999: must be at most 1,000,000"),
        ("exploration=ez_greedy exploration.max_duration=9999999999", "exploration.max_duration="),
        ("net.hidden=[100000000,100000000]", "net.hidden=[100000000, 100000000]: 1 seed(s) need"),
        ("agent=c51 agent.atoms=99999999999", "net.hidden=[16]: 1 seed(s) need"),
        ("total_steps=99999999999999999999", "total_steps=99999999999999999999: must be"),
        ("agent=c51 agent.v_min=nan", "agent.v_min=nan: must be finite"),
        ("agent=c51 agent.v_max=inf", "agent.v_max=inf: must be finite"),
        ("agent=munchausen agent.clip=-inf", "agent.clip=-inf: must be finite"),
        ("compile=null", "compile=None: must be auto, true or false"),
        ("eval.solved=nan", "eval.solved=nan: must be finite"),
        ("train.stop={successes:1,success_return:nan}", "train.stop.success_return=nan: must be"),
        ("optim.lr=1e300", "optim.lr=1e+300: must be finite, and below 1e+30"),
        ("env.wrappers=[{name:scale_reward,factor:nan}]", "env.wrappers.0.factor=nan: must be finite"),
        ("env.wrappers=[{name:scale_rewards,factor:2}]", "env.wrappers.0.name=scale_rewards: unknown"),
    ],
)
def test_numbers_and_names_that_mean_nothing_are_refused(
    tmp_path: Path, override: str, message: str
) -> None:
    assert message in said(tmp_path, *override.split())
