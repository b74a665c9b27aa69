"""`dqn-exp compare`: two runs side by side."""

from pathlib import Path

from dqn_exp.cli.parser import Parser
from dqn_exp.config.problems import ConfigError, Problem

DESCRIPTION = """
Show how two runs differ: settings, versions and results. If they should be equal, show where each
seed first differs.
"""


def main() -> None:
    """Run the command line."""
    parser = Parser(prog="dqn-exp compare", description=DESCRIPTION)
    parser.add_argument("a", type=Path, metavar="RUN_A", help="run folder")
    parser.add_argument("b", type=Path, metavar="RUN_B", help="run folder")
    arguments = parser.parse_args()
    from dqn_exp.analysis import difference, folders, runs  # not above: --help needs none of these

    found = []
    for path in (arguments.a, arguments.b):
        inside = folders.runs_in([path])
        if len(inside) > 1:
            message = f"contains {len(inside)} runs; dqn-exp report compares any number of them"
            raise ConfigError([Problem(str(path), message)])
        found.append(runs.read(inside[0]))
    print("\n".join(difference.difference(*found)))
