"""What many tests use: tiny runs, parts by name, the program in a process, what runs leave behind."""

import csv
import dataclasses
import functools
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from forks import start

from dqn_exp import manifest, registry
from dqn_exp.config import typed
from dqn_exp.config.compose import CONF, compose
from dqn_exp.config.schema import Config
from dqn_exp.interfaces import Context, Spec
from dqn_exp.parts import build
from dqn_exp.run.run import Run

PROGRAM = Path(__file__).parents[1] / "train.py"

# A run of a second that still learns, evaluates and logs.
TINY = [
    "total_steps=300",
    "buffer.capacity=210",
    "train.learning_starts=40",
    "train.batch_size=16",
    "net.hidden=[16]",
    "eval.every=200",
    "eval.episodes=2",
    "eval.final_episodes=4",
    "log.every=100",
]


def options(group: str) -> list[str]:
    """The shipped options of a config group."""
    return sorted(p.stem for p in (CONF / group).glob("*.yaml") if not p.stem.startswith("_"))


def tiny(*overrides: str) -> Config:
    """The config of a tiny run; what is given wins over TINY."""
    given = {text.partition("=")[0] for text in overrides}
    return compose(*(t for t in TINY if t.partition("=")[0] not in given), *overrides)


def latest(*overrides: str) -> list[str]:
    """Overrides, of those of the same key only the last."""
    return list({text.partition("=")[0]: text for text in overrides}.values())


def tiny_run(folder: Path, *overrides: str) -> Run:
    """A tiny run in a folder, not started."""
    return Run(build(tiny(*overrides)), folder, progress=False)


def part(kind: str, option: str, *beside: Any, **keys: Any) -> Any:
    """A part, by an option of its group in conf/, or the name of a part without one.

    Args:
        beside: what its kind is given beside its config.
        keys: of its config, instead of those in the yaml.
    """
    return registry.build(kind, node(kind, option, **keys), *beside)


def node(kind: str, option: str, **keys: Any) -> Any:
    """The config dataclass of a part, by an option of its group; `keys` replace those in the yaml."""
    values = (_values(kind, option) if option in options(kind) else {"name": option}) | keys
    schema = registry.schema_of(kind, values.get(registry.SELECTORS.get(kind, "name")))
    assert schema is not None, f"no {kind} {option!r}"
    return typed.read(schema, values)


@functools.cache
def _values(kind: str, option: str) -> dict[str, Any]:
    return dataclasses.asdict(getattr(compose(f"{kind}={option}"), kind))


def command(*arguments: str) -> list[str]:
    """The program on a command line."""
    return [sys.executable, str(PROGRAM), *arguments]


def context(
    seeds: Sequence[int] | torch.Tensor = (0,),
    n_envs: int = 1,
    obs_shape: tuple[int, ...] = (4,),
    obs_dtype: torch.dtype = torch.float32,
    n_actions: int = 2,
    dtype: torch.dtype = torch.float32,
    batch_size: int = 8,
    total_steps: int = 1000,
    total_updates: int = 100,
) -> Context:
    """What parts are built with, on the CPU."""
    return Context(
        seeds=torch.as_tensor(seeds),
        n_envs=n_envs,
        spec=Spec(obs_shape, obs_dtype, n_actions),
        device=torch.device("cpu"),
        dtype=dtype,
        batch_size=batch_size,
        total_steps=total_steps,
        total_updates=total_updates,
    )


def train(cwd: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the program to its end, with more variables in its environment."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = (Path(folder) / name for name in ("out", "err"))
        process = start(cwd, *arguments, out=str(out), err=str(err), **environment)
        process.join()
        code = process.exitcode or 0
        return subprocess.CompletedProcess(arguments, code, out.read_text(), err.read_text())


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file, by column."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def summary(folder: Path) -> dict[str, Any]:
    """What a run's summary.json says."""
    return json.loads((folder / "summary.json").read_text())


def saved(folder: Path) -> list[int]:
    """Env steps of a run's checkpoints, in order."""
    return sorted(map(manifest.step_of, manifest.checkpoints(folder / "checkpoints")))


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest() for path in files}


def entries(path: Path) -> dict[Path, tuple[int, ...]]:
    """What kind each entry of a folder is, its size, and when it was changed."""
    found = {p: p.lstat() for p in path.rglob("*")}
    return {p: (f.st_mode, f.st_size, f.st_mtime_ns) for p, f in found.items()}


def result(folder: Path, with_rows: bool = True) -> dict[str, Any]:
    """All that must be the same, bit for bit, however often a run was cut off."""
    assert summary(folder)["status"] == "finished"
    step = saved(folder)[-1]
    text = (folder / f"checkpoints/step={step}/manifest.json").read_text()
    manifest = json.loads(text)["manifest"]
    state = manifest["state"]
    del state["seconds"], state["wall_seconds"], state["tracker"]["bytes"]
    found = {
        "step": step,
        "tensors": {name: facts["sha256"] for name, facts in manifest["files"].items()},
        "state": state,
        "final_returns": summary(folder)["final_returns"],
    }
    if with_rows:
        metrics = rows(folder / "metrics.csv")
        found["metrics"] = [row for row in metrics if row["tag"] != "time/steps_per_second"]
        found["episodes"] = (folder / "episodes.csv").read_text()
    return found


def sign(checkpoint: Path, **changes: Any) -> None:
    """Change what the manifest of a checkpoint says, and sign it as a save does."""
    path = checkpoint / manifest.NAME
    content = json.loads(path.read_text())["manifest"]
    path.write_bytes(manifest.signed(content | changes))
