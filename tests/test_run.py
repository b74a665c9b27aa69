"""Whole runs: seeds do not influence each other, and every part works in one."""

from pathlib import Path

import gymnasium
import pytest
import torch
from gymnasium.wrappers import ReshapeObservation
from helpers import digests, options, rows, summary, tiny, tiny_run
from torch.testing import assert_close

from dqn_exp import Run, build
from dqn_exp.config.problems import ConfigError
from dqn_exp.config.schema import PARTS, Wrapper
from dqn_exp.registry import register

GROUPS = [group for group in PARTS if group != "wrapper"]
CHOICES = [f"{group}={option}" for group in GROUPS for option in options(group)]
# Every option at least once, with others.
MIXED = [
    " ".join(f"{group}={options(group)[i % len(options(group))]}" for group in GROUPS)
    for i in range(max(len(options(group)) for group in GROUPS))
]


def run_in_float64(folder: Path, *overrides: str) -> Run:
    shorter = ["total_steps=180", "buffer.capacity=120", "eval.every=100", "log.every=60"]
    run = Run(build(tiny(*shorter, *overrides), torch.float64), folder, progress=False)
    run.run()
    return run


def of_seed(path: Path, seed: int) -> list[dict[str, str]]:
    return [row for row in rows(path) if row["seed"] == str(seed)]


def floats(folder: Path, seed: int) -> list[tuple[str, str, float]]:
    """All metrics of a seed that do not depend on the clock or on how many seeds there were."""
    return [
        (row["step"], row["tag"], float(row["value"]))
        for row in of_seed(folder / "metrics.csv", seed)
        if row["tag"] != "time/steps_per_second"
    ]


@pytest.mark.parametrize(
    "choice",
    [
        *(pytest.param(m, marks=[pytest.mark.slow] * (i % 4 > 0)) for i, m in enumerate(MIXED)),
        *("env.n=3", "env.backend=native", "agent.target={tau:1,every:50}"),
        *(pytest.param(choice, marks=pytest.mark.slow) for choice in CHOICES),
    ],
)
def test_a_seed_in_lockstep_equals_its_solo_run(tmp_path: Path, choice: str) -> None:
    together = run_in_float64(tmp_path / "together", "seed=5", "seeds=3", *choice.split())
    alone = run_in_float64(tmp_path / "alone", "seed=7", "seeds=1", *choice.split())
    both = [run.folder.path for run in (together, alone)]
    episodes = [of_seed(folder / "episodes.csv", 7) for folder in both]
    assert episodes[0] == episodes[1]
    first, second = together.parts.learner, alone.parts.learner
    assert_close(first.params[2:], second.params)
    assert_close(first.target.params[2:], second.target.params)
    for (*key, value), (*same_key, same) in zip(*(floats(f, 7) for f in both), strict=True):
        assert (key, value) == (same_key, pytest.approx(same, rel=1e-5, abs=1e-6))


def test_seeds_differ_in_initial_weights_and_in_what_they_do(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, "seeds=3")
    initial = run.parts.learner.params.clone()
    assert len({tuple(row.tolist()) for row in initial}) == 3
    run.run()
    returns = [of_seed(tmp_path / "episodes.csv", seed) for seed in range(3)]
    assert len({tuple(row["step"] for row in episodes) for episodes in returns}) == 3


def test_the_same_run_twice_is_the_same_run_bit_for_bit(tmp_path: Path) -> None:
    first, second = (tiny_run(tmp_path / name, "seeds=2", "buffer=per") for name in "ab")
    first.run()
    torch.rand(3)  # the global generator has no part in it
    second.run()
    assert torch.equal(first.parts.learner.params, second.parts.learner.params)
    assert floats(tmp_path / "a", 1) == floats(tmp_path / "b", 1)


def test_a_run_leaves_the_global_random_state_alone(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    tiny_run(tmp_path).run()
    assert torch.equal(before, torch.get_rng_state())


def test_the_summary_holds_what_a_sweep_needs(tmp_path: Path) -> None:
    objective = tiny_run(tmp_path, "seed=3", "seeds=4").run()
    found = summary(tmp_path)
    assert found["status"] == "finished"
    assert found["objective"] == objective
    assert found["seeds"] == [3, 4, 5, 6]
    middle = sorted(found["final_returns"])[1:3]  # of four scores the mean of the middle two
    assert objective == pytest.approx(sum(middle) / 2)
    low, high = found["objective_ci95"]
    assert low <= objective <= high
    assert found["steps_per_second"] > 0
    assert found["wall_seconds"] > 0
    assert found["device"] == "cpu"
    assert {"torch", "gymnasium", "hydra-core"} <= set(found["versions"])


def test_a_failing_run_says_so_in_its_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tiny_run(tmp_path)
    step, calls = run.parts.env.step, iter(range(50))

    def break_at_step_50(action):
        next(calls)
        return step(action)

    monkeypatch.setattr(run.parts.env, "step", break_at_step_50)
    with pytest.raises(StopIteration):
        run.run()
    found = summary(tmp_path)
    assert (found["status"], found["error"]) == ("failed", "StopIteration()")
    with pytest.raises(RuntimeError, match="build its parts again"):
        run.run()


def test_a_run_does_not_begin_in_a_folder_with_another(tmp_path: Path) -> None:
    tiny_run(tmp_path).run()
    before = digests(tmp_path)
    with pytest.raises(ConfigError, match="contains a run; resume=auto continues it"):
        tiny_run(tmp_path).run()
    assert digests(tmp_path) == before


def test_running_twice_gives_the_same_objective_and_changes_no_file(tmp_path: Path) -> None:
    run = tiny_run(tmp_path)
    objective = run.run()
    before = digests(tmp_path)
    assert objective is not None
    assert run.run() == objective
    assert digests(tmp_path) == before


def test_a_finished_run_restores_its_trained_parameters_and_only_adds_a_line_to_its_log(
    tmp_path: Path,
) -> None:
    run = tiny_run(tmp_path, "seeds=2", "buffer=per")
    objective = run.run()
    before = digests(tmp_path)
    again = tiny_run(tmp_path, "seeds=2", "buffer=per", "resume=auto")
    assert again.run() == objective
    for mine, trained in (
        (again.parts.learner.params, run.parts.learner.params),
        (again.parts.learner.target.params, run.parts.learner.target.params),
    ):
        assert torch.equal(mine, trained)
    obs = run.parts.env.reset()
    assert torch.equal(again.parts.learner.q(obs), run.parts.learner.q(obs))
    after = digests(tmp_path)
    assert {name for name in after if after[name] != before.get(name)} == {"train.log"}
    assert "is finished: IQM" in (tmp_path / "train.log").read_text().splitlines()[-1]


def test_the_folder_may_be_a_string_and_is_made_with_those_around_it(tmp_path: Path) -> None:
    Run(build(tiny()), str(tmp_path / "not" / "there"), progress=False).run()
    assert summary(tmp_path / "not/there")["status"] == "finished"


def test_without_a_folder_a_run_gets_a_new_one_and_a_resumed_run_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Run(build(tiny("agent=dqn", "net=dueling", "buffer=per")), progress=False).run()
    (folder,) = (path.parent for path in tmp_path.rglob("summary.json"))
    assert folder.parents[1] == tmp_path / "outputs"
    assert folder.name.endswith("_CartPole-v1_dqn-per-dueling")
    longer = tiny("agent=dqn", "net=dueling", "buffer=per", "total_steps=400", f"resume={folder}")
    Run(build(longer), progress=False).run()
    assert summary(folder)["resumed_from"] == 300
    assert summary(folder)["step"] == 400
    with pytest.raises(ConfigError, match=r"resume=auto: needs the folder of the run"):
        Run(build(tiny("resume=auto")))


def test_too_large_a_replay_is_refused_with_its_bytes() -> None:
    with pytest.raises(ConfigError, match=r"buffer\.capacity=1000000000000: needs .* TB"):
        build(tiny("buffer.capacity=1_000_000_000_000"))


def test_a_net_for_vectors_refuses_images() -> None:
    @register("wrapper", "as_image")
    def as_image(env: gymnasium.Env, config: Wrapper) -> gymnasium.Env:
        return ReshapeObservation(env, (2, 2))

    with pytest.raises(ConfigError, match=r"net=mlp: observations of shape \(2, 2\)"):
        build(tiny("env.wrappers=[{name: as_image}]"))
