"""The sum tree against prefix sums of its leaves."""

import numpy as np
import pytest
import torch

from dqn_exp.buffers.sum_tree import FANOUT, MAX_SEARCHED, SumTree

CPU = torch.device("cpu")
# At both sides of where a level is added, or a level searched at once, and far beyond.
CAPACITIES = [10, FANOUT**2, FANOUT**2 + 1, MAX_SEARCHED, MAX_SEARCHED + 1, 1_000_000]


@pytest.fixture(params=["eager", pytest.param("compiled", marks=pytest.mark.slow)], autouse=True)
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """Run the tree as it is, or as the compiler sees it (operations are those that it would fuse)."""
    if request.param == "compiled":
        for name in ("update", "find"):
            method = getattr(SumTree, name)
            monkeypatch.setattr(SumTree, name, torch.compile(method, backend="eager", fullgraph=True))
        yield
        torch.compiler.reset()  # it takes no more than eight versions of a method
    else:
        yield


def build(leaves: list[list[float]]) -> SumTree:
    priority = torch.tensor(leaves, dtype=torch.float64)
    tree = SumTree(len(leaves), len(leaves[0]), CPU)
    tree.update(torch.arange(priority.shape[1]).expand(priority.shape), priority)
    return tree


def leaves_of(tree: SumTree, n_leaves: int) -> torch.Tensor:
    """Priorities [2, C] of all leaves of both seeds."""
    return tree.state_dict()["tree0"].view(2, -1)[:, :n_leaves]


def naive_find(leaves: np.ndarray, mass: np.ndarray) -> list[list[int]]:
    """The first leaf whose prefix sum exceeds the mass; exact for sums of integers."""
    rows = zip(leaves.cumsum(1), mass, strict=True)
    return [[int(np.argmax(prefix > m)) for m in masses] for prefix, masses in rows]


@pytest.mark.parametrize(
    ("mass", "leaf"),
    [(0.0, 0), (2.9, 0), (3.0, 1), (3.999, 1), (4.0, 2), (5.999, 2), (6.0, 3), (10.999, 3)],
)
def test_mass_falls_into_the_leaf_that_it_lies_in(mass: float, leaf: int):
    tree = build([[3, 1, 2, 5]])
    assert tree.total().tolist() == [11.0]
    index, priority = tree.find(torch.tensor([[mass]], dtype=torch.float64))
    assert index.tolist() == [[leaf]]
    assert priority.tolist() == [[[3, 1, 2, 5][leaf]]]


@pytest.mark.parametrize("n_leaves", CAPACITIES)
def test_tree_equals_prefix_sums_under_random_operations(n_leaves: int):
    S, B = 2, 16
    numbers = np.random.default_rng(n_leaves)
    tree, leaves = SumTree(S, n_leaves, CPU), np.zeros((S, n_leaves))
    for step in range(12):
        index = numbers.integers(n_leaves, size=(S, B * (1 + 9 * (step % 2))))
        # A function of the index, so that duplicates agree; whole numbers add without rounding.
        priority = (index * 7919 + step) % 23 * 1.0
        for seed, i in np.ndindex(index.shape):
            leaves[seed, index[seed, i]] = priority[seed, i]
        tree.update(torch.from_numpy(index), torch.from_numpy(priority))
        assert tree.total().tolist() == leaves.sum(1).tolist()
        mass = np.floor(numbers.random((S, B)) * leaves.sum(1, keepdims=True))
        mass[:, 0], mass[:, 1] = 0, leaves.sum(1) - 0.5
        index, priority = tree.find(torch.from_numpy(mass))
        assert index.tolist() == naive_find(leaves, mass)
        assert priority.tolist() == np.take_along_axis(leaves, index.numpy(), 1).tolist()
    assert np.array_equal(leaves_of(tree, n_leaves).numpy(), leaves)


@pytest.mark.parametrize("n_leaves", CAPACITIES)
def test_empty_leaves_are_never_found_even_at_extreme_masses(n_leaves: int):
    numbers = np.random.default_rng(0)
    occupied = np.sort(
        numbers.choice(np.arange(2, n_leaves - 1), min(1000, n_leaves // 2), replace=False)
    )
    tree = SumTree(2, n_leaves, CPU)
    # Tenths, so that sums are rounded and the orders of summation differ.
    priority = torch.from_numpy(numbers.integers(1, 10, (2, len(occupied)))) / 10
    tree.update(torch.from_numpy(occupied).expand(2, -1), priority.double())
    total = tree.total().unsqueeze(1)
    below = torch.nextafter(total, torch.zeros_like(total))
    above = total * (1 + 1e-12)  # what rounding may make of a mass just below the total
    fractions = torch.from_numpy(numbers.random((2, 1000)))
    found, priority = tree.find(torch.cat([0 * total, below, total, above, fractions * total], dim=1))
    assert (priority > 0).all()
    assert torch.equal(priority, leaves_of(tree, n_leaves).gather(1, found))
    for seed in range(2):
        assert found[seed, :4].tolist() == [occupied[0], *[occupied[-1]] * 3]


@pytest.mark.parametrize("n_leaves", CAPACITIES)
def test_a_single_occupied_leaf_is_always_found(n_leaves: int):
    for leaf in (0, n_leaves // 2, n_leaves - 1):
        tree = SumTree(2, n_leaves, CPU)
        tree.update(torch.tensor([[leaf], [leaf]]), torch.tensor([[0.1], [1e-8]]).double())
        mass = tree.total().unsqueeze(1) * torch.tensor([0.0, 0.3, 0.999, 1.0]).double()
        assert set(tree.find(mass)[0].flatten().tolist()) == {leaf}


@pytest.mark.parametrize("n_leaves", [10, MAX_SEARCHED + 1, 70_000])
def test_totals_do_not_drift(n_leaves: int):
    numbers = np.random.default_rng(1)
    tree = SumTree(2, n_leaves, CPU)
    for step in range(1000):
        index = torch.from_numpy(numbers.integers(n_leaves, size=(2, 32)))
        # Magnitudes from 1e-8 to 1e8: adjusting sums by differences would lose the small ones.
        tree.update(index, 10.0 ** ((index * 31 + step) % 17 - 8).double())
    leaves = leaves_of(tree, n_leaves)
    np.testing.assert_allclose(tree.total().numpy(), leaves.sum(1).numpy(), rtol=1e-14)
    everything = torch.arange(n_leaves).expand(2, -1)
    tree.update(everything, torch.full((2, n_leaves), 1e-8, dtype=torch.float64))
    np.testing.assert_allclose(tree.total().numpy(), 1e-8 * n_leaves, rtol=1e-12)
    tree.update(everything, torch.zeros(2, n_leaves).double())
    assert tree.total().tolist() == [0.0, 0.0]


@pytest.mark.parametrize("n_leaves", CAPACITIES)
def test_duplicates_in_an_index_count_once(n_leaves: int):
    tree = SumTree(1, n_leaves, CPU)
    tree.update(torch.tensor([[1, 1, 3, 1]]), torch.tensor([[5.0, 5.0, 2.0, 5.0]]).double())
    assert tree.total().tolist() == [7.0]
    assert tree.find(torch.tensor([[4.9, 5.0]]).double())[0].tolist() == [[1, 3]]


def test_seeds_do_not_touch_each_other():
    tree = build([[1, 2, 3], [4, 5, 6]])
    tree.update(torch.tensor([[0], [2]]), torch.tensor([[10.0], [0.0]]).double())
    assert leaves_of(tree, 3).tolist() == [[10, 2, 3], [4, 5, 0]]
    assert tree.total().tolist() == [15.0, 9.0]
    index, priority = tree.find(torch.tensor([[9.0, 13.0], [3.0, 8.0]]).double())
    assert index.tolist() == [[0, 2], [0, 1]]
    assert priority.tolist() == [[10, 3], [4, 5]]


@pytest.mark.parametrize("n_leaves", CAPACITIES)
def test_bytes_are_those_of_all_levels(n_leaves: int):
    tree = SumTree(3, n_leaves, CPU)
    tensors = list(tree.state_dict().values())  # the levels, leaves first
    fits = [n_leaves <= FANOUT ** (parents + 1) for parents in range(len(tensors))]
    assert fits == [False] * (len(tensors) - 1) + [True]  # no more levels than needed
    assert len(tensors[0]) >= 3 * n_leaves
    assert SumTree.n_bytes(3, n_leaves, CPU) == sum(tensor.nbytes for tensor in tensors)
