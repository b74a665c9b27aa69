"""What a run leaves behind: TensorBoard events, metrics.csv, episodes.csv.

One TensorBoard run per seed, all values of one step in one event. The x axis is env steps of a seed.
"""

import csv
import time
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

# pyright: reportAttributeAccessIssue=false
# (the generated protocol-buffer modules tell type checkers nothing of what is in them)
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2, summary_v2
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from dqn_exp.types import Episode

CARTPOLE_WINDOW = 100  # episodes that the official CartPole measure averages


class Tracker:
    """Writes a run's numbers, for all seeds.

    Args:
        run_dir: the run folder, which exists.
        seeds: seed values, in order.
        hparams: what the HPARAMS tab shows; plain scalars.
    """

    def __init__(self, run_dir: Path, seeds: list[int], hparams: Mapping[str, Any]):
        self._seeds = seeds
        self._writers = [EventFileWriter(str(run_dir / f"seed={seed}")) for seed in seeds]
        for seed, writer in zip(seeds, self._writers, strict=True):
            # Written into the run itself: a nested run of its own would double every curve. The tab
            # shows the beginning of the name, which must be unique as a whole.
            trial = f"{run_dir.name} seed={seed} ({run_dir.parent})"
            summary = summary_v2.hparams_pb({**hparams, "seed": seed}, trial_id=trial)
            writer.add_event(Event(wall_time=time.time(), summary=summary))
        self._metrics_file = (run_dir / "metrics.csv").open("w", newline="")
        self._metrics = csv.writer(self._metrics_file)
        self._metrics.writerow(["seed", "step", "tag", "value"])
        self._episodes_file = (run_dir / "episodes.csv").open("w", newline="")
        self._episodes = csv.writer(self._episodes_file)
        self._episodes.writerow(["seed", "episode", "step", "return", "length"])
        self._recent = [deque[float](maxlen=CARTPOLE_WINDOW) for _ in seeds]

    def recent_returns(self) -> list[float]:
        """Each seed's mean return over its last 100 episodes (fewer at first; NaN before the first)."""
        return [sum(r) / len(r) if r else float("nan") for r in self._recent]

    def scalars(self, step: int, values: Mapping[str, np.ndarray]) -> None:
        """Record tag -> value of each seed [S] at an env step, and flush."""
        for i, (seed, writer) in enumerate(zip(self._seeds, self._writers, strict=True)):
            row = {tag: float(value[i]) for tag, value in values.items()}
            self._metrics.writerows([seed, step, tag, value] for tag, value in row.items())
            writer.add_event(_event(step, row))
            writer.flush()
        self._metrics_file.flush()

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
            self._writers[i].add_event(_event(step, values))
        self._episodes_file.flush()

    def close(self, succeeded: bool) -> None:
        """Say how the run ended, flush and close all files."""
        for writer in self._writers:
            writer.add_event(_session_end(succeeded))
            writer.close()
        self._metrics_file.close()
        self._episodes_file.close()


def _event(step: int, values: Mapping[str, float]) -> Event:
    scalars = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
    return Event(wall_time=time.time(), step=step, summary=Summary(value=scalars))


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
    return Event(wall_time=time.time(), summary=Summary(value=[value]))
