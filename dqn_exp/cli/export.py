"""`dqn-exp export RUN --out FILE`: the Q-function of one seed, for other programs.

Exit codes: 0 ok, 1 the file would compute other Q-values, 2 invalid arguments.
"""

import argparse
import sys
from pathlib import Path

from dqn_exp.cli.arguments import add_run, config_of
from dqn_exp.config.problems import ConfigError, Problem
from dqn_exp.export import DifferentError, export
from dqn_exp.extras import extra
from dqn_exp.policy import q_function
from dqn_exp.run import trained

FORMATS = (".onnx", ".pt2")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="dqn-exp export",
        description="Write a trained Q-function into a file: observations 'obs' [batch, ...] in, "
        "Q-values 'q' [batch, actions] out. It is compared with the run's own network first.",
    )
    add_run(parser)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="a .onnx file, or .pt2 (torch.export)"
    )
    parser.add_argument("--seed", type=int, metavar="K", help="of the run (that evaluated best)")
    options = parser.parse_intermixed_args()
    if options.out.suffix not in FORMATS:
        raise ConfigError([Problem("--out", f"must end in {' or '.join(FORMATS)}", options.out)])
    if not options.out.absolute().parent.is_dir():
        raise ConfigError([Problem("--out", "there is no such folder", options.out.parent)])
    found = trained.load(options.run, options.checkpoint)
    config, index = config_of(found, options.overrides), found.index(options.seed)
    if options.out.suffix == ".onnx":
        for library in ("onnx", "onnxscript", "onnxruntime"):
            extra(library, "export")
    new = options.out.with_name(f".new{options.out.suffix}")
    try:
        difference = export(q_function(config, found, slice(index, index + 1)), found.spec, new)
        new.replace(options.out)
    except DifferentError as error:
        print(f"{options.out} not written: {error}", file=sys.stderr)
        sys.exit(1)
    finally:
        new.unlink(missing_ok=True)
    spec = found.spec
    print(
        f"{options.out}: seed {found.seeds[index]}; obs {str(spec.obs_dtype).removeprefix('torch.')} "
        f"[batch, {', '.join(map(str, spec.obs_shape))}] -> q [batch, {spec.n_actions}]; "
        f"differs from the run's own Q-values by at most {difference:.1e}"
    )
