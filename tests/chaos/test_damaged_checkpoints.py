"""Checkpoints that are damaged, forged or foreign: never loaded, never a reason to begin anew."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import digests, rows, saved, sign, summary, train
from runs import SMALL, finish
from save_and_die import ABOUT, begin, state

from dqn_exp.manifest import CheckpointError, UnknownSchemaError
from dqn_exp.run.checkpoint import Checkpoints, verified

Damage = Callable[[Path], Any]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(data)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def replace_by_a_link(path: Path) -> None:
    path.symlink_to(path.rename(path.parent.parent / f"moved-{path.name}"))


def replace_by_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_by_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGES = [
    flip,
    truncate,
    empty,
    Path.unlink,
    replace_by_a_link,
    replace_by_a_folder,
    replace_by_a_pipe,
]


def forge(folder: Path, data: bytes, name: str = "state.safetensors") -> None:
    """Put other data into a checkpoint, such that all digests are right."""
    (folder / name).write_bytes(data)
    files = json.loads((folder / "manifest.json").read_text())["manifest"]["files"]
    files[name] = {"bytes": len(data), "sha256": sha256(data).hexdigest()}
    sign(folder, files=files)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Holds checkpoints of steps 1 and 2."""
    for step in (1, 2):
        begin(tmp_path / "checkpoints")[0].save(step, state(step), ABOUT)
    return tmp_path / "checkpoints"


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("name", ["manifest.json", "state.safetensors", "below.new.000000.safetensors"])
def test_of_two_checkpoints_the_older_is_used_if_the_newer_is_damaged(
    folder: Path, name: str, damage: Damage
) -> None:
    damage(folder / "step=2" / name)
    newest = Checkpoints(folder).newest()
    assert newest is not None
    assert newest.step == 1
    (reason,) = newest.damaged
    assert "step=2" in reason
    Checkpoints(folder).save(2, state(2), ABOUT)  # in the place of the damaged one
    assert verified(folder / "step=2").load(like=state(2))["step"] == 2


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_if_all_checkpoints_are_damaged_there_is_an_error(folder: Path, damage: Damage) -> None:
    damage(folder / "step=1/manifest.json")
    damage(folder / "step=2/below.same.000001.safetensors")
    with pytest.raises(CheckpointError, match="no undamaged checkpoint"):
        Checkpoints(folder).newest()


def test_no_flipped_bit_of_a_checkpoint_goes_unnoticed(folder: Path) -> None:
    good = verified(folder / "step=2").manifest
    for path in (folder / "step=2/manifest.json", folder / "step=2/state.safetensors"):
        data = path.read_bytes()
        for place in range(len(data)):
            changed = bytearray(data)
            changed[place] ^= 1 << place % 8
            path.write_bytes(changed)
            try:
                assert verified(folder / "step=2").manifest == good  # 1e5 and 1E5 are the same
                assert path.name == "manifest.json"
            except CheckpointError:
                pass
        path.write_bytes(data)


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.canary,)


def bombs(canary: Path) -> list[bytes]:
    """Pickles, alone and as torch saves them."""
    torch.save({"x": Bomb(canary)}, canary.parent / "bomb")
    return [pickle.dumps(Bomb(canary)), (canary.parent / "bomb").read_bytes()]


def test_pickles_in_place_of_tensors_are_refused_and_never_run(folder: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    for bomb in bombs(canary):
        forge(folder / "step=2", bomb)
        with pytest.raises(CheckpointError):
            verified(folder / "step=2").load(like=state(2))
    assert not canary.exists()
    pickle.loads(bombs(canary)[0])
    assert canary.exists()  # the bomb does go off


@pytest.mark.parametrize("name", ["../../x.safetensors", "/x.safetensors", "a/x.safetensors", "..", ""])
def test_names_that_lead_out_of_a_checkpoint_are_refused(folder: Path, name: str) -> None:
    sign(folder / "step=2", files={name: {"bytes": 0, "sha256": sha256().hexdigest()}})
    with pytest.raises(CheckpointError, match="is not a valid file name"):
        verified(folder / "step=2")


def test_links_in_place_of_folders_are_refused(folder: Path) -> None:
    folder.parent.joinpath("elsewhere").mkdir()
    (folder / "step=3").symlink_to((folder / "step=2").rename(folder.parent / "elsewhere/step=2"))
    with pytest.raises(CheckpointError, match="step=3"):
        verified(folder / "step=3")
    moved = folder.rename(folder.parent / "moved")
    folder.symlink_to(moved)
    with pytest.raises(CheckpointError, match="symbolic link"):
        Checkpoints(folder).newest()


def huge_header() -> bytes:
    header = {"x": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "data", [huge_header(), (2**62).to_bytes(8, "little"), b""], ids=["tensor", "header", "nothing"]
)
def test_files_that_announce_more_than_they_hold_are_refused(folder: Path, data: bytes) -> None:
    forge(folder / "step=2", data)
    with pytest.raises(CheckpointError):
        verified(folder / "step=2").load(like=state(2))


def test_checkpoints_that_are_much_larger_than_the_run_are_refused(folder: Path) -> None:
    forge(folder / "step=2", bytes(65 << 20))
    with pytest.raises(CheckpointError, match="are expected"):
        verified(folder / "step=2").load(like=state(2))
    sign(folder / "step=2", files={"state.safetensors": {"bytes": 10**13, "sha256": "0" * 64}})
    with pytest.raises(CheckpointError, match="bytes, not 10,000,000,000,000"):
        verified(folder / "step=2")
    os.truncate(folder / "step=1/manifest.json", 2**33)  # sparse
    with pytest.raises(CheckpointError, match="larger than"):
        verified(folder / "step=1")


def test_a_checkpoint_of_another_version_is_refused_though_an_older_one_is_good(folder: Path) -> None:
    sign(folder / "step=2", schema=1)
    with pytest.raises(UnknownSchemaError, match="schema 1"):
        Checkpoints(folder).newest()


# Manifests that are rightly signed, but say nothing sensible.
ODD = [{"files": None}, {"files": []}, {"step": "x"}, {"state": 3}, {"config": [1]}]
ODD += [{"files": {"state.safetensors": {"bytes": "x", "sha256": ""}}}]


@pytest.mark.parametrize("changes", ODD, ids=str)
def test_a_signed_manifest_of_nonsense_is_a_damaged_checkpoint(
    folder: Path, changes: dict[str, Any]
) -> None:
    sign(folder / "step=2", **changes)
    with pytest.raises(CheckpointError):
        verified(folder / "step=2").load(like=state(2))


# With counts that do not depend on total_steps, which must change to continue.
RUN = [text for text in SMALL if not text.startswith("total_steps=")]
RUN += ["exploration=linear", "exploration.decay_steps=1000"]
LONGER = [*RUN, "total_steps=1200"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with checkpoints of env steps 400 and 800, where it has ended."""
    path = tmp_path_factory.mktemp("damage") / "run"
    finish(path.parent, path, *RUN, "total_steps=800")
    assert saved(path) == [400, 800]
    return path


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(run, tmp_path / "run")


@pytest.mark.slow
def test_a_run_whose_newest_checkpoint_is_damaged_continues_from_the_older(copy: Path) -> None:
    truncate(copy / "checkpoints/step=800/state.safetensors")
    finish(copy.parent, copy, *LONGER)
    assert "damaged checkpoint skipped" in (copy / "train.log").read_text()
    assert summary(copy)["resumed_from"] == 400
    found = [(r["seed"], r["step"], r["tag"]) for r in rows(copy / "metrics.csv")]
    assert len(found) == len(set(found))
    assert saved(copy) == [800, 1200]


def damage_all(checkpoints: Path) -> None:
    for path in checkpoints.glob("*/*.safetensors"):
        flip(path)


def plant_a_bomb(checkpoints: Path) -> None:
    forge(checkpoints / "step=800", pickle.dumps(Bomb(checkpoints.parent.parent / "canary")))


def link_the_folder(checkpoints: Path) -> None:
    checkpoints.symlink_to(checkpoints.rename(checkpoints.parent.parent / "moved"))


def make_foreign(checkpoints: Path) -> None:
    sign(checkpoints / "step=800", schema=99)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        pytest.param(damage_all, "no undamaged checkpoint"),
        pytest.param(plant_a_bomb, "step=800", marks=pytest.mark.slow),
        pytest.param(link_the_folder, "symbolic link", marks=pytest.mark.slow),
        pytest.param(make_foreign, "schema 99", marks=pytest.mark.slow),
    ],
)
def test_a_run_without_a_usable_checkpoint_exits_2_and_does_not_begin_anew(
    copy: Path, damage: Damage, says: str
) -> None:
    damage(copy / "checkpoints")
    before = digests(copy)
    done = train(copy.parent, *LONGER, f"hydra.run.dir={copy}", "resume=auto")
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert digests(copy) == before
    assert summary(copy)["status"] == "finished"
    assert not (copy.parent / "canary").exists()


@pytest.mark.slow
def test_a_run_that_continues_with_other_versions_of_libraries_warns(copy: Path) -> None:
    sign(copy / "checkpoints/step=800", versions={"python": "2.7", "torch": "0.4"})
    finish(copy.parent, copy, *LONGER)
    assert "not bit-exact: versions was {'python': '2.7'" in (copy / "train.log").read_text()
    assert summary(copy)["resumed_from"] == 800
