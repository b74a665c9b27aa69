"""Checkpoints: atomic, verified, exact; never a pickle.

`checkpoints/step=<n>/` holds tensors in safetensors files, and everything else in manifest.json, with
the size and SHA-256 of each file. It is written under another name, synchronised, and renamed; so a
folder of that name is complete, or was damaged later, which its digests show.

The checkpoints that are kept share no file: a file that did not change is a hard link only to one of a
checkpoint that is deleted in the same save, and only if reading it back gives the same bytes.
"""

import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from dqn_exp import files, manifest
from dqn_exp.files import OddFileError
from dqn_exp.manifest import CheckpointError, UnknownSchemaError, step_of
from dqn_exp.run import tensor_files
from dqn_exp.state import State

WRITERS = 4  # threads
# A state may be larger than another of the same run: by the actions of a long episode, say.
EXTRA_BYTES = 64 << 20


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint on disk."""

    path: Path
    manifest: dict[str, Any]
    damaged: tuple[str, ...] = ()  # what was wrong with newer ones

    @property
    def step(self) -> int:
        """Env steps made."""
        return self.manifest["step"]

    @property
    def n_bytes(self) -> int:
        """Size of all files of tensors."""
        return sum(facts["bytes"] for facts in self.manifest["files"].values())

    def load(self, like: State) -> State:
        """The state that was saved; its tensors are on the CPU.

        Args:
            like: a state of about the expected size.

        Raises:
            CheckpointError: it is much larger, or a file does not contain tensors.
        """
        expected = sum(tensor.nbytes for tensor in tensor_files.split(like)[0].values())
        if self.n_bytes > 2 * expected + EXTRA_BYTES:
            raise CheckpointError(f"{self.n_bytes:,} bytes, where about {expected:,} are expected")
        pieces: dict[str, list[Tensor]] = {}
        for name in self.manifest["files"]:
            try:
                tensors = load_file(self.path / name)
            except SafetensorError as error:
                raise CheckpointError(f"{self.path / name}: {error}") from error
            for key, tensor in tensors.items():
                pieces.setdefault(key, []).append(tensor)
        return tensor_files.join(self.manifest["state"], pieces)


class Checkpoints:
    """The checkpoints of a run.

    Args:
        folder: where they are.
        keep: how many of the newest to keep.
    """

    def __init__(self, folder: Path, keep: int = 1):
        self._folder, self._keep = folder, keep

    def save(self, step: int, state: State, about: Mapping[str, Any]) -> None:
        """Save a state; the oldest are deleted once it is safe on disk.

        Args:
            about: other entries of the manifest.

        Raises:
            OSError: nothing has been saved, and nothing deleted.
        """
        tensors, rest = tensor_files.split(state)
        name = f"step={step}"
        self._folder.mkdir(exist_ok=True)
        self._remove_leftovers()
        kept = [path for path in manifest.checkpoints(self._folder) if path.name != name]
        expiring = kept[self._keep - 1 :]
        new = self._free(f".new.{name}")
        new.mkdir()
        try:
            with ThreadPoolExecutor(WRITERS) as pool:
                pieces = tensor_files.pieces(tensors)
                written = pool.map(lambda piece: _write(new / piece[0], piece[1], expiring), pieces)
                facts = {path.name: sizes for path, sizes in written}
            content = {"schema": manifest.SCHEMA, "step": step, **about, "state": rest, "files": facts}
            _write_through(new / manifest.NAME, manifest.signed(content))
            _synchronise(new)
            if files.is_folder(self._folder / name):  # damaged, or of an update before
                self._discard(self._folder / name)
            new.rename(self._free(name))
            _synchronise(self._folder)
        except OSError:
            _remove(new)
            raise
        for path in expiring:
            self._discard(path)
        self._remove_leftovers()

    def drop_after(self, step: int) -> None:
        """Continue from the checkpoint of a step: later ones are deleted."""
        for path in manifest.checkpoints(self._folder):
            if step_of(path) > step:
                self._discard(path)
        self._remove_leftovers()

    def newest(self) -> Checkpoint | None:
        """The newest undamaged checkpoint; None if there never was one.

        Raises:
            CheckpointError: all are damaged, or the newest is of another version.
        """
        reasons = []
        for path in manifest.checkpoints(self._folder):
            try:
                checkpoint = verified(path)
            except UnknownSchemaError:
                raise
            except CheckpointError as error:
                reasons.append(str(error))
                continue
            return replace(checkpoint, damaged=tuple(reasons))
        if reasons:
            raise CheckpointError("no undamaged checkpoint: " + "; ".join(reasons))
        return None

    def _free(self, name: str) -> Path:
        """A path that nothing has: what is there was not written by a run, and gets another name."""
        path = self._folder / name
        if os.path.lexists(path):
            others = (self._folder / f"{name}.not-ours.{number}" for number in count())
            path.rename(next(other for other in others if not os.path.lexists(other)))
        return path

    def _discard(self, path: Path) -> None:
        """Rename a checkpoint that is to be deleted: a partly deleted one must not look like one."""
        path.rename(self._free(f".old.{path.name}"))

    def _remove_leftovers(self) -> None:
        """Delete what has been discarded, and what saves that were cut off have left."""
        for pattern in (".new.step=*", ".old.step=*"):
            for path in filter(files.is_folder, self._folder.glob(pattern)):
                _remove(path)


def verified(path: Path) -> Checkpoint:
    """The checkpoint at a path.

    Raises:
        CheckpointError: there is none, or its files differ from those saved.
    """
    found = manifest.read(path)
    for name, facts in found["files"].items():
        _verify(path, name, facts)
    return Checkpoint(path, found)


def one_tensor(path: Path, key: str) -> Tensor:
    """A tensor of the checkpoint at a path; only the files that hold it are read.

    Args:
        key: of the state, with slashes (`loop/learner/matrices/params`).

    Raises:
        CheckpointError: there is no checkpoint or no such tensor, or its files differ from those saved.
    """
    pieces = []
    for name, facts in manifest.read(path)["files"].items():
        if tensor_files.may_hold(name, key):
            _verify(path, name, facts)
            try:
                with safe_open(path / name, "pt") as file:
                    pieces += [file.get_tensor(key)] if key in file.keys() else []  # noqa: SIM118
            except SafetensorError as error:
                raise CheckpointError(f"{path / name}: {error}") from error
    if not pieces:
        raise CheckpointError(f"{path}: {key} is missing")
    return torch.cat(pieces)


def _verify(path: Path, name: str, facts: Mapping[str, Any]) -> None:
    """Raise CheckpointError if a file of a checkpoint differs from the one saved."""
    file = path / name
    if not tensor_files.NAME.fullmatch(name):
        raise CheckpointError(f"{path}: {name!r} is not a valid file name")
    try:
        with open(file, "rb", opener=files.opener) as stream:
            if (size := os.fstat(stream.fileno()).st_size) != facts["bytes"]:
                raise CheckpointError(f"{file}: {size:,} bytes, not {facts['bytes']:,}")
            if hashlib.file_digest(stream, "sha256").hexdigest() != facts["sha256"]:
                raise CheckpointError(f"{file}: not what was saved (SHA-256 differs)")
    except (OSError, OddFileError) as error:
        raise CheckpointError(f"{file}: missing, or not a regular file") from error


def _write(
    path: Path, tensors: Mapping[str, Tensor], expiring: list[Path]
) -> tuple[Path, dict[str, Any]]:
    """Write a file of tensors, or link the same one of an expiring checkpoint: its size and digest."""
    data = tensor_files.serialised(tensors)
    digest = hashlib.sha256()
    for part in data:
        digest.update(part)
    others = [checkpoint / path.name for checkpoint in expiring]
    try:
        os.link(next(other for other in others if _holds(other, data)), path)
    except (StopIteration, OSError):  # not all file systems can link
        _write_through(path, *data)
    return path, {"bytes": sum(map(len, data)), "sha256": digest.hexdigest()}


def _holds(path: Path, data: list[memoryview]) -> bool:
    """Whether a file has no second name, and exactly this content."""
    try:
        with open(path, "rb", opener=files.opener) as file:
            about = os.fstat(file.fileno())
            if about.st_nlink > 1 or about.st_size != sum(map(len, data)):
                return False
            return all(file.read(len(part)) == bytes(part) for part in data)
    except (OSError, OddFileError):
        return False


def _write_through(path: Path, *data: bytes | memoryview) -> None:
    with open(path, "xb", opener=files.opener) as stream:
        for part in data:
            stream.write(part)
        stream.flush()
        os.fsync(stream.fileno())


def _synchronise(folder: Path) -> None:
    """Make the entries of a folder as durable as its files."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(folder: Path) -> None:
    """Delete the files of a checkpoint, and its folder unless it holds anything else."""
    for path in folder.iterdir():
        if path.name == manifest.NAME or tensor_files.NAME.fullmatch(path.name):
            with suppress(OSError):
                path.unlink()
    with suppress(OSError):
        folder.rmdir()
