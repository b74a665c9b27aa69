"""`dqn-exp evaluate RUN`: greedy episodes of a trained run. Letters: S seeds, E episodes.

Exit codes: 0 ok, 1 the environment failed, 2 invalid arguments.
"""

import json
from pathlib import Path

from dqn_exp.cli.arguments import RunParser, trained_run
from dqn_exp.config.problems import ConfigError, Problem


def main() -> None:
    """Run the command line."""
    parser = RunParser(
        prog="dqn-exp evaluate",
        description="Play greedy episodes of a trained run. The episodes are new ones, the same at "
        "every call.",
        seed="all",
    )
    parser.add_argument("--episodes", type=int, metavar="N", help="of each seed (as in training's end)")
    parser.add_argument(
        "--own-streams",
        action="store_true",
        help="play the episodes of the run's own final evaluation again, which gives the same returns",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results into a file, too")
    options = parser.parsed()
    found, config = trained_run(options)
    own = config.eval.final_episodes
    episodes = own if options.episodes is None else options.episodes
    if episodes < 1:
        raise ConfigError([Problem("--episodes", "must be an integer >= 1", episodes)])
    if options.json and not options.json.absolute().parent.is_dir():
        raise ConfigError([Problem("--json", "there is no such folder", options.json.parent)])
    if options.own_streams and episodes != own:
        message = f"the run's own final evaluation has {own}"
        raise ConfigError([Problem("--episodes", message, episodes)])
    # Not above: --help does not need torch.
    from dqn_exp.greedy import greedy_returns
    from dqn_exp.run.summary import counted, per_seed
    from dqn_exp.statistics import confidence_interval, interquartile_mean

    index = None if options.seed is None else found.index(options.seed)
    rows = slice(None) if index is None else slice(index, index + 1)
    stream, which = ("eval", "those of the run") if options.own_streams else ("evaluate", "new ones")
    returns = greedy_returns(found, config, rows, episodes, stream)  # [S, E]
    seeds, scores = found.seeds[rows], returns.mean(1)
    iqm, interval = float(interquartile_mean(scores)), confidence_interval(scores)
    step = found.manifest["step"]
    print(
        f"{config.agent.name} on {config.env.id} at env step {step:,}: "
        f"{counted(episodes, 'greedy episode')} per seed, {which}"
    )
    for line in per_seed(seeds, returns):
        print(line)
    spread = f", 95 % CI [{interval[0]:.1f}, {interval[1]:.1f}]" if interval else ""
    print(f"IQM {iqm:.1f} over {counted(len(seeds), 'seed')}{spread}")
    if options.json:
        results = {
            "run": str(found.checkpoint.parents[1]),
            "step": step,
            "env": config.env.id,
            "agent": config.agent.name,
            "own_streams": options.own_streams,
            "episodes": episodes,
            "seeds": list(seeds),
            "means": scores.tolist(),
            "iqm": iqm,
            "iqm_ci95": interval,
            "returns": returns.tolist(),
        }
        options.json.write_text(json.dumps(results, indent=2) + "\n")
