"""The networks equal plain torch modules with the same weights, seed by seed."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from dqn_exp import rng
from dqn_exp.registry import build, discover
from dqn_exp.types import Context, QNetwork, Spec

discover("dqn_exp.nets")

D, A = 4, 3
SEEDS = torch.tensor([3, 8, 5])
MODULES = {"relu": nn.ReLU, "tanh": nn.Tanh, "silu": nn.SiLU}
NODES: list[dict[str, Any]] = [
    {"name": "mlp", "hidden": hidden, "activation": activation}
    for hidden in ([], [8], [7, 5], [6, 6, 6])
    for activation in MODULES
] + [
    {"name": "dueling", "hidden": hidden, "stream_hidden": stream, "activation": activation}
    for hidden, stream in (([], []), ([8], []), ([], [5]), ([7, 5], [6]), ([6], [5, 4]))
    for activation in MODULES
]
every_net = pytest.mark.parametrize("node", NODES, ids=lambda node: "-".join(map(str, node.values())))
MLP_NODE = {"name": "mlp", "hidden": [5], "activation": "tanh"}
DUELING_NODE = {"name": "dueling", "hidden": [5], "stream_hidden": [4], "activation": "tanh"}
each_kind = pytest.mark.parametrize("node", [MLP_NODE, DUELING_NODE], ids=lambda node: node["name"])


def context(seeds: Tensor = SEEDS, obs_shape: tuple[int, ...] = (D,)) -> Context:
    spec = Spec(obs_shape, torch.float32, A)
    return Context(seeds, 1, spec, torch.device("cpu"), torch.float32, 9, 100, 100)


def make(node: dict[str, Any], dtype: torch.dtype = torch.float32) -> tuple[QNetwork, Tensor, Tensor]:
    """A net, its parameters [S, P], and observations [S, 9, D]."""
    net = build("net", node, context())
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
    alone = build("net", node, context(SEEDS[1:2])).init(SEEDS[1:2])
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
        build("net", node, context(obs_shape=(3, 84, 84)))
