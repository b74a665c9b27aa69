"""What is not finite stops a run, or a seed, before anything learns from it; faulty envs are named."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from faulty import LENGTH, MARK, episode_seed
from helpers import summary, tiny_run
from torch import Tensor

from dqn_exp import Run, registry
from dqn_exp.agents.dqn import DQN
from dqn_exp.config.problems import ConfigError
from dqn_exp.interfaces import Batch, Loss, Networks
from dqn_exp.loop import Loop
from dqn_exp.run.checkpoint import Checkpoints

BASE = ["agent=dqn", "agent.n_step=1", "net=mlp", "buffer=uniform", "train.every=1", "seeds=3"]
BASE += ["optim=adamw", "optim.anneal=false", "checkpoint.every=100", "env.id=Faulty-v0"]
BASE += ["agent.target={tau:0.005,every:null,episodes:null}", "exploration=linear"]
BASE += ["exploration.start=1", "exploration.end=1", "exploration.decay_steps=100"]
EPISODE, AT = 7, 10
STEP = EPISODE * LENGTH + AT  # the env step at which seed 1 meets the fault
slow = pytest.mark.slow


def faulty(fault: str, folder: Path, *overrides: str, seeds: tuple[int, ...] = (1,)) -> Run:
    """A run whose env goes wrong for some seeds at env step STEP."""
    bad = [episode_seed(seed, EPISODE) for seed in seeds]
    kwargs = f"+env.kwargs={{fault:{fault!r},bad:{bad},at:{AT}}}"
    given = {text.partition("=")[0] for text in overrides}
    base = [text for text in BASE if text.partition("=")[0] not in given]
    return tiny_run(folder, *base, kwargs, *overrides)


def flat(state: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """All of a state by path."""
    found = {}
    for key, value in state.items():
        found |= flat(value, f"{prefix}{key}/") if isinstance(value, dict) else {prefix + key: value}
    return found


def continues_to(step: int, fault: str, folder: Path, *overrides: str) -> None:
    """The last checkpoint, of step 100, is clean, and a run to before the fault continues from it."""
    again = faulty(fault, folder, "resume=auto", f"total_steps={step}", *overrides)
    newest = Checkpoints(folder / "checkpoints").newest()
    assert newest
    assert newest.step == 100
    saved = flat(newest.load(like=again.parts.loop.state_dict()))
    del saved["scores"]  # NaN before the first evaluation
    numbers = [x for x in saved.values() if isinstance(x, Tensor) and x.is_floating_point()]
    assert len(numbers) > 8
    assert all(tensor.isfinite().all() for tensor in numbers)
    again.run()
    assert summary(folder)["status"] == "finished"
    assert summary(folder)["resumed_from"] == 100


@pytest.mark.parametrize("value", ["nan", "inf"])
@pytest.mark.parametrize("what", ["observation", "reward"])
def test_an_env_that_is_not_finite_ends_the_run_and_is_not_learnt_from(
    tmp_path: Path, what: str, value: str
) -> None:
    run = faulty(f"{value} {what}", tmp_path)
    with pytest.raises(
        FloatingPointError, match=f"env step {STEP}: seed 1: {what} .*{value}"
    ) as caught:
        run.run()
    buffer = flat(run.parts.buffer.state_dict())
    stored = [x for x in buffer.values() if isinstance(x, Tensor) and x.is_floating_point()]
    assert len(stored) > 1
    assert all(tensor.isfinite().all() for tensor in stored)
    assert run.parts.learner.params.isfinite().all()
    assert summary(tmp_path)["status"] == "failed"
    assert summary(tmp_path)["error"] == repr(caught.value)
    continues_to(STEP - 1, f"{value} {what}", tmp_path)


@pytest.mark.parametrize("fault", ["step raises", "reset raises"])
def test_an_env_that_raises_fails_the_run_but_not_its_checkpoint(tmp_path: Path, fault: str) -> None:
    with pytest.raises(OSError, match="the simulator is gone"):
        faulty(fault, tmp_path).run()
    assert summary(tmp_path)["status"] == "failed"
    assert summary(tmp_path)["error"] == "OSError('the simulator is gone')"
    continues_to(STEP - AT - 1, fault, tmp_path)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("4-tuple", "does not follow Gymnasium's API: .*expected 5, got 4"),
        ("bare reset", "does not follow Gymnasium's API"),
        ("shape", r"an observation is float32 \(2,\), its space is Box\(-inf, inf, \(3,\), float32\)"),
        ("dtype", r"an observation is complex64 \(3,\), its space is"),
        ("list", r"an observation is object \(\), its space is"),
    ],
)
@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::UserWarning"
)  # Gymnasium's own checker sees it, too
def test_an_env_of_another_api_is_refused_with_what_is_wrong(
    tmp_path: Path, fault: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=f"env.id=Misfit-v0: {message}"):
        faulty(fault, tmp_path, "env.id=Misfit-v0")
    assert not list(tmp_path.iterdir())


def test_an_env_that_is_not_deterministic_is_resumed_only_with_new_episodes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    total = 310  # in the midst of an episode
    faulty("fickle", tmp_path, f"total_steps={total}").run()
    more = ["resume=auto", "total_steps=400"]
    with pytest.raises(ConfigError, match=r"cannot be resumed exactly.*checkpoint\.new_episodes=true"):
        faulty("fickle", tmp_path, *more).run()
    newest = Checkpoints(tmp_path / "checkpoints").newest()
    assert newest
    assert newest.step == total
    with caplog.at_level(logging.WARNING):
        faulty("fickle", tmp_path, *more, "checkpoint.new_episodes=true").run()
    assert "not bit-exact: the env is not deterministic; new episodes begin" in caplog.text
    assert summary(tmp_path)["status"] == "finished"


def steep(x: Loss, at: Tensor) -> Loss:
    """The same loss, with a gradient whose norm is infinite."""
    return x._replace(loss=x.loss + (x.loss - x.loss.detach()) * torch.where(at, 1e38, 0.0))


SICKNESSES: dict[str, Callable[[Loss, Tensor], Loss]] = {  # given where the mark is
    "nan loss": lambda x, at: x._replace(loss=x.loss * torch.where(at, torch.nan, 1.0)),
    "inf loss": lambda x, at: x._replace(loss=x.loss * torch.where(at, torch.inf, 1.0)),
    "inf gradient": steep,
    "nan priority": lambda x, at: x._replace(priority=x.priority.masked_fill(at, torch.nan)),
    "inf priority": lambda x, at: x._replace(priority=x.priority.masked_fill(at, torch.inf)),
    "negative priority": lambda x, at: x._replace(priority=x.priority.masked_fill(at, -1.0)),
}


@pytest.fixture(params=[pytest.param(s, marks=[slow] * (i % 2)) for i, s in enumerate(SICKNESSES)])
def sickness(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a learning rule that chokes on marked rewards, registered for a test."""

    class Sick(DQN):
        def loss(self, nets: Networks, batch: Batch) -> Loss:
            return SICKNESSES[request.param](super().loss(nets, batch), batch.reward == MARK)

    monkeypatch.setitem(registry._parts["agent"], "sick", Sick)
    return request.param


def tensors(run: Run) -> dict[str, Tensor]:
    """Of the learner: all [S, ...], by name."""
    return run.parts.learner.state_dict()["matrices"]


def own(run: Run) -> dict[str, Tensor]:
    """What an update changes, but for the target."""
    return {name: x[1].clone() for name, x in tensors(run).items() if name != "target_params"}


COMPILED = [pytest.param("true", marks=slow)]


@pytest.mark.parametrize(
    ("mode", "buffer"),
    [("false", "per"), *(pytest.param("true", b, marks=slow) for b in ("uniform", "per"))],
)
def test_a_sick_seed_stays_as_it_was_and_the_others_do_not_feel_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, sickness: str, mode: str, buffer: str
) -> None:
    parts = ["agent.name=sick", f"buffer={buffer}", f"compile={mode}"]
    sick = faulty("mark", tmp_path, *parts)
    with caplog.at_level(logging.INFO):
        sick.parts.loop.advance(220)
    assert (type(sick.parts.loop) is Loop) == (mode == "false")
    assert ("compiled in" in caplog.text) == (mode == "true")
    ((seed, failure),) = sick.parts.learner.finite.failures().items()
    assert seed == 1
    assert STEP <= failure.step < 220
    assert {"params", "target_params", "moment0", "moment1"} <= tensors(sick).keys()
    assert all(x.isfinite().all() for x in tensors(sick).values())
    before = faulty("mark", tmp_path, *parts)
    before.parts.loop.advance(failure.step - 1)
    assert not before.parts.learner.finite.failures()
    for name, value in own(before).items():
        assert torch.equal(own(sick)[name], value), name
    well = faulty("mark", tmp_path, *parts, seeds=())
    well.parts.loop.advance(220)
    assert not well.parts.learner.finite.failures()
    for name, value in tensors(well).items():
        assert torch.equal(tensors(sick)[name][[0, 2]], value[[0, 2]]), name
        assert name == "target_params" or not torch.equal(tensors(sick)[name][1], value[1])


def test_a_run_with_a_sick_seed_stops_with_its_step_and_seed(tmp_path: Path, sickness: str) -> None:
    with pytest.raises(FloatingPointError, match=r"env step \d+: seed 1 is not finite") as caught:
        faulty("mark", tmp_path, "agent.name=sick").run()
    assert summary(tmp_path)["status"] == "failed"
    assert summary(tmp_path)["error"] == repr(caught.value)
    continues_to(STEP - 1, "mark", tmp_path, "agent.name=sick")


@pytest.mark.parametrize("fault", ["nan observation", "inf reward"])
@pytest.mark.parametrize("mode", ["false", *COMPILED])
def test_a_dropped_seed_leaves_the_others_as_they_are_without_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, fault: str, mode: str
) -> None:
    folders = tmp_path / "sick", tmp_path / "well"
    both = []
    for folder, seeds in zip(folders, ((1,), ()), strict=True):
        drop = ["train.on_divergence=drop", "buffer=per", f"compile={mode}"]
        both.append(faulty(fault, folder, *drop, seeds=seeds))
        with caplog.at_level(logging.WARNING):
            both[-1].run()
    sick, well = both
    for name, value in tensors(well).items():
        assert torch.equal(tensors(sick)[name][[0, 2]], value[[0, 2]]), name
        assert tensors(sick)[name].isfinite().all()
    first, second = (summary(folder) for folder in folders)
    assert first["status"] == second["status"] == "finished"
    assert [first["final_returns"][i] for i in (0, 2)] == [second["final_returns"][i] for i in (0, 2)]
    assert list(first["dropped"]) == ["1"]
    step = first["dropped"]["1"]["step"]
    assert STEP <= step < 300
    assert "dropped" not in second
    assert f"env step {step}: seed 1 is not finite" in caplog.text
    assert caplog.text.count("it stops learning") == 1
    assert "cannot compile" not in caplog.text
