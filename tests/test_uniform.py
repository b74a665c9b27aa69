"""Uniform replay: every transition equally likely, spread over the ring, each seed on its own."""

import numpy as np
import pytest
import scipy.stats
import torch
from helpers import context, part
from tables import rule

from dqn_exp.buffers.uniform import UniformBuffer
from dqn_exp.interfaces import Batch, Transition


def filled(seeds: list[int], capacity: int, stored: int, B: int = 16, N: int = 1) -> UniformBuffer:
    """A buffer after `stored` transitions a seed; its rewards are seed value + time / 1000."""
    beside = context(seeds, N, (1,), torch.float64, dtype=torch.float64, batch_size=B)
    buffer = part("buffer", "uniform", beside, rule("dqn", n_step=3), capacity=capacity)
    seed = torch.tensor(seeds)
    ones = torch.ones(len(seeds), N)
    for time in range(stored // N):
        reward = (seed[:, None] + time / 1000) * ones
        obs, flags = reward.unsqueeze(-1).double(), ones < 0
        buffer.add(Transition(obs, ones.long(), reward, obs + 0.5, flags, flags), time * N)
    return buffer


def batches(buffer: UniformBuffer, stored: int, steps: int) -> list[Batch]:
    return [buffer.sample(stored, step) for step in range(steps)]


@pytest.mark.parametrize(
    ("capacity", "stored", "N"), [(20, 20, 1), (20, 13, 1), (20, 57, 1), (21, 12, 3), (21, 75, 3)]
)
@pytest.mark.parametrize(("S", "B", "steps"), [(1000, 1, 100), (100, 10, 100)])
def test_every_stored_transition_is_equally_likely(capacity, stored, N, S, B, steps):
    # One draw a seed is plainly multinomial; shares of a batch are spread evenly, so vary even less.
    buffer = filled(list(range(S)), capacity, stored, B, N)
    counts = torch.zeros(capacity, dtype=torch.int64)
    for batch in batches(buffer, stored, steps):
        counts += torch.bincount(batch.index.flatten(), minlength=capacity)
    size = min(stored, capacity)
    assert counts.sum() == S * B * steps
    assert counts[size:].sum() == 0
    assert scipy.stats.chisquare(counts[:size].numpy()).pvalue > 0.001


@pytest.mark.parametrize("position", [0, 9, pytest.param(5, marks=pytest.mark.slow)])
@pytest.mark.parametrize("size", [200, 57, 13])
def test_each_position_of_a_batch_is_uniform_over_its_share(size: int, position: int):
    B = 10
    buffer = filled(list(range(1000)), size, size, B)
    index = torch.stack([batch.index[:, position] for batch in batches(buffer, size, 100)])
    counts = torch.bincount(index.flatten(), minlength=size).numpy()
    # The share's ends may cut a transition in two: its part of the share is its probability.
    slots, begin, end = np.arange(size), position * size / B, (position + 1) * size / B
    overlap = (np.minimum(slots + 1, end) - np.maximum(slots, begin)).clip(min=0)
    inside = overlap > 1e-9
    assert counts[~inside].sum() == 0
    expected = overlap[inside] * counts.sum() / overlap[inside].sum()
    assert scipy.stats.chisquare(counts[inside], expected).pvalue > 0.001


@pytest.mark.parametrize(("size", "B"), [(1000, 10), (1000, 64), (64, 64), (130, 32)])
def test_all_shares_of_a_batch_are_distinct(size: int, B: int):
    buffer = filled([0, 1], size, size, B)
    for batch in batches(buffer, size, 50):
        for index in batch.index.numpy():
            # In order over the ring, from one share to the next: less than two shares at a time.
            strides = np.diff(index)
            assert strides.min() >= 0
            assert strides.max() <= np.ceil(2 * size / B)
            assert index[0] < size / B
            assert index[-1] >= size - size / B - 1
            if size % B == 0:
                assert (strides > 0).all()
            if size >= 2 * B:
                assert np.bincount(index).max() <= 2


def test_batches_hold_the_transitions_that_their_indices_name():
    buffer = filled([5, 6], 50, 120)
    batch = buffer.sample(120, 3)
    times = 100 + batch.index - 50 * (batch.index >= 20)  # the write head is at slot 20
    expected = torch.tensor([[5.0], [6.0]]) + times / 1000
    torch.testing.assert_close(batch.obs.squeeze(-1), expected.double(), rtol=0, atol=1e-6)


def test_weights_are_ones():
    weight = filled([0, 1], 50, 30).sample(30, 0).weight
    assert weight.dtype == torch.float64
    assert torch.equal(weight, torch.ones(2, 16, dtype=torch.float64))


def test_priorities_are_ignored():
    buffer = filled([0], 50, 50)
    before = buffer.sample(50, 4)
    buffer.update_priorities(before.index, torch.full((1, 16), 1e9))
    assert torch.equal(buffer.sample(50, 4).index, before.index)


def test_steps_draw_different_batches_and_the_same_step_the_same():
    buffer = filled([0], 1000, 1000)
    first, second, again = (buffer.sample(1000, step).index for step in (0, 1, 0))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_steps_counted_by_tensors_give_the_batches_of_int_steps():
    buffer, by_tensors = filled([0, 1], 50, 50), filled([0, 1], 50, 50)
    for step in (0, 1, 70, 75, 2):
        for env_step in (30, 50, 120):
            tensors = by_tensors.sample(torch.tensor(env_step), torch.tensor(step))
            batch = buffer.sample(env_step, step)
            assert torch.equal(tensors.index, batch.index)
            assert torch.equal(tensors.reward, batch.reward)


@pytest.mark.parametrize("seed", [7, 3, 2**40])
def test_a_seed_samples_alone_as_it_does_in_company(seed: int):
    company = [3, 2**40, 7]
    together, alone = filled(company, 50, 70), filled([seed], 50, 70)
    row = company.index(seed)
    for step in (0, 1, 10_000):
        batch, solo = together.sample(70, step), alone.sample(70, step)
        for field in ("index", "obs", "reward", "discount", "next_obs"):
            assert torch.equal(getattr(batch, field)[row], getattr(solo, field)[0])
        assert not torch.equal(batch.index[row], batch.index[row - 1])


def test_size_is_reported_for_each_seed():
    buffer = filled([0, 1], 50, 30)
    assert buffer.metrics(30, 0)["buffer/size"].tolist() == [30.0, 30.0]
    assert buffer.metrics(70, 0)["buffer/size"].tolist() == [50.0, 50.0]
