"""The program as users run it: real processes, real folders, exit codes."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pexpect
import pytest
from conftest import TINY

ROOT = Path(__file__).parent.parent
FILES = {".hydra", ".lock", "checkpoints", "train.log", "metrics.csv", "episodes.csv", "summary.json"}


def train(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "train.py"), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def run_folders(cwd: Path) -> list[Path]:
    return sorted(path.parent for path in cwd.rglob("summary.json"))


def test_a_run_leaves_one_complete_folder_and_says_where(tmp_path: Path) -> None:
    done = train(tmp_path, "agent=dqn", "buffer=per", "net=dueling", "seeds=8", *TINY[1:], TINY[0])
    assert done.returncode == 0, done.stderr
    (folder,) = run_folders(tmp_path)
    assert folder.parent.parent == tmp_path / "outputs"
    assert folder.name.endswith("_cartpole_dqn-per-dueling")
    seeds = {f"seed={seed}" for seed in range(8)}
    assert {path.name for path in folder.iterdir()} == FILES | seeds
    first, *_, last = done.stdout.splitlines()
    facts = ["CartPole-v1", "x 8 seed(s)", "cpu", "not compiled (compile=auto", "replay"]
    for fact in (*facts, f"tensorboard --logdir {folder}"):
        assert fact in first
    assert "IQM" in done.stdout
    assert "env steps/s over all seeds" in last


@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_a_sweep_leaves_a_complete_folder_for_every_job(tmp_path: Path, launcher: str) -> None:
    sweep = ["agent=dqn,ddqn", "buffer=uniform,per", "seed=0,1", f"hydra/launcher={launcher}"]
    done = train(tmp_path, "--multirun", *sweep, *TINY)
    assert done.returncode == 0, done.stderr
    folders = run_folders(tmp_path)
    assert len(folders) == 8
    for folder in folders:
        assert {path.name for path in folder.iterdir()} >= FILES
        assert json.loads((folder / "summary.json").read_text())["status"] == "finished"


def test_a_failing_job_does_not_stop_a_sweep_but_its_exit_code_tells(tmp_path: Path) -> None:
    done = train(tmp_path, "--multirun", "buffer.capacity=999999999999,210", *TINY[:1], *TINY[2:])
    assert done.returncode != 0
    assert "need" in done.stderr


def test_an_invalid_config_exits_2_with_one_line_per_problem_and_writes_nothing(
    tmp_path: Path,
) -> None:
    done = train(tmp_path, "agent.gamma=2", "train.batch_size=0", "+agent.typo=1")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "agent.gamma=2.0: must be a number in [0, 1]",
        "agent.typo: unknown key (one of: gamma, loss, n_step, name, target)",
        "train.batch_size=0: must be an integer >= 1",
    ]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("override", ["agent=dqnn", "agent.gama=1", "optim.lr=abc"])
def test_a_config_that_does_not_compose_exits_2_and_writes_nothing(
    tmp_path: Path, override: str
) -> None:
    done = train(tmp_path, override)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_failing_run_exits_1(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").mkdir()  # in the way of the file
    done = train(tmp_path, f"hydra.run.dir={tmp_path}", *TINY)
    assert done.returncode == 1


def test_help_is_quick_and_imports_nothing_heavy(tmp_path: Path) -> None:
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(ROOT / "train.py"), "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert time.perf_counter() - started < 5.0
    assert "agent.gamma" in done.stdout
    imported = {line.rsplit("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "hydra" in imported
    assert not imported & {"torch", "tensorboard", "scipy", "gymnasium", "numpy"}


def test_cfg_job_shows_the_composed_config(tmp_path: Path) -> None:
    done = train(tmp_path, "--cfg", "job", "buffer=per", "seeds=8")
    assert done.returncode == 0
    assert "alpha: 0.6" in done.stdout
    assert "seeds: 8" in done.stdout


def test_bash_completes_groups_and_options() -> None:
    shell = pexpect.spawn("bash --norc", encoding="utf-8", cwd=str(ROOT), timeout=20)
    shell.sendline(f'export PATH="{Path(sys.executable).parent}:$PATH"')
    shell.sendline('eval "$(python train.py -sc install=bash)"; echo rea""dy')
    shell.expect_exact("ready")
    shell.send("python train.py agent=dd\t")
    shell.expect_exact("agent=ddqn")
    shell.send(" net=du\t")
    shell.expect_exact("net=dueling")
    shell.close(force=True)


def test_a_users_module_registers_parts_without_editing_the_package(tmp_path: Path) -> None:
    (tmp_path / "my_parts.py").write_text(
        "from dqn_exp.exploration import EpsilonGreedy\n"
        "from dqn_exp.registry import register\n"
        "@register('exploration', 'stairs')\n"
        "class Stairs(EpsilonGreedy):\n"
        "    def __init__(self, context, *, height: float):\n"
        "        super().__init__(context)\n"
        "        self.height = height\n"
        "    def rate(self, step, episode):\n"
        "        return 0.5 if step < 100 else self.height\n"
    )
    (tmp_path / "conf" / "exploration").mkdir(parents=True)
    (tmp_path / "conf" / "exploration" / "stairs.yaml").write_text("name: stairs\nheight: 0.125\n")
    os.environ["PYTHONPATH"] = str(tmp_path)
    try:
        mine = ["--config-dir", str(tmp_path / "conf"), "plugins=[my_parts]", "exploration=stairs"]
        done = train(tmp_path, *mine, *TINY)
        typo = train(tmp_path, *mine, *TINY, "+exploration.heigth=1")
    finally:
        del os.environ["PYTHONPATH"]
    assert done.returncode == 0, done.stderr
    (folder,) = run_folders(tmp_path)
    assert "0,300,train/epsilon,0.125" in (folder / "metrics.csv").read_text()
    assert typo.returncode == 2
    assert "did you mean 'height'?" in typo.stderr
