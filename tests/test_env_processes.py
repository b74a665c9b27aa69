"""Environments in processes of their own: what happens when a process ends or hangs."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from faulty import LENGTH, episode_seed
from helpers import part, tiny

from dqn_exp.config.problems import ConfigError
from dqn_exp.envs import workers
from dqn_exp.envs.gymnasium_env import GymnasiumEnv
from dqn_exp.envs.workers import EnvProcessError
from dqn_exp.signals import SIGNALS

SEEDS = (3, 5)
BAD = episode_seed(5, 1)  # the second episode of the second seed
ENDS = {
    "SIGKILL": "its process was killed by SIGKILL",
    "sys.exit": "its process exited with code 3",
    "os._exit": "its process exited with code 0",
}
HANGS = dict.fromkeys(
    ("hang", "simulator", "SIGSTOP"), r"did not answer within 0\.5 s \(env\.timeout\)"
)


@pytest.fixture(autouse=True)
def leave_no_process(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Fail if a test leaves a process behind; do not wait long for those that hang."""
    monkeypatch.setattr(workers, "CLOSE_SECONDS", 0.2)
    before = psutil.Process().children(recursive=True)
    yield
    assert psutil.Process().children(recursive=True) == before


def build(
    id: str = "Ending-v0", timeout: float | None = None, n: int = 1, **kwargs: Any
) -> GymnasiumEnv:
    keys = {"backend": "gymnasium", "id": id, "n": n, "vectorization": "async", "timeout": timeout}
    return part("env", "cartpole", torch.tensor(SEEDS), "train", True, **keys, kwargs=kwargs)


def processes() -> list[psutil.Process]:
    """Those of environments; the test process may have others."""
    own = psutil.Process()
    return [child for child in own.children() if child.cmdline() == own.cmdline()]


def follow(env: GymnasiumEnv, steps: int) -> None:
    for _ in range(steps):
        env.step(torch.zeros(2, 1, dtype=torch.int64))


def two_episodes(env: GymnasiumEnv) -> None:
    env.reset()
    follow(env, 2 * LENGTH)


@pytest.mark.parametrize("where", ["reset", "step"])
@pytest.mark.parametrize("fault", ENDS | HANGS)
def test_an_env_whose_process_ends_or_hangs_is_named(fault: str, where: str) -> None:
    before = psutil.Process().children(recursive=True)
    env = build(fault=fault, where=where, bad=[BAD], timeout=0.5 if fault in HANGS else None)
    with pytest.raises(EnvProcessError, match=f"^seed 5, env 0: {(ENDS | HANGS)[fault]}$"):
        two_episodes(env)
    left = set(psutil.Process().children(recursive=True)) - set(before)
    env.close()
    wait_until(lambda: not any(map(is_alive, left)))


@pytest.mark.parametrize(
    ("fault", "where"),
    [*((fault, "init") for fault in ENDS), *((fault, "reset") for fault in ENDS | HANGS)],
)
def test_an_env_that_cannot_begin_in_a_process_is_refused(fault: str, where: str) -> None:
    line = f"EnvProcessError: a trial: {(ENDS | HANGS)[fault]}$"
    with pytest.raises(ConfigError, match=rf"env\.id=Ending-v0: .*{line}"):
        build(fault=fault, where=where, timeout=0.5 if fault in HANGS else None)


@pytest.mark.parametrize("fault", ENDS | HANGS)
def test_an_env_that_cannot_be_examined_is_refused(fault: str) -> None:
    env = build(fault=fault, bad=[64], timeout=0.5 if fault in HANGS else None)
    line = f"EnvProcessError: a trial: {(ENDS | HANGS)[fault]}$"
    with pytest.raises(ConfigError, match=rf"env\.id=Ending-v0: {line}"):
        _ = env.deterministic
    env.close()


@pytest.mark.parametrize("fault", ENDS | HANGS)
def test_a_process_that_does_not_close_its_env_is_ended(fault: str) -> None:
    env = build(fault=fault, where="close")
    env.reset()
    env.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM])
@pytest.mark.parametrize("is_stepping", [False, True])
def test_an_env_closes_whatever_state_its_processes_are_in(number: int, is_stepping: bool) -> None:
    env = build("CartPole-v1")
    env.reset()
    children = processes()
    if is_stepping:
        env._envs.step_async(torch.zeros(2, dtype=torch.int64).numpy())  # type: ignore[union-attr]
    children[0].send_signal(number)
    env.close()
    env.close()
    assert not any(child.is_running() for child in children)


def test_a_killed_process_is_noticed_between_steps() -> None:
    env = build("CartPole-v1")
    env.reset()
    processes()[1].kill()
    with pytest.raises(EnvProcessError, match=r"^seed [35], env 0: its process was killed by SIGKILL$"):
        follow(env, 2)
    env.close()


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ("step raises", "OSError: the simulator is gone"),
        ("reset raises", "OSError: the simulator is gone"),
        ("step raises what cannot be sent", r"UnpicklableError: \('lost', 'badly'\)"),
    ],
)
def test_an_error_of_an_env_names_it_and_keeps_the_traceback(fault: str, line: str) -> None:
    env = build("Faulty-v0", fault=fault, bad=[BAD])
    with pytest.raises(EnvProcessError, match=f"^seed 5, env 0: {line}") as raised:
        two_episodes(env)
    assert 'faulty.py", line ' in "".join(raised.value.__notes__)
    env.close()


def test_if_not_all_processes_can_be_started_none_is_left() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (psutil.Process().num_fds() + 20, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            build("CartPole-v1", n=20)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_slow_envs_may_take_their_time_without_a_limit_and_within_it() -> None:
    for timeout in (None, 60.0):
        env = build("CartPole-v1", timeout=timeout)
        env.reset()
        stopped = processes()[0]
        stopped.suspend()
        resume = f"import time, psutil; time.sleep(0.5); psutil.Process({stopped.pid}).resume()"
        with subprocess.Popen([sys.executable, "-c", resume]):
            follow(env, 2)
        env.close()


def test_signals_are_still_handled_where_envs_are_built() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    env = build("CartPole-v1")
    assert [signal.getsignal(number) for number in SIGNALS] == before
    for child in processes():
        for number in SIGNALS:
            child.send_signal(number)
    two_episodes(env)  # a signal to the whole process group does not end them
    env.close()


HOLDER = """
import os, signal, sys
import faulty, psutil
from test_env_processes import build

env = build(fault="simulator", where="reset", bad=[faulty.episode_seed(3, 0)], timeout=1.0)
try:
    env.reset()
except Exception:
    print(*(child.pid for child in psutil.Process().children(recursive=True)), flush=True)
    {then}
"""


@pytest.mark.parametrize(
    "then",
    ["os.kill(os.getpid(), signal.SIGKILL)", pytest.param("sys.exit()", marks=pytest.mark.slow)],
)
def test_processes_end_with_the_one_that_began_them(then: str) -> None:
    tests = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", HOLDER.format(then=then)]
    with subprocess.Popen(command, env=tests, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            left = [psutil.Process(int(pid)) for pid in process.stdout.readline().split()]
            process.wait(60)
        finally:
            process.kill()
    assert len(left) == 3  # two envs and a simulator
    wait_until(lambda: not any(map(is_alive, left)))


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["env.timeout=5"], r"env\.timeout=5\.0: needs env\.vectorization=async"),
        (["env.timeout=5", "env.backend=native"], r"env\.timeout=5\.0: needs env\.vectorization=async"),
        (["env.timeout=0", "env.vectorization=async"], r"env\.timeout=0: must be null or a number of"),
        (
            ["env.timeout=1e9", "env.vectorization=async"],
            r"env\.timeout=.*: must be null or a number of",
        ),
        (["env.timeout=x", "env.vectorization=async"], r"env\.timeout=x: must be null or a number of"),
    ],
)
def test_a_time_limit_that_cannot_be_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny(*overrides)
