"""The jobs of a sweep: how far each has come, how it ended, and the exit code that follows."""

import csv
import math
import os
import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from dqn_exp import files
from dqn_exp.analysis.folders import CONFIG, STATES, content, error_line, number
from dqn_exp.analysis.keys import differing, is_implied, short
from dqn_exp.config.problems import shown
from dqn_exp.config.typed import flatten
from dqn_exp.run.lock import is_held

STAYS_OUT = ("resume",)
FAILED = ("failed", "lost")
MOST_SHOWN = 60  # characters of a value
TAIL = 1 << 16  # bytes at the end of a file that are looked at
TRACEBACK = "Traceback (most recent call last):"
MOST_LINES = 12  # of a traceback
RETURN, SPEED = "eval/return_mean", "time/steps_per_second"


class Progress(NamedTuple):
    """How far a job has come, by the end of its metrics.csv."""

    step: int = 0  # env steps of each seed at the last log point
    last_return: float | None = None  # of the last evaluation, the mean over seeds
    speed: float | None = None  # env steps per second of all seeds together


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

    @cached_property
    def state(self) -> str:
        """finished, interrupted, failed, refused, running, or lost: it ended without saying how."""
        status = self.summary.get("status")
        if status not in STATES or (status == "running" and not is_held(self.folder)):
            return "lost"
        return str(status)

    @property
    def error(self) -> str:
        """What went wrong, on one line."""
        return error_line(self.summary)

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

    @cached_property
    def progress(self) -> Progress:
        """How far it has come."""
        return _progress(self.folder)

    @property
    def seconds_left(self) -> float | None:
        """Seconds of training until the last env step; a stop rule may end it earlier."""
        total, seeds = number(self.config.get("total_steps")), number(self.config.get("seeds"))
        if not total or not seeds or not self.progress.speed:
            return None
        return max(0.0, total - self.progress.step) * seeds / self.progress.speed

    def traceback(self) -> list[str]:
        """The end of the last traceback in its log."""
        lines = [shown(line) for line in _tail(self.folder / "train.log")]
        begins = [i for i, line in enumerate(lines) if TRACEBACK in line]
        return lines[begins[-1] :][-MOST_LINES:] if begins else []


def jobs(sweep: Path) -> list[Job]:
    """The jobs whose folders are in a sweep's folder, best first."""
    if not os.path.isdir(sweep):  # unlike Path.is_dir, False for a name that cannot be
        return []
    found = [
        Job(folder, _settings(folder), content(folder, "summary.json"))
        for folder in sweep.iterdir()
        if re.match(r"[0-9]{1,9}(_|$)", folder.name) and files.is_folder(folder)
    ]
    worst = -math.inf
    return sorted(found, key=lambda j: (-(worst if j.objective is None else j.objective), j.number))


def rows(found: list[Job]) -> list[list[str]]:
    """A head, and a row for each job: keys that differ between jobs, result, state, what went wrong.

    While jobs are running, also how far each has come.
    """
    keys = varied(found)
    names = {key: short(key, keys) for key in keys}
    live = any(job.state == "running" for job in found)
    progress = ["step", "last return", "steps/s", "left"] if live else []
    made = [["", *names.values(), "IQM", "95 % CI", *progress, "state", ""]]
    for job in found:
        iqm = "" if job.objective is None else f"{job.objective:.1f}"
        ci = "[{:.1f}, {:.1f}]".format(*job.interval) if job.interval else ""
        values = [shown(job.config.get(key, ""), MOST_SHOWN) for key in keys]
        # A refused job has no config: its folder's name is all there is to know it by.
        about = [job.error] if job.config else [shown(job.folder.name.partition("_")[2]), job.error]
        cells = [str(job.number), *values, iqm, ci, *(_cells(job) if live else []), job.state]
        made.append([*cells, ": ".join(filter(None, about))])
    return made


def varied(found: list[Job]) -> list[str]:
    """Keys whose values differ between jobs, without those that follow from a part's name."""
    configs = [job.config for job in found if job.config]
    keys = differing(configs, lambda key: key not in STAYS_OUT)
    return [key for key in keys if not is_implied(key, configs)]


def table(found: list[Job]) -> list[str]:
    """The rows as lines of text."""
    *columns, _ = zip(*(made := rows(found)), strict=True)
    widths = [max(map(len, column)) for column in columns]
    return [
        "  ".join([*(c.ljust(w) for c, w in zip(row[:-1], widths, strict=True)), row[-1]]).rstrip()
        for row in made
    ]


def summary_line(found: list[Job]) -> str:
    """How many jobs are in which state, and the best one."""
    counts = [(sum(job.state == s for job in found), s) for s in (*STATES, "lost")]
    jobs = "1 job" if len(found) == 1 else f"{len(found)} jobs"
    line = f"{jobs}: {', '.join(f'{n} {state}' for n, state in counts if n)}"
    best = found[0]
    return (
        line if best.objective is None else f"{line}; best IQM {best.objective:.1f} (job {best.number})"
    )


def exit_code(found: list[Job]) -> int:
    """1 if a job failed or was lost, else 75 if one was interrupted, 2 if one was refused, or 0."""
    states = {job.state for job in found}
    codes = [("failed", 1), ("lost", 1), ("interrupted", 75), ("refused", 2)]
    return next((code for state, code in codes if state in states), 0)


def _settings(folder: Path) -> dict[str, Any]:
    """The config of a job, by dotted keys."""
    try:
        changed = (folder / CONFIG).lstat().st_mtime_ns
    except OSError:
        return {}
    return _read_settings(folder, changed)


@lru_cache(maxsize=10_000)
def _read_settings(folder: Path, changed: int) -> dict[str, Any]:
    """The same, read once as long as the file does not change: YAML is slow to read."""
    del changed
    return flatten(content(folder, CONFIG))


def _progress(folder: Path) -> Progress:
    """How far a job has come."""
    step, last, speed = 0, dict[str, float](), None
    evaluated = -1
    for row in csv.reader(_tail(folder / "metrics.csv")):
        try:
            seed, at, tag, value = row[0], int(row[1]), row[2], number(float(row[3]))
        except (IndexError, ValueError):  # the first line may be cut
            continue
        step = max(step, at)
        if tag == RETURN and value is not None and at >= evaluated:
            last, evaluated = {**(last if at == evaluated else {}), seed: value}, at
        if tag == SPEED:
            speed = value
    mean = sum(last.values()) / len(last) if last else None
    return Progress(step, mean, speed)


def _tail(path: Path) -> list[str]:
    """The whole lines at the end of a file; none if it is absent, or no regular file."""
    try:
        with open(path, "rb", opener=files.opener) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
            text = file.read(TAIL).decode(errors="replace")
    except (OSError, files.OddFileError):
        return []
    return text[: text.rfind("\n") + 1].splitlines()


def _cells(job: Job) -> list[str]:
    """How far a running job has come."""
    if job.state != "running":
        return [""] * 4
    from tqdm import tqdm  # not above: --help does not need it

    step, last, speed = job.progress
    left = job.seconds_left
    return [
        f"{step:,}",
        "" if last is None else f"{last:.1f}",
        "" if speed is None else f"{speed:,.0f}",
        "" if left is None else tqdm.format_interval(left),
    ]
