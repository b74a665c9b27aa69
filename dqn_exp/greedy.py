"""Greedy episodes of what a run has trained. Letters: S seeds, E episodes."""

from contextlib import closing
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch

from dqn_exp import registry
from dqn_exp.compiled.play import CompiledPlay
from dqn_exp.config.problems import ConfigError, Problem
from dqn_exp.config.schema import Config
from dqn_exp.parts import FORMS, WholeLoop
from dqn_exp.play import Play
from dqn_exp.policy import q_function
from dqn_exp.run import trained
from dqn_exp.run.evaluation import evaluate
from dqn_exp.run.run import set_up_process
from dqn_exp.signals import exits_are_errors


def greedy_returns(
    found: trained.Trained, config: Config, rows: slice, episodes: int, stream: str
) -> np.ndarray:
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


def _require_same_spaces(found: trained.Trained, spaces: dict[str, Any], id: str) -> None:
    own = asdict(found.spec)
    problems = [
        Problem("env.id", f"its {key} is {value}, the run was trained with {own[key]}", id)
        for key, value in spaces.items()
        if value != own[key]
    ]
    if problems:
        raise ConfigError(problems)
