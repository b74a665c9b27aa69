"""Building the parts of a run writes no file and changes nothing in the process."""

import contextlib
import logging
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import tiny
from hydra.core.global_hydra import GlobalHydra

from dqn_exp import build
from dqn_exp.signals import SIGNALS


@contextlib.contextmanager
def other_settings() -> Iterator[None]:
    """Settings that differ from those that a run sets."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.set_flush_denormal(False)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(True)


def keeps_denormals() -> bool:
    smallest = torch.ones(1, dtype=torch.int64).view(torch.float64)  # a literal might be read as 0
    return bool((smallest + smallest).view(torch.int64).item())


def settings() -> dict[str, Any]:
    """What a library must leave as it is in the process that uses it."""
    logger, state = logging.getLogger("dqn_exp"), np.random.get_state()
    return {
        "threads": torch.get_num_threads(),
        "denormals": keeps_denormals(),
        "random": random.getstate(),
        "numpy": (state[0], tuple(state[1]), *state[2:]),  # pyright: ignore[reportArgumentType]
        "torch": torch.get_rng_state().tolist(),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "gradients": torch.is_grad_enabled(),
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "handlers": [list(logging.root.handlers), list(logger.handlers)],
        "levels": [logging.root.level, logger.level],
        "signals": [signal.getsignal(number) for number in SIGNALS],
        "hydra": GlobalHydra.instance().is_initialized(),
    }


@pytest.mark.parametrize(
    "overrides",
    [
        ["buffer=per", "net=noisy_dueling", "agent=iqn", "seeds=3"],
        ["env.backend=native", "compile=true"],
        ["resume=auto", "threads=1"],
    ],
    ids=" ".join,
)
def test_building_writes_no_file_and_changes_no_setting_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with other_settings():
        assert keeps_denormals()
        before = settings()
        parts = build(tiny(*overrides))
        after = settings()
        parts.loop.advance(10)
        parts.close()
    assert [key for key in before if before[key] != after[key]] == []
    assert list(tmp_path.iterdir()) == []


def test_two_builds_of_a_config_share_nothing() -> None:
    config = tiny("seeds=2", "buffer=per")
    first, second = build(config), build(config)
    before = second.learner.params.clone()
    first.loop.advance(100)
    assert not torch.equal(first.learner.params, before)
    assert torch.equal(second.learner.params, before)
    second.loop.advance(100)
    assert torch.equal(first.learner.params, second.learner.params)
