"""TensorBoard events: one TensorBoard run per seed, and one for the mean over seeds.

All values of one step are in one event. The x axis is env steps of a seed. Letters: S seeds.
"""

import logging
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

# pyright: reportAttributeAccessIssue=false
# (type checkers cannot see into the generated protocol-buffer modules)
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import metadata as custom_scalar
from tensorboard.plugins.histogram.summary_v2 import histogram_pb
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2, summary_v2
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.record_writer import RecordWriter

from dqn_exp import files
from dqn_exp.glossary import CHARTS, MEANINGS

log = logging.getLogger(__name__)

EVENT_FILE = re.compile(r"events\.out\.tfevents\.\d{10}")
MEAN = "mean"  # folder of the mean over seeds


class TensorBoard:
    """Writes events. No file is touched before `open`. A failing disk costs a warning, never a run.

    Args:
        run_dir: the run folder, which exists.
        seeds: seed values [S].
        hparams: what the HPARAMS tab shows; plain scalars.
        texts: what the TEXT tab shows, by tag; Markdown.
    """

    def __init__(
        self,
        run_dir: Path,
        seeds: Sequence[int],
        hparams: Mapping[str, Any],
        texts: Mapping[str, str],
    ):
        self._run_dir, self._seeds, self._hparams, self._texts = run_dir, seeds, hparams, texts
        self._folders = [run_dir / f"seed={seed}" for seed in seeds]
        if len(seeds) > 1:
            self._folders.append(run_dir / MEAN)
        self._writers: list[RecordWriter] | None = None  # None after they have failed
        self._events: dict[tuple[str, ...], Event] = {}  # by their tags
        self._described: set[tuple[int, tuple[str, ...]]] = set()

    def lengths(self) -> dict[str, int]:
        """The length in bytes of every file, by its path in the run folder."""
        return {f"{p.parent.name}/{p.name}": p.stat().st_size for p in _event_files(self._folders)}

    def resume(self, lengths: Mapping[str, int]) -> None:
        """Delete what was written after the files had these lengths."""
        for path in _event_files(self._folders):
            _truncate(path, lengths.get(f"{path.parent.name}/{path.name}", 0))

    def open(self, resumed_at: int | None) -> None:
        """Open all files: to append if the run was resumed at an env step, else as new files."""
        if resumed_at is None:
            for path in _event_files(self._folders):
                path.unlink()
        with self._survive():
            self._writers = [_writer(folder) for folder in self._folders]
        self._write(Event(file_version="brain.Event:2") for _ in self._folders)
        # At a start, TensorBoard drops what it has shown of later steps; the first one enables that.
        start = SessionLog(status=SessionLog.START)
        step = 0 if resumed_at is None else resumed_at + 1
        self._write(Event(step=step, session_log=start) for _ in self._folders)
        if resumed_at is None:
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
            last = len(self._folders) - 1
            self._write([Event(summary=_layout())], last)
            for tag, text in self._texts.items():
                self._write([Event(summary=text_pb(tag, text))], last)

    def scalars(self, step: int, values: Mapping[str, np.ndarray]) -> None:
        """Record tag -> value of each seed [S] at an env step, and their mean."""
        columns = {tag: v.tolist() for tag, v in values.items()}
        for i in range(len(self._seeds)):
            self.of_seed(i, step, {tag: v[i] for tag, v in columns.items()})
        self.of_mean(step, {tag: float(v.mean()) for tag, v in values.items()})

    def of_seed(self, i: int, step: int, values: Mapping[str, float]) -> None:
        """Record tag -> value of the i-th seed at an env step."""
        self._write([self._event(i, step, values)], i)

    def of_mean(self, step: int, values: Mapping[str, float]) -> None:
        """Record tag -> mean over seeds at an env step; nothing if there is only one."""
        if len(self._seeds) > 1:
            self.of_seed(len(self._seeds), step, values)

    def histograms(self, step: int, values: Mapping[str, np.ndarray]) -> None:
        """Record tag -> values of each seed [S, n] at an env step."""
        for i in range(len(self._seeds)):
            for tag, v in values.items():
                self._write([Event(step=step, summary=histogram_pb(tag, v[i]))], i)

    def film(self, i: int, step: int, tag: str, gif: bytes, size: tuple[int, int]) -> None:
        """Record a film of the i-th seed at an env step.

        Args:
            size: width and height in pixels.
        """
        image = Summary.Image(width=size[0], height=size[1], colorspace=3, encoded_image_string=gif)
        self._write([Event(step=step, summary=Summary(value=[Summary.Value(tag=tag, image=image)]))], i)

    def flush(self) -> None:
        """Hand everything to the operating system."""
        with self._survive():
            for writer in self._writers or ():
                writer.flush()

    def close(self, succeeded: bool | None) -> None:
        """Record how the run ended, unless it is to be resumed (None), and close all files."""
        if succeeded is not None:
            self._write(_session_end(succeeded) for _ in self._seeds)
        with self._survive():
            for writer in self._writers or ():
                writer.close()

    def _event(self, i: int, step: int, values: Mapping[str, float]) -> Event:
        """An event of scalars by tag; valid until the next one of the same tags.

        Created once and reused: Google's library makes the allocator trim the whole process's
        memory each time it has freed some thousand messages. The first of its kind in a file has the
        descriptions of the tags.
        """
        tags = tuple(values)
        if (i, tags) not in self._described:
            self._described.add((i, tags))
            summary = Summary()
            for tag, value in values.items():
                summary.MergeFrom(scalar_pb(tag, value, description=MEANINGS.get(tag, "")))
            return Event(step=step, summary=summary)
        if tags not in self._events:
            scalars = [Summary.Value(tag=tag) for tag in tags]
            self._events[tags] = Event(summary=Summary(value=scalars))
        event = self._events[tags]
        event.step = step
        for scalar, value in zip(event.summary.value, values.values(), strict=True):
            scalar.simple_value = value
        return event

    def _write(self, events: Iterable[Event], first: int = 0) -> None:
        """Write an event into each file, from the first-th on."""
        with self._survive():
            for writer, event in zip(
                self._writers[first:] if self._writers else (), events, strict=False
            ):
                event.wall_time = time.time()
                writer.write(event.SerializeToString())

    @contextmanager
    def _survive(self) -> Iterator[None]:
        """If files fail, warn and continue without them: the CSV files have the same."""
        try:
            yield
        except OSError as error:
            log.warning("TensorBoard events are no longer written, the CSV files still are: %s", error)
            self._writers = None


def _layout() -> Summary:
    """The charts of the CUSTOM SCALARS tab (TensorBoard's own function for it needs TensorFlow)."""

    def chart(title: str, tags: list[str]) -> layout_pb2.Chart:
        lines = layout_pb2.MultilineChartContent(tag=[f"^{re.escape(tag)}$" for tag in tags])
        return layout_pb2.Chart(title=title, multiline=lines)

    categories = [
        layout_pb2.Category(title=title, chart=[chart(*item) for item in charts.items()])
        for title, charts in CHARTS.items()
    ]
    text = layout_pb2.Layout(category=categories).SerializeToString()
    value = Summary.Value(
        tag=custom_scalar.CONFIG_SUMMARY_TAG,
        tensor=TensorProto(dtype="DT_STRING", string_val=[text]),
        metadata=custom_scalar.create_summary_metadata(),
    )
    return Summary(value=[value])


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
