"""Checkpoints on disk: what is saved is what is loaded, for every part, and little is written twice."""

import contextlib
import copy
import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import options
from torch import Tensor

from dqn_exp.manifest import CheckpointError
from dqn_exp.parts import Parts
from dqn_exp.run import checkpoint, tensor_files
from dqn_exp.run.checkpoint import Checkpoints, verified

Make = Callable[..., Parts]
ABOUT = {"config": {"seed": 3, "note": "früh"}}
DTYPES = [torch.float32, torch.float64, torch.bool, torch.uint8, torch.int32, torch.int64]


def state(**more: Any) -> dict[str, Any]:
    """Nested, of all types that parts have."""
    cube = torch.arange(24).view(2, 3, 4) % 3
    each = {str(dtype).split(".")[1]: cube.to(dtype) for dtype in DTYPES}
    odd = {"scalar": torch.tensor(1.5), "empty": torch.empty(0, 7), "turned": cube[0].T}
    odd["special"] = torch.tensor([torch.nan, torch.inf, -0.0, 1e-42])
    rest = {"none": None, "text": "a/b", "number": 7, "real": 0.1, "list": [1, [2.5, None]]}
    return {"each": each, "deep": {"er": {**odd, **rest}}, "nothing": {}, **rest, **more}


def assert_same(a: Any, b: Any, path: str = "") -> None:
    """Bit for bit, types included."""
    assert type(a) is type(b), path
    if isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            assert_same(a[key], b[key], f"{path}/{key}")
    elif isinstance(a, Tensor):
        assert (a.dtype, a.shape) == (b.dtype, b.shape), path
        assert a.contiguous().numpy().tobytes() == b.contiguous().numpy().tobytes(), path
    else:
        assert a == b, path


def save(
    folder: Path, step: int, state: dict[str, Any], checkpoints: Checkpoints | None = None
) -> Path:
    (checkpoints or Checkpoints(folder, keep=9)).save(step, state, ABOUT)
    return folder / f"step={step}"


@pytest.mark.parametrize("segment", [8, 17, 64, 8 << 20])
def test_what_is_loaded_is_what_was_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, segment: int
) -> None:
    monkeypatch.setattr(tensor_files, "SEGMENT_BYTES", segment)
    path = save(tmp_path, 5, state())
    saved = verified(path)
    assert saved.step == 5
    assert saved.manifest["config"] == ABOUT["config"]
    assert_same(saved.load(like=state()), state())
    assert (len(list(path.iterdir())) > 3) == (segment < 100)


def test_a_large_tensor_is_split_and_what_did_not_change_is_linked_to_a_checkpoint_that_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensor_files, "SEGMENT_BYTES", 100)
    big = torch.arange(100.0).view(20, 5)
    pieces = [f"a.big.{i:06d}.safetensors" for i in range(4)]
    all_files = [*pieces, "state.safetensors"]

    def saved(step: int) -> dict[str, int]:
        """The inodes of the files of a new checkpoint."""
        path = save(tmp_path, step, {"a": {"big": big}, "s": torch.zeros(3)}, Checkpoints(tmp_path, 2))
        assert torch.equal(verified(path).load(like={"big": big})["a"]["big"], big)
        return {p.name: p.stat().st_ino for p in path.iterdir()}

    first, second, third = saved(1), saved(2), saved(3)
    assert set(first) == {*all_files, "manifest.json"}
    assert not set(first.values()) & set(second.values())
    assert {name for name in all_files if third[name] == first[name]} == set(all_files)
    big[7] += 1.0  # rows 5 to 9 are the second of four pieces
    fourth = saved(4)
    assert {n for n in all_files if fourth[n] == second[n]} == set(all_files) - {pieces[1]}


def test_no_file_of_the_checkpoints_that_are_kept_is_needed_by_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensor_files, "SEGMENT_BYTES", 100)
    checkpoints, same = Checkpoints(tmp_path, keep=2), {"big": torch.arange(100.0).view(20, 5)}
    for step in range(1, 6):
        save(tmp_path, step, same, checkpoints)
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        for file in files:
            data = file.read_bytes()
            file.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
            whole = []
            for path in tmp_path.iterdir():
                with contextlib.suppress(CheckpointError):
                    whole.append(verified(path))
            assert len(whole) == len(list(tmp_path.iterdir())) - 1
            file.write_bytes(data)


def test_a_damaged_file_is_not_handed_on_to_later_checkpoints(tmp_path: Path) -> None:
    checkpoints, same = Checkpoints(tmp_path, keep=1), {"x": torch.arange(100.0)}
    file = save(tmp_path, 1, same, checkpoints) / "state.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert verified(save(tmp_path, 2, same, checkpoints)).step == 2


@pytest.mark.parametrize("name", ["step=2", ".new.step=2", ".old.step=1", "step=99", "step=x"])
@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_odd_entries_do_not_keep_a_checkpoint_from_being_saved(
    tmp_path: Path, name: str, kind: str
) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    save(folder, 1, state(count=1))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/note").write_text("mine")
    if kind == "file":
        (folder / name).write_text("mine")
    elif kind == "folder":
        shutil.copytree(tmp_path / "elsewhere", folder / name)
    else:
        (folder / name).symlink_to(tmp_path / "elsewhere")
    assert Checkpoints(folder).newest() == verified(folder / "step=1") or name in ("step=2", "step=99")
    save(folder, 2, state(count=2), Checkpoints(folder, keep=1 if name == ".old.step=1" else 9))
    assert verified(folder / "step=2").load(like=state())["count"] == 2
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and path.read_bytes() == b"mine"]
    assert len(kept) == (1 if kind == "link" else 2)


def steps(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("keep", [1, 2, 5])
def test_the_newest_are_kept_and_are_whole(tmp_path: Path, keep: int) -> None:
    checkpoints = Checkpoints(tmp_path, keep)
    for step in (90, 100, 110, 120):
        save(tmp_path, step, state(count=step), checkpoints)
    expected = ["step=90", "step=100", "step=110", "step=120"][-keep:]
    assert steps(tmp_path) == sorted(expected)
    for path in tmp_path.iterdir():
        assert verified(path).load(like=state())["count"] == int(path.name[5:])
    newest = checkpoints.newest()
    assert newest
    assert newest.step == 120


@pytest.mark.parametrize("function", ["_write_through", "_synchronise"])
def test_nothing_is_deleted_if_a_save_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    save(tmp_path, 1, state(count=1), checkpoints)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(checkpoint, function, full)
        with pytest.raises(OSError, match="No space left"):
            save(tmp_path, 2, state(count=2), checkpoints)
    assert steps(tmp_path) == ["step=1"]
    assert verified(tmp_path / "step=1").load(like=state())["count"] == 1
    save(tmp_path, 2, state(count=2), checkpoints)  # once there is room again
    assert steps(tmp_path) == ["step=2"]


def test_a_state_of_the_same_step_replaces_the_other(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for count in (1, 2):
        path = save(tmp_path, 1, state(count=count), checkpoints)
        assert verified(path).load(like=state())["count"] == count
        assert steps(tmp_path) == ["step=1"]


def test_continuing_from_a_checkpoint_deletes_those_of_later_steps(tmp_path: Path) -> None:
    for step in (8, 9, 10, 11):
        save(tmp_path, step, state(count=step))
    later = Checkpoints(tmp_path, keep=9)
    later.drop_after(9)
    assert steps(tmp_path) == ["step=8", "step=9"]
    save(tmp_path, 10, state(count=-1), later)
    assert verified(tmp_path / "step=10").load(like=state())["count"] == -1


def test_a_state_of_another_size_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "EXTRA_BYTES", 0)
    path = save(tmp_path, 1, {"x": torch.zeros(100_000)})
    with pytest.raises(CheckpointError, match="where about 400 are expected"):
        verified(path).load(like={"x": torch.zeros(100)})


AGENTS, NETS = options("agent"), options("net")


def recipe(agent: str, net: str, i: int) -> str:
    """An agent with a net, and an option of each other group; consecutive numbers give every option."""
    backend = ("native", "gymnasium")[i % 2]
    steps = {"buffer": 3, "optim": 2, "exploration": 1}
    chosen = [f"{g}={options(g)[i // step % len(options(g))]}" for g, step in steps.items()]
    return " ".join([f"agent={agent} net={net} env.backend={backend}", *chosen])


ALL = [recipe(*pair, i) for i, pair in enumerate(itertools.product(AGENTS, NETS))]
OTHERS = [
    "env=frozenlake agent.target={tau:1,every:30} optim=adam optim.amsgrad=true env.n=2 seeds=2",
    "agent.target={tau:1,episodes:1} env.n=3 buffer=per seeds=2",
    "env=lunarlander exploration=ez_greedy env.vectorization=async env.n=2",
]
SOME = [recipe(agent, NETS[i % len(NETS)], i) for i, agent in enumerate(AGENTS)] + OTHERS
slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("overrides", "mode"),
    [
        *(pytest.param(o, "false", marks=[slow] * (i % 3 > 0)) for i, o in enumerate(SOME)),
        *(pytest.param(o, "false", marks=slow) for o in ALL),
        *(pytest.param(o, "true", marks=slow) for o in SOME),
    ],
)
def test_every_part_continues_from_a_checkpoint_as_if_nothing_had_happened(
    make: Make, tmp_path: Path, overrides: str, mode: str
) -> None:
    first, second = (make(*overrides.split(), f"compile={mode}", "train.every=3") for _ in range(2))
    loops = first.loop, second.loop
    loops[0].advance(138)
    loops[0].env.take_episodes()
    # A copy: the state's tensors are the loop's own.
    Checkpoints(tmp_path).save(138, copy.deepcopy(loops[0].state_dict()), ABOUT)
    loaded = verified(tmp_path / "step=138").load(like=loops[1].state_dict())
    assert_same(loaded, loops[0].state_dict())
    loops[1].load_state_dict(loaded)
    for stop in (138, 186, 258):
        for loop in loops:
            loop.advance(stop)
        assert loops[0].env.take_episodes() == loops[1].env.take_episodes()
        assert_same(loops[1].state_dict(), loops[0].state_dict())
    for parts in (first, second):
        parts.close()
