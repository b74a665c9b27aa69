"""What a run has trained: the parameters of a checkpoint, and how good each seed is. Letters: S, P."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dqn_exp import manifest
from dqn_exp.config.problems import ConfigError, Problem
from dqn_exp.interfaces import Spec
from dqn_exp.manifest import CheckpointError, UnknownSchemaError
from dqn_exp.run.checkpoint import one_tensor
from dqn_exp.run.folder import RunFolder


@dataclass(frozen=True)
class Trained:
    """The trained parameters of all seeds of a run, from one of its checkpoints."""

    checkpoint: Path
    manifest: dict[str, Any]
    params: Tensor  # [S, P] on the CPU
    scores: np.ndarray  # [S] mean greedy return of the last evaluation before it; NaN without one

    @property
    def seeds(self) -> range:
        """The seed values [S]."""
        first = self.manifest["config"]["seed"]
        return range(first, first + len(self.params))

    @property
    def spec(self) -> Spec:
        """What the run's env looked like."""
        facts = self.manifest["spec"]
        obs_dtype = getattr(torch, facts["obs_dtype"])
        return Spec(**facts | {"obs_shape": tuple(facts["obs_shape"]), "obs_dtype": obs_dtype})

    def index(self, seed: int | None) -> int:
        """The row of a seed; without one, of that with the best last evaluation, or of the first.

        Raises:
            ConfigError: the run has no such seed.
        """
        if seed is None:
            return int(np.nanargmax(self.scores)) if np.isfinite(self.scores).any() else 0
        if seed not in self.seeds:
            message = f"the run has seeds {self.seeds[0]} to {self.seeds[-1]}"
            raise ConfigError([Problem("seed", message, seed)])
        return self.seeds.index(seed)


def load(run: str | Path, checkpoint: int | None = None) -> Trained:
    """What the run in a folder, or the checkpoint in one, has trained.

    Args:
        checkpoint: env step of the checkpoint; by default the newest undamaged one.

    Raises:
        ConfigError: there is no run, or no such checkpoint, or it is damaged.
    """
    folder, named = manifest.split(Path(run))
    if checkpoint is not None:
        named = folder / "checkpoints" / f"step={checkpoint}"
    try:
        paths = [named] if named else manifest.checkpoints(folder / "checkpoints")
        if named and not named.exists():
            steps = [str(manifest.step_of(p)) for p in manifest.checkpoints(folder / "checkpoints")]
            raise CheckpointError(f"no such checkpoint; there are those of steps {', '.join(steps)}")
        return _newest(folder, paths)
    except CheckpointError as error:
        raise ConfigError([Problem("run", str(error), str(run))]) from error


def _newest(folder: Path, paths: list[Path]) -> Trained:
    """What the first undamaged of the checkpoints in `paths` holds."""
    reasons = []
    for path in paths:
        try:
            return _read(folder, path)
        except UnknownSchemaError:
            raise
        except CheckpointError as error:
            reasons.append(str(error))
    if reasons:
        raise CheckpointError("; ".join(reasons))
    if not folder.is_dir():
        raise CheckpointError("no such folder")
    is_run = "a run without a checkpoint" if RunFolder(folder, None).summary() else "not a run folder"
    raise CheckpointError(is_run)


def _read(folder: Path, path: Path) -> Trained:
    found = manifest.read(path)
    params = one_tensor(path, "loop/learner/matrices/params")
    scores = one_tensor(path, "scores").numpy()
    summary = RunFolder(folder, None).summary()
    if summary.get("status") == "finished" and summary.get("step") == found["step"]:
        scores = np.array(summary["final_returns"], np.float64)
    if params.ndim != 2 or scores.shape != params.shape[:1]:
        raise CheckpointError(f"{path}: parameters {list(params.shape)} with {len(scores)} scores")
    return Trained(path, found, params, scores)
