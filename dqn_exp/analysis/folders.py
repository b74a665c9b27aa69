"""Run folders and their small files, which anybody may have changed; needs neither numpy nor torch."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from dqn_exp import files, manifest
from dqn_exp.config.problems import ConfigError, Problem, shown
from dqn_exp.config.typed import LARGEST

CONFIG = ".hydra/config.yaml"
MOST_BYTES = {CONFIG: 1 << 18, "summary.json": 1 << 26}  # far more than they have
# An entry of one of these names makes a folder that of a run.
ENTRIES = ("summary.json", "metrics.csv", "episodes.csv", "checkpoints", ".hydra")
STATES = ("running", "finished", "interrupted", "failed", "refused")  # what a summary says
DEEPEST = 5  # levels of folders above a run: multirun/<date>/<time>/<job>, in a folder of one's own


class _Loader(yaml.SafeLoader):
    """YAML without aliases: a few lines of them can stand for more than any memory holds."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not read")
        return super().compose_node(parent, index)


def content(folder: Path, name: str) -> dict[str, Any]:
    """What a file of a run says; nothing if it is absent, damaged or not the program's own."""
    try:
        text = files.read(folder / name, MOST_BYTES[name])
        found = json.loads(text) if name.endswith("json") else yaml.load(text, _Loader)
    except (OSError, ValueError, RecursionError, files.OddFileError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def config(folder: Path) -> dict[str, Any]:
    """The config of a run: that of its newest checkpoint, or that for people; empty if it has none."""
    try:
        return manifest.newest(folder)["config"]
    except (manifest.CheckpointError, OSError):  # none yet, or one of another version
        return content(folder, CONFIG)


def error_line(summary: Mapping[str, Any]) -> str:
    """What went wrong, on one line, as a summary says."""
    error = summary.get("error")
    return shown(error.partition("\n")[0]) if isinstance(error, str) else ""


def number(value: Any) -> float | None:
    """A value as a number; None if it is not one, not finite, or too large to have a meaning."""
    is_number = isinstance(value, int | float) and abs(value) < LARGEST[float]
    return float(value) if is_number else None


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run, however far the run has come."""
    return any(os.path.lexists(folder / name) for name in ENTRIES)


def runs_in(paths: list[Path]) -> list[Path]:
    """The run folders that are or lie in some folders, in order, each once. No links are followed.

    Raises:
        ConfigError: one of the paths is no folder, or has no run.
    """
    found, problems = dict[Path, None](), []
    for path in paths:
        if not os.path.isdir(path):  # unlike Path.is_dir, False for a name that cannot be
            problems.append(Problem(str(path), "no such folder"))
            continue
        inside = list(_below(Path(os.path.realpath(path)), DEEPEST))
        if not inside:
            problems.append(Problem(str(path), "contains no run"))
        found |= dict.fromkeys(inside)
    if problems:
        raise ConfigError(problems)
    return list(found)


def _below(folder: Path, levels: int) -> Iterator[Path]:
    if is_run(folder):
        yield folder
    elif levels:
        try:
            inside = [p for p in folder.iterdir() if files.is_folder(p) and not p.name.startswith(".")]
        except OSError:  # somebody else's
            return
        for path in sorted(inside, key=_in_order):
            yield from _below(path, levels - 1)


def _in_order(path: Path) -> tuple[int, str]:
    """Sorts the jobs of a sweep by their numbers, and other folders by name."""
    first = path.name.partition("_")[0]
    return int(first) if first.isascii() and first.isdigit() and len(first) < 10 else -1, path.name
