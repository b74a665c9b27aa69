"""What the commands about trained runs have in common."""

import argparse
from collections.abc import Sequence

from dqn_exp.config.compose import compose
from dqn_exp.config.problems import ConfigError, Problem
from dqn_exp.config.schema import Config
from dqn_exp.run.trained import Trained

ALLOWED = ("env", "plugins")  # keys that may be overridden


def add_run(parser: argparse.ArgumentParser) -> None:
    """The arguments that name a run, one of its checkpoints, and another env."""
    parser.add_argument("run", metavar="RUN", help="run folder, or a checkpoint in it")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="other env settings, such as env.max_episode_steps=1000 or env.id=CartPole-v0; "
        "plugins=[...] if the run used some",
    )
    parser.add_argument(
        "--checkpoint", type=int, metavar="STEP", help="env step of the checkpoint (the newest)"
    )


def config_of(found: Trained, overrides: Sequence[str]) -> Config:
    """The config of a run, with other env settings.

    Raises:
        ConfigError: they are invalid or not about the env, or the run needs code that is not named.
    """
    keys = [text.partition("=")[0] for text in overrides]
    if other := [key for key in keys if key.split(".")[0] not in ALLOWED]:
        message = "cannot be changed here: only env.* and plugins"
        raise ConfigError([Problem(key, message) for key in other])
    return compose(f"resume={found.checkpoint}", *overrides)
