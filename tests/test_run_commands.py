"""The commands about trained runs, from their command line to their files."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import gymnasium
import imageio.v3 as iio
import imageio_ffmpeg
import numpy as np
import onnxruntime
import pytest
import torch
from faulty import Faulty
from helpers import options, summary, tiny_run

import dqn_exp
from dqn_exp.__main__ import COMMANDS
from dqn_exp.config.problems import ConfigError
from dqn_exp.film import Film
from dqn_exp.policy import q_function, read_config
from dqn_exp.run import trained

OF_RUNS = {
    "evaluate": [],
    "watch": [],
    "video": ["--out", "film.gif"],
    "export": ["--out", "q.onnx"],
}
every_command = pytest.mark.parametrize("command", OF_RUNS)
OBS = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two seeds."""
    folder = tmp_path_factory.mktemp("commands") / "run=1"
    tiny_run(folder, "seeds=2", "seed=5").run()
    return folder


@pytest.fixture(autouse=True)
def in_a_folder_without_a_display(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(variable, raising=False)


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What a command prints."""
    module = importlib.import_module(COMMANDS[str(arguments[0])][0])
    monkeypatch.setattr(sys, "argv", list(map(str, arguments)))
    module.main()
    return capsys.readouterr().out


@pytest.fixture
def dqn(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    return lambda *arguments: run(monkeypatch, capsys, *arguments)


def test_evaluate_repeats_the_runs_own_evaluation(dqn, finished: Path) -> None:
    printed = dqn("evaluate", finished, "--own-streams", "--json", "out.json")
    results = json.loads(Path("out.json").read_text())
    assert results["means"] == summary(finished)["final_returns"]
    assert results["iqm"] == summary(finished)["objective"]
    assert np.shape(results["returns"]) == (2, 4)
    assert printed.splitlines()[0].endswith("4 greedy episodes per seed, those of the run")
    assert f"IQM {results['iqm']:.1f} over 2 seeds, 95 % CI [" in printed


def test_evaluate_plays_new_episodes_of_any_number(dqn, finished: Path) -> None:
    dqn("evaluate", finished, "--episodes", 7, "--json", "7.json")
    dqn("evaluate", finished, "--episodes", 7, "--seed", 6, "--json", "one.json")
    every, one = (json.loads(Path(name).read_text()) for name in ("7.json", "one.json"))
    assert np.shape(every["returns"]) == (2, 7)
    assert one["returns"] == every["returns"][1:]
    assert one["iqm_ci95"] is None


def test_evaluate_plays_in_another_env_with_the_same_spaces(dqn, finished: Path) -> None:
    dqn("evaluate", finished, "env.max_episode_steps=5", "--json", "short.json")
    assert json.loads(Path("short.json").read_text())["means"] == [5.0, 5.0]
    with pytest.raises(ConfigError) as refusal:
        dqn("evaluate", finished, "env=acrobot")
    assert str(refusal.value).splitlines() == [
        "env.id=Acrobot-v1: its obs_shape is (6,), the run was trained with (4,)",
        "env.id=Acrobot-v1: its n_actions is 3, the run was trained with 2",
    ]


@pytest.mark.parametrize(("pick", "of"), [("best", max), ("worst", min)])
def test_a_film_shows_the_picked_episode_with_its_q_values(dqn, finished: Path, pick: str, of) -> None:
    printed = dqn("video", finished, "--seed", 5, "--pick", pick, "--episodes", 4, "--out", "film.gif")
    found = trained.load(finished)
    config = read_config(found)
    film = Film(config.env, q_function(config, found, slice(0, 1)), 5, "rgb_array")
    returns = film.returns(4)
    assert len(set(returns)) > 1
    start = f"film.gif: the {pick} of 4 greedy episodes of seed 5, return {of(returns):.1f} ("
    assert printed.startswith(start)
    frames = iio.imread("film.gif")
    assert frames.shape[1:] == (400, 820, 3)
    assert len({frame.tobytes() for frame in frames}) > 1
    assert Path("film.gif").stat().st_size < 1 << 20
    assert os.listdir() == ["film.gif"]


def test_a_film_as_mp4(dqn, finished: Path) -> None:
    printed = dqn("video", finished, "--episodes", 2, "--out", "film.mp4")
    n_frames = int(printed.rpartition(", ")[2].split()[0])
    assert imageio_ffmpeg.count_frames_and_secs("film.mp4") == (n_frames, n_frames / 50)


def test_watching_plays_in_a_window(dqn, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    printed = dqn("watch", finished, "--episodes", 2, "env.max_episode_steps=4").splitlines()
    assert printed[1:] == ["episode 0: return 4.0", "episode 1: return 4.0"]


SOME = [("iqn", "noisy_dueling")]  # all pairs are slow tests


@pytest.mark.parametrize(
    ("agent", "net"),
    [
        pytest.param(agent, net, marks=() if (agent, net) in SOME else pytest.mark.slow)
        for agent in options("agent")
        for net in options("net")
    ],
)
def test_an_exported_network_computes_the_policys_q_values(
    dqn, agent: str, net: str, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    tiny_run(folder, f"agent={agent}", f"net={net}").run()
    expected = dqn_exp.load_policy(folder).q(OBS)
    dqn("export", folder, "--out", "q.onnx")
    session = onnxruntime.InferenceSession("q.onnx", providers=["CPUExecutionProvider"])
    assert [node.name for node in (*session.get_inputs(), *session.get_outputs())] == ["obs", "q"]
    assert session.run(None, {"obs": OBS})[0] == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert session.run(None, {"obs": OBS[:1]})[0] == pytest.approx(expected[:1], rel=1e-5, abs=1e-5)
    dqn("export", folder, "--out", "q.pt2")
    program = torch.export.load("q.pt2").module()
    assert program(torch.from_numpy(OBS)).numpy() == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.slow
def test_one_hot_observations_are_exported(dqn, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    tiny_run(folder, "env=frozenlake").run()
    dqn("export", folder, "--out", "q.onnx")
    session = onnxruntime.InferenceSession("q.onnx", providers=["CPUExecutionProvider"])
    expected = dqn_exp.load_policy(folder).q(np.arange(16))
    assert session.run(None, {"obs": np.eye(16, dtype=np.uint8)})[0] == pytest.approx(
        expected, abs=1e-5
    )


def test_a_network_that_computes_something_else_is_not_kept(
    dqn, finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dqn_exp.export.TOLERANCE", -1.0)
    with pytest.raises(SystemExit) as stopped:
        dqn("export", finished, "--out", "q.pt2")
    assert stopped.value.code == 1
    assert "q.pt2 not written: the exported Q-values differ by" in capsys.readouterr().err
    assert os.listdir() == []


@every_command
def test_what_is_no_run_is_said(
    dqn, command: str, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished, "unfinished")
    shutil.rmtree("unfinished/checkpoints")
    before = sorted(tmp_path.rglob("*"))
    for folder, line in [
        ("none", "run=none: no such folder"),
        (".", "run=.: not a run folder"),
        ("unfinished", "run=unfinished: a run without a checkpoint"),
    ]:
        with pytest.raises(ConfigError) as refusal:
            dqn(command, folder, *OF_RUNS[command])
        assert str(refusal.value) == line
    for argument, line in [
        (("--checkpoint", 7), "no such checkpoint; there are those of steps 300"),
        (("--seed", 9), "seed=9: the run has seeds 5 to 6"),
    ]:
        with pytest.raises(ConfigError) as refusal:
            dqn(command, finished, *argument, *OF_RUNS[command])
        assert str(refusal.value).endswith(line)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("command", "library", "name"),
    [("video", "imageio", "video"), ("video", "PIL", "video"), ("export", "onnxruntime", "export")],
)
def test_a_missing_library_is_said_with_the_extra_that_has_it(
    dqn, command: str, library: str, name: str, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)  # type: ignore[arg-type]
    monkeypatch.delitem(sys.modules, f"{library}.v3", raising=False)
    with pytest.raises(ConfigError) as refusal:
        dqn(command, finished, *OF_RUNS[command])
    assert str(refusal.value) == f'{library}: is not installed: pip install "dqn-exp[{name}]"'
    assert os.listdir() == []


def test_an_env_without_frames_is_refused(dqn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gymnasium.register("Blind-v0", lambda **_: Faulty("none"), max_episode_steps=9)
    try:
        tiny_run(tmp_path / "run", "env.id=Blind-v0").run()
        with pytest.raises(ConfigError) as refusal:
            dqn("video", tmp_path / "run", "--out", "film.gif")
    finally:
        del gymnasium.registry["Blind-v0"]
    assert str(refusal.value) == "env.id=Blind-v0: cannot be rendered as rgb_array, only as: nothing"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            "video {run} --out film.avi",
            "command line: argument --out: film.avi must end in .mp4 or .gif; see dqn-exp video --help",
        ),
        (
            "video {run} --out no/film.gif",
            "command line: argument --out: there is no folder no; see dqn-exp video --help",
        ),
        ("video {run} --out film.gif --episodes 0", "--episodes=0: must be an integer >= 1"),
        (
            "export {run} --out q.pkl",
            "command line: argument --out: q.pkl must end in .onnx or .pt2; see dqn-exp export --help",
        ),
        ("evaluate {run} --episodes 0", "--episodes=0: must be an integer >= 1"),
        (
            "evaluate {run} --own-streams --episodes 3",
            "--episodes=3: the run's own final evaluation has 4",
        ),
        (
            "evaluate {run} agent.gamma=0.5",
            "agent.gamma: cannot be changed here: only env.* and plugins",
        ),
        ("evaluate {run} --json no/out.json", "--json=no: there is no such folder"),
        (
            "watch {run}",
            "display: there is none; make a film instead: dqn-exp video RUN --out film.mp4",
        ),
    ],
)
def test_bad_arguments_are_one_line(dqn, finished: Path, arguments: str, line: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        dqn(*(word.format(run=finished) for word in arguments.split()))
    assert str(refusal.value) == line
    assert os.listdir() == []


def test_a_refused_command_ends_with_exit_code_2_and_one_line() -> None:
    command = [sys.executable, "-m", "dqn_exp", "evaluate", "none"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "run=none: no such folder\n")
