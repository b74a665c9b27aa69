"""Native envs against Gymnasium's own, step for step; episodes, their random streams and their log."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from helpers import part
from scipy import stats
from torch import Tensor

from dqn_exp.config.problems import ConfigError
from dqn_exp.envs.native_env import SYSTEMS, NativeEnv
from dqn_exp.interfaces import Episode

every_system = pytest.mark.parametrize("id", SYSTEMS)
half_of_systems = pytest.mark.parametrize(
    "id", [pytest.param(s, marks=[pytest.mark.slow] * (i % 2)) for i, s in enumerate(SYSTEMS)]
)
E = 30  # episodes side by side; their first half acts at random, the other half well


def build(*seeds: int, stream: str = "train", **keys: Any) -> NativeEnv:
    """CartPole-v1, unless another id is given; one env a seed."""
    keys = {"backend": "native", "id": "CartPole-v1", "n": 1} | keys
    return part("env", "cartpole", torch.tensor(seeds or (0,)), stream, True, **keys)


def gymnasium_envs(id: str) -> list[gymnasium.Env]:
    return [gymnasium.make(id, disable_env_checker=True) for _ in range(E)]


def policy(id: str, obs: np.ndarray, numbers: np.random.Generator) -> np.ndarray:
    """Actions [E] for obs [E, features]: random for the first half, rather good for the second."""
    if id.startswith("CartPole"):
        good = (obs[:, 2] + obs[:, 3] > 0).astype(np.int64)
    elif id == "Acrobot-v1":
        good = np.where(obs[:, 4] > 0, 0, 2)  # the torque that swings the first link further up
    else:
        good = np.where(obs[:, 1] < 0, 0, 2)  # push where it rolls
    random = numbers.integers(2 if id.startswith("CartPole") else 3, size=len(obs))
    at_random = (np.arange(len(obs)) < len(obs) // 2) | (numbers.random(len(obs)) < 0.1)
    return np.where(at_random, random, good)


def state_of(env: gymnasium.Env) -> np.ndarray:
    """Gymnasium's own, in float64."""
    return np.array(env.unwrapped.state, dtype=np.float64)  # type: ignore[attr-defined]


def agree(tensor: Tensor, array: np.ndarray, atol: float) -> bool:
    return np.allclose(tensor.numpy(), array, rtol=0.0, atol=atol)


def drifts_apart(id: str, step: int) -> bool:
    """A double pendulum is chaotic: what a sine rounds off grows to a millionth in 500 steps."""
    return id == "Acrobot-v1" and step % 50 == 0


@half_of_systems
def test_the_physics_are_gymnasiums_step_for_step(id: str) -> None:
    numbers = np.random.default_rng(0)
    system, limit = SYSTEMS[id][0](), SYSTEMS[id][1]
    envs = gymnasium_envs(id)
    obs = np.stack([env.reset(seed=seed)[0] for seed, env in enumerate(envs)])
    running, steps, terminations = np.full(E, True), 0, 0
    state = torch.empty(0)
    for step in range(limit):
        true_state = torch.from_numpy(np.stack([state_of(env) for env in envs]))
        if step == 0 or drifts_apart(id, step):
            state = true_state  # and goes its own way from here
        assert agree(system.observe(state)[running], obs[running], atol=1e-6)
        action = policy(id, obs, numbers)
        once = system.step(true_state, torch.from_numpy(action))
        state, reward, terminated = system.step(state, torch.from_numpy(action))
        for i in np.flatnonzero(running):
            obs[i], true_reward, ended, *_ = envs[i].unwrapped.step(int(action[i]))
            assert agree(once.state[i], state_of(envs[i]), atol=1e-13)
            assert (float(reward[i]), bool(terminated[i])) == (true_reward, ended)
            running[i] = not ended
            steps, terminations = steps + 1, terminations + ended
    assert steps > 3000
    assert terminations > 5


@half_of_systems
def test_an_env_is_gymnasiums_with_its_time_limit(id: str) -> None:
    numbers = np.random.default_rng(1)
    native, envs = build(3, id=id, n=E), gymnasium_envs(id)
    obs = native.reset()[0]
    lengths, returns = np.zeros(E, dtype=int), np.zeros(E)
    expected, kinds = [], set()
    for step in range(600):
        for i in range(E):
            if lengths[i] == 0:
                envs[i].reset()
            if lengths[i] == 0 or drifts_apart(id, step):
                envs[i].unwrapped.state = native._state[0, i, :-2].numpy().copy()  # type: ignore[attr-defined]
        action = policy(id, obs.numpy(), numbers)
        transition, after = native.step(torch.from_numpy(action).unsqueeze(0))
        assert torch.equal(transition.obs[0], obs)
        obs = after[0]
        for i in range(E):
            next_obs, reward, terminated, truncated, _ = envs[i].step(int(action[i]))
            lengths[i], returns[i] = lengths[i] + 1, returns[i] + float(reward)
            assert agree(transition.next_obs[0, i], next_obs, atol=1e-6)
            flags = bool(transition.terminated[0, i]), bool(transition.truncated[0, i])
            assert (float(transition.reward[0, i]), *flags) == (reward, terminated, truncated)
            if terminated or truncated:
                kinds.add((terminated, truncated))
                expected.append((returns[i], lengths[i]))
                lengths[i] = returns[i] = 0
    assert [(e.reward_sum, e.length) for e in native.take_episodes()] == expected
    assert kinds >= {(True, False), (False, True)}


def play(env: NativeEnv, steps: int, first_episode: int = 0) -> Tensor:
    """All observations [steps + 1, S, N, *obs] under the same few actions, whatever is seen."""
    obs = [env.reset(first_episode)]
    for step in range(steps):
        obs.append(env.step(torch.full(obs[0].shape[:2], int(step % 7 in (0, 2, 3))))[1])
    return torch.stack(obs)


@every_system
def test_an_env_depends_on_its_seed_value_alone(id: str) -> None:
    assert torch.equal(play(build(4, 9, 2, id=id, n=2), 300)[:, 1:2], play(build(9, id=id, n=2), 300))


def test_parallel_envs_seeds_streams_and_episodes_all_start_differently() -> None:
    env, other = build(1, 2, n=2), build(1, 2, n=2, stream="eval")
    episodes = 0, 1, 2, 1 << 20, 1 << 33
    starts = torch.stack([*map(env.reset, episodes), *map(other.reset, episodes)]).flatten(0, 2)
    assert len({tuple(start.tolist()) for start in starts}) == 40


def test_an_episode_depends_on_its_number_and_the_actions_alone() -> None:
    env = build(6, 7, n=2, max_episode_steps=7)  # so short that the pole never falls
    course = play(env, 28)
    env.step(torch.zeros(2, 2, dtype=torch.int64))  # leaves episodes half-way
    assert torch.equal(play(env, 14, first_episode=2), course[14:])
    assert [e.number for e in env.take_episodes() if e.seed_index == 1] == [0, 1, 2, 3]


@every_system
def test_first_states_are_spread_evenly_over_gymnasiums_range(id: str) -> None:
    env = build(*range(20), id=id, n=20)
    obs = torch.cat([env.reset(episode) for episode in range(5)]).flatten(0, 1).double()
    if id == "Acrobot-v1":
        sines, velocities = obs[:, [1, 3]], obs[:, 4:]
        assert ((obs[:, [0, 2]] ** 2 + sines**2 - 1).abs() < 1e-6).all()
        obs = torch.cat([sines.arcsin(), velocities], 1)
    elif id == "MountainCar-v0":
        assert (obs[:, 1] == 0).all()
        obs = obs[:, :1]
    low, high = {"Acrobot-v1": (-0.1, 0.1), "MountainCar-v0": (-0.6, -0.4)}.get(id, (-0.05, 0.05))
    for variable in obs.T.numpy():
        assert low - 1e-7 <= variable.min() < variable.max() <= high + 1e-7
        assert stats.kstest(variable, "uniform", args=(low, high - low)).pvalue > 0.01
    correlation = np.atleast_2d(np.corrcoef(obs.T)) - np.eye(obs.shape[1])
    assert abs(correlation).max() < 0.08  # 3.6 standard deviations of 2000 independent pairs


def test_the_successor_of_a_finished_episode_is_no_reset_observation() -> None:
    env = build(0)
    obs, starts = env.reset(), [build(0).reset(episode) for episode in range(8)]
    episode = 0
    for _ in range(60):
        transition, next_obs = env.step(torch.zeros(1, 1, dtype=torch.int64))
        assert torch.equal(transition.obs, obs)
        if transition.terminated:
            # CartPole ends beyond 2.4 units or 12 degrees, and starts within 0.05 of zero.
            episode += 1
            assert abs(transition.next_obs[0, 0, 2]) > 0.2094
            assert torch.equal(next_obs, starts[episode])
        else:
            assert torch.equal(transition.next_obs, next_obs)
        obs = next_obs
    assert episode > 4


def test_transitions_keep_their_values_when_the_env_goes_on() -> None:
    env = build(1, 2, n=3)
    env.reset()
    action = torch.ones(2, 3, dtype=torch.int64)
    transitions = [env.step(action)[0] for _ in range(30)]
    copies = [[field.clone() for field in transition] for transition in transitions]
    play(env, 30)
    for transition, copy in zip(transitions, copies, strict=True):
        assert all(map(torch.equal, transition, copy))


def test_finished_episodes_are_taken_once_in_order_with_their_numbers() -> None:
    numbers = torch.Generator().manual_seed(0)
    env = build(5, 8, n=3)
    env.reset(first_episode=40)
    lengths, counts, expected, taken = np.zeros((2, 3), int), [0, 0], [], []
    for step in range(2500):  # more than the env remembers
        transition, _ = env.step(torch.randint(2, (2, 3), generator=numbers))
        lengths += 1
        for seed, index in np.argwhere((transition.terminated | transition.truncated).numpy()).tolist():
            length = int(lengths[seed, index])
            episode = Episode(seed, index, counts[seed], 3 * step + 3, float(length), length)
            expected.append(episode)  # CartPole pays 1 a step
            counts[seed] += 1
            lengths[seed, index] = 0
        if step % 777 == 76:
            taken += env.take_episodes()
            assert taken == expected
            assert env.take_episodes() == []
            assert env.episode_counts.tolist() == counts
    assert min(counts) > 250
    env.reset()
    assert env.take_episodes() == []
    assert env.episode_counts.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", torch.tensor([-1])),
        ("steps", torch.tensor([2**60])),
        ("first_episode", torch.tensor(-1)),
        ("first_episode", torch.tensor(5)),  # beyond the episodes of the envs
        ("episode", torch.tensor([[-1, 0], [0, 0]])),
        ("episode", torch.tensor([[2**60, 0], [0, 0]])),
        ("state", torch.full((2, 2, 6), torch.nan, dtype=torch.float64)),
        ("state", torch.full((2, 2, 6), -1.0, dtype=torch.float64)),  # steps of an episode
        ("state", torch.full((2, 2, 6), 500.0, dtype=torch.float64)),
        ("state", torch.zeros(2, 2, 6)),
        ("state", [0.0]),
        ("steps", None),
    ],
)
def test_a_state_that_no_env_has_is_refused_and_changes_nothing(name: str, value: object) -> None:
    env = build(0, 1, n=2)
    env.reset()
    before = {name: tensor.clone() for name, tensor in env.state_dict().items()}
    changed: Any = {**before, name: value}
    with pytest.raises(ValueError, match=rf"^(episode|{name}) .* in the state"):
        env.load_state_dict(changed)
    assert all(torch.equal(env.state_dict()[name], before[name]) for name in before)
    env.load_state_dict(before)


@every_system
def test_another_time_limit_is_obeyed(id: str) -> None:
    env = build(0, 1, id=id, n=2, max_episode_steps=6)
    env.reset()
    zeros = torch.zeros(2, 2, dtype=torch.int64)
    ends = [env.step(zeros)[0].truncated.all().item() for _ in range(18)]
    assert ends == [False, False, False, False, False, True] * 3
    assert [(e.length, e.step) for e in env.take_episodes() if e.env_index] == [
        (6, step) for step in (12, 12, 24, 24, 36, 36)
    ]


@every_system
def test_an_env_has_gymnasiums_spaces_and_time_limit(id: str) -> None:
    twin, spec = gymnasium.make(id), build(0, id=id).spec
    assert spec.obs_shape == twin.observation_space.shape
    assert spec.n_actions == twin.action_space.n  # type: ignore[attr-defined]
    assert twin.spec is not None
    assert SYSTEMS[id][1] == twin.spec.max_episode_steps


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"id": "CartPole-v2"}, r"env\.id=CartPole-v2: .* did you mean 'CartPole-v[01]'"),
        ({"id": "Taxi-v3"}, r"env\.id=Taxi-v3: no native env.*one of: Acrobot-v1, CartPole-v0"),
        ({"kwargs": {"sutton_barto_reward": True}}, r"env\.kwargs=.*use env\.backend=gymnasium"),
        ({"wrappers": [{"name": "scale_reward", "factor": 2.0}]}, r"env\.wrappers=.*backend=gymnasium"),
        ({"vectorization": "async"}, r"env\.vectorization=async: .* use sync"),
        ({"vectorization": "async", "timeout": 5.0}, r"env\.timeout=5\.0: native envs have none"),
        ({"id": "x", "kwargs": {"a": 1}}, r"env\.id=x[^\n]*\nenv\.kwargs="),
    ],
)
def test_what_only_gymnasium_has_is_refused_with_the_key(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(0, **options)
