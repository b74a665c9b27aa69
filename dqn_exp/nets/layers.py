"""Seed-batched layers over one parameter matrix.

All parameters of all seeds are one matrix [S, P]. A network lays its layers out in it once; their
weights are views of it, and multiply with the seed as the batch dimension of `baddbmm`.
Letters: S seeds, B batch, P parameters.
"""

import itertools
import math

import torch
from torch import Tensor
from torch.nn import functional as F

from dqn_exp import rng
from dqn_exp.types import Weights

ACTIVATIONS = {
    "relu": F.relu,
    "tanh": torch.tanh,
    "elu": F.elu,
    "gelu": F.gelu,
    "silu": F.silu,
    "leaky_relu": F.leaky_relu,
}


class Layout:
    """Where each tensor of a network lies in a row of the parameter matrix."""

    def __init__(self) -> None:
        self.sizes: list[int] = []  # elements of each tensor; their sum is P
        self._shapes: list[tuple[int, ...]] = []
        self._bounds: list[float] = []

    def add(self, shape: tuple[int, ...], bound: float) -> int:
        """Reserve a tensor, initialised uniformly in [-bound, bound); returns its number."""
        self.sizes.append(math.prod(shape))
        self._shapes.append(shape)
        self._bounds.append(bound)
        return len(self._shapes) - 1

    def init(self, seeds: Tensor) -> Tensor:
        """Fresh parameters, float32 [S, P]: tensor i of a seed is keyed by (seed, "init", i)."""
        chunks = [
            (2.0 * rng.uniform(seeds, "init", i, (size,)) - 1.0) * bound
            for i, (size, bound) in enumerate(zip(self.sizes, self._bounds, strict=True))
        ]
        return torch.cat(chunks, dim=1)

    def views(self, params: Tensor) -> Weights:
        """Views [S, *shape] of parameters [S, P], in order of their numbers."""
        chunks = torch.split_with_sizes(params, self.sizes, dim=1)
        S = len(params)
        return [chunk.view(S, *shape) for chunk, shape in zip(chunks, self._shapes, strict=True)]


class Linear:
    """y = x W + b for every seed, drawn like torch.nn.Linear: U(-1/sqrt(in), 1/sqrt(in))."""

    def __init__(self, layout: Layout, n_in: int, n_out: int):
        bound = 1.0 / math.sqrt(n_in)
        self._weight = layout.add((n_in, n_out), bound)
        self._bias = layout.add((1, n_out), bound)

    def __call__(self, weights: Weights, x: Tensor) -> Tensor:
        """[S, B, in] -> [S, B, out]."""
        if torch.compiler.is_compiling():  # which merges the addition with the activation
            return torch.bmm(x, weights[self._weight]) + weights[self._bias]
        return torch.baddbmm(weights[self._bias], x, weights[self._weight])


class Stack:
    """Linear layers with an activation after each but, unless `activate_last`, the last."""

    def __init__(self, layout: Layout, widths: list[int], activation: str, activate_last: bool = False):
        self._layers = [Linear(layout, n_in, n_out) for n_in, n_out in itertools.pairwise(widths)]
        self._activation = ACTIVATIONS[activation]
        self._activated = len(self._layers) - (0 if activate_last else 1)

    def __call__(self, weights: Weights, x: Tensor) -> Tensor:
        """[S, B, widths[0]] -> [S, B, widths[-1]]."""
        for i, layer in enumerate(self._layers):
            x = layer(weights, x)
            if i < self._activated:
                x = self._activation(x)
        return x


def vector_features(obs_shape: tuple[int, ...]) -> int:
    """D of a vector observation.

    Raises:
        ValueError: the observation is no vector.
    """
    if len(obs_shape) != 1:
        raise ValueError(
            f"observations of shape {obs_shape}: this net takes vectors [D]; "
            "flatten them in the env, or choose a net for images"
        )
    return obs_shape[0]
