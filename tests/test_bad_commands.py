"""Bad command lines: refused as a whole, a line for each problem, and nothing is written."""

import re
from pathlib import Path

import pytest
from helpers import TINY, summary, tiny, train

from dqn_exp.config.compose import compose
from dqn_exp.config.problems import ConfigError


def refused(*overrides: str, config_dir: Path | None = None) -> list[str]:
    """The lines that are said of overrides on top of those of a tiny run."""
    given = {text.partition("=")[0] for text in overrides}
    rest = [text for text in TINY if text.partition("=")[0] not in given]
    with pytest.raises(ConfigError) as caught:
        compose(*rest, *overrides, config_dir=config_dir)
    return [str(problem) for problem in caught.value.problems]


OTHERS = [
    ("~seed", ["seed: must be set (first seed)"]),
    ("~agent", ["agent: must be set (learning rule)"]),
    ("~agent.gamma", ["agent.gamma: must be set (discount factor per env step)"]),
    ("seed=1 seed=2", ["seed: given twice"]),
    ("agent=dqn agent=ddqn seed=1 seed=2", ["agent: given twice", "seed: given twice"]),
    ("agent=null", ["agent=null: unknown option (one of: "]),
    ("experiment=null", ["experiment=null: unknown option (one of: "]),
    ("train=null", ["train=null: must be a group of keys: batch_size, learning_starts, every,"]),
    ("env.wrappers=[3]", ["env.wrappers.0=3: must name a wrapper: {name: ...}"]),
    ("env.wrappers=3", ["env.wrappers=3: must be a list: [{name: ...}, ...]"]),
    (
        "env.wrappers=[{name:scale_reward}]",
        ["env.wrappers.0.factor: must be set (what rewards are multiplied by)"],
    ),
    ("compile=null", ["compile=null: must be auto, true or false"]),
    ("seed=1,2", ["config: Ambiguous value for argument 'seed=1,2'"]),
    ("seed==1", ["seed==1: cannot be read: "]),
    ("+seed=5", ["config: Could not append to config. An item is already at 'seed'."]),
    ("agent.gamma=${no_such}", ["agent.gamma: Interpolation key 'no_such' not found"]),
    ("plugins=['']", ["plugins=: cannot be imported: ValueError: Empty module name"]),
    (
        "plugins=[no_such_a,no_such_b]",
        [
            "plugins=no_such_a: cannot be imported: ModuleNotFoundError: No module",
            "plugins=no_such_b: cannot be imported: ModuleNotFoundError: No module",
        ],
    ),
    (
        "agent=dqn agent.name=c51",
        [
            "agent.loss: unknown key (one of: atoms, double, gamma, n_step, name,",
            *(f"agent.{key}: must be set (" for key in ("double", "atoms", "v_min", "v_max")),
        ],
    ),
]


@pytest.mark.parametrize(("overrides", "lines"), OTHERS)
def test_each_problem_has_a_line_of_its_own(overrides: str, lines: list[str]) -> None:
    said = refused(*overrides.split())
    assert len(said) == len(lines), said
    assert all(seen.startswith(line) for seen, line in zip(said, lines, strict=True)), said


TOGETHER = [
    (
        "agent.target.every=10 agent.target.episodes=2",
        "agent.target.episodes=2: cannot be set together",
    ),
    ("agent=c51 agent.v_min=5 agent.v_max=5", "agent.v_min=5.0: must be below agent.v_max=5.0"),
    (
        "buffer=per buffer.beta_start=0.9 buffer.beta_end=0.1",
        "buffer.beta_start=0.9: must be at most buffer.beta_end=0.1",
    ),
    (
        "exploration=linear exploration.start=0.1 exploration.end=0.5",
        "exploration.end=0.5: must be at most exploration.start=0.1",
    ),
    (
        "exploration=boltzmann exploration.start=0.1 exploration.end=0.5",
        "exploration.end=0.5: must be at most exploration.start=0.1",
    ),
    ("train.stop.successes=3", "train.stop.successes=3: must be set together with train.stop.success_"),
    ("train.stop.success_return=3", "train.stop.successes=null: must be set together with train.stop."),
    ("train.learning_starts=10", "train.learning_starts=10: must be at least train.batch_size=16"),
    ("train.learning_starts=300", "train.learning_starts=300: must be below total_steps=300"),
    ("eval.final_episodes=3", "eval.final_episodes=3: must be a multiple of eval.episodes=2"),
    ("env.n=7 buffer.capacity=210", "total_steps=300: must be a multiple of env.n=7"),
    ("env.n=4 buffer.capacity=210", "buffer.capacity=210: must be a multiple of env.n=4"),
    ("buffer.capacity=15 agent.n_step=1", "buffer.capacity=15: must be at least train.batch_size=16"),
    ("agent.n_step=210", "agent.n_step=210: must be below the 210 time steps that the buffer stores"),
    ("agent.n_step=21 env.n=10", "agent.n_step=21: must be below the 21 time steps"),
]


@pytest.mark.parametrize(("overrides", "line"), TOGETHER)
def test_values_that_make_no_sense_together_are_refused(overrides: str, line: str) -> None:
    (said,) = refused(*overrides.split())
    assert said.startswith(line)


def test_problems_at_every_level_are_listed_in_one_go() -> None:
    overrides = (
        "agent=c51 agent.v_min=1 agent.v_max=-1 agent.n_step=210 buffer=per buffer.beta_start=0.9 "
    )
    overrides += "buffer.beta_end=0.1 +net.typo=1 agent.target={every:1,episodes:1} env.n=7 "
    overrides += "train.stop.successes=1 train.learning_starts=300 eval.final_episodes=3"
    said = refused(*overrides.split())
    assert {line.partition(":")[0] for line in said} == {
        "agent.v_min=1.0", "agent.target.episodes=1", "agent.n_step=210", "buffer.beta_start=0.9",
        "net.typo", "total_steps=300", "train.stop.successes=1", "train.learning_starts=300",
        "eval.final_episodes=3",
    }  # fmt: skip
    assert len(said) == 9


def test_unknown_options_and_keys_do_not_hide_bad_values() -> None:
    said = refused("agent=dqnn", "typo=2", "agent.gamma=2", "+buffer.typo=1", "optim.lr=abc", "seed==1")
    assert {re.split("[=:]", line)[0] for line in said} == {
        "agent", "typo", "agent.gamma", "buffer.typo", "optim.lr", "seed",
    }  # fmt: skip
    assert len(said) == 6


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("+env.kwargs._target_=os.system", "env.kwargs._target_"),
        ("+env.kwargs.a._partial_=true", "env.kwargs.a._partial_"),
        ("+env.kwargs.a=[{_args_:[1]}]", "env.kwargs.a.0._args_"),
        ("+agent._target_=os.system", "agent._target_"),
        ("agent._target_=os.system", "agent._target_"),
        ("+agent.target._target_=os.system", "agent.target._target_"),
        ("+train.stop._recursive_=true", "train.stop._recursive_"),
        ("+_target_=os.system", "_target_"),
        ("_target_=os.system", "_target_"),
        (
            "env.wrappers=[{name:scale_reward,factor:2,_target_:os.system}]",
            "env.wrappers.0._target_",
        ),
    ],
)
def test_a_config_cannot_call_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, override: str, key: str
) -> None:
    monkeypatch.chdir(tmp_path)
    said = refused(override, "+env.kwargs.command='touch canary'")
    assert said == [f"{key}: parts are built by name; nothing else is called"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e4", 10_000), ("10k", 10_000), ("10_000", 10_000), ("0.5M", 500_000), ("2.5e3", 2500)],
)
def test_counts_may_be_written_short(text: str, value: int) -> None:
    config = tiny(f"total_steps={text}", f"buffer.capacity={text}", f"eval.every={text}")
    assert (config.total_steps, config.buffer.capacity, config.eval.every) == (value, value, value)


@pytest.mark.parametrize("text", ["1.5", "0.0001k", "1e-1", "k", "10K", "1e4k5", "1,5k", "ten"])
def test_counts_that_are_not_whole_are_refused(text: str) -> None:
    (said,) = refused(f"buffer.capacity='{text}'")
    assert said == f"buffer.capacity={text}: must be an integer >= 1"


def test_a_folder_of_config_groups_that_is_not_there_is_refused(tmp_path: Path) -> None:
    (said,) = refused("seed=1", config_dir=tmp_path / "nowhere")
    assert said == f"config_dir={tmp_path / 'nowhere'}: no such folder"


PROGRAM = [
    (
        "agent=dqnn optim.lr=nan checkpoint.every=0 buffer=uniform +buffer.typo=1",
        [
            "agent=dqnn: unknown option - did you mean 'dqn'?",
            "buffer.typo: unknown key (one of: capacity, name)",
            "checkpoint.every=0: must be null or an integer >= 1",
            "optim.lr=nan: must be finite",
        ],
    ),
    ("agent.gamma=2", ["agent.gamma=2: must be a number in [0, 1]"]),
    ("~seed", ["seed: must be set (first seed)"]),
    ("seed=1 seed=2", ["seed: given twice"]),
    ("experiment=null", ["experiment=null: unknown option"]),
    ("+env.kwargs._target_=os.system", ["env.kwargs._target_: parts are built by name"]),
    ("resume=nowhere", ["resume=nowhere: no undamaged checkpoint in "]),
    ("device=cuda:99", ["device=cuda:99: must be auto or a device of this machine: cpu"]),
    ("env.id=Pendulum-v1", ["env.id=Pendulum-v1: actions are"]),
    ("buffer.capacity=9999999999999", ["buffer.capacity=9999999999999: needs "]),
    ("--config-dir nowhere", ["config_dir=nowhere: no such folder"]),
    ("--config-name other", ["config: Cannot find primary config 'other'."]),
    ("--multirun agent=dqn,dqnn", ["agent=dqnn: unknown option - did you mean 'dqn'?"]),
    ("--multirun sede=1,2 agent=null", ["agent=null: unknown option", "sede: unknown key - did you"]),
]


@pytest.mark.parametrize(("arguments", "lines"), PROGRAM, ids=[arguments for arguments, _ in PROGRAM])
def test_the_program_exits_with_2_a_line_for_each_problem_and_no_file(
    tmp_path: Path, arguments: str, lines: list[str]
) -> None:
    done = train(tmp_path, *arguments.split())
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    said = sorted(done.stderr.splitlines())
    assert len(said) == len(lines), done.stderr
    assert all(seen.startswith(line) for seen, line in zip(said, sorted(lines), strict=True)), said
    assert not list(tmp_path.iterdir())


def test_a_run_folder_that_cannot_be_created_is_a_problem_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = train(tmp_path, "hydra.run.dir=file/run")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("run folder=file")
    assert line.endswith(": cannot be created: Not a directory")
    assert [path.name for path in tmp_path.rglob("*")] == ["file"]


def test_a_sweep_refuses_some_of_its_jobs_and_runs_the_others(tmp_path: Path) -> None:
    arguments = ["hydra.sweep.dir=here", "env.backend=native", "agent.gamma=0.9,2,x"]
    done = train(tmp_path, "--multirun", *TINY, *arguments)
    assert done.returncode == 2
    lines = [f"agent.gamma={value}: must be a number in [0, 1]" for value in ("2", "x")]
    assert done.stderr.splitlines() == lines
    assert "Traceback" not in done.stdout
    ended = {path.parent.name: summary(path.parent) for path in tmp_path.rglob("summary.json")}
    assert {name: said["status"] for name, said in ended.items()} == {
        "0_gamma=0.9": "finished",
        "1_gamma=2": "refused",
        "2_gamma=x": "refused",
    }
    assert [ended[name]["error"] for name in ("1_gamma=2", "2_gamma=x")] == lines
    for name in ("1_gamma=2", "2_gamma=x"):
        assert [path.name for path in (tmp_path / "here" / name).iterdir()] == ["summary.json"]
        said = [" ".join(line.split()) for line in done.stdout.splitlines()]
        assert any(f"refused {name[2:]}: {lines[0][:11]}" in line for line in said)


@pytest.mark.slow
def test_a_sweep_does_not_write_over_the_runs_in_its_folder(tmp_path: Path) -> None:
    arguments = ["--multirun", *TINY, "hydra.sweep.dir=here", "env.backend=native", "seed=5"]
    assert train(tmp_path, *arguments).returncode == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    again = train(tmp_path, *arguments)
    assert again.returncode == 2
    assert "contains a run; resume=auto continues it, or choose another folder" in again.stderr
    assert "Traceback" not in again.stderr
    assert {path: path.read_bytes() for path in before} == before


ENDS = """
import sys
import dqn_exp
from dqn_exp.agents.dqn import DQN

@dqn_exp.register("agent", "ends")
class Ends(DQN):
    def __init__(self, context, config):
        sys.exit(0)
"""


@pytest.mark.parametrize(
    ("code", "exit_code", "line"),
    [
        ("import sys; sys.exit(0)", 2, "plugins=mine: cannot be imported: SystemExit: 0"),
        (ENDS, 1, "RuntimeError: a part has called sys.exit(0)"),
    ],
    ids=["exits when it is imported", "exits when it is built"],
)
def test_a_plug_in_that_ends_the_process_is_never_a_success(
    tmp_path: Path, code: str, exit_code: int, line: str
) -> None:
    (tmp_path / "mine.py").write_text(code)
    arguments = ["plugins=[mine]", "agent=dqn", *(["agent.name=ends"] if code is ENDS else [])]
    done = train(tmp_path, *TINY, *arguments, PYTHONPATH=str(tmp_path), PYTHONDONTWRITEBYTECODE="1")
    assert done.returncode == exit_code
    assert line in (done.stdout if exit_code == 1 else done.stderr).splitlines()
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]
