"""The target network: its parameters, and the one place that decides when they move.

Letters: S seeds, N envs per seed, P parameters.
"""

import torch
from torch import Tensor

from dqn_exp.config import schema
from dqn_exp.interfaces import Context, Step


class TargetNetwork:
    """Parameters [S, P] that follow the online ones by a step of `tau`.

    They move at every gradient step, every `every` env steps, or every `episodes` episodes of a seed.
    """

    def __init__(self, context: Context, config: schema.Target, params: Tensor):
        self.params = params.clone()
        self._tau, self._every, self._episodes = config.tau, config.every, config.episodes
        self._n_envs = context.n_envs

    def after_update(self, online: Tensor, learns: Tensor | None) -> None:
        """Move after a gradient step, if the target does so.

        Args:
            online: parameters [S, P].
            learns: bool [S], the seeds whose parameters may change; None: all.
        """
        if not self._every and not self._episodes:
            self._move(online, True if learns is None else learns.unsqueeze(1))

    def after_step(self, online: Tensor, step: Step, ended: Tensor, episodes: Tensor) -> None:
        """Move after an env step, if the target does so and it is time.

        Args:
            online: parameters [S, P].
            step: env steps made.
            ended: bool [S, N], whether the last step of each env ended its episode.
            episodes: finished episodes [S].
        """
        if self._every:
            self._move(online, multiples_passed(step, self._every, self._n_envs) > 0)
        if self._episodes:
            self._move(online, self._episodes_due(ended, episodes, self._episodes))

    def _episodes_due(self, ended: Tensor, episodes: Tensor, every: int) -> Tensor:
        """Whether each seed has just ended its episode 0, every, 2 every, ...: bool [S, 1]."""
        count = episodes.to(ended.device) + every - 1
        return (count // every > (count - ended.sum(1)) // every).unsqueeze(1)

    def _move(self, online: Tensor, due: bool | Tensor) -> None:
        """Move towards the online parameters where it is due, for all seeds or bool [] or [S, 1]."""
        if isinstance(due, Tensor):
            moved = self.params.lerp(online, self._tau)
            self.params.copy_(torch.where(due, moved, self.params))
        elif due:
            self.params.lerp_(online, self._tau)


def multiples_passed(step: Step, every: int, n_envs: int) -> Step:
    """How many multiples of `every` the step of N envs that led to env step `step` reached."""
    return step // every - (step - n_envs) // every
