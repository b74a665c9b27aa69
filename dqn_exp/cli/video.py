"""`dqn-exp video RUN --out FILE`: a film of a trained agent, with its Q-values beside the frames.

Exit codes: 0 ok, 1 the environment failed, 2 invalid arguments.
"""

from contextlib import closing

from dqn_exp.cli.arguments import RunParser, trained_run
from dqn_exp.config.problems import ConfigError, Problem
from dqn_exp.extras import extra
from dqn_exp.signals import exits_are_errors


def main() -> None:
    """Run the command line."""
    parser = RunParser(prog="dqn-exp video", description="Film a greedy episode of a trained agent.")
    parser.add_output((".mp4", ".gif"), "a .mp4 or .gif file")
    parser.add_argument(
        "--pick", choices=("best", "median", "worst"), default="median", help="which episode (median)"
    )
    parser.add_argument("--episodes", type=int, default=10, metavar="N", help="to pick from (10)")
    options = parser.parsed()
    if options.episodes < 1:
        raise ConfigError([Problem("--episodes", "must be an integer >= 1", options.episodes)])
    found, config = trained_run(options)
    index = found.index(options.seed)
    iio = extra("imageio.v3", "video")
    extra("imageio_ffmpeg", "video")
    # Not above: --help does not need torch.
    from dqn_exp.film import Film, as_gif, drawn, picked
    from dqn_exp.policy import q_function

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
