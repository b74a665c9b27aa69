"""What the learner draws: noise for acting and for each network of an update, and a rule's own draws.

And what it says about its networks.
"""

import dataclasses

import pytest
import torch
from test_learner import HIDDEN, SEEDS, A, B, Twin, batch, make
from torch import Tensor
from torch.testing import assert_close

from dqn_exp import rng
from dqn_exp.agents.dqn import DQN
from dqn_exp.agents.expected_sarsa import ExpectedSARSA
from dqn_exp.agents.sarsa import SARSA
from dqn_exp.config import schema
from dqn_exp.interfaces import Batch, Context, Loss, Networks
from dqn_exp.learner import Learner

SIGMA = 0.5


class Witness(DQN):
    """Remembers what each network says of the minibatch, and what it is given to draw with."""

    def __init__(self, context: Context, config: schema.DQN):
        super().__init__(context, config)
        self.seen: list[Tensor] = []

    def loss(self, nets: Networks, batch: Batch) -> Loss:
        said = [net(batch.obs).detach() for net in (nets.online, nets.selector, nets.target)]
        self.seen.append(torch.stack(said, dim=1))  # [S, 3, B, A]
        return super().loss(nets, batch)


def witness(seeds: Tensor, steps: range) -> Tensor:
    """[S, steps, 3, B, A], from parameters that stay as they are and the same minibatch."""
    agents: list[Witness] = []

    def rule(context: Context, config: schema.DQN) -> Witness:
        agents.append(Witness(context, config))
        return agents[-1]

    learner = make(seeds, rule=rule, plain=True, sigma=SIGMA)
    before = learner.params.clone()
    b = still(batch(0, seeds))
    for step in steps:
        learner.update(b, env_step=step, gradient_step=step)
    assert torch.equal(learner.params, before)
    return torch.stack(agents[0].seen, dim=1)


def still(b: Batch) -> Batch:
    """The minibatch, of weights with which nothing is learnt."""
    return dataclasses.replace(b, weight=torch.zeros_like(b.weight))


def test_each_network_of_each_update_has_noise_of_its_own() -> None:
    said = witness(SEEDS, range(4)).flatten(1, 2)  # the networks have the same parameters yet
    for i in range(said.shape[1]):
        for j in range(i):
            assert ((said[:, i] - said[:, j]).abs().amax((1, 2)) > 1e-2).all()


def test_noise_depends_on_the_seed_value_and_the_gradient_step_alone() -> None:
    together = witness(SEEDS, range(3))
    assert_close(witness(SEEDS[1:2], range(3)), together[1:2])
    assert_close(witness(SEEDS.flip(0), range(3)).flip(0), together)
    assert torch.equal(witness(SEEDS, range(2, 3)), together[:, 2:])


def test_seeds_have_unrelated_noise_of_unit_variance() -> None:
    learner = make(SEEDS, sigma=SIGMA)
    acting = rng.normal(SEEDS, "noise/act", 7, (learner.net.n_noise,))
    weights, obs = learner.net.views(learner.params), batch(0).obs
    assert_close(learner.q(obs, 7), learner.net(weights, obs, acting))
    noise = torch.stack([*learner.draw(batch(0), 7, 0.0), acting]).flatten(0, 1)  # [4 S, M]
    assert noise.shape[1] == HIDDEN + A
    assert len({tuple(row) for row in noise.tolist()}) == 4 * len(SEEDS)
    assert noise.std().item() == pytest.approx(1.0, abs=0.15)
    correlation = torch.corrcoef(noise) - torch.eye(len(noise))
    assert correlation.abs().max() < 4.5 / noise.shape[1] ** 0.5


def test_acting_is_noisy_by_the_env_step_and_quiet_without_one() -> None:
    learner = make(sigma=SIGMA, n_envs=2)
    net, weights = learner.net, learner.net.views(learner.params)
    obs = batch(0).obs[:, :2]
    quiet = learner.q(obs)
    assert torch.equal(quiet, net(weights, obs))
    steps = [learner.q(obs, step) for step in (0, 2, 4)]
    for i, q in enumerate(steps):
        for other in (quiet, *steps[:i]):
            assert ((q - other).abs().amax((1, 2)) > 1e-2).all()
    assert torch.equal(learner.q(obs, 2), steps[1])  # whenever it is asked
    # All envs of a seed act with the same noise, which is the seed's own.
    assert_close(learner.q(obs[:, :1].expand(-1, 2, -1), 4)[:, 0], steps[2][:, 0])
    alone = make(SEEDS[1:2], sigma=SIGMA, n_envs=2)
    assert_close(alone.q(obs[1:2], 4), steps[2][1:2])


def test_a_net_without_noise_acts_the_same_at_every_step() -> None:
    learner, obs = make(), batch(0).obs
    assert torch.equal(learner.q(obs, 7), learner.q(obs))


def test_steps_counted_by_tensors_are_those_of_int_steps() -> None:
    by_ints, by_tensors = (make(sigma=SIGMA, rule=SARSA, n_envs=2) for _ in range(2))
    obs = batch(0).obs[:, :2]
    for i in range(3):
        step, gradient_step = 6 + 2 * i, 2 + i
        assert_close(by_tensors.q(obs, torch.tensor(step)), by_ints.q(obs, step))
        by_ints.update(batch(i), step, gradient_step, rate=0.5)
        by_tensors.update(batch(i), torch.tensor(step), torch.tensor(gradient_step), rate=0.5)
        assert_close(by_tensors.params, by_ints.params, rtol=0.0, atol=1e-12)


def values(learner: Learner, obs: Tensor) -> Tensor:
    """Q-values [S, B, A] by plain torch."""
    with torch.no_grad():
        nets = [Twin.net(row) for row in learner.params]
        return torch.stack([net(x.double()) for net, x in zip(nets, obs, strict=True)])


@pytest.mark.parametrize("rate", [0.25, torch.tensor(0.25), torch.tensor([0.0, 0.25, 1.0])])
def test_an_on_policy_rule_learns_about_the_present_rate_of_exploration(rate: float | Tensor) -> None:
    learner, b = make(rule=ExpectedSARSA), batch(0)
    q = values(learner, b.obs).gather(2, b.action.unsqueeze(2)).squeeze(2)
    following = values(learner, b.next_obs)
    share = torch.as_tensor(rate, dtype=torch.float64).view(-1, 1)
    y = b.reward + b.discount * ((1 - share) * following[..., 0] + share * following[..., -1])
    priority = learner.update(b, env_step=0, gradient_step=0, rate=rate)
    assert_close(priority, (y - q).abs(), rtol=0.0, atol=1e-7)


@pytest.mark.parametrize("sigma", [None, 1e-9], ids=["plain", "noisy"])
def test_a_rule_gets_draws_of_its_own_for_each_update_and_seed(sigma: float | None) -> None:
    learner, b = make(rule=SARSA, sigma=sigma, plain=True), still(batch(0))
    q = learner.q(b.obs).gather(2, b.action.unsqueeze(2)).squeeze(2)
    following = learner.q(b.next_obs)
    took_last = []
    for step in range(2):
        priority = learner.update(b, env_step=step, gradient_step=step, rate=0.5)
        ends = [(b.reward + b.discount * following[..., a] - q).abs() for a in (0, -1)]
        took_last.append(rng.uniform(SEEDS, "learn", step, (B,)) >= 0.5)
        assert_close(priority, torch.where(took_last[-1], ends[1], ends[0]), rtol=0.0, atol=1e-7)
    assert not torch.equal(*took_last)
    assert not torch.equal(took_last[0][0], took_last[0][1])


def test_target_lag_is_the_distance_in_norms_of_the_online_parameters() -> None:
    learner = make()
    assert learner.diagnostics(batch(0))["train/target_lag"].tolist() == [0.0] * 3
    factors = torch.tensor([1.5, 0.0, -1.0], dtype=torch.float64)
    learner.target.params.copy_(factors.unsqueeze(1) * learner.params)
    assert_close(
        learner.diagnostics(batch(0))["train/target_lag"],
        torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64),
    )


def test_a_unit_is_dead_if_it_is_zero_for_the_whole_minibatch() -> None:
    learner, b = make(), batch(0)
    weight, bias = learner.net.views(learner.params)[:2]
    weight.zero_()
    bias.fill_(1.0)
    bias[0, 0, :5] = -1.0  # five of the first seed's units, none of the second's, all of the third's
    bias[2] = -1.0
    # A unit alive for one observation alone is alive.
    weight[2, 0, 0], bias[2, 0, 0] = 1.0, -100.0
    b.obs[2, 3, 0] = 101.0
    dead = learner.diagnostics(b)["train/dead_units"]
    assert dead.tolist() == pytest.approx([5 / HIDDEN, 0.0, (HIDDEN - 1) / HIDDEN])


def test_diagnostics_of_a_noisy_net_tell_its_noise() -> None:
    assert "train/noise_sigma" not in make().diagnostics(batch(0))
    sigma = make(sigma=SIGMA).diagnostics(batch(0))["train/noise_sigma"]
    assert sigma.tolist() == pytest.approx([SIGMA / HIDDEN**0.5] * 3)
