"""Multi-layer perceptron."""

from torch import Tensor

from dqn_exp.nets.layers import (
    ACTIVATIONS,
    FractionEmbedding,
    Layout,
    Stack,
    noise_metrics,
    vector_features,
)
from dqn_exp.registry import register
from dqn_exp.types import Agent, Context, Weights


@register("net", "mlp")
class MLP:
    """Q(s, .) as linear layers with activations between them.

    The first layer is never noisy: it stands for the convolutions of the papers. An implicit agent's
    fractions are embedded after the last hidden layer.

    Raises:
        ValueError: observations that are no vectors, or an output activation for distributions.
    """

    def __init__(
        self,
        context: Context,
        agent: Agent,
        *,
        hidden: list[int],
        activation: str,
        output_activation: str | None,
        sigma: float | None,
    ):
        if output_activation and (agent.n_atoms or agent.implicit):
            raise ValueError(
                f"net.output_activation={output_activation}: this agent's outputs are distributions"
            )
        spec, layout = context.spec, Layout()
        n_inputs, self._n_atoms = vector_features(spec.obs_shape), agent.n_atoms
        last = [n_inputs, *hidden][-1]
        self._trunk = Stack(
            layout, [n_inputs, *hidden], activation, activate_last=True, sigma=sigma, plain=1
        )
        n_outputs = spec.n_actions * (agent.n_atoms or 1)
        self._output = Stack(
            layout, [last, n_outputs], activation, sigma=sigma, plain=0 if hidden else 1
        )
        self._embedding = FractionEmbedding(layout, last) if agent.implicit else None
        self._activate = ACTIVATIONS[output_activation] if output_activation else None
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
        return self._activate(output) if self._activate else output

    def features(self, weights: Weights, obs: Tensor, noise: Tensor | None = None) -> Tensor:
        """Activations [S, B, F] of the last hidden layer."""
        return self._trunk(weights, obs.to(weights[0].dtype), noise)

    def metrics(self, weights: Weights) -> dict[str, Tensor]:
        """`train/noise_sigma` of noisy layers, [S]."""
        return noise_metrics([*self._trunk.layers, *self._output.layers], weights)
