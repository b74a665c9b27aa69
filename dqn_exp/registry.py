"""The registry: config nodes name their parts, and every key of a node is consumed by its part.

A part is a class (or function) registered under a kind and a name. Its keyword-only parameters are
its config keys, no more and no less; its positional parameters are context from the builder:

    @register("buffer", "uniform")
    class UniformBuffer:
        def __init__(self, context, *, capacity: int): ...
"""

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

SELECTORS = {"env": "backend"}  # the key that names the part of a kind; "name" for the others
Part = TypeVar("Part", bound=Callable[..., Any])

_parts: dict[str, dict[str, Callable[..., Any]]] = {}


class ConfigError(ValueError):
    """An invalid configuration; `problems` are lines for a person, each with what is allowed."""

    def __init__(self, problems: Iterable[str]):
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


def register(kind: str, name: str) -> Callable[[Part], Part]:
    """Class decorator: make a part known as `name` among the parts of `kind`.

    Raises:
        ValueError: another part of this kind has the name already.
    """

    def add(part: Part) -> Part:
        other = _parts.setdefault(kind, {}).setdefault(name, part)
        if (other.__module__, other.__qualname__) != (part.__module__, part.__qualname__):
            raise ValueError(
                f"{kind} {name!r} is registered by {other.__module__}.{other.__qualname__} already"
            )
        _parts[kind][name] = part
        return part

    return add


def discover(room: str) -> None:
    """Import a module, or every module of a package, so that the parts in it register themselves."""
    package = importlib.import_module(room)
    for module in pkgutil.iter_modules(getattr(package, "__path__", [])):
        importlib.import_module(f"{room}.{module.name}")


def names(kind: str) -> list[str]:
    """The names of all registered parts of a kind, sorted."""
    return sorted(_parts.get(kind, {}))


def keys(kind: str, name: str) -> dict[str, inspect.Parameter]:
    """The config keys of a part: its keyword-only parameters."""
    parameters = inspect.signature(_parts[kind][name]).parameters.values()
    return {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY}


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """' - did you mean 'x'? (one of: ...)' for error messages about names."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    hint = f" - did you mean {near[0]!r}?" if near else ""
    return f"{hint} (one of: {', '.join(known)})"


def problems(kind: str, node: Any) -> list[str]:
    """What is wrong with a config node's name and keys, one line each; empty if it can be built."""
    selector = SELECTORS.get(kind, "name")
    if not isinstance(node, Mapping):
        return [f"{kind}={node}: must name a {kind}{did_you_mean(str(node), names(kind))}"]
    name = node.get(selector)
    if name not in _parts.get(kind, {}):
        return [f"{kind}.{selector}={name}: unknown {kind}{did_you_mean(str(name), names(kind))}"]
    allowed = keys(kind, name)
    unknown = [
        f"{kind}.{key}: unknown key of {kind} {name!r}{did_you_mean(key, allowed)}"
        for key in node
        if key != selector and key not in allowed
    ]
    missing = [
        f"{kind}.{key}: missing, {kind} {name!r} needs it"
        for key, parameter in allowed.items()
        if key not in node and parameter.default is parameter.empty
    ]
    return unknown + missing


def build(kind: str, node: Mapping[str, Any], *context: Any) -> Any:
    """The part that the node names, given the context and every other key of the node.

    Raises:
        ConfigError: the name or a key is unknown, or a key is missing.
    """
    if wrong := problems(kind, node):
        raise ConfigError(wrong)
    selector = SELECTORS.get(kind, "name")
    options = {key: value for key, value in node.items() if key != selector}
    return _parts[kind][node[selector]](*context, **options)
