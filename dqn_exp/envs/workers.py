"""A process for each env: Gymnasium's AsyncVectorEnv, and what to do when a process does not answer.

Gymnasium waits for ever for a process that hangs, and for one that has died while it closes them.
"""

import atexit
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import connection
from typing import Any

import gymnasium
import numpy as np
import psutil
from gymnasium.vector import AsyncVectorEnv, AutoresetMode

from dqn_exp.signals import SIGNALS

CLOSE_SECONDS = 2.0  # until processes that do not end by themselves are killed
ERROR = "dqn_exp.error"  # key of `info`


class EnvProcessError(RuntimeError):
    """An env's process has ended or does not answer, or the env has raised an error in it."""


class Workers(AsyncVectorEnv):
    """Envs that step in parallel, each in its own process; they end with this process at the latest.

    Args:
        make: makes an env with a Box of observations; called here once, and in each process.
        names: what to call each env in an error.
        timeout: seconds that all envs may take to reset or to step; None: for ever.

    Raises:
        EnvProcessError: by `reset` and `step` too.
    """

    def __init__(self, make: Callable[[], gymnasium.Env], names: Sequence[str], timeout: float | None):
        self._names, self._timeout = names, timeout
        self.parent_pipes, self.processes = [], []
        owner = os.getpid()

        def begin() -> gymnasium.Env:
            if os.getpid() == owner:  # Gymnasium looks at the spaces of one first
                return make()
            for each in SIGNALS:  # Ctrl-C reaches the whole process group; the run decides what ends
                signal.signal(each, signal.SIG_IGN)
            threading.Thread(target=_end_with_parent, daemon=True).start()
            return _Reporting(make())

        # Before multiprocessing ends the processes itself: with a signal that they ignore.
        atexit.register(self.close)
        try:
            with self._explained():
                super().__init__(
                    [begin] * len(names),
                    copy=False,  # whoever asks for observations copies them
                    autoreset_mode=AutoresetMode.DISABLED,
                )
        except BaseException:
            self.close()
            raise

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> Any:
        """As AsyncVectorEnv."""
        with self._explained():
            self.reset_async(seed, options)
            self._await()
            answer = self.reset_wait()
        self._raise_error(answer[-1])
        return answer

    def step(self, actions: np.ndarray) -> Any:
        """As AsyncVectorEnv."""
        with self._explained():
            self.step_async(actions)
            self._await()
            answer = self.step_wait()
        self._raise_error(answer[-1])
        return answer

    def close_extras(self, *_: Any, **__: Any) -> None:
        """Ask the processes to close their envs and to end; kill those that do not."""
        atexit.unregister(self.close)
        for pipe in filter(None, self.parent_pipes):
            with suppress(OSError):  # its process has ended
                pipe.send(("close", None))
        until = time.monotonic() + CLOSE_SECONDS
        for process in self.processes:
            if process.pid is None:  # it could not be started
                continue
            process.join(max(until - time.monotonic(), 0))
            if process.is_alive():
                _kill(process.pid)
                process.join()
        for pipe in filter(None, self.parent_pipes):
            pipe.close()

    def _await(self) -> None:
        """Wait until all processes have answered; without a time limit, Gymnasium does."""
        if self._timeout is None:
            return
        until = time.monotonic() + self._timeout
        for name, pipe in zip(self._names, self.parent_pipes, strict=True):
            if not pipe.poll(max(until - time.monotonic(), 0)):
                raise EnvProcessError(
                    f"{name}: did not answer within {self._timeout:g} s (env.timeout)"
                )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Say which process has ended if a pipe is closed at its other end."""
        try:
            yield
        except (EOFError, OSError) as error:
            if None in self.parent_pipes:  # an error that a process has sent
                raise
            started = [process for process in self.processes if process.pid is not None]
            ended = connection.wait([process.sentinel for process in started], timeout=1)
            for name, process in zip(self._names, started, strict=False):
                if process.sentinel in ended:
                    process.join()
                    raise EnvProcessError(f"{name}: its process {_ending(process)}") from error
            raise

    def _raise_error(self, info: dict[str, Any]) -> None:
        if ERROR in info:
            index = int(np.flatnonzero(info[f"_{ERROR}"])[0])
            line, trace = info[ERROR][index]
            error = EnvProcessError(f"{self._names[index]}: {line}")
            error.add_note(trace)
            raise error


class _Reporting(gymnasium.Wrapper):
    """Sends errors as part of `info`.

    Gymnasium sends them through a queue, and waits for ever if they cannot be pickled or the process
    ends before they are sent.
    """

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        try:
            return self.env.reset(seed=seed, options=options)
        except Exception as error:
            return self._blank(), _report(error)

    def step(self, action: Any) -> Any:
        try:
            return self.env.step(action)
        except Exception as error:
            return self._blank(), 0.0, False, False, _report(error)

    def _blank(self) -> np.ndarray:
        return np.zeros(self.observation_space.shape or (), self.observation_space.dtype)


def _report(error: Exception) -> dict[str, Any]:
    line = f"{type(error).__name__}: {error}"
    return {ERROR: (line, "".join(traceback.format_exception(error)))}


def _end_with_parent() -> None:
    """End this process when its parent has ended, even if the env hangs."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    _kill(os.getpid())


def _kill(pid: int) -> None:
    """Kill a process and those that it has started, simulators for example."""
    process = psutil.Process(pid)
    for each in (*process.children(recursive=True), process):
        with suppress(psutil.NoSuchProcess):
            each.kill()


def _ending(process: Any) -> str:
    """How a process has ended."""
    if process.exitcode < 0:
        return f"was killed by {signal.Signals(-process.exitcode).name}"
    return f"exited with code {process.exitcode}"
