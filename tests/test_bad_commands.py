"""Bad command lines and bad ways to go on: refused as a whole, and nothing is written."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TINY

from dqn_exp import config
from dqn_exp.experiment import Experiment
from dqn_exp.registry import ConfigError

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of 300 steps."""
    folder = tmp_path_factory.mktemp("run")
    Experiment(config.compose(*TINY, "env.backend=native"), folder).run()
    return folder


@pytest.mark.parametrize(
    ("overrides", "messages"),
    [
        ("resume=null", ["holds a run already; resume=auto goes on with it"]),
        ("resume=/no/such/folder", ["resume=/no/such/folder: neither auto nor a checkpoint of this"]),
        ("resume=true", ["resume=True: neither auto"]),
        ("total_steps=240", ["total_steps=240: 300 have been made already"]),
        (
            "total_steps=600 agent.gamma=0.9 seeds=2 net.hidden=[17] log.every=9",
            [
                "agent.gamma=0.9: the run began with 0.995; when it goes on, only total_steps, log.*,",
                "seeds=2: the run began with 1;",
                "net.hidden=[17]: the run began with [16];",
            ],
        ),
    ],
)
def test_a_run_does_not_go_on_as_another(finished: Path, overrides: str, messages: list[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    overrides = f"env.backend=native resume=auto {overrides}"
    checked = config.compose(*TINY, *overrides.split())
    with pytest.raises(ConfigError) as caught:
        Experiment(checked, finished)
    assert not [m for m in messages if m not in str(caught.value)], caught.value
    assert len(caught.value.problems) == len(messages)
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


@pytest.mark.parametrize("name", ["nowhere", "no_run", "no_run/checkpoints/step=100"])
def test_a_path_without_a_run_is_said_to_be_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / "no_run").mkdir()
    with pytest.raises(SystemExit) as caught:
        config.expanded([f"resume={tmp_path / name}"])
    assert caught.value.code == 2
    assert f"resume={tmp_path / name}: no run is there" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["no_run"]


def train(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "train.py"), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("overrides", "lines"),
    [
        (
            "optim.lr=nan checkpoint.every=0 +agent.typo=1",
            [
                "agent.typo: unknown key (one of: gamma, loss, n_step, name, target)",
                "optim.lr=nan: must be a number > 0",
                "checkpoint.every=0: must be an integer >= 1",
            ],
        ),
        ("seed=???", ["seed=???: must be set (first seed)"]),
        ("device=cuda:99", ["device=cuda:99: must be auto or one of those here: cpu"]),
        (
            "+env.kwargs._target_=os.system",
            ["env.kwargs._target_: parts are built by name, nothing else is called"],
        ),
        ("resume=nowhere", ["resume=nowhere: no run is there"]),
        ("env.id=Pendulum-v1", ["env.id=Pendulum-v1: actions are"]),
        ("buffer.capacity=9999999999999", ["buffer.capacity="]),
        ("agent=null", ["agent=null: must be one of: c51, ddqn"]),
        ("plugins=['']", ["plugins: cannot import ''"]),
    ],
)
def test_the_program_exits_with_2_a_line_for_each_problem_and_no_file(
    tmp_path: Path, overrides: str, lines: list[str]
) -> None:
    done = train(tmp_path, *overrides.split())
    assert done.returncode == 2
    assert "Traceback" not in done.stdout + done.stderr
    shown = done.stderr.splitlines()
    assert len(shown) == len(lines)
    assert all(seen.startswith(line) for seen, line in zip(sorted(shown), sorted(lines), strict=True))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("overrides", "message", "finish"),
    [
        ("agent.gamma=0.9,2", "agent.gamma=2.0: must be a number in [0, 1]", 1),
        ("agent=dqn,dqnn", "dqnn", 0),
    ],
)
def test_a_sweep_with_a_bad_value_exits_with_2(
    tmp_path: Path, overrides: str, message: str, finish: int
) -> None:
    done = train(tmp_path, "--multirun", *TINY, *overrides.split())
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(list(tmp_path.rglob("summary.json"))) == finish
