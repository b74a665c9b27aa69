"""`dqn-exp export RUN --out FILE`: the Q-function of one seed, for other programs.

Exit codes: 0 ok, 1 the file would compute other Q-values, 2 invalid arguments.
"""

import sys

from dqn_exp.cli.arguments import RunParser, trained_run
from dqn_exp.extras import extra


def main() -> None:
    """Run the command line."""
    parser = RunParser(
        prog="dqn-exp export",
        description="Write a trained Q-function into a file: observations 'obs' [batch, ...] in, "
        "Q-values 'q' [batch, actions] out. It is compared with the run's own network first.",
    )
    parser.add_output((".onnx", ".pt2"), "a .onnx file, or .pt2 (torch.export)")
    options = parser.parsed()
    found, config = trained_run(options)
    index = found.index(options.seed)
    if options.out.suffix == ".onnx":
        for library in ("onnx", "onnxscript", "onnxruntime"):
            extra(library, "export")
    # Not above: --help does not need torch.
    from dqn_exp.export import DifferentError, export
    from dqn_exp.policy import q_function

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
