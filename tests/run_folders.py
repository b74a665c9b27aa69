"""Run folders made by hand, for the tests of what reads them."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

SETTINGS = {
    "seed": 0, "seeds": 1, "total_steps": 1000, "device": "auto",
    "env": {"id": "CartPole-v1"},
    "agent": {"name": "dqn", "gamma": 0.99},
    "net": {"name": "mlp", "hidden": [64]},
    "buffer": {"name": "uniform", "capacity": 1000},
    "optim": {"name": "adam", "lr": 0.001},
    "eval": {"every": 100, "solved": None},
    "log": {"every": 100},
}  # fmt: skip
PER = {"name": "per", "capacity": 1000, "alpha": 0.6}
HEADS = {
    "metrics.csv": ["seed", "step", "tag", "value"],
    "episodes.csv": ["seed", "episode", "step", "return", "length"],
}


def run_folder(
    folder: Path,
    final: Mapping[int, float],
    evaluations: Mapping[int, Mapping[int, float]] | None = None,
    episodes: Mapping[int, Sequence[tuple[int, float]]] | None = None,
    status: str = "finished",
    **settings: Any,
) -> Path:
    """A run of some settings in a folder; returns the folder.

    Args:
        final: seed -> final return.
        evaluations: seed -> env step -> return of an evaluation.
        episodes: seed -> (env step, return) of each training episode.
        settings: keys of the config, instead of those above.
    """
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra/config.yaml").write_text(yaml.safe_dump({**SETTINGS, **settings}))
    summary: dict[str, Any] = {"status": status, "seeds": list(final), "wall_seconds": 2.0}
    if status == "finished":
        summary["final_returns"] = list(final.values())
    (folder / "summary.json").write_text(json.dumps(summary))
    values = (evaluations or {}).items()
    _write(
        folder / "metrics.csv",
        [[seed, t, "eval/return_mean", v] for seed, by_step in values for t, v in by_step.items()],
    )
    ended = (episodes or {}).items()
    _write(
        folder / "episodes.csv",
        [[seed, i, t, total, total] for seed, of in ended for i, (t, total) in enumerate(of)],
    )
    return folder


def _write(path: Path, rows: list[list[Any]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([HEADS[path.name], *rows])
