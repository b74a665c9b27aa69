"""Stop rules on made-up episodes, and in a run."""

from pathlib import Path

import pytest
from helpers import rows, summary, tiny_run

from dqn_exp.config.schema import Stop
from dqn_exp.interfaces import Episode
from dqn_exp.run.stopping import StopRule


def rule(
    n_seeds: int,
    episodes: int | None = None,
    successes: int | None = None,
    success_return: float | None = None,
) -> StopRule:
    config = Stop(episodes=episodes, successes=successes, success_return=success_return)
    return StopRule(n_seeds, config)


def episode(seed: int, number: int, reward_sum: float) -> Episode:
    return Episode(seed, 0, number, step=10 * number, reward_sum=reward_sum, length=10)


def test_without_limits_it_is_never_met() -> None:
    never = rule(1)
    never.see(episode(0, number, 500.0) for number in range(1000))
    assert not never.met


def test_episodes_of_every_seed_count() -> None:
    three = rule(2, episodes=3)
    three.see([episode(0, 0, 1.0), episode(0, 1, 1.0), episode(1, 0, 1.0), episode(0, 2, 1.0)])
    assert not three.met
    three.see([episode(1, 1, 1.0), episode(0, 3, 1.0)])
    assert not three.met
    three.see([episode(1, 2, 1.0)])
    assert three.met
    assert [e and e.number for e in three.met_at] == [2, 2]


def test_successes_must_come_in_a_row_and_a_seed_that_had_them_has_met_the_rule() -> None:
    two = rule(2, successes=2, success_return=195.0)
    returns = [195.0, 194.9, 200.0, 195.0, 10.0, 10.0]  # in a row at numbers 2 and 3
    two.see(episode(0, number, value) for number, value in enumerate(returns))
    assert [e and e.number for e in two.met_at] == [3, None]
    assert not two.met
    two.see([episode(1, 0, 200.0), episode(0, 6, 200.0), episode(1, 1, 200.0)])
    assert two.met
    assert [e and e.number for e in two.met_at] == [3, 1]


@pytest.mark.parametrize("backend", ["gymnasium", "native"])
def test_a_run_ends_at_its_rule_and_says_where(tmp_path: Path, backend: str) -> None:
    random = ["exploration=constant", "exploration.start=1"]
    early = ["train.stop.episodes=5", "log.every=20", f"env.backend={backend}"]
    tiny_run(tmp_path, "seeds=2", *early, *random).run()
    found = summary(tmp_path)
    assert [met["number"] for met in found["stop_rule_met"]] == [4, 4]
    last = max(int(row["step"]) for row in rows(tmp_path / "metrics.csv"))
    assert max(met["step"] for met in found["stop_rule_met"]) <= last < 300
    assert found["status"] == "finished"


def test_the_summary_says_which_seeds_solved_it(tmp_path: Path) -> None:
    tiny_run(tmp_path, "seeds=2", "eval.solved=1e6").run()
    assert summary(tmp_path)["solved"] == [False, False]
    assert "stop_rule_met" not in summary(tmp_path)
