"""What is timed beside this package: the tutorial's loop, stable-baselines3, cpprb, bare products."""

import importlib.util
import itertools
import random
from collections import deque, namedtuple
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import nn

TutorialTransition = namedtuple("TutorialTransition", "state action next_state reward")


class TutorialLoop:
    """The loop of the PyTorch DQN tutorial: transitions in a deque, target copied by state_dict."""

    def __init__(self, width: int = 128, batch_size: int = 128) -> None:
        self.width, self.batch_size = width, batch_size
        self.env = gymnasium.make("CartPole-v1")
        self.policy, self.target = self._net(), self._net()
        self.target.load_state_dict(self.policy.state_dict())
        self.optimizer = torch.optim.AdamW(self.policy.parameters(), lr=1e-4, amsgrad=True)
        self.memory: deque[TutorialTransition] = deque(maxlen=10_000)
        self.state = self._tensor(self.env.reset(seed=0)[0])
        self.steps = 0

    def _net(self) -> nn.Module:
        width = self.width
        return nn.Sequential(
            nn.Linear(4, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2)
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
        if len(self.memory) < self.batch_size:
            return
        batch = TutorialTransition(*zip(*random.sample(self.memory, self.batch_size), strict=True))
        mask = torch.tensor(tuple(s is not None for s in batch.next_state), dtype=torch.bool)
        next_states = torch.cat([s for s in batch.next_state if s is not None])
        values = self.policy(torch.cat(batch.state)).gather(1, torch.cat(batch.action))
        bootstrap = torch.zeros(self.batch_size)
        with torch.no_grad():
            bootstrap[mask] = self.target(next_states).max(1)[0]
        expected = bootstrap * 0.99 + torch.cat(batch.reward)
        loss = nn.SmoothL1Loss()(values, expected.unsqueeze(1))
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_value_(self.policy.parameters(), 100)
        self.optimizer.step()

    def __call__(self, steps: int) -> None:
        """Make env steps, each with an update."""
        for _ in range(steps):
            self._step()

    def _step(self) -> None:
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


def products(S: int, B: int, widths: list[int], forwards: int, acts: int) -> Callable[[], None]:
    """The floor: the matrix products of one update and the acts before it, and nothing else.

    Args:
        widths: of the net, observation first.
        forwards: passes over the minibatch (2 for DQN, 3 for double DQN).
        acts: env steps per update.
    """
    pairs = list(itertools.pairwise(widths))

    def product(n: int, k: int, m: int) -> tuple[torch.Tensor, ...]:
        return torch.randn(S, n, k), torch.randn(S, k, m), torch.empty(S, n, m)

    calls = [product(1, n_in, n_out) for n_in, n_out in pairs] * acts
    calls += [product(B, n_in, n_out) for n_in, n_out in pairs] * forwards
    for layer, (n_in, n_out) in enumerate(pairs):
        x, error, weight = (
            torch.randn(S, B, n_in),
            torch.randn(S, B, n_out),
            torch.randn(S, n_in, n_out),
        )
        calls.append((x.mT, error, torch.empty(S, n_in, n_out)))
        if layer:  # the gradient of the observations is not needed
            calls.append((error, weight.mT, torch.empty(S, B, n_in)))

    def run() -> None:
        for left, right, out in calls:
            torch.bmm(left, right, out=out)

    return run


def installed(package: str) -> bool:
    """Whether an optional peer (extra `[bench]`) can be imported."""
    return importlib.util.find_spec(package) is not None


def stable_baselines3() -> Callable[[int], None]:
    """SB3's DQN doing the tutorial's work."""
    from stable_baselines3 import DQN  # pyright: ignore[reportMissingImports]

    model = DQN(
        "MlpPolicy",
        gymnasium.make("CartPole-v1"),
        learning_rate=1e-4,
        buffer_size=10_000,
        learning_starts=128,
        batch_size=128,
        tau=0.005,
        target_update_interval=1,
        train_freq=1,
        gradient_steps=1,
        policy_kwargs={"net_arch": [128, 128]},
        device="cpu",
    )
    return lambda steps: model.learn(steps, reset_num_timesteps=False, log_interval=10**9) and None


def cpprb(capacity: int, B: int) -> Callable[[int], None]:
    """cpprb's prioritised buffer, full: sample and update_priorities."""
    from cpprb import PrioritizedReplayBuffer  # pyright: ignore[reportMissingImports]

    draw = np.random.default_rng(0)
    fields: dict[str, Any] = {name: {"shape": 4} for name in ("obs", "next_obs")}
    fields |= {"action": {"dtype": np.int64}, "reward": {}, "done": {}}
    buffer = PrioritizedReplayBuffer(capacity, fields, alpha=0.6)
    data = {name: draw.random((capacity, 4)) for name in ("obs", "next_obs")}
    zeros = np.zeros(capacity)
    buffer.add(action=zeros, reward=zeros, done=zeros, priorities=draw.random(capacity) + 0.1, **data)
    td_abs = draw.random(B)

    def run(times: int) -> None:
        for _ in range(times):
            buffer.update_priorities(buffer.sample(B, beta=0.4)["indexes"], td_abs)

    return run
