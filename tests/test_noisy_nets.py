"""Noisy networks equal torch networks whose weights are drawn as Fortunato et al. 2018 draw them."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from helpers import context, part
from tables import rule
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from dqn_exp import rng
from dqn_exp.interfaces import Agent, QNetwork

D, A, SIGMA = 4, 3, 0.4
SEEDS = torch.tensor([3, 8, 5])
VALUES = rule("dqn", loss="huber")
NODES: list[dict[str, Any]] = [
    {"name": "mlp", "hidden": [6, 5]},
    {"name": "mlp", "hidden": [7]},
    {"name": "dueling", "hidden": [6], "stream_hidden": [5]},
    {"name": "dueling", "hidden": [], "stream_hidden": [5, 4]},
    {"name": "dueling", "hidden": [6, 5], "stream_hidden": []},
]
every_net = pytest.mark.parametrize("node", NODES, ids=lambda node: "-".join(map(str, node.values())))


def make(
    node: dict[str, Any], sigma: float | None = SIGMA, agent: Agent = VALUES
) -> tuple[QNetwork, Tensor, Tensor, Tensor]:
    """A net, its parameters [S, P], observations [S, 9, D] and noise [S, M], all float64."""
    keys = {**node, "activation": "tanh", "sigma": sigma}
    net = part("net", node["name"], context(SEEDS, n_actions=A), agent, **keys)
    obs = rng.normal(SEEDS, "obs", 0, (9, D)).double()
    noise = rng.normal(SEEDS, "noise", 0, (net.n_noise,)).double()
    return net, net.init(SEEDS).double(), obs, noise


def widths(node: dict[str, Any]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """(in, out) of the plain layers, then of the noisy ones, in order of the papers' equations."""

    def pairs(*sizes: int) -> list[tuple[int, int]]:
        return list(itertools.pairwise(sizes))

    if node["name"] == "mlp":
        layers = pairs(D, *node["hidden"], A)
        return layers[:1], layers[1:]
    trunk = [D, *node["hidden"]]
    streams = [pairs(trunk[-1], *node["stream_hidden"], n_out) for n_out in (1, A)]
    return pairs(*trunk), streams[0] + streams[1]


def naive_q(node: dict[str, Any], weights: list[Tensor], s: int, obs: Tensor, noise: Tensor) -> Tensor:
    """Q-values [B, A] of one seed: eq. 9 with the factorised noise of eq. 10 and 11, sec. 3.2."""

    def f(e: Tensor) -> Tensor:
        return e.sign() * e.abs().sqrt()

    def sequence(count: int, noisy: bool, x: Tensor, activate_last: bool) -> Tensor:
        for i in range(count):
            weight, bias = next(tensors).T, next(tensors)[0]
            if noisy:
                sigma_weight, sigma_bias = next(tensors).T, next(tensors)[0]
                n_out, n_in = weight.shape
                e_in, e_out = f(take(n_in)), f(take(n_out))
                weight = weight + sigma_weight * torch.outer(e_out, e_in)
                bias = bias + sigma_bias * e_out
            x = F.linear(x, weight, bias)
            if i < count - 1 or activate_last:
                x = torch.tanh(x)
        return x

    def take(n: int) -> Tensor:
        return torch.stack([next(numbers) for _ in range(n)])

    tensors: Iterator[Tensor] = iter([weight[s] for weight in weights])
    numbers: Iterator[Tensor] = iter(noise[s].unbind())
    hidden = len(node["hidden"])
    if node["name"] == "mlp":
        x = sequence(1, False, obs[s], activate_last=True)
        q = sequence(hidden, True, x, activate_last=False)
    else:
        x = sequence(hidden, False, obs[s], activate_last=True)
        depth = len(node["stream_hidden"]) + 1
        value, advantage = (sequence(depth, True, x, activate_last=False) for _ in range(2))
        q = value + advantage - advantage.mean(-1, keepdim=True)
    assert next(tensors, None) is None
    assert next(numbers, None) is None
    return q


@every_net
def test_a_noisy_net_equals_a_naive_one_with_the_same_noise(node: dict[str, Any]) -> None:
    net, params, obs, noise = make(node)
    weights = net.views(params)
    expected = torch.stack([naive_q(node, weights, s, obs, noise) for s in range(len(SEEDS))])
    assert_close(net(weights, obs, noise), expected)


@every_net
def test_without_noise_or_with_noise_of_zero_the_weights_are_their_means(node: dict[str, Any]) -> None:
    net, params, obs, noise = make(node)
    weights = net.views(params)
    quiet = net(weights, obs)
    assert_close(quiet, net(weights, obs, torch.zeros_like(noise)))
    assert (net(weights, obs, noise) != quiet).all()
    plain, _, _, _ = make(node, sigma=None)
    first = 2 * len(widths(node)[0])  # after those of plain layers: weight, bias, and their sigmas
    means = weights[:first] + [w for i, w in enumerate(weights[first:]) if i % 4 < 2]
    assert torch.equal(plain(means, obs), quiet)


@every_net
def test_sigmas_start_at_sigma_over_the_root_of_the_inputs(node: dict[str, Any]) -> None:
    net, params, _, _ = make(node)
    plain, noisy = widths(node)
    weights = iter(net.views(params))
    for n_in, n_out in plain:
        assert [next(weights).shape[1:] for _ in range(2)] == [(n_in, n_out), (1, n_out)]
    for n_in, n_out in noisy:
        means, sigmas = ([next(weights), next(weights)] for _ in range(2))
        for mean, sigma, shape in zip(means, sigmas, [(n_in, n_out), (1, n_out)], strict=True):
            assert mean.shape[1:] == sigma.shape[1:] == shape
            assert_close(sigma, torch.full_like(sigma, SIGMA / n_in**0.5), rtol=1e-6, atol=0.0)
            assert mean.abs().max() <= n_in**-0.5
            assert mean.unique().numel() == mean.numel()
    assert next(weights, None) is None
    assert net.n_noise == sum(n_in + n_out for n_in, n_out in noisy)


@every_net
def test_the_reported_sigma_is_the_mean_size_over_all_noisy_weights(node: dict[str, Any]) -> None:
    net, params, _, _ = make(node)
    plain, noisy = widths(node)
    # The sigmas of seed s and noisy layer i are s + i, of either sign.
    sums, count = torch.zeros(len(SEEDS), dtype=torch.float64), 0
    for i in range(len(noisy)):
        start = 2 * len(plain) + 4 * i + 2
        for view in net.views(params)[start : start + 2]:
            size = torch.arange(len(SEEDS)) + i
            view.copy_((size * (-1) ** i).view(-1, 1, 1).expand_as(view))
            sums, count = sums + size * view[0].numel(), count + view[0].numel()
    metrics = net.metrics(net.views(params))
    assert metrics.keys() == {"train/noise_sigma"}
    assert_close(metrics["train/noise_sigma"], sums / count)


@every_net
def test_gradients_reach_means_and_sigmas_of_every_layer(node: dict[str, Any]) -> None:
    net, params, obs, noise = make(node)
    leaves = [view.requires_grad_() for view in net.views(params)]
    grads = torch.autograd.grad(net(leaves, obs, noise).square().sum(), leaves)
    assert all((grad != 0.0).all() for grad in grads)

    def q(p: Tensor) -> Tensor:
        return net(net.views(p), obs[:, :2], noise)

    assert torch.autograd.gradcheck(q, params.detach().requires_grad_())


@every_net
def test_the_noise_of_one_seed_does_not_touch_another(node: dict[str, Any]) -> None:
    net, params, obs, noise = make(node)
    # All seeds are the same but for the noise.
    same, rows = params[:1].expand_as(params), obs[:1].expand_as(obs)
    q = net(net.views(same), rows, noise)
    for s, other in ((0, 1), (1, 2), (2, 0)):
        assert ((q[s] - q[other]).abs() > 1e-4).all()
    changed = noise.clone()
    changed[1] = rng.normal(SEEDS[1:2], "noise", 1, (net.n_noise,))[0]
    moved = (net(net.views(same), rows, changed) != q).all(-1).all(-1)
    assert moved.tolist() == [False, True, False]


@every_net
@pytest.mark.parametrize("kind", ["atoms", "fractions"])
def test_distributions_have_noisy_outputs_too(node: dict[str, Any], kind: str) -> None:
    K = 4
    agents = {
        "atoms": rule("qr_dqn", double=False, quantiles=K),
        "fractions": rule("iqn", double=False, samples=K, target_samples=K, act_samples=K),
    }
    agent = agents[kind]
    net, params, obs, noise = make(node, agent=agent)
    fractions = rng.uniform(SEEDS, "fractions", 0, (9, K)) if agent.implicit else None
    quiet = net(net.views(params), obs, fractions=fractions)
    noisy = net(net.views(params), obs, noise, fractions)
    assert quiet.shape == noisy.shape == (len(SEEDS), 9, A, K)
    assert (quiet != noisy).all()
