"""Stateless random numbers: Philox4x32-10 on tensors.

A draw is a pure function of (seed value, stream name, step): seed 7 draws the same numbers alone, as
the third of eight, on CPU or GPU, before or after a resume. Nothing here holds or touches a generator.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
Letters: S seeds, L steps drawn at once.
"""

import math
import zlib
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from dqn_exp.compiled.kernels import stack
from dqn_exp.interfaces import Step, widest_float

MASK32 = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def philox(counter: tuple[Tensor, ...], key: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Philox4x32-10: four 32-bit words from a 128-bit counter and a 64-bit key.

    Args:
        counter: four int64 tensors holding 32-bit words, least significant first, of shapes that
            broadcast with each other and with `key`.
        key: two int64 tensors holding 32-bit words.

    Returns:
        Four int64 tensors of 32-bit words of the broadcast shape.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        # The int64 product wraps, but its 64 bits are the unsigned product's: mask after the shift.
        low, high = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (high >> 32 & MASK32) ^ c1 ^ k0,
            high & MASK32,
            (low >> 32 & MASK32) ^ c3 ^ k1,
            low & MASK32,
        )
        k0, k1 = k0 + _WEYL[0] & MASK32, k1 + _WEYL[1] & MASK32
    return c0, c1, c2, c3


def word_of(stream: str) -> int:
    """The 32-bit word that stands for a stream's name."""
    return zlib.crc32(stream.encode())


def words(value: Tensor) -> tuple[Tensor, Tensor]:
    """Low and high 32-bit word of non-negative int64."""
    return value & MASK32, value >> 32


def unit(bits: Tensor) -> Tensor:
    """32-bit words -> float32 in [0, 1), multiples of 2^-24."""
    return (bits >> 8).to(torch.int32).to(torch.float32) * 2.0**-24


def bits(seeds: Tensor, stream: str | int, step: int | Tensor, shape: tuple[int, ...]) -> Tensor:
    """Random 32-bit words.

    Args:
        seeds: [S] int64 seed values, each >= 0.
        stream: name of what the numbers are for, or its word; different names give independent
            numbers.
        step: what the draw is keyed by (env steps, gradient steps, episodes), or [L] of them.
        shape: of one seed's draw.

    Returns:
        int64 [S, *shape], or [L, S, *shape] if `step` is a tensor; values in [0, 2^32).
    """
    size = math.prod(shape)
    block = torch.arange(-(-size // 4), device=seeds.device)
    steps = torch.as_tensor(step, dtype=torch.int64, device=seeds.device)[..., None, None]
    seed = seeds[:, None]
    counter = (block, *words(steps), words(seed)[1])
    word = word_of(stream) if isinstance(stream, str) else stream
    key = (seed & MASK32, torch.tensor(word, device=seeds.device))
    used = -(-size // len(block)) if size else 1  # of the four words
    drawn = stack(philox(counter, key)[:used], -2).flatten(-2)[..., :size]
    return drawn.reshape(*drawn.shape[:-1], *shape)


def uniform(seeds: Tensor, stream: str | int, step: int | Tensor, shape: tuple[int, ...]) -> Tensor:
    """Uniform float32 as `unit` makes them; arguments and shapes as `bits`."""
    return unit(bits(seeds, stream, step, shape))


def integers(
    seeds: Tensor, stream: str | int, step: int | Tensor, shape: tuple[int, ...], high: int
) -> Tensor:
    """Uniform int64 in [0, high), 1 <= high <= 2^31; otherwise as `bits`.

    The bias of the multiply-shift method (Lemire 2019) is below high / 2^32.
    """
    return bits(seeds, stream, step, shape) * high >> 32


def normal(seeds: Tensor, stream: str | int, step: int | Tensor, shape: tuple[int, ...]) -> Tensor:
    """Standard normal float32 by the Box-Muller transform; arguments and shapes as `bits`."""
    pair = uniform(seeds, stream, step, (2, *shape))
    # Rounded only at the end: devices and compilers differ in the last bits of log and cos.
    radius, angle = pair.to(widest_float(pair.device)).unbind(-1 - len(shape))
    return ((-2.0 * torch.log1p(-radius)).sqrt() * torch.cos(2.0 * math.pi * angle)).float()


class Draws:
    """The draws of consecutive steps; plain code makes a block at a time and indexes into it.

    `Draws(uniform, seeds, stream, shape)(step)` equals `uniform(seeds, stream, step, shape)`.
    """

    WORDS = 1 << 15  # per block: enough to amortise the calls, few enough to stay in cache

    def __init__(self, draw: Callable[..., Tensor], seeds: Tensor, stream: str, shape: tuple[int, ...]):
        self._draw = partial(draw, seeds, word_of(stream), shape=shape)
        self._block = max(1, self.WORDS // (len(seeds) * math.prod(shape)))
        self._start, self._rows = -1, ()  # the block drawn for int steps
        self._offsets = torch.arange(self._block, device=seeds.device)

    def __call__(self, step: Step) -> Tensor:
        """The draw [S, *shape] of `step`."""
        if isinstance(step, Tensor):  # in compiled code, which does not know its value
            return self._draw(step=step)
        start = step - step % self._block
        if start != self._start:
            self._rows = self._draw(step=start + self._offsets).unbind()
            self._start = start
        return self._rows[step - start]
