"""Jobs that Slurm sends back into the queue. They need a cluster: `sbatch` and `sinfo` that work."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import command, summary

TRAIN = ["compile=false", "total_steps=12000", "checkpoint.every=2000"]
TRAIN += ["eval.episodes=3", "eval.final_episodes=3", "resume=auto"]
SCRIPT = """#!/bin/bash
#SBATCH --requeue --open-mode=append --signal=B:USR1@120 --cpus-per-task=1 --output={folder}/out
trap 'kill -USR1 $pid' USR1 TERM
{command} hydra.run.dir={folder}/run & pid=$!
wait $pid; wait $pid; [ $? -eq 75 ] && scontrol requeue $SLURM_JOB_ID
"""


def slurm(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def has_slurm() -> bool:
    try:
        return "idle" in slurm("sinfo", "--noheader", "--format=%T")
    except (OSError, subprocess.CalledProcessError):
        return False


pytestmark = [pytest.mark.slow, pytest.mark.skipif(not has_slurm(), reason="no Slurm cluster is here")]


def wait_for(condition: Callable[[], bool], seconds: int) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "too late"
        time.sleep(1)


def ended(folder: Path) -> dict[str, Any]:
    """The summary of the only run below a folder."""
    (path,) = folder.rglob("summary.json")
    return summary(path.parent)


def saved(folder: Path) -> bool:
    return any(folder.rglob("checkpoints/step=*"))


def test_a_job_that_is_sent_back_by_its_script_continues(tmp_path: Path) -> None:
    script = tmp_path / "job.sh"
    script.write_text(SCRIPT.format(folder=tmp_path, command=" ".join(command(*TRAIN))))
    job = slurm("sbatch", "--parsable", str(script))
    wait_for(lambda: saved(tmp_path), 120)
    slurm("scancel", "--signal=USR1", "--batch", job)
    wait_for(lambda: ended(tmp_path)["status"] == "interrupted", 60)
    wait_for(lambda: ended(tmp_path)["status"] == "finished", 400)  # Slurm itself waits two minutes
    assert ended(tmp_path)["resumed_from"] > 0


def test_a_job_of_submitit_continues_after_its_checkpoint_hook(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    launcher = ["hydra/launcher=submitit_slurm", "hydra.launcher.cpus_per_task=1"]
    launcher += ["hydra.launcher.timeout_min=30", f"hydra.sweep.dir={tmp_path}"]
    line = command(*TRAIN, *launcher, "seed=5", "--multirun")
    sweep = subprocess.Popen(line, stdout=subprocess.DEVNULL)
    wait_for(lambda: saved(tmp_path), 120)
    (job,) = slurm("squeue", "--noheader", "--format=%i", "--name=train").split()
    slurm("scancel", "--signal=USR2", job)
    wait_for(lambda: ended(tmp_path)["status"] == "interrupted", 60)
    assert sweep.wait(timeout=400) == 0
    assert ended(tmp_path)["status"] == "finished"
    assert ended(tmp_path)["resumed_from"] > 0
