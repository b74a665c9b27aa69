"""Weights & Biases: one W&B run per run folder. Letters: S seeds.

The project, the mode (`WANDB_MODE=offline` needs no account) and the rest are W&B's own environment
variables: https://docs.wandb.ai/guides/track/environment-variables.
"""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from dqn_exp.extras import extra

log = logging.getLogger(__name__)

PROJECT = "dqn-exp"  # if WANDB_PROJECT is not set
STEP = "env_step"


class Wandb:
    """Logs the mean over seeds by tag, and with several seeds each seed's values as `seed=<k>/<tag>`.

    Errors of W&B cost a warning, never a run.

    Args:
        run_dir: the run folder, in which W&B keeps its files.
        seeds: seed values [S].
        config: what W&B shows as the config.

    Raises:
        ConfigError: the library is not installed.
    """

    def __init__(self, run_dir: Path, seeds: Sequence[int], config: Mapping[str, Any]):
        self._wandb = extra("wandb", "wandb")
        self._run_dir, self._seeds, self._config = run_dir, seeds, config
        self._run: Any = _Nothing()

    def lengths(self) -> dict[str, int]:
        """Nothing: W&B keeps what was logged before a resume, which a continued run repeats."""
        return {}

    def resume(self, lengths: Mapping[str, int]) -> None:
        """Nothing is deleted."""

    def open(self, resumed_at: int | None) -> None:
        """Begin the W&B run, or continue that of this run folder."""
        del resumed_at
        name = str(self._run_dir)
        self._try(
            lambda: self._begin(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                name=self._run_dir.name,
                id=sha256(name.encode()).hexdigest()[:16],
                dir=name,
                config=dict(self._config),
                resume="allow",
                settings=self._wandb.Settings(silent=True, console="off"),
            )
        )

    def _begin(self, **options: Any) -> None:
        self._run = self._wandb.init(**options)
        self._run.define_metric(STEP, hidden=True)
        self._run.define_metric("*", step_metric=STEP)

    def scalars(self, step: int, values: Mapping[str, np.ndarray]) -> None:
        """Record tag -> value of each seed [S] at an env step, and their mean."""
        found = {tag: float(v.mean()) for tag, v in values.items()}
        if len(self._seeds) > 1:
            for i in range(len(self._seeds)):
                found |= {self._prefix(i) + tag: float(v[i]) for tag, v in values.items()}
        self._log(step, found)

    def of_seed(self, i: int, step: int, values: Mapping[str, Any]) -> None:
        """Record tag -> value of the i-th seed at an env step."""
        self._log(step, {self._prefix(i) + tag: value for tag, value in values.items()})

    def of_mean(self, step: int, values: Mapping[str, float]) -> None:
        """Record tag -> mean over seeds at an env step; nothing if there is only one."""
        if len(self._seeds) > 1:
            self._log(step, values)

    def histograms(self, step: int, values: Mapping[str, np.ndarray]) -> None:
        """Record tag -> values of each seed [S, n] at an env step."""
        for i in range(len(self._seeds)):
            self.of_seed(i, step, {tag: self._wandb.Histogram(v[i]) for tag, v in values.items()})

    def film(self, i: int, step: int, tag: str, gif: bytes, size: tuple[int, int]) -> None:
        """Record a film of the i-th seed at an env step."""
        del size
        path = self._run_dir / "wandb" / f"{tag.replace('/', '_').replace(' ', '_')}.gif"

        def log_film() -> None:
            path.write_bytes(gif)
            self._run.log({self._prefix(i) + tag: self._wandb.Video(str(path)), STEP: step})

        self._try(log_film)

    def flush(self) -> None:
        """Nothing: W&B's own process writes."""

    def close(self, succeeded: bool | None) -> None:
        """End the W&B run; one that is to be resumed (None) ends like one that succeeded."""
        self._try(lambda: self._run.finish(exit_code=1 if succeeded is False else 0))
        self._run = _Nothing()

    def _prefix(self, i: int) -> str:
        """What the tags of the i-th seed begin with."""
        return f"seed={self._seeds[i]}/" if len(self._seeds) > 1 else ""

    def _log(self, step: int, values: Mapping[str, Any]) -> None:
        self._try(lambda: self._run.log({**values, STEP: step}))

    def _try(self, do: Callable[[], None]) -> None:
        """If W&B fails, warn and continue without it."""
        try:
            do()
        except Exception as error:  # whatever W&B raises
            log.warning("W&B does not get the metrics any more, the CSV files still do: %s", error)
            self._run = _Nothing()


class _Nothing:
    """Stands for a W&B run that does not exist, or has failed."""

    def log(self, values: Mapping[str, Any]) -> None: ...

    def finish(self, exit_code: int) -> None: ...
