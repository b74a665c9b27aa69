"""Rules that learn Q-values, by hand: lookup tables stand in for networks."""

import math

import pytest
import torch
from tables import batch, lookup, networks, q_of, rule, target_of
from torch import Tensor
from torch.testing import assert_close

from dqn_exp import rng
from dqn_exp.interfaces import Agent, Batch

AGENTS = ["dqn", "ddqn"]
each_agent = pytest.mark.parametrize("name", AGENTS)
# Rows are states, columns actions; rlax's example is in rows 0 (now) and 1 (next).
ONLINE = torch.tensor([[1.0, 2.0, 0.0], [11.0, 20.0, 1.0], [0.5, -1.0, 3.0]])
TARGET = torch.tensor([[-7.0, -8.0, -9.0], [91.0, 2.0, 66.0], [5.0, 4.0, 6.0]])


def make(name: str, loss: str = "huber") -> Agent:
    return rule(name, loss=loss)


# Two seeds of three transitions: one step, terminal, cut off by a time limit; 3 steps, terminal, ...
BATCH = batch(
    obs=[[0, 0, 2], [2, 2, 1]],
    action=[[1, 0, 2], [0, 1, 1]],
    reward=[[1.0, 5.0, 2.0], [0.25, -1.0, 3.0]],
    discount=[[1.0, 0.0, 0.5], [0.125, 0.0, 0.5]],
    next_obs=[[1, 1, 1], [2, 0, 2]],
)
Q = [[2.0, 1.0, 3.0], [0.5, -1.0, 20.0]]
# max_a of the target table: 91, (91), 91 | 6, (-7), 6; DQN bootstraps from these.
DQN_Y = [[1 + 91.0, 5.0, 2 + 45.5], [0.25 + 0.75, -1.0, 3 + 3.0]]
# argmax_a of the online table: 1, (1), 1 | 2, (1), 2, where the target table says 2, 2, 2 | 6, -8, 6.
DOUBLE_Y = [[1 + 2.0, 5.0, 2 + 1.0], [0.25 + 0.75, -1.0, 3 + 3.0]]


@pytest.mark.parametrize(("name", "y"), [("dqn", DQN_Y), ("ddqn", DOUBLE_Y)])
def test_targets_and_td_errors_by_hand(name: str, y: list[list[float]]) -> None:
    loss = make(name).loss(networks(ONLINE, TARGET), BATCH)
    assert_close(q_of(loss), torch.tensor(Q))
    assert_close(target_of(loss), torch.tensor(y))
    assert_close(loss.priority, (torch.tensor(y) - torch.tensor(Q)).abs())


def test_the_example_of_rlax() -> None:
    one = batch(obs=[[0]], action=[[1]], reward=[[1.0]], discount=[[1.0]], next_obs=[[1]])
    losses = [make(name).loss(networks(ONLINE, TARGET), one) for name in AGENTS]
    priorities = [loss.priority.item() for loss in losses]
    assert priorities == [90.0, 1.0]


@each_agent
def test_a_terminated_episode_does_not_bootstrap_and_a_truncated_one_does(name: str) -> None:
    ends = batch([[0, 0]], [[1, 1]], [[1.0, 1.0]], [[0.0, 0.9]], [[2, 2]])
    y = target_of(make(name).loss(networks(ONLINE, TARGET), ends))
    assert_close(y, torch.tensor([[1.0, 1.0 + 0.9 * 6.0]]))


@each_agent
def test_a_state_after_the_end_may_have_any_finite_value(name: str) -> None:
    extreme = TARGET.clone()
    extreme[1] = 1e30
    ends = batch([[0]], [[1]], [[1.0]], [[0.0]], [[1]])
    y = target_of(make(name).loss(networks(ONLINE, extreme), ends))
    assert y.item() == 1.0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # |TD| of double DQN is 1, 4, 0 | 0.5, 0, 14.
        ("huber", [[0.5, 3.5, 0.0], [0.125, 0.0, 13.5]]),
        ("mse", [[1.0, 16.0, 0.0], [0.25, 0.0, 196.0]]),
    ],
)
def test_the_loss_is_per_sample_and_not_weighted(name: str, expected: list[list[float]]) -> None:
    loss = make("ddqn", name).loss(networks(ONLINE, TARGET), BATCH)
    assert_close(loss.loss, torch.tensor(expected))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # Per sample q - y, cut to [-1, 1] by Huber and doubled by the square: -1, -4, 0 | -.5, 0, 14.
        ("huber", [[-1.0, -1.0, 0.0], [0.0, 1.0, 0.0], [-0.5, 0.0, 0.0]]),
        ("mse", [[-8.0, -2.0, 0.0], [0.0, 28.0, 0.0], [-1.0, 0.0, 0.0]]),
    ],
)
def test_the_gradient_reaches_the_chosen_actions_alone(name: str, expected: list) -> None:
    online, target = ONLINE.clone().requires_grad_(), TARGET.clone().requires_grad_()
    loss = make("ddqn", name).loss(networks(online, target), BATCH)
    loss.loss.sum().backward()
    assert online.grad is not None
    assert_close(online.grad, torch.tensor(expected))
    assert target.grad is None


@each_agent
def test_no_gradient_passes_through_the_bootstrap_even_with_one_network(name: str) -> None:
    table = ONLINE.clone().requires_grad_()
    one = batch(obs=[[0]], action=[[1]], reward=[[1.0]], discount=[[1.0]], next_obs=[[1]])
    loss = make(name).loss(networks(table, table), one)
    (grad,) = torch.autograd.grad(loss.loss.sum(), table)
    assert grad.tolist() == [[0.0, -1.0, 0.0], [0.0] * 3, [0.0] * 3]
    assert not loss.priority.requires_grad
    assert not target_of(loss).requires_grad


@pytest.mark.parametrize("kind", ["huber", "mse"])
@each_agent
def test_gradients_equal_finite_differences(name: str, kind: str) -> None:
    agent = make(name, kind)
    table = ONLINE.double().requires_grad_()
    double = batch([[0, 0]], [[0, 1]], [[0.3, 0.7]], [[0.01, 0.02]], [[1, 2]])
    double.reward, double.discount = double.reward.double(), double.discount.double()

    def loss(online: Tensor) -> Tensor:
        return agent.loss(networks(online, TARGET.double()), double).loss

    assert torch.autograd.gradcheck(loss, table)


def test_double_dqn_overestimates_noisy_values_less() -> None:
    """All true values are 0; the two networks err independently (van Hasselt et al. 2016, thm 1)."""
    online, target = rng.normal(torch.tensor([1, 2]), "test", 0, (4000, 10))
    rows = torch.arange(4000).unsqueeze(0)
    zeros = torch.zeros(1, 4000)
    noisy = Batch(rows, torch.zeros_like(rows), zeros, zeros + 1.0, rows, zeros, rows)
    losses = [make(name).loss(networks(online, target), noisy) for name in AGENTS]
    means = [target_of(loss).mean().item() for loss in losses]
    assert means[0] == pytest.approx(1.539, abs=0.05)  # the mean largest of ten standard normals
    assert means[1] == pytest.approx(0.0, abs=0.05)


@each_agent
def test_the_networks_outputs_are_the_q_values(name: str) -> None:
    q = make(name).q_values(lookup(ONLINE), torch.tensor([[0, 2]]))
    assert torch.equal(q, ONLINE[[0, 2]].unsqueeze(0))


@each_agent
def test_an_agent_tells_the_loop_its_discount_and_the_length_of_returns(name: str) -> None:
    agent = rule(name, gamma=0.97, n_step=3)
    assert (agent.gamma, agent.n_step) == (0.97, 3)


def test_double_dqn_asks_the_selector_for_the_action_and_the_online_network_for_none_of_it() -> None:
    """They have the same parameters, but not the same noise."""
    selector = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 7.0], [7.0, 0.0, 0.0]])
    y = target_of(make("ddqn").loss(networks(ONLINE, TARGET, selector), BATCH))
    # TARGET[1, 2] = 66 and TARGET[2, 0] = 5.
    assert_close(y, torch.tensor([[1 + 66.0, 5.0, 2 + 33.0], [0.25 + 0.625, -1.0, 3 + 2.5]]))


def mostly_greedy(q: Tensor) -> Tensor:
    """0.8 for the greedy of three actions, 0.1 for each of the others: probabilities [S, B, 3]."""
    return 0.1 + 0.7 * torch.nn.functional.one_hot(q.argmax(-1), 3)


def test_expected_sarsa_by_hand() -> None:
    # The online table is greedy on 1 in state 1, on 2 in state 2, and the target table gives
    # 0.1 * 91 + 0.8 * 2 + 0.1 * 66 = 17.3 and 0.1 * 5 + 0.1 * 4 + 0.8 * 6 = 5.7.
    y = torch.tensor([[1 + 17.3, 5.0, 2 + 8.65], [0.25 + 0.125 * 5.7, -1.0, 3 + 2.85]])
    loss = make("expected_sarsa").loss(networks(ONLINE, TARGET, behaviour=mostly_greedy), BATCH)
    assert_close(target_of(loss), y)
    assert_close(loss.priority, (y - torch.tensor(Q)).abs())
    # A selector that is greedy on 0 everywhere: 0.8 * 91 + 0.1 * 2 + 0.1 * 66 = 79.6, and 5.
    first = torch.tensor([[1.0, 0.0, 0.0]]).expand(3, 3)
    nets = networks(ONLINE, TARGET, first, behaviour=mostly_greedy)
    y = torch.tensor([[1 + 79.6, 5.0, 2 + 39.8], [0.25 + 0.625, -1.0, 3 + 2.5]])
    assert_close(target_of(make("expected_sarsa").loss(nets, BATCH)), y)


def test_sarsa_by_hand() -> None:
    # Cumulated, the probabilities are 0.1, 0.9, 1 in state 1, and 0.1, 0.2, 1 in state 2.
    draws = torch.tensor([[0.05, 0.5, 0.95], [0.15, 0.5, 0.25]])  # actions 0, (1), 2 | 1, (1), 2
    y = torch.tensor([[1 + 91.0, 5.0, 2 + 33.0], [0.25 + 0.5, -1.0, 3 + 3.0]])
    nets = networks(ONLINE, TARGET, draws=draws, behaviour=mostly_greedy)
    loss = make("sarsa").loss(nets, BATCH)
    assert_close(target_of(loss), y)
    assert_close(loss.priority, (y - torch.tensor(Q)).abs())
    assert make("sarsa").n_draws(batch_size=3) == 3


def test_the_mean_of_sarsa_over_its_draws_is_expected_sarsa() -> None:
    B = 100_000
    many = batch([[0] * B], [[0] * B], [[0.0] * B], [[1.0] * B], [[1] * B])
    draws = rng.uniform(torch.tensor([1]), "test", 0, (B,))
    nets = networks(ONLINE, TARGET, draws=draws, behaviour=mostly_greedy)
    y = target_of(make("sarsa").loss(nets, many))
    assert y.mean().item() == pytest.approx(17.3, abs=5 * 32.0 / math.sqrt(B))  # deviation 31.8


def test_munchausen_dqn_by_hand() -> None:
    # With temperature 2, a row 2 log p + V is of policy p and of soft value V. The online table and
    # the selector's differ, and must not matter.
    policy = torch.tensor([[0.25, 0.75], [0.5, 0.5], [0.9, 0.1]])
    target = 2.0 * policy.log() + torch.tensor([[7.0], [10.0], [-4.0]])
    online = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    keys = {"alpha": 0.5, "temperature": 2.0, "clip": -1.0}
    agent = rule("munchausen", loss="mse", **keys)
    three = batch([[0, 0, 2]], [[0, 1, 0]], [[1.0, 2.0, 3.0]], [[0.5, 0.25, 0.0]], [[1, 2, 1]])
    # The bonus of probability 1/4 would be -2.77, and is clipped; the terminal one has its bonus, too.
    bonus = [-1.0, 2 * math.log(0.75), 2 * math.log(0.9)]
    y = torch.tensor([[1 + 5.0 + 0.5 * bonus[0], 2 - 1.0 + 0.5 * bonus[1], 3 + 0.5 * bonus[2]]])
    loss = agent.loss(networks(online, target, selector=-online), three)
    q = torch.tensor([[1.0, 2.0, 5.0]])
    assert_close(q_of(loss), q)
    assert_close(target_of(loss), y)
    assert_close(loss.priority, (y - q).abs())
    assert_close(loss.loss, (y - q).square())
    assert torch.equal(agent.q_values(lookup(online), torch.tensor([[2]])), online[2].view(1, 1, 2))
