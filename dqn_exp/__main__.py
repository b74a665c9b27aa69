"""`dqn-exp COMMAND ...`, also `python -m dqn_exp COMMAND ...`."""

import importlib
import sys
from importlib.metadata import version

COMMANDS = {
    "train": ("dqn_exp.cli.train", "train agents: a run, or with --multirun a sweep"),
    "bench": ("dqn_exp.cli.bench", "measure speed, beside other libraries and a lower bound"),
}


def main() -> None:
    """Run the command that the first argument names."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name == "--version":
        print(f"dqn-exp {version('dqn-exp')}")
    elif name in ("--help", "-h"):
        print("usage: dqn-exp COMMAND ...\n\ncommands (each has --help):")
        for command, (_, meaning) in COMMANDS.items():
            print(f"  {command:<8} {meaning}")
    elif name in COMMANDS:
        # Every command reads its own arguments from sys.argv, as it would as a program of its own.
        sys.argv = [f"dqn-exp {name}", *sys.argv[2:]]
        importlib.import_module(COMMANDS[name][0]).main()
    else:
        print(f"{name}: unknown command (one of: {', '.join(COMMANDS)})", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
