"""The learner's gradient, recorded as a graph: the compiler cannot differentiate inside a loop."""

from dataclasses import replace

import torch
from torch import Tensor

from dqn_exp.interfaces import Batch
from dqn_exp.learner import Gradient, Learner

LEARNED_FROM = ("obs", "action", "reward", "discount", "next_obs", "weight")  # fields of a Batch


class RecordedGradient:
    """Stands in for `Learner.gradient`, for batches of the shape it was recorded with."""

    def __init__(self, learner: Learner, batch: Batch):
        from torch.fx.experimental.proxy_tensor import make_fx  # slow to import

        tags: list[str] = []

        def gradient(params: Tensor, target_params: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
            online, target = learner.net.views(params), learner.net.views(target_params)
            leaves = [view.detach().requires_grad_() for view in online]
            learned_from = dict(zip(LEARNED_FROM, inputs, strict=False))
            drawn = [*inputs[len(LEARNED_FROM) :]]
            found = learner.gradient_at(leaves, online, target, replace(batch, **learned_from), drawn)
            tags[:] = found.metrics
            return found.grad, found.priority, *found.metrics.values()

        rate = torch.zeros(len(learner.params), device=learner.params.device)
        inputs = [getattr(batch, name) for name in LEARNED_FROM] + learner.draw(batch, 0, rate)
        # The compiler fuses a sum after a product with what follows it, but not a product onto a bias.
        decompositions = {torch.ops.aten.baddbmm.default: lambda bias, x, y: torch.bmm(x, y) + bias}
        self._params, self._target_params = learner.params, learner.target.params
        self._graph = make_fx(gradient, decompositions)(self._params, self._target_params, *inputs)
        self._tags = tags

    def __call__(self, batch: Batch, drawn: list[Tensor]) -> Gradient:
        """As `Learner.gradient`."""
        learned_from = (getattr(batch, name) for name in LEARNED_FROM)
        grad, priority, *values = self._graph(self._params, self._target_params, *learned_from, *drawn)
        return Gradient(grad, priority, dict(zip(self._tags, values, strict=True)))


def record(learner: Learner, batch: Batch) -> None:
    """Make the learner ready for compiled loops; in plain code it works as before."""
    recorded = RecordedGradient(learner, batch)
    learner.means.expect([*recorded._tags, "train/grad_norm"])
    learner.means.block = 1
    learner.gradient = recorded  # type: ignore[method-assign]
