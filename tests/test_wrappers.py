"""What wrappers change, step by step, on real environments."""

import gymnasium
import pytest

from dqn_exp.registry import build, discover

discover("dqn_exp.envs")
OUTCOME = {"name": "outcome_reward", "success_steps": 195}
TERMINAL = {"name": "time_limit_is_terminal"}


def play(env: gymnasium.Env, balance: bool) -> list[tuple[float, bool, bool]]:
    """Reward, terminated and truncated of each step of an episode."""
    obs, _ = env.reset(seed=0)
    steps = []
    while not steps or not (steps[-1][1] or steps[-1][2]):
        action = int(0.1 * obs[0] + 0.5 * obs[1] + 2.0 * obs[2] + obs[3] > 0) if balance else 0
        obs, reward, terminated, truncated, _ = env.step(action)
        steps.append((float(reward), terminated, truncated))
    return steps


def test_the_outcome_of_an_episode_is_its_only_reward() -> None:
    env = build("wrapper", OUTCOME, gymnasium.make("CartPole-v1", max_episode_steps=200))
    won = play(env, balance=True)
    assert won == [(0.0, False, False)] * 199 + [(1.0, False, True)]
    lost = play(env, balance=False)  # counts its steps anew
    assert lost == [(0.0, False, False)] * (len(lost) - 1) + [(-1.0, True, False)]


@pytest.mark.parametrize(("limit", "outcome"), [(195, -1.0), (196, 1.0)])
def test_a_success_is_longer_than_success_steps(limit: int, outcome: float) -> None:
    env = build("wrapper", OUTCOME, gymnasium.make("CartPole-v1", max_episode_steps=limit))
    assert play(env, balance=True)[-1][0] == outcome


def test_a_time_limit_may_count_as_a_terminal_state() -> None:
    env = build("wrapper", TERMINAL, gymnasium.make("CartPole-v1", max_episode_steps=30))
    assert play(env, balance=True) == [(1.0, False, False)] * 29 + [(1.0, True, False)]
    fell = play(env, balance=False)
    assert fell == [(1.0, False, False)] * (len(fell) - 1) + [(1.0, True, False)]
