"""Greedy evaluation of all seeds on random streams of its own.

Letters: S seeds, N envs per seed, E episodes.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from torch import Tensor

from dqn_exp.interfaces import Env
from dqn_exp.play import Play

EPISODES_PER_EVALUATION = 1 << 20  # reserved episode numbers: no two evaluations share an episode


class Interrupted(Exception):  # noqa: N818
    """An evaluation has been interrupted, and nothing is known of it."""


class Evaluation(NamedTuple):
    """Greedy episodes of each seed."""

    returns: np.ndarray  # [S, E] undiscounted, in the env's own rewards
    initial_state_value: np.ndarray  # [S] mean over N first states of max_a Q(s_0, a)
    discounted_return: np.ndarray  # [S] mean over the N episodes from them, in training's rewards

    def scalars(self) -> dict[str, np.ndarray]:
        """The metrics of the evaluation: tag -> [S]."""
        return {
            "eval/return_mean": self.returns.mean(1),
            "eval/return_std": self.returns.std(1),
            "eval/initial_state_value": self.initial_state_value,
            "eval/discounted_return": self.discounted_return,
            "eval/overestimation": self.initial_state_value - self.discounted_return,
        }


def evaluate(
    env: Env,
    q: Callable[[Tensor], Tensor],
    play: Play,
    step: int,
    rounds: int,
    interrupted: Callable[[], bool] = lambda: False,
) -> Evaluation:
    """Play `rounds` greedy episodes in each of the env's S * N environments.

    Only the first `rounds` episodes of each environment count, so short episodes are not favoured
    over long ones.

    Args:
        env: one that nothing else uses.
        q: observations [S, N, *obs] -> Q-values [S, N, A].
        play: acts on the env, by q.
        step: env step of the training, which keys the episodes' random streams.
        rounds: episodes per environment; E = N * rounds.
        interrupted: asked before each step.

    Raises:
        Interrupted: the answer was yes.
    """
    obs = env.reset(first_episode=step * EPISODES_PER_EVALUATION)
    play.start(obs)
    initial_value = q(obs).amax(-1).mean(1).cpu().numpy()
    returns: list[list[list[float]]] = [[[] for _ in range(obs.shape[1])] for _ in obs]
    missing = obs.shape[0] * obs.shape[1] * rounds
    while missing:
        if interrupted():
            raise Interrupted
        obs = play(obs)
        for episode in env.take_episodes():
            played = returns[episode.seed_index][episode.env_index]
            if len(played) < rounds:
                played.append(episode.reward_sum)
                missing -= 1
    discounted = play.discounted_return.mean(1).cpu().numpy()
    return Evaluation(np.array(returns).reshape(len(returns), -1), initial_value, discounted)
