"""Means of metrics by tag, in blocks and one by one, and across a checkpoint."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from dqn_exp import rng
from dqn_exp.means import Means

SEEDS = torch.tensor([3, 8])
B = 5


def update(number: int) -> dict[str, Tensor]:
    """What an update logs: a loss for each sample [S, B], and a norm [S]."""
    drawn = rng.normal(SEEDS, "metrics", number, (B + 1,)).double()
    return {"loss": drawn[:, :B], "norm": drawn[:, B]}


def made(block: int | None = None) -> Means:
    means = Means(torch.zeros(len(SEEDS), 9, dtype=torch.float64))
    means.expect(["loss", "norm"])
    if block:
        means.block = block
    return means


def test_means_by_hand() -> None:
    means = Means(torch.zeros(2, 1))
    means.add({"loss": torch.tensor([[1.0, 3.0], [0.0, 8.0]]), "norm": torch.tensor([5.0, 7.0])})
    means.add({"loss": torch.tensor([[2.0, 6.0], [4.0, 4.0]]), "norm": torch.tensor([6.0, 1.0])})
    taken = means.take()
    assert {tag: value.tolist() for tag, value in taken.items()} == {
        "loss": [3.0, 4.0],
        "norm": [5.5, 4.0],
    }


def test_what_was_taken_is_not_counted_again() -> None:
    means = made()
    assert means.take() == {}
    for number in range(3):
        means.add(update(number))
    first = means.take()
    assert means.take() == {}
    means.add(update(7))
    assert_close(means.take()["norm"], update(7)["norm"])
    assert_close(first["norm"], sum(update(n)["norm"] for n in range(3)) / 3)


@pytest.mark.parametrize("block", [1, 2, 32])
@pytest.mark.parametrize("n", [1, 31, 32, 33, 70])  # before, at and after the end of a block
def test_blocks_of_any_length_give_the_same_means(block: int, n: int) -> None:
    means = made(block)
    for number in range(n):
        means.add(update(number))
    taken = means.take()
    assert list(taken) == ["loss", "norm"]
    for tag, value in taken.items():
        each = torch.stack([update(number)[tag].view(len(SEEDS), -1).mean(1) for number in range(n)])
        assert_close(value, each.mean(0), rtol=1e-12, atol=1e-12)


def saved(means: Means) -> dict[str, Any]:
    """A state as a checkpoint keeps it: no memory shared with the means."""
    return {
        name: value.clone() if isinstance(value, Tensor) else value
        for name, value in means.state_dict().items()
    }


@pytest.mark.parametrize("block", [1, 32])
@pytest.mark.parametrize("n", [0, 1, 31, 32, 40])
def test_a_state_with_updates_not_yet_summed_continues_with_the_same_bits(block: int, n: int) -> None:
    means, resumed = made(block), made(block)
    for number in range(n):
        means.add(update(number))
    resumed.add(update(99))  # forgotten
    resumed.load_state_dict(saved(means))
    for number in range(n, 70):
        means.add(update(number))
        resumed.add(update(number))
    taken, again = means.take(), resumed.take()
    assert list(again) == list(taken) == ["loss", "norm"]
    assert all(torch.equal(again[tag], taken[tag]) for tag in taken)


def test_a_state_of_one_form_continues_in_the_other() -> None:
    """Eager loops sum blocks of 32, compiled ones every update."""
    means, resumed = made(32), made(1)
    for number in range(40):
        means.add(update(number))
    resumed.load_state_dict(saved(means))
    for number in range(40, 50):
        means.add(update(number))
        resumed.add(update(number))
    assert_close(resumed.take(), means.take(), rtol=1e-12, atol=1e-12)


def test_a_state_of_another_number_of_seeds_is_refused() -> None:
    other = Means(torch.zeros(3, 9, dtype=torch.float64))
    other.add({"loss": torch.zeros(3, B)})
    with pytest.raises(ValueError, match="metric sums"):
        made().load_state_dict(saved(other))
