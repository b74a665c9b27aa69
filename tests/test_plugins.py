"""Parts of one's own: a module and a yaml each, and nothing in the package is edited."""

import subprocess
import sys
from pathlib import Path

import pytest
from helpers import TINY, summary, train

RULE = '''
from torch import Tensor

from dqn_exp.agents.dqn import DQN
from dqn_exp.config import schema
from dqn_exp.interfaces import Networks
from dqn_exp.registry import register


@schema.config
class MixedConfig(schema.DQN):
    share: float = schema.key("weight of the mean over actions", schema.UNIT)


@register("agent", "mixed")
class Mixed(DQN):
    """Bootstraps from a mixture of the largest and the mean Q-value."""

    config: MixedConfig

    def bootstrap(self, nets: Networks, next_obs: Tensor) -> Tensor:
        q, share = nets.target(next_obs), self.config.share
        return (1 - share) * q.amax(-1) + share * q.mean(-1)
'''
RULE_YAML = """
defaults: [_base, _self_]
name: mixed
loss: huber
share: 0.25
"""
NET = '''
from torch import Tensor

from dqn_exp.config import schema
from dqn_exp.interfaces import Agent, Context, Weights
from dqn_exp.nets.layers import Layout, Stack
from dqn_exp.registry import register


@schema.config
class FlatConfig(schema.Net):
    gain: float = schema.key("factor of the outputs", schema.POSITIVE)


@register("net", "flat")
class Flat:
    """Q-values that are linear in the observation."""

    config: FlatConfig
    n_noise = 0

    def __init__(self, context: Context, agent: Agent, config: FlatConfig):
        layout, spec = Layout(), context.spec
        self._stack = Stack(layout, [*spec.obs_shape, spec.n_actions], "relu")
        self._gain = config.gain
        self.n_params, self.init, self.views = sum(layout.sizes), layout.init, layout.views

    def __call__(
        self,
        weights: Weights,
        obs: Tensor,
        noise: Tensor | None = None,
        fractions: Tensor | None = None,
    ) -> Tensor:
        return self._gain * self._stack(weights, self.features(weights, obs))

    def features(self, weights: Weights, obs: Tensor) -> Tensor:
        return obs.to(weights[0].dtype)

    def metrics(self, weights: Weights) -> dict[str, Tensor]:
        return {}
'''
API = """
import sys
import dqn_exp

config = dqn_exp.compose(*sys.argv[1:], config_dir="conf")
parts = dqn_exp.build(config)
first = parts.learner.params.clone()
print(dqn_exp.Run(parts, "api", progress=False).run())
assert not parts.learner.params.equal(first), "it has learned nothing"
"""
CHOICES = {
    "a rule": ["plugins=[my_rule]", "agent=mixed", "agent.share=0.5"],
    "a net without hidden layers": ["plugins=[my_net]", "net=flat"],
    "both": ["plugins=[my_rule,my_net]", "agent=mixed", "net=flat", "net.gain=0.5", "buffer=per"],
}
SMALL = [text for text in TINY if not text.startswith("net.")]


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A working directory with two plug-ins: a module and a yaml each."""
    files = {
        "my_rule.py": RULE,
        "conf/agent/mixed.yaml": RULE_YAML,
        "my_net.py": NET,
        "conf/net/flat.yaml": "name: flat\ngain: 2.0\n",
    }
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text.lstrip())
    return tmp_path


@pytest.mark.parametrize(
    "choice", [pytest.param(c, marks=[pytest.mark.slow] * (c != "both")) for c in CHOICES]
)
def test_parts_of_ones_own_train_from_the_command_line_and_from_python(mine: Path, choice: str) -> None:
    overrides = [*SMALL, "seeds=2", *CHOICES[choice]]
    command = ["--config-dir", "conf", "hydra.run.dir=cli", *overrides]
    done = train(mine, *command, PYTHONPATH=str(mine))
    assert done.returncode == 0, done.stderr
    python = [sys.executable, "-c", API, *overrides]
    api = subprocess.run(python, cwd=mine, capture_output=True, text=True)
    assert api.returncode == 0, api.stderr
    ends = [summary(mine / folder) for folder in ("cli", "api")]
    assert [end["status"] for end in ends] == ["finished", "finished"]
    assert ends[0]["final_returns"] == ends[1]["final_returns"]
    configs = [(mine / folder / ".hydra/config.yaml").read_text() for folder in ("cli", "api")]
    assert configs[0] == configs[1]


def test_keys_of_ones_own_are_checked_and_explained_like_all_others(mine: Path) -> None:
    own = ["--config-dir", "conf", *SMALL, *CHOICES["both"]]
    bad = ["agent.share=2", "net.gain=x", "agent.shaer=1", "+net.zzz=1"]
    given = {text.partition("=")[0]: text for text in [*own[2:], *bad]}
    done = train(mine, *own[:2], *given.values(), PYTHONPATH=str(mine))
    assert done.returncode == 2
    assert sorted(done.stderr.splitlines()) == [
        "agent.shaer: unknown key - did you mean agent.share?",
        "agent.share=2: must be a number in [0, 1]",
        "net.gain=x: must be a number > 0",
        "net.zzz: unknown key (one of: gain, name)",
    ]
    assert not (mine / "outputs").exists()


def test_help_shows_options_and_keys_of_ones_own(mine: Path) -> None:
    own = ["--config-dir", "conf", "--help", "agent=mixed", "net=flat"]
    done = train(mine, *own, PYTHONPATH=str(mine))
    assert done.returncode == 0
    options = " ".join(done.stdout.partition("Keys of")[0].split())
    assert "iqn, mixed, munchausen" in options
    assert "dueling, flat, mlp" in options
    assert "agent.share=0.25" in done.stdout
    assert "net.gain=2.0" in done.stdout


@pytest.mark.slow
def test_a_run_with_parts_of_ones_own_is_resumed_if_they_are_named_again(mine: Path) -> None:
    own = ["--config-dir", "conf", "hydra.run.dir=here", *SMALL, *CHOICES["both"]]
    assert train(mine, *own, PYTHONPATH=str(mine)).returncode == 0
    refused = train(mine, "resume=here", "total_steps=400", PYTHONPATH=str(mine))
    assert refused.returncode == 2
    assert "repeat plugins=[my_rule,my_net] if you trust them" in refused.stderr
    again = ["resume=here", "total_steps=400", "plugins=[my_rule,my_net]"]
    done = train(mine, *again, PYTHONPATH=str(mine))
    assert done.returncode == 0, done.stderr
    assert summary(mine / "here")["resumed_from"] == 300
