"""Where torch lacks a private entry, the public function that replaces it computes the same."""

import pytest
import torch
from helpers import context, part

from dqn_exp.compiled import kernels


@pytest.mark.parametrize("option", ["adam", "adamw"])
@pytest.mark.parametrize("amsgrad", [False, True])
def test_without_the_fused_kernel_adam_updates_the_same(
    monkeypatch: pytest.MonkeyPatch, option: str, amsgrad: bool
) -> None:
    draw = torch.Generator().manual_seed(0)
    start, grads = torch.randn(2, 50, generator=draw), torch.randn(5, 2, 50, generator=draw)

    def trained() -> torch.Tensor:
        params, optimizer = start.clone(), part("optim", option, context(), amsgrad=amsgrad)
        optimizer.start(params)
        for count, grad in enumerate(grads, 1):
            optimizer.step(params, grad.clone(), 1e-2, count)
        return params

    fused = trained()
    monkeypatch.setattr(kernels, "FUSED_ADAM", [None, None])
    assert torch.equal(trained(), fused)
    assert not torch.equal(fused, start)


def test_without_the_engine_gradients_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = torch.Generator().manual_seed(0)
    x, w = torch.randn(2, 8, 3, generator=draw), torch.randn(2, 3, 1, generator=draw)
    weight = torch.rand(2, 8, generator=draw)
    leaf = w.requires_grad_()

    def gradient() -> torch.Tensor:
        (grad,) = kernels.gradients((x @ leaf).squeeze(-1).square(), [leaf], weight)
        return grad

    quick = gradient()
    monkeypatch.setattr(kernels, "_engine_run_backward", None)
    assert torch.equal(gradient(), quick)
