"""A trained agent acts as it did at the end of its training, without its env."""

import itertools
import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import options, sign, summary, tiny, tiny_run

import dqn_exp
from dqn_exp import manifest
from dqn_exp.config.problems import ConfigError
from dqn_exp.greedy import greedy_returns
from dqn_exp.run import trained
from dqn_exp.run.checkpoint import one_tensor

EVERY = list(itertools.product(options("agent"), options("net")))
# Every net; all pairs are slow tests.
SOME = [(agent, options("net")[i % len(options("net"))]) for i, agent in enumerate(options("agent"))]
PAIRS = [pytest.param(*pair, marks=() if pair in SOME[:4] else pytest.mark.slow) for pair in EVERY]
OBS = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three seeds with three checkpoints."""
    folder = tmp_path_factory.mktemp("policy") / "run"
    tiny_run(folder, "seeds=3", "seed=5", "checkpoint.every=100", "checkpoint.keep=3").run()
    return folder


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


def refusal(*arguments: object, **keywords: object) -> str:
    with pytest.raises(ConfigError) as caught:
        dqn_exp.load_policy(*arguments, **keywords)  # type: ignore[arg-type]
    return str(caught.value)


@pytest.mark.parametrize(("agent", "net"), PAIRS)
def test_every_agent_and_net_acts_and_scores_as_its_run(agent: str, net: str, tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", f"agent={agent}", f"net={net}", "seeds=2")
    run.run()
    obs = torch.from_numpy(OBS).expand(2, -1, -1)
    with torch.no_grad():
        expected = run.parts.learner.q(obs).numpy()
    for i, seed in enumerate([0, 1]):
        policy = dqn_exp.load_policy(tmp_path / "run", seed)
        # The library that multiplies matrices rounds differently for one seed than for two.
        assert policy.q(OBS) == pytest.approx(expected[i], rel=1e-5, abs=1e-6)
        assert np.array_equal(policy(OBS), policy.q(OBS).argmax(-1))
    config, rows = run.parts.config, slice(None)
    again = greedy_returns(
        trained.load(tmp_path / "run"), config, rows, config.eval.final_episodes, "eval"
    )
    assert again.mean(1).tolist() == summary(tmp_path / "run")["final_returns"]


def test_one_observation_gives_a_number_and_several_give_an_array(finished: Path) -> None:
    policy = dqn_exp.load_policy(finished, seed=6)
    one = policy(OBS[0])
    assert type(one) is int
    assert one == policy(torch.from_numpy(OBS[0])) == policy(OBS[0].tolist()) == policy(OBS)[0]  # type: ignore
    assert policy.q(OBS[0]).shape == (2,)
    assert policy.q(OBS[:0]).shape == (0, 2)


@pytest.mark.parametrize("obs", [np.zeros(3), np.zeros((2, 2, 4)), 0.0])
def test_observations_of_another_shape_are_refused(finished: Path, obs: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"must be \[4\], or \[B, 4\] for a batch"):
        dqn_exp.load_policy(finished)(obs)


def test_epsilon_is_the_probability_of_a_random_action(finished: Path) -> None:
    obs = np.repeat(OBS[:1], 10_000, axis=0)
    policy = dqn_exp.load_policy(finished)
    greedy = policy(obs)
    share = np.mean(policy(obs, epsilon=0.4) != greedy)
    assert share == pytest.approx(0.2, abs=0.02)  # half of the random actions are the greedy one
    assert np.array_equal(policy(obs), greedy)
    again = dqn_exp.load_policy(finished)
    again(obs)
    assert np.array_equal(dqn_exp.load_policy(finished)(obs, 0.4), again(obs, 0.4))


def test_discrete_observations_and_actions_are_the_envs_own_numbers(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = tiny_run(folder, "env=frozenlake")
    run.run()
    policy = dqn_exp.load_policy(folder)
    with torch.no_grad():
        expected = run.parts.learner.q(torch.eye(16, dtype=torch.uint8)[None])[0].numpy()
    assert np.array_equal(policy.q(np.arange(16)), expected)
    assert policy(3) == expected[3].argmax()
    for bad in (16, -1, 0.5, [0.0, 1.0]):
        with pytest.raises(ValueError, match="whole numbers from 0 to 15"):
            policy(bad)
    # An env whose states and actions begin elsewhere.
    checkpoint = folder / "checkpoints/step=300"
    sign(checkpoint, spec=manifest.read(checkpoint)["spec"] | {"first_obs": 100, "first_action": 7})
    policy = dqn_exp.load_policy(folder)
    assert policy(103) == expected[3].argmax() + 7


def test_without_a_seed_the_one_with_the_best_last_evaluation_is_loaded(copy: Path) -> None:
    changed = summary(copy) | {"final_returns": [3.0, 9.25, 5.0]}
    (copy / "summary.json").write_text(json.dumps(changed))
    policy = dqn_exp.load_policy(copy)
    assert policy.seed == 6
    assert repr(policy) == (
        "<Policy: ddqn on CartPole-v1, seed 6 (the best of 3), env step 300, last greedy return 9.2>"
    )
    assert "seed 7, env step 300" in repr(dqn_exp.load_policy(copy, seed=7))
    # An older checkpoint has its own evaluation, and the first none.
    scores = one_tensor(copy / "checkpoints/step=200", "scores")
    assert dqn_exp.load_policy(copy, checkpoint=200).seed == 5 + int(scores.argmax())
    assert dqn_exp.load_policy(copy, checkpoint=100).seed == 5


def test_a_damaged_checkpoint_is_passed_over(copy: Path) -> None:
    file = copy / "checkpoints/step=300/state.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    assert "env step 200" in repr(dqn_exp.load_policy(copy))
    assert "SHA-256 differs" in refusal(copy, checkpoint=300)
    assert "SHA-256 differs" in refusal(copy / "checkpoints/step=300")


def test_what_is_not_there_is_said(copy: Path, tmp_path: Path) -> None:
    assert refusal(copy, seed=4) == "seed=4: the run has seeds 5 to 7"
    assert refusal(copy, checkpoint=7).endswith("those of steps 300, 200, 100")
    assert refusal(tmp_path / "none").endswith("no such folder")
    assert refusal(tmp_path).endswith("not a run folder")
    shutil.rmtree(copy / "checkpoints")
    assert refusal(copy).endswith("a run without a checkpoint")


def test_a_plug_in_of_the_run_is_not_imported_unless_the_user_did(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "canary.py").write_text("raise SystemExit('code of a run folder has run')")
    monkeypatch.syspath_prepend(tmp_path)
    checkpoint = copy / "checkpoints/step=300"
    sign(checkpoint, config=manifest.read(checkpoint)["config"] | {"plugins": ["canary"]})
    assert "import it first if you trust it" in refusal(copy, checkpoint=300)
    monkeypatch.setitem(sys.modules, "canary", sys)
    assert "env step 300" in repr(dqn_exp.load_policy(copy))


def test_no_env_is_needed(finished: Path) -> None:
    script = (
        "import sys, dqn_exp, numpy;"
        f"policy = dqn_exp.load_policy({str(finished)!r}); policy(numpy.zeros(4));"
        "print('gymnasium.envs.classic_control' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


@pytest.mark.slow
def test_a_compiled_run_evaluates_to_the_same_returns(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tiny_run(tmp_path / "run", "env.backend=native", "compile=true", "seeds=2")
    run.run()
    found, config = trained.load(tmp_path / "run"), run.parts.config
    caplog.clear()
    with caplog.at_level(logging.INFO):
        returns = greedy_returns(found, config, slice(None), config.eval.final_episodes, "eval")
    assert returns.mean(1).tolist() == found.scores.tolist()
    assert [r.getMessage()[:11] for r in caplog.records] == ["compiling t", "compiled in"]


def test_one_seed_is_evaluated_as_among_others(finished: Path) -> None:
    found, config = trained.load(finished), tiny("seeds=3", "seed=5")
    every = greedy_returns(found, config, slice(None), 6, "evaluate")
    assert np.array_equal(greedy_returns(found, config, slice(1, 2), 6, "evaluate"), every[1:2])
    assert not np.array_equal(every, greedy_returns(found, config, slice(None), 6, "eval"))
