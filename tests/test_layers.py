"""Seed-batched layers equal S separate torch.nn networks, and start from the same distribution."""

import math

import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.testing import assert_close

from dqn_exp import rng
from dqn_exp.nets.layers import ACTIVATIONS, Layout, Linear, Stack, vector_features

MODULES = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "leaky_relu": nn.LeakyReLU,
}
SEEDS = torch.tensor([3, 8, 5])
WIDTHS = [64, 100, 100, 3]


def layout_of(widths: list[int]) -> Layout:
    layout = Layout()
    Stack(layout, widths, "relu")
    return layout


def torch_twin(weights: list[Tensor], seed: int, activation: str, activate_last: bool) -> nn.Sequential:
    """A torch.nn network with the weights of one seed."""
    modules: list[nn.Module] = []
    for weight, bias in zip(weights[::2], weights[1::2], strict=True):
        linear = nn.Linear(weight.shape[1], weight.shape[2])
        linear.weight.data, linear.bias.data = weight[seed].T, bias[seed, 0]
        modules += [linear, MODULES[activation]()]
    return nn.Sequential(*(modules if activate_last else modules[:-1]))


def test_every_activation_is_compared_with_torch() -> None:
    assert set(MODULES) == set(ACTIVATIONS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("activate_last", [False, True])
@pytest.mark.parametrize("widths", [[4, 2], [4, 16, 2], [3, 5, 7, 1], [2, 9, 9, 9, 6]])
@pytest.mark.parametrize("activation", sorted(MODULES))
def test_a_stack_equals_separate_torch_networks(
    activation: str, widths: list[int], activate_last: bool, dtype: torch.dtype
) -> None:
    layout = Layout()
    stack = Stack(layout, widths, activation, activate_last)
    weights = layout.views(layout.init(SEEDS).to(dtype))
    x = rng.normal(SEEDS, "test", 0, (11, widths[0])).to(dtype)
    expected = [torch_twin(weights, s, activation, activate_last)(x[s]) for s in range(len(SEEDS))]
    assert_close(stack(weights, x), torch.stack(expected))


def test_a_linear_layer_by_hand() -> None:
    layout = Layout()
    linear = Linear(layout, 2, 1)
    weights = layout.views(torch.tensor([[1.0, 2.0, 10.0], [3.0, -1.0, 0.5]]))
    x = torch.tensor([[[1.0, 1.0], [2.0, 0.0]], [[1.0, 1.0], [0.0, 4.0]]])
    assert linear(weights, x).tolist() == [[[13.0], [12.0]], [[2.5], [-3.5]]]


def test_views_share_the_memory_of_the_matrix_and_cover_all_of_it() -> None:
    layout = layout_of([3, 4, 2])
    params = torch.zeros(2, sum(layout.sizes))
    for number, view in enumerate(layout.views(params)):
        view += number + 1
    row = [1.0] * 12 + [2.0] * 4 + [3.0] * 8 + [4.0] * 2
    assert params.tolist() == [row, row]


@pytest.mark.parametrize("seed", [0, 1, 2**40])
def test_initial_weights_have_the_distribution_of_torch_linear(seed: int) -> None:
    layout = layout_of(WIDTHS)
    weights = layout.views(layout.init(torch.tensor([seed])))
    for n_in, n_out, weight, bias in zip(WIDTHS, WIDTHS[1:], weights[::2], weights[1::2], strict=False):
        bound = 1 / math.sqrt(n_in)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            theirs = nn.Linear(n_in, n_out)
        for ours, other in ((weight, theirs.weight), (bias, theirs.bias)):
            assert ours.abs().max() <= bound
            uniform = stats.uniform(-bound, 2 * bound)
            assert stats.kstest(ours.flatten().numpy(), uniform.cdf).pvalue > 1e-3
            same = stats.kstest(ours.flatten().numpy(), other.detach().flatten().numpy())
            assert same.pvalue > 1e-3
        error = bound / math.sqrt(3 * n_in * n_out)  # standard error of the mean
        assert abs(weight.mean().item()) < 4 * error
        assert weight.var().item() == pytest.approx(bound**2 / 3, rel=0.2)


def test_one_weight_over_many_seeds_is_uniform_too() -> None:
    init = layout_of([4, 3]).init(torch.arange(5000)).numpy()
    for column in init.T:
        assert stats.kstest(column, stats.uniform(-0.5, 1.0).cdf).pvalue > 1e-3


def test_the_initial_weights_of_a_seed_depend_on_its_value_alone() -> None:
    layout = layout_of(WIDTHS)
    alone = layout.init(torch.tensor([8]))
    assert torch.equal(layout.init(SEEDS)[1:2], alone)
    assert torch.equal(layout.init(SEEDS.flip(0))[1:2], alone)
    assert torch.equal(layout.init(torch.arange(9))[8:], alone)


def test_seeds_and_layers_start_from_unrelated_weights() -> None:
    layout = layout_of([50, 50, 50])  # both layers have the same bound
    weights = layout.views(layout.init(torch.arange(4)))
    matrices = torch.cat([weights[0].flatten(1), weights[2].flatten(1)])  # [4 seeds x 2 layers, 2500]
    correlation = torch.corrcoef(matrices) - torch.eye(8)
    assert correlation.abs().max() < 5 / math.sqrt(2500)


@pytest.mark.parametrize("shape", [(), (3, 84, 84), (4, 1)])
def test_observations_that_are_no_vectors_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"this net takes vectors \[D\]; flatten") as caught:
        vector_features(shape)
    assert str(shape) in str(caught.value)
