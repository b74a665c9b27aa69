"""The JSON part of a checkpoint, checked like any other input; reading it needs no torch."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SCHEMA = 2
NAME = "manifest.json"
MAX_BYTES = 64 << 20


class CheckpointError(RuntimeError):
    """A checkpoint that is damaged, or something that is not a checkpoint."""


class UnknownSchemaError(CheckpointError):
    """A checkpoint of another version of this program; an older one beside it cannot replace it."""


def signed(manifest: Mapping[str, Any]) -> bytes:
    """The content of a manifest file: the manifest and its SHA-256."""
    text = json.dumps(manifest)
    return f'{{"sha256": "{hashlib.sha256(text.encode()).hexdigest()}", "manifest": {text}}}\n'.encode()


def read(checkpoint: Path) -> dict[str, Any]:
    """The manifest of the checkpoint in a folder: `step`, `config`, `state`, `files` and more.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    file = checkpoint / NAME
    if checkpoint.is_symlink() or file.is_symlink() or not file.is_file():
        raise CheckpointError(f"{file}: missing, or not a regular file")
    if file.stat().st_size > MAX_BYTES:
        raise CheckpointError(f"{file}: larger than {MAX_BYTES:,} bytes")
    try:
        content = json.loads(file.read_bytes())
        manifest, digest = content["manifest"], content["sha256"]
        if hashlib.sha256(json.dumps(manifest).encode()).hexdigest() != digest:
            raise CheckpointError(f"{file}: not what was saved (SHA-256 differs)")
        if manifest["schema"] != SCHEMA:
            raise UnknownSchemaError(
                f"{file}: schema {manifest['schema']}, this version reads {SCHEMA}"
            )
        for key, kind in (("step", int), ("config", dict), ("state", dict), ("files", dict)):
            if not isinstance(manifest[key], kind):
                raise CheckpointError(f"{file}: {key} is {type(manifest[key]).__name__}")
        for facts in manifest["files"].values():
            if not isinstance(facts["bytes"], int) or not isinstance(facts["sha256"], str):
                raise CheckpointError(f"{file}: files without sizes or digests")
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise CheckpointError(f"{file}: cannot be read as a manifest ({error!r})") from error
    return manifest


def split(path: Path) -> tuple[Path, Path | None]:
    """The run folder that a path to it, or to one of its checkpoints, means; and that checkpoint."""
    path = Path(os.path.abspath(path))  # without .., and with symbolic links
    return (path.parent.parent, path) if path.parent.name == "checkpoints" else (path, None)


def newest(run: Path) -> dict[str, Any]:
    """The newest readable manifest of a run folder.

    Raises:
        CheckpointError: there is none.
    """
    folder, reasons = run / "checkpoints", []
    found = [p for p in folder.glob("step=*") if p.name[5:].isdecimal()]
    for path in sorted(found, key=lambda p: int(p.name[5:]), reverse=True):
        try:
            return read(path)
        except UnknownSchemaError:
            raise
        except CheckpointError as error:
            reasons.append(str(error))
    raise CheckpointError(f"no undamaged checkpoint in {folder}" + "".join(f"; {r}" for r in reasons))
