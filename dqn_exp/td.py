"""Temporal-difference maths as pure functions on tensors [..., A] or [...]; no networks, no state."""

import torch
from torch import Tensor

NO_REDUCTION = 0  # the operators under torch.nn.functional, without its checks and broadcasts


def select(q: Tensor, action: Tensor) -> Tensor:
    """Values [...] of the chosen actions: q [..., A] at int64 action [...]."""
    return q.gather(-1, action.unsqueeze(-1)).squeeze(-1)


def q_learning_bootstrap(q_next: Tensor) -> Tensor:
    """max_a Q(s', a): [..., A] -> [...]. Watkins 1989; Mnih et al. 2015 with the target network."""
    return q_next.amax(-1)


def double_q_bootstrap(q_next: Tensor, q_selector: Tensor) -> Tensor:
    """Q(s', argmax_a Q_selector(s', a)): two [..., A] -> [...]. van Hasselt et al. 2016, eq. 4."""
    return select(q_next, q_selector.argmax(-1))


def target(reward: Tensor, discount: Tensor, bootstrap: Tensor) -> Tensor:
    """The n-step TD target R + discount * bootstrap, all [...].

    `discount` is gamma^n (1 - terminated), so termination, truncation and windows of any length need
    no branches (Sutton & Barto 2018, sec. 7.1; Pardo et al. 2018 on time limits).
    """
    return torch.addcmul(reward, discount, bootstrap)


def huber(estimate: Tensor, target: Tensor) -> Tensor:
    """With x = target - estimate: 0.5 x^2 where |x| <= 1, else |x| - 0.5; all [...]. Huber 1964."""
    return torch.ops.aten.huber_loss.default(estimate, target, NO_REDUCTION)


def squared(estimate: Tensor, target: Tensor) -> Tensor:
    """(target - estimate)^2, all [...]."""
    return torch.ops.aten.mse_loss.default(estimate, target, NO_REDUCTION)


LOSSES = {"huber": huber, "mse": squared}


def n_step(reward: Tensor, stop: Tensor, powers: Tensor) -> tuple[Tensor, Tensor]:
    """Discounted returns over windows that end early where they must.

    Args:
        reward: [..., n] rewards of n consecutive steps.
        stop: [..., n] bool, the window may not go past this step (an episode's end, the newest
            transition stored). The last step of a window always stops it.
        powers: [n], gamma^k.

    Returns:
        return [...] = sum_{k <= m} gamma^k r_k (Sutton & Barto 2018, eq. 7.1 without the bootstrap)
        and m int64 [...], the position of the last step used.
    """
    position = torch.arange(stop.shape[-1], device=stop.device)
    last = torch.where(stop, position, stop.shape[-1] - 1).amin(-1)
    used = position <= last.unsqueeze(-1)
    return (reward * powers * used).sum(-1), last
