"""One update equals that of the peers' own classes, on the same weights and the same minibatch.

Every seed row is compared with a peer of its own. Peers come with the extra `[parity]`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from helpers import context, part
from tables import rule
from torch import Tensor, nn
from torch.testing import assert_close

from dqn_exp import rng, td
from dqn_exp.config import schema
from dqn_exp.interfaces import Batch
from dqn_exp.learner import Learner

ENV, D, A, B, HIDDEN = "Acrobot-v1", 6, 3, 32, 16
SEEDS = torch.tensor([3, 8])
GAMMA = 0.875  # exact in float32, to which peers round it
LR, EPS, MAX_NORM = 1e-2, 1e-4, 0.1
each_seed = pytest.mark.parametrize("s", range(len(SEEDS)))
SINGLE, DOUBLE = (torch.float32, 1e-6), (torch.float64, 1e-10)  # with a tolerance
each_dtype = pytest.mark.parametrize(("dtype", "tolerance"), [SINGLE, DOUBLE])
Make = Callable[..., Any]


def make(agent: Any, dtype: torch.dtype, max_norm: float | None = None) -> Learner:
    """A learner whose target differs from its online network."""
    beside = context(SEEDS, 1, (D,), n_actions=A, dtype=dtype, batch_size=B)
    net = part("net", "mlp", beside, agent, hidden=[HIDDEN], activation="relu", sigma=None)
    clip = {"kind": "norm" if max_norm else "none", "max": max_norm or 1.0}
    adam = {"lr": LR, "betas": [0.9, 0.999], "eps": EPS, "weight_decay": 0.0, "amsgrad": False}
    optimizer = part("optim", "adam", beside, **adam, anneal=False, clip=clip)
    target = schema.Target(tau=1.0, every=1000, episodes=None)
    learner = Learner(beside, net, agent, target, optimizer, lambda q, rate: q)
    learner.target.params.copy_(net.init(SEEDS + 100))
    return learner


def layers(params: Tensor, s: int, agent: Any) -> list[Tensor]:
    """Seed s's weights [in, out] and biases [out], layer by layer."""
    K = agent.n_atoms or 1
    shapes = [(D, HIDDEN), (HIDDEN,), (HIDDEN, A * K), (A * K,)]
    shapes += [(64, HIDDEN), (HIDDEN,)] if agent.implicit else []
    chunks = params[s].clone().split([int(np.prod(shape)) for shape in shapes])
    return [chunk.view(shape) for chunk, shape in zip(chunks, shapes, strict=True)]


def write(weights: list[Tensor], module: nn.Module) -> None:
    """Give a peer's linear layers our weights, in our precision.

    Peers' inputs are always float32: they are converted on entering a layer.
    """
    module.to(weights[0].dtype)
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            layer.register_forward_pre_hook(lambda layer, x: (x[0].to(layer.weight.dtype),))
    with torch.no_grad():
        for ours, theirs in zip(weights, module.parameters(), strict=True):
            theirs.copy_(ours.mT if ours.dim() == 2 else ours)


def read(module: nn.Module) -> list[Tensor]:
    """A peer's linear layers, as we write them."""
    return [p.detach().mT if p.dim() == 2 else p.detach() for p in module.parameters()]


class Minibatch:
    """Transitions [S, B]; every fourth ends an episode, every other of these by truncation."""

    def __init__(self, reward_scale: float) -> None:
        self.obs, self.next_obs = rng.normal(SEEDS, "obs", 0, (2, B, D)).unbind(1)
        self.action = rng.integers(SEEDS, "action", 0, (B,), A)
        self.reward = reward_scale * rng.normal(SEEDS, "reward", 0, (B,))
        done = torch.arange(B) % 4 == 3
        self.truncated = done & (torch.arange(B) % 8 == 7)
        self.terminated = done & ~self.truncated

    def ours(self, dtype: torch.dtype) -> Batch:
        reward = self.reward.to(dtype)
        discount = (GAMMA * (~self.terminated).to(dtype)).expand_as(reward)
        weight = torch.ones_like(reward)
        return Batch(self.obs, self.action, reward, discount, self.next_obs, weight, self.action)

    def rows(self, s: int) -> list[tuple[Any, ...]]:
        """Of each transition: obs, next obs, action, reward, terminated, truncated; in numpy."""
        ends = self.terminated.numpy(), self.truncated.numpy()
        fields = (self.obs, self.next_obs, self.action, self.reward)
        return list(zip(*(field[s].numpy() for field in fields), *ends, strict=True))


def recorded(patch: pytest.MonkeyPatch, module: Any, name: str) -> list[tuple[tuple, Any]]:
    """Arguments and result of every call from now on of a module's function, which still works."""
    calls = []
    function = getattr(module, name)

    def record(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        calls.append((args, result))
        return result

    patch.setattr(module, name, record)
    return calls


def sb3_model(algorithm: Make, data: Minibatch, s: int, **kwargs: Any) -> Any:
    """A stable-baselines3 model whose replay buffer holds the minibatch, and gives it in order."""
    buffers = pytest.importorskip("stable_baselines3.common.buffers")
    loggers = pytest.importorskip("stable_baselines3.common.logger")

    class InOrder(buffers.ReplayBuffer):
        def sample(self, batch_size: int, env: Any = None) -> Any:
            return self._get_samples(np.arange(batch_size), env=env)

    policy = {"net_arch": [HIDDEN], "optimizer_kwargs": {"eps": EPS}}
    model = algorithm(
        "MlpPolicy",
        ENV,
        learning_rate=LR,
        gamma=GAMMA,
        buffer_size=B,
        replay_buffer_class=InOrder,
        policy_kwargs=policy | kwargs.pop("policy_kwargs", {}),
        device="cpu",
        **kwargs,
    )
    model.set_logger(loggers.Logger(None, []))
    for obs, next_obs, action, reward, terminated, truncated in data.rows(s):
        model.replay_buffer.add(
            obs[None],
            next_obs[None],
            action[None],
            reward[None],
            np.array([terminated or truncated]),
            [{"TimeLimit.truncated": bool(truncated)}],
        )
    return model


@each_seed
@each_dtype
def test_dqn_equals_that_of_stable_baselines3(
    s: int, dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = pytest.importorskip("stable_baselines3.dqn.dqn")
    data, agent = Minibatch(reward_scale=2.0), rule("dqn", gamma=GAMMA, loss="huber")
    learner = make(agent, dtype, max_norm=MAX_NORM)
    model = sb3_model(peer.DQN, data, s, max_grad_norm=MAX_NORM)
    write(layers(learner.params, s, agent), model.q_net)
    write(layers(learner.target.params, s, agent), model.q_net_target)

    our_targets = recorded(monkeypatch, td, "target")
    learner.update(data.ours(dtype), env_step=0, gradient_step=0)
    their_losses = recorded(monkeypatch, peer.F, "smooth_l1_loss")
    model.train(gradient_steps=1, batch_size=B)

    same = partial(assert_close, atol=tolerance, rtol=tolerance)
    metrics = learner.means.take()
    assert metrics["train/grad_norm"][s] > MAX_NORM  # it has been clipped
    same(our_targets[0][1][s], their_losses[0][0][1].squeeze(1))
    same(metrics["train/td_loss"][s].item(), model.logger.name_to_value["train/loss"])
    same(layers(learner.params, s, agent), read(model.q_net))


@each_seed
@each_dtype
def test_qr_dqn_equals_that_of_sb3_contrib(
    s: int, dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = pytest.importorskip("sb3_contrib.qrdqn.qrdqn")
    K = 8
    data, agent = Minibatch(reward_scale=2.0), rule("qr_dqn", gamma=GAMMA, double=False, quantiles=K)
    learner = make(agent, dtype, max_norm=MAX_NORM)
    kwargs = {"n_quantiles": K, "optimizer_class": torch.optim.Adam}
    model = sb3_model(peer.QRDQN, data, s, max_grad_norm=MAX_NORM, policy_kwargs=kwargs)

    def quantile_major(params: Tensor) -> list[Tensor]:
        """Our outputs are [A, K], theirs [K, A]."""
        *trunk, weight, bias = layers(params, s, agent)
        return [*trunk, *(x.unflatten(-1, (A, K)).mT.flatten(-2) for x in (weight, bias))]

    write(quantile_major(learner.params), model.quantile_net)
    write(quantile_major(learner.target.params), model.quantile_net_target)

    our_targets = recorded(monkeypatch, td, "target")
    learner.update(data.ours(dtype), env_step=0, gradient_step=0)
    their_losses = recorded(monkeypatch, peer, "quantile_huber_loss")
    model.train(gradient_steps=1, batch_size=B)

    same = partial(assert_close, atol=tolerance, rtol=tolerance)
    metrics = learner.means.take()
    assert metrics["train/grad_norm"][s] > MAX_NORM
    same(our_targets[0][1][s], their_losses[0][0][1])
    same(metrics["train/td_loss"][s].item(), model.logger.name_to_value["train/loss"])
    same(quantile_major(learner.params), read(model.quantile_net))


def tianshou_buffer(data: Minibatch, s: int) -> Any:
    """The minibatch in a Tianshou buffer."""
    tianshou = pytest.importorskip("tianshou.data")
    buffer = tianshou.ReplayBuffer(size=B)
    for obs, next_obs, action, reward, terminated, truncated in data.rows(s):
        buffer.add(
            tianshou.Batch(
                obs=obs,
                act=action,
                rew=reward,
                terminated=terminated,
                truncated=truncated,
                obs_next=next_obs,
                info={},
            )
        )
    return buffer


def tianshou_update(algorithm: Any, buffer: Any) -> float:
    """One update on the whole buffer, in order; the loss."""
    utils = pytest.importorskip("tianshou.utils.torch_utils")
    algorithm._iter = 1  # its first update would copy the online network to the target
    with utils.policy_within_training_step(algorithm.policy):
        return algorithm.update(buffer, sample_size=0).loss


def tianshou_optim(eps: float) -> Any:
    optim = pytest.importorskip("tianshou.algorithm.optim")
    return optim.AdamOptimizerFactory(lr=LR, eps=eps)


@each_seed
@each_dtype
def test_c51_equals_that_of_tianshou(
    s: int, dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = pytest.importorskip("tianshou.algorithm.modelfree.c51")
    common = pytest.importorskip("tianshou.utils.net.common")
    K, v_min, v_max = 9, -3.0, 5.0
    # Tianshou's next action is the online network's choice. Some rewards leave the support.
    agent = rule("c51", gamma=GAMMA, double=True, atoms=K, v_min=v_min, v_max=v_max)
    data, learner = Minibatch(reward_scale=3.0), make(agent, dtype)
    net = common.Net(state_shape=D, action_shape=A, hidden_sizes=[HIDDEN], softmax=True, num_atoms=K)
    actions = gymnasium.spaces.Discrete(A)
    policy = peer.C51Policy(model=net, action_space=actions, num_atoms=K, v_min=v_min, v_max=v_max)
    algorithm = peer.C51(policy=policy, optim=tianshou_optim(EPS), gamma=GAMMA, target_update_freq=1000)
    policy.to(dtype)  # the support, too
    write(layers(learner.params, s, agent), net)
    write(layers(learner.target.params, s, agent), algorithm.model_old)

    our_targets = recorded(monkeypatch, td, "categorical_projection")
    learner.update(data.ours(dtype), env_step=0, gradient_step=0)
    their_targets = recorded(monkeypatch, algorithm, "_target_dist")
    loss = tianshou_update(algorithm, tianshou_buffer(data, s))

    assert_close(our_targets[0][1][s], their_targets[0][1], atol=tolerance, rtol=tolerance)
    # Their loss is of log(p + 1e-8), a little less than ours of log p.
    same = partial(assert_close, atol=1e-6, rtol=1e-6)
    same(learner.means.take()["train/td_loss"][s].item(), loss)
    same(layers(learner.params, s, agent), read(net))


@each_seed
# Cosines of angles up to 200, multiplied in another order, agree to no more than 1e-5 in float32.
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), DOUBLE])
def test_iqn_equals_that_of_tianshou(
    s: int, dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = pytest.importorskip("tianshou.algorithm.modelfree.iqn")
    common = pytest.importorskip("tianshou.utils.net.common")
    discrete = pytest.importorskip("tianshou.utils.net.discrete")
    samples, target_samples, act_samples = 8, 4, 16
    counts = {"samples": samples, "target_samples": target_samples, "act_samples": act_samples}
    agent = rule("iqn", gamma=GAMMA, double=True, **counts)
    data, learner = Minibatch(reward_scale=2.0), make(agent, dtype)
    # Their cosines count from i = 1, ours and the paper's from 0. Ours of i = 0 is the constant 1,
    # whose weight is a second bias: 63 of theirs and a bias that is the sum of ours do the same.
    trunk = common.Net(state_shape=D, hidden_sizes=[HIDDEN])
    net = discrete.ImplicitQuantileNetwork(preprocess_net=trunk, action_shape=A, num_cosines=63)
    net.last = net.last.model  # without the conversion of what enters it to float32
    policy = peer.IQNPolicy(
        model=net,
        action_space=gymnasium.spaces.Discrete(A),
        sample_size=act_samples,
        online_sample_size=samples,
        target_sample_size=target_samples,
    )
    # They sum over target samples and average over estimates, we and the paper the other way round:
    # their loss is ours times N' / N. With epsilon times that, too, Adam makes the same step.
    factor = target_samples / samples
    algorithm = peer.IQN(
        policy=policy, optim=tianshou_optim(factor * EPS), gamma=GAMMA, target_update_freq=1000
    )

    def one_bias(params: Tensor) -> list[Tensor]:
        *others, weight, bias = layers(params, s, agent)
        return [*others, weight[1:], bias + weight[0]]

    before = layers(learner.params, s, agent)
    write(one_bias(learner.params), net)
    write(one_bias(learner.target.params), algorithm.model_old)
    algorithm.eval()  # or it would choose next actions from `online_sample_size` fractions

    our_targets = recorded(monkeypatch, td, "target")
    learner.update(data.ours(dtype), env_step=0, gradient_step=0)
    their_targets = recorded(monkeypatch, algorithm, "_preprocess_batch")
    # They draw three times: to choose the next actions, for which we take even fractions, for the
    # target, and for the estimate. They get what we drew.
    ours = rng.uniform(SEEDS, "learn", 0, (agent.n_draws(B),))[s].view(B, -1)
    fractions, target_fractions = ours.split([samples, target_samples], -1)
    even = ((torch.arange(act_samples) + 0.5) / act_samples).expand(B, -1)
    draws = iter([even, target_fractions, fractions])
    with monkeypatch.context() as patch:

        def drawn(*shape: int, **_: Any) -> Tensor:
            draw = next(draws)
            assert draw.shape == shape
            return draw.to(dtype)

        patch.setattr(torch, "rand", drawn)
        loss = tianshou_update(algorithm, tianshou_buffer(data, s))
    assert not list(draws)

    same = partial(assert_close, atol=tolerance, rtol=tolerance)
    same(our_targets[0][1][s], their_targets[0][1].returns)
    same(factor * learner.means.take()["train/td_loss"][s].item(), loss)
    *after, weight, bias = layers(learner.params, s, agent)
    *_, weight_before, bias_before = before
    # Of our two biases each makes the step of their one.
    same([*after, weight[1:], bias + weight_before[0]], read(net))
    same(bias - bias_before, weight[0] - weight_before[0])
