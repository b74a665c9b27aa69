"""A report on runs: its files, and the folder that they are written to."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from dqn_exp import files
from dqn_exp.analysis import figures, tables
from dqn_exp.analysis.conclusions import conclusions, ranked
from dqn_exp.analysis.figures import Picture
from dqn_exp.analysis.groups import Group, group
from dqn_exp.analysis.page import MARK, page
from dqn_exp.analysis.results import compare, result
from dqn_exp.analysis.runs import Run
from dqn_exp.config.problems import ConfigError, Problem, shown

MOST_CURVES = 20  # runs with curves of their own; with more, each group has some
PAGE = "report.html"


class Report(NamedTuple):
    """What a report says on the terminal, and its files."""

    answers: list[str]
    table: list[str]
    notes: list[str]
    files: dict[str, bytes]  # by their names in the report's folder


def report(runs: Sequence[Run]) -> Report:
    """The report on some runs.

    Raises:
        ConfigError: their environments differ, or none has a config.
    """
    groups = group(list(runs))
    if not groups:
        message = "none of these runs has a readable config"
        raise ConfigError([Problem("report", message)])
    results = [result(each) for each in groups]
    order = ranked(results)
    order += [i for i in range(len(groups)) if i not in order]
    groups, results = [groups[i] for i in order], [results[i] for i in order]
    compared = compare([r.scores for r in results])
    answers, rows = conclusions(groups, results, compared), tables.cells(groups, results)
    notes = [note for each in groups for note in each.notes]
    if refused := [run for run in runs if not any(run in each.runs for each in groups)]:
        names = ", ".join(f"{run.name} ({run.state})" for run in refused[:5])
        notes.append(f"{len(refused)} of {len(runs)} runs have no readable config: {names}.")
    if len(groups) > figures.MOST:
        notes.append(f"Figures show the first {figures.MOST} of {len(groups)} groups.")
    overview = list(figures.overview(groups[: figures.MOST], results[: figures.MOST]))
    curves = list(_curves(groups))
    env = shown(groups[0].settings["env.id"], 60)
    title = f"{env}: settings compared" if len(groups) > 1 else f"{env}: {groups[0].name}"
    html = page(title, answers, rows, groups, compared, overview, curves, runs, notes)
    found = {PAGE: html.encode()}
    for picture in (*overview, *curves):
        found[f"figures/{picture.name}.svg"] = picture.svg.encode()
        found[f"figures/{picture.name}.png"] = picture.png
    found["table.csv"] = tables.as_csv(groups, results).encode()
    found["table.tex"] = tables.as_tex(rows).encode()
    return Report(answers, tables.as_text(rows), notes, found)


def _curves(groups: Sequence[Group]) -> Iterator[Picture]:
    """The four curves of each run, or of each group if there are many."""
    if sum(len(each.runs) for each in groups) <= MOST_CURVES:
        drawn = [(f"{g.name}, {r.name}", Group(g.settings, [r])) for g in groups for r in g.runs]
    else:
        drawn = [(g.name, g) for g in groups[:MOST_CURVES]]
    for number, (caption, each) in enumerate(drawn, 1):
        if picture := figures.diagnostics(f"curves_{number}", caption, each):
            yield picture


def write(folder: Path, contents: dict[str, bytes]) -> None:
    """Write a report into a folder, in the place of an earlier one. No links are followed.

    Raises:
        ConfigError: the folder cannot be written, or holds something other than a report.
    """
    check(folder)
    try:
        for name, content in contents.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "wb", opener=files.opener) as file:
                file.write(content)
    except (OSError, files.OddFileError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError([Problem("--out", f"cannot be written: {reason}", folder)]) from error


def check(folder: Path) -> None:
    """Refuse a folder that holds something other than a report.

    Raises:
        ConfigError: it does.
    """
    if not os.path.lexists(folder):
        return
    for path in (folder, folder / "figures"):
        if os.path.lexists(path) and not files.is_folder(path):
            raise ConfigError([Problem("--out", f"{path} is not a folder, or a link", folder)])
    try:
        known = MARK.encode() in files.read(folder / PAGE, 1 << 24)[:200]
        empty = not any(folder.iterdir())
    except FileNotFoundError:
        known, empty = False, not any(folder.iterdir())
    except (OSError, files.OddFileError):
        known = empty = False
    if not known and not empty:
        raise ConfigError([Problem("--out", "contains something other than a report", folder)])
