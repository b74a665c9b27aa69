"""The house stays in order: imports point down only, and nothing runs code from data."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import dqn_exp

PACKAGE = Path(dqn_exp.__file__).parent
TOP = PACKAGE.parent
# From the top down (see the design). A module or room may import from those below it alone, and a room
# from itself; those on one floor never import each other.
FLOORS = [
    {"bench"},
    {"config"},
    {"experiment"},
    {"run_folder", "summary"},
    {"trainer"},
    {"diagnostics"},
    {"loop", "evaluation", "checkpoint", "stopping", "tracking"},
    {"learner"},
    {"exploration", "optim"},
    {"agents", "nets", "buffers", "envs"},
    {
        "td",
        "compilation",
        "rng",
        "schedules",
        "deviations",
        "signals",
    },  # pure functions, used by parts too
    {"types", "registry", "schema", "compiled_loops"},
]
MODULES = sorted(PACKAGE.rglob("*.py"))
UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__", "torch.load"}
every_module = pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(node: ast.AST) -> set[str]:
    """Full names of all that a tree imports, inside functions too."""
    found = set()
    for child in ast.walk(node):
        if isinstance(child, ast.Import):
            found |= {alias.name for alias in child.names}
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute here"
            found |= {f"{child.module}.{alias.name}" for alias in child.names}
    return found


def room(path: Path) -> str:
    """The part of the house that a file is in: its folder, or its name."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def floor(name: str) -> int:
    floors = [number for number, names in enumerate(FLOORS) if name in names]
    assert floors, f"dqn_exp.{name} has no floor: give it one in FLOORS"
    return floors[0]


@every_module
def test_imports_point_down_only(path: Path) -> None:
    here = room(path)
    used = {name.split(".")[1] for name in imports(tree(path)) if name.startswith("dqn_exp.")}
    if here == "__init__":
        assert not used
    else:
        upward = {name for name in used - {here} if floor(name) <= floor(here)}
        assert not upward, f"{here} imports {sorted(upward)}, which is not below it"


@every_module
def test_only_the_config_knows_hydra(path: Path) -> None:
    packages = {name.split(".")[0] for name in imports(tree(path))}
    assert room(path) == "config" or not packages & {"hydra", "omegaconf"}


@pytest.mark.parametrize("path", [*MODULES, TOP / "train.py"], ids=lambda path: path.name)
def test_nothing_runs_code_from_data(path: Path) -> None:
    modules = {name.split(".")[0] for name in imports(tree(path))}
    assert not modules & UNSAFE_MODULES
    calls = [ast.unparse(n.func) for n in ast.walk(tree(path)) if isinstance(n, ast.Call)]
    assert not UNSAFE_CALLS & set(calls)
    assert not {"torch.load", "torch.serialization.load"} & imports(tree(path))


def test_help_is_answered_without_importing_torch() -> None:
    code = "import sys, train; train.config.help_text(); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=TOP, capture_output=True, text=True, check=True
    )
    assert "hydra" in done.stdout.split()
    assert not {"torch", "gymnasium", "tensorboard", "scipy"} & set(done.stdout.split())
