"""The networks equal plain torch modules with the same weights, seed by seed."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from helpers import context, part
from tables import rule
from torch import Tensor, nn
from torch.testing import assert_close

from dqn_exp import rng
from dqn_exp.interfaces import Agent, QNetwork

D, A = 4, 3
SEEDS = torch.tensor([3, 8, 5])
MODULES = {"relu": nn.ReLU, "tanh": nn.Tanh, "silu": nn.SiLU}
MLP = {"name": "mlp", "sigma": None}
DUELING = {"name": "dueling", "sigma": None}
NODES: list[dict[str, Any]] = [
    {**MLP, "hidden": hidden, "activation": activation}
    for hidden in ([], [8], [7, 5], [6, 6, 6])
    for activation in MODULES
] + [
    {**DUELING, "hidden": hidden, "stream_hidden": stream, "activation": activation}
    for hidden, stream in (([], []), ([8], []), ([], [5]), ([7, 5], [6]), ([6], [5, 4]))
    for activation in MODULES
]
every_net = pytest.mark.parametrize("node", NODES, ids=lambda node: "-".join(map(str, node.values())))
MLP_NODE = {**MLP, "hidden": [5], "activation": "tanh"}
DUELING_NODE = {**DUELING, "hidden": [5], "stream_hidden": [4], "activation": "tanh"}
VALUES = rule("dqn", loss="huber")
K = 6
ATOMS = rule("qr_dqn", double=False, quantiles=K)
IMPLICIT = rule("iqn", double=False, samples=K, target_samples=K, act_samples=K)
each_kind = pytest.mark.parametrize("node", [MLP_NODE, DUELING_NODE], ids=lambda node: node["name"])


def build(node: dict[str, Any], agent: Agent, **beside: Any) -> QNetwork:
    return part("net", node["name"], context(n_actions=A, **beside), agent, **node)


def make(
    node: dict[str, Any], dtype: torch.dtype = torch.float32, agent: Agent = VALUES
) -> tuple[QNetwork, Tensor, Tensor]:
    """A net, its parameters [S, P], and observations [S, 9, D]."""
    net = build(node, agent)
    return net, net.init(SEEDS).to(dtype), rng.normal(SEEDS, "test", 0, (9, D)).to(dtype)


def torch_q(
    weights: list[Tensor], seed: int, node: dict[str, Any], obs: Tensor
) -> tuple[Tensor, Tensor]:
    """Q-values [B, A] of one seed from torch.nn modules, and the state values [B, 1] in them."""

    def layers(count: int, activate_last: bool = False) -> nn.Sequential:
        modules: list[nn.Module] = []
        for _ in range(count):
            weight, bias = next(pairs)
            linear = nn.Linear(weight.shape[1], weight.shape[2])
            linear.weight.data, linear.bias.data = weight[seed].T, bias[seed, 0]
            modules += [linear, MODULES[node["activation"]]()]
        return nn.Sequential(*(modules if activate_last else modules[:-1]))

    pairs: Iterator[tuple[Tensor, Tensor]] = iter(zip(weights[::2], weights[1::2], strict=True))
    if node["name"] == "mlp":
        q = layers(len(node["hidden"]) + 1)(obs)
        assert not list(pairs)
        return q, q.mean(-1, keepdim=True)
    features = layers(len(node["hidden"]), activate_last=True)(obs)
    value = layers(len(node["stream_hidden"]) + 1)(features)
    advantage = layers(len(node["stream_hidden"]) + 1)(features)
    assert not list(pairs)
    return value + (advantage - advantage.mean(-1, keepdim=True)), value


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@every_net
def test_a_net_equals_separate_torch_networks(node: dict[str, Any], dtype: torch.dtype) -> None:
    net, params, obs = make(node, dtype)
    weights = net.views(params)
    q = net(weights, obs)
    expected = torch.stack([torch_q(weights, s, node, obs[s])[0] for s in range(len(SEEDS))])
    assert params.shape == (len(SEEDS), net.n_params)
    assert q.dtype == dtype
    assert_close(q, expected)


@each_kind
def test_observations_of_any_type_are_cast_to_that_of_the_weights(node: dict[str, Any]) -> None:
    net, params, _ = make(node, torch.float64)
    obs = torch.arange(3 * 2 * D).reshape(3, 2, D)
    q = net(net.views(params), obs.to(torch.uint8))
    assert q.dtype == torch.float64
    assert torch.equal(q, net(net.views(params), obs.double()))


@each_kind
def test_gradients_are_right(node: dict[str, Any]) -> None:
    net, params, obs = make(node, torch.float64)
    inputs = (params.requires_grad_(), obs[:, :2].requires_grad_())
    assert torch.autograd.gradcheck(lambda p, x: net(net.views(p), x), inputs)


@every_net
def test_the_gradient_of_one_seed_does_not_touch_another(node: dict[str, Any]) -> None:
    net, params, obs = make(node)
    q = net(net.views(params.requires_grad_()), obs)
    (grad,) = torch.autograd.grad(q[1].square().sum(), params)
    assert grad[[0, 2]].count_nonzero() == 0
    assert grad[1].count_nonzero() > 0


@each_kind
def test_the_initial_weights_of_a_seed_depend_on_its_value_alone(node: dict[str, Any]) -> None:
    net, params, _ = make(node)
    alone = build(node, VALUES, seeds=SEEDS[1:2]).init(SEEDS[1:2])
    assert torch.equal(params[1:2], alone)
    assert torch.equal(net.init(SEEDS.flip(0)).flip(0), params)
    assert all((params[0] != params[other]).all() for other in (1, 2))


@pytest.mark.parametrize("constant", [1.0, -250.0])
def test_a_constant_added_to_all_advantages_changes_nothing(constant: float) -> None:
    net, params, obs = make(DUELING_NODE, torch.float64)
    before = net(net.views(params), obs)
    net.views(params)[-1].add_(constant)  # the advantage stream's last bias
    assert_close(net(net.views(params), obs), before, atol=1e-10, rtol=0.0)
    net.views(params)[-1][:, :, 0].add_(3.0)  # one advantage alone: mean-subtracted by hand
    change = torch.tensor([2.0, -1.0, -1.0], dtype=torch.float64).expand_as(before)
    assert_close(net(net.views(params), obs) - before, change, atol=1e-10, rtol=0.0)


def test_the_mean_of_dueling_q_values_is_the_state_value() -> None:
    net, params, obs = make(DUELING_NODE, torch.float64)
    weights = net.views(params)
    values = [torch_q(weights, s, DUELING_NODE, obs[s])[1] for s in range(len(SEEDS))]
    assert_close(net(weights, obs).mean(-1, keepdim=True), torch.stack(values))


@each_kind
def test_observations_that_are_no_vectors_are_refused(node: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"shape \(3, 84, 84\): this net takes vectors"):
        build(node, VALUES, obs_shape=(3, 84, 84))


@each_kind
def test_outputs_of_atoms_are_those_of_a_net_of_as_many_actions(node: dict[str, Any]) -> None:
    net, params, obs = make(node, torch.float64, ATOMS)
    weights = net.views(params)
    outputs = net(weights, obs)
    assert outputs.shape == (len(SEEDS), 9, A, K)
    for s in range(len(SEEDS)):
        if node["name"] == "mlp":
            expected = torch_q(weights, s, node, obs[s])[0].view(9, A, K)
        else:  # of each atom, V + A - mean_a A; the value stream comes first
            features = torch.tanh(obs[s] @ weights[0][s] + weights[1][s])
            value, advantage = (
                torch.tanh(features @ w1[s] + b1[s]) @ w2[s] + b2[s]
                for w1, b1, w2, b2 in (weights[2:6], weights[6:10])
            )
            advantage = advantage.view(9, A, K)
            expected = value.unsqueeze(1) + advantage - advantage.mean(1, keepdim=True)
        assert_close(outputs[s], expected)


def test_the_mean_over_actions_of_each_dueling_atom_is_its_value() -> None:
    net, params, obs = make(DUELING_NODE, torch.float64, ATOMS)
    net.views(params)[-1].add_(250.0)  # to all advantages
    before = net(net.views(params), obs)
    shift = torch.arange(K, dtype=torch.float64)
    net.views(params)[5].add_(shift)  # the value stream's last bias: each atom's own
    assert_close(net(net.views(params), obs).mean(2), before.mean(2) + shift)
    net.views(params)[-1].add_(rng.normal(SEEDS, "test", 1, (1, A * K)))
    assert_close(net(net.views(params), obs).mean(2), before.mean(2) + shift)


@each_kind
def test_quantiles_at_fractions_equal_equation_4_of_the_paper(node: dict[str, Any]) -> None:
    """Q(s, a; tau) = f(psi(s) * phi(tau)) with phi_j = relu(sum_i cos(pi i tau) w_ij + b_j)."""
    net, params, obs = make(node, torch.float64, IMPLICIT)
    weights = net.views(params)
    fractions = rng.uniform(SEEDS, "fractions", 0, (9, K)).double()
    outputs = net(weights, obs, fractions=fractions)
    assert outputs.shape == (len(SEEDS), 9, A, K)
    embed, bias = weights[-2:]
    assert embed.shape == (len(SEEDS), 64, 5)
    head = weights[2:-2]  # what follows the embedding
    for s, b, k in [(0, 0, 0), (1, 3, 2), (2, 8, 5), (2, 8, 4)]:
        phi = [
            max(0.0, sum(math.cos(math.pi * i * fractions[s, b, k]) * embed[s, i, j] for i in range(64))
            + bias[s, 0, j])
            for j in range(5)
        ]  # fmt: skip
        psi = torch.tanh(obs[s, b] @ weights[0][s] + weights[1][s, 0])
        x = psi * torch.tensor(phi, dtype=torch.float64)
        if node["name"] == "mlp":
            expected = x @ head[0][s] + head[1][s, 0]
        else:
            value, advantage = (
                torch.tanh(x @ w1[s] + b1[s, 0]) @ w2[s] + b2[s, 0]
                for w1, b1, w2, b2 in (head[:4], head[4:])
            )
            expected = value + advantage - advantage.mean()
        assert_close(outputs[s, b, :, k], expected)


@each_kind
def test_fractions_may_be_the_same_for_all_observations(node: dict[str, Any]) -> None:
    net, params, obs = make(node, torch.float64, IMPLICIT)
    shared = rng.uniform(SEEDS, "fractions", 0, (1, K)).double()
    each = net(net.views(params), obs, fractions=shared.expand(-1, 9, -1))
    assert each.shape == (len(SEEDS), 9, A, K)
    assert_close(net(net.views(params), obs, fractions=shared), each)


@each_kind
@pytest.mark.parametrize("agent", [ATOMS, IMPLICIT], ids=["atoms", "fractions"])
def test_gradients_of_distributions_are_right(node: dict[str, Any], agent: Agent) -> None:
    net, params, obs = make(node, torch.float64, agent)
    fractions = rng.uniform(SEEDS, "fractions", 0, (2, 3)).double() if agent.implicit else None

    def outputs(p: Tensor) -> Tensor:
        return net(net.views(p), obs[:, :2], fractions=fractions)

    assert torch.autograd.gradcheck(outputs, params.requires_grad_())


@each_kind
def test_features_are_the_last_hidden_layer_that_all_outputs_share(node: dict[str, Any]) -> None:
    net, params, obs = make(node, torch.float64)
    weights = net.views(params)
    expected = torch.tanh(torch.baddbmm(weights[1], obs, weights[0]))
    assert_close(net.features(weights, obs), expected)


@each_kind
def test_a_net_without_noise_takes_none_and_reports_none(node: dict[str, Any]) -> None:
    net, params, _ = make(node)
    assert net.n_noise == 0
    assert net.metrics(net.views(params)) == {}
