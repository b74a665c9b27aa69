"""What ends a run: signals (SIGINT, SIGTERM, and those of Slurm and submitit), and code that exits."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


@contextmanager
def on_signal(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` at the first signal; a second one ends the process at once.

    What handled signals before does so afterwards, and what is not Python's own is told of the first:
    submitit puts the job back into the queue then.
    """
    received: list[signal.Signals] = []
    if threading.current_thread() is not threading.main_thread():
        yield  # Python handles signals in the main thread only
        return

    def handle(number: int, _: object) -> None:
        received.append(signal.Signals(number))
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        stop()

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in received:
            handler = before[number]
            if callable(handler) and handler is not signal.default_int_handler:
                handler(number, None)


@contextmanager
def held_back() -> Iterator[None]:
    """Signals arrive at the end, also at processes that begin meanwhile."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def exits_are_errors() -> Iterator[None]:
    """Code of an env or plug-in that ends the process makes the run fail: it is never a success.

    Raises:
        RuntimeError: it has called sys.exit or os._exit.
    """
    process, leave = os.getpid(), os._exit

    def refuse(code: int) -> NoReturn:
        if os.getpid() == process:
            raise RuntimeError(f"a part has called os._exit({code})")
        leave(code)  # the usual end of a forked process

    os._exit = refuse
    try:
        yield
    except SystemExit as error:
        raise RuntimeError(f"a part has called sys.exit({error.code})") from error
    finally:
        os._exit = leave
