"""Evaluation: exactly the episodes asked for, the same for the same step; statistics by hand."""

from collections.abc import Iterator

import gymnasium
import numpy as np
import pytest
import torch
from helpers import part
from torch import Tensor

from dqn_exp import rng
from dqn_exp.envs.gymnasium_env import GymnasiumEnv
from dqn_exp.play import Play
from dqn_exp.run.evaluation import EPISODES_PER_EVALUATION, Evaluation, evaluate
from dqn_exp.statistics import confidence_interval, interquartile_mean

SEEDS = torch.tensor([3, 8])
N, LIMIT, GAMMA = 3, 60, 0.9
# Seed 0's policy falls after some 9 steps, seed 1's balances until the time limit: by the time that
# seed 1 is done, seed 0 has played many more episodes than are asked for.
POLICIES = torch.tensor([[[0.1] * 4, [0.0] * 4], [[0.0] * 4, [0.1, 0.5, 2.0, 1.0]]])
BIAS = torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]]])


@pytest.fixture
def env() -> Iterator[GymnasiumEnv]:
    env = make(SEEDS, N)
    yield env
    env.close()


def make(seeds: Tensor, n: int) -> GymnasiumEnv:
    return part("env", "cartpole", seeds, "eval", True, n=n, max_episode_steps=LIMIT)


def q(obs: Tensor) -> Tensor:
    """Q-values [S, N, A] of a policy for each seed."""
    return obs @ POLICIES.mT + BIAS


def greedy(env: GymnasiumEnv, step: int, rounds: int) -> Evaluation:
    return evaluate(env, q, Play(env, q, GAMMA), step, rounds)


def play(seed_index: int, env_index: int, episode: int) -> tuple[float, float, float]:
    """Return, initial value and discounted return of one episode, by Gymnasium alone."""
    draws = rng.integers(SEEDS, "env/eval", episode, (N,), 2**31)
    env = gymnasium.make("CartPole-v1", max_episode_steps=LIMIT)
    obs, _ = env.reset(seed=int(draws[seed_index, env_index]))
    total, discounted, values, over = 0.0, 0.0, [], False
    while not over:
        values.append(q(torch.from_numpy(obs).expand(2, 1, 4))[seed_index, 0])
        obs, reward, terminated, truncated, _ = env.step(int(values[-1].argmax()))
        discounted += GAMMA ** (len(values) - 1) * float(reward)
        total, over = total + float(reward), terminated or truncated
    return total, float(values[0].max()), discounted


@pytest.mark.parametrize(("step", "rounds"), [(0, 1), (0, 3), (5000, 2)])
def test_only_the_first_episodes_of_each_env_count(env: GymnasiumEnv, step: int, rounds: int) -> None:
    first = step * EPISODES_PER_EVALUATION
    result = greedy(env, step, rounds)
    played = [
        [play(s, n, first + episode) for n in range(N) for episode in range(rounds)] for s in range(2)
    ]
    assert result.returns.shape == (2, N * rounds)
    assert result.returns.tolist() == [[total for total, *_ in row] for row in played]
    means = [np.mean([value for _, value, _ in row[::rounds]]) for row in played]
    assert result.initial_state_value.tolist() == pytest.approx(means)
    means = [np.mean([discounted for *_, discounted in row[::rounds]]) for row in played]
    assert result.discounted_return.tolist() == pytest.approx(means)
    assert result.returns[0].max() < 15
    assert result.returns[1].max() == LIMIT


def same(first: Evaluation, second: Evaluation) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_same_step_gives_the_same_episodes_and_another_gives_others(env: GymnasiumEnv) -> None:
    first = greedy(env, 100, rounds=2)
    other = greedy(env, 200, rounds=2)
    assert same(greedy(env, 100, rounds=2), first)  # whatever was played in between
    assert not np.array_equal(other.returns, first.returns)
    assert not np.intersect1d(other.initial_state_value, first.initial_state_value).size


def test_a_seed_is_evaluated_as_it_would_be_alone(env: GymnasiumEnv) -> None:
    solo = make(SEEDS[1:], N)
    together = greedy(env, 100, rounds=2)

    def second(obs: Tensor) -> Tensor:
        return q(obs.expand(2, -1, -1))[1:]

    alone = evaluate(solo, second, Play(solo, second, GAMMA), 100, rounds=2)
    solo.close()
    assert same(alone, Evaluation(*(field[1:] for field in together)))


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([7.0], 7.0),
        ([1.0, 3.0], 2.0),
        ([0.0, 0.0, 9.0], 3.0),  # a quarter of three is less than one score
        ([-100.0, 2.0, 4.0, 1000.0], 3.0),
        ([5.0, 1.0, 1e9, 3.0, -1e9], 3.0),
        ([1e6, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, -1e6], 3.5),
    ],
)
def test_the_interquartile_mean_by_hand(scores: list[float], expected: float) -> None:
    assert interquartile_mean(np.array(scores)) == pytest.approx(expected)


def test_the_interquartile_mean_works_along_an_axis() -> None:
    table = np.array([[1.0, 2.0, 4.0, 8.0], [0.0, 0.0, 1.0, 9.0]])
    assert interquartile_mean(table, axis=1).tolist() == [3.0, 0.5]
    assert interquartile_mean(table.T).tolist() == [3.0, 0.5]


def test_one_score_has_no_confidence_interval() -> None:
    assert confidence_interval(np.array([3.0])) is None


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        # Means of two draws: 1, 2 and 3 with probabilities 1/4, 1/2, 1/4: more than 2.5 % at each end.
        ([1.0, 3.0], (1.0, 3.0)),
        # The middle two of four draws are ones if three or four are: 13/256 = 5.1 %; 2.5 % lie above.
        ([0.0, 0.0, 0.0, 1.0], (0.0, 1.0)),
        ([5.0, 5.0, 5.0], (5.0, 5.0)),
    ],
)
def test_the_confidence_interval_by_hand(scores: list[float], expected: tuple[float, float]) -> None:
    assert confidence_interval(np.array(scores)) == pytest.approx(expected)


def test_the_confidence_interval_equals_a_bootstrap_by_hand() -> None:
    scores = np.random.default_rng(1).gamma(2.0, 100.0, size=12)
    draws = np.random.default_rng(2).choice(scores, size=(40_000, 12))
    middle = np.sort(draws, axis=1)[:, 3:9].mean(axis=1)
    interval = confidence_interval(scores)
    assert interval == pytest.approx(tuple(np.percentile(middle, [2.5, 97.5])), rel=0.03)
    assert confidence_interval(scores) == interval
