"""Each defect of the notebooks, put back into a copy of the package, makes a named test fail."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# What was wrong, where it would be, what stands there, what would stand there, and who would notice.
DEFECTS = {
    "the sampler takes the item after the right one": (
        "buffers/sum_tree.py",
        "return node, sums",
        "return (node + 1).clamp(max=self._widths[0] - 1), sums",
        "test_per.py::test_sampling_follows_the_priorities",
    ),
    "new items get a tiny priority": (
        "buffers/per.py",
        "self._max_priority.expand_as(index)",
        "torch.full_like(self._max_priority, 1e-4).expand_as(index)",
        "test_per.py::test_new_transitions_get_the_largest_priority_so_far_of_their_own_seed",
    ),
    "no importance weights": (
        "buffers/per.py",
        "/ priority) ** beta",
        "/ priority) ** 0.0",
        "test_per.py::test_weights_worked_by_hand",
    ),
    "priorities are |TD| itself, no alpha": (
        "buffers/per.py",
        "+ self._epsilon) ** self._alpha",
        "+ self._epsilon)",
        "test_per.py::test_update_priorities_sets_td_plus_epsilon_to_the_alpha",
    ),
    "a time limit is stored as terminal": (
        "buffers/ring.py",
        "terminated.to(dtype)]",
        "(terminated | truncated).to(dtype)]",
        "test_trainer.py::test_a_truncated_episode_still_bootstraps",
    ),
    "an n-step window runs over the end of an episode": (
        "buffers/ring.py",
        "td.n_step(rewards, stop > 0,",
        "td.n_step(rewards, ends > 2,",
        "test_ring.py::test_windows_worked_by_hand",
    ),
    "logged returns are those of the shaped reward": (
        "envs/single.py",
        "    if isinstance(env.observation_space, spaces.Discrete):",
        "    env = RecordEpisodeStatistics(env)\n"
        "    if isinstance(env.observation_space, spaces.Discrete):",
        "test_gymnasium_env.py::test_returns_are_those_of_the_env_even_under_reward_wrappers",
    ),
    "the successor of an episode's last state is the reset observation": (
        "envs/gymnasium_env.py",
        "return transition, self._obs",
        "return transition._replace(next_obs=self._obs), self._obs",
        "test_gymnasium_env.py::test_the_successor_of_a_finished_episode_is_no_reset_observation",
    ),
    "only the first reset is seeded": (
        "envs/gymnasium_env.py",
        "seed=self._current_seeds(), options",
        "seed=[None] * len(mask), options",
        "test_evaluation.py::test_only_the_first_episodes_of_each_env_count",
    ),
    "the running mean is padded with zeros": (
        "run/tracker.py",
        "sum(r) / len(r) if r else",
        "sum(r) / CARTPOLE_WINDOW if r else",
        "test_tracking.py::test_the_mean_over_100_episodes_is_not_padded",
    ),
    "Q-values pass a ReLU": (
        "nets/mlp.py",
        "self._n_atoms))\n        return output",
        "self._n_atoms))\n        return output.relu()",
        "test_nets.py::test_a_net_equals_separate_torch_networks",
    ),
    "Q = V + A": (
        "nets/dueling.py",
        " - advantage.mean(actions, keepdim=True)",
        "",
        "test_nets.py::test_the_mean_of_dueling_q_values_is_the_state_value",
    ),
    "the next action is chosen by the network that evaluates it": (
        "agents/ddqn.py",
        "nets.selector(next_obs)",
        "nets.target(next_obs)",
        "test_agents.py::test_targets_and_td_errors_by_hand",
    ),
    "a gradient passes through the target": (
        "agents/dqn.py",
        "self.target(nets, batch).detach()",
        "self.target(nets, batch)",
        "test_agents.py::test_no_gradient_passes_through_the_bootstrap_even_with_one_network",
    ),
    "tau is unused": (
        "target.py",
        "self.params.lerp_(online, self._tau)",
        "self.params.lerp_(online, 1.0)",
        "test_learner.py::test_a_soft_target_moves_at_every_update",
    ),
    "gradients are clipped across seeds": (
        "optim.py",
        "torch.linalg.vector_norm(grad, dim=1)",
        "torch.linalg.vector_norm(grad).expand(len(grad))",
        "test_optim.py::test_a_huge_gradient_in_one_seed_leaves_the_others_unclipped",
    ),
    "all seeds start from the same weights": (
        "nets/layers.py",
        'rng.uniform(seeds, "init"',
        'rng.uniform(seeds * 0, "init"',
        "test_run.py::test_seeds_differ_in_initial_weights_and_in_what_they_do",
    ),
    "epsilon counts another seed's episodes": (
        "exploration.py",
        "(self._start / (episode + 1))",
        "(self._start / (episode.flip(0) + 1))",
        "test_exploration.py::test_each_seed_explores_by_its_own_episodes",
    ),
}


def outcome(folder: Path, *tests: str) -> subprocess.CompletedProcess[str]:
    """Run tests on the package in a folder."""
    command = [sys.executable, "-m", "pytest", "-x", "-n0", "-p", "no:cacheprovider"]
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    env["PYTHONPATH"] = str(folder)
    nodes = [f"tests/{test}" for test in tests]
    return subprocess.run([*command, *nodes], cwd=folder, env=env, capture_output=True, text=True)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the repository's code."""
    for name in ("dqn_exp", "conf", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "train.py"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


@pytest.mark.slow
def test_without_a_defect_the_tests_pass(copy: Path) -> None:
    done = outcome(copy, *dict.fromkeys(test for *_, test in DEFECTS.values()))
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_makes_a_test_fail(copy: Path, defect: str) -> None:
    file, right, wrong, test = DEFECTS[defect]
    path = copy / "dqn_exp" / file
    text = path.read_text()
    assert text.count(right) == 1, f"{right!r} is not in {file} once"
    path.write_text(text.replace(right, wrong))
    done = outcome(copy, test)
    assert done.returncode == 1, done.stdout + done.stderr  # a failure, not an error of collection
    assert "AssertionError" in done.stdout or "assert" in done.stdout
