"""The Gymnasium adapter: real environments, episodes seeded one by one, raw returns."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from helpers import part

from dqn_exp.config.problems import ConfigError
from dqn_exp.envs.gymnasium_env import GymnasiumEnv


class FromFive(gymnasium.Env):
    """Actions 5, 6 and 7; the observation is the last one taken."""

    observation_space = gymnasium.spaces.Box(0.0, 9.0, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(3, start=5)

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.full(1, action, np.float32), 0.0, False, False, {}


gymnasium.register("FromFive-v0", "test_gymnasium_env:FromFive", max_episode_steps=9)


def build(*seeds: int, stream: str = "train", **keys: Any) -> GymnasiumEnv:
    """CartPole-v1, unless another id is given; one env a seed."""
    keys = {"backend": "gymnasium", "id": "CartPole-v1", "n": 1} | keys
    return part("env", "cartpole", torch.tensor(seeds or (0,)), stream, True, **keys)


def play(env: GymnasiumEnv, steps: int, policy: int = 1) -> torch.Tensor:
    return torch.stack([env.reset(), *follow(env, steps, policy)])


def follow(env: GymnasiumEnv, steps: int, policy: int = 1) -> list[torch.Tensor]:
    shape = env.state_dict()["obs"].shape[:2]
    return [env.step(torch.full(shape, policy if step % 3 else 0))[1] for step in range(steps)]


def test_an_env_depends_on_its_seed_value_alone() -> None:
    assert torch.equal(play(build(4, 9, 2), 200)[:, 1:2], play(build(9), 200))


def test_parallel_envs_seeds_streams_and_episodes_all_start_differently() -> None:
    env, other = build(1, 2, n=2), build(1, 2, n=2, stream="eval")
    starts = torch.stack([env.reset(), env.reset(1), env.reset(2), other.reset()]).flatten(0, 2)
    assert len({tuple(start.tolist()) for start in starts}) == 16


def test_the_successor_of_a_finished_episode_is_no_reset_observation() -> None:
    env = build(0)
    obs = env.reset()
    for _ in range(50):
        transition, next_obs = env.step(torch.zeros(1, 1, dtype=torch.int64))
        assert torch.equal(transition.obs, obs)
        if transition.terminated:
            # CartPole ends beyond 2.4 units or 12 degrees, and starts within 0.05 of zero.
            final, start = transition.next_obs[0, 0], next_obs[0, 0]
            assert abs(final[0]) > 2.4 or abs(final[2]) > 0.2094
            assert start.abs().max() <= 0.05
            return
        assert torch.equal(transition.next_obs, next_obs)
        obs = next_obs
    pytest.fail("always pushing left never ended an episode")


def test_termination_and_truncation_are_kept_apart() -> None:
    env = build(0, id="MountainCar-v0")
    env.reset()
    transitions = [env.step(torch.ones(1, 1, dtype=torch.int64))[0] for _ in range(200)]
    assert [bool(t.truncated) for t in transitions] == [False] * 199 + [True]
    assert not any(t.terminated for t in transitions)


def test_episodes_are_counted_and_measured_as_gymnasium_measures_them() -> None:
    env = build(3, 8)
    play(env, 300)
    finished = env.take_episodes()
    for index in range(2):
        episodes = [e for e in finished if e.seed_index == index]
        assert [e.number for e in episodes] == list(range(len(episodes)))
        assert len(episodes) == env.episode_counts[index] > 5
        assert np.cumsum([e.length for e in episodes]).tolist() == [e.step for e in episodes]
        assert all(e.reward_sum == e.length for e in episodes)  # CartPole pays 1 a step


def test_episodes_are_taken_once_and_forgotten_at_a_reset() -> None:
    together, taken_often = build(3, 8), build(3, 8)
    obs, often = play(together, 300), []
    taken_often.reset()
    for step in range(300):
        taken_often.step(torch.full((2, 1), 1 if step % 3 else 0))
        often += taken_often.take_episodes()
    assert together.take_episodes() == often != []
    assert together.take_episodes() == []
    assert torch.equal(play(together, 300), obs)
    together.reset()
    assert together.take_episodes() == []


def test_returns_are_those_of_the_env_even_under_reward_wrappers() -> None:
    wrappers = [
        {"name": "scale_reward", "factor": 10.0},
        {"name": "clip_reward", "low": -1.0, "high": 0.5},
    ]
    env = build(0, wrappers=wrappers)
    env.reset()
    rewards = [float(env.step(torch.ones(1, 1, dtype=torch.int64))[0].reward) for _ in range(30)]
    assert set(rewards) == {0.5}
    episodes = env.take_episodes()
    assert episodes
    assert all(episode.reward_sum == episode.length for episode in episodes)


def test_more_episodes_than_one_block_of_seeds_all_start_differently() -> None:
    env = build(0, max_episode_steps=1)
    starts = play(env, 600)[:, 0, 0]
    assert len({tuple(start.tolist()) for start in starts}) == 601


def test_only_actions_of_present_episodes_are_kept_in_memory_that_does_not_grow() -> None:
    env = build(0, 1, n=2, max_episode_steps=20)
    play(env, 2000)
    state = env.state_dict()
    assert 0 < len(state["actions"]) == max(state["ages"]) <= 20
    assert len(env._actions) <= 3 * 20 + 64
    again = build(0, 1, n=2, max_episode_steps=20)
    again.load_state_dict(state)
    assert torch.equal(torch.stack(follow(again, 500)), torch.stack(follow(env, 500)))
    assert torch.equal(again.state_dict()["actions"], env.state_dict()["actions"])


@pytest.mark.parametrize(("n_steps", "id"), [(5, "FrozenLake-v1"), (5, "CliffWalking-v1")])
def test_discrete_observations_become_one_hot_bytes(id: str, n_steps: int) -> None:
    env = build(0, id=id, max_episode_steps=50)
    obs = play(env, n_steps)
    assert obs.dtype == env.spec.obs_dtype == torch.uint8
    assert (obs.sum(-1) == 1).all()


def test_actions_that_do_not_start_at_zero_are_shifted() -> None:
    env = build(0, id="FromFive-v0")
    env.reset()
    assert env.spec.n_actions == 3
    assert env.step(torch.full((1, 1), 2))[0].next_obs.item() == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"id": "CartPoll-v1"}, "CartPoll"),
        ({"id": "Pendulum-v1"}, "needs Discrete"),
        ({"id": "Blackjack-v1", "max_episode_steps": 9}, "supported are Box and Discrete"),
        ({"id": "CliffWalking-v1"}, "no time limit; set env.max_episode_steps"),
        ({"kwargs": {"no_such": 1}}, "no_such"),
        ({"wrappers": [{"name": "clip_rewards"}]}, "did you mean 'clip_reward'"),
        ({"wrappers": [{"name": "clip_reward", "low": 0.0}]}, r"wrappers\.0\.high: must be set"),
    ],
)
def test_an_env_that_cannot_serve_is_refused_with_the_reason(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(0, **options)


@pytest.mark.parametrize("id", ["CartPole-v1", "CliffWalking-v1", "LunarLander-v3"])
def test_envs_in_processes_of_their_own_do_what_those_in_this_one_do(id: str) -> None:
    played = []
    for vectorization in ("sync", "async"):
        env = build(4, 9, id=id, n=2, vectorization=vectorization, max_episode_steps=40)
        obs = env.reset()
        transitions = []
        for step in range(100):
            transition, obs = env.step((obs.flatten(2).sum(-1) > step % 2).long())
            transitions += [*transition, obs]
        played.append((transitions, env.take_episodes(), env.episode_counts.tolist()))
        env.close()
    (first, *episodes), (second, *same_episodes) = played
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert episodes == same_episodes
    assert len(episodes[0]) >= 8
