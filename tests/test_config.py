"""The config: every shipped option composes and is consumed, and what is wrong is said plainly."""

import re
from pathlib import Path

import pytest
from conftest import options
from hydra.errors import HydraException

from dqn_exp import config
from dqn_exp.config import compose
from dqn_exp.registry import SELECTORS, ConfigError, keys
from dqn_exp.schema import PARTS

OPTIONS = [(group, option) for group in PARTS for option in options(group)]


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_shipped_option_gives_its_part_exactly_its_keys(group: str, option: str) -> None:
    node = compose(f"{group}={option}")[group]
    selector = SELECTORS.get(group, "name")
    assert set(node) - {selector} == set(keys(group, node[selector]))


@pytest.mark.parametrize("preset", options("experiment"))
def test_every_shipped_preset_is_valid(preset: str) -> None:
    compose(f"experiment={preset}")


def test_every_value_of_the_default_config_has_a_schema() -> None:
    documented = set(re.findall(r"^  ([\w.]+) ", config.help_text(), flags=re.MULTILINE))

    def paths(node: dict, prefix: str = "") -> list[str]:
        nested = [
            paths(value, f"{prefix}{key}.") if isinstance(value, dict) and value else [prefix + key]
            for key, value in node.items()
        ]
        return [path for group in nested for path in group]

    assert set(paths(compose())) <= documented


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("agent.gamma=1.5", "agent.gamma=1.5: must be a number in [0, 1]"),
        ("agent.n_step=0", "agent.n_step=0: must be an integer >= 1"),
        ("agent.n_step=50000", "agent.n_step=50000: must be below the 50000 time steps"),
        ("agent.loss=hubber", "agent.loss=hubber: must be one of: huber, mse"),
        ("agent.target.tau=0", "agent.target.tau=0.0: must be a number in (0, 1]"),
        ("agent.target.every=0", "agent.target.every=0: must be an integer >= 1"),
        ("buffer.capacity=0", "buffer.capacity=0: must be an integer >= 1"),
        ("buffer.capacity=100", "buffer.capacity=100: must be at least train.batch_size=128"),
        ("optim.lr=-1", "optim.lr=-1.0: must be a number > 0"),
        ("optim.lr=nan", "optim.lr=nan: must be a number > 0"),
        ("optim.clip.kind=norms", "optim.clip.kind=norms: must be one of: value, norm, none"),
        ("net.hidden=[64,0]", "net.hidden=[64, 0]: must be a list of integers >= 1"),
        ("net.activation=rellu", "net.activation=rellu: must be one of: relu"),
        ("exploration.end=1.5", "exploration.end=1.5: must be a number in [0, 1]"),
        ("exploration.start=0.01", "exploration.end=0.05: must be at most exploration.start=0.01"),
        ("train.learning_starts=50000", "must be below total_steps=50000"),
        ("train.learning_starts=10", "must be at least train.batch_size=128"),
        ("train.every=0", "train.every=0: must be an integer >= 1"),
        ("total_steps=0", "total_steps=0: must be an integer >= 1"),
        ("env.n=3", "total_steps=50000: must be a multiple of env.n=3"),
        ("eval.final_episodes=30", "must be a multiple of eval.episodes=20"),
        ("seed=-1", "seed=-1: must be an integer >= 0"),
        ("seeds=0", "seeds=0: must be an integer >= 1"),
        ("seed=???", "seed=???: must be set (first seed)"),
        ("device=gpu", "device=gpu: must be auto or one of those here: cpu"),
        ("plugins=[no_such_module]", "plugins: cannot import 'no_such_module'"),
        ("compile=sometimes", "compile=sometimes: must be auto, true or false"),
        ("buffer.name=perr", "buffer.name=perr: unknown buffer - did you mean 'per'?"),
        ("env.backend=natve", "env.backend=natve: unknown env - did you mean 'native'?"),
        ("+agent.gama=1", "agent.gama: unknown key - did you mean 'gamma'?"),
        ("+typo=1", "typo: unknown key"),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        compose(override)


def test_all_problems_are_listed_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        compose("agent.gamma=2", "buffer.capacity=0", "+agent.typo=1")
    assert len(caught.value.problems) == 3


def test_per_betas_must_not_fall() -> None:
    with pytest.raises(ConfigError, match=r"buffer\.beta_start=0\.9: must be at most"):
        compose("buffer=per", "buffer.beta_start=0.9", "buffer.beta_end=0.5")


@pytest.mark.parametrize("override", ["agent.lr=1", "seeds=true", "optim.lr=abc", "agent=dqnn"])
def test_wrong_types_and_unknown_keys_fail_while_composing(override: str) -> None:
    with pytest.raises(HydraException):
        compose(override)


def test_seed_zero_is_a_real_seed() -> None:
    assert compose("seed=0")["seed"] == 0


def test_the_help_has_a_line_for_every_group() -> None:
    for group in (path for path in config.CONF.iterdir() if path.is_dir()):
        (line,) = re.findall(rf"^  {group.name} +\w.*: .*$", config.help_text(), flags=re.MULTILINE)
        assert all(option in line for option in options(group.name))


def test_a_run_that_is_resumed_brings_its_overrides_before_those_given_now(tmp_path: Path) -> None:
    run = tmp_path / "seed=1"
    (run / ".hydra").mkdir(parents=True)
    stored = ["agent=dqn", "resume=auto", "hydra.callbacks.x._target_=os.system", "~plugins"]
    (run / ".hydra/overrides.yaml").write_text("".join(f"- {line}\n" for line in stored))
    for path in (run, run / "checkpoints/step=100"):
        given = ["--config-dir", "mine", f"resume={path}", "total_steps=9"]
        here = ["hydra.mode=RUN", f"hydra.run.dir='{run}'", f"resume='{path}'"]
        expected = ["--config-dir", "mine", "agent=dqn", "~plugins", "total_steps=9", *here]
        assert config.expanded(given) == expected


def test_other_command_lines_are_left_as_they_are() -> None:
    for given in (["resume=auto", "seed=1"], ["--help"], ["resume=null"], []):
        assert config.expanded(given) == given
