"""Distributions of returns: projections, quantile losses, and the rules that learn them, by hand."""

import math

import numpy as np
import pytest
import torch
from tables import batch, lookup, networks, q_of, rule, target_of
from torch import Tensor
from torch.testing import assert_close

from dqn_exp import rng, td
from dqn_exp.interfaces import Agent

SUPPORT = torch.tensor([-1.0, 0.0, 1.0, 2.0], dtype=torch.float64)


def test_select_atoms_takes_the_row_of_each_action():
    atoms = torch.arange(24.0).view(2, 2, 3, 2)  # [S, B, A, K]
    action = torch.tensor([[0, 2], [1, 1]])
    chosen = [[[0.0, 1.0], [10.0, 11.0]], [[14.0, 15.0], [20.0, 21.0]]]
    assert td.select_atoms(atoms, action).tolist() == chosen


@pytest.mark.parametrize(
    ("reward", "discount", "probabilities", "projected"),
    [
        (0.0, 1.0, [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]),  # on the atoms
        (1.0, 1.0, [0.1, 0.2, 0.3, 0.4], [0.0, 0.1, 0.2, 0.7]),  # on atoms, and one above the last
        (-2.0, 1.0, [0.1, 0.2, 0.3, 0.4], [0.6, 0.4, 0.0, 0.0]),  # and below the first
        # Atoms at -0.25, 0.25, 0.75, 1.25: shares 1/4 3/4 | 3/4 1/4 | 1/4 3/4 | 3/4 1/4.
        (0.25, 0.5, [0.2, 0.5, 0.3, 0.0], [0.05, 0.15 + 0.375 + 0.075, 0.125 + 0.225, 0.0]),
        (0.25, 0.5, [0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.75, 0.25]),
        (0.75, 0.0, [0.1, 0.2, 0.3, 0.4], [0.0, 0.25, 0.75, 0.0]),  # terminal: all at the reward
        (1.0, 0.0, [0.1, 0.2, 0.3, 0.4], [0.0, 0.0, 1.0, 0.0]),
        (50.0, 0.0, [0.1, 0.2, 0.3, 0.4], [0.0, 0.0, 0.0, 1.0]),
        (-50.0, 0.9, [0.1, 0.2, 0.3, 0.4], [1.0, 0.0, 0.0, 0.0]),
    ],
)
def test_categorical_projection_by_hand(reward, discount, probabilities, projected):
    arguments = (torch.tensor(x, dtype=torch.float64) for x in (probabilities, reward, discount))
    assert_close(
        td.categorical_projection(SUPPORT, *arguments), torch.tensor(projected, dtype=torch.float64)
    )


def naive_projection(
    support: list[float], p: list[float], reward: float, discount: float
) -> list[float]:
    """Algorithm 1 of Bellemare et al. 2017, atom by atom."""
    m = [0.0] * len(support)
    step = support[1] - support[0]
    for z, mass in zip(support, p, strict=True):
        b = (min(max(reward + discount * z, support[0]), support[-1]) - support[0]) / step
        low, high = math.floor(b), math.ceil(b)
        if low == high:
            m[low] += mass
        else:
            m[low] += mass * (high - b)
            m[high] += mass * (b - low)
    return m


@pytest.mark.parametrize(("K", "v_min", "v_max"), [(2, 0.0, 1.0), (11, -3.0, 2.0), (51, -10.0, 10.0)])
def test_categorical_projection_keeps_mass_and_mean_and_equals_the_papers_loop(K, v_min, v_max):
    numbers = np.random.default_rng(K)
    support = torch.linspace(v_min, v_max, K, dtype=torch.float64)
    p = torch.from_numpy(numbers.dirichlet(np.ones(K), size=(2, 20)))
    reward = torch.from_numpy(numbers.normal(size=(2, 20), scale=v_max))
    discount = torch.from_numpy(numbers.uniform(size=(2, 20)))
    projected = td.categorical_projection(support, p, reward, discount)
    assert projected.shape == (2, 20, K)
    assert_close(projected.sum(-1), torch.ones(2, 20, dtype=torch.float64))
    for where in np.ndindex(2, 20):
        r, d = reward[where].item(), discount[where].item()
        naive = naive_projection(support.tolist(), p[where].tolist(), r, d)
        assert_close(projected[where], torch.tensor(naive, dtype=torch.float64))
    # Nothing is clipped by a reward small enough.
    small, half = reward.clamp(v_min / 2, v_max / 2), torch.full_like(reward, 0.5)
    inside = td.categorical_projection(support, p, small, half)
    assert_close(inside @ support, small + 0.5 * (p @ support))


def test_quantile_huber_of_two_quantiles_and_three_targets_by_hand():
    quantiles, fractions = torch.tensor([1.0, 3.0]), torch.tensor([0.25, 0.75])
    target = torch.tensor([3.5, 1.5, -1.0])
    # u is 2.5, 0.5, -2 for the first: weights 1/4, 1/4, 3/4 and Huber 2, 0.125, 1.5;
    # 0.5, -1.5, -4 for the second: weights 3/4, 1/4, 1/4 and Huber 0.125, 1, 3.5.
    first = (0.25 * 2.0 + 0.25 * 0.125 + 0.75 * 1.5) / 3
    second = (0.75 * 0.125 + 0.25 * 1.0 + 0.25 * 3.5) / 3
    loss = td.quantile_huber(quantiles, fractions, target)
    assert loss.item() == pytest.approx(first + second, rel=1e-6)


@pytest.mark.parametrize(("fraction", "over", "under"), [(0.5, 0.5, 0.5), (0.9, 0.1, 0.9)])
def test_a_high_quantile_errs_more_cheaply_upwards(fraction: float, over: float, under: float):
    theta, tau = torch.tensor([0.0]), torch.tensor([fraction])
    losses = [td.quantile_huber(theta, tau, torch.tensor([y])).item() for y in (-2.0, 2.0)]
    assert losses == pytest.approx([over * 1.5, under * 1.5])


def naive_quantile_huber(theta: np.ndarray, tau: np.ndarray, target: np.ndarray) -> float:
    total = 0.0
    for i in range(len(theta)):
        for j in range(len(target)):
            u = target[j] - theta[i]
            huber = 0.5 * u * u if abs(u) <= 1.0 else abs(u) - 0.5
            total += abs(tau[i] - (1.0 if u < 0 else 0.0)) * huber / len(target)
    return total


@pytest.mark.parametrize(("K", "K_target"), [(1, 1), (2, 5), (8, 3)])
def test_quantile_huber_equals_a_naive_loop(K: int, K_target: int):
    numbers = np.random.default_rng(K)
    theta, target = numbers.normal(size=(3, 7, K)), numbers.normal(size=(3, 7, K_target), scale=2.0)
    tau = numbers.random((3, 7, K))
    loss = td.quantile_huber(*map(torch.from_numpy, (theta, tau, target)))
    assert loss.shape == (3, 7)
    for where in np.ndindex(3, 7):
        naive = naive_quantile_huber(theta[where], tau[where], target[where])
        assert loss[where].item() == pytest.approx(naive, rel=1e-12)


def test_minimising_quantile_huber_finds_quantiles():
    """Of many targets, spread widely, where the Huber part hardly matters."""
    target = 1000.0 * rng.uniform(torch.tensor([1]), "test", 0, (2001,))[0].double()
    fractions = torch.tensor([0.1, 0.5, 0.8], dtype=torch.float64)
    best = torch.quantile(target, fractions)

    def loss(theta: Tensor) -> float:
        return td.quantile_huber(theta, fractions, target).item()

    for i in range(3):
        for shift in (-20.0, 20.0):
            moved = best.clone()
            moved[i] += shift
            assert loss(moved) > loss(best)


def logits(*rows: list[list[float]]) -> Tensor:
    """A table of logits [states, A, K] from probabilities."""
    return torch.tensor(rows).log() + 3.0  # a constant changes nothing


# Two actions on atoms -1, 0, 1; what counts is in rows 0 (now) and 1 (next).
ONLINE = logits([[0.25, 0.25, 0.5], [0.2, 0.6, 0.2]], [[0.1, 0.1, 0.8], [0.8, 0.1, 0.1]])
TARGET = logits([[0.1, 0.8, 0.1], [0.1, 0.8, 0.1]], [[0.5, 0.3, 0.2], [0.2, 0.5, 0.3]])
TWO = batch([[0, 0]], [[0, 1]], [[0.25, 0.5]], [[0.5, 0.0]], [[1, 1]])  # the second is terminal


@pytest.mark.parametrize(
    ("double", "projected", "mean"),
    [
        # Means of the target's actions are -0.3 and 0.1: it chooses 1. See the projection above.
        (False, [0.05, 0.6, 0.35], 0.3),
        # The selector chooses 0. Atoms -0.25, 0.25, 0.75 of masses 0.5, 0.3, 0.2.
        (True, [0.125, 0.375 + 0.225 + 0.05, 0.075 + 0.15], 0.1),
    ],
)
def test_c51_by_hand(double: bool, projected: list[float], mean: float):
    agent = rule("c51", double=double, atoms=3, v_min=-1.0, v_max=1.0)
    loss = agent.loss(networks(-ONLINE.flip(1), TARGET, ONLINE), TWO)  # the online net is not asked
    assert_close(target_of(loss), torch.tensor([[mean, 0.5]]))
    loss = agent.loss(networks(ONLINE, TARGET, ONLINE), TWO)
    first = -sum(y * math.log(p) for y, p in zip(projected, (0.25, 0.25, 0.5), strict=True))
    second = -(0.5 * math.log(0.6) + 0.5 * math.log(0.2))
    assert_close(loss.loss, torch.tensor([[first, second]]))
    assert torch.equal(loss.priority, loss.loss)
    assert_close(q_of(loss), torch.tensor([[0.25, 0.0]]))
    assert_close(target_of(loss), torch.tensor([[mean, 0.5]]))


def test_c51s_q_values_are_means_over_its_atoms():
    agent = rule("c51", double=False, atoms=3, v_min=-1.0, v_max=3.0)  # atoms -1, 1, 3
    q = agent.q_values(lookup(ONLINE), torch.tensor([[0, 1]]))
    assert_close(q, torch.tensor([[[1.5, 1.0], [2.4, -0.4]]]))
    assert agent.n_atoms == 3


# Two actions of two quantiles.
QUANTILES = torch.tensor([[[1.0, 3.0], [0.0, 9.0]], [[7.0, 8.0], [5.0, 6.0]]])
NEXT = torch.tensor([[[0.0, 0.0], [0.0, 0.0]], [[0.0, 2.0], [2.0, 4.0]]])
FIRST = batch([[0, 0]], [[0, 0]], [[1.0, 2.0]], [[0.5, 0.0]], [[1, 1]])


@pytest.mark.parametrize(
    ("double", "target", "loss"),
    [
        # Targets 2, 3. Errors 1, 2 of the lower quantile and -1, 0 of the upper, all of weight 1/4.
        (False, 2.5, 0.25 * (0.5 + 1.5) / 2 + 0.25 * 0.5 / 2),
        # Targets 1, 2. Errors 0, 1 and -2, -1.
        (True, 1.5, 0.25 * 0.5 / 2 + 0.25 * (1.5 + 0.5) / 2),
    ],
)
def test_qr_dqn_by_hand(double: bool, target: float, loss: float):
    agent = rule("qr_dqn", double=double, quantiles=2)
    found = agent.loss(networks(QUANTILES, NEXT), FIRST)
    # Terminal, both targets are 2: errors 1 and -1.
    assert_close(found.loss, torch.tensor([[loss, 0.25 * 0.5 + 0.25 * 0.5]]))
    assert_close(q_of(found), torch.tensor([[2.0, 2.0]]))
    assert_close(target_of(found), torch.tensor([[target, 2.0]]))
    assert_close(found.priority, torch.tensor([[abs(target - 2.0), 0.0]]))
    selector = QUANTILES.flip(1)  # chooses the other action, whatever the online net says
    other = agent.loss(networks(QUANTILES, NEXT, selector), FIRST)
    assert_close(target_of(other)[0, 0].item(), 2.5)


def test_qr_dqns_q_values_are_means_of_its_quantiles():
    agent = rule("qr_dqn", double=False, quantiles=2)
    q = agent.q_values(lookup(QUANTILES), torch.tensor([[1], [0]]))
    assert q.tolist() == [[[7.5, 5.5]], [[2.0, 4.5]]]
    assert agent.n_atoms == 2


def iqn(double: bool = False, **samples: int) -> Agent:
    counts = {"samples": 2, "target_samples": 3, "act_samples": 4}
    return rule("iqn", double=double, **(counts | samples))


@pytest.mark.parametrize(("double", "best"), [(False, 20.0), (True, 10.0)])
def test_iqn_by_hand(double: bool, best: float):
    """Each table's quantiles are its value plus the fraction they are asked at."""
    online = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    target = torch.tensor([[0.0, 0.0], [10.0, 20.0]])
    selector = torch.tensor([[0.0, 0.0], [6.0, 5.0]])
    # For each transition, fractions of two estimates, then of three targets.
    draws = torch.tensor([[0.25, 0.5, 0.125, 0.25, 0.75, 0.0, 0.75, 0.5, 0.5, 0.5]])
    two = batch([[0, 0]], [[1, 0]], [[1.0, 3.0]], [[0.5, 0.0]], [[1, 1]])
    loss = iqn(double).loss(networks(online, target, selector, draws), two)
    assert_close(q_of(loss), torch.tensor([[2.375, 1.375]]))
    y = 1.0 + 0.5 * (best + 0.375)
    assert_close(target_of(loss), torch.tensor([[y, 3.0]]))
    assert_close(loss.priority, torch.tensor([[y - 2.375, 1.625]]))
    # All errors are above 1, so their mean is that of y less the quantile and 1/2; terminal: 2, 1.25.
    first = 0.25 * (y - 2.25 - 0.5) + 0.5 * (y - 2.5 - 0.5)
    second = 0.0 * 1.5 + 0.75 * 0.75
    assert_close(loss.loss, torch.tensor([[first, second]]))


def test_iqns_q_values_are_means_over_the_middles_of_even_shares():
    def squares(obs: Tensor, *, fractions: Tensor | None = None) -> Tensor:
        assert fractions is not None
        asked.append(fractions)
        squared = fractions.expand(*obs.shape[:2], -1).unsqueeze(-2) ** 2
        return torch.tensor([1.0, 2.0])[:, None] * squared

    asked: list[Tensor] = []
    q = iqn().q_values(squares, torch.zeros(3, 5, 7))  # [S, B, *obs]
    assert asked[0].shape == (3, 1, 4)  # the same for all observations
    mean = (1 + 9 + 25 + 49) / 64 / 4
    assert_close(q, torch.tensor([mean, 2 * mean]).expand(3, 5, 2))


@pytest.mark.parametrize(("samples", "target_samples"), [(1, 1), (2, 5), (8, 3)])
def test_iqn_asks_at_as_many_fractions_as_it_is_told(samples: int, target_samples: int):
    S, B = 2, 3
    agent = iqn(samples=samples, target_samples=target_samples)
    assert agent.n_draws(B) == B * (samples + target_samples)
    draws = rng.uniform(torch.arange(S), "test", 0, (agent.n_draws(B),))
    asked = set()

    def net(obs: Tensor, *, fractions: Tensor | None = None) -> Tensor:
        assert fractions is not None
        asked.add(tuple(fractions.shape))
        return fractions.unsqueeze(-2).expand(S, B, 2, -1)

    zeros = [[0] * B] * S
    b = batch(zeros, zeros, [[0.0] * B] * S, [[1.0] * B] * S, zeros)
    table = networks(torch.zeros(1, 2), torch.zeros(1, 2), draws=draws)
    loss = agent.loss(table._replace(online=net, target=net), b)
    assert asked == {(S, B, samples), (S, B, target_samples), (S, 1, 4)}
    # The draws of a transition are its own, and those of the target are not those of the estimate.
    own = draws.view(S, B, -1)
    assert_close(q_of(loss), own[..., :samples].mean(-1))
    assert_close(target_of(loss), own[..., samples:].mean(-1))
    assert not agent.n_atoms
    assert agent.implicit
