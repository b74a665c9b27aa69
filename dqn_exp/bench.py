"""Benchmarks against baselines timed in the same run: `python -m dqn_exp.bench tutorial`.

Only ratios count: a machine's speed drifts, so baseline and product run in turn, on one thread.
"""

import random
from collections import deque, namedtuple

import gymnasium
import torch
from torch import nn

TutorialTransition = namedtuple("TutorialTransition", "state action next_state reward")


class TutorialLoop:
    """The loop of the PyTorch DQN tutorial: transitions in a deque, target copied by state_dict."""

    def __init__(self) -> None:
        self.env = gymnasium.make("CartPole-v1")
        self.policy, self.target = self._net(), self._net()
        self.target.load_state_dict(self.policy.state_dict())
        self.optimizer = torch.optim.AdamW(self.policy.parameters(), lr=1e-4, amsgrad=True)
        self.memory: deque[TutorialTransition] = deque(maxlen=10_000)
        self.state = self._tensor(self.env.reset(seed=0)[0])
        self.steps = 0

    @staticmethod
    def _net() -> nn.Module:
        return nn.Sequential(
            nn.Linear(4, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 2)
        )

    @staticmethod
    def _tensor(obs) -> torch.Tensor:
        return torch.tensor(obs, dtype=torch.float32).unsqueeze(0)

    def act(self) -> torch.Tensor:
        epsilon = 0.05 + 0.85 * 2.718281828 ** (-self.steps / 1000)
        self.steps += 1
        if random.random() > epsilon:
            with torch.no_grad():
                return self.policy(self.state).max(1)[1].view(1, 1)
        return torch.tensor([[self.env.action_space.sample()]], dtype=torch.long)

    def optimize(self) -> None:
        if len(self.memory) < 128:
            return
        batch = TutorialTransition(*zip(*random.sample(self.memory, 128), strict=True))
        mask = torch.tensor(tuple(s is not None for s in batch.next_state), dtype=torch.bool)
        next_states = torch.cat([s for s in batch.next_state if s is not None])
        values = self.policy(torch.cat(batch.state)).gather(1, torch.cat(batch.action))
        bootstrap = torch.zeros(128)
        with torch.no_grad():
            bootstrap[mask] = self.target(next_states).max(1)[0]
        expected = bootstrap * 0.99 + torch.cat(batch.reward)
        loss = nn.SmoothL1Loss()(values, expected.unsqueeze(1))
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_value_(self.policy.parameters(), 100)
        self.optimizer.step()

    def step(self) -> None:
        action = self.act()
        obs, reward, terminated, truncated, _ = self.env.step(action.item())
        next_state = None if terminated else self._tensor(obs)
        self.memory.append(TutorialTransition(self.state, action, next_state, torch.tensor([reward])))
        self.optimize()
        target, policy = self.target.state_dict(), self.policy.state_dict()
        for name in policy:
            target[name] = policy[name] * 0.005 + target[name] * 0.995
        self.target.load_state_dict(target)
        if next_state is None or truncated:
            next_state = self._tensor(self.env.reset()[0])
        self.state = next_state
