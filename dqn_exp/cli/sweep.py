"""`dqn-exp sweep`: how far the jobs of a sweep are, why some failed, and to run those again.

Exit codes: 1 if a job failed or was lost, else 75 if one was interrupted, 2 if one was refused or the
arguments are invalid, or 0.
"""

import contextlib
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from dqn_exp.cli.parser import Parser
from dqn_exp.config.problems import ConfigError, Problem, shown
from dqn_exp.sweeps import status

if TYPE_CHECKING:
    from rich.table import Table

DESCRIPTION = """
Show the jobs of a sweep: a live table on a terminal while jobs are running, one line elsewhere.
"""
LOOKS = 2.0  # seconds between them
STYLES = {"running": "cyan", "finished": "green", "interrupted": "yellow"}  # others are red


def main() -> None:
    """Run the command line."""
    parser = Parser(prog="dqn-exp sweep", description=DESCRIPTION)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of the sweep")
    parser.add_argument(
        "--failed", action="store_true", help="show the end of each failed job's traceback"
    )
    parser.add_argument(
        "--rerun",
        choices=["failed"],
        help="run the failed and lost jobs again, each from its checkpoint",
    )
    arguments = parser.parse_args()
    found = status.jobs(arguments.folder)
    if not found:
        raise ConfigError([Problem("sweep", "contains no jobs of a sweep", arguments.folder)])
    failed = [job for job in found if job.state in status.FAILED]
    if arguments.rerun:
        from dqn_exp.sweeps.rerun import rerun  # not above: --help needs neither Hydra nor torch

        rerun(failed, status.varied(found))
        found = status.jobs(arguments.folder)
        print("\n".join(["", *status.table(found)]))
    elif arguments.failed:
        for job in failed:
            print(f"job {job.number}, {job.state}: {shown(job.folder)}")
            print("".join(f"  {line}\n" for line in job.traceback() or filter(None, [job.error])))
        print(status.summary_line(found))
    elif sys.stdout.isatty():
        found = _watch(arguments.folder, found)
    else:
        print(status.summary_line(found))
    sys.exit(status.exit_code(found))


def _watch(sweep: Path, found: list[status.Job]) -> list[status.Job]:
    """Show the table until no job is running or Ctrl-C ends it; returns the jobs as last seen."""
    from rich.live import Live

    signal.signal(signal.SIGINT, signal.default_int_handler)  # the terminal's cursor must come back
    with contextlib.suppress(KeyboardInterrupt), Live(auto_refresh=False) as live:
        while True:
            live.update(_drawn(found, live.console.height - 3), refresh=True)
            if not any(job.state == "running" for job in found):
                break
            time.sleep(LOOKS)
            found = status.jobs(sweep)
    print(status.summary_line(found))
    return found


def _drawn(found: list[status.Job], most: int) -> "Table":
    """The table for a terminal, running jobs first; at most so many rows."""
    from rich.table import Table
    from rich.text import Text

    ordered = sorted(found, key=lambda job: job.state != "running")
    head, *rows = status.rows(ordered)
    table = Table(box=None, pad_edge=False)
    for name in head:
        table.add_column(name, no_wrap=True)
    for job, row in list(zip(ordered, rows, strict=True))[:most]:
        style = STYLES.get(job.state, "red")
        table.add_row(*(Text(cell, style if cell == job.state else "") for cell in row))
    return table
