"""Benchmarks against baselines timed in the same run: `python -m dqn_exp.bench tutorial`.

Only ratios count: a machine's speed drifts, so what is compared runs in turn, slice by slice, on one
thread, and a ratio is the median over the pairs of slices.
"""

import argparse
import random
import statistics
import tempfile
import time
from collections import deque, namedtuple
from collections.abc import Callable
from pathlib import Path

import gymnasium
import torch
from torch import nn

from dqn_exp import config
from dqn_exp.experiment import Experiment
from dqn_exp.tracking import Tracker

WARM_UP_STEPS = 1000

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


def microseconds(steps: dict[str, Callable[[], None]], per_slice: int = 200, slices: int = 25):
    """Times of functions in turn, after a warm-up: name -> microseconds per call of each slice."""
    for step in steps.values():
        for _ in range(WARM_UP_STEPS):
            step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(slices):
        for name, step in steps.items():
            began = time.perf_counter()
            for _ in range(per_slice):
                step()
            times[name].append((time.perf_counter() - began) / per_slice * 1e6)
    return times


def training_step(folder: str, *overrides: str) -> Callable[[], None]:
    """One env step, with the updates due, of the experiment that overrides describe."""
    experiment = Experiment(config.compose(*overrides), Path(folder))
    return experiment.trainer(Tracker(Path(folder), experiment.seeds, {})).act_and_learn


def print_ratios(
    times: dict[str, list[float]], baseline: str, per: dict[str, int] | None = None
) -> None:
    """A table of median times and of median ratios to the baseline, divided by `per` (seeds)."""
    print(f"{'':<28} {'us':>8} {'ratio':>7}")
    for name, own in times.items():
        n = (per or {}).get(name, 1)
        ratio = statistics.median(a / b / n for a, b in zip(own, times[baseline], strict=True))
        print(f"{name:<28} {statistics.median(own) / n:8.0f} {ratio:7.3f}")


def tutorial() -> None:
    """Microseconds per env step of the tutorial's loop and of `experiment=tutorial`: same work."""
    with tempfile.TemporaryDirectory() as folder:
        ours = training_step(folder, "experiment=tutorial")
        times = microseconds({"tutorial loop": TutorialLoop().step, "dqn_exp": ours})
    print_ratios(times, "tutorial loop")


def lockstep() -> None:
    """Microseconds per env step and seed of eight seeds in lockstep, against one seed alone."""
    for width in (128, 32):
        sizes = [f"net.hidden=[{width},{width}]", f"train.batch_size={width}", "train.every=1"]
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as eight:
            steps = {
                f"1 seed, net {width}-{width}/{width}": training_step(one, *sizes),
                f"8 seeds, net {width}-{width}/{width}": training_step(eight, *sizes, "seeds=8"),
            }
            alone, together = steps
            print_ratios(microseconds(steps), alone, per={together: 8})


BENCHMARKS = {"tutorial": tutorial, "lockstep": lockstep}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m dqn_exp.bench", description=__doc__)
    parser.add_argument("benchmark", choices=BENCHMARKS)
    config.register_schemas()
    torch.set_num_threads(1)
    BENCHMARKS[parser.parse_args().benchmark]()
