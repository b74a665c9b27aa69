"""`dqn-exp video RUN --out FILE`: a film of a trained agent, with its Q-values beside the frames.

Exit codes: 0 ok, 1 the environment failed, 2 invalid arguments.
"""

import argparse
from contextlib import closing
from pathlib import Path

from dqn_exp.cli.arguments import add_run, config_of
from dqn_exp.config.problems import ConfigError, Problem
from dqn_exp.extras import extra
from dqn_exp.film import Film, as_gif, drawn, picked
from dqn_exp.policy import q_function
from dqn_exp.run import trained
from dqn_exp.signals import exits_are_errors

FORMATS = (".mp4", ".gif")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="dqn-exp video", description="Film a greedy episode of a trained agent."
    )
    add_run(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="a .mp4 or .gif file")
    parser.add_argument(
        "--pick", choices=("best", "median", "worst"), default="median", help="which episode (median)"
    )
    parser.add_argument("--episodes", type=int, default=10, metavar="N", help="to pick from (10)")
    parser.add_argument("--seed", type=int, metavar="K", help="of the run (that evaluated best)")
    options = parser.parse_intermixed_args()
    if options.out.suffix not in FORMATS:
        raise ConfigError([Problem("--out", f"must end in {' or '.join(FORMATS)}", options.out)])
    if not options.out.absolute().parent.is_dir():
        raise ConfigError([Problem("--out", "there is no such folder", options.out.parent)])
    if options.episodes < 1:
        raise ConfigError([Problem("--episodes", "must be an integer >= 1", options.episodes)])
    found = trained.load(options.run, options.checkpoint)
    config, index = config_of(found, options.overrides), found.index(options.seed)
    iio = extra("imageio.v3", "video")
    extra("imageio_ffmpeg", "video")

    seed = found.seeds[index]
    q = q_function(config, found, slice(index, index + 1))
    with exits_are_errors(), closing(Film(config.env, q, seed, "rgb_array")) as film:
        returns = film.returns(options.episodes)
        episode = picked(returns, options.pick)
        frames = list(drawn(film, episode, f"{config.agent.name}, seed {seed}"))
    new = options.out.with_name(f".new.{options.out.name}")
    try:
        if options.out.suffix == ".gif":
            new.write_bytes(as_gif(frames, film.fps))
        else:
            iio.imwrite(new, frames, fps=film.fps, macro_block_size=2)
        new.replace(options.out)
    finally:
        new.unlink(missing_ok=True)
    kind = f"the {options.pick} of {options.episodes} greedy episodes of seed {seed}"
    spread = f"{returns[episode]:.1f} ({min(returns):.1f} to {max(returns):.1f})"
    print(f"{options.out}: {kind}, return {spread}, {len(frames)} frames")
