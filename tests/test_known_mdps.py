"""Whole runs on MDPs small enough to be solved exactly: every rule learns its own fixed point.

Tables of an MDP: `successor` and `reward` [states, A]; a successor END is a terminal state.
"""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from helpers import options
from torch import Tensor

from dqn_exp.parts import Parts

Make = Callable[..., Parts]
Policy = Callable[[np.ndarray], np.ndarray]  # Q [states, A] -> probabilities [states, A]
END = -1
GAMMA = 0.9


class Table(gymnasium.Env):
    """A deterministic MDP given by its tables; states are observed one-hot, episodes start in 0."""

    successor: np.ndarray
    reward: np.ndarray

    def __init__(self) -> None:
        n_states, n_actions = self.successor.shape
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (n_states,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(n_actions)
        self._state = 0

    def _obs(self) -> np.ndarray:
        return np.eye(len(self.successor), dtype=np.float32)[self._state]

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        super().reset(seed=seed)
        self._state = 0
        return self._obs(), {}

    def step(self, action: Any):
        reward = float(self.reward[self._state, action])
        self._state = int(self.successor[self._state, action])
        return self._obs(), reward, self._state == END, False, {}


class Corridor(Table):
    """Action 0 moves one state back, 1 one state forward; 1 is earned at the end."""

    successor = np.array([[0, 1], [0, 2], [1, 3], [2, END]])
    reward = np.array([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 1.0]])


class Ring(Table):
    """Without an end: action 1 moves round, action 0 stays; 0.3 is earned for every lap."""

    successor = np.array([[0, 1], [1, 2], [2, 0]])
    reward = np.array([[0.0, 0.0], [0.0, 0.0], [0.0, 0.3]])


class MaximizationBias(Table):
    """Sutton & Barto 2018, example 6.7: action 0 leads from state 0 to 1, the others to the end, for 0.

    From 1 all actions lead to the end, for a normal reward of mean -0.1 and standard deviation 1.
    """

    successor = np.array([[1] + 9 * [END], 10 * [END]])
    reward = np.array([10 * [0.0], 10 * [-0.1]])

    def step(self, action: Any):
        noise = self.np_random.normal() if self._state == 1 else 0.0
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, reward + noise, terminated, truncated, info


for table in (Corridor, Ring, MaximizationBias):
    gymnasium.register(
        f"{table.__name__}-v0", f"test_known_mdps:{table.__name__}", max_episode_steps=30
    )


def values(mdp: type[Table], policy: np.ndarray) -> np.ndarray:
    """Q [states, A] of a policy [states, A]: q = r + gamma M q, solved."""
    n = mdp.reward.size
    moves = np.zeros((n, n))
    for pair, successor in enumerate(mdp.successor.ravel()):
        if successor != END:
            into = np.zeros_like(policy)
            into[successor] = policy[successor]
            moves[pair] = into.ravel()
    q = np.linalg.solve(np.eye(n) - GAMMA * moves, mdp.reward.ravel())
    return q.reshape(mdp.reward.shape)


def fixed_point(mdp: type[Table], policy: Policy) -> np.ndarray:
    """Q of the policy that follows from this very Q."""
    q = np.zeros(mdp.reward.shape)
    for _ in range(100):
        q = values(mdp, policy(q))
    assert np.allclose(q, values(mdp, policy(q)))
    return q


def epsilon_greedy(epsilon: float) -> Policy:
    return lambda q: epsilon / q.shape[1] + (1 - epsilon) * np.eye(q.shape[1])[q.argmax(1)]


def boltzmann(temperature: float) -> Policy:
    def policy(q: np.ndarray) -> np.ndarray:
        weight = np.exp(q / temperature)
        return weight / weight.sum(1, keepdims=True)

    return policy


greedy = epsilon_greedy(0.0)


def soft_values(mdp: type[Table], alpha: float, temperature: float, clip: float) -> np.ndarray:
    """The fixed point of Munchausen DQN (Vieillard et al. 2020, eq. 2), by iteration."""
    q = np.zeros(mdp.reward.shape)
    for _ in range(1000):
        policy = boltzmann(temperature)(q)
        bonus = np.clip(temperature * np.log(policy), clip, 0)
        soft = (policy * (q - temperature * np.log(policy))).sum(1)
        bootstrap = np.where(mdp.successor == END, 0.0, soft[mdp.successor])
        q = mdp.reward + alpha * bonus + GAMMA * bootstrap
    return q


STEPS = 1500
TOLERANCE = 0.03  # mostly 0.001; rules that sample actions or fractions come to 0.01
LEARN = [
    "seeds=3",
    "device=cpu",
    "compile=false",
    f"total_steps={STEPS}",
    f"buffer.capacity={STEPS}",
    f"eval.every={STEPS}",
    f"log.every={STEPS}",
    f"agent.gamma={GAMMA}",
    "agent.n_step=1",
    "agent.target.tau=0.05",
    "optim=adam",
    "optim.lr=1e-2",
    "optim.eps=1e-8",
    "optim.anneal=true",
    "optim.clip={kind:norm,max:10}",
    "buffer=uniform",
    "net=mlp",
    "net.activation=relu",
    "train.every=1",
    "train.batch_size=32",
    "net.hidden=[32]",
]
RANDOM = ["exploration=constant", "exploration.start=1"]
# At random until learning starts, then greedy, as on-policy rules then know.
THEN_GREEDY = [
    "exploration=linear",
    "exploration.hold_steps=498",
    "exploration.decay_steps=1",
    "exploration.end=0",
    "train.learning_starts=500",
]
SMALL = {
    "c51": ["agent.atoms=21", "agent.v_min=-0.5", "agent.v_max=1.5"],
    "double_c51": ["agent.atoms=21", "agent.v_min=-0.5", "agent.v_max=1.5"],
    "qr_dqn": ["agent.quantiles=8"],
}


def learned(make: Make, mdp: type[Table], *overrides: str) -> Tensor:
    """Q [S, states, A] after a run; overrides win over LEARN."""
    given = {text.partition("=")[0]: text for text in (*LEARN, *overrides)}
    parts = make(f"env.id={mdp.__name__}-v0", *given.values())
    parts.loop.advance(parts.config.total_steps)
    states = torch.eye(len(mdp.successor)).expand(parts.config.seeds, -1, -1)
    return parts.learner.q(states)


def distance(q: Tensor, expected: np.ndarray) -> float:
    """Largest difference of any seed's Q-values [S, states, A] from a table's."""
    return (q - torch.tensor(expected)).abs().max().item()


@pytest.mark.parametrize(
    "agent",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name not in ("ddqn", "iqn")))
        for name in options("agent")
        if name != "munchausen"
    ],
)
def test_every_rule_learns_what_greedy_actions_are_worth(make: Make, agent: str) -> None:
    q = learned(make, Corridor, f"agent={agent}", *SMALL.get(agent, []), *THEN_GREEDY)
    assert distance(q, fixed_point(Corridor, greedy)) < TOLERANCE


@pytest.mark.parametrize("agent", ["expected_sarsa", pytest.param("sarsa", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("exploration", "policy"),
    [
        pytest.param(["exploration=constant"], epsilon_greedy(0.5), marks=pytest.mark.slow),
        (["exploration=boltzmann", "exploration.end=0.5"], boltzmann(0.5)),
    ],
    ids=["epsilon_greedy", "boltzmann"],
)
def test_on_policy_rules_learn_what_exploring_is_worth(
    make: Make, agent: str, exploration: list[str], policy: Policy
) -> None:
    q = learned(make, Corridor, f"agent={agent}", *exploration, "exploration.start=0.5")
    assert distance(q, fixed_point(Corridor, policy)) < TOLERANCE
    assert distance(q, fixed_point(Corridor, greedy)) > 0.1


@pytest.mark.parametrize(
    ("alpha", "temperature", "clip"),
    [(0.9, 0.3, -0.3), pytest.param(0.0, 0.3, -1.0, marks=pytest.mark.slow)],
)
def test_munchausen_dqn_learns_its_soft_fixed_point(
    make: Make, alpha: float, temperature: float, clip: float
) -> None:
    constants = [f"agent.alpha={alpha}", f"agent.temperature={temperature}", f"agent.clip={clip}"]
    q = learned(make, Corridor, "agent=munchausen", *constants, *RANDOM)
    assert distance(q, soft_values(Corridor, alpha, temperature, clip)) < TOLERANCE
    assert distance(q, fixed_point(Corridor, greedy)) > 0.2


def test_a_time_limit_does_not_change_what_states_are_worth(make: Make) -> None:
    exact = fixed_point(Ring, greedy)
    limit = [*RANDOM, "env.max_episode_steps=4"]
    assert distance(learned(make, Ring, *limit), exact) < TOLERANCE
    mistake = ["plugins=[dqn_exp.notebooks]", "env.wrappers=[{name: time_limit_is_terminal}]"]
    assert distance(learned(make, Ring, *limit, *mistake), exact) > 0.5


@pytest.mark.slow
def test_double_dqn_is_less_optimistic_about_what_chance_has_favoured(make: Make) -> None:
    # Little memory and few moves of the target: the two networks have seen different rewards.
    forgetful = ["buffer.capacity=80", "agent.target={tau:1,every:400}", "optim.anneal=false"]
    rest = ["seeds=12", "total_steps=2000", "net.hidden=[16]", "agent.gamma=1", "agent.loss=mse"]
    single, double = (
        learned(make, MaximizationBias, f"agent={agent}", *rest, *forgetful, *RANDOM)
        for agent in ("dqn", "ddqn")
    )
    # Action 0 in state 0 is worth -0.1, the others 0.
    assert single[:, 0, 0].mean() > 0.3
    assert double[:, 0, 0].mean() < single[:, 0, 0].mean() - 0.3
    assert single[:, 0, 1:].mean().abs() < 0.1
