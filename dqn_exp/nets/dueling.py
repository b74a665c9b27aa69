"""Dueling network. Wang et al. 2016, https://arxiv.org/abs/1511.06581.

Deviations: gradients entering the trunk are not scaled by 1/sqrt(2); clipping is left to `optim.clip`.
"""

from torch import Tensor

from dqn_exp.config import schema
from dqn_exp.interfaces import Agent, Context, Weights
from dqn_exp.nets.layers import FractionEmbedding, Layout, Stack, noise_metrics, vector_features
from dqn_exp.registry import register


@register("net", "dueling")
class Dueling:
    """A shared trunk, then a state-value and an advantage stream; of atoms, a pair for each atom.

    Only the streams may be noisy. Quantile fractions of implicit agents are embedded after the trunk.

    Raises:
        ValueError: observations that are no vectors.
    """

    config: schema.Dueling

    def __init__(self, context: Context, agent: Agent, config: schema.Dueling):
        spec, layout, activation, sigma = context.spec, Layout(), config.activation, config.sigma
        trunk = [vector_features(spec.obs_shape), *config.hidden]
        stream = [trunk[-1], *config.stream_hidden]
        self._n_atoms, atoms = agent.n_atoms, agent.n_atoms or 1
        self._trunk = Stack(layout, trunk, activation, activate_last=True)
        self._value = Stack(layout, [*stream, atoms], activation, sigma=sigma)
        self._advantage = Stack(layout, [*stream, spec.n_actions * atoms], activation, sigma=sigma)
        self._embedding = FractionEmbedding(layout, trunk[-1]) if agent.implicit else None
        self.n_params, self.n_noise = sum(layout.sizes), layout.n_noise
        self.init, self.views = layout.init, layout.views

    def __call__(
        self,
        weights: Weights,
        obs: Tensor,
        noise: Tensor | None = None,
        fractions: Tensor | None = None,
    ) -> Tensor:
        """Weights from `views`, obs [S, B, D] -> outputs [S, B, A] or [S, B, A, K].

        Eq. 9: Q = V + A - mean_a A.
        """
        features = self.features(weights, obs)
        if fractions is not None:
            assert self._embedding is not None, "only implicit agents ask at fractions"
            features = self._embedding(weights, features, fractions)
        value = self._value(weights, features, noise)
        advantage = self._advantage(weights, features, noise)
        if self._n_atoms:
            value, advantage = value.unsqueeze(-2), advantage.unflatten(-1, (-1, self._n_atoms))
        actions = -2 if self._n_atoms else -1
        output = value + advantage - advantage.mean(actions, keepdim=True)
        return output if fractions is None else output.unflatten(1, (obs.shape[1], -1)).mT

    def features(self, weights: Weights, obs: Tensor) -> Tensor:
        """Activations [S, B, F] of the trunk's last layer."""
        return self._trunk(weights, obs.to(weights[0].dtype))

    def metrics(self, weights: Weights) -> dict[str, Tensor]:
        """`train/noise_sigma` of noisy layers, [S]."""
        return noise_metrics([*self._value.layers, *self._advantage.layers], weights)
