"""How the jobs of a sweep ended: a sorted table, and the exit code that follows."""

import json
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dqn_exp import files
from dqn_exp.config.problems import shown
from dqn_exp.config.typed import LARGEST, flatten

HEAD = ("job", "IQM", "95 % CI", "state")
STAYS_OUT = ("resume", "hydra")
STATES = ("finished", "interrupted", "failed", "refused")
MOST_BYTES = {".hydra/config.yaml": 1 << 18, "summary.json": 1 << 26}  # far more than they have
MOST_SHOWN = 60  # characters of a value


class _Loader(yaml.SafeLoader):
    """YAML without aliases: a few lines of them can stand for more than any memory holds."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not read")
        return super().compose_node(parent, index)


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
        return _number(self.summary.get("objective"))

    @property
    def interval(self) -> list[float] | None:
        """The 95 % confidence interval of the objective; None if there is none."""
        ends = self.summary.get("objective_ci95")
        numbers = [_number(end) for end in ends] if isinstance(ends, list) else []
        found = [end for end in numbers if end is not None]
        return found if len(numbers) == len(found) == 2 else None


def jobs(sweep: Path) -> list[Job]:
    """The jobs whose folders are in a sweep's folder, best first."""
    if not os.path.isdir(sweep):  # unlike Path.is_dir, False for a name that cannot be
        return []
    found = [
        Job(folder, flatten(_content(folder, ".hydra/config.yaml")), _content(folder, "summary.json"))
        for folder in sweep.iterdir()
        if re.match(r"[0-9]{1,9}(_|$)", folder.name) and files.is_folder(folder)
    ]
    worst = -math.inf
    return sorted(found, key=lambda j: (-(worst if j.objective is None else j.objective), j.number))


def _content(folder: Path, name: str) -> dict[str, Any]:
    """What a file of a job says; nothing if it is absent, damaged or not the program's own."""
    try:
        text = files.read(folder / name, MOST_BYTES[name])
        content = json.loads(text) if name.endswith("json") else yaml.load(text, _Loader)
    except (OSError, ValueError, RecursionError, files.OddFileError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def _number(value: Any) -> float | None:
    number = isinstance(value, int | float) and abs(value) < LARGEST[float]
    return float(value) if number else None


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
