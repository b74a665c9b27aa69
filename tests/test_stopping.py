"""Stop rules on made-up episodes, and in a run."""

import csv
import json
from collections.abc import Callable

import pytest

from dqn_exp.experiment import Experiment
from dqn_exp.stopping import StopRule
from dqn_exp.types import Episode


def episode(seed: int, number: int, reward_sum: float) -> Episode:
    return Episode(seed, 0, number, step=10 * number, reward_sum=reward_sum, length=10)


def test_without_limits_it_is_never_met() -> None:
    rule = StopRule(1, episodes=None, successes=None, success_return=None)
    rule.see(episode(0, number, 500.0) for number in range(1000))
    assert not rule.met


def test_episodes_of_every_seed_count() -> None:
    rule = StopRule(2, episodes=3, successes=None, success_return=None)
    rule.see([episode(0, 0, 1.0), episode(0, 1, 1.0), episode(1, 0, 1.0), episode(0, 2, 1.0)])
    assert not rule.met
    rule.see([episode(1, 1, 1.0), episode(0, 3, 1.0)])
    assert not rule.met
    rule.see([episode(1, 2, 1.0)])
    assert rule.met
    assert [e and e.number for e in rule.met_at] == [2, 2]


def test_successes_must_come_in_a_row_and_a_seed_that_had_them_has_met_the_rule() -> None:
    rule = StopRule(2, episodes=None, successes=2, success_return=195.0)
    returns = [195.0, 194.9, 200.0, 195.0, 10.0, 10.0]  # in a row at numbers 2 and 3
    rule.see(episode(0, number, value) for number, value in enumerate(returns))
    assert [e and e.number for e in rule.met_at] == [3, None]
    assert not rule.met
    rule.see([episode(1, 0, 200.0), episode(0, 6, 200.0), episode(1, 1, 200.0)])
    assert rule.met
    assert [e and e.number for e in rule.met_at] == [3, 1]


@pytest.mark.parametrize("backend", ["gymnasium", "native"])
def test_a_run_ends_at_its_rule_and_says_where(make: Callable[..., Experiment], backend: str) -> None:
    experiment = make("seeds=2", "train.stop.episodes=5", "log.every=20", f"env.backend={backend}")
    experiment.run()
    summary = json.loads((experiment.run_dir / "summary.json").read_text())
    assert [met["number"] for met in summary["stop_rule_met"]] == [4, 4]
    with (experiment.run_dir / "metrics.csv").open() as file:
        last = max(int(row["step"]) for row in csv.DictReader(file))
    assert max(met["step"] for met in summary["stop_rule_met"]) <= last < 300
    assert summary["status"] == "finished"


def test_the_summary_says_which_seeds_solved_it(make: Callable[..., Experiment]) -> None:
    experiment = make("seeds=2", "eval.solved=1e6")
    experiment.run()
    summary = json.loads((experiment.run_dir / "summary.json").read_text())
    assert summary["solved"] == [False, False]
    assert "stop_rule_met" not in summary
