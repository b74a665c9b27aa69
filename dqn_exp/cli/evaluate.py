"""`dqn-exp evaluate RUN`: greedy episodes of a trained run. Letters: S seeds, E episodes.

Exit codes: 0 ok, 1 the environment failed, 2 invalid arguments.
"""

import argparse
import json
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dqn_exp import registry
from dqn_exp.cli.arguments import add_run, config_of
from dqn_exp.compiled.play import CompiledPlay
from dqn_exp.config.problems import ConfigError, Problem
from dqn_exp.config.schema import Config
from dqn_exp.parts import FORMS, WholeLoop
from dqn_exp.play import Play
from dqn_exp.policy import q_function
from dqn_exp.run import trained
from dqn_exp.run.evaluation import confidence_interval, evaluate, interquartile_mean
from dqn_exp.run.run import set_up_process
from dqn_exp.run.summary import counted, per_seed
from dqn_exp.run.trained import Trained
from dqn_exp.signals import exits_are_errors


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="dqn-exp evaluate",
        description="Play greedy episodes of a trained run. The episodes are new ones, the same at "
        "every call.",
    )
    add_run(parser)
    parser.add_argument("--episodes", type=int, metavar="N", help="of each seed (as in training's end)")
    parser.add_argument("--seed", type=int, metavar="K", help="of the run (all)")
    parser.add_argument(
        "--own-streams",
        action="store_true",
        help="play the episodes of the run's own final evaluation again, which gives the same returns",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results into a file, too")
    options = parser.parse_intermixed_args()
    found = trained.load(options.run, options.checkpoint)
    config = config_of(found, options.overrides)
    own = config.eval.final_episodes
    episodes = own if options.episodes is None else options.episodes
    if episodes < 1:
        raise ConfigError([Problem("--episodes", "must be an integer >= 1", episodes)])
    if options.json and not options.json.absolute().parent.is_dir():
        raise ConfigError([Problem("--json", "there is no such folder", options.json.parent)])
    if options.own_streams and episodes != own:
        message = f"the run's own final evaluation has {own}"
        raise ConfigError([Problem("--episodes", message, episodes)])
    rows = slice(None)
    if options.seed is not None:
        index = found.index(options.seed)
        rows = slice(index, index + 1)
    returns = played(found, config, rows, episodes, "eval" if options.own_streams else "evaluate")
    results = _results(found, config, found.seeds[rows], returns, options.own_streams)
    _print(results, returns)
    if options.json:
        options.json.write_text(json.dumps(results | {"returns": returns.tolist()}, indent=2) + "\n")


def played(found: Trained, config: Config, rows: slice, episodes: int, stream: str) -> np.ndarray:
    """Undiscounted returns [S, E] of greedy episodes of the seeds in some rows.

    Args:
        stream: name of the random streams; "eval" is that of the run's own evaluations.

    Raises:
        ConfigError: the env cannot be made, or differs from the run's.
    """
    set_up_process(config.threads)
    n_envs = max(n for n in range(1, config.eval.episodes + 1) if episodes % n == 0)
    seeds = torch.tensor(found.seeds[rows])
    q = q_function(config, found, rows)
    with exits_are_errors():
        env = registry.build("env", replace(config.env, n=n_envs), seeds, stream, True)
        with closing(env):
            _require_same_spaces(found, asdict(env.spec), config.env.id)
            # The compiler rounds in its own ways: the same returns need the same form.
            compiled = found.manifest["form"] == FORMS[WholeLoop] and env.compilable
            play = CompiledPlay(env, q, torch.device("cpu")) if compiled else Play(env, q)
            with torch.no_grad():
                return evaluate(env, q, play, found.manifest["step"], episodes // n_envs).returns


def _require_same_spaces(found: Trained, spaces: dict[str, Any], id: str) -> None:
    own = asdict(found.spec)
    problems = [
        Problem("env.id", f"its {key} is {value}, the run was trained with {own[key]}", id)
        for key, value in spaces.items()
        if value != own[key]
    ]
    if problems:
        raise ConfigError(problems)


def _results(
    found: Trained, config: Config, seeds: range, returns: np.ndarray, own_streams: bool
) -> dict[str, Any]:
    scores = returns.mean(1)
    return {
        "run": str(found.checkpoint.parents[1]),
        "step": found.manifest["step"],
        "env": config.env.id,
        "agent": config.agent.name,
        "own_streams": own_streams,
        "episodes": returns.shape[1],
        "seeds": list(seeds),
        "means": scores.tolist(),
        "iqm": float(interquartile_mean(scores)),
        "iqm_ci95": confidence_interval(scores),
    }


def _print(results: dict[str, Any], returns: np.ndarray) -> None:
    which = "those of the run" if results["own_streams"] else "new ones"
    print(
        f"{results['agent']} on {results['env']} at env step {results['step']:,}: "
        f"{counted(results['episodes'], 'greedy episode')} per seed, {which}"
    )
    for line in per_seed(results["seeds"], returns):
        print(line)
    interval = results["iqm_ci95"]
    spread = f", 95 % CI [{interval[0]:.1f}, {interval[1]:.1f}]" if interval else ""
    print(f"IQM {results['iqm']:.1f} over {counted(len(returns), 'seed')}{spread}")
