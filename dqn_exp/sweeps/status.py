"""How the jobs of a sweep ended: a sorted table, and the exit code that follows."""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dqn_exp.config.typed import flatten

HEAD = ("job", "IQM", "95 % CI", "state")
STAYS_OUT = ("resume", "hydra")


@dataclass(frozen=True)
class Job:
    """A job of a sweep, as its folder describes it."""

    folder: Path
    config: dict[str, Any]  # by dotted keys; empty if the job was refused
    summary: dict[str, Any]

    @property
    def number(self) -> int:
        """Its number in the sweep."""
        return int(self.folder.name.partition("_")[0])

    @property
    def state(self) -> str:
        """finished, interrupted, failed, refused, or lost: it ended without saying how."""
        status = self.summary.get("status", "lost")
        return "lost" if status == "running" else status

    @property
    def objective(self) -> float | None:
        """The IQM of the final evaluation; None if there is none."""
        return self.summary.get("objective")


def jobs(sweep: Path) -> list[Job]:
    """The jobs whose folders are in a sweep's folder, best first."""
    found = []
    for folder in sweep.iterdir() if sweep.is_dir() else ():
        if not (folder.is_dir() and re.match(r"\d+(_|$)", folder.name)):
            continue
        config, summary = folder / ".hydra/config.yaml", folder / "summary.json"
        found.append(
            Job(
                folder,
                flatten(yaml.safe_load(config.read_text())) if config.is_file() else {},
                json.loads(summary.read_text()) if summary.is_file() else {},
            )
        )
    worst = -math.inf
    return sorted(found, key=lambda j: (-(worst if j.objective is None else j.objective), j.number))


def table(found: list[Job]) -> list[str]:
    """A line for each job, with the keys that differ between jobs, and what went wrong."""
    keys = _differing([job.config for job in found if job.config])
    names = {key: _short(key, keys) for key in keys}
    rows = [["", *names.values(), *HEAD[1:]]]
    for job in found:
        iqm = "" if job.objective is None else f"{job.objective:.1f}"
        interval = job.summary.get("objective_ci95")
        ci = f"[{interval[0]:.1f}, {interval[1]:.1f}]" if interval else ""
        values = [str(job.config.get(key, "")) for key in keys]
        rows.append([str(job.number), *values, iqm, ci, job.state])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    for i, job in enumerate(found, 1):
        if not job.config:  # refused: its folder's name is all there is to know it by
            lines[i] += f"  {job.folder.name.partition('_')[2]}"
        if error := job.summary.get("error"):
            lines[i] += f": {str(error).splitlines()[0]}"
    return lines


def exit_code(found: list[Job]) -> int:
    """1 if a job failed or was lost, else 75 if one was interrupted, 2 if one was refused, or 0."""
    states = {job.state for job in found}
    codes = [("failed", 1), ("lost", 1), ("interrupted", 75), ("refused", 2)]
    return next((code for state, code in codes if state in states), 0)


def _differing(configs: list[dict[str, Any]]) -> list[str]:
    """Keys whose values differ between configs; keys that only some parts have are left out."""
    keys = dict.fromkeys(key for config in configs for key in config)
    differ = [k for k in keys if len({str(config.get(k, "")) for config in configs}) > 1]
    differ = [k for k in differ if k not in STAYS_OUT]
    return [k for k in differ if k.endswith(".name") or all(k in config for config in configs)]


def _short(key: str, keys: list[str]) -> str:
    """The last word of a key, or of `agent.name` the group; the whole key where that is ambiguous."""
    word = key.removesuffix(".name").rpartition(".")[2]
    same = [k for k in keys if k.removesuffix(".name").rpartition(".")[2] == word]
    return word if len(same) == 1 else key
