"""What the commands about trained runs have in common."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dqn_exp.cli.parser import Parser
from dqn_exp.config.problems import ConfigError, Problem

if TYPE_CHECKING:
    from dqn_exp.config.schema import Config
    from dqn_exp.run.trained import Trained

ALLOWED = ("env", "plugins")  # keys that may be overridden


class RunParser(Parser):
    """Arguments that name a run, one of its checkpoints and one of its seeds, and another env.

    Args:
        seed: which one is meant without `--seed`.
    """

    def __init__(self, prog: str, description: str, seed: str = "that evaluated best"):
        super().__init__(prog=prog, description=description)
        self.add_argument("run", metavar="RUN", help="run folder, or a checkpoint in it")
        self.add_argument(
            "overrides",
            nargs="*",
            metavar="KEY=VALUE",
            help="other env settings, such as env.max_episode_steps=1000 or env.id=CartPole-v0; "
            "plugins=[...] if the run used some",
        )
        self.add_argument(
            "--checkpoint", type=int, metavar="STEP", help="env step of the checkpoint (the newest)"
        )
        self.add_argument("--seed", type=int, metavar="K", help=f"of the run ({seed})")

    def add_output(self, formats: Sequence[str], meaning: str) -> None:
        """Add the option `--out`, a file that ends in one of some formats."""

        def output(text: str) -> Path:
            path = Path(text)
            if path.suffix not in formats:
                raise argparse.ArgumentTypeError(f"{text} must end in {' or '.join(formats)}")
            if not path.absolute().parent.is_dir():
                raise argparse.ArgumentTypeError(f"there is no folder {path.parent}")
            return path

        self.add_argument("--out", type=output, required=True, metavar="FILE", help=meaning)

    def parsed(self) -> argparse.Namespace:
        """The arguments; options and overrides may alternate."""
        return self.parse_intermixed_args()


def trained_run(options: argparse.Namespace) -> "tuple[Trained, Config]":
    """What the named run has trained, and its config with other env settings.

    Raises:
        ConfigError: there is no such run, or the settings are invalid or not about the env, or the run
            needs code that is not named.
    """
    # Not above: --help needs neither torch nor Hydra.
    from dqn_exp.config.compose import compose
    from dqn_exp.run import trained

    found = trained.load(options.run, options.checkpoint)
    keys = [text.partition("=")[0] for text in options.overrides]
    if other := [key for key in keys if key.split(".")[0] not in ALLOWED]:
        message = "cannot be changed here: only env.* and plugins"
        raise ConfigError([Problem(key, message) for key in other])
    return found, compose(f"resume={found.checkpoint}", *options.overrides)
