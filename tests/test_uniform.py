"""Uniform replay: every transition equally likely, spread over the ring, each seed on its own."""

import numpy as np
import pytest
import scipy.stats
import torch

from dqn_exp.agents.dqn import DQN
from dqn_exp.buffers.uniform import UniformBuffer
from dqn_exp.types import Batch, Context, Spec, Transition


def filled(seeds: list[int], capacity: int, stored: int, N: int = 1) -> UniformBuffer:
    """A buffer after `stored` transitions a seed; its rewards are seed value + time / 1000."""
    spec, seed = Spec((1,), torch.float64, n_actions=2), torch.tensor(seeds)
    context = Context(seed, N, spec, torch.device("cpu"), torch.float64, 100, 10)
    agent = DQN(gamma=0.9, n_step=3, loss="huber", target={"tau": 1.0, "every": None})
    buffer = UniformBuffer(context, agent, capacity=capacity)
    ones = torch.ones(len(seeds), N)
    for time in range(stored // N):
        reward = (seed[:, None] + time / 1000) * ones
        obs, flags = reward.unsqueeze(-1), ones < 0
        buffer.add(Transition(obs, ones.long(), reward, obs + 0.5, flags, flags))
    return buffer


def batches(buffer: UniformBuffer, batch_size: int, steps: int) -> list[Batch]:
    return [buffer.sample(batch_size, step) for step in range(steps)]


@pytest.mark.parametrize(
    ("capacity", "stored", "N"), [(20, 20, 1), (20, 13, 1), (20, 57, 1), (21, 12, 3), (21, 75, 3)]
)
@pytest.mark.parametrize(("S", "B", "steps"), [(1000, 1, 100), (100, 10, 100)])
def test_every_stored_transition_is_equally_likely(capacity, stored, N, S, B, steps):
    # One draw a seed is plainly multinomial; shares of a batch are spread evenly, so vary even less.
    buffer = filled(list(range(S)), capacity, stored, N)
    counts = torch.zeros(capacity, dtype=torch.int64)
    for batch in batches(buffer, B, steps):
        counts += torch.bincount(batch.index.flatten(), minlength=capacity)
    size = min(stored, capacity)
    assert len(buffer) == size
    assert counts.sum() == S * B * steps
    assert counts[size:].sum() == 0
    assert scipy.stats.chisquare(counts[:size].numpy()).pvalue > 0.001


@pytest.mark.parametrize("position", [0, 5, 9])
def test_each_position_of_a_batch_is_uniform(position: int):
    buffer = filled(list(range(1000)), 20, 20)
    index = torch.stack([batch.index[:, position] for batch in batches(buffer, 10, 100)])
    assert scipy.stats.chisquare(torch.bincount(index.flatten()).numpy()).pvalue > 0.001


@pytest.mark.parametrize(("size", "B"), [(1000, 10), (1000, 64), (64, 64), (130, 32)])
def test_all_shares_of_a_batch_are_distinct(size: int, B: int):
    buffer = filled([0, 1], size, size)
    for batch in batches(buffer, B, 50):
        for index in batch.index.numpy():
            # From one share to the next, and back to the first: less than two shares at a time, and
            # once round the ring in all.
            strides = (np.roll(index, -1) - index) % size
            assert strides.max() <= np.ceil(2 * size / B)
            assert strides.sum() == size
            if size >= 2 * B:
                assert np.bincount(index).max() <= 2


def test_batches_hold_the_transitions_that_their_indices_name():
    buffer = filled([5, 6], 50, 120)
    batch = buffer.sample(16, 3)
    times = 100 + batch.index - 50 * (batch.index >= 20)  # the write head is at slot 20
    expected = torch.tensor([[5.0], [6.0]]) + times / 1000
    torch.testing.assert_close(batch.obs.squeeze(-1), expected.double(), rtol=0, atol=1e-6)


def test_weights_are_ones():
    weight = filled([0, 1], 50, 30).sample(16, 0).weight
    assert weight.dtype == torch.float64
    assert torch.equal(weight, torch.ones(2, 16, dtype=torch.float64))


def test_priorities_are_ignored():
    buffer = filled([0], 50, 50)
    before = buffer.sample(16, 4)
    buffer.update_priorities(before.index, torch.full((1, 16), 1e9))
    assert torch.equal(buffer.sample(16, 4).index, before.index)


def test_steps_draw_different_batches_and_the_same_step_the_same():
    buffer = filled([0], 1000, 1000)
    first, second, again = (buffer.sample(16, step).index for step in (0, 1, 0))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("seed", [7, 3, 2**40])
def test_a_seed_samples_alone_as_it_does_in_company(seed: int):
    company = [3, 2**40, 7]
    together, alone = filled(company, 50, 70), filled([seed], 50, 70)
    row = company.index(seed)
    for step in (0, 1, 10_000):
        batch, solo = together.sample(16, step), alone.sample(16, step)
        for field in ("index", "obs", "reward", "discount", "next_obs"):
            assert torch.equal(getattr(batch, field)[row], getattr(solo, field)[0])
        assert not torch.equal(batch.index[row], batch.index[row - 1])


def test_size_is_reported_for_each_seed():
    assert filled([0, 1], 50, 30).metrics()["buffer/size"].tolist() == [30.0, 30.0]
