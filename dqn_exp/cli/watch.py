"""`dqn-exp watch RUN`: a trained agent plays in a window.

Exit codes: 0 ok, 1 the environment failed, 2 invalid arguments, or no display.
"""

import os
import sys
from contextlib import closing
from itertools import count

from dqn_exp.cli.arguments import RunParser, trained_run
from dqn_exp.config.problems import ConfigError, Problem
from dqn_exp.signals import exits_are_errors

DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")  # variables of Linux


def main() -> None:
    """Run the command line."""
    parser = RunParser(
        prog="dqn-exp watch",
        description="Watch a trained agent play greedily in a window. Ctrl-C ends it.",
    )
    parser.add_argument("--episodes", type=int, metavar="N", help="to play (until Ctrl-C)")
    options = parser.parsed()
    found, config = trained_run(options)
    index = found.index(options.seed)
    if sys.platform == "linux" and not any(map(os.environ.get, DISPLAYS)):
        message = "there is none; make a film instead: dqn-exp video RUN --out film.mp4"
        raise ConfigError([Problem("display", message)])
    # Not above: --help does not need torch.
    from dqn_exp.film import Film
    from dqn_exp.policy import q_function

    seed = found.seeds[index]
    q = q_function(config, found, slice(index, index + 1))
    with exits_are_errors(), closing(Film(config.env, q, seed, "human")) as film:
        print(f"{config.agent.name} on {config.env.id}, seed {seed}; Ctrl-C ends this")
        for episode in count() if options.episodes is None else range(options.episodes):
            *_, end = film.play(episode, frames=False)
            print(f"episode {episode}: return {end.episode_return:.1f}")
