"""`dqn-exp bench`: measure speed, beside other libraries and a lower bound, in the same run."""

import argparse
from pathlib import Path

import torch

from dqn_exp.bench import runs, steps

BENCHMARKS = {
    "tutorial": steps.tutorial,
    "scale": steps.scale,
    "per": steps.per,
    "gpu": steps.gpu,
    "startup": runs.startup,
    "solve": runs.solve,
}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="dqn-exp bench", description=__doc__)
    commands = parser.add_subparsers(dest="benchmark", required=True)
    for name, benchmark in BENCHMARKS.items():
        command = commands.add_parser(name, help=benchmark.__doc__)
        command.add_argument(
            "--out", type=Path, default=Path("outputs/bench"), help="folder of the JSON"
        )
        if name == "scale":
            command.add_argument("--seeds", type=int, nargs="+", default=[1, 8, 64, 256])
            command.add_argument("--widths", type=int, nargs="+", default=[32, 64, 128])
        if name == "solve":
            command.add_argument("--first", type=int, default=0, help="first seed")
            command.add_argument("--seeds", type=int, default=20, help="number of seeds")
            command.add_argument(
                "--processes", type=int, default=2, help="processes that share the seeds"
            )
    options = vars(parser.parse_args())
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # as runs do
    BENCHMARKS[options.pop("benchmark")](**options)
