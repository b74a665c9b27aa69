"""The package stays in order: imports point down only, and nothing runs code from data."""

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import PROGRAM

import dqn_exp

PACKAGE = Path(dqn_exp.__file__).parent
# From the top down. An entry is a module or a package; a module belongs to the longest entry that fits.
# It may import from lower floors and from its own entry; entries of one floor never import each other.
FLOORS = [
    {"__main__"},
    {"cli"},
    {"bench", "sweeps"},
    {"__init__"},  # the public API
    {"analysis"},
    {"greedy"},
    {"policy", "export"},
    {"run"},
    {"parts", "diagnostics", "film", "notebooks"},
    {"compiled.loops", "compiled.play"},
    {"compiled.gradient", "loop", "play"},
    {"learner"},
    {"agents", "nets", "buffers", "envs", "optim", "exploration"},
    {"finite", "means", "target"},
    {"rng", "schedules", "statistics", "td"},
    {"interfaces"},
    {"config"},  # composition, help and reading: not what parts import
    {"config.typed"},
    {"registry", "extras"},
    {"config.schema", "config.problems", "manifest", "state", "glossary", "compiled"},
    {"files", "signals"},
]
MODULES = sorted(PACKAGE.rglob("*.py"))
UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__", "torch.load"}
HYDRA = {"hydra", "omegaconf"}
KNOW_HYDRA = {"config", "cli", "sweeps"}
HEAVY = {"torch", "gymnasium", "tensorboard", "scipy", "numpy"}


def name_of(path: Path) -> str:
    """A module's dotted name within the package."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


NAMES = {name_of(path): path for path in MODULES}
every_module = pytest.mark.parametrize("path", MODULES, ids=NAMES)
below_the_config = pytest.mark.parametrize(
    "path", [path for name, path in NAMES.items() if name.partition(".")[0] not in KNOW_HYDRA]
)


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(node: ast.AST) -> Iterator[str]:
    """Full names of all that a tree imports, inside functions too."""
    for child in ast.walk(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute here"
            yield from (f"{child.module}.{alias.name}" for alias in child.names)


def imported_modules(path: Path) -> set[str]:
    """The modules of the package that a module imports."""
    found = set()
    for name in imports(tree(path)):
        root, _, inner = name.partition(".")
        if root == "dqn_exp":
            while inner not in NAMES and inner:
                inner = inner.rpartition(".")[0]
            found.add(inner or "__init__")
    return found


def place(name: str) -> tuple[int, str]:
    """The floor of a module, counted from the top, and its entry."""
    fitting = [
        (number, entry)
        for number, entries in enumerate(FLOORS)
        for entry in entries
        if name == entry or name.startswith(f"{entry}.")
    ]
    assert fitting, f"{name} has no floor: give it one in FLOORS"
    return max(fitting, key=lambda found: len(found[1]))


@every_module
def test_imports_point_down_only(path: Path) -> None:
    floor, entry = place(name_of(path))
    for used in imported_modules(path):
        below, its_entry = place(used)
        assert below > floor or its_entry == entry, f"{used} is not below {name_of(path)}"


def test_no_module_imports_itself_through_others() -> None:
    graph = {name: imported_modules(path) - {"__init__"} for name, path in NAMES.items()}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


def test_every_floor_is_lived_on() -> None:
    entries = {place(name)[1] for name in NAMES}
    assert entries == set().union(*FLOORS)


@below_the_config
def test_only_config_cli_and_sweeps_know_hydra(path: Path) -> None:
    assert not HYDRA & {name.partition(".")[0] for name in imports(tree(path))}


def is_config(node: ast.AST) -> bool:
    """Whether an expression is a config: `config`, `self.config`, `parts.config.agent`, ..."""
    while isinstance(node, ast.Attribute):
        if node.attr in ("config", "_config"):
            return True
        node = node.value
    return isinstance(node, ast.Name) and node.id in ("config", "cfg")


def dict_accesses(node: ast.AST) -> Iterator[str]:
    """Where a tree treats a config as a dict."""
    methods = {"get", "items", "keys", "values", "pop", "setdefault", "update"}
    for child in ast.walk(node):
        subscript = isinstance(child, ast.Subscript) and is_config(child.value)
        method = isinstance(child, ast.Attribute) and child.attr in methods and is_config(child.value)
        if subscript or method:
            yield ast.unparse(child)


@below_the_config
def test_configs_are_not_treated_as_dicts(path: Path) -> None:
    assert not list(dict_accesses(tree(path)))


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("config['agent']['gamma']", ["config['agent']"]),
        ("self.config.optim['lr']", ["self.config.optim['lr']"]),
        ("parts._config.get('lr', 1)", ["parts._config.get"]),
        ("config.agent.gamma + config.stop.episodes", []),
        ("manifest['config'].get('seed')", []),
    ],
)
def test_treating_a_config_as_a_dict_is_noticed(code: str, found: list[str]) -> None:
    assert list(dict_accesses(ast.parse(code))) == found


def private_torch(path: Path) -> list[str]:
    """What a module uses of torch that is private, or only of use in compiled code."""
    private = re.compile(r"torch\.([\w.]*\.)?_(?!_)")
    found = [name for name in imports(tree(path)) if private.match(name)]
    chains = [ast.unparse(node) for node in ast.walk(tree(path)) if isinstance(node, ast.Attribute)]
    found += [chain for chain in chains if private.match(chain)]
    names = {chain.rpartition(".")[2] for chain in [*chains, *imports(tree(path))]}
    return found + sorted(names & {"is_compiling", "is_dynamo_compiling"})


@every_module
def test_only_the_compiled_package_knows_that_code_is_compiled(path: Path) -> None:
    if name_of(path).partition(".")[0] != "compiled":
        assert private_torch(path) == []


def test_private_entries_of_torch_are_noticed() -> None:
    used = {name for path in MODULES for name in private_torch(path)}
    assert "is_compiling" in used
    assert any(name.startswith("torch._inductor") for name in used)


@pytest.mark.parametrize("path", [*MODULES, PROGRAM], ids=[*NAMES, "train.py"])
def test_nothing_runs_code_from_data(path: Path) -> None:
    names = set(imports(tree(path)))
    assert not {name.partition(".")[0] for name in names} & UNSAFE_MODULES
    calls = [ast.unparse(n.func) for n in ast.walk(tree(path)) if isinstance(n, ast.Call)]
    assert not UNSAFE_CALLS & set(calls)
    assert not {"torch.load", "torch.serialization.load"} & names


@pytest.mark.parametrize(
    "code",
    [
        "import dqn_exp",
        "import dqn_exp; dqn_exp.compose('agent=c51', 'buffer=per', 'env.backend=native')",
        "from dqn_exp.cli.train import main; sys.argv = ['train.py', '--help']; main()",
        "from dqn_exp.cli.train import main; sys.argv = ['train.py', 'agent.gamma=2']; main()",
        "from dqn_exp.__main__ import main; sys.argv = ['dqn-exp']; main()",
        "from dqn_exp.__main__ import main; sys.argv = ['dqn-exp', 'report', '--help']; main()",
        "from dqn_exp.__main__ import main; sys.argv = ['dqn-exp', 'compare', '--help']; main()",
        "from dqn_exp.__main__ import main; sys.argv = ['dqn-exp', '--version']; main()",
    ],
)
def test_it_is_answered_without_the_large_libraries(tmp_path: Path, code: str) -> None:
    code = f"import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); {code}"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    loaded = set(done.stderr.splitlines()[-1].split())
    assert "dqn_exp" in loaded
    assert not HEAVY & loaded
    assert "Traceback" not in done.stderr
