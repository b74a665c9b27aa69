"""Prioritised replay: sampling against the analytic distribution, weights against a naive twin."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from helpers import context, node
from tables import rule
from torch import Tensor

from dqn_exp import registry, td
from dqn_exp.buffers.per import PrioritizedBuffer
from dqn_exp.interfaces import Transition

UPDATES = 100  # total gradient steps, over which beta anneals


def make(
    seeds: list[int],
    capacity: int,
    B: int = 10,
    N: int = 1,
    alpha: float = 1.0,
    beta: tuple[float, float] = (0.4, 1.0),
    epsilon: float = 0.0,
    updates: int = UPDATES,
) -> PrioritizedBuffer:
    beside = context(
        seeds, N, (1,), torch.float64, dtype=torch.float64, batch_size=B, total_updates=updates
    )
    keys = {"capacity": capacity, "alpha": alpha, "beta_start": beta[0], "beta_end": beta[1]}
    config = node("buffer", "per", **keys)
    # An epsilon of 0, which no config may have, makes priorities round numbers.
    config = dataclasses.replace(config, epsilon=epsilon)
    return registry.build("buffer", config, beside, rule("dqn", n_step=1))


def add(
    buffer: PrioritizedBuffer, S: int, times: int, N: int = 1, first: int = 0, count: Any = int
) -> None:
    """Store transitions of times first, first + 1, ...; steps are counted as `count` makes them."""
    for time in range(first, first + times):
        reward = torch.full((S, N), float(time), dtype=torch.float64)
        obs, flags = reward.unsqueeze(-1), reward < 0
        buffer.add(Transition(obs, flags.long(), reward, obs, flags, flags), count(time * N))


def prioritise(buffer: PrioritizedBuffer, S: int, td_abs: list[float] | Tensor) -> None:
    """Give slots 0, 1, ... of all seeds these |TD|."""
    td = torch.as_tensor(td_abs, dtype=torch.float64).expand(S, -1)
    buffer.update_priorities(torch.arange(td.shape[1]).expand(S, -1), td)


def priorities(buffer: PrioritizedBuffer, S: int, capacity: int) -> Tensor:
    """[S, capacity], of all slots."""
    return buffer.state_dict()["tree0"].view(S, -1)[:, :capacity]


def count(buffer: PrioritizedBuffer, size: int, steps: int) -> np.ndarray:
    """How often each of `size` slots is drawn, all of which hold a transition."""
    index = torch.cat([buffer.sample(size, step).index.flatten() for step in range(steps)])
    return torch.bincount(index, minlength=size).numpy()


def p_value(counts: np.ndarray, priority: np.ndarray) -> float:
    """How likely counts at least this far from a distribution proportional to priority are."""
    return float(scipy.stats.chisquare(counts, counts.sum() * priority / priority.sum()).pvalue)


def notebook_indices(td_abs: list[float], batch_size: int, numbers: np.random.Generator) -> list[int]:
    """get_prioritized_indexes of the seed notebook, with its defect."""
    uniforms = np.sort(numbers.uniform(0, sum(td_abs) + 1e-4 * len(td_abs), batch_size))
    indices, i, prefix = [], 0, 0.0
    for u in uniforms:
        while prefix < u:
            prefix += td_abs[i] + 1e-4
            i += 1
        i = min(i, len(td_abs) - 1)
        indices.append(i)
    return indices


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("times", [16, 41])  # just full, and wrapped around twice
@pytest.mark.parametrize(("S", "B", "steps"), [(1000, 1, 100), (100, 10, 100)])
def test_sampling_follows_the_priorities(alpha: float, times: int, S: int, B: int, steps: int):
    # One draw a seed is plainly multinomial; stratified draws vary even less.
    buffer = make(list(range(S)), 16, B, alpha=alpha, epsilon=0.01)
    add(buffer, S, times)
    td_abs = np.array([1.0, 2.0, 3.0, 4.0, 0.0, 0.5, 7.0, 0.1] * 2)
    prioritise(buffer, S, td_abs[::-1].tolist())
    prioritise(buffer, S, td_abs.tolist())
    assert p_value(count(buffer, 16, steps), (td_abs + 0.01) ** alpha) > 0.001


def test_sampling_follows_priorities_overwritten_by_new_transitions():
    S = 1000
    buffer = make(list(range(S)), 6, B=1)
    add(buffer, S, 6)
    prioritise(buffer, S, [1, 2, 3, 4, 5, 2])
    add(buffer, S, 2, first=6)  # over slots 0 and 1, at the largest priority: 5
    assert p_value(count(buffer, 6, 100), np.array([5, 5, 3, 4, 5, 2.0])) > 0.001


def test_the_same_statistics_refuse_the_notebooks_sampler():
    numbers, td_abs = np.random.default_rng(0), [1.0, 2.0, 3.0, 4.0]
    drawn = [i for _ in range(1000) for i in notebook_indices(td_abs, 100, numbers)]
    counts = np.bincount(drawn, minlength=4)
    np.testing.assert_allclose(counts / 100_000, [0, 0.1, 0.2, 0.7], atol=0.01)
    assert p_value(counts, np.array(td_abs)) < 1e-9
    buffer = make([0], 4, B=100)
    add(buffer, 1, 4)
    prioritise(buffer, 1, td_abs)
    assert p_value(count(buffer, 4, 1000), np.array(td_abs)) > 0.001


@pytest.mark.parametrize("B", [4, 64, 4096])
def test_each_share_of_the_mass_gives_one_draw(B: int):
    buffer = make([0, 1], B, B)  # as many equal leaves as draws: draw i can only be leaf i
    add(buffer, 2, B)
    for step in range(20):
        assert torch.equal(buffer.sample(B, step).index, torch.arange(B).expand(2, -1))


def test_rare_transitions_of_a_large_buffer_are_drawn_too():
    # Every second priority is 1/256: draws in steps of 2^-24 of the whole mass would miss them all.
    B, size, rare, N = 256, 1 << 18, 1 / 256, 1 << 10
    buffer = make([0], size, B, N)
    add(buffer, 1, size // N, N)
    for slots in torch.arange(1, size, 2).split(1 << 14):
        buffer.update_priorities(slots[None], torch.full((1, len(slots)), rare))
    slots = torch.cat([buffer.sample(size, step).index[0, B // 2 :] for step in range(500)])
    assert p_value(torch.bincount(slots % 2, minlength=2).numpy(), np.array([1, rare])) > 0.001


def test_new_transitions_get_the_largest_priority_so_far_of_their_own_seed():
    buffer = make([0, 1], 4)
    add(buffer, 2, 4)
    buffer.update_priorities(torch.tensor([[0, 1], [2, 3]]), torch.tensor([[9.0, 2.0], [0.1, 5.0]]))
    buffer.update_priorities(torch.tensor([[0, 2], [0, 3]]), torch.tensor([[0.5, 3.0], [0.1, 0.1]]))
    assert priorities(buffer, 2, 4).tolist()[0] == [0.5, 2.0, 3.0, 1.0]
    # The item of priority 9 (5 in the other seed) has come down since; the maximum so far has not.
    add(buffer, 2, 6, first=4)
    assert priorities(buffer, 2, 4).tolist() == [[9.0] * 4, [5.0] * 4]


def test_first_transitions_have_priority_one_and_empty_slots_none():
    buffer = make([0], 4, alpha=0.6, epsilon=0.5)
    add(buffer, 1, 3)
    assert priorities(buffer, 1, 4).tolist() == [[1.0, 1.0, 1.0, 0.0]]
    drawn = [buffer.sample(3, step).index for step in range(100)]
    assert set(torch.cat(drawn).flatten().tolist()) == {0, 1, 2}


def test_update_priorities_sets_td_plus_epsilon_to_the_alpha():
    buffer = make([0, 1], 3, alpha=0.5, epsilon=1.0)
    add(buffer, 2, 3)
    buffer.update_priorities(torch.tensor([[2, 0], [1, 1]]), torch.tensor([[8.0, 3.0], [15.0, 15.0]]))
    assert priorities(buffer, 2, 3).tolist() == [[2.0, 1.0, 3.0], [1.0, 4.0, 1.0]]


@pytest.mark.parametrize("N", [1, 2])
@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_weights_equal_a_naive_twin(alpha: float, N: int):
    S, B, capacity = 3, 32, 40
    buffer = make(list(range(S)), capacity, B, N, alpha=alpha, beta=(0.5, 0.5), epsilon=0.01)
    add(buffer, S, 30 // N, N)
    td_abs = np.random.default_rng(0).exponential(size=(S, 30))
    buffer.update_priorities(torch.arange(30).expand(S, -1), torch.from_numpy(td_abs))
    batch = buffer.sample(30, 0)
    for s in range(S):
        priority = [(x + 0.01) ** alpha for x in td_abs[s]]
        raw = [(30 * priority[i] / sum(priority)) ** -0.5 for i in batch.index[s].tolist()]
        np.testing.assert_allclose(batch.weight[s].numpy(), np.array(raw) / max(raw), rtol=1e-12)


def test_weights_worked_by_hand():
    buffer = make([0], 4, B=1000, beta=(0.5, 0.5))
    add(buffer, 1, 4)
    prioritise(buffer, 1, [1.0, 4.0, 16.0, 4.0])
    batch = buffer.sample(4, 0)
    # (p / p_min)^-1/2
    expected = torch.tensor([1.0, 0.5, 0.25, 0.5], dtype=torch.float64)
    torch.testing.assert_close(batch.weight, expected[batch.index])


@pytest.mark.parametrize("updates", [2, UPDATES])
def test_beta_reaches_its_end_with_the_last_gradient_step(updates: int):
    buffer = make([0, 1], 4, B=64, beta=(0.4, 1.0), updates=updates)
    add(buffer, 2, 4)
    prioritise(buffer, 2, [1.0, 2.0, 3.0, 4.0])
    betas = []
    for step in range(updates):
        batch = buffer.sample(4, step)
        betas.append(buffer.metrics(4, step + 1)["buffer/beta"][0].item())
        priority = batch.index[0] + 1.0
        torch.testing.assert_close(
            batch.weight[0], ((priority / priority.min()) ** -betas[-1]).double(), rtol=1e-5, atol=0
        )
    np.testing.assert_allclose(betas, np.linspace(0.4, 1.0, updates), atol=1e-6)


def test_weighted_means_equal_uniform_means_at_beta_one():
    S, B, size = 50, 2048, 100
    buffer = make(list(range(S)), size, B, beta=(1.0, 1.0), epsilon=0.1)
    add(buffer, S, size)
    numbers = np.random.default_rng(2)
    prioritise(buffer, S, torch.from_numpy(numbers.exponential(size=size)))
    batch = buffer.sample(size, 0)
    weight, index = batch.weight.numpy(), batch.index.numpy()
    priority = priorities(buffer, S, size)[0].numpy()
    functions = [priority, np.arange(size) % 7, numbers.normal(size=size)]
    for values in functions:
        # Dividing by the sum of weights undoes their normalisation; its bias falls as 1 / B.
        means = (weight * values[index]).sum(1) / weight.sum(1)
        error = means.std() / S**0.5
        assert abs(means.mean() - values.mean()) < 4 * error + 1e-3
    # Without weights the mean of the priority itself is far off.
    assert priority[index].mean() > 1.3 * priority.mean()


def test_effective_sample_size_lies_between_one_and_the_batch_size():
    def effective(td_abs: list[float], beta: float) -> list[float]:
        buffer = make([0, 1], 4, B=100, beta=(beta, beta))
        add(buffer, 2, 4)
        prioritise(buffer, 2, td_abs)
        return td.effective_sample_size(buffer.sample(4, 0).weight).tolist()

    assert effective([1, 1, 1, 1], 1.0) == [100.0, 100.0]
    assert effective([1, 2, 3, 4], 0.0) == [100.0, 100.0]
    # 25 draws of priority 1 and 75 of 3: weights 1 and 1/3, so (25 + 25)^2 / (25 + 75 / 9) = 75.
    assert effective([1, 3, 0, 0], 1.0) == pytest.approx([75.0, 75.0])
    assert all(1 <= n <= 100 for n in effective([1, 1e3, 1e6, 1e9], 1.0))


def test_steps_counted_by_tensors_give_the_batches_of_int_steps():
    buffer, by_tensors = make([0, 1], 50, epsilon=0.01), make([0, 1], 50, epsilon=0.01)
    for step in range(47):
        add(buffer, 2, 1, first=step)
        add(by_tensors, 2, 1, first=step, count=torch.tensor)
        batch = buffer.sample(step + 1, step)
        tensors = by_tensors.sample(torch.tensor(step + 1), torch.tensor(step))
        for name in ("index", "obs", "weight"):
            torch.testing.assert_close(getattr(tensors, name), getattr(batch, name))
        for one in (buffer, by_tensors):
            one.update_priorities(batch.index, (batch.index * 7 + step) % 5 + 1.0)


@pytest.mark.parametrize("seed", [7, 3, 2**40])
def test_a_seed_samples_alone_as_it_does_in_company(seed: int):
    company = [3, 2**40, 7]

    def run(seeds: list[int]) -> list[tuple[Tensor, Tensor, Tensor]]:
        buffer, row, batches = make(seeds, 50, 16, alpha=0.6, epsilon=0.01), seeds.index(seed), []
        scale = torch.tensor(seeds, dtype=torch.float64)[:, None] % 11 + 0.1
        for step in range(20):
            add(buffer, len(seeds), 4, first=4 * step)
            batch = buffer.sample(4 * (step + 1), step)
            # Priorities differ between seeds, so that one seed's maximum in another would show.
            buffer.update_priorities(batch.index, scale * (1 + (batch.index * 7 + step) % 5))
            batches.append((batch.index[row], batch.weight[row], batch.obs[row]))
        return batches

    for together, reversed_, alone in zip(run(company), run(company[::-1]), run([seed]), strict=True):
        for a, b, c in zip(together, reversed_, alone, strict=True):
            assert torch.equal(a, c)
            assert torch.equal(b, c)


def test_bytes_are_those_of_the_ring_and_the_tree():
    slot = 2 * 8 + 4 * 8  # obs and next obs; action, reward, two flags
    buffer = make([0, 1], 3000)
    tree = sum(levels.nbytes for name, levels in buffer.state_dict().items() if name.startswith("tree"))
    assert tree >= 2 * 3000 * 8
    assert buffer.n_bytes == 2 * 3000 * slot + tree
