"""Greedy play of all envs in lockstep. Letters: S seeds, N envs per seed."""

from collections.abc import Callable

import torch
from torch import Tensor

from dqn_exp.interfaces import Env


class Play:
    """Acts greedily, one step at a time."""

    def __init__(self, env: Env, q: Callable[[Tensor], Tensor], gamma: float = 1.0):
        self._env, self._q, self._gamma = env, q, gamma
        self._discount, self.discounted_return = torch.empty(0), torch.empty(0)

    def start(self, obs: Tensor) -> None:
        """Begin to add up the discounted rewards [S, N] of each env's next episode."""
        if self._discount.shape != obs.shape[:2]:
            shape = obs.shape[:2]
            self._discount = torch.empty(shape, device=obs.device)
            self.discounted_return = torch.empty(shape, device=obs.device)
        self._discount.fill_(1.0)
        self.discounted_return.zero_()

    def __call__(self, obs: Tensor) -> Tensor:
        """Act on obs [S, N, *obs]; returns the obs to act on next."""
        transition, obs = self._env.step(self._q(obs).argmax(-1))
        self.discounted_return.add_(self._discount * transition.reward)
        self._discount.mul_(self._gamma * ~transition.ended)
        return obs
