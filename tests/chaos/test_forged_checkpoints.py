"""Checkpoints with other values under right digests: refused by a line, or continued; never run."""

import copy
import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from forks import forked
from helpers import TINY, entries, sign
from safetensors.torch import load_file, save_file
from torch import Tensor

from dqn_exp.manifest import signed
from dqn_exp.run.tensor_files import SMALL

RUN = [*TINY, "seeds=2", "agent.n_step=2", "train.stop.episodes=900", "hydra.run.dir=run"]
DEEP: Any = 1
for _ in range(400):
    DEEP = [DEEP]
VALUES = [None, -1, 2**40, 2**70, 0.5, float("nan"), True, "x", "${oc.env:HOME}\n\x1b[2J", [], {}, DEEP]
VALUES += [{"a": 1}, [None], [1] * 5000, "x" * 100_000]
GONE = object()
CHECKPOINT = "checkpoints/step=300"
Place = tuple[str | int, ...]


@pytest.fixture(scope="module", params=["gymnasium", "native"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds a finished run."""
    path = tmp_path_factory.mktemp("whole")
    ended = forked(path, *RUN, f"env.backend={request.param}")
    assert ended.code == 0, ended.text
    return path / "run"


def places(node: Any, path: Place = ()) -> Iterator[Place]:
    """The paths of all values below a node, containers too; of a list only the first items."""
    items = list(node.items() if isinstance(node, dict) else enumerate(node[:2]))
    for key, value in items:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def changed(node: Any, path: Place, value: Any) -> Any:
    """A copy with another value at a path, or without it."""
    node = copy.deepcopy(node)
    inner = node
    for key in path[:-1]:
        inner = inner[key]
    if value is GONE:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return node


def check(run: Path, what: str) -> None:
    """Continue a run: it ends, or it is refused in lines and nothing changes."""
    cwd = run.parent
    before = entries(run)
    code, text = forked(cwd, "resume=run", "total_steps=330")
    assert code in (0, 1, 2), f"{what}: {text}"
    assert "Traceback" not in text, what
    assert "\x1b" not in text, what
    assert sorted(p.name for p in cwd.iterdir()) == ["output", "run"]
    if code == 1:  # training diverges
        assert "is not finite" in text, f"{what}: {text}"
    if code == 2:
        assert text, what
        assert all(len(line) < 2000 for line in text.splitlines()), what
        assert entries(run) == before, what


every = pytest.mark.parametrize(
    "every", [pytest.param(1000, id="some"), pytest.param(1, marks=pytest.mark.slow, id="all")]
)


@every
def test_a_manifest_with_another_value_anywhere_is_refused_or_means_something(
    whole: Path, tmp_path: Path, every: int
) -> None:
    text = (whole / CHECKPOINT / "manifest.json").read_text()
    content = json.loads(text)["manifest"]
    values = itertools.cycle([GONE, *VALUES])
    cases = [(path, next(values)) for path in places(content) for _ in range(5)]
    for path, value in cases[::every]:
        run = shutil.copytree(whole, tmp_path / f"{len(list(tmp_path.iterdir()))}/run")
        (run / CHECKPOINT / "manifest.json").write_bytes(signed(changed(content, path, value)))
        check(run, f"{path} = {str(value)[:50]}")


CHANGES: dict[str, Callable[[Tensor], Tensor | None]] = {
    "absent": lambda tensor: None,
    "of another shape": lambda tensor: torch.stack([tensor, tensor]),
    "of another type": lambda tensor: tensor.to(torch.int16),
    "negative": lambda tensor: torch.full_like(tensor, -1),
    "huge": lambda tensor: torch.full_like(tensor, 1e18),
    "not finite": lambda tensor: torch.full_like(tensor, torch.nan),
}


@every
def test_tensors_of_other_values_are_refused_or_end_in_a_line(
    whole: Path, tmp_path: Path, every: int
) -> None:
    tensors = load_file(whole / CHECKPOINT / SMALL)
    cases = [(name, what) for name in sorted(tensors) for what in CHANGES]
    for name, what in cases[::every]:
        run = shutil.copytree(whole, tmp_path / f"{len(list(tmp_path.iterdir()))}/run")
        other = {k: CHANGES[what](tensor) if k == name else tensor for k, tensor in tensors.items()}
        path = run / CHECKPOINT / SMALL
        save_file({k: tensor for k, tensor in other.items() if tensor is not None}, path)
        data = path.read_bytes()
        sign(run / CHECKPOINT, files={SMALL: {"bytes": len(data), "sha256": sha256(data).hexdigest()}})
        check(run, f"{name} is {what}")
