"""The training: its cadence, and that what it learns is right where the right values are known."""

import itertools
from pathlib import Path

import pytest
import torch
from helpers import rows, tiny_run

from dqn_exp import Run
from dqn_exp.interfaces import EPISODE_LOG, Batch

LEARN = [
    "seeds=2",
    "agent.gamma=0.9",
    "agent.loss=huber",
    "optim=adam",
    "optim.lr=3e-3",
    "optim.eps=1e-8",
    "optim.anneal=true",
    "optim.clip={kind:norm,max:10}",
    "exploration=constant",
    "exploration.start=1.0",
    "train.every=1",
    "train.updates=1",
    "total_steps=2000",
    "buffer.capacity=2000",
    "net.hidden=[32]",
]


def chain(length: int, reward: float, bonus: float, terminates: bool) -> list[str]:
    kwargs = f"{{length:{length},reward:{reward},bonus:{bonus},terminates:{terminates}}}"
    env = "ProbeEnding-v0" if terminates else "ProbeEndless-v0"
    return [f"env.id={env}", f"+env.kwargs={kwargs}"]


def target(tau: float) -> str:
    return f"agent.target={{tau:{tau},every:null,episodes:null}}"


def learned_q(folder: Path, length: int, *overrides: str) -> torch.Tensor:
    """Q-values [S, states, A] of the probe's one-hot states."""
    run = tiny_run(folder, *LEARN, *overrides)
    run.run()
    return run.parts.learner.q(torch.eye(length).expand(2, -1, -1))


slow = pytest.mark.slow
EIGHT = list(itertools.product(["dqn", "ddqn"], ["uniform", "per"], ["mlp", "dueling"]))


@slow
@pytest.mark.parametrize(("agent", "buffer", "net"), EIGHT)
def test_one_step_episodes_are_worth_their_reward(
    tmp_path: Path, agent: str, buffer: str, net: str
) -> None:
    parts = [f"agent={agent}", f"buffer={buffer}", f"net={net}", "agent.n_step=10", target(0.05)]
    parts += ["net.stream_hidden=[32]"] if net == "dueling" else []
    q = learned_q(tmp_path, 1, *parts, *chain(1, 1.0, 0.5, terminates=True))
    torch.testing.assert_close(q, torch.tensor([1.0, 1.5]).expand_as(q), atol=0.05, rtol=0)


@pytest.mark.parametrize(
    ("agent", "n_step"),
    [("dqn", 3), *(pytest.param(*case, marks=slow) for case in (("dqn", 1), ("ddqn", 1), ("ddqn", 3)))],
)
def test_values_are_discounted_backwards_along_a_chain(tmp_path: Path, agent: str, n_step: int) -> None:
    # Every step pays 1 whatever the action, so all returns agree: 1 + .9 + .81, 1 + .9, 1.
    parts = [f"agent={agent}", "net=mlp", "buffer=uniform", f"agent.n_step={n_step}", target(0.05)]
    q = learned_q(tmp_path, 3, *parts, *chain(3, 1.0, 0.0, terminates=True))
    expected = torch.tensor([2.71, 1.9, 1.0]).unsqueeze(1).expand_as(q)
    torch.testing.assert_close(q, expected, atol=0.05, rtol=0)


@pytest.mark.parametrize("n_step", [pytest.param(1, marks=slow), 3])
def test_a_truncated_episode_still_bootstraps(tmp_path: Path, n_step: int) -> None:
    # Cut off after 5 steps, but the chain has no end: Q = 1 / (1 - .9) = 10, whereas a truncation
    # taken for an end would give at most 1 + .9 + ... + .9^4 = 4.1.
    parts = ["agent=ddqn", "net=mlp", "buffer=uniform", f"agent.n_step={n_step}", target(0.2)]
    q = learned_q(tmp_path, 2, *parts, *chain(2, 1.0, 0.0, terminates=False))
    torch.testing.assert_close(q, torch.full_like(q, 10.0), atol=0.5, rtol=0)


def column(run: Run, tag: str) -> list[tuple[int, float]]:
    found = rows(run.folder.path / "metrics.csv")
    return [(int(row["step"]), float(row["value"])) for row in found if row["tag"] == tag]


def test_logs_and_evaluations_come_at_their_intervals_and_at_the_end(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, "log.every=80", "eval.every=120", "exploration=linear")
    run.run()
    assert [step for step, _ in column(run, "train/epsilon")] == [80, 160, 240, 300]
    assert [step for step, _ in column(run, "train/td_loss")] == [80, 160, 240, 300]
    assert [step for step, _ in column(run, "eval/return_mean")] == [120, 240, 300]


@pytest.mark.parametrize(
    ("backend", "n"),
    [
        ("gymnasium", 3),
        *(pytest.param(*case, marks=slow) for case in (("gymnasium", 1), ("native", 1), ("native", 3))),
    ],
)
def test_every_episode_is_recorded_however_rare_the_logs(tmp_path: Path, backend: str, n: int) -> None:
    steps = 3 * (EPISODE_LOG + 7) * n  # more than an env need remember
    rare = [f"{key}={steps}" for key in ("total_steps", "log.every", "eval.every", "train.every")]
    tiny_run(tmp_path, *rare, f"env.backend={backend}", f"env.n={n}", "seeds=2").run()
    for seed in ("0", "1"):
        episodes = [row for row in rows(tmp_path / "episodes.csv") if row["seed"] == seed]
        assert [int(row["episode"]) for row in episodes] == list(range(len(episodes)))
        ends = [int(row["step"]) for row in episodes]
        assert ends == sorted(ends)
        assert ends[-1] <= steps
        # All steps but those of the n episodes that had not ended, 500 long at most.
        assert steps - 500 * n <= sum(int(row["length"]) for row in episodes) <= steps


@pytest.mark.parametrize(
    ("overrides", "updates"),
    [
        (["train.every=2"], 131),  # steps 40, 42, ..., 300
        (["train.every=7", "train.updates=3"], 3 * 37),  # steps 42, 49, ..., 294
        (["train.every=1", "env.n=3"], 261),  # a step of three envs passes three multiples
        (["train.every=1", "env.n=3", "train.learning_starts=41"], 261),  # begins with 40, 41, 42
        (["train.every=20", "env.n=3"], 14),
    ],
)
def test_updates_keep_their_ratio_to_env_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], updates: int
) -> None:
    run = tiny_run(tmp_path, *overrides)
    calls = []
    update = run.parts.learner.update

    def counted(batch: Batch, env_step: int, gradient_step: int, rate: float) -> torch.Tensor:
        calls.append(gradient_step)
        return update(batch, env_step, gradient_step, rate)

    monkeypatch.setattr(run.parts.learner, "update", counted)
    run.run()
    assert calls == list(range(updates))
    assert updates == run.parts.context.total_updates


def test_the_learning_rate_falls_to_zero_and_beta_rises_to_one(tmp_path: Path) -> None:
    anneal = ["optim=adamw", "optim.lr=3e-3", "optim.anneal=true", "log.every=50"]
    run = tiny_run(tmp_path, "buffer=per", "buffer.beta_start=0.4", "buffer.beta_end=1", *anneal)
    run.run()
    rates = [value for _, value in column(run, "train/lr")]
    assert rates == pytest.approx([3e-3 * (1 - step / 300) for step in range(50, 301, 50)], abs=1e-12)
    betas = [value for _, value in column(run, "buffer/beta")]
    assert betas == sorted(betas)
    assert betas[0] < 0.6
    assert betas[-1] == pytest.approx(1.0, abs=0.01)


def test_a_hard_target_moves_only_at_its_multiples(tmp_path: Path) -> None:
    parts = tiny_run(tmp_path, "agent.target={tau:1,every:90}", "train.every=2").parts
    moves, before = [], parts.learner.target.params.clone()
    for step in range(1, 301):
        parts.loop.advance(step)
        if not torch.equal(parts.learner.target.params, before):
            moves.append(step)
            before = parts.learner.target.params.clone()
            assert torch.equal(before, parts.learner.params)
    assert moves == [90, 180, 270]
