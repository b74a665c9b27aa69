"""What holds for every learning rule, however it learns."""

from typing import Any

import pytest
import torch
from tables import batch, networks, q_of, rule, target_of
from torch import Tensor

from dqn_exp import rng
from dqn_exp.config import schema
from dqn_exp.interfaces import Agent, Batch, Loss, Networks

STATES, A, B = 4, 3, 5
VALUE = {"loss": "huber"}
C51 = {"name": "c51", "atoms": 5, "v_min": -3.0, "v_max": 3.0}
IQN = {"name": "iqn", "samples": 4, "target_samples": 6, "act_samples": 3}
NODES: list[dict[str, Any]] = [
    {"name": "dqn", **VALUE},
    {"name": "dqn", "loss": "mse"},
    {"name": "ddqn", **VALUE},
    {"name": "expected_sarsa", **VALUE},
    {"name": "sarsa", **VALUE},
    {"name": "munchausen", **VALUE, "alpha": 0.9, "temperature": 0.5, "clip": -1.0},
    *({**C51, "double": double} for double in (False, True)),
    *({"name": "qr_dqn", "quantiles": 4, "double": double} for double in (False, True)),
    *({**IQN, "double": double} for double in (False, True)),
]
every_rule = pytest.mark.parametrize("node", NODES, ids=lambda node: "-".join(map(str, node.values())))


def make(node: dict[str, Any]) -> Agent:
    return rule(node["name"], **node)


def fields(loss: Loss) -> list[Tensor]:
    """The loss, the priority and all metrics."""
    return [loss.loss, loss.priority, *loss.metrics.values()]


def tables(agent: Agent, n: int = 3) -> list[Tensor]:
    """Random tables [STATES, A] or [STATES, A, K] for online, target and selector."""
    shape = (n, STATES, A, agent.n_atoms) if agent.n_atoms else (n, STATES, A)
    return list(rng.normal(torch.tensor([3]), "tables", 0, shape)[0].double())


def nets(agent: Agent, online: Tensor, target: Tensor, selector: Tensor) -> Networks:
    draws = rng.uniform(torch.tensor([7]), "draws", 0, (agent.n_draws(B),))
    return networks(online, target, selector, draws, lambda q: q.softmax(-1))


def minibatch(discount: float) -> Batch:
    """Five transitions from states 0 and 1 to states 2 and 3."""
    b = batch(
        obs=[[0, 1, 0, 1, 0]],
        action=[[0, 1, 2, 2, 1]],
        reward=[[0.3, -0.7, 0.2, 0.1, 1.1]],
        discount=[[discount] * B],
        next_obs=[[2, 3, 3, 2, 2]],
    )
    b.reward, b.discount = b.reward.double(), b.discount.double()
    return b


def test_every_rule_is_tested_here() -> None:
    assert {node["name"] for node in NODES} == set(schema.PARTS["agent"])


@every_rule
def test_a_terminated_episode_does_not_bootstrap_and_a_truncated_one_does(node: dict) -> None:
    agent = make(node)
    online, target, selector = tables(agent)
    others = [table.clone() for table in (target, selector)]
    for table in others:
        table[2:] = table[2:].flip(0) * 3.0 + 1.0  # other values of the states bootstrapped from
    for discount, bootstraps in ((0.0, False), (0.9, True)):
        b = minibatch(discount)
        one = agent.loss(nets(agent, online, target, selector), b)
        two = agent.loss(nets(agent, online, *others), b)
        assert torch.equal(q_of(one), q_of(two))
        for x, y in ((target_of(one), target_of(two)), (one.loss, two.loss)):
            moved = (x - y).abs()
            assert moved.min() > 1e-3 if bootstraps else moved.max() < 1e-12


@every_rule
def test_the_target_of_a_terminal_transition_is_its_reward(node: dict) -> None:
    agent = make(node | {"alpha": 0.0} if "alpha" in node else node)
    y = target_of(agent.loss(nets(agent, *tables(agent)), minibatch(discount=0.0)))
    assert torch.allclose(y, minibatch(0.0).reward, atol=1e-7, rtol=0.0)


@every_rule
def test_the_online_network_is_not_asked_about_the_states_bootstrapped_from(node: dict) -> None:
    """The selector has its parameters, but noise of its own, and no gradient to keep."""
    agent = make(node)
    online, target, selector = tables(agent)
    other = online.clone()
    other[2:] = other[2:].roll(1, dims=1)  # another action is best
    one, two = (agent.loss(nets(agent, x, target, selector), minibatch(0.9)) for x in (online, other))
    assert all(torch.equal(x, y) for x, y in zip(fields(one), fields(two), strict=True))


@every_rule
def test_no_gradient_reaches_the_target_or_the_selector(node: dict) -> None:
    agent = make(node)
    online, target, selector = (table.requires_grad_() for table in tables(agent))
    loss = agent.loss(nets(agent, online, target, selector), minibatch(0.9))
    loss.loss.sum().backward()
    assert target.grad is None
    assert selector.grad is None
    assert online.grad is not None
    assert not any(field.requires_grad for field in fields(loss)[1:])
    chosen = torch.zeros(STATES, A, dtype=torch.bool)
    chosen[[0, 1, 0, 1, 0], [0, 1, 2, 2, 1]] = True
    reached = online.grad.view(STATES, A, -1).abs().sum(-1) > 0
    assert torch.equal(reached, chosen)  # the actions taken, and no others


@every_rule
def test_gradients_equal_finite_differences(node: dict) -> None:
    agent = make(node)
    table, target, selector = tables(agent)

    def loss(online: Tensor) -> Tensor:
        return agent.loss(nets(agent, online, target, selector), minibatch(0.9)).loss

    assert torch.autograd.gradcheck(loss, table.requires_grad_())


@every_rule
def test_a_loss_has_one_finite_number_for_each_transition(node: dict) -> None:
    agent = make(node)
    loss = agent.loss(nets(agent, *tables(agent)), minibatch(0.9))
    for field in fields(loss):
        assert field.shape == (1, B)
        assert field.dtype == torch.float64
        assert field.isfinite().all()
    assert (loss.priority >= 0).all()


@every_rule
def test_importance_weights_are_left_to_the_learner(node: dict) -> None:
    agent = make(node)
    b = minibatch(0.9)
    one = agent.loss(nets(agent, *tables(agent)), b)
    b.weight = b.weight * 100.0
    two = agent.loss(nets(agent, *tables(agent)), b)
    assert all(torch.equal(x, y) for x, y in zip(fields(one), fields(two), strict=True))
