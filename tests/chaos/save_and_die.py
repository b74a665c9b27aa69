"""Processes that save checkpoints, and die in the middle of it."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from dqn_exp.run import tensor_files
from dqn_exp.run.checkpoint import Checkpoints

tensor_files.SEGMENT_BYTES = 4096  # so that even a small state is cut
ABOUT = {"config": {}}  # what manifests say besides
STAGES = {"open", "os.mkdir", "os.link", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}


def state(step: int) -> dict[str, Any]:
    """A state of a step, in several files: half of them are the same at every step."""
    tensors = {"new": torch.full((2000,), float(step)), "same": torch.arange(2000)}
    return {"step": step, "below": {**tensors, "none": None}, "small": torch.tensor([step, 1])}


def begin(folder: Path) -> tuple[Checkpoints, int]:
    """The checkpoints in a folder as a resumed run finds them, and the step of the newest."""
    checkpoints = Checkpoints(folder, keep=2)
    newest = checkpoints.newest()
    if newest:
        checkpoints.drop_after(newest.step)
    return checkpoints, newest.step if newest else 0


def die_at_stage(folder: Path, stage: int) -> None:
    """Save the next step, but end before the stage of that number, with SIGKILL."""
    checkpoints, step = begin(folder)
    left = iter(range(stage))

    def count(event: str, _: tuple[Any, ...]) -> None:
        if event in STAGES and next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    checkpoints.save(step + 1, state(step + 1), ABOUT)
    os._exit(0)


def die_after(folder: Path, seconds: float) -> None:
    """Save step after step, until the kernel ends the process."""
    checkpoints, step = begin(folder)
    signal.setitimer(signal.ITIMER_REAL, seconds)  # nothing handles its signal
    while True:
        step += 1
        checkpoints.save(step, state(step), ABOUT)
