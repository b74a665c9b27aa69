"""What a run leaves behind: TensorBoard events, metrics.csv, episodes.csv.

One TensorBoard run per seed, all values of one step in one event. The x axis is env steps of a seed.
"""

import csv
import logging
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

# pyright: reportAttributeAccessIssue=false
# (the generated protocol-buffer modules tell type checkers nothing of what is in them)
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2, summary_v2
from tensorboard.summary.writer.record_writer import RecordWriter

from dqn_exp.types import Episode, State

log = logging.getLogger(__name__)

CARTPOLE_WINDOW = 100  # episodes that the official CartPole measure averages


class Tracker:
    """Writes a run's numbers, for all seeds.

    What a run that has been cut off wrote after the state that it goes on from is deleted.

    Args:
        run_dir: the run folder, which exists.
        seeds: seed values, in order.
        hparams: what the HPARAMS tab shows; plain scalars.
        state: of `state_dict`, to go on from.
        step: env steps made then.
    """

    def __init__(
        self,
        run_dir: Path,
        seeds: list[int],
        hparams: Mapping[str, Any],
        state: State | None = None,
        step: int = 0,
    ):
        self._seeds = seeds
        sizes = state["bytes"] if state else {}
        self._folders = [run_dir / f"seed={seed}" for seed in seeds]
        for path in _event_files(self._folders):
            _cut(path, sizes.get(f"{path.parent.name}/{path.name}", 0))
        self._files = [run_dir / "metrics.csv", run_dir / "episodes.csv"]
        for path in self._files:
            _cut(path, sizes.get(path.name, 0))
        self._writers: list[RecordWriter] | None = None  # none once they have failed
        self._events: dict[tuple[str, ...], Event] = {}  # by their tags
        with self._survive():
            self._writers = [_writer(folder) for folder in self._folders]
        self._write(Event(file_version="brain.Event:2") for _ in seeds)
        # A server that has shown more than was kept forgets it; the first start only tells it to do so.
        start = SessionLog(status=SessionLog.START)
        self._write(Event(step=step + 1 if state else 0, session_log=start) for _ in seeds)
        if not state:
            # Written into the run itself: a nested run of its own would double every curve. The tab
            # shows the beginning of the name, which must be unique as a whole.
            self._write(
                Event(
                    summary=summary_v2.hparams_pb(
                        {**hparams, "seed": seed},
                        trial_id=f"{run_dir.name} seed={seed} ({run_dir.parent})",
                    )
                )
                for seed in seeds
            )
        self._metrics_file, self._episodes_file = (path.open("a", newline="") for path in self._files)
        self._metrics, self._episodes = csv.writer(self._metrics_file), csv.writer(self._episodes_file)
        if not state:
            self._metrics.writerow(["seed", "step", "tag", "value"])
            self._episodes.writerow(["seed", "episode", "step", "return", "length"])
        recent: list[list[float]] = state["recent"] if state else [[] for _ in seeds]
        self._recent = [deque(returns, maxlen=CARTPOLE_WINDOW) for returns in recent]

    def state_dict(self) -> State:
        """How far the files go, once they are safe on disk, and the returns of late."""
        self._flush()
        for file in (self._metrics_file, self._episodes_file):
            file.flush()
            os.fsync(file.fileno())
        files = {f"{path.parent.name}/{path.name}": path for path in _event_files(self._folders)}
        files |= {path.name: path for path in self._files}
        return {
            "bytes": {name: path.stat().st_size for name, path in files.items()},
            "recent": [list(returns) for returns in self._recent],
        }

    def recent_returns(self) -> list[float]:
        """Each seed's mean return over its last 100 episodes (fewer at first; NaN before the first)."""
        return [sum(r) / len(r) if r else float("nan") for r in self._recent]

    def scalars(self, step: int, values: Mapping[str, np.ndarray]) -> None:
        """Record tag -> value of each seed [S] at an env step, and flush."""
        rows = [{tag: float(v[i]) for tag, v in values.items()} for i in range(len(self._seeds))]
        for seed, row in zip(self._seeds, rows, strict=True):
            self._metrics.writerows([seed, step, tag, value] for tag, value in row.items())
        self._metrics_file.flush()
        self._write(self._event(step, row) for row in rows)
        self._flush()

    def episodes(self, finished: Iterable[Episode]) -> None:
        """Record finished episodes, in the env's own rewards."""
        for episode in finished:
            i, step = episode.seed_index, episode.step
            self._recent[i].append(episode.reward_sum)
            row = [self._seeds[i], episode.number, step, episode.reward_sum, episode.length]
            self._episodes.writerow(row)
            values = {
                "train/episode_return": episode.reward_sum,
                "train/episode_length": episode.length,
                "train/episode_return_mean100": sum(self._recent[i]) / len(self._recent[i]),
            }
            self._write([self._event(step, values)], i)
        self._episodes_file.flush()

    def close(self, succeeded: bool | None) -> None:
        """Say how the run ended, unless it will go on (None), flush and close all files."""
        if succeeded is not None:
            self._write(_session_end(succeeded) for _ in self._seeds)
        with self._survive():
            for writer in self._writers or ():
                writer.close()
        self._metrics_file.close()
        self._episodes_file.close()

    def _event(self, step: int, values: Mapping[str, float]) -> Event:
        """Of scalars by tag; good until the next one of the same tags.

        Made once and filled in anew: Google's library makes the allocator trim the whole process's
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
        """An event of each seed, or of some from the first on."""
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
        """TensorBoard's files may fail, the CSV files hold the same: a warning, then without them."""
        try:
            yield
        except OSError as error:
            log.warning("TensorBoard's events are written no more, the CSV files are: %s", error)
            self._writers = None


def _writer(folder: Path) -> RecordWriter:
    """Of a new file, whose name is the last in order: that is how a server reads them."""
    folder.mkdir(exist_ok=True)
    last = max((int(path.name.split(".")[3]) for path in _event_files([folder])), default=0)
    path = folder / f"events.out.tfevents.{max(int(time.time()), last + 1):010d}"
    return RecordWriter(path.open("wb"))


def _event_files(folders: Iterable[Path]) -> list[Path]:
    return [path for folder in folders for path in folder.glob("events.out.tfevents.*")]


def _cut(path: Path, n_bytes: int) -> None:
    """Shorten a file, and delete it if nothing is left."""
    if not path.exists():
        return
    if not n_bytes:
        path.unlink()
    elif (size := path.stat().st_size) > n_bytes:
        os.truncate(path, n_bytes)
    elif size < n_bytes:
        log.warning("%s has lost its end, %d bytes", path, n_bytes - size)


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
