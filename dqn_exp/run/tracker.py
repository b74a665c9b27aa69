"""The output of a run: metrics.csv, episodes.csv, and what loggers make of them. Letters: S seeds."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from dqn_exp.interfaces import Episode
from dqn_exp.run.csv_file import CsvFile
from dqn_exp.state import State

WINDOW = 100  # episodes that the official CartPole measure averages
MEAN_RETURN = f"train/episode_return_mean{WINDOW}"


class Logger(Protocol):
    """Gets all metrics, beside the CSV files. It never makes a run fail."""

    def lengths(self) -> dict[str, int]:
        """The length in bytes of every file to be cut on resume, by its path in the run folder."""
        ...

    def resume(self, lengths: Mapping[str, int]) -> None:
        """Delete what was written after the files had these lengths."""
        ...

    def open(self, resumed_at: int | None) -> None:
        """Begin, or continue a run that was resumed at an env step."""
        ...

    def scalars(self, step: int, values: Mapping[str, np.ndarray]) -> None:
        """Record tag -> value of each seed [S] at an env step, and their mean."""
        ...

    def of_seed(self, i: int, step: int, values: Mapping[str, float]) -> None:
        """Record tag -> value of the i-th seed at an env step."""
        ...

    def of_mean(self, step: int, values: Mapping[str, float]) -> None:
        """Record tag -> mean over seeds at an env step; nothing if there is only one."""
        ...

    def histograms(self, step: int, values: Mapping[str, np.ndarray]) -> None:
        """Record tag -> values of each seed [S, n] at an env step."""
        ...

    def film(self, i: int, step: int, tag: str, gif: bytes, size: tuple[int, int]) -> None:
        """Record a film of the i-th seed at an env step; width and height in pixels."""
        ...

    def flush(self) -> None:
        """Hand everything to the operating system."""
        ...

    def close(self, succeeded: bool | None) -> None:
        """Record how the run ended, unless it is to be resumed (None), and close all files."""
        ...


class Tracker:
    """Writes the metrics of a run, for all seeds. No file is touched before `open`.

    Args:
        run_dir: the run folder, which exists.
        seeds: seed values [S].
    """

    def __init__(self, run_dir: Path, seeds: Sequence[int], loggers: Sequence[Logger]):
        self._seeds, self.loggers = seeds, loggers
        self._metrics = CsvFile(run_dir / "metrics.csv", ["seed", "step", "tag", "value"])
        self._episodes = CsvFile(
            run_dir / "episodes.csv", ["seed", "episode", "step", "return", "length"]
        )
        self._recent = [deque[float](maxlen=WINDOW) for _ in seeds]
        self._resumed_at: int | None = None

    def load_state_dict(self, state: State, step: int) -> None:
        """Continue from a state of `state_dict` at an env step: what was written after it is deleted.

        Raises:
            ValueError: the state does not fit; no file has changed.
        """
        lengths, recent = state["bytes"], state["recent"]
        metrics, episodes = lengths["metrics.csv"], lengths["episodes.csv"]
        if len(recent) != len(self._seeds):
            raise ValueError(f"recent returns of {len(recent)} seeds, must be {len(self._seeds)}")
        if not all(type(n) is int and n >= 0 for n in lengths.values()):
            raise ValueError(f"lengths of files are {list(lengths.values())}")
        self._recent = [deque(map(float, returns), maxlen=WINDOW) for returns in recent]
        for logger in self.loggers:
            logger.resume(lengths)
        self._metrics.resume(metrics)
        self._episodes.resume(episodes)
        self._resumed_at = step

    def open(self) -> None:
        """Open all files: to append if the run was resumed, else as new files."""
        if self._resumed_at is None:
            self._metrics.begin()
            self._episodes.begin()
        for logger in self.loggers:
            logger.open(self._resumed_at)

    def state_dict(self) -> State:
        """The length of every file, once it is safe on disk, and recent returns.

        Raises:
            OSError: rows of CSV files still cannot be written.
        """
        lengths: dict[str, int] = {}
        for logger in self.loggers:
            logger.flush()
            lengths |= logger.lengths()
        lengths["metrics.csv"] = self._metrics.synchronise()
        lengths["episodes.csv"] = self._episodes.synchronise()
        return {"bytes": lengths, "recent": [list(returns) for returns in self._recent]}

    def recent_returns(self) -> np.ndarray:
        """Each seed's mean return over its last 100 episodes [S] (fewer at first; NaN before them)."""
        return np.array([sum(r) / len(r) if r else np.nan for r in self._recent])

    def scalars(self, step: int, values: Mapping[str, np.ndarray]) -> None:
        """Record tag -> value of each seed [S] at an env step, and flush."""
        columns = {tag: v.tolist() for tag, v in values.items()}
        self._metrics.write(
            [seed, step, tag, column[i]]
            for i, seed in enumerate(self._seeds)
            for tag, column in columns.items()
        )
        recent = self.recent_returns()
        for logger in self.loggers:
            logger.scalars(step, values)
            if not np.isnan(recent).any():
                logger.of_mean(step, {MEAN_RETURN: float(recent.mean())})
            logger.flush()

    def episodes(self, finished: Iterable[Episode]) -> None:
        """Record finished episodes, in the env's own rewards."""
        episodes, metrics = [], []
        for episode in finished:
            i, step = episode.seed_index, episode.step
            recent, seed = self._recent[i], self._seeds[i]
            recent.append(episode.reward_sum)
            episodes.append([seed, episode.number, step, episode.reward_sum, episode.length])
            values = {
                "train/episode_return": episode.reward_sum,
                MEAN_RETURN: sum(recent) / len(recent),
            }
            metrics += [[seed, step, tag, value] for tag, value in values.items()]
            for logger in self.loggers:
                logger.of_seed(i, step, values | {"train/episode_length": episode.length})
        if episodes:
            self._episodes.write(episodes)
            self._metrics.write(metrics)

    def close(self, succeeded: bool | None) -> None:
        """Record how the run ended, unless it is to be resumed (None), and close all files."""
        for logger in self.loggers:
            logger.close(succeeded)
        for file in (self._metrics, self._episodes):
            file.write([])  # what still waits

    @property
    def missing_rows(self) -> int:
        """Rows of the CSV files that could not be written."""
        return self._metrics.missing_rows + self._episodes.missing_rows
