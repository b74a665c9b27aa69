"""Multi-layer perceptron."""

from torch import Tensor

from dqn_exp.config import schema
from dqn_exp.interfaces import Agent, Context, Weights
from dqn_exp.nets.layers import FractionEmbedding, Layout, Stack, noise_metrics, vector_features
from dqn_exp.registry import register


@register("net", "mlp")
class MLP:
    """Q(s, .) as linear layers with activations between them.

    The first layer is never noisy: it stands for the convolutions of the papers. The quantile fractions
    of implicit agents are embedded after the last hidden layer.

    Raises:
        ValueError: observations that are no vectors.
    """

    config: schema.MLP

    def __init__(self, context: Context, agent: Agent, config: schema.MLP):
        spec, layout, activation, sigma = context.spec, Layout(), config.activation, config.sigma
        widths, self._n_atoms = [vector_features(spec.obs_shape), *config.hidden], agent.n_atoms
        last = [widths[-1], spec.n_actions * (agent.n_atoms or 1)]
        self._trunk = Stack(layout, widths, activation, activate_last=True, sigma=sigma, plain=1)
        self._output = Stack(layout, last, activation, sigma=sigma, plain=0 if config.hidden else 1)
        self._embedding = FractionEmbedding(layout, widths[-1]) if agent.implicit else None
        self.n_params, self.n_noise = sum(layout.sizes), layout.n_noise
        self.init, self.views = layout.init, layout.views

    def __call__(
        self,
        weights: Weights,
        obs: Tensor,
        noise: Tensor | None = None,
        fractions: Tensor | None = None,
    ) -> Tensor:
        """Weights from `views`, obs [S, B, D] -> outputs [S, B, A] or [S, B, A, K]."""
        features = self.features(weights, obs, noise)
        if fractions is not None:
            assert self._embedding is not None, "only implicit agents ask at fractions"
            embedded = self._embedding(weights, features, fractions)
            return self._output(weights, embedded, noise).unflatten(1, (obs.shape[1], -1)).mT
        output = self._output(weights, features, noise)
        if self._n_atoms:
            return output.unflatten(-1, (-1, self._n_atoms))
        return output

    def features(self, weights: Weights, obs: Tensor, noise: Tensor | None = None) -> Tensor:
        """Activations [S, B, F] of the last hidden layer."""
        return self._trunk(weights, obs.to(weights[0].dtype), noise)

    def metrics(self, weights: Weights) -> dict[str, Tensor]:
        """`train/noise_sigma` of noisy layers, [S]."""
        return noise_metrics([*self._trunk.layers, *self._output.layers], weights)
