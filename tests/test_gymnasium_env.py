"""The Gymnasium adapter: real environments, episodes seeded one by one, raw returns."""

from typing import Any

import faulty
import gymnasium
import numpy as np
import pytest
import torch
from helpers import part

from dqn_exp.config.problems import ConfigError
from dqn_exp.envs.gymnasium_env import EPISODE_BLOCK, GymnasiumEnv
from dqn_exp.interfaces import NotDeterministicError


class FromFive(gymnasium.Env):
    """Actions 5, 6 and 7; the observation is the last one taken."""

    observation_space = gymnasium.spaces.Box(0.0, 9.0, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(3, start=5)

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.full(1, action, np.float32), 0.0, False, False, {}


class ShowsSeed(gymnasium.Env):
    """The observation is the seed of the episode."""

    observation_space = gymnasium.spaces.Box(0, 2**31, (1,), np.int64)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        self._seen = np.array([seed], np.int64)
        return self._seen, {}

    def step(self, action):
        return self._seen.copy(), 0.0, False, False, {}


gymnasium.register("ShowsSeed-v0", "test_gymnasium_env:ShowsSeed", max_episode_steps=9)
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


def test_episodes_of_any_number_start_from_the_seeds_of_their_numbers() -> None:
    env = build(4, 9, id="ShowsSeed-v0")
    state = {"steps": 9, "first_episode": 0, "ages": [0, 0], "episode_counts": [7, 2**40]}
    state["actions"] = torch.empty(0, 2, dtype=torch.int64)
    for numbers in ([7, 2**40], [EPISODE_BLOCK - 1, EPISODE_BLOCK], [0, 3 * EPISODE_BLOCK]):
        starts = [faulty.episode_seed(s, n) for s, n in zip((4, 9), numbers, strict=True)]
        obs = torch.tensor(starts).reshape(2, 1, 1)
        env.load_state_dict({**state, "episode": numbers, "obs": obs})
        follow(env, 9)
        after = [faulty.episode_seed(s, n + 1) for s, n in zip((4, 9), numbers, strict=True)]
        assert env.state_dict()["obs"].flatten().tolist() == after
    assert env.reset(2**40)[0].item() == faulty.episode_seed(4, 2**40)


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


@pytest.mark.parametrize("where", ["init", "reset", "step", "close"])
def test_an_env_that_ends_the_program_is_refused(where: str) -> None:
    kwargs = {"fault": "sys.exit", "where": where, "here": True}
    with pytest.raises(ConfigError, match=r"env\.id=Ending-v0: .*SystemExit: 3"):
        build(0, id="Ending-v0", kwargs=kwargs)


@pytest.mark.parametrize("dtype", ["uint16", "uint32", "uint64", "longdouble", ">f4"])
def test_observations_that_torch_cannot_hold_are_refused(dtype: str) -> None:
    with pytest.raises(ConfigError, match=r"OfType-v0: observations are .*; supported are bool, "):
        build(0, id="OfType-v0", kwargs={"dtype": dtype})


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "int64", "float16", "float64"])
def test_observations_keep_their_type(dtype: str) -> None:
    env = build(0, id="OfType-v0", kwargs={"dtype": dtype})
    assert env.reset().dtype == env.spec.obs_dtype == getattr(torch, dtype)


@pytest.mark.parametrize("shape", [(0,), (2, 0)])
def test_empty_observations_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"OfType-v0: observations are empty: Box\(\[\], \[\]"):
        build(0, id="OfType-v0", kwargs={"dtype": "float32", "shape": shape})


@pytest.mark.parametrize(
    ("options", "is_deterministic"),
    [
        ({"id": "CartPole-v1"}, True),
        ({"id": "CliffWalking-v1", "max_episode_steps": 9}, True),
        ({"id": "LunarLander-v3"}, True),
        ({"id": "Faulty-v0", "kwargs": {"fault": "none"}}, True),
        ({"id": "Faulty-v0", "kwargs": {"fault": "fickle"}}, False),
        ({"id": "Sticky-v0", "kwargs": {"fault": "observation"}}, False),
        ({"id": "Sticky-v0", "kwargs": {"fault": "reward"}}, False),
        ({"id": "Sticky-v0", "kwargs": {"fault": "end"}}, False),
        ({"id": "Sticky-v0", "kwargs": {"fault": "limit"}}, False),
    ],
    ids=str,
)
def test_state_that_survives_a_reset_is_found(options: dict, is_deterministic: bool) -> None:
    assert build(0, **options).deterministic is is_deterministic


def test_an_env_that_fails_while_it_is_examined_is_refused() -> None:
    env = build(0, id="Faulty-v0", kwargs={"fault": "step raises", "bad": [64]})
    with pytest.raises(ConfigError, match=r"env\.id=Faulty-v0: OSError: the simulator is gone"):
        _ = env.deterministic


def test_an_env_that_is_not_deterministic_is_not_restored_even_if_it_seems_to_be() -> None:
    options = {"id": "Sticky-v0", "kwargs": {"fault": "reward"}}
    env, again = build(3, **options), build(3, **options)
    play(env, 30)
    with pytest.raises(NotDeterministicError, match=r"env\.id=Sticky-v0: cannot be resumed exactly"):
        again.load_state_dict(env.state_dict())
    assert torch.equal(again.begin_new_episodes(), build(3, **options).reset(2))
    follow(again, 20)
    assert [(e.number, e.step, e.length) for e in again.take_episodes()] == [(1, 50, 20)]


def begun() -> dict[str, Any]:
    """The state of two CartPoles after some episodes."""
    env = build(0, 1)
    play(env, 50)
    return env.state_dict()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in ("steps", "first_episode") for value in (1.0, "1", None, -1, True)),
        *(
            (name, value)
            for name in ("episode", "episode_counts", "ages")
            for value in ([1], [1, 2, 3], [1, -1], [1, 2**60], [1.0, 1], ["1", 1], 5, None, {"0": 1})
        ),
        ("steps", 2**70),
        ("actions", None),
        ("actions", torch.zeros(0, 2, dtype=torch.int64)),
        ("actions", torch.zeros(3, 2, dtype=torch.int32)),
        ("actions", [[0, 0]]),
        ("obs", torch.zeros(2, 1, 3)),
        ("obs", torch.zeros(2, 1, 4, dtype=torch.float64)),
        ("obs", 0),
    ],
)
def test_a_state_that_no_env_has_is_refused_and_changes_nothing(name: str, value: Any) -> None:
    env, state = build(0, 1), begun()
    obs = env.reset()
    with pytest.raises(ValueError, match=f"{name} is .* in the state, must be "):
        env.load_state_dict({**state, name: value})
    assert torch.equal(env.state_dict()["obs"], obs)
    env.load_state_dict(state)


@pytest.mark.parametrize("ages", [[1, 2**52], [0, 0]])
def test_a_state_with_another_number_of_actions_than_steps_is_refused(ages: list[int]) -> None:
    with pytest.raises(ValueError, match=r"actions is .* in the state, must be "):
        build(0, 1).load_state_dict({**begun(), "ages": ages})


@pytest.mark.parametrize("action", [-1, 2, 2**40])
def test_a_state_with_actions_that_the_env_does_not_have_is_refused(action: int) -> None:
    state = begun()
    state["actions"][0, 0] = action
    with pytest.raises(ValueError, match="actions in the state must be from 0 to 1"):
        build(0, 1).load_state_dict(state)


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
