"""Wall seconds of whole runs of the command line, as a user starts them."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from dqn_exp.bench.timing import report
from dqn_exp.statistics import confidence_interval, interquartile_mean

SOLVED = 475  # mean greedy return on CartPole-v1
ONE_STEP = [  # a run of two env steps, to time everything but training
    "total_steps=2", "train.learning_starts=1", "train.batch_size=1", "eval.every=2",
    "eval.episodes=1", "eval.final_episodes=1", "env.max_episode_steps=1",
]  # fmt: skip


def _launch(cwd: str, *arguments: str, cache: str | None = None) -> subprocess.Popen[bytes]:
    env = os.environ | ({"TORCHINDUCTOR_CACHE_DIR": cache} if cache else {})
    return subprocess.Popen(
        [sys.executable, "-m", "dqn_exp", "train", *arguments],
        cwd=cwd,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def startup(out: Path) -> None:
    """From the command to its answer: --help, a bad key, and a whole run of two env steps."""
    commands = {
        "--help": ["--help"],
        "a wrong key": ["agent.gama=1"],
        "a run of two env steps": ONE_STEP,
    }
    table = []
    for name, arguments in commands.items():
        seconds = []
        for _ in range(5):
            with tempfile.TemporaryDirectory() as folder:
                began = time.perf_counter()
                _launch(folder, *arguments).wait()
                seconds.append(time.perf_counter() - began)
        table.append({"case": name, "seconds": round(statistics.median(seconds), 2)})
    report("startup", table, out)


def solve(out: Path, first: int, seeds: int, processes: int) -> None:
    """From the command to solved seeds: the default recipe, native, cold and warm compiler cache."""
    table = []
    with tempfile.TemporaryDirectory() as cache:
        for start in ("cold", "warm"):
            with tempfile.TemporaryDirectory() as folder:
                began = time.perf_counter()
                share = -(-seeds // processes)
                runs = [
                    _launch(
                        folder, "env.backend=native", "compile=true", f"seed={begin}",
                        f"seeds={min(share, first + seeds - begin)}",
                        f"hydra.run.dir={folder}/{begin}", cache=cache,
                    )
                    for begin in range(first, first + seeds, share)
                ]  # fmt: skip
                codes = [run.wait() for run in runs]
                seconds = time.perf_counter() - began
                assert not any(codes), f"exit codes {codes}"
                summaries = [
                    json.loads(path.read_text()) for path in Path(folder).glob("*/summary.json")
                ]
            returns = np.concatenate([summary["final_returns"] for summary in summaries])
            table.append(
                {
                    "compiler cache": start,
                    "seconds": round(seconds, 1),
                    "seeds solved": f"{(returns >= SOLVED).sum()} of {len(returns)}",
                    "IQM": round(float(interquartile_mean(returns)), 1),
                    "95 % CI": str(confidence_interval(returns)),
                    "worst seed": round(float(returns.min()), 1),
                }
            )
    report("solve", table, out)
