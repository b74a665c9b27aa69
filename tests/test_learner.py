"""The learner equals plain PyTorch, seed by seed; seeds and samples count as they should."""

import dataclasses
from collections.abc import Callable
from functools import partial

import pytest
import torch
from helpers import context, node, part
from torch import Tensor, nn
from torch.testing import assert_close

from dqn_exp import rng
from dqn_exp.agents.ddqn import DoubleDQN
from dqn_exp.agents.dqn import DQN
from dqn_exp.config import schema
from dqn_exp.interfaces import Batch, Context
from dqn_exp.learner import Learner

D, A, B, HIDDEN = 4, 3, 16, 20
SEEDS = torch.tensor([3, 8, 5])
NO_CLIP = {"kind": "none", "max": 1.0}
VALUE_CLIP = {"kind": "value", "max": 0.01}
TAGS = ("td_loss", "td_error_abs", "q_mean", "target_mean", "grad_norm")


def explored(q: Tensor, rate: Tensor) -> Tensor:
    """Probabilities [S, B, A]: of the last action `rate`, of the first one the rest."""
    share = rate.view(-1, 1).expand(q.shape[:2])
    return torch.stack([1.0 - share, torch.zeros_like(share), share], dim=-1)


def make(
    seeds: Tensor = SEEDS,
    dtype: torch.dtype = torch.float64,
    rule: Callable[[Context, schema.DQN], DQN] = DQN,
    plain: bool = False,
    tau: float = 0.1,
    every: int | None = None,
    episodes: int | None = None,
    sigma: float | None = None,
    n_envs: int = 1,
) -> Learner:
    """A learner with AdamW and clipping or, if `plain`, with a step of minus the gradient."""
    beside = context(seeds, n_envs, (D,), n_actions=A, dtype=dtype, batch_size=B, total_steps=1000)
    target = {"tau": tau, "every": every, "episodes": episodes}
    config = node("agent", "dqn", gamma=0.9, n_step=1, loss="huber", target=target)
    agent = rule(beside, config)
    net = part("net", "mlp", beside, agent, hidden=[HIDDEN], activation="relu", sigma=sigma)
    if plain:
        sgd = {"lr": 1.0, "weight_decay": 0.0, "momentum": 0.0, "anneal": False, "clip": NO_CLIP}
        optimizer = part("optim", "sgd", beside, **sgd)
    else:
        adam = {"lr": 0.01, "weight_decay": 0.01, "betas": [0.9, 0.999], "eps": 1e-8, "amsgrad": True}
        optimizer = part("optim", "adamw", beside, **adam, anneal=True, clip=VALUE_CLIP)
    return Learner(beside, net, agent, config.target, optimizer, explored)


def batch(step: int, seeds: Tensor = SEEDS, dtype: torch.dtype = torch.float64) -> Batch:
    """Random transitions [S, B], each seed's its own; every fourth is terminal."""
    obs, next_obs = rng.normal(seeds, "obs", step, (2, B, D)).unbind(1)
    action = rng.integers(seeds, "action", step, (B,), A)
    reward = 2 * rng.normal(seeds, "reward", step, (B,)).to(dtype)
    discount = torch.tensor([0.9, 0.9, 0.9, 0.0], dtype=dtype).repeat(B // 4).expand_as(reward)
    return Batch(obs, action, reward, discount, next_obs, torch.ones_like(reward), action)


class Twin:
    """One seed as one would write it without this package, starting from the learner's parameters."""

    def __init__(self, row: Tensor, double: bool):
        self.online, self.target = self.net(row), self.net(row)
        self.double = double
        self.optimizer = torch.optim.AdamW(
            self.online.parameters(), lr=0.01, weight_decay=0.01, amsgrad=True
        )

    @staticmethod
    def net(row: Tensor) -> nn.Sequential:
        net = nn.Sequential(nn.Linear(D, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, A)).to(row.dtype)
        sizes = [D * HIDDEN, HIDDEN, HIDDEN * A, A]
        for parameter, values in zip(net.parameters(), row.clone().split(sizes), strict=True):
            n_out = parameter.shape[0]
            parameter.data = values.view(-1, n_out).T if parameter.dim() == 2 else values
        return net

    @staticmethod
    def row(net: nn.Sequential) -> Tensor:
        return torch.cat([(p.mT if p.dim() == 2 else p).detach().flatten() for p in net.parameters()])

    def update(self, b: Batch, s: int, env_step: int) -> dict[str, Tensor]:
        """One update on seed s of the batch; returns the priority and what is logged."""
        obs, next_obs = b.obs[s].to(b.reward.dtype), b.next_obs[s].to(b.reward.dtype)
        q = self.online(obs)[range(B), b.action[s]]
        with torch.no_grad():
            best = (self.online if self.double else self.target)(next_obs).argmax(1)
            y = b.reward[s] + b.discount[s] * self.target(next_obs)[range(B), best]
        loss = nn.SmoothL1Loss()(q, y)
        self.optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.online.parameters(), float("inf"))
        nn.utils.clip_grad_value_(self.online.parameters(), VALUE_CLIP["max"])
        self.optimizer.param_groups[0]["lr"] = 0.01 * (1 - env_step / 1000)
        self.optimizer.step()
        for slow, fast in zip(self.target.parameters(), self.online.parameters(), strict=True):
            slow.data = 0.9 * slow.data + 0.1 * fast.data
        priority = (y - q).abs()
        values = (loss, priority.mean(), q.mean(), y.mean(), norm)
        logged = {f"train/{tag}": value.detach() for tag, value in zip(TAGS, values, strict=True)}
        return {"priority": priority.detach()} | logged


@pytest.mark.parametrize("rule", [DQN, DoubleDQN])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-6)])
def test_updates_equal_those_of_plain_torch(
    rule: type[DQN], dtype: torch.dtype, tolerance: float
) -> None:
    learner = make(dtype=dtype, rule=rule)
    twins = [Twin(row, rule is DoubleDQN) for row in learner.params]
    for step in range(10):
        b = batch(step, dtype=dtype)
        priority = learner.update(b, env_step=10 * step, gradient_step=step)
        expected = [twin.update(b, s, env_step=10 * step) for s, twin in enumerate(twins)]
        online = torch.stack([twin.row(twin.online) for twin in twins])
        target = torch.stack([twin.row(twin.target) for twin in twins])
        close = partial(assert_close, atol=tolerance, rtol=tolerance)
        close(priority, torch.stack([e["priority"] for e in expected]))
        close(learner.params, online)
        close(learner.target.params, target)
        for tag, value in learner.means.take().items():
            close(value, torch.stack([e[tag] for e in expected]))


def test_q_values_are_those_of_the_newest_parameters() -> None:
    learner = make()
    obs = batch(0).obs
    for step in range(3):
        nets = [Twin.net(row) for row in learner.params]
        with torch.no_grad():
            expected = torch.stack([net(x.double()) for net, x in zip(nets, obs, strict=True)])
        assert_close(learner.q(obs), expected)
        learner.update(batch(step), env_step=step, gradient_step=step)


def test_each_seed_learns_as_it_would_alone() -> None:
    together = make()
    solos = [make(SEEDS[k : k + 1]) for k in range(len(SEEDS))]
    for step in range(20):
        together.update(batch(step), env_step=step, gradient_step=step)
        for k, solo in enumerate(solos):
            solo.update(batch(step, SEEDS[k : k + 1]), env_step=step, gradient_step=step)
    for k, solo in enumerate(solos):
        assert_close(together.params[k : k + 1], solo.params, atol=1e-10, rtol=0.0)
        assert_close(together.target.params[k : k + 1], solo.target.params, atol=1e-10, rtol=0.0)


def gradient(b: Batch) -> Tensor:
    """[S, P]: how far a plain step moves fresh parameters."""
    learner = make(plain=True)
    before = learner.params.clone()
    learner.update(b, env_step=0, gradient_step=0)
    return before - learner.params


def test_importance_weights_scale_each_samples_gradient_linearly() -> None:
    weight = rng.uniform(SEEDS, "weight", 0, (B,)).double()
    one_hot = torch.eye(B, dtype=torch.float64).unsqueeze(1).expand(-1, len(SEEDS), -1)
    each = torch.stack([gradient(dataclasses.replace(batch(0), weight=row)) for row in one_hot])
    weighted = gradient(dataclasses.replace(batch(0), weight=weight))
    assert_close(weighted, torch.einsum("bsp,sb->sp", each, weight), atol=1e-12, rtol=0.0)
    assert_close(gradient(batch(0)), each.sum(0), atol=1e-12, rtol=0.0)


def test_the_gradient_is_a_mean_over_the_batch() -> None:
    b = batch(0)
    fields = (getattr(b, field.name) for field in dataclasses.fields(b))
    twice = Batch(*(torch.cat([field, field], dim=1) for field in fields))
    assert_close(gradient(twice), gradient(b), atol=1e-12, rtol=0.0)


def test_a_soft_target_moves_at_every_update() -> None:
    learner = make(tau=0.25)
    for step in range(3):
        before = learner.target.params.clone()
        learner.update(batch(step), env_step=step, gradient_step=step)
        assert_close(learner.target.params, 0.75 * before + 0.25 * learner.params)


@pytest.mark.parametrize(("every", "episodes"), [(2, None), (None, 2)])
def test_a_target_with_an_interval_stays_through_updates(
    every: int | None, episodes: int | None
) -> None:
    learner = make(tau=0.25, every=every, episodes=episodes)
    before = learner.params.clone()
    for step in range(3):
        learner.update(batch(step), env_step=step, gradient_step=step)
    assert torch.equal(learner.target.params, before)  # a copy of the initial parameters
    assert not torch.equal(learner.params, before)


def test_metrics_are_averaged_over_the_updates_since_they_were_taken() -> None:
    averaged, single = make(), make()
    assert averaged.means.take() == {}
    for steps in (range(3), range(3, 5)):
        singles = []
        for step in steps:
            averaged.update(batch(step), env_step=step, gradient_step=step)
            single.update(batch(step), env_step=step, gradient_step=step)
            singles.append(single.means.take())
        metrics = averaged.means.take()
        assert set(metrics) == {f"train/{tag}" for tag in TAGS}
        for tag, value in metrics.items():
            assert value.shape == SEEDS.shape
            assert not value.requires_grad  # or graphs would pile up until the next log
            assert len(set(value.tolist())) == len(SEEDS)  # each seed's own
            assert_close(value, torch.stack([m[tag] for m in singles]).mean(0))
        assert averaged.means.take() == {}
