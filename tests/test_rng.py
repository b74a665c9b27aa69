"""Philox against its published vectors and a naive twin; the draws' promises and statistics."""

import math
import zlib
from functools import partial

import numpy as np
import pytest
import scipy.stats
import torch

from dqn_exp import rng

SEEDS = torch.tensor([0, 3, 7, 5_000_000_000])
DRAWS = {
    "bits": rng.bits,
    "uniform": rng.uniform,
    "normal": rng.normal,
    "integers": partial(rng.integers, high=10),
}
each_draw = pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS.keys())


def naive_philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x32-10 in Python's unbounded integers."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * c0, 2**32)
        high1, low1 = divmod(0xCD9E8D57 * c2, 2**32)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return [c0, c1, c2, c3]


def p_uniform(counts: np.ndarray) -> float:
    return float(scipy.stats.chisquare(counts).pvalue)


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [  # kat_vectors of Random123, philox4x32 10
        ("00000000 00000000 00000000 00000000", "00000000 00000000",
         "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
         "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
         "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)  # fmt: skip
def test_philox_gives_the_published_words(counter: str, key: str, words: str):
    c, k, expected = ([int(word, 16) for word in text.split()] for text in (counter, key, words))
    result = rng.philox(tuple(torch.tensor(c)), tuple(torch.tensor(k)))
    assert [word.item() for word in result] == expected
    assert naive_philox(c, k) == expected


def test_philox_equals_its_naive_twin_on_random_counters():
    numbers = np.random.default_rng(0).integers(2**32, size=(6, 200))  # counter, then key
    columns = tuple(torch.from_numpy(numbers))
    words = torch.stack(rng.philox(columns[:4], columns[4:]), dim=1)
    twin = [naive_philox(list(map(int, row[:4])), list(map(int, row[4:]))) for row in numbers.T]
    assert words.tolist() == twin


def test_bits_are_the_words_of_consecutive_counters_lane_by_lane():
    seed, step = 5_000_000_000, 2**33 + 5
    key = [seed % 2**32, zlib.crc32(b"stream")]
    blocks = [naive_philox([block, step % 2**32, step >> 32, seed >> 32], key) for block in range(3)]
    expected = [block[lane] for lane in range(4) for block in blocks][:10]
    assert rng.bits(torch.tensor([seed]), "stream", step, (10,)).tolist() == [expected]
    assert rng.bits(torch.tensor([seed]), "stream", step, (2, 5)).flatten().tolist() == expected


@each_draw
def test_a_stream_may_be_named_by_its_word(draw):
    word = rng.word_of("stream")
    assert 0 <= word < 2**32
    assert torch.equal(draw(SEEDS, word, 3, (5,)), draw(SEEDS, "stream", 3, (5,)))
    assert len({rng.word_of(name) for name in ("env/train", "env/eval", "replay", "explore")}) == 4


def test_words_are_the_halves_of_an_integer():
    values = [0, 1, 2**32 - 1, 2**32, 2**33 + 7, 2**63 - 1]
    low, high = rng.words(torch.tensor(values))
    assert [divmod(value, 2**32) for value in values] == list(
        zip(high.tolist(), low.tolist(), strict=True)
    )


def test_unit_keeps_the_24_high_bits_of_a_word():
    words = [0, 255, 256, 2**31, 2**32 - 1]
    units = rng.unit(torch.tensor(words))
    assert units.dtype == torch.float32
    assert units.tolist() == [0.0, 0.0, 2.0**-24, 0.5, 1 - 2.0**-24]


@each_draw
def test_a_draw_depends_only_on_seed_stream_and_step(draw):
    alone = draw(torch.tensor([7]), "stream", 5, (2, 3))
    assert alone.shape == (1, 2, 3)
    assert torch.equal(draw(SEEDS, "stream", 5, (2, 3))[2], alone[0])
    assert torch.equal(draw(SEEDS.flip(0), "stream", 5, (2, 3))[1], alone[0])
    many = draw(SEEDS, "stream", torch.tensor([9, 5, 2**33]), (2, 3))
    assert many.shape == (3, 4, 2, 3)
    assert torch.equal(many[1, 2], alone[0])
    assert torch.equal(many[2], draw(SEEDS, "stream", 2**33, (2, 3)))


@each_draw
@pytest.mark.parametrize("shape", [(), (0,), (1,), (5,), (2, 3, 4)])
def test_draws_have_the_shape_asked_for(draw, shape: tuple[int, ...]):
    assert draw(SEEDS, "stream", 0, shape).shape == (4, *shape)
    assert draw(SEEDS, "stream", torch.arange(6), shape).shape == (6, 4, *shape)


def test_seeds_and_steps_beyond_32_bits_differ():
    values = [0, 1, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**40, 2**62]
    words = rng.bits(torch.tensor(values), "stream", torch.tensor(values), (4,)).view(-1, 4)
    assert len({tuple(row) for row in words.tolist()}) == len(values) ** 2


@pytest.mark.parametrize("vary", ["seed", "stream", "step"])
def test_neighbouring_seeds_streams_and_steps_are_uncorrelated(vary: str):
    n, rows = 20_000, 8
    keys = {"seed": 7, "stream": 7, "step": 7}
    draws = []
    for value in range(rows):
        key = keys | {vary: value}
        draws.append(rng.uniform(torch.tensor([key["seed"]]), f"{key['stream']}", key["step"], (n,)))
    table = torch.cat(draws).double()
    # With each other, and with each other's successors; 5 standard errors over 2 * 28 pairs.
    for other in (table, table.roll(1, dims=1)):
        correlation = np.corrcoef(table.numpy(), other.numpy())[:rows, rows:]
        off_diagonal = correlation[~np.eye(rows, dtype=bool)]
        assert np.abs(off_diagonal).max() < 5 / n**0.5


@pytest.mark.parametrize("across", ["numbers", "seeds", "steps"])
def test_uniform_is_uniform(across: str):
    """Within one draw, and over the first number of consecutive seeds or steps."""
    n = 200_000
    values = {
        "numbers": lambda: rng.uniform(torch.tensor([1]), "stream", 2, (n,)),
        "seeds": lambda: rng.uniform(torch.arange(n), "stream", 2, (1,)),
        "steps": lambda: rng.uniform(torch.tensor([1]), "stream", torch.arange(n), (1,)),
    }[across]().flatten()
    assert values.dtype == torch.float32
    assert 0 <= values.min() < 1e-4
    assert 1 - 1e-4 < values.max() < 1
    assert p_uniform(torch.histc(values, 1000, 0, 1).numpy()) > 0.001
    pairs = (values.view(-1, 2) * 20).long()
    assert p_uniform(torch.bincount(pairs[:, 0] * 20 + pairs[:, 1], minlength=400).numpy()) > 0.001


def test_the_largest_word_still_gives_a_uniform_below_one():
    seeds = torch.tensor([0])
    words = rng.bits(seeds, "stream", 0, (1 << 20,))
    values = rng.uniform(seeds, "stream", 0, (1 << 20,))
    # Keeping 32 bits would round the largest words up to 1 in float32; 24 are represented exactly.
    assert torch.equal((values.double() * 2**24).long(), words >> 8)
    assert words.min() >= 0
    assert 2**32 - 2**14 < words.max() < 2**32


@pytest.mark.parametrize("high", [1, 2, 3, 10, 1000])
def test_integers_are_uniform_over_their_range(high: int):
    values = rng.integers(torch.tensor([4, 5]), "stream", 1, (100_000,), high).flatten()
    counts = torch.bincount(values)
    assert values.dtype == torch.int64
    assert len(counts) == high
    assert high == 1 or p_uniform(counts.numpy()) > 0.001


def test_integers_reach_both_ends_of_the_largest_range():
    values = rng.integers(torch.tensor([4]), "stream", 1, (100_000,), 2**31)
    assert 0 <= values.min() < 2**18
    assert 2**31 - 2**18 < values.max() < 2**31


@pytest.mark.parametrize("across", ["numbers", "steps"])
def test_normal_is_standard_normal(across: str):
    n = 200_000
    steps, shape = (3, (n,)) if across == "numbers" else (torch.arange(n), (1,))
    values = rng.normal(torch.tensor([2]), "stream", steps, shape).flatten().double().numpy()
    assert np.isfinite(values).all()
    assert scipy.stats.kstest(values, "norm").pvalue > 0.001
    moments = [np.mean(values**k) for k in (1, 2, 3, 4)]
    # Standard errors of the moments: sqrt(Var(x^k) / n) with variances 1, 2, 15, 96.
    errors = 4 * np.sqrt(np.array([1, 2, 15, 96]) / n)
    assert (np.abs(np.array(moments) - [0, 1, 0, 3]) < errors).all()
    assert abs(np.corrcoef(values[::2], values[1::2])[0, 1]) < 4 / (n / 2) ** 0.5


def test_normal_is_box_muller_in_double_precision_rounded_once():
    shape = (50, 100)
    radius, angle = rng.uniform(SEEDS, "stream", 4, (2, *shape)).double().numpy().swapaxes(0, 1)
    expected = np.sqrt(-2.0 * np.log1p(-radius)) * np.cos(2.0 * math.pi * angle)
    values = rng.normal(SEEDS, "stream", 4, shape)
    assert values.dtype == torch.float32
    assert np.array_equal(values.numpy(), expected.astype(np.float32))


@each_draw
@pytest.mark.parametrize("shape", [(2, 3), (3, 2), (6,), (1,), ()])
def test_draws_equal_direct_draws_forwards_and_backwards(draw, shape: tuple[int, ...]):
    draws = rng.Draws(draw, SEEDS, "stream", shape)
    length = rng.Draws.WORDS // (4 * math.prod(shape))
    steps = [0, 1, length - 1, length, length + 1, 7 * length + 3, 2**33, 1, 0, length - 1]
    for step in steps:
        assert torch.equal(draws(step), draw(SEEDS, "stream", step, shape))


def test_draws_larger_than_a_block_are_made_one_by_one():
    shape = (rng.Draws.WORDS + 1,)
    draws = rng.Draws(rng.uniform, SEEDS, "stream", shape)
    for step in (3, 4, 3):
        assert torch.equal(draws(step), rng.uniform(SEEDS, "stream", step, shape))


@each_draw
@pytest.mark.parametrize("shape", [(2, 3), (1,), ()])
def test_steps_counted_by_tensors_draw_what_int_steps_draw(draw, shape: tuple[int, ...]):
    draws = rng.Draws(draw, SEEDS, "stream", shape)
    for step in (0, 3, 42, 2**33 - 2, 1, 0):  # in any order, tensors and ints in turn
        assert torch.equal(draws(torch.tensor(step)), draw(SEEDS, "stream", step, shape))
        assert torch.equal(draws(step), draws(torch.tensor(step)))


@each_draw
def test_torchs_generator_is_neither_read_nor_moved(draw):
    state = torch.get_rng_state()
    first = draw(SEEDS, "stream", 0, (100,))
    assert torch.equal(torch.get_rng_state(), state)
    with torch.random.fork_rng():
        torch.manual_seed(123)
        assert torch.equal(draw(SEEDS, "stream", 0, (100,)), first)
