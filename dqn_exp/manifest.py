"""The JSON part of a checkpoint, checked like any other input; reading it needs no torch."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dqn_exp import files
from dqn_exp.files import OddFileError

SCHEMA = 4
NAME = "manifest.json"
MAX_BYTES = 64 << 20
FOLDER_NAME = re.compile(r"step=(0|[1-9]\d{0,17})")  # of a checkpoint


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
    if not files.is_folder(checkpoint):
        raise CheckpointError(f"{checkpoint}: missing, or not a folder")
    try:
        content = json.loads(files.read(file, MAX_BYTES))
        manifest, digest = content["manifest"], content["sha256"]
        if hashlib.sha256(json.dumps(manifest).encode()).hexdigest() != digest:
            raise CheckpointError(f"{file}: not what was saved (SHA-256 differs)")
        if manifest["schema"] != SCHEMA:
            raise UnknownSchemaError(
                f"{file}: schema {manifest['schema']}, this version reads {SCHEMA}"
            )
        kinds = {"step": int, "config": dict, "state": dict, "files": dict}
        for key, kind in kinds.items():
            if type(manifest[key]) is not kind:
                raise CheckpointError(f"{file}: {key} is {type(manifest[key]).__name__}")
        if manifest["step"] != step_of(checkpoint):
            raise CheckpointError(f"{file}: of step {manifest['step']}")
        for facts in manifest["files"].values():
            if type(facts["bytes"]) is not int or type(facts["sha256"]) is not str:
                raise CheckpointError(f"{file}: files without sizes or digests")
    except OddFileError as error:
        raise CheckpointError(str(error)) from error
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise CheckpointError(f"{file}: cannot be read as a manifest ({error!r})") from error
    return manifest


def checkpoints(folder: Path) -> list[Path]:
    """The folders of checkpoints in a folder, newest first; anything else there is ignored.

    Raises:
        CheckpointError: the folder is a link, or a file.
    """
    if not os.path.lexists(folder):
        return []
    if not files.is_folder(folder):
        raise CheckpointError(f"{folder}: not a folder, or a symbolic link")
    found = [p for p in folder.iterdir() if FOLDER_NAME.fullmatch(p.name) and files.is_folder(p)]
    return sorted(found, key=step_of, reverse=True)


def step_of(checkpoint: Path) -> int:
    """The env step that the name of a checkpoint's folder says."""
    return int(checkpoint.name.removeprefix("step="))


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
    for path in checkpoints(folder):
        try:
            return read(path)
        except UnknownSchemaError:
            raise
        except CheckpointError as error:
            reasons.append(str(error))
    raise CheckpointError(f"no undamaged checkpoint in {folder}" + "".join(f"; {r}" for r in reasons))
