"""The update rules equal torch.optim, and clipping looks at each seed alone."""

from typing import Any

import pytest
import torch
from helpers import context, part
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim import SGD, Adam, AdamW, RMSprop
from torch.testing import assert_close

from dqn_exp import rng
from dqn_exp.optim import Optimizer

S, P, STEPS = 3, 40, 50
SEEDS = torch.tensor([3, 8, 5])
CLIPS = [{"kind": "norm", "max": 5.0}, {"kind": "value", "max": 0.7}, {"kind": "none", "max": 1e-3}]
ADAM = {"betas": [0.8, 0.99], "eps": 1e-6}
RULES: list[tuple[type[torch.optim.Optimizer], dict[str, Any]]] = [
    (AdamW, {"name": "adamw", **ADAM, "weight_decay": 0.03, "amsgrad": False}),
    (AdamW, {"name": "adamw", **ADAM, "weight_decay": 0.03, "amsgrad": True}),
    (AdamW, {"name": "adamw", **ADAM, "weight_decay": 0.0, "amsgrad": True}),
    (Adam, {"name": "adam", **ADAM, "weight_decay": 0.0, "amsgrad": False}),
    (Adam, {"name": "adam", **ADAM, "weight_decay": 0.03, "amsgrad": True}),
    (Adam, {"name": "adam", **ADAM, "weight_decay": 0.03, "amsgrad": False}),
    (RMSprop, {"name": "rmsprop", "alpha": 0.9, "eps": 1e-6, "weight_decay": 0.0, "momentum": 0.0}),
    (RMSprop, {"name": "rmsprop", "alpha": 0.9, "eps": 1e-6, "weight_decay": 0.03, "momentum": 0.8}),
    (SGD, {"name": "sgd", "weight_decay": 0.0, "momentum": 0.0}),
    (SGD, {"name": "sgd", "weight_decay": 0.03, "momentum": 0.9}),
]
KINDS = {node["name"]: node for _, node in RULES}
each_kind = pytest.mark.parametrize("node", KINDS.values(), ids=KINDS)


def optimizer(node: dict[str, Any], anneal: bool, clip: dict[str, Any], lr: float = 0.01) -> Optimizer:
    """A rule whose learning rate may reach 0 after 1000 env steps."""
    keys = {**node, "lr": lr, "anneal": anneal, "clip": clip}
    return part("optim", node["name"], context(SEEDS, total_steps=1000), **keys)


def clipping(clip: dict[str, Any]) -> Optimizer:
    return optimizer(KINDS["sgd"], anneal=False, clip=clip)


def gradient(step: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """[S, P], of another size for each seed, so that some are clipped and others are not."""
    return rng.normal(SEEDS, "test", step, (P,)).to(dtype) * torch.tensor([[0.1], [1.0], [100.0]])


def clip_like_torch(parameter: torch.nn.Parameter, clip: dict[str, Any]) -> None:
    if clip["kind"] == "norm":
        clip_grad_norm_([parameter], clip["max"])
    elif clip["kind"] == "value":
        clip_grad_value_([parameter], clip["max"])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("clip", CLIPS, ids=lambda clip: clip["kind"])
@pytest.mark.parametrize(("theirs", "node"), RULES)
def test_a_rule_equals_torch_optim_on_each_seed_alone(
    theirs: Any, node: dict[str, Any], clip: dict[str, Any], dtype: torch.dtype, tolerance: float
) -> None:
    ours = optimizer(node, anneal=True, clip=clip)
    params = rng.normal(SEEDS, "test", STEPS, (P,)).to(dtype)
    options = {key: value for key, value in node.items() if key != "name"}
    twins = [torch.nn.Parameter(row.clone()) for row in params]
    optimizers = [theirs([twin], lr=0.01, **options) for twin in twins]
    ours.start(params)
    for step in range(STEPS):
        grad = gradient(step, dtype)
        for twin, other, row in zip(twins, optimizers, grad.clone(), strict=True):
            twin.grad = row
            clip_like_torch(twin, clip)
            other.param_groups[0]["lr"] = 0.01 * (1 - 10 * step / 1000)  # every 10 of 1000 env steps
            other.step()
        ours.clip(grad)
        ours.step(params, grad, ours.lr(10 * step), count=step + 1)
        assert_close(params, torch.stack(list(twins)).detach(), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("clip", CLIPS, ids=lambda clip: clip["kind"])
def test_clipping_equals_that_of_torch_on_each_seed_alone(clip: dict[str, Any]) -> None:
    grad = gradient(0)
    twins = [torch.nn.Parameter(torch.zeros(P, dtype=torch.float64)) for _ in range(S)]
    for twin, row in zip(twins, grad.clone(), strict=True):
        twin.grad = row
        clip_like_torch(twin, clip)
    clipping(clip).clip(grad)
    assert_close(grad, torch.stack([twin.grad for twin in twins if twin.grad is not None]))


def test_a_huge_gradient_in_one_seed_leaves_the_others_unclipped() -> None:
    grad = torch.tensor([[3.0, 4.0], [3e8, 4e8], [0.3, 0.4]])
    clipping({"kind": "norm", "max": 5.1}).clip(grad)
    assert_close(grad, torch.tensor([[3.0, 4.0], [3.06, 4.08], [0.3, 0.4]]))


@pytest.mark.parametrize("clip", CLIPS, ids=lambda clip: clip["kind"])
def test_the_norm_returned_is_each_seeds_before_clipping(clip: dict[str, Any]) -> None:
    norm = clipping(clip).clip(torch.tensor([[3.0, 4.0], [300.0, 400.0], [0.0, 0.0]]))
    assert norm.tolist() == pytest.approx([5.0, 500.0, 0.0])


@each_kind
def test_an_annealed_learning_rate_goes_straight_to_zero(node: dict[str, Any]) -> None:
    lr = optimizer(node, anneal=True, clip=CLIPS[2], lr=0.02).lr
    rates = [lr(step) for step in (0, 250, 500, 900, 1000, 2000)]
    assert rates == pytest.approx([0.02, 0.015, 0.01, 0.002, 0.0, 0.0])


@each_kind
def test_a_learning_rate_of_a_tensor_step_is_that_of_the_int(node: dict[str, Any]) -> None:
    for anneal in (True, False):
        lr = optimizer(node, anneal, clip=CLIPS[2], lr=0.02).lr
        for step in (0, 333, 1000, 2000):
            assert float(lr(torch.tensor(step))) == pytest.approx(lr(step), rel=1e-14)


@each_kind
def test_starting_again_forgets_what_was_before(node: dict[str, Any]) -> None:
    rule, ends = optimizer(node, False, CLIPS[0]), []
    for _ in range(2):
        params = torch.zeros(S, P, dtype=torch.float64)
        rule.start(params)
        for step in range(3):
            rule.step(params, gradient(step), lr=0.1, count=step + 1)
        ends.append(params)
    assert torch.equal(*ends)


@each_kind
def test_a_learning_rate_that_is_not_annealed_is_constant(node: dict[str, Any]) -> None:
    lr = optimizer(node, anneal=False, clip=CLIPS[2], lr=0.02).lr
    assert {lr(step) for step in (0, 500, 1000, 2000)} == {0.02}


def test_the_learning_rate_scales_the_step() -> None:
    clip = {"kind": "none", "max": 1.0}
    params = torch.zeros(1, 1)
    for lr in (0.5, 0.0, 0.25):
        sgd = optimizer({"name": "sgd", "weight_decay": 0.0, "momentum": 0.0}, False, clip)
        sgd.start(params)
        sgd.step(params, torch.full((1, 1), 2.0), lr, count=1)
    assert params.item() == -1.5
