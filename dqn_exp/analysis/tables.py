"""The table of results: for the terminal, a page, a spreadsheet, and a paper."""

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dqn_exp.analysis.groups import Group
from dqn_exp.analysis.results import Result

COLUMNS = (
    "group", "seeds", "iqm", "ci95_low", "ci95_high", "median", "mean", "target", "optimality_gap",
    "seeds_at_target", "median_steps_to_target", "wall_seconds",
)  # fmt: skip
TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}",
}  # fmt: skip


def values(group: Group, result: Result) -> list[Any]:
    """The row of a group; None where there is no value."""
    low, high = result.interval or (None, None)
    known = result.target is not None
    return [
        group.name,
        len(result.scores),
        _known(result.iqm),
        low,
        high,
        _known(result.median),
        _known(result.mean),
        result.target,
        result.optimality_gap,
        len(result.reached) if known else None,
        float(np.median(result.reached)) if result.reached else None,
        result.wall_seconds,
    ]


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def as_csv(groups: Sequence[Group], results: Sequence[Result]) -> str:
    """The table with all digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for group, result in zip(groups, results, strict=True):
        name, *numbers = values(group, result)
        # A spreadsheet would take such a name for a formula.
        writer.writerow([f"'{name}" if name[0] in "=+-@" else name, *numbers])
    return text.getvalue()


def cells(groups: Sequence[Group], results: Sequence[Result]) -> list[list[str]]:
    """The table for people: a head, and a row for each group."""
    rows = [["group", "seeds", "IQM", "95 % CI", "median", "mean"]]
    goal = next((result.target for result in results if result.target is not None), None)
    if goal is not None:
        rows[0] += [f"gap to {goal:g}", f"steps to {goal:g}"]
    rows[0].append("time")
    for group, result in zip(groups, results, strict=True):
        interval = "[{:.1f}, {:.1f}]".format(*result.interval) if result.interval else "-"
        row = [group.name, str(len(result.scores)), _one(result.iqm), interval]
        row += [_one(result.median), _one(result.mean)]
        if goal is not None:
            reached = f"{np.median(result.reached):,.0f} " if result.reached else ""
            evaluated = len(group.chosen)
            row += [_one(result.optimality_gap), f"{reached}({len(result.reached)} of {evaluated})"]
        rows.append([*row, _duration(result.wall_seconds)])
    return rows


def as_text(rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table, the first column to the left and numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def as_tex(rows: Sequence[Sequence[str]]) -> str:
    """The table for LaTeX, with the package booktabs."""
    head, *body = [" & ".join(map(_tex, row)) + r" \\" for row in rows]
    lines = ["% needs \\usepackage{booktabs}", rf"\begin{{tabular}}{{l{'r' * (len(rows[0]) - 1)}}}"]
    lines += [r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines) + "\n"


def _tex(text: str) -> str:
    return "".join(TEX.get(character, character) for character in text)


def _one(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.1f}"


def _duration(seconds: float) -> str:
    """'45 s', '12 min', '3.5 h'."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
