"""The typed config: what composes, what is computed, and what does not change."""

import dataclasses
from pathlib import Path

import pytest
from helpers import node, options

from dqn_exp import registry
from dqn_exp.config import schema, typed
from dqn_exp.config.compose import CONF, compose
from dqn_exp.config.problems import ConfigError, Problem
from dqn_exp.config.schema import Config

OPTIONS = [(group, option) for group in schema.GROUPS for option in options(group)]
OPTIONS = [(group, option) for group, option in OPTIONS if group != "experiment"]


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_shipped_option_gives_its_part_exactly_its_keys(group: str, option: str) -> None:
    config = node(group, option)
    name = getattr(config, registry.SELECTORS.get(group, "name"))
    assert type(config) is schema.PARTS[group][name]


@pytest.mark.parametrize("kind", sorted(schema.GROUPS.keys() - {"experiment"}))
def test_every_part_of_a_group_is_chosen_by_one_of_its_options(kind: str) -> None:
    selector = registry.SELECTORS.get(kind, "name")
    chosen = {getattr(node(kind, option), selector) for option in options(kind)}
    assert schema.PARTS[kind].keys() - chosen <= {"native"}  # which any env may be, by its id


@pytest.mark.parametrize("preset", options("experiment"))
def test_every_shipped_preset_is_valid_and_can_be_saved_and_read(preset: str) -> None:
    config = compose(f"experiment={preset}")
    assert typed.read(Config, typed.plain(config)) == config


def test_a_config_cannot_be_changed() -> None:
    config = compose()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 1  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.agent.gamma = 1.0  # type: ignore[misc]


def test_numbers_have_the_type_of_their_key() -> None:
    config = compose("agent.gamma=1", "total_steps=2e4", "optim.betas=[0,0.5]")
    assert [type(value) for value in (config.agent.gamma, config.total_steps)] == [float, int]
    assert all(type(beta) is float for beta in typed.plain(config.optim)["betas"])


def test_seed_zero_is_a_real_seed() -> None:
    assert compose("seed=0").seed == 0


def test_counts_shrink_in_proportion_in_short_runs_but_not_below_a_minibatch() -> None:
    def counts(*overrides: str) -> tuple[int, int, int]:
        config = compose("exploration=linear", *overrides)
        decay = typed.plain(config.exploration)["decay_steps"]
        return config.train.learning_starts, config.eval.every, decay

    usual = counts("total_steps=50k")
    assert counts("total_steps=1M") == usual
    assert counts("total_steps=25k") == tuple(count // 2 for count in usual)
    starts, every, decay = counts("total_steps=500", "train.batch_size=32")
    assert (starts, every, decay) == (32, usual[1] // 100, usual[2] // 100)
    assert counts("total_steps=500", "train.batch_size=32", "eval.every=77")[1] == 77


def test_a_folder_of_ones_own_adds_options_and_replaces_none(tmp_path: Path) -> None:
    (tmp_path / "agent").mkdir()
    for name in ("mine", "ddqn"):
        text = (CONF / "agent/dqn.yaml").read_text()
        (tmp_path / f"agent/{name}.yaml").write_text(f"{text}\ngamma: 0.125\n")
    assert compose("agent=mine", config_dir=tmp_path).agent.gamma == 0.125
    assert compose("agent=ddqn", config_dir=tmp_path) == compose("agent=ddqn")
    with pytest.raises(ConfigError, match=r"agent=mne: unknown option - did you mean 'mine'\?"):
        compose("agent=mne", config_dir=tmp_path)


def test_composing_leaves_no_state_behind(tmp_path: Path) -> None:
    (tmp_path / "agent").mkdir()
    (tmp_path / "agent/mine.yaml").write_text("name: nonsense\n")
    before = compose()
    for overrides in (["agent=mine"], ["typo=1"], ["agent.gamma=2"], ["seed=="]):
        with pytest.raises(ConfigError):
            compose(*overrides, config_dir=tmp_path)
    assert compose() == before
    with pytest.raises(ConfigError, match="agent=mine: unknown option"):
        compose("agent=mine")


def test_a_problem_is_one_printable_line() -> None:
    problem = Problem("env.id", "cannot\nbe\tmade\x1b[31m", "a\r\nb")
    assert str(problem) == "env.id=a  b: cannot be made [31m"
    assert str(Problem("a", "no", None)) == "a=null: no"
    assert str(Problem("a", "no", True)) == "a=true: no"
    assert str(Problem("a", "no", 1)) == "a=1: no"
    assert str(Problem("a", "no")) == "a: no"
