"""What a run folder says, finished or not, of this version or another; needs no torch."""

import csv
import io
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dqn_exp import files
from dqn_exp.analysis.folders import STATES, config, content, error_line, number
from dqn_exp.config.problems import shown
from dqn_exp.config.typed import LARGEST, flatten

MOST_BYTES = 1 << 28  # of a CSV file
EVALUATION = "eval/return_mean"
METRICS = ("seed", "step", "tag", "value")
EPISODES = ("seed", "episode", "step", "return", "length")


class Series(NamedTuple):
    """Values of one seed, by env step, in order."""

    steps: np.ndarray  # [T]
    values: np.ndarray  # [T] finite


@dataclass(frozen=True)
class Run:
    """A run, as its folder describes it. Files are read when they are first needed."""

    folder: Path
    settings: dict[str, Any]  # its config by dotted keys; empty if it was refused
    summary: dict[str, Any]

    @property
    def state(self) -> str:
        """The summary's status, or "lost": the run has not said how it ended."""
        status = self.summary.get("status")
        return status if status in STATES else "lost"

    @property
    def name(self) -> str:
        """The folder's name, for a person."""
        return shown(self.folder.name, 100)

    @property
    def error(self) -> str:
        """What went wrong, on one line."""
        return error_line(self.summary)

    @property
    def final(self) -> dict[int, float]:
        """Seed -> mean return of the final evaluation; of a run that has finished, and where finite."""
        seeds, returns = self.summary.get("seeds"), self.summary.get("final_returns")
        if self.state != "finished" or not isinstance(seeds, list) or not isinstance(returns, list):
            return {}
        scores = {s: number(r) for s, r in zip(seeds, returns, strict=False) if type(s) is int}
        return {seed: score for seed, score in scores.items() if score is not None}

    @cached_property
    def metrics(self) -> dict[str, dict[int, Series]]:
        """Tag -> seed -> values, from metrics.csv."""
        values: dict[str, dict[int, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
        for seed, step, tag, value in rows(self.folder / "metrics.csv", METRICS):
            if (point := _finite(step, value)) and (key := _whole(seed)) is not None:
                values[tag][key][point[0]] = point[1]
        return {
            tag: {seed: _series(by_step.items()) for seed, by_step in seeds.items()}
            for tag, seeds in values.items()
        }

    @cached_property
    def episodes(self) -> dict[str, dict[int, Series]]:
        """`return` and `length` -> seed -> value of each training episode, from episodes.csv."""
        found: dict[str, dict[int, list[tuple[int, float]]]] = {
            "return": defaultdict(list),
            "length": defaultdict(list),
        }
        for seed, _, step, total, length in rows(self.folder / "episodes.csv", EPISODES):
            for name, value in (("return", total), ("length", length)):
                if (point := _finite(step, value)) and (key := _whole(seed)) is not None:
                    found[name][key].append(point)
        return {
            name: {s: _series(points) for s, points in seeds.items()} for name, seeds in found.items()
        }

    @property
    def seeds(self) -> list[int]:
        """The seeds of which anything is known, in order."""
        known = {*self.final, *self.metrics.get(EVALUATION, {}), *self.episodes["return"]}
        return sorted(known)

    @property
    def step(self) -> int:
        """The last env step of which anything is known."""
        series = [*self.metrics.get(EVALUATION, {}).values(), *self.episodes["return"].values()]
        return max((int(s.steps[-1]) for s in series), default=0)


def read(folder: Path) -> Run:
    """The run in a folder."""
    try:
        settings = flatten(config(folder))
    except RecursionError:
        settings = {}
    return Run(folder, settings, content(folder, "summary.json"))


def rows(path: Path, columns: tuple[str, ...]) -> Iterator[list[str]]:
    """The whole rows of a CSV file of these columns; none if it is absent, or not such a file.

    A last line without an end is still being written, or has been cut: its numbers may lack digits.
    """
    try:
        text = files.read(path, MOST_BYTES).decode(errors="replace")
    except (OSError, files.OddFileError):
        return
    lines = csv.reader(io.StringIO(text[: text.rfind("\n") + 1], newline=""))
    try:
        if tuple(next(lines, ())) == columns:
            yield from (row for row in lines if len(row) == len(columns))
    except csv.Error:  # a field of more than 128 kB: what follows is no row of a run
        return


def _series(points: Any) -> Series:
    ordered = np.array(sorted(points, key=lambda point: point[0]), float).reshape(-1, 2)
    return Series(ordered[:, 0].astype(np.int64), ordered[:, 1])


def _finite(step: str, value: str) -> tuple[int, float] | None:
    """A point of a curve; None if it is none, or not finite."""
    try:
        point = _whole(step), float(value)
    except ValueError:
        return None
    return (point[0], point[1]) if point[0] is not None and abs(point[1]) < LARGEST[float] else None


def _whole(text: str) -> int | None:
    """A seed or a step."""
    try:
        whole = int(text)
    except ValueError:
        return None
    return whole if 0 <= whole < LARGEST[int] else None
