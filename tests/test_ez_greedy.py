"""Random actions of epsilon-z-greedy: how long they are repeated, and when they begin."""

import dataclasses

import numpy as np
import pytest
import torch
from helpers import context, node
from scipy import stats
from torch import Tensor

from dqn_exp import registry

A, GREEDY, LONGEST = 4, 3, 20
SEEDS = torch.tensor([3, 8])
ALL_LONGEST = -100.0  # an exponent with which every duration is the longest


def actions(
    n_envs: int, calls: int, epsilon: float, end: float, mu: float, longest: int = LONGEST
) -> Tensor:
    """[S, calls, N]; epsilon holds at the first call, `end` from the second on."""
    keys = {"start": epsilon, "end": end, "decay_steps": n_envs, "max_duration": longest}
    # An exponent below 0, which no config may have, favours long durations.
    config = dataclasses.replace(node("exploration", "ez_greedy", **keys), mu=mu)
    strategy = registry.build("exploration", config, context(SEEDS, n_envs, n_actions=A))
    q, episode = torch.eye(A)[GREEDY].expand(2, n_envs, A), torch.tensor([0, 0])
    return torch.stack([strategy.act(q, call * n_envs, episode) for call in range(calls)], dim=1)


def durations(taken: Tensor) -> Tensor:
    """How many calls each env's first action lasts, [S, N]."""
    return (taken == taken[:, :1]).long().cumprod(1).sum(1)


@pytest.mark.parametrize("mu", [0.5, 2.0])
def test_durations_follow_the_zeta_law(mu: float) -> None:
    taken = actions(20_000, LONGEST + 5, epsilon=1.0, end=0.0, mu=mu)
    explored = taken[:, 0] != GREEDY  # of the others one does not see how long
    lengths = durations(taken)
    law = np.arange(1, LONGEST + 1) ** -mu
    for s in range(len(SEEDS)):
        counts = lengths[s, explored[s]].bincount(minlength=LONGEST + 1)[1:].numpy()
        assert stats.chisquare(counts, law / law.sum() * counts.sum()).pvalue > 1e-3
        assert stats.chisquare(taken[s, 0].bincount(minlength=A).numpy()).pvalue > 1e-3
    over = torch.arange(LONGEST + 5).view(1, -1, 1) >= lengths.unsqueeze(1)
    assert (taken[over & explored.unsqueeze(1)] == GREEDY).all()


def test_durations_are_unrelated_to_actions_seeds_and_envs() -> None:
    taken = actions(20_000, LONGEST, epsilon=1.0, end=0.0, mu=1.0)
    first, explored, lengths = taken[:, 0], taken[:, 0] != GREEDY, durations(taken).clamp(max=5)
    sides = [(0, 1), (np.s_[:, 1:], np.s_[:, :-1])]
    pairs = [(lengths[x], lengths[y], explored[x] & explored[y]) for x, y in sides]
    for one, other, known in [*pairs, (lengths, first, explored)]:
        table = torch.zeros(6, 6)
        table.index_put_((one[known], other[known]), torch.tensor(1.0), accumulate=True)
        seen = table[table.sum(1) > 0][:, table.sum(0) > 0]
        expected = torch.outer(seen.sum(1), seen.sum(0)).double() / seen.sum().double()
        estimated = sum(seen.shape) - 2  # frequencies that the expected numbers come from
        p = stats.chisquare(seen.flatten().numpy(), expected.flatten().numpy(), estimated).pvalue
        assert p > 1e-3


def test_a_random_action_is_repeated_exactly_for_its_duration_and_then_drawn_anew() -> None:
    taken = actions(50, 500, epsilon=1.0, end=1.0, mu=ALL_LONGEST, longest=5)
    blocks = taken.view(2, 100, 5, 50)
    assert (blocks == blocks[:, :, :1]).all()
    first, following = blocks[:, :-1, 0], blocks[:, 1:, 0]
    table = torch.zeros(A, A).index_put_((first, following), torch.tensor(1.0), accumulate=True)
    assert stats.chisquare(table.flatten().numpy()).pvalue > 1e-3


def test_an_env_that_repeats_nothing_begins_to_explore_with_probability_epsilon() -> None:
    taken = actions(10_000, 5, epsilon=0.1, end=0.1, mu=ALL_LONGEST, longest=5)
    # Greedy calls before another action: a random one that is greedy would hide the next five.
    waits = (taken == GREEDY).long().cumprod(1).sum(1).flatten()
    expected = [0.9**k * 0.1 * (A - 1) / A for k in range(5)]
    expected = np.array([*expected, 1.0 - sum(expected)]) * len(waits)
    assert stats.chisquare(waits.bincount(minlength=6).numpy(), expected).pvalue > 1e-3


def test_with_durations_of_one_it_is_epsilon_greedy() -> None:
    taken = actions(1000, 20, epsilon=0.4, end=0.4, mu=2.0, longest=1)
    explored = taken != GREEDY
    expected = np.array([0.1, 0.1, 0.1, 0.7]) * taken.numel()
    assert stats.chisquare(taken.flatten().bincount().numpy(), expected).pvalue > 1e-3
    pair = explored[:, 1:].long() * 2 + explored[:, :-1]
    law = np.array([0.49, 0.21, 0.21, 0.09]) * pair.numel()
    assert stats.chisquare(pair.flatten().bincount(minlength=4).numpy(), law).pvalue > 1e-3


def test_without_epsilon_it_is_greedy() -> None:
    assert (actions(100, 50, epsilon=0.0, end=0.0, mu=1.0) == GREEDY).all()
