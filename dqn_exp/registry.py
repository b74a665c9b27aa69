"""The registry: a config node names its part, and the part's dataclass says which keys the node has.

    @register("agent", "my_rule")
    class MyRule(DQN):
        config: MyConfig  # a dataclass made with `schema.config`, whose keys are those of the node

A part is a class or function that is called with `config` and what its kind is given beside it
(`interfaces.py`). Importing a module registers the parts in it.
"""

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any, TypeVar

from dqn_exp.config import schema
from dqn_exp.config.problems import ConfigError, Problem

ROOMS = ("agents", "nets", "buffers", "envs", "optim", "exploration")  # modules that hold parts
SELECTORS = {"env": "backend"}  # the key that names the part of a kind; "name" for the others
Part = TypeVar("Part", bound=Callable[..., Any])

_parts: dict[str, dict[str, Callable[..., Any]]] = {}


def register(kind: str, name: str) -> Callable[[Part], Part]:
    """Decorator: make a part known as `name` among the parts of `kind`.

    Raises:
        ValueError: another part of this kind has the name already.
        TypeError: the part does not say what its config is, or that is not a config of its kind.
    """

    def add(part: Part) -> Part:
        own, base = _schema(part), schema.BASES[kind]
        if not (isinstance(own, type) and issubclass(own, base)):
            wanted = f"`config: C`, where C is a subclass of schema.{base.__name__}"
            raise TypeError(f"{kind} {name!r} ({part.__qualname__}) must declare {wanted}, not {own}")
        other = _parts.setdefault(kind, {}).setdefault(name, part)
        if (other.__module__, other.__qualname__) != (part.__module__, part.__qualname__):
            taken = f"{other.__module__}.{other.__qualname__}"
            raise ValueError(f"{kind} {name!r} is already registered by {taken}")
        _parts[kind][name] = part
        return part

    return add


def load(plugins: list[str]) -> None:
    """Import the plug-ins, which may register parts.

    Raises:
        ConfigError: a plug-in cannot be imported.
    """
    problems = []
    for module in plugins:
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as error:  # a plug-in may raise anything
            reason = f"cannot be imported: {type(error).__name__}: {error}"
            problems.append(Problem("plugins", reason, module))
    if problems:
        raise ConfigError(problems)


@functools.cache
def load_package() -> None:
    """Import every module with parts of this package."""
    for room in ROOMS:
        package = importlib.import_module(f"dqn_exp.{room}")
        for module in pkgutil.iter_modules(getattr(package, "__path__", [])):
            importlib.import_module(f"dqn_exp.{room}.{module.name}")


def names(kind: str) -> list[str]:
    """The names of all known parts of a kind, sorted."""
    return sorted(_parts.get(kind, {}).keys() | schema.PARTS[kind].keys())


def schema_of(kind: str, name: Any) -> type | None:
    """The dataclass of a part's keys, or None if there is no such part.

    Parts that schema.py lists are found without importing them, and with them torch.
    """
    if not isinstance(name, str):
        return None
    if name in schema.PARTS[kind]:
        return schema.PARTS[kind][name]
    if name not in _parts.get(kind, {}):
        load_package()
    return _schema(_parts[kind][name]) if name in _parts.get(kind, {}) else None


def _schema(part: Callable[..., Any]) -> Any:
    """The type that a part, or the nearest of its base classes, declares for `config`."""
    for owner in part.__mro__ if isinstance(part, type) else (part,):
        if "config" in (hints := inspect.get_annotations(owner, eval_str=True)):
            return hints["config"]
    return None


def build(kind: str, config: Any, *beside: Any) -> Any:
    """The part that a config dataclass names, called with `beside` and the dataclass."""
    load_package()
    name = getattr(config, SELECTORS.get(kind, "name"))
    return _parts[kind][name](*beside, config=config)


def deviation(kind: str, config: Any) -> str | None:
    """What the part does on purpose that its source does not, in one line; None if it says nothing."""
    return getattr(_parts[kind][getattr(config, SELECTORS.get(kind, "name"))], "deviation", None)
