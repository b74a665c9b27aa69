"""The program as users run it: real processes, real folders, exit codes, and what they print."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest
from faulty import episode_seed
from helpers import PROGRAM, TINY, rows, summary, train

ROOT = PROGRAM.parent
FILES = {".hydra", ".lock", "checkpoints", "train.log", "metrics.csv", "episodes.csv", "summary.json"}
WIDTH = 100  # columns


class Done:
    """A run of the program in a folder of its own choice, and what it printed."""

    def __init__(self, cwd: Path):
        chosen = ["agent=dqn", "buffer=per", "net=dueling", "seeds=8", *TINY]
        self.cwd, self.process = cwd, train(cwd, *chosen)
        assert self.process.returncode == 0, self.process.stderr
        (self.folder,) = (path.parent for path in cwd.rglob("summary.json"))
        self.shown = str(self.folder.relative_to(cwd))
        self.lines = self.process.stdout.splitlines()


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    return Done(tmp_path_factory.mktemp("done"))


def test_a_run_leaves_one_complete_folder(done: Done) -> None:
    assert done.folder.parent.parent == done.cwd / "outputs"
    assert done.folder.name.endswith("_CartPole-v1_dqn-per-dueling")
    seeds = {f"seed={seed}" for seed in range(8)}
    assert {path.name for path in done.folder.iterdir()} == FILES | {"mean"} | seeds
    assert [path.name for path in done.cwd.iterdir()] == ["outputs"]


def test_a_run_begins_by_saying_what_it_is_and_names_its_folder_once(done: Done) -> None:
    evaluations = [i for i, line in enumerate(done.lines) if line.startswith("step ")]
    opening = done.lines[: evaluations[0]]
    facts = ["CartPole-v1", "0 to 7", "dqn", "dueling", "per", "cpu", "not compiled", "300 env steps"]
    for fact in facts:
        assert any(fact in line for line in opening), fact
    assert [line for line in opening if done.shown in line] == [f"folder  {done.shown}"]


def test_every_evaluation_prints_the_iqm_of_the_seeds_and_their_range(done: Done) -> None:
    number = r"(\d+\.\d)"
    pattern = re.compile(
        rf"step +(\d+)  greedy return {number} \({number} to {number}\)"
        rf"  training return {number} \({number} to {number}\)"
    )
    found = [m.groups() for line in done.lines if (m := pattern.fullmatch(line))]
    assert [int(step) for step, *_ in found] == [200, 300]
    metrics = rows(done.folder / "metrics.csv")
    for step, *numbers in found:
        greedy, low, high = map(float, numbers[:3])
        means = [
            float(row["value"])
            for row in metrics
            if (row["step"], row["tag"]) == (step, "eval/return_mean")
        ]
        assert len(means) == 8
        middle = sorted(means)[2:6]
        assert (low, high) == pytest.approx((min(means), max(means)), abs=0.051)
        assert greedy == pytest.approx(sum(middle) / 4, abs=0.051)


def test_a_run_ends_with_its_result_and_the_commands_that_follow(done: Done) -> None:
    found = summary(done.folder)
    low, high = found["objective_ci95"]
    iqm = f"IQM {found['objective']:.1f} over 8 seeds, 95 % CI [{low:.1f}, {high:.1f}]"
    assert iqm in done.lines
    for seed, score in zip(found["seeds"], found["final_returns"], strict=True):
        (line,) = (line for line in done.lines if re.match(rf"  seed {seed} ", line))
        assert f" {score:.1f} +- " in line
    *_, board, report, watch, resume = done.lines
    assert board == f"  tensorboard --logdir {done.shown}"
    assert report == f"  dqn-exp report {done.shown}"
    assert watch == f"  dqn-exp watch {done.shown}"
    assert resume == f"  python train.py resume={done.shown}"
    again = train(done.cwd, *shlex.split(resume)[2:])
    assert again.returncode == 0
    assert again.stdout == f"{done.shown} is finished: IQM {found['objective']:.1f}\n"


def test_no_line_of_a_run_is_wider_than_a_terminal_and_none_is_an_error(done: Done) -> None:
    assert done.process.stderr == ""
    assert [line for line in done.lines if len(line) > WIDTH] == []


def test_a_failing_run_exits_1(tmp_path: Path) -> None:
    fault = f"+env.kwargs={{fault:'step raises',bad:[{episode_seed(0, 3)}]}}"
    env = ["plugins=[faulty]", "env.id=Faulty-v0", fault, f"hydra.run.dir={tmp_path}"]
    done = train(tmp_path, *env, *TINY, PYTHONPATH=str(Path(__file__).parent))
    assert done.returncode == 1
    assert summary(tmp_path)["status"] == "failed"


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(PROGRAM), "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert "agent.gamma" in done.stdout
    imported = {line.rsplit("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "hydra" in imported
    assert not imported & {"torch", "tensorboard", "scipy", "gymnasium", "numpy"}


def test_cfg_job_shows_the_composed_config(tmp_path: Path) -> None:
    done = train(tmp_path, "--cfg", "job", "buffer=per", "buffer.alpha=0.75", "seeds=8")
    assert done.returncode == 0
    assert "alpha: 0.75" in done.stdout
    assert "seeds: 8" in done.stdout


def test_bash_completes_groups_and_options() -> None:
    shell = pexpect.spawn("bash --norc", encoding="utf-8", cwd=str(ROOT), timeout=60)
    shell.sendline(f'export PATH="{Path(sys.executable).parent}:$PATH"')
    shell.sendline('eval "$(python train.py -sc install=bash)"; echo rea""dy')
    shell.expect_exact("ready")
    shell.send("python train.py agent=dd\t")
    shell.expect_exact("agent=ddqn")
    shell.send(" net=du\t")
    shell.expect_exact("net=dueling")
    shell.close(force=True)


PLUGIN = """
from dqn_exp.config.schema import Exploration, config, key
from dqn_exp.exploration import EpsilonGreedy
from dqn_exp.registry import register

@config
class StairsConfig(Exploration):
    height: float = key("epsilon from step 100 on")

@register("exploration", "stairs")
class Stairs(EpsilonGreedy):
    config: StairsConfig

    def __init__(self, context, config):
        super().__init__(context, config)
        self.height = config.height

    def rate(self, step, episode):
        return 0.5 if step < 100 else self.height
"""


@pytest.mark.slow
def test_a_users_module_registers_parts_without_editing_the_package(tmp_path: Path) -> None:
    (tmp_path / "my_parts.py").write_text(PLUGIN)
    (tmp_path / "conf" / "exploration").mkdir(parents=True)
    (tmp_path / "conf" / "exploration" / "stairs.yaml").write_text("name: stairs\nheight: 0.125\n")
    mine = ["--config-dir", str(tmp_path / "conf"), "plugins=[my_parts]", "exploration=stairs"]
    done = train(tmp_path, *mine, *TINY, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    (metrics,) = tmp_path.rglob("metrics.csv")
    assert "0,300,train/epsilon,0.125" in metrics.read_text()
    typo = train(tmp_path, *mine, *TINY, "+exploration.heigth=1", PYTHONPATH=str(tmp_path))
    assert typo.returncode == 2
    assert "did you mean 'height'?" in typo.stderr


def test_a_plug_in_that_raises_is_a_failed_run_with_its_traceback(tmp_path: Path) -> None:
    broken = PLUGIN.replace("self.height = config.height", 'raise KeyError("no stairs")')
    (tmp_path / "my_parts.py").write_text(broken)
    mine = ["plugins=[my_parts]", "exploration.name=stairs", "+exploration.height=0.125"]
    gone = [f"~exploration.{key}" for key in ("start", "end", "decay_steps", "hold_steps")]
    mine += ["exploration=linear", *gone]
    done = train(tmp_path, *mine, *TINY, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1, done.stderr
    assert "my_parts.py" in done.stdout
    assert "KeyError: 'no stairs'" in done.stdout
