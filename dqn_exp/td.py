"""Temporal-difference maths as pure functions on tensors [..., A] or [...]; no networks, no state."""

import torch
from torch import Tensor
from torch.nn import functional as F


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
    return F.huber_loss(estimate, target, reduction="none")


def squared(estimate: Tensor, target: Tensor) -> Tensor:
    """(target - estimate)^2, all [...]."""
    return F.mse_loss(estimate, target, reduction="none")


LOSSES = {"huber": huber, "mse": squared}


def select_atoms(atoms: Tensor, action: Tensor) -> Tensor:
    """Atoms [..., K] of the chosen actions: [..., A, K] at int64 action [...]."""
    index = action[..., None, None].expand(*action.shape, 1, atoms.shape[-1])
    return atoms.gather(-2, index).squeeze(-2)


def categorical_projection(
    support: Tensor, probabilities: Tensor, reward: Tensor, discount: Tensor
) -> Tensor:
    """Project R + discount * Z onto the support of Z. Bellemare et al. 2017, eq. 7.

    Args:
        support: [K] atoms z_i, evenly spaced.
        probabilities: [..., K] of Z at the atoms.
        reward, discount: [...].

    Returns:
        [..., K]: each moved atom's mass, shared between its two neighbours by distance; what falls
        outside the support goes to its ends.
    """
    moved = reward.unsqueeze(-1) + discount.unsqueeze(-1) * support
    moved = moved.clamp(support[0], support[-1]).unsqueeze(-2)
    distance = (moved - support.unsqueeze(-1)).abs() / (support[1] - support[0])
    return ((1.0 - distance).clamp(min=0.0) * probabilities.unsqueeze(-2)).sum(-1)


def quantile_huber(quantiles: Tensor, fractions: Tensor, target: Tensor) -> Tensor:
    """Quantile Huber loss with kappa = 1. Dabney et al. 2018, eq. 9, 10; 2018b, eq. 3.

    Args:
        quantiles: [..., K] estimates theta_i.
        fractions: [..., K] tau_i that they are quantiles at.
        target: [..., K'] samples of the target distribution.

    Returns:
        [...]: sum over i of the mean over j of |tau_i - 1{u < 0}| huber(u), u = target_j - theta_i.
    """
    error = target.unsqueeze(-2) - quantiles.unsqueeze(-1)
    size = error.abs()
    loss = torch.where(size <= 1.0, 0.5 * error.square(), size - 0.5)
    weight = (fractions.unsqueeze(-1) - (error < 0.0).to(error.dtype)).abs()
    return (weight * loss).mean(-1).sum(-1)


def sample_action(probabilities: Tensor, draw: Tensor) -> Tensor:
    """Int64 actions [...], with probabilities [..., A], by inversion of uniform draws [...]."""
    sums = probabilities.cumsum(-1)
    # In shares of the whole, which rounding may leave below 1: no action of probability 0 is drawn.
    below = sums[..., :-1] <= draw.unsqueeze(-1) * sums[..., -1:]
    return below.sum(-1)


def log_policy(q: Tensor, temperature: float) -> Tensor:
    """temperature * log softmax(q / temperature), [..., A]. Vieillard et al. 2020, appendix B.1."""
    return temperature * torch.log_softmax(q / temperature, -1)


def munchausen_bonus(q: Tensor, action: Tensor, temperature: float, low: float) -> Tensor:
    """temperature * log pi(a|s), clipped to [low, 0]: q [..., A] -> [...]. Vieillard 2020, eq. 2."""
    return select(log_policy(q, temperature), action).clamp(low, 0.0)


def soft_bootstrap(q_next: Tensor, temperature: float) -> Tensor:
    """sum_a pi(a) (q(a) - temperature log pi(a)), pi = softmax(q / temperature): [..., A] -> [...]."""
    return temperature * torch.logsumexp(q_next / temperature, -1)


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


def effective_sample_size(weight: Tensor) -> Tensor:
    """How many equal importance weights the weights [..., B] are worth: (sum w)^2 / sum w^2, [...]."""
    return weight.sum(-1).square() / weight.square().sum(-1)
