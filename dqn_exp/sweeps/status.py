"""How the jobs of a sweep ended: a sorted table, and the exit code that follows."""

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dqn_exp import files
from dqn_exp.analysis.folders import content, number
from dqn_exp.config.problems import shown
from dqn_exp.config.typed import flatten

HEAD = ("job", "IQM", "95 % CI", "state")
STAYS_OUT = ("resume", "hydra")
STATES = ("finished", "interrupted", "failed", "refused")
MOST_SHOWN = 60  # characters of a value


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
        status = self.summary.get("status")
        return status if status in STATES else "lost"

    @property
    def objective(self) -> float | None:
        """The IQM of the final evaluation; None if there is none."""
        return number(self.summary.get("objective"))

    @property
    def interval(self) -> list[float] | None:
        """The 95 % confidence interval of the objective; None if there is none."""
        ends = self.summary.get("objective_ci95")
        numbers = [number(end) for end in ends] if isinstance(ends, list) else []
        found = [end for end in numbers if end is not None]
        return found if len(numbers) == len(found) == 2 else None


def jobs(sweep: Path) -> list[Job]:
    """The jobs whose folders are in a sweep's folder, best first."""
    if not os.path.isdir(sweep):  # unlike Path.is_dir, False for a name that cannot be
        return []
    found = [
        Job(folder, flatten(content(folder, ".hydra/config.yaml")), content(folder, "summary.json"))
        for folder in sweep.iterdir()
        if re.match(r"[0-9]{1,9}(_|$)", folder.name) and files.is_folder(folder)
    ]
    worst = -math.inf
    return sorted(found, key=lambda j: (-(worst if j.objective is None else j.objective), j.number))


def table(found: list[Job]) -> list[str]:
    """A line for each job, with the keys that differ between jobs, and what went wrong."""
    keys = _differing([job.config for job in found if job.config])
    names = {key: _short(key, keys) for key in keys}
    rows = [["", *names.values(), *HEAD[1:]]]
    for job in found:
        iqm = "" if job.objective is None else f"{job.objective:.1f}"
        ci = "[{:.1f}, {:.1f}]".format(*job.interval) if job.interval else ""
        values = [shown(job.config.get(key, ""), MOST_SHOWN) for key in keys]
        rows.append([str(job.number), *values, iqm, ci, job.state])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    for i, job in enumerate(found, 1):
        if not job.config:  # refused: its folder's name is all there is to know it by
            lines[i] += f"  {shown(job.folder.name.partition('_')[2])}"
        if isinstance(error := job.summary.get("error"), str):
            lines[i] += ": " + shown(error.partition("\n")[0])
    return lines


def exit_code(found: list[Job]) -> int:
    """1 if a job failed or was lost, else 75 if one was interrupted, 2 if one was refused, or 0."""
    states = {job.state for job in found}
    codes = [("failed", 1), ("lost", 1), ("interrupted", 75), ("refused", 2)]
    return next((code for state, code in codes if state in states), 0)


def _differing(configs: list[dict[str, Any]]) -> list[str]:
    """Keys whose values differ between configs; keys that only some parts have are left out."""
    keys = dict.fromkeys(key for config in configs for key in config)
    differ = [k for k in keys if len({shown(config.get(k, "")) for config in configs}) > 1]
    differ = [k for k in differ if k not in STAYS_OUT]
    return [k for k in differ if k.endswith(".name") or all(k in config for config in configs)]


def _short(key: str, keys: list[str]) -> str:
    """The last word of a key, or of `agent.name` the group; the whole key where that is ambiguous."""
    word = key.removesuffix(".name").rpartition(".")[2]
    same = [k for k in keys if k.removesuffix(".name").rpartition(".")[2] == word]
    return word if len(same) == 1 else key
