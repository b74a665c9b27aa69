"""`resume=<folder>` continues with the run's own config, changed only by what was typed."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers import sign, tiny_run, train

from dqn_exp import build, compose
from dqn_exp.config import typed
from dqn_exp.config.problems import ConfigError
from dqn_exp.run.folder import changes

OWN = ["agent=c51", "net=dueling", "net.stream_hidden=[8]", "optim=sgd", "optim.lr=0.007", "seed=3"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose config has little in common with the default one."""
    folder = tmp_path_factory.mktemp("resume") / "run"
    tiny_run(folder, *OWN).run()
    return folder


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


def own(folder: Path) -> dict[str, Any]:
    """The config of a run, as its checkpoint has it."""
    text = (folder / "checkpoints/step=300/manifest.json").read_text()
    return json.loads(text)["manifest"]["config"]


@pytest.mark.parametrize(
    ("typed_now", "changed"),
    [
        ([], {}),
        (["total_steps=900"], {"total_steps": 900}),  # no count shrinks or grows with it
        (["agent.gamma=0.5", "log.every=7"], {"agent.gamma": 0.5, "log.every": 7}),
        (["agent.target={tau:1,every:5}"], {"agent.target.tau": 1.0, "agent.target.every": 5}),
        (["buffer.capacity=2k", "eval.solved=null"], {"buffer.capacity": 2000}),
    ],
    ids=str,
)
@pytest.mark.parametrize("named", ["", "checkpoints/step=300"])
def test_only_what_was_typed_differs_from_the_runs_own_config(
    finished: Path, named: str, typed_now: list[str], changed: dict[str, Any]
) -> None:
    config = compose(f"resume='{finished / named}'", *typed_now)  # quoted, for its second =
    differ = {key: now for key, (_, now) in changes(own(finished), config).items()}
    assert differ.pop("resume") == str(finished / named)
    assert differ == changed


def test_a_group_that_was_typed_replaces_the_runs_own(finished: Path) -> None:
    config = compose(f"resume={finished}", "optim=adam", "optim.lr=0.25")
    assert config.optim == compose("optim=adam", "optim.lr=0.25").optim
    assert typed.plain(config)["agent"] == own(finished)["agent"]


@pytest.mark.parametrize(
    ("changes_", "key"),
    [
        ({"env": {"kwargs": {"a": "${oc.env:DQN_EXP_SECRET}"}}}, "env.id=CartPole-v1: TypeError"),
        ({"net": {"activation": "${oc.env:DQN_EXP_SECRET}"}}, "net.activation"),
        ({"seed": "${oc.env:DQN_EXP_SECRET}"}, "seed"),
        ({"agent": {"gamma": "${oc.decode:1}"}}, "agent.gamma"),
        ({"agent": {"_target_": "os.system"}}, "agent._target_"),
        ({"env": {"kwargs": {"_target_": "os.system"}}}, "env.kwargs._target_"),
        ({"hydra": {"run": {"dir": "elsewhere"}}}, "hydra"),
        ({"defaults": ["agent: dqn"]}, "defaults"),
    ],
    ids=str,
)
def test_a_saved_config_is_text_that_nothing_interprets(
    copy: Path, monkeypatch: pytest.MonkeyPatch, changes_: dict[str, Any], key: str
) -> None:
    monkeypatch.setenv("DQN_EXP_SECRET", "4321")
    config = own(copy)
    for name, value in changes_.items():
        before = config.get(name)
        config[name] = before | value if isinstance(before, dict) else value
    sign(copy / "checkpoints/step=300", config=config)
    with pytest.raises(ConfigError) as caught:
        build(compose(f"resume={copy}"))
    (line,) = map(str, caught.value.problems)
    assert line.startswith(key)
    assert "4321" not in line


def test_the_program_does_not_interpret_a_saved_config_either(copy: Path) -> None:
    config = own(copy)
    config["net"]["activation"] = "${oc.env:DQN_EXP_SECRET}"
    sign(copy / "checkpoints/step=300", config=config)
    before = sorted(copy.parent.rglob("*"))
    done = train(copy.parent, "resume=run", "total_steps=400", DQN_EXP_SECRET="relu")
    assert done.returncode == 2
    assert done.stderr.startswith("net.activation=${oc.env:DQN_EXP_SECRET}: ")
    assert len(done.stderr.splitlines()) == 1
    assert sorted(copy.parent.rglob("*")) == before


def test_a_run_resumed_with_auto_for_longer_keeps_its_scaled_step_counts(tmp_path: Path) -> None:
    short = ["hydra.run.dir=mine", "resume=auto", "train.batch_size=16", "eval.final_episodes=20"]
    assert train(tmp_path, *short, "total_steps=300").returncode == 0
    done = train(tmp_path, *short, "total_steps=400")
    assert done.returncode == 0, done.stderr
    assert "changed: total_steps=400, was 300" in done.stdout
