"""Seed-batched layers over one parameter matrix.

All parameters of all seeds are one matrix [S, P]. A network lays its layers out in it once; their
weights are views of it, and multiply with the seed as the batch dimension of `baddbmm`.
Letters: S seeds, B batch, P parameters, M noise, F features, K fractions.
"""

import itertools
import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from dqn_exp import rng
from dqn_exp.compiled.kernels import affine
from dqn_exp.interfaces import Weights

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
        self.n_noise = 0  # M
        self._shapes: list[tuple[int, ...]] = []
        self._initial: list[tuple[float, float]] = []  # centre and half width of the distribution

    def add(self, shape: tuple[int, ...], bound: float, center: float = 0.0) -> int:
        """Reserve a tensor, at first uniform in [center - bound, center + bound); its number."""
        self.sizes.append(math.prod(shape))
        self._shapes.append(shape)
        self._initial.append((center, bound))
        return len(self._shapes) - 1

    def add_noise(self, size: int) -> slice:
        """Reserve part of the noise [S, M]; returns where it is."""
        self.n_noise += size
        return slice(self.n_noise - size, self.n_noise)

    def init(self, seeds: Tensor) -> Tensor:
        """Fresh parameters, float32 [S, P]: tensor i of a seed is keyed by (seed, "init", i)."""
        chunks = [
            (2.0 * rng.uniform(seeds, "init", i, (size,)) - 1.0) * bound + center
            for i, (size, (center, bound)) in enumerate(zip(self.sizes, self._initial, strict=True))
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

    def __call__(self, weights: Weights, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """[S, B, in] -> [S, B, out]; it has no noise."""
        return affine(x, weights[self._weight], weights[self._bias])


class NoisyLinear:
    """y = x (W + sigma_W * f(e_in) f(e_out)^T) + b + sigma_b * f(e_out), with f(e) = sgn(e) sqrt|e|.

    Factorised Gaussian noise, sigmas from sigma / sqrt(in). Fortunato et al. 2018, eq. 10 and 11,
    sec. 3.2, https://arxiv.org/abs/1706.10295.
    """

    def __init__(self, layout: Layout, n_in: int, n_out: int, sigma: float):
        bound = 1.0 / math.sqrt(n_in)
        self._weight = layout.add((n_in, n_out), bound)
        self._bias = layout.add((1, n_out), bound)
        self.sigmas = (
            layout.add((n_in, n_out), 0.0, sigma * bound),
            layout.add((1, n_out), 0.0, sigma * bound),
        )
        self._noise_in, self._noise_out = layout.add_noise(n_in), layout.add_noise(n_out)

    def __call__(self, weights: Weights, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """[S, B, in] -> [S, B, out], with noise [S, M] or none."""
        weight, bias = weights[self._weight], weights[self._bias]
        if noise is not None:
            noise = noise.to(weight.dtype)
            scaled = noise.sign() * noise.abs().sqrt()
            e_in, e_out = scaled[:, self._noise_in, None], scaled[:, None, self._noise_out]
            weight = weight + weights[self.sigmas[0]] * (e_in * e_out)
            bias = bias + weights[self.sigmas[1]] * e_out
        return affine(x, weight, bias)


class Stack:
    """Linear layers with an activation after each but, unless `activate_last`, the last.

    Args:
        sigma: initial noise of the layers; None for layers without.
        plain: how many layers, from the first on, are without noise in any case.
    """

    def __init__(
        self,
        layout: Layout,
        widths: list[int],
        activation: str,
        activate_last: bool = False,
        sigma: float | None = None,
        plain: int = 0,
    ):
        self.layers = [
            Linear(layout, n_in, n_out)
            if sigma is None or i < plain
            else NoisyLinear(layout, n_in, n_out, sigma)
            for i, (n_in, n_out) in enumerate(itertools.pairwise(widths))
        ]
        self._activation = ACTIVATIONS[activation]
        self._activated = len(self.layers) - (0 if activate_last else 1)

    def __call__(self, weights: Weights, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """[S, B, widths[0]] -> [S, B, widths[-1]]."""
        for i, layer in enumerate(self.layers):
            x = layer(weights, x, noise)
            if i < self._activated:
                x = self._activation(x)
        return x


class FractionEmbedding:
    """phi(tau) = relu(W cos(pi i tau) + b), i = 0, ..., 63, by which features are multiplied.

    Dabney et al. 2018b, eq. 4, https://arxiv.org/abs/1806.06923.
    """

    N_COSINES = 64

    def __init__(self, layout: Layout, n_features: int):
        self._linear = Linear(layout, self.N_COSINES, n_features)

    def __call__(self, weights: Weights, features: Tensor, fractions: Tensor) -> Tensor:
        """Features [S, B, F] at fractions [S, B, K], or [S, 1, K] for all of B: [S, B * K, F]."""
        numbers = torch.arange(self.N_COSINES, device=features.device)
        angles = math.pi * fractions.to(features.dtype).flatten(1).unsqueeze(-1) * numbers
        phi = F.relu(self._linear(weights, torch.cos(angles)))
        phi = phi.unflatten(1, fractions.shape[1:])
        return (features.unsqueeze(2) * phi).flatten(1, 2)


def noise_metrics(layers: Iterable[Linear | NoisyLinear], weights: Weights) -> dict[str, Tensor]:
    """`train/noise_sigma`: mean |sigma| [S] of noisy layers' weights; empty if there are none."""
    sigmas = [weights[i].flatten(1) for x in layers if isinstance(x, NoisyLinear) for i in x.sigmas]
    return {"train/noise_sigma": torch.cat(sigmas, 1).abs().mean(1)} if sigmas else {}


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
