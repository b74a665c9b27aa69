"""Exploration: schedules at known steps, and random actions as often as they say."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from helpers import context, part
from scipy import stats
from torch import Tensor
from torch.testing import assert_close

from dqn_exp.config import schema
from dqn_exp.interfaces import Exploration

N, A, CALLS = 5, 4, 800
SEEDS = torch.tensor([3, 8])
NODES: dict[str, dict[str, Any]] = {
    "linear": {"start": 0.9, "end": 0.1, "decay_steps": 1000, "hold_steps": 0},
    "exponential": {"start": 0.9, "end": 0.05, "decay_steps": 1000},
    "constant": {"start": 0.3},
    "per_episode": {"start": 0.5, "end": 0.01},
    "ez_greedy": {"start": 0.9, "end": 0.1, "decay_steps": 1000, "mu": 2.0, "max_duration": 20},
    "boltzmann": {"start": 2.0, "end": 0.5, "decay_steps": 1000},
}


def make(name: str, seeds: Tensor = SEEDS, **keys: float) -> Exploration:
    return part("exploration", name, context(seeds, N, n_actions=A), **(NODES[name] | keys))


def greedy_on_last(n_seeds: int) -> Tensor:
    """Q-values [S, N, A] whose largest is that of the last action."""
    return torch.arange(A, dtype=torch.float32).expand(n_seeds, N, A)


def actions(strategy: Exploration, episode: list[int], calls: range = range(CALLS)) -> Tensor:
    """Actions [S, calls, N] of consecutive calls, N env steps apart."""
    q = greedy_on_last(len(episode))
    return torch.stack([strategy.act(q, call * N, torch.tensor(episode)) for call in calls], dim=1)


def test_every_exploration_is_tested_here() -> None:
    assert set(NODES) == set(schema.PARTS["exploration"])


@pytest.mark.parametrize(
    ("name", "step", "expected"),
    [
        ("linear", 0, 0.9),
        ("linear", 250, 0.7),
        ("linear", 999, 0.1008),
        ("linear", 1000, 0.1),
        ("linear", 5000, 0.1),
        # EPS_END + (EPS_START - EPS_END) * exp(-steps_done / EPS_DECAY), the PyTorch DQN tutorial.
        ("exponential", 0, 0.9),
        ("exponential", 1000, 0.05 + 0.85 / math.e),
        ("exponential", 2500, 0.05 + 0.85 * math.exp(-2.5)),
        ("exponential", 10**6, 0.05),
        ("ez_greedy", 250, 0.7),
        ("boltzmann", 250, 1.625),
        ("boltzmann", 5000, 0.5),
        ("constant", 0, 0.3),
        ("constant", 10**6, 0.3),
    ],
)
def test_rates_at_known_steps(name: str, step: int, expected: float) -> None:
    assert make(name).rate(step, torch.tensor([0, 7])) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 0.9), (99, 0.9), (100, 0.9), (350, 0.7), (1100, 0.1)]
)
def test_a_line_may_begin_later(step: int, expected: float) -> None:
    strategy = make("linear", hold_steps=100)
    for count in (step, torch.tensor(step)):
        assert float(strategy.rate(count, torch.tensor([0]))) == pytest.approx(expected, abs=1e-12)


def test_epsilon_per_episode_counts_each_seeds_own_episodes() -> None:
    epsilon = make("per_episode").rate(123, torch.tensor([0, 1, 4, 49, 99]))
    assert torch.as_tensor(epsilon).tolist() == pytest.approx([0.5, 0.25, 0.1, 0.01, 0.01])


@pytest.mark.parametrize("epsilon", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(2))
def test_actions_are_random_with_probability_epsilon(epsilon: float, seed: int) -> None:
    taken = actions(make("constant", start=epsilon), [0, 0])[seed]
    expected = np.full(A, epsilon / A)
    expected[-1] += 1 - epsilon
    counts = taken.flatten().bincount(minlength=A).numpy()
    assert stats.chisquare(counts, expected * CALLS * N).pvalue > 1e-3


@pytest.mark.parametrize("name", sorted(NODES))
def test_epsilon_zero_is_greedy(name: str) -> None:
    least = 1e-9 if name == "boltzmann" else 0.0  # a temperature is above 0
    zero = dict.fromkeys({"start", "end"} & set(NODES[name]), least)
    assert (actions(make(name, SEEDS, **zero), [0, 3]) == A - 1).all()


def test_the_greedy_action_is_each_envs_own() -> None:
    q = torch.eye(A)[torch.tensor([[0, 1, 2, 3, 0], [3, 2, 1, 0, 2]])]
    taken = make("constant", start=0.0).act(q, 0, torch.tensor([0, 0]))
    assert taken.tolist() == [[0, 1, 2, 3, 0], [3, 2, 1, 0, 2]]
    assert taken.dtype == torch.int64


@pytest.mark.parametrize("name", ["linear", "exponential"])
def test_a_schedule_is_what_actions_follow(name: str) -> None:
    strategy = make(name, start=1.0, end=0.0, decay_steps=N * CALLS)
    explored = (actions(strategy, [0, 0], range(3 * CALLS)) != A - 1).float().mean((0, 2)) * A / (A - 1)
    for third in range(3):
        calls = range(third * CALLS, (third + 1) * CALLS)
        expected = sum(float(strategy.rate(N * c, torch.tensor([0, 0]))) for c in calls) / CALLS
        assert explored[calls.start : calls.stop].mean().item() == pytest.approx(expected, abs=0.025)


def test_each_seed_explores_by_its_own_episodes() -> None:
    taken = actions(make("per_episode", start=1.0, end=0.0), [0, 10**9])
    assert stats.chisquare(taken[0].flatten().bincount(minlength=A).numpy()).pvalue > 1e-3
    assert (taken[1] == A - 1).all()


@pytest.mark.parametrize("name", sorted(NODES))
def test_a_seed_explores_alone_as_it_does_in_company(name: str) -> None:
    together = actions(make(name, torch.tensor([9, 8, 3])), [2, 0, 1])
    assert torch.equal(together[1:2], actions(make(name, SEEDS[1:]), [0]))
    assert torch.equal(together[[2, 1]], actions(make(name), [1, 0]))
    assert not torch.equal(together[0], together[1])


def test_draws_depend_on_the_seed_value_and_the_step_alone() -> None:
    together = actions(make("constant", torch.tensor([9, 8, 3]), start=1.0), [0, 0, 0])
    assert torch.equal(together[1:2], actions(make("constant", SEEDS[1:], start=1.0), [0]))
    assert torch.equal(together[[2, 1]], actions(make("constant", start=1.0), [0, 0]))
    strategy = make("constant", start=1.0)
    for call in (700, 3, 421):  # in any order, as after a resume
        alone = actions(strategy, [0, 0], range(call, call + 1))
        assert torch.equal(alone[:, 0], together[[2, 1], call])


@pytest.mark.parametrize("name", sorted(NODES))
def test_steps_counted_by_tensors_give_the_actions_of_int_steps(name: str) -> None:
    by_ints, by_tensors, q = make(name), make(name), greedy_on_last(2)
    episode = torch.tensor([0, 3])
    for call in [*range(20), *range(100, 121), 3, 1000]:
        taken = by_tensors.act(q, torch.tensor(call * N), episode)
        assert torch.equal(taken, by_ints.act(q, call * N, episode))


def test_seeds_steps_and_envs_draw_unrelated_actions() -> None:
    taken = actions(make("constant", start=1.0), [0, 0])
    pairs = [(taken[0], taken[1]), (taken[:, 1:], taken[:, :-1]), (taken[..., 1:], taken[..., :-1])]
    for first, second in pairs:
        table = torch.zeros(A, A).index_put_((first, second), torch.tensor(1.0), accumulate=True)
        assert stats.chisquare(table.flatten().numpy()).pvalue > 1e-3


# Q-values of states to explore in: distinct, tied, and all the same.
Q = torch.tensor([[1.0, 0.0, -0.5, 0.7], [0.2, 0.9, 0.9, 0.1], [3.0, 3.0, 3.0, 3.0]])


@pytest.mark.parametrize("name", sorted(set(NODES) - {"ez_greedy"}))  # it repeats earlier actions
@pytest.mark.parametrize("state", range(len(Q)))
def test_actions_are_as_frequent_as_the_probabilities_say(name: str, state: int) -> None:
    strategy = make(name, SEEDS, **dict.fromkeys({"start", "end"} & set(NODES[name]), 0.3))
    q, episode = Q[state].expand(2, N, A), torch.tensor([0, 0])
    taken = torch.stack([strategy.act(q, call * N, episode) for call in range(CALLS)])
    rate = torch.as_tensor(strategy.rate(0, episode))
    for s, probabilities in enumerate(strategy.probabilities(q.double(), rate)[:, 0]):
        expected = probabilities.numpy() * CALLS * N
        counts = taken[:, s].flatten().bincount(minlength=A).numpy()
        assert stats.chisquare(counts, expected).pvalue > 1e-3


@pytest.mark.parametrize("name", sorted(NODES))
@pytest.mark.parametrize("rate", [torch.tensor(0.3), torch.tensor([0.3, 0.6])], ids=["one", "each"])
def test_probabilities_by_hand_and_of_each_seeds_own_rate(name: str, rate: Tensor) -> None:
    q = Q[:2].flip(0).double().expand(2, 2, A)  # [S, B, A]: greedy on 1, and on 0
    probabilities = make(name).probabilities(q, rate.double())
    assert_close(probabilities.sum(-1), torch.ones(2, 2, dtype=torch.float64))
    for s, r in enumerate(rate.expand(2).tolist()):
        for b, best in enumerate((1, 0)):
            if name == "boltzmann":
                weights = [math.exp(value / r) for value in q[s, b].tolist()]
                expected = [weight / sum(weights) for weight in weights]
            else:
                expected = [r / A + (1 - r) * (a == best) for a in range(A)]
            assert probabilities[s, b].tolist() == pytest.approx(expected, abs=1e-7)


def test_boltzmann_probabilities_of_extreme_values_are_finite() -> None:
    q = torch.tensor([1e6, -1e6, 0.0, 1e6 - 1.0]).expand(1, 1, A)
    for temperature in (0.0, 1e-9, 1e-6, 1.0):
        probabilities = make("boltzmann").probabilities(q, torch.tensor(temperature))
        assert probabilities.isfinite().all()
        assert probabilities[0, 0, 0] > 0.7
