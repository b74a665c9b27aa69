"""Dueling network. Wang et al. 2016, https://arxiv.org/abs/1511.06581.

Deviations: gradients entering the trunk are not scaled by 1/sqrt(2); clipping is left to `optim.clip`.
"""

from torch import Tensor

from dqn_exp.nets.layers import Layout, Stack, vector_features
from dqn_exp.registry import register
from dqn_exp.types import Context, Weights


@register("net", "dueling")
class Dueling:
    """A shared trunk, then a state-value and an advantage stream."""

    def __init__(
        self, context: Context, *, hidden: list[int], stream_hidden: list[int], activation: str
    ):
        spec = context.spec
        self._layout = Layout()
        trunk = [vector_features(spec.obs_shape), *hidden]
        stream = [trunk[-1], *stream_hidden]
        self._trunk = Stack(self._layout, trunk, activation, activate_last=True)
        self._value = Stack(self._layout, [*stream, 1], activation)
        self._advantage = Stack(self._layout, [*stream, spec.n_actions], activation)
        self.n_params = sum(self._layout.sizes)
        self.init = self._layout.init
        self.views = self._layout.views

    def __call__(self, weights: Weights, obs: Tensor) -> Tensor:
        """Weights from `views`, obs [S, B, D] -> Q-values [S, B, A], eq. 9: Q = V + A - mean_a A."""
        features = self._trunk(weights, obs.to(weights[0].dtype))
        advantage = self._advantage(weights, features)
        return self._value(weights, features) + advantage - advantage.mean(-1, keepdim=True)
