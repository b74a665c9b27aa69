"""Multi-layer perceptron."""

from torch import Tensor

from dqn_exp.nets.layers import Layout, Stack, vector_features
from dqn_exp.registry import register
from dqn_exp.types import Context, Weights


@register("net", "mlp")
class MLP:
    """Q(s, .) as linear layers with activations between them."""

    def __init__(self, context: Context, *, hidden: list[int], activation: str):
        spec = context.spec
        self._layout = Layout()
        self._stack = Stack(
            self._layout,
            [vector_features(spec.obs_shape), *hidden, spec.n_actions],
            activation,
        )
        self.n_params = sum(self._layout.sizes)
        self.init = self._layout.init
        self.views = self._layout.views

    def __call__(self, weights: Weights, obs: Tensor) -> Tensor:
        """Weights from `views`, obs [S, B, D] -> Q-values [S, B, A]."""
        return self._stack(weights, obs.to(weights[0].dtype))
