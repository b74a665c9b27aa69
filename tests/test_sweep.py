"""Sweeps: one job's failure is its own, names of folders, the table at the end, exit codes."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
from helpers import TINY, summary, train

from dqn_exp.sweeps.status import Job, exit_code, jobs, table

FILES = {".hydra", ".lock", "checkpoints", "train.log", "metrics.csv", "episodes.csv", "summary.json"}
# Keys that a sweep does not vary: 20 with those of TINY.
FIXED = [
    *TINY,
    "env.max_episode_steps=400",
    "agent.gamma=0.97",
    "agent.n_step=3",
    "agent.target.tau=0.01",
    "optim.weight_decay=0.0",
    "exploration.start=0.9",
    "exploration.end=0.1",
    "train.every=4",
    "checkpoint.every=null",
    "device=cpu",
    "threads=1",
]


def ended(folder: Path) -> dict[str, str]:
    """How the jobs ended, by the names of their folders."""
    return {p.parent.name: summary(p.parent)["status"] for p in sorted(folder.glob("*/summary.json"))}


def test_one_failing_and_some_refused_jobs_leave_the_others_alone_and_are_named_in_the_end(
    tmp_path: Path,
) -> None:
    swept = ["optim.lr=1e29,0.003", "buffer.capacity=210,999999999999", "hydra.sweep.dir=here"]
    fixed = [text for text in TINY if "capacity" not in text]
    done = train(tmp_path, "--multirun", *swept, *fixed, "seeds=3")
    assert done.returncode == 1, done.stderr
    assert ended(tmp_path / "here") == {
        "0_lr=1e+29,capacity=210": "failed",
        "1_lr=1e+29,capacity=999999999999": "refused",
        "2_lr=0.003,capacity=210": "finished",
        "3_lr=0.003,capacity=999999999999": "refused",
    }
    lines = done.stdout.splitlines()
    (at,) = (i for i, line in enumerate(lines) if line == "4 jobs in here, best first:")
    found = [" ".join(line.split()) for line in lines[at + 1 : at + 6]]
    best = summary(tmp_path / "here/2_lr=0.003,capacity=210")
    low, high = best["objective_ci95"]
    assert found[0] == "lr IQM 95 % CI state"
    assert found[1] == f"2 0.003 {best['objective']:.1f} [{low:.1f}, {high:.1f}] finished"
    assert found[2].startswith("0 1e+29 failed FloatingPointError('env step ")
    reason = "buffer.capacity=999999999999: needs "
    assert found[3].startswith(f"1 refused lr=1e+29,capacity=999999999999: {reason}")
    assert found[4].startswith(f"3 refused lr=0.003,capacity=999999999999: {reason}")
    assert lines[at + 6 :] == [
        "  tensorboard --logdir here",
        "  dqn-exp report here",
        "  dqn-exp sweep here --failed",
    ]
    assert len([line for line in done.stderr.splitlines() if line.startswith(reason)]) == 2


@pytest.mark.parametrize("launcher", ["basic", pytest.param("joblib", marks=pytest.mark.slow)])
def test_a_sweep_leaves_a_folder_for_every_job_named_by_what_varies(
    tmp_path: Path, launcher: str
) -> None:
    if launcher == "joblib":
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    assert len(FIXED) == 20
    sweep = ["agent=dqn,ddqn", "seed=0,1", f"hydra/launcher={launcher}", "hydra.sweep.dir=here"]
    done = train(tmp_path, "--multirun", *sweep, *FIXED)
    assert done.returncode == 0, done.stderr
    pairs = [(agent, seed) for agent in ("dqn", "ddqn") for seed in (0, 1)]
    names = [f"{i}_agent={agent},seed={seed}" for i, (agent, seed) in enumerate(pairs)]
    assert ended(tmp_path / "here") == dict.fromkeys(names, "finished")
    for name, (_, seed) in zip(names, pairs, strict=True):
        files = {path.name for path in (tmp_path / "here" / name).iterdir()}
        assert files == FILES | {f"seed={seed}"}


LONG = {
    "a long value": f"{'a' * 300},{'b' * 300}",
    "letters of three bytes": f"'{'の' * 90}','{'字' * 90}'",
    "slashes and dots": "a/../../b,/etc/passwd",
    "quotes and spaces": "'a \"b',' '",
}


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(values, id=name, marks=[pytest.mark.slow] * (name != "letters of three bytes"))
        for name, values in LONG.items()
    ],
)
def test_a_jobs_folder_has_a_short_name_of_its_own_directly_in_that_of_the_sweep(
    tmp_path: Path, values: str
) -> None:
    sweep = [f"agent.loss={values}", "hydra.sweep.dir=here"]
    done = train(tmp_path, "--multirun", *sweep, *TINY)
    assert done.returncode == 2, done.stderr
    names = sorted(path.name for path in (tmp_path / "here").iterdir() if path.is_dir())
    assert sorted(ended(tmp_path / "here")) == names
    assert [name[:7] for name in names] == ["0_loss=", "1_loss="]
    assert max(len(name.encode()) for name in names) <= 100
    assert len([line for line in done.stdout.splitlines() if "  refused  " in line]) == 2


@pytest.mark.slow
def test_the_names_of_jobs_that_vary_in_twenty_keys_end_in_a_hash_of_all(tmp_path: Path) -> None:
    pairs = [text.split("=") for text in FIXED if "null" not in text]
    swept = [f"{key}=choice({value})" for key, value in pairs]
    for seed in (0, 1):
        done = train(tmp_path, "--multirun", *swept, f"seed=choice({seed})", "hydra.sweep.dir=here")
        assert done.returncode == 0, done.stderr
    names = sorted(ended(tmp_path / "here"))
    assert len(names) == 2  # the last of the keys is in the hash only
    assert names[0][:90] == names[1][:90]
    assert all(re.fullmatch(r"0_total_steps=300,.{1,90}-[0-9a-f]{8}", name) for name in names)
    assert {len(name) for name in names} == {100}


def _damaged(folder: Path) -> None:
    """Jobs whose files are not what a run has written."""
    contents = {
        "1_empty": b"",
        "2_list": b"[]",
        "3_not_json": b"{",
        "4_not_utf8": b"\xff\xfe",
        "5_deep": b"[" * 100_000,
        "6_types": b'{"status": 5, "objective": "x", "objective_ci95": [1, "a"], "error": [1]}',
        "7_numbers": b'{"status": "failed", "objective": NaN, "objective_ci95": 5, "error": "\\u001b"}',
        "8_large_number": b'{"status": "finished", "objective": 1' + b"0" * 4000 + b"}",
    }
    for name, content in contents.items():
        (folder / name / ".hydra").mkdir(parents=True)
        (folder / name / "summary.json").write_bytes(content)
        (folder / name / ".hydra/config.yaml").write_bytes(content)
    for name in ("10_pipe", "11_link", "12_folder", "13_huge", "14_aliases", "15_odd_keys"):
        (folder / name / ".hydra").mkdir(parents=True)
    os.mkfifo(folder / "10_pipe/summary.json")
    os.mkfifo(folder / "10_pipe/.hydra/config.yaml")
    (folder / "11_link/summary.json").symlink_to("/dev/zero")
    (folder / "12_folder/summary.json").mkdir()
    with (folder / "13_huge/summary.json").open("wb") as file:
        file.truncate(1 << 40)
    layers = "\n".join(f"a{i + 1}: &a{i + 1} {{x: *a{i}, y: *a{i}}}" for i in range(40))
    (folder / "14_aliases/.hydra/config.yaml").write_text(f"a0: &a0 {{z: 1}}\n{layers}\n")
    (folder / "15_odd_keys/.hydra/config.yaml").write_text(f"{{1: 2, null: 3, n: 0x{'f' * 5000}}}")
    (folder / "16_link").symlink_to(folder / "1_empty")
    (folder / ("9" * 200)).mkdir()
    (folder / "17_file").write_text("")


def test_damaged_files_of_jobs_count_as_lost_and_do_not_stop_the_table(tmp_path: Path) -> None:
    _damaged(tmp_path)
    found = jobs(tmp_path)
    states = {job.number: job.state for job in found}
    assert states == {
        **dict.fromkeys([*range(1, 7), *range(10, 16)], "lost"),
        7: "failed",
        8: "finished",
    }
    lines = table(found)
    assert len(lines) == len(found) + 1
    assert all(line.isprintable() for line in lines)
    assert exit_code(found) == 1


def job(number: int, status: str, objective: float | None = None, **config: Any) -> Job:
    found: dict[str, Any] = {"status": status, "objective": objective}
    if status in ("failed", "refused"):
        found["error"] = "too large\nand more"
    if objective is not None:
        found["objective_ci95"] = [objective - 1, objective + 1]
    keys = {key.replace("_of_", "."): value for key, value in config.items()}
    return Job(Path(f"sweep/{number}_swept={number}"), keys, found)


def test_the_table_has_a_column_for_each_key_that_varies_by_its_shortest_clear_name() -> None:
    found = [
        job(1, "finished", 20.5, seed=0, agent_of_name="dqn", buffer_of_alpha=1, optim_of_alpha=3),
        job(0, "finished", 7.25, seed=0, agent_of_name="c51", buffer_of_alpha=2, optim_of_alpha=4),
        job(2, "running", None, seed=0, agent_of_name="iqn", buffer_of_alpha=2, optim_of_alpha=4),
        job(3, "refused"),
    ]
    assert [re.split(r"  +", line.strip()) for line in table(found)] == [
        ["agent", "buffer.alpha", "optim.alpha", "IQM", "95 % CI", "state"],
        ["1", "dqn", "1", "3", "20.5", "[19.5, 21.5]", "finished"],
        ["0", "c51", "2", "4", "7.2", "[6.2, 8.2]", "finished"],
        ["2", "iqn", "2", "4", "lost"],
        ["3", "refused", "swept=3: too large"],
    ]


@pytest.mark.parametrize(
    ("states", "code"),
    [
        (["finished", "finished"], 0),
        (["finished", "failed", "interrupted", "refused"], 1),
        (["finished", "running", "interrupted"], 1),
        (["finished", "interrupted", "refused"], 75),
        (["finished", "refused"], 2),
    ],
)
def test_the_exit_code_of_a_sweep_is_that_of_its_worst_job(states: list[str], code: int) -> None:
    assert exit_code([job(i, state) for i, state in enumerate(states)]) == code
