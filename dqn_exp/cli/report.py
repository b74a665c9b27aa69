"""`dqn-exp report`: which settings are better, with figures; on any number of runs and sweeps."""

from pathlib import Path

from dqn_exp.cli.parser import Parser
from dqn_exp.config.problems import shown
from dqn_exp.extras import extra

DESCRIPTION = """
Compare runs: learning curves, final returns with intervals over seeds, and what may be concluded.
Runs of equal settings are one group, whose seeds are pooled; groups are named by what differs.
"""


def main() -> None:
    """Run the command line."""
    parser = Parser(prog="dqn-exp report", description=DESCRIPTION)
    parser.add_argument(
        "folders", type=Path, nargs="+", metavar="RUN_OR_SWEEP",
        help="run folder, sweep folder, or a folder that contains some, such as outputs/",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER",
        help="folder of report.html, figures/, table.csv and table.tex (default: report/ in the first "
        "folder given); an earlier report there is replaced",
    )  # fmt: skip
    arguments = parser.parse_args()
    extra("matplotlib", "report")
    from dqn_exp.analysis import folders, report, runs  # not above: --help needs none of these

    out = arguments.out or arguments.folders[0] / "report"
    found = [runs.read(folder) for folder in folders.runs_in(arguments.folders)]
    report.check(out)
    made = report.report(found)
    report.write(out, made.files)
    print("\n".join([*made.answers, "", *made.table]))
    if made.notes:
        print("\n".join(["", *made.notes]))
    print(f"\nreport: {shown(out / report.PAGE)}")
