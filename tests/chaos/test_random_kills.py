"""Random configs x random signals at random moments x ways to resume: no bit differs in the end.

`DQN_EXP_CASES=300 pytest -m slow tests/chaos/test_random_kills.py` tries 300 cases, numbered from
`DQN_EXP_FIRST`; the number of a case is all that it depends on, beside the moments of its signals.
"""

import os
import random
import shutil
import signal
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
from forks import start
from helpers import latest, options, result, summary
from runs import SMALL, logged

FIRST = int(os.environ.get("DQN_EXP_FIRST", "0"))
CASES = int(os.environ.get("DQN_EXP_CASES", "10"))
KINDS = ["KILL", "TERM", "INT", "USR1", "STOP CONT", "TERM TERM", "STOP TERM CONT", "all"]
ENDS = {0: "finished", 75: "interrupted"}
LIMIT = 300.0  # seconds that a process may take


def config(draw: random.Random) -> list[str]:
    """Random parts and counts of a run of about a second, whose buffer wraps around."""
    one = draw.choice
    n = one([1, 1, 2])
    overrides = [
        *SMALL,
        "train.learning_starts=100",
        "buffer.capacity=300",
        "env.max_episode_steps=120",
        f"agent={one(options('agent'))}",
        f"buffer={one(options('buffer'))}",
        f"net={one(options('net'))}",
        f"exploration={one(options('exploration'))}",
        f"optim={one(options('optim'))}",
        f"seed={draw.randrange(1000)}",
        f"seeds={one([1, 2])}",
        f"env.n={n}",
        f"agent.n_step={one([1, 3])}",
        f"train.every={one([1, 2, 5, 8])}",
        f"train.updates={one([1, 2])}",
        f"train.on_divergence={one(['stop', 'drop'])}",
        f"checkpoint.every={one([90, 150, 'null'])}",
        f"checkpoint.keep={one([1, 2])}",
        f"log.every={one([40, 70])}",
        f"eval.every={one([110, 250])}",
        f"total_steps={one([480, 640])}",
        f"agent.target={one(['{tau:0.01}', '{tau:1,every:40}', '{tau:1,episodes:3}'])}",
        "net.hidden=[16]",
    ]
    backend = one(["native", "gymnasium", "async"])
    if backend == "async":
        overrides += ["env.vectorization=async", "env.n=2"]
    else:
        overrides += [f"env.backend={backend}", f"env={one(['cartpole', 'acrobot'])}"]
    if one([True, False, False]):
        overrides += [f"train.stop.episodes={draw.randrange(3, 30)}"]
    if one([True, False, False, False]):
        overrides += ["compile=true", "agent=ddqn", "net=mlp", "exploration=linear", "optim=adam"]
    return latest(*overrides)


def send(process: ForkServerProcess, draw: random.Random) -> str:
    """Send one or two signals; returns their names."""
    kind = draw.choice(
        ["KILL", "TERM", "INT", "USR1", "STOP CONT", "TERM TERM", "STOP TERM CONT", "all"]
    )
    number = process.pid
    assert number is not None
    for name in kind.replace("all", "INT").split():
        try:
            (os.killpg if kind == "all" else os.kill)(number, getattr(signal, f"SIG{name}"))
        except ProcessLookupError:
            break
        time.sleep(draw.random() * 0.05)
    return kind


def end(process: ForkServerProcess, cwd: Path) -> int:
    process.join(LIMIT)
    code = process.exitcode
    process.kill()
    assert code is not None, f"hangs: {(cwd / 'output').read_text()[-3000:]}"
    return code


def case(number: int, path: Path) -> str:
    """Run a config twice, once with signals; what happened, for people."""
    draw = random.Random(number)
    overrides = config(draw)
    whole = [*overrides, "hydra.run.dir=whole"]
    began = time.monotonic()
    assert end(start(path, *whole), path) == 0, (path / "output").read_text()[-3000:]
    usual = time.monotonic() - began
    happened = []
    for _ in range(draw.randrange(1, 4)):
        how = ["resume=auto", "hydra.run.dir=cut"]
        if (path / "cut/checkpoints").exists() and list((path / "cut/checkpoints").glob("step=*")):
            how = draw.choice([[*overrides, *how], ["resume=cut"]])
        else:
            how = [*overrides, *how]
        process = start(path, *how)
        if draw.random() < 0.5:
            process.join(draw.random() * usual)
        else:
            until = draw.randrange(640)
            while process.is_alive() and logged(path / "cut") < until:
                time.sleep(0.005)
            time.sleep(draw.random() * 0.1)
        sent = send(process, draw)
        code = end(process, path)
        happened.append(f"{sent} at {logged(path / 'cut')}: {code}")
        text = (path / "output").read_text()
        if code in ENDS and (path / "cut/summary.json").exists():
            assert summary(path / "cut")["status"] == ENDS[code], happened
        else:
            assert code in (0, -9, -15, -2, -10), f"{happened} {text[-3000:]}"
        assert "run failed" not in text, f"{happened} {text[-3000:]}"
    last = [*overrides, "resume=auto", "hydra.run.dir=cut"]
    assert end(start(path, *last), path) == 0, f"{happened} {(path / 'output').read_text()[-3000:]}"
    same = result(path / "cut") == result(path / "whole")
    assert same, f"case {number} differs after {happened}: {' '.join(overrides)}"
    return ", ".join(happened)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(FIRST, FIRST + CASES))
def test_a_run_that_is_hit_by_signals_ends_as_one_that_is_not(number: int, tmp_path: Path) -> None:
    print(case(number, tmp_path))
    shutil.rmtree(tmp_path)
