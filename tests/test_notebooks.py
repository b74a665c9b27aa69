"""The deviations of the notebooks, by hand: replay, network, wrappers, and that runs report them."""

from collections.abc import Callable

import gymnasium
import pytest
import torch
from helpers import context, part
from tables import rule
from torch import Tensor

from dqn_exp import notebooks
from dqn_exp.interfaces import Transition
from dqn_exp.parts import Parts

OUTCOME = {"name": "outcome_reward", "success_steps": 195}
TERMINAL = {"name": "time_limit_is_terminal"}
SIZE = 8
MOSTLY_FIRST = torch.tensor([[1e6] + [1e-3] * (SIZE - 1)])  # |TD| with which slot 0 is drawn


def replay(n_episodes: list[int]) -> notebooks.NotebookPER:
    """Full replay of SIZE slots, after as many finished episodes of each seed."""
    S = len(n_episodes)
    beside = context(range(S), 1, (1,), torch.float64, dtype=torch.float64, batch_size=4)
    keys = {"capacity": SIZE, "alpha": 1.0, "beta_start": 0.5, "beta_end": 0.5, "epsilon": 1e-9}
    buffer = part("buffer", "notebook_per", beside, rule("dqn", n_step=1), **keys)
    for time in range(2 * max(n_episodes)):
        # A seed's episodes end one by one, by a terminal state and by the time limit in turn.
        ended = torch.tensor([[time < n] for n in n_episodes])
        terminal = torch.full((S, 1), time % 2 == 0)
        reward = torch.full((S, 1), float(time), dtype=torch.float64)
        obs, action = reward.unsqueeze(-1), torch.zeros(S, 1, dtype=torch.int64)
        buffer.add(Transition(obs, action, reward, obs, ended & terminal, ended & ~terminal), time)
    return buffer


def drawn(buffer: notebooks.NotebookPER, steps: int = 1000) -> Tensor:
    """Slots [S, steps * B] of many minibatches of the full buffer."""
    return torch.cat([buffer.sample(SIZE, step).index for step in range(steps)], dim=1)


def test_notebook_replay_takes_the_slot_after_the_one_drawn_once_30_episodes_are_over() -> None:
    buffer = replay([30])
    # Slots 2 and 7 have priorities 3 and 1: of four draws three are 2 and the last is 7.
    td_abs = torch.tensor([[0.0, 0.0, 3.0, 0.0, 0.0, 0.0, 0.0, 1.0]])
    buffer.update_priorities(torch.arange(SIZE).unsqueeze(0), td_abs)
    batch = buffer.sample(SIZE, 0)
    assert batch.index.tolist() == [[3, 3, 3, 7]]  # after the last slot there is none
    # The weights are those of the slots drawn: (1 / 3)^(1/2) of the rarest, 7.
    assert batch.weight.tolist() == [pytest.approx([3**-0.5, 3**-0.5, 3**-0.5, 1.0])]
    assert set(drawn(buffer)[0].tolist()) == {3, 7}


@pytest.mark.parametrize(("episodes", "uniform"), [(29, True), (30, False)])
def test_notebook_replay_is_uniform_for_the_first_30_episodes(episodes: int, uniform: bool) -> None:
    buffer = replay([episodes])
    buffer.update_priorities(
        torch.arange(SIZE).unsqueeze(0), torch.tensor([[1e6] + [1e-3] * (SIZE - 1)])
    )
    counts = drawn(buffer)[0].bincount(minlength=SIZE)
    if uniform:  # each of 4 shares of the ring gives one of its 2 slots
        assert counts.sum() == 4000
        assert counts.min() > 400
    else:
        assert counts[1] > 3990


def test_each_seed_of_notebook_replay_counts_its_own_episodes() -> None:
    buffer = replay([30, 3])
    buffer.update_priorities(torch.arange(SIZE).expand(2, -1), MOSTLY_FIRST.expand(2, -1))
    first, second = (row.bincount(minlength=SIZE) for row in drawn(buffer))
    assert first[1] > 3990
    assert second.min() > 400
    assert buffer.state_dict()["episodes"].tolist() == [[30], [3]]


def test_resumed_notebook_replay_knows_how_many_episodes_were_over() -> None:
    buffer, fresh = replay([31, 2]), replay([0, 0])
    fresh.load_state_dict({name: tensor.clone() for name, tensor in buffer.state_dict().items()})
    assert torch.equal(drawn(fresh, 50), drawn(buffer, 50))


MLP = {"hidden": [6], "activation": "tanh", "sigma": None}


def test_no_q_value_of_the_relu_output_net_is_negative_and_the_others_are_those_of_an_mlp() -> None:
    beside, agent = context([3, 8], n_actions=3), rule("dqn")
    relu = part("net", "relu_output_mlp", beside, agent, **MLP)
    plain = part("net", "mlp", beside, agent, **MLP)
    params = relu.init(beside.seeds)
    assert torch.equal(params, plain.init(beside.seeds))
    obs = torch.linspace(-3.0, 3.0, 2 * 9 * 4).view(2, 9, 4)
    q = plain(plain.views(params), obs)
    assert (q < 0).any()
    assert (q > 0).any()
    assert torch.equal(relu(relu.views(params), obs), torch.where(q > 0, q, 0.0))


@pytest.mark.parametrize("agent", ["c51", "double_c51", "qr_dqn", "iqn"])
def test_the_relu_output_net_refuses_rules_whose_outputs_are_distributions(agent: str) -> None:
    with pytest.raises(ValueError, match="needs an agent whose outputs are Q-values"):
        part("net", "relu_output_mlp", context(), rule(agent), **MLP)


def play(env: gymnasium.Env, balance: bool) -> list[tuple[float, bool, bool]]:
    """Reward, terminated and truncated of each step of an episode."""
    obs, _ = env.reset(seed=0)
    steps = []
    while not steps or not (steps[-1][1] or steps[-1][2]):
        action = int(0.1 * obs[0] + 0.5 * obs[1] + 2.0 * obs[2] + obs[3] > 0) if balance else 0
        obs, reward, terminated, truncated, _ = env.step(action)
        steps.append((float(reward), terminated, truncated))
    return steps


def wrapped(wrapper: dict, limit: int) -> gymnasium.Env:
    """CartPole with a time limit, in a wrapper."""
    env = gymnasium.make("CartPole-v1", max_episode_steps=limit)
    return part("wrapper", wrapper["name"], env, **wrapper)


def test_the_outcome_of_an_episode_is_its_only_reward() -> None:
    env = wrapped(OUTCOME, 200)
    won = play(env, balance=True)
    assert won == [(0.0, False, False)] * 199 + [(1.0, False, True)]
    lost = play(env, balance=False)  # counts its steps anew
    assert lost == [(0.0, False, False)] * (len(lost) - 1) + [(-1.0, True, False)]


@pytest.mark.parametrize(("limit", "outcome"), [(195, -1.0), (196, 1.0)])
def test_a_success_is_longer_than_success_steps(limit: int, outcome: float) -> None:
    assert play(wrapped(OUTCOME, limit), balance=True)[-1][0] == outcome


def test_a_time_limit_may_count_as_a_terminal_state() -> None:
    env = wrapped(TERMINAL, 30)
    assert play(env, balance=True) == [(1.0, False, False)] * 29 + [(1.0, True, False)]
    fell = play(env, balance=False)
    assert fell == [(1.0, False, False)] * (len(fell) - 1) + [(1.0, True, False)]


def test_a_run_says_what_its_parts_do_on_purpose_that_their_sources_do_not(
    make: Callable[..., Parts],
) -> None:
    parts = make(
        "plugins=[dqn_exp.notebooks]",
        "buffer=per",
        "buffer.name=notebook_per",
        "net=mlp",
        "net.name=relu_output_mlp",
        "env.wrappers=[{name: time_limit_is_terminal}, {name: outcome_reward, success_steps: 195}]",
        "agent.target.episodes=2",
    )
    said = list(parts.deviations())
    expected = ["notebook_per", "relu_output_mlp", "time_limit_is_terminal", "outcome_reward"]
    expected.append("agent.target.episodes")
    assert len(said) == len(expected)
    for name in expected:
        assert len([line for line in said if name in line.partition(":")[0]]) == 1, name
    assert not any("\n" in line for line in said)


def test_a_run_of_general_parts_says_nothing(make: Callable[..., Parts]) -> None:
    wrapper = "env.wrappers=[{name: clip_reward, low: -1, high: 1}]"
    assert list(make("buffer=per", "net=noisy_dueling", "agent=c51", wrapper).deviations()) == []
