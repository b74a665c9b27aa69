"""Learning rules, and lookup tables for their networks: an observation is the number of a row."""

from collections.abc import Callable
from typing import Any

import torch
from helpers import context, part
from torch import Tensor

from dqn_exp.interfaces import Batch, Forward, Loss, Networks

NO_DRAWS = torch.empty(0)
TARGET = {"tau": 0.005, "every": None, "episodes": None}


def rule(option: str, **keys: Any) -> Any:
    """A learning rule, by an option of conf/agent, with its own keys."""
    return part("agent", option, context(), **{"gamma": 0.9, "n_step": 1, "target": TARGET} | keys)


def q_of(loss: Loss) -> Tensor:
    """Values [S, B] of the actions taken, as a rule reports them."""
    return loss.metrics["train/q_mean"]


def target_of(loss: Loss) -> Tensor:
    """TD targets [S, B], as a rule reports them."""
    return loss.metrics["train/target_mean"]


def lookup(table: Tensor) -> Forward:
    """A network whose outputs are rows [A] or [A, K]; asked at fractions, [A] plus the fraction."""

    def net(obs: Tensor, *, fractions: Tensor | None = None) -> Tensor:
        rows = table[obs]
        return rows if fractions is None else rows.unsqueeze(-1) + fractions.unsqueeze(-2)

    return net


def unasked(q: Tensor) -> Tensor:
    raise AssertionError("an off-policy rule does not ask how actions are explored")


def networks(
    online: Tensor,
    target: Tensor,
    selector: Tensor | None = None,
    draws: Tensor = NO_DRAWS,
    behaviour: Callable[[Tensor], Tensor] = unasked,
) -> Networks:
    """Tables in the roles of networks; the selector's is the online one unless given."""
    selector = online if selector is None else selector
    return Networks(lookup(online), lookup(selector), lookup(target), draws, behaviour)


def batch(obs: list, action: list, reward: list, discount: list, next_obs: list) -> Batch:
    """A minibatch [S, B], with weights that no learning rule should look at."""
    rewards = torch.tensor(reward)
    index = torch.zeros_like(rewards, dtype=torch.int64)
    rows, actions, discounts = torch.tensor(obs), torch.tensor(action), torch.tensor(discount)
    weight = torch.full_like(rewards, 0.123)
    return Batch(rows, actions, rewards, discounts, torch.tensor(next_obs), weight, index)
