"""A process of a parallel launcher, in which jobs of a sweep run beside those of other processes."""

import functools
import multiprocessing
import os
import signal
import threading
import time

import psutil

LOOKS = 0.5  # seconds between them


def is_worker() -> bool:
    """Whether this process is one."""
    return multiprocessing.parent_process() is not None


@functools.cache
def end_with_parent() -> psutil.Process:
    """Interrupt the runs of this process once that of the sweep, which is returned, has ended."""
    parent = psutil.Process(os.getppid())
    threading.Thread(target=_watch, args=[parent], daemon=True).start()
    return parent


def end_if_alone() -> None:
    """End this process if the process of the sweep has ended: there would be no end of jobs."""
    if not end_with_parent().is_running():
        os._exit(75)


def _watch(parent: psutil.Process) -> None:
    parent.wait()
    while True:
        if callable(signal.getsignal(signal.SIGTERM)):  # a run is there, which saves a checkpoint
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(LOOKS)
