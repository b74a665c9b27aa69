"""The output of a run: TensorBoard events, metrics.csv, episodes.csv.

One TensorBoard run per seed, all values of one step in one event. The x axis is env steps of a seed.
"""

import logging
import os
import re
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

# pyright: reportAttributeAccessIssue=false
# (type checkers cannot see into the generated protocol-buffer modules)
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2, summary_v2
from tensorboard.summary.writer.record_writer import RecordWriter

from dqn_exp import files
from dqn_exp.interfaces import Episode
from dqn_exp.run.csv_file import CsvFile
from dqn_exp.state import State

log = logging.getLogger(__name__)

EVENT_FILE = re.compile(r"events\.out\.tfevents\.\d{10}")
CARTPOLE_WINDOW = 100  # episodes that the official CartPole measure averages


class Tracker:
    """Writes the metrics of a run, for all seeds. No file is touched before `open`.

    Args:
        run_dir: the run folder, which exists.
        seeds: seed values, in order.
        hparams: what the HPARAMS tab shows; plain scalars.
    """

    def __init__(self, run_dir: Path, seeds: list[int], hparams: Mapping[str, Any]):
        self._run_dir, self._seeds, self._hparams = run_dir, seeds, hparams
        self._folders = [run_dir / f"seed={seed}" for seed in seeds]
        self._metrics = CsvFile(run_dir / "metrics.csv", ["seed", "step", "tag", "value"])
        self._episodes = CsvFile(
            run_dir / "episodes.csv", ["seed", "episode", "step", "return", "length"]
        )
        self._writers: list[RecordWriter] | None = None  # None after they have failed
        self._events: dict[tuple[str, ...], Event] = {}  # by their tags
        self._recent = [deque[float](maxlen=CARTPOLE_WINDOW) for _ in seeds]
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
        self._recent = [deque(map(float, returns), maxlen=CARTPOLE_WINDOW) for returns in recent]
        for path in _event_files(self._folders):
            _truncate(path, lengths.get(f"{path.parent.name}/{path.name}", 0))
        self._metrics.resume(metrics)
        self._episodes.resume(episodes)
        self._resumed_at = step

    def open(self) -> None:
        """Open all files: to append if the run was resumed, else as new files."""
        resumed, step = self._resumed_at is not None, (self._resumed_at or -1) + 1
        if not resumed:
            for path in _event_files(self._folders):
                path.unlink()
            self._metrics.begin()
            self._episodes.begin()
        with self._survive():
            self._writers = [_writer(folder) for folder in self._folders]
        self._write(Event(file_version="brain.Event:2") for _ in self._seeds)
        # At a start, TensorBoard drops what it has shown of later steps; the first one enables that.
        start = SessionLog(status=SessionLog.START)
        self._write(Event(step=step if resumed else 0, session_log=start) for _ in self._seeds)
        if not resumed:
            # Written into the run itself: a nested run of its own would double every curve. The tab
            # shows the beginning of the name, which must be unique as a whole.
            name, parent = self._run_dir.name, self._run_dir.parent
            self._write(
                Event(
                    summary=summary_v2.hparams_pb(
                        {**self._hparams, "seed": seed}, trial_id=f"{name} seed={seed} ({parent})"
                    )
                )
                for seed in self._seeds
            )

    def state_dict(self) -> State:
        """The length of every file, once it is safe on disk, and recent returns.

        Raises:
            OSError: rows of CSV files still cannot be written.
        """
        self._flush()
        lengths = {f"{p.parent.name}/{p.name}": p.stat().st_size for p in _event_files(self._folders)}
        lengths["metrics.csv"] = self._metrics.synchronise()
        lengths["episodes.csv"] = self._episodes.synchronise()
        return {"bytes": lengths, "recent": [list(returns) for returns in self._recent]}

    def recent_returns(self) -> list[float]:
        """Each seed's mean return over its last 100 episodes (fewer at first; NaN before the first)."""
        return [sum(r) / len(r) if r else float("nan") for r in self._recent]

    def scalars(self, step: int, values: Mapping[str, np.ndarray]) -> None:
        """Record tag -> value of each seed [S] at an env step, and flush."""
        rows = [{tag: float(v[i]) for tag, v in values.items()} for i in range(len(self._seeds))]
        self._metrics.write(
            [seed, step, tag, value]
            for seed, row in zip(self._seeds, rows, strict=True)
            for tag, value in row.items()
        )
        self._write(self._event(step, row) for row in rows)
        self._flush()

    def episodes(self, finished: Iterable[Episode]) -> None:
        """Record finished episodes, in the env's own rewards."""
        rows = []
        for episode in finished:
            i, step = episode.seed_index, episode.step
            self._recent[i].append(episode.reward_sum)
            rows.append([self._seeds[i], episode.number, step, episode.reward_sum, episode.length])
            values = {
                "train/episode_return": episode.reward_sum,
                "train/episode_length": episode.length,
                "train/episode_return_mean100": sum(self._recent[i]) / len(self._recent[i]),
            }
            self._write([self._event(step, values)], i)
        if rows:
            self._episodes.write(rows)

    def close(self, succeeded: bool | None) -> None:
        """Record how the run ended, unless it is to be resumed (None), and close all files."""
        if succeeded is not None:
            self._write(_session_end(succeeded) for _ in self._seeds)
        with self._survive():
            for writer in self._writers or ():
                writer.close()
        for file in (self._metrics, self._episodes):
            file.write([])  # what still waits

    @property
    def missing_rows(self) -> int:
        """Rows of the CSV files that could not be written."""
        return self._metrics.missing_rows + self._episodes.missing_rows

    def _event(self, step: int, values: Mapping[str, float]) -> Event:
        """An event of scalars by tag; valid until the next one of the same tags.

        Created once and reused: Google's library makes the allocator trim the whole process's
        memory each time it has freed some thousand messages.
        """
        tags = tuple(values)
        if tags not in self._events:
            scalars = [Summary.Value(tag=tag) for tag in tags]
            self._events[tags] = Event(summary=Summary(value=scalars))
        event = self._events[tags]
        event.step = step
        for scalar, value in zip(event.summary.value, values.values(), strict=True):
            scalar.simple_value = value
        return event

    def _write(self, events: Iterable[Event], first: int = 0) -> None:
        """Write an event for each seed, from the first-th on."""
        with self._survive():
            for writer, event in zip(
                self._writers[first:] if self._writers else (), events, strict=False
            ):
                event.wall_time = time.time()
                writer.write(event.SerializeToString())

    def _flush(self) -> None:
        with self._survive():
            for writer in self._writers or ():
                writer.flush()

    @contextmanager
    def _survive(self) -> Iterator[None]:
        """If TensorBoard files fail, warn and continue without them: the CSV files have the same."""
        try:
            yield
        except OSError as error:
            log.warning("TensorBoard events are no longer written, the CSV files still are: %s", error)
            self._writers = None


def _writer(folder: Path) -> RecordWriter:
    """A writer of a new file whose name sorts last: that is the order in which TensorBoard reads."""
    folder.mkdir(exist_ok=True)
    last = max((int(path.name.split(".")[3]) for path in _event_files([folder])), default=0)
    path = folder / f"events.out.tfevents.{max(int(time.time()), last + 1):010d}"
    return RecordWriter(open(path, "xb", opener=files.opener))


def _event_files(folders: Iterable[Path]) -> list[Path]:
    """The event files of a run; others have more in their names."""
    return [p for folder in folders for p in folder.glob("events.*") if EVENT_FILE.fullmatch(p.name)]


def _truncate(path: Path, n_bytes: int) -> None:
    """Shorten an event file, and delete it if nothing is left."""
    if not n_bytes:
        path.unlink()
        return
    with open(path, "rb+", opener=files.opener) as file:
        size = os.fstat(file.fileno()).st_size
        if size < n_bytes:
            log.warning("%s has lost its last %d bytes", path, n_bytes - size)
        else:
            file.truncate(n_bytes)


def _session_end(succeeded: bool) -> Event:
    """Tells the HPARAMS tab how the run ended (TensorBoard's own function for it needs TensorFlow)."""
    end = plugin_data_pb2.SessionEndInfo(
        status=api_pb2.STATUS_SUCCESS if succeeded else api_pb2.STATUS_FAILURE,
        end_time_secs=time.time(),
    )
    data = plugin_data_pb2.HParamsPluginData(session_end_info=end)
    value = Summary.Value(
        tag=metadata.SESSION_END_INFO_TAG,
        tensor=metadata.NULL_TENSOR,
        metadata=metadata.create_summary_metadata(data),
    )
    return Event(summary=Summary(value=[value]))
