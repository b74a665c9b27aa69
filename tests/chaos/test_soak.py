"""A run of half an hour, whose memory must not grow."""

import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from helpers import command

WARM_UP, MINUTES = 5, 30


@pytest.mark.slow
def test_half_an_hour_of_eight_seeds_at_full_capacity_takes_no_more_memory(tmp_path: Path) -> None:
    overrides = ["seeds=8", "buffer=per", "buffer.capacity=2000", "total_steps=100_000_000"]
    overrides += ["compile=false", "checkpoint.every=2000"]
    overrides += ["eval.every=20_000", "eval.episodes=10", "eval.final_episodes=10"]
    line = command(f"hydra.run.dir={tmp_path / 'run'}", *overrides)
    run = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    process, resident = psutil.Process(run.pid), []
    for _ in range(MINUTES):
        time.sleep(60)
        assert run.poll() is None, run.stderr and run.stderr.read()
        resident.append(process.memory_info().rss)
    print("MB, each minute:", *(f"{n / 1e6:.1f}" for n in resident))
    run.send_signal(signal.SIGTERM)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 75, errors
    assert max(resident[WARM_UP:]) < 1.02 * min(resident[WARM_UP:])
