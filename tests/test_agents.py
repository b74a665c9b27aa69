"""DQN and double DQN by hand: lookup tables stand in for networks."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from dqn_exp import rng
from dqn_exp.agents.ddqn import DoubleDQN
from dqn_exp.agents.dqn import DQN
from dqn_exp.types import Batch, Forward

AGENTS = [DQN, DoubleDQN]
each_agent = pytest.mark.parametrize("rule", AGENTS)
# Rows are states, columns actions; rlax's example is in rows 0 (now) and 1 (next).
ONLINE = torch.tensor([[1.0, 2.0, 0.0], [11.0, 20.0, 1.0], [0.5, -1.0, 3.0]])
TARGET = torch.tensor([[-7.0, -8.0, -9.0], [91.0, 2.0, 66.0], [5.0, 4.0, 6.0]])


def make(rule: type[DQN], loss: str = "huber") -> DQN:
    return rule(gamma=0.9, n_step=1, loss=loss, target=TARGET_NODE)


def lookup(table: Tensor) -> Forward:
    """A network whose observations are the row numbers of its table."""
    return lambda obs: table[obs]


def batch(obs: list, action: list, reward: list, discount: list, next_obs: list) -> Batch:
    """A minibatch [S, B], with weights that no learning rule should look at."""
    rewards = torch.tensor(reward)
    index = torch.zeros_like(rewards, dtype=torch.int64)
    rows, actions, discounts = torch.tensor(obs), torch.tensor(action), torch.tensor(discount)
    weight = torch.full_like(rewards, 0.123)
    return Batch(rows, actions, rewards, discounts, torch.tensor(next_obs), weight, index)


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


@pytest.mark.parametrize(("rule", "y"), [(DQN, DQN_Y), (DoubleDQN, DOUBLE_Y)])
def test_targets_and_td_errors_by_hand(rule: type[DQN], y: list[list[float]]) -> None:
    loss = make(rule).loss(networks(ONLINE, TARGET), BATCH)
    assert_close(loss.q, torch.tensor(Q))
    assert_close(loss.target, torch.tensor(y))
    assert_close(loss.priority, (torch.tensor(y) - torch.tensor(Q)).abs())


def test_the_example_of_rlax() -> None:
    one = batch(obs=[[0]], action=[[1]], reward=[[1.0]], discount=[[1.0]], next_obs=[[1]])
    priorities = [make(rule).loss(networks(ONLINE, TARGET), one).priority.item() for rule in AGENTS]
    assert priorities == [90.0, 1.0]


@each_agent
def test_a_terminated_episode_does_not_bootstrap_and_a_truncated_one_does(rule: type[DQN]) -> None:
    ends = batch([[0, 0]], [[1, 1]], [[1.0, 1.0]], [[0.0, 0.9]], [[2, 2]])
    y = make(rule).loss(networks(ONLINE, TARGET), ends).target
    assert_close(y, torch.tensor([[1.0, 1.0 + 0.9 * 6.0]]))


@each_agent
def test_a_state_after_the_end_may_have_any_finite_value(rule: type[DQN]) -> None:
    extreme = TARGET.clone()
    extreme[1] = 1e30
    ends = batch([[0]], [[1]], [[1.0]], [[0.0]], [[1]])
    assert make(rule).loss(networks(ONLINE, extreme), ends).target.item() == 1.0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # |TD| of double DQN is 1, 4, 0 | 0.5, 0, 14.
        ("huber", [[0.5, 3.5, 0.0], [0.125, 0.0, 13.5]]),
        ("mse", [[1.0, 16.0, 0.0], [0.25, 0.0, 196.0]]),
    ],
)
def test_the_loss_is_per_sample_and_not_weighted(name: str, expected: list[list[float]]) -> None:
    loss = make(DoubleDQN, name).loss(networks(ONLINE, TARGET), BATCH)
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
    loss = make(DoubleDQN, name).loss(networks(online, target), BATCH)
    loss.loss.sum().backward()
    assert online.grad is not None
    assert_close(online.grad, torch.tensor(expected))
    assert target.grad is None


@each_agent
def test_no_gradient_passes_through_the_bootstrap_even_with_one_network(rule: type[DQN]) -> None:
    table = ONLINE.clone().requires_grad_()
    one = batch(obs=[[0]], action=[[1]], reward=[[1.0]], discount=[[1.0]], next_obs=[[1]])
    loss = make(rule).loss(networks(table, table), one)
    (grad,) = torch.autograd.grad(loss.loss.sum(), table)
    assert grad.tolist() == [[0.0, -1.0, 0.0], [0.0] * 3, [0.0] * 3]
    assert not loss.priority.requires_grad
    assert not loss.target.requires_grad


@pytest.mark.parametrize("name", ["huber", "mse"])
@each_agent
def test_gradients_equal_finite_differences(rule: type[DQN], name: str) -> None:
    agent = make(rule, name)
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
    means = [
        make(rule).loss(networks(online, target), noisy).target.mean().item() for rule in AGENTS
    ]
    assert means[0] == pytest.approx(1.539, abs=0.05)  # the mean largest of ten standard normals
    assert means[1] == pytest.approx(0.0, abs=0.05)


@each_agent
def test_the_networks_outputs_are_the_q_values(rule: type[DQN]) -> None:
    assert make(rule).q_values(ONLINE) is ONLINE


@each_agent
def test_an_agent_tells_the_loop_how_its_target_moves(rule: type[DQN]) -> None:
    agent = rule(gamma=0.97, n_step=3, loss="mse", target={"tau": 0.25, "every": 70})
    assert (agent.gamma, agent.n_step, agent.tau, agent.target_every) == (0.97, 3, 0.25, 70)
