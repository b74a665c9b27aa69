"""Greedy play in compiled code. Letters: S seeds, N envs per seed."""

from collections.abc import Callable

import torch
from torch import Tensor

from dqn_exp.compiled.graph import Graph, while_loop
from dqn_exp.interfaces import Env
from dqn_exp.play import Play

STEPS = 64  # greedy steps of one call


class CompiledPlay(Play):
    """Acts greedily STEPS times in one graph. For compilable envs."""

    def __init__(
        self,
        env: Env,
        q: Callable[[Tensor], Tensor],
        device: torch.device,
        gamma: float = 1.0,
    ):
        super().__init__(env, q, gamma)
        self._graph = Graph(self._compute, device, "evaluation")

    def __call__(self, obs: Tensor) -> Tensor:
        """Act on obs [S, N, *obs]; returns the obs to act on next."""
        result = None if self._graph.failed else self._graph(obs)
        return result[1] if result else super().__call__(obs)

    def _compute(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        def unfinished(step: Tensor, obs: Tensor) -> Tensor:
            return step < STEPS

        def play(step: Tensor, obs: Tensor) -> tuple[Tensor, Tensor]:
            return step + 1, Play.__call__(self, obs)

        start = torch.zeros((), dtype=torch.int64, device=obs.device)
        return while_loop(unfinished, play, (start, obs))
