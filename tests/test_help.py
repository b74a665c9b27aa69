"""--help names every group with its options, and every key of the chosen ones with its meaning."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import options, train

from dqn_exp.config import schema, typed
from dqn_exp.config.compose import CONF, compose
from dqn_exp.config.help import WIDTH, help_text, meanings

GROUPS = {group: options(group) for group in schema.GROUPS}
CHOICES = [
    f"{group}={option}" for group in schema.GROUPS for option in options(group) if group != "experiment"
]


def keys_of(text: str) -> dict[str, str]:
    """Key -> value and meaning, of a help text."""
    lines = text.partition("Keys of the chosen options")[2].splitlines()[1:]
    entries: list[str] = []
    for line in lines[: lines.index("")]:
        if line.startswith("   "):
            entries[-1] += f" {line.strip()}"
        else:
            entries.append(line.strip())
    entries = [" ".join(entry.split()) for entry in entries]
    return {key: rest for key, _, rest in (entry.partition("=") for entry in entries)}


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What --help prints."""
    folder = tmp_path_factory.mktemp("help")
    done = train(folder, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert not list(folder.iterdir())
    return done.stdout


def test_every_group_has_a_line_with_its_options(default: str) -> None:
    words = " ".join(default.split())
    for group, names in GROUPS.items():
        assert f"{group} {schema.GROUPS[group]}: {', '.join(names)}" in words
    assert {path.name for path in CONF.iterdir() if path.is_dir()} == set(schema.GROUPS)


def test_every_key_of_the_default_config_has_its_meaning_and_its_range(default: str) -> None:
    config, shown = typed.plain(compose()), keys_of(default)
    assert set(shown) == set(typed.flatten(config)) | {"env.kwargs"}
    about = meanings(config)
    for key, rest in shown.items():
        value, _, meaning = rest.partition(" ")
        assert value, key
        assert meaning.strip() == about[key]
    assert shown["agent.gamma"].endswith("discount factor per env step (a number in [0, 1])")
    assert shown["agent.loss"].endswith("(one of: huber, mse)")


def test_counts_that_shrink_in_short_runs_are_shown_as_in_long_ones(default: str) -> None:
    assert "${" not in default
    assert re.match(r"[\d_]+ ", keys_of(default)["train.learning_starts"])
    assert re.match(r"[\d_]+ ", keys_of(default)["eval.every"])


@pytest.mark.parametrize("choice", CHOICES)
def test_every_key_of_every_option_has_a_meaning(choice: str) -> None:
    config = typed.plain(compose(choice))
    shown = keys_of(help_text(config, GROUPS))
    assert set(shown) == set(typed.flatten(config)) | {"env.kwargs"}
    assert not [key for key, rest in shown.items() if "a key of a plug-in" in rest]


def test_the_keys_of_a_plug_in_are_shown_without_importing_it() -> None:
    config = typed.plain(compose("experiment=per_dueling_ddqn"))
    shown = keys_of(help_text(config, GROUPS))
    assert shown["buffer.alpha"] == "1.0 a key of a plug-in"
    assert shown["env.kwargs"].startswith("{} ")
    assert "outcome_reward" in shown["env.wrappers"]


def test_free_arguments_are_one_value() -> None:
    config = typed.plain(compose("+env.kwargs.sutton_barto_reward=true"))
    shown = keys_of(help_text(config, GROUPS))
    assert shown["env.kwargs"].startswith('{"sutton_barto_reward":true} arguments for gymnasium.make')


def test_exploration_is_described_in_the_words_of_the_chosen_strategy(
    default: str, tmp_path: Path
) -> None:
    assert "epsilon" in keys_of(default)["exploration.start"]
    assert "temperature" not in default
    softmax = train(tmp_path, "--help", "exploration=boltzmann").stdout
    assert "temperature" in keys_of(softmax)["exploration.start"]
    about = [rest for key, rest in keys_of(softmax).items() if key.startswith("exploration.")]
    assert "epsilon" not in " ".join(about)


@pytest.mark.parametrize("choice", ["experiment=rainbow", "agent=iqn", "exploration=ez_greedy"])
def test_no_line_is_wider_than_a_terminal(default: str, choice: str) -> None:
    chosen = help_text(typed.plain(compose(choice)), GROUPS)
    assert max(map(len, (default + chosen).splitlines())) <= WIDTH == 100


def test_the_command_of_the_package_prints_the_same_help(default: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dqn_exp", "train", "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, default)


def test_help_for_an_unknown_option_says_so(tmp_path: Path) -> None:
    done = train(tmp_path, "--help", "agent=dqnn")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("agent=dqnn: unknown option - did you mean 'dqn'?")
    assert not list(tmp_path.iterdir())
