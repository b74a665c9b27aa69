"""`dqn-exp COMMAND ...`, also `python -m dqn_exp COMMAND ...`."""

import importlib
import io
import os
import signal
import sys
from importlib.metadata import version
from typing import Any

from dqn_exp.config.problems import ConfigError, shown

COMMANDS = {
    "train": ("dqn_exp.cli.train", "train agents: a run, or with --multirun a sweep"),
    "evaluate": ("dqn_exp.cli.evaluate", "play greedy episodes of a trained run"),
    "watch": ("dqn_exp.cli.watch", "watch a trained agent play in a window"),
    "video": ("dqn_exp.cli.video", "film a trained agent, as .mp4 or .gif"),
    "export": (
        "dqn_exp.cli.export",
        "write a trained Q-function as .onnx or .pt2",
    ),
    "report": ("dqn_exp.cli.report", "compare runs and sweeps: curves, tables, what may be concluded"),
    "compare": ("dqn_exp.cli.compare", "show how two runs differ, and where they first do"),
    "sweep": ("dqn_exp.cli.sweep", "show the jobs of a sweep, and run failed ones again"),
    "bench": ("dqn_exp.cli.bench", "measure speed, beside other libraries and a lower bound"),
}


class _Lossy(io.FileIO):
    """A file that loses what it cannot write: the end of a pipe, or a full disk, ends no training."""

    def write(self, data: Any) -> int | None:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def main(command: str | None = None) -> None:
    """Run a command, by default the one that the first argument names."""
    _set_up_process()
    if command:
        _run(command)
    else:
        _choose()


def _choose() -> None:
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
        _run(name)
    else:
        print(f"{shown(name)}: unknown command (one of: {', '.join(COMMANDS)})", file=sys.stderr)
        sys.exit(2)


def _run(command: str) -> None:
    try:
        importlib.import_module(COMMANDS[command][0]).main()
    except ConfigError as error:
        for problem in dict.fromkeys(map(str, error.problems)):
            print(problem, file=sys.stderr)
        sys.exit(2)


def _set_up_process() -> None:
    """Let a command work whatever its standard streams are, and end by Ctrl-C before a run begins."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        stream = getattr(sys, name)
        if stream is None:  # closed: a file of the run would get its number
            os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
        if descriptor > 0:
            raw = _Lossy(descriptor, "w", closefd=False)
            encoding, line = getattr(stream, "encoding", "utf-8"), descriptor == 2 or raw.isatty()
            buffer = io.BufferedWriter(raw)
            text = io.TextIOWrapper(buffer, encoding, "backslashreplace", line_buffering=line)
            setattr(sys, name, text)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    main()
