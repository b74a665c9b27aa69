"""Side-by-side timing, tables, and JSON.

Only ratios count: the speed of a machine drifts, so the cases alternate, slice by slice, on one
thread, and a ratio is the median over the pairs of slices.
"""

import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch


@dataclass
class Case:
    """Something to time."""

    name: str
    run: Callable[[int], object]  # do n units of work (env steps, samples)
    units: int = 200  # in a slice
    share: int = 1  # divide the time by this (seeds)
    times: list[float] = field(default_factory=list)  # microseconds per unit of each slice


def interleave(cases: list[Case], slices: int = 15) -> None:
    """Time the cases alternately; the first slice of each warms up and is not counted."""
    for slice_ in range(slices + 1):
        for case in cases:
            began = time.perf_counter()
            case.run(case.units)
            if slice_:
                seconds = time.perf_counter() - began
                case.times.append(seconds / case.units / case.share * 1e6)


def ratio(case: Case, base: Case) -> float:
    """Median over slices of the case's time divided by the base's."""
    return statistics.median(a / b for a, b in zip(case.times, base.times, strict=True))


def rows(cases: list[Case], **bases: Case) -> list[dict[str, Any]]:
    """A row per case: median microseconds, and the ratio to each base (baseline=..., floor=...)."""
    return [
        {"case": case.name, "us": round(statistics.median(case.times), 1)}
        | {name: round(ratio(case, base), 3) for name, base in bases.items()}
        for case in cases
    ]


def report(name: str, table: list[dict[str, Any]], folder: Path) -> None:
    """Print a table, and write it as JSON with a description of the machine."""
    columns = list(dict.fromkeys(key for row in table for key in row))
    cells = [columns] + [[str(row.get(key, "")) for key in columns] for row in table]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    folder.mkdir(parents=True, exist_ok=True)
    machine = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "processor": platform.processor() or platform.machine(),
    }
    path = folder / f"bench_{name}.json"
    path.write_text(json.dumps({"rows": table, **machine}, indent=2) + "\n")
    print(f"-> {path}")
