"""The ring and its n-step windows against a naive twin of deques."""

from collections import deque
from typing import NamedTuple

import numpy as np
import pytest
import torch
from helpers import context
from tables import rule
from torch import Tensor

from dqn_exp.buffers.ring import Ring
from dqn_exp.config.problems import ConfigError
from dqn_exp.interfaces import Batch, Transition


def make(
    capacity: int,
    n: int = 1,
    gamma: float = 0.5,
    S: int = 1,
    N: int = 1,
    obs_shape: tuple[int, ...] = (3,),
    obs_dtype: torch.dtype = torch.float64,
) -> Ring:
    """The base of all buffers, for S seeds and N envs each."""
    beside = context(range(S), N, obs_shape, obs_dtype, dtype=torch.float64)
    return Ring(beside, rule("dqn", gamma=gamma, n_step=n), capacity)


def gather_all(ring: Ring, size: int, S: int = 1) -> Batch:
    index = torch.arange(size).expand(S, -1)
    return ring.gather(index, torch.ones(index.shape))


class Row(NamedTuple):
    """What one env sees in one step; an obs is (seed, env, time), its successor half a time later."""

    obs: tuple[float, ...]
    action: int
    reward: float
    next_obs: tuple[float, ...]
    terminated: bool
    truncated: bool


def transition(rows: list[list[Row]]) -> Transition:
    """The rows of [S][N] envs as tensors."""
    columns = [[[row[i] for row in seed] for seed in rows] for i in range(6)]
    obs, action, reward, next_obs, terminated, truncated = map(torch.tensor, columns)
    return Transition(obs.double(), action, reward.double(), next_obs.double(), terminated, truncated)


def naive_window(rows: list[Row], n: int, gamma: float) -> tuple[float, float, tuple[float, ...]]:
    """n-step return, discount and next obs from the first of an env's rows, in order of time."""
    value, discount, row = 0.0, 1.0, rows[0]
    for row in rows[:n]:
        value += discount * row.reward
        discount *= gamma
        if row.terminated:
            return value, 0.0, row.next_obs
        if row.truncated:
            break
    return value, discount, row.next_obs


@pytest.mark.parametrize("n", [1, 3, 5])
@pytest.mark.parametrize("N", [1, 3])
@pytest.mark.parametrize("end", [0.0, 0.15, 0.6])
@pytest.mark.parametrize("count", [int, torch.tensor], ids=["ints", "tensors"])
def test_ring_equals_a_naive_twin_before_and_after_wraparound(n: int, N: int, end: float, count):
    S, T, gamma = 2, 8, 0.9
    numbers = np.random.default_rng(n * 10 + N)
    ring = make(T * N, n, gamma, S, N)
    twins = {(s, e): deque(maxlen=T) for s in range(S) for e in range(N)}
    for time in range(4 * T + 3):
        rows = [
            [
                Row(
                    obs=(s, e, time),
                    action=int(numbers.integers(2)),
                    reward=float(numbers.integers(-9, 9)),
                    next_obs=(s, e, time + 0.5),
                    terminated=bool(numbers.random() < end),
                    truncated=bool(numbers.random() < end),
                )
                for e in range(N)
            ]
            for s in range(S)
        ]
        assert ring.store(transition(rows), count(time * N)) == time % T * N
        for (s, e), twin in twins.items():
            twin.append(rows[s][e])
        size = int(ring.size(count((time + 1) * N)))
        assert size == min(time + 1, T) * N
        batch = gather_all(ring, size, S)
        for (s, e), twin in twins.items():
            for i, row in enumerate(twin):
                slot = (time - len(twin) + 1 + i) % T * N + e
                value, discount, next_obs = naive_window(list(twin)[i:], n, gamma)
                assert tuple(batch.obs[s, slot].tolist()) == row.obs
                assert batch.action[s, slot].item() == row.action
                assert batch.reward[s, slot].item() == pytest.approx(value, rel=1e-12)
                assert batch.discount[s, slot].item() == pytest.approx(discount, rel=1e-12)
                assert tuple(batch.next_obs[s, slot].tolist()) == next_obs


def play(ring: Ring, kinds: str) -> Batch:
    """Add rewards 1, 2, 4, ... with obs 0, 1, 2, ...: '.' continues, 'T' terminates, 'C' is cut off."""
    for time, kind in enumerate(kinds):
        row = Row((0, 0, time), 0, 2.0**time, (0, 0, time + 0.5), kind == "T", kind == "C")
        ring.store(transition([[row]]), time)
    return gather_all(ring, min(len(kinds), ring.capacity))


# gamma is 1/2, so that step k of a window that starts at time t adds 2^t.
@pytest.mark.parametrize(
    ("n", "kinds", "rewards", "discounts", "last"),
    [
        (1, "....", [1, 2, 4, 8], [1 / 2] * 4, [0, 1, 2, 3]),
        (1, ".T.C", [1, 2, 4, 8], [1 / 2, 0, 1 / 2, 1 / 2], [0, 1, 2, 3]),
        # The newest transition shortens the windows that reach it.
        (3, "....", [3, 6, 8, 8], [1 / 8, 1 / 8, 1 / 4, 1 / 2], [2, 3, 3, 3]),
        # A terminated episode has no value after its end; a truncated one does.
        (3, ".T..", [2, 2, 8, 8], [0, 0, 1 / 4, 1 / 2], [1, 1, 3, 3]),
        (3, ".C..", [2, 2, 8, 8], [1 / 4, 1 / 2, 1 / 4, 1 / 2], [1, 1, 3, 3]),
        (3, "TC.T", [1, 2, 8, 8], [0, 1 / 2, 0, 0], [0, 1, 3, 3]),
        # Once round: slot 0 is time 4, the newest; slot 1 is time 1, the oldest.
        (3, ".....", [16, 6, 12, 16], [1 / 2, 1 / 8, 1 / 8, 1 / 4], [4, 3, 4, 4]),
        (3, "...C.", [16, 6, 8, 8], [1 / 2, 1 / 8, 1 / 4, 1 / 2], [4, 3, 3, 3]),
        # The window is longer than what is stored.
        (3, "..", [2, 2], [1 / 4, 1 / 2], [1, 1]),
    ],
)
def test_windows_worked_by_hand(n: int, kinds: str, rewards, discounts, last):
    batch = play(make(4, n), kinds)
    assert batch.reward[0].tolist() == rewards
    assert batch.discount[0].tolist() == discounts
    assert (batch.next_obs[0, :, 2] - 0.5).tolist() == last


@pytest.mark.parametrize("n", [1, 3])
def test_termination_wins_when_the_time_limit_falls_on_the_same_step(n: int):
    ring = make(4, n)
    ring.store(transition([[Row((0, 0, 0), 0, 1.0, (0, 0, 0.5), True, True)]]), 0)
    assert gather_all(ring, 1).discount.tolist() == [[0.0]]


def test_gather_passes_index_and_weight_through():
    ring = make(4)
    play(ring, "....")
    index, weight = torch.tensor([[2, 0, 2]]), torch.tensor([[0.5, 1.0, 0.25]])
    batch = ring.gather(index, weight)
    assert batch.index.tolist() == index.tolist()
    assert batch.weight.tolist() == weight.tolist()
    assert batch.reward.tolist() == [[4.0, 1.0, 4.0]]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_observations_keep_their_dtype_and_values(dtype: torch.dtype):
    ring = make(4, obs_shape=(2, 2), obs_dtype=dtype)
    obs = torch.tensor([[[[0, 255], [127, 1]]]]).to(dtype)
    flags = torch.zeros(1, 1, dtype=torch.bool)
    ring.store(Transition(obs, flags.long(), torch.ones(1, 1), obs // 2, flags, flags), 0)
    batch = gather_all(ring, 1)
    assert batch.obs.dtype == batch.next_obs.dtype == dtype
    assert torch.equal(batch.obs, obs)
    assert torch.equal(batch.next_obs, obs // 2)
    assert batch.reward.dtype == batch.discount.dtype == torch.float64
    assert batch.action.dtype == torch.int64


def test_a_stored_observation_is_a_copy():
    ring = make(4)
    rows = transition([[Row((0, 0, 7), 0, 1.0, (0, 0, 7.5), False, False)]])
    ring.store(rows, 0)
    rows.obs.zero_()
    assert gather_all(ring, 1).obs.tolist() == [[[0, 0, 7]]]


def allocated_bytes(part: object) -> int:
    """Bytes behind all tensors that an object holds, each storage counted once."""
    storages = {}
    stack = list(vars(part).values())
    while stack:
        value = stack.pop()
        if isinstance(value, Tensor):
            storage = value.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        elif isinstance(value, dict | list | tuple):
            stack.extend(value.values() if isinstance(value, dict) else value)
    return sum(storages.values())


@pytest.mark.parametrize("obs_dtype", [torch.uint8, torch.float64])
@pytest.mark.parametrize(("S", "N"), [(1, 1), (3, 4)])
def test_bytes_computed_are_the_bytes_allocated(obs_dtype: torch.dtype, S: int, N: int):
    ring = make(1000, 3, S=S, N=N, obs_shape=(4, 5), obs_dtype=obs_dtype)
    slot = 2 * 20 * obs_dtype.itemsize + 4 * 8  # obs and next obs; action, reward, two flags
    assert ring.n_bytes == S * 1000 * slot
    extra = allocated_bytes(ring) - ring.n_bytes
    assert 0 <= extra < 700  # the newest facts, numbers of rows, powers of gamma


def test_a_ring_too_large_is_refused_with_its_bytes_before_it_is_allocated():
    # Allocation of 800 TB would fail with a RuntimeError: ConfigError shows that none was tried.
    with pytest.raises(ConfigError, match=r"buffer\.capacity=10000000000000: .* 800 TB.* available"):
        make(10**13)
