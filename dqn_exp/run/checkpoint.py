"""Checkpoints: atomic, verified, exact; never a pickle.

`checkpoints/step=<n>/` holds tensors in safetensors files, and everything else in manifest.json, with
the size and SHA-256 of each file. It is written under another name, synchronised, and renamed; so a
folder of that name is complete, or was damaged later, which its digests show.
"""

import hashlib
import json
import os
import re
import shutil
import struct
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dqn_exp import manifest
from dqn_exp.manifest import CheckpointError, UnknownSchemaError
from dqn_exp.state import State

SEGMENT_BYTES = 4 << 20  # larger tensors are split; unchanged pieces are linked, not written again
WRITERS = 4  # threads
EXTRA_BYTES = (
    64 << 20
)  # a state may be larger by so much: actions of an episode, metrics not yet summed
DTYPES = {  # as safetensors names them
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
}
SMALL = "state.safetensors"  # all tensors that are not split
FILE_NAME = re.compile(r"[A-Za-z0-9_.]+\.safetensors")
FOLDER_NAME = re.compile(r"step=(\d+)")


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
        expected = sum(tensor.nbytes for tensor in _split(like)[0].values())
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
        state = self.manifest["state"]
        for key, tensors in pieces.items():
            *parents, last = key.split("/")
            node = state
            for parent in parents:
                node = node.setdefault(parent, {})
            node[last] = torch.cat(tensors) if len(tensors) > 1 else tensors[0]
        return state


class Checkpoints:
    """The checkpoints of a run.

    Args:
        folder: where they are.
        keep: how many of the newest to keep.
    """

    def __init__(self, folder: Path, keep: int = 1):
        self._folder, self._keep = folder, keep
        self._step = -1  # of the newest checkpoint that this object has saved or continues from
        self._on_disk: dict[str, Path] = {}  # its files by SHA-256

    def save(self, step: int, state: State, about: Mapping[str, Any]) -> None:
        """Save a state; the oldest are deleted once it is safe on disk.

        If that of this step has been saved already, nothing happens.

        Args:
            about: other entries of the manifest.

        Raises:
            OSError: nothing has been saved, and nothing deleted.
        """
        if step == self._step:
            return
        tensors, rest = _split(state)
        new, final = self._folder / f".new.step={step}", self._folder / f"step={step}"
        self._remove_leftovers()
        new.mkdir(parents=True)
        try:
            with ThreadPoolExecutor(WRITERS) as pool:
                written = pool.map(lambda piece: (piece[0], self._write(new, *piece)), _pieces(tensors))
                files = dict(written)
            content = {"schema": manifest.SCHEMA, "step": step, **about, "state": rest, "files": files}
            _write_through(new / manifest.NAME, manifest.signed(content))
            _synchronise(new)
            if final.exists():  # it was damaged, and skipped
                final.rename(self._folder / f".old.step={step}")
            new.rename(final)
            _synchronise(self._folder)
        except OSError:
            shutil.rmtree(new, ignore_errors=True)
            raise
        self._use(content["files"], final)
        for path in self._paths()[self._keep :]:
            self._discard(path)

    def drop_after(self, step: int) -> None:
        """Continue from the checkpoint of a step: later ones are deleted."""
        path = self._folder / f"step={step}"
        for later in self._paths():
            if _step(later) > step:
                self._discard(later)
        self._use(manifest.read(path)["files"], path)

    def _use(self, files: Mapping[str, Any], path: Path) -> None:
        """Link files of this checkpoint in the next one where they have not changed."""
        self._step = _step(path)
        self._on_disk = {facts["sha256"]: path / name for name, facts in files.items()}

    def newest(self) -> Checkpoint | None:
        """The newest undamaged checkpoint; None if there never was one.

        Raises:
            CheckpointError: all are damaged, or the newest is of another version.
        """
        reasons = []
        for path in self._paths():
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

    def _paths(self) -> list[Path]:
        """The paths of all checkpoints, newest first."""
        if self._folder.is_symlink():
            raise CheckpointError(f"{self._folder}: a symbolic link")
        if not self._folder.is_dir():
            return []
        found = [path for path in self._folder.iterdir() if FOLDER_NAME.fullmatch(path.name)]
        return sorted(found, key=_step, reverse=True)

    def _write(self, folder: Path, name: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """Write a file of tensors, or link an identical one; returns its size and digest."""
        data = _serialised(tensors)
        digest = _digest(*data)
        path, same = folder / name, self._on_disk.get(digest)
        try:
            if same is None:
                raise FileNotFoundError
            os.link(same, path)
        except OSError:  # not all file systems can link
            _write_through(path, *data)
        return {"bytes": sum(len(part) for part in data), "sha256": digest}

    def _discard(self, path: Path) -> None:
        """Delete a checkpoint; renamed first, because a partly deleted one must not look like one."""
        old = path.rename(path.with_name(f".old.{path.name}"))
        shutil.rmtree(old, ignore_errors=True)

    def _remove_leftovers(self) -> None:
        for pattern in (".new.step=*", ".old.step=*"):
            for path in self._folder.glob(pattern):
                shutil.rmtree(path)


def verified(path: Path) -> Checkpoint:
    """The checkpoint at a path.

    Raises:
        CheckpointError: there is none, or its files differ from those saved.
    """
    found = manifest.read(path)
    for name, facts in found["files"].items():
        file = path / name
        if not FILE_NAME.fullmatch(name):
            raise CheckpointError(f"{path}: {name!r} is not a valid file name")
        if file.is_symlink() or not file.is_file():
            raise CheckpointError(f"{file}: missing, or not a regular file")
        if file.stat().st_size != facts["bytes"]:
            raise CheckpointError(f"{file}: {file.stat().st_size:,} bytes, not {facts['bytes']:,}")
        with file.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != facts["sha256"]:
                raise CheckpointError(f"{file}: not what was saved (SHA-256 differs)")
    return Checkpoint(path, found)


def _split(state: State, prefix: str = "") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a state by path, and the rest of it."""
    tensors: dict[str, Tensor] = {}
    rest: dict[str, Any] = {}
    for key, value in state.items():
        if isinstance(value, Tensor):
            tensors[prefix + key] = value
        elif isinstance(value, dict):
            below, rest[key] = _split(value, f"{prefix}{key}/")
            tensors |= below
        else:
            rest[key] = value
    return tensors, rest


def _pieces(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Files by name: one with all small tensors, and pieces of each large tensor."""
    small = {}
    for key, tensor in tensors.items():
        tensor = tensor.detach().cpu()
        if tensor.nbytes <= SEGMENT_BYTES:
            small[key] = tensor
            continue
        rows = max(1, SEGMENT_BYTES * len(tensor) // tensor.nbytes)
        for number, piece in enumerate(tensor.split(rows)):
            yield f"{key.replace('/', '.')}.{number:06d}.safetensors", {key: piece}
    yield SMALL, small


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step="))


def _serialised(tensors: Mapping[str, Tensor]) -> list[memoryview]:
    """The parts of a safetensors file, without copying CPU tensors as the library does.

    https://github.com/huggingface/safetensors#format
    """
    header, parts, end = {}, [], 0
    for key, tensor in tensors.items():
        begin, end = end, end + tensor.nbytes
        facts = {
            "dtype": DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
        header[key] = facts
        if tensor.numel():
            parts.append(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # aligned
    return [memoryview(struct.pack("<Q", len(text)) + text), *parts]


def _digest(*data: bytes | memoryview) -> str:
    digest = hashlib.sha256()
    for part in data:
        digest.update(part)
    return digest.hexdigest()


def _write_through(path: Path, *data: bytes | memoryview) -> None:
    with path.open("wb") as stream:
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
