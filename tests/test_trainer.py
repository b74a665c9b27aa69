"""The training loop: its cadence, and that what it learns is right where the right values are known."""

import csv
from collections.abc import Callable

import pytest
import torch

from dqn_exp.experiment import Experiment
from dqn_exp.types import EPISODE_LOG, Batch

Make = Callable[..., Experiment]

LEARN = [
    "seeds=2",
    "agent.gamma=0.9",
    "agent.target.tau=0.05",
    "optim.lr=3e-3",
    "optim.weight_decay=0",
    "exploration=constant",
    "exploration.start=1.0",
    "train.every=1",
    "total_steps=2000",
    "buffer.capacity=2000",
    "net.hidden=[32]",
]


def chain(length: int, reward: float, bonus: float, terminates: bool) -> list[str]:
    kwargs = f"{{length:{length},reward:{reward},bonus:{bonus},terminates:{terminates}}}"
    env = "ProbeEnding-v0" if terminates else "ProbeEndless-v0"
    return [f"env.id={env}", f"+env.kwargs={kwargs}"]


def learned_q(experiment: Experiment, length: int) -> torch.Tensor:
    """Q-values [S, states, A] of the probe's one-hot states."""
    experiment.run()
    states = torch.eye(length).expand(len(experiment.seeds), -1, -1)
    return experiment.learner.q(states)


@pytest.mark.parametrize("agent", ["dqn", "ddqn"])
@pytest.mark.parametrize("buffer", ["uniform", "per"])
@pytest.mark.parametrize("net", ["mlp", "dueling"])
def test_one_step_episodes_are_worth_their_reward(
    make: Make, agent: str, buffer: str, net: str
) -> None:
    parts = [f"agent={agent}", f"buffer={buffer}", f"net={net}"]
    q = learned_q(make(*LEARN, *parts, *chain(1, 1.0, 0.5, terminates=True)), 1)
    torch.testing.assert_close(q, torch.tensor([1.0, 1.5]).expand_as(q), atol=0.05, rtol=0)


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("agent", ["dqn", "ddqn"])
def test_values_are_discounted_backwards_along_a_chain(make: Make, agent: str, n_step: int) -> None:
    # Every step pays 1 whatever the action, so all returns agree: 1 + .9 + .81, 1 + .9, 1.
    experiment = make(
        *LEARN, f"agent={agent}", f"agent.n_step={n_step}", *chain(3, 1.0, 0.0, terminates=True)
    )
    q = learned_q(experiment, 3)
    expected = torch.tensor([2.71, 1.9, 1.0]).unsqueeze(1).expand_as(q)
    torch.testing.assert_close(q, expected, atol=0.05, rtol=0)


@pytest.mark.parametrize("n_step", [1, 3])
def test_a_truncated_episode_still_bootstraps(make: Make, n_step: int) -> None:
    # Cut off after 5 steps, but the chain has no end: Q = 1 / (1 - .9) = 10, whereas a truncation
    # taken for an end would give at most 1 + .9 + ... + .9^4 = 4.1.
    experiment = make(
        *LEARN, f"agent.n_step={n_step}", "agent.target.tau=0.2", *chain(2, 1.0, 0.0, terminates=False)
    )
    q = learned_q(experiment, 2)
    torch.testing.assert_close(q, torch.full_like(q, 10.0), atol=0.5, rtol=0)


def column(experiment: Experiment, tag: str) -> list[tuple[int, float]]:
    with (experiment.run_dir / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [(int(row["step"]), float(row["value"])) for row in rows if row["tag"] == tag]


def test_logs_and_evaluations_come_at_their_intervals_and_at_the_end(make: Make) -> None:
    experiment = make("log.every=80", "eval.every=120")
    experiment.run()
    assert [step for step, _ in column(experiment, "train/epsilon")] == [80, 160, 240, 300]
    assert [step for step, _ in column(experiment, "train/td_loss")] == [80, 160, 240, 300]
    assert [step for step, _ in column(experiment, "eval/return_mean")] == [120, 240, 300]


@pytest.mark.parametrize("backend", ["gymnasium", "native"])
@pytest.mark.parametrize("n", [1, 3])
def test_every_episode_is_recorded_however_rare_the_logs(make: Make, backend: str, n: int) -> None:
    steps = 3 * (EPISODE_LOG + 7) * n  # more than an env need remember
    rare = [f"{key}={steps}" for key in ("total_steps", "log.every", "eval.every", "train.every")]
    experiment = make(*rare, f"env.backend={backend}", f"env.n={n}", "seeds=2")
    experiment.run()
    with (experiment.run_dir / "episodes.csv").open() as file:
        rows = list(csv.DictReader(file))
    for seed in ("0", "1"):
        episodes = [row for row in rows if row["seed"] == seed]
        assert [int(row["episode"]) for row in episodes] == list(range(len(episodes)))
        ends = [int(row["step"]) for row in episodes]
        assert ends == sorted(ends)
        assert ends[-1] <= steps
        # All steps but those of the n episodes that had not ended, 500 long at most.
        assert steps - 500 * n <= sum(int(row["length"]) for row in episodes) <= steps


@pytest.mark.parametrize(
    ("overrides", "updates"),
    [
        ([], 131),  # steps 40, 42, ..., 300
        (["train.every=7", "train.updates=3"], 3 * 37),  # steps 42, 49, ..., 294
        (["train.every=1", "env.n=3"], 261),  # a step of three envs passes three multiples
        (["train.every=1", "env.n=3", "train.learning_starts=41"], 261),  # begins with 40, 41, 42
        (["train.every=20", "env.n=3"], 14),
    ],
)
def test_updates_keep_their_ratio_to_env_steps(
    make: Make, monkeypatch: pytest.MonkeyPatch, overrides: list[str], updates: int
) -> None:
    experiment = make(*overrides)
    calls = []
    update = experiment.learner.update

    def counted(batch: Batch, env_step: int, gradient_step: int, rate: float) -> torch.Tensor:
        calls.append(gradient_step)
        return update(batch, env_step, gradient_step, rate)

    monkeypatch.setattr(experiment.learner, "update", counted)
    experiment.run()
    assert calls == list(range(updates))
    assert updates == experiment.context.total_updates


def test_the_learning_rate_falls_to_zero_and_beta_rises_to_one(make: Make) -> None:
    experiment = make("buffer=per", "buffer.capacity=210", "log.every=50")
    experiment.run()
    rates = [value for _, value in column(experiment, "train/lr")]
    assert rates == pytest.approx([3e-3 * (1 - step / 300) for step in range(50, 301, 50)], abs=1e-12)
    betas = [value for _, value in column(experiment, "buffer/beta")]
    assert betas == sorted(betas)
    assert betas[-1] == pytest.approx(1.0, abs=0.01)


def test_a_hard_target_moves_only_at_its_multiples(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = make("agent.target={tau:1,every:90}")
    moves = []
    update_target = experiment.learner.update_target

    def counted() -> None:
        moves.append(experiment.env._steps)
        update_target()

    monkeypatch.setattr(experiment.learner, "update_target", counted)
    experiment.run()
    assert moves == [90, 180, 270]
