"""From plain nested dicts to typed config dataclasses, and back."""

import dataclasses
import math
import re
import types
from collections.abc import Mapping
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from dqn_exp import registry
from dqn_exp.config.problems import ConfigError, Problem, nearest

LARGEST = {int: 2**53, float: 1e30}  # beyond these, counts and values lose their meaning
DEEPEST = 20  # levels of free-form arguments
CALLS = ("_target_", "_partial_", "_args_", "_recursive_", "_convert_")  # how Hydra would call things
COUNT = re.compile(r"(\d[\d_]*(?:\.\d+)?(?:[eE]\d+)?)([kM]?)")  # 10000, 10_000, 1e4, 10k, 0.5M
INVALID: Any = object()
T = TypeVar("T")


def read(schema: type[T], node: Mapping[str, Any]) -> T:
    """The dataclass that a node of plain values describes; plug-ins must have been loaded.

    Raises:
        ConfigError: with every problem found.
    """
    problems: list[Problem] = []
    config = _dataclass(schema, node, "", problems)
    if problems:
        raise ConfigError(problems)
    return config


def plain(config: Any) -> dict[str, Any]:
    """The nested dicts and lists that `read` makes the same dataclass of."""
    return dataclasses.asdict(config)


def flatten(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A config by dotted keys; lists are values."""
    flat: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def whole_number(value: Any) -> int | None:
    """The integer that 10000, 1e4, "10_000", "10k" or "0.5M" means; None if it means none."""
    if isinstance(value, str) and (match := COUNT.fullmatch(value)):
        value = float(match[1].replace("_", "")) * {"": 1, "k": 1e3, "M": 1e6}[match[2]]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if isinstance(value, int) or value.is_integer() else None


def _dataclass(schema: type, node: Any, path: str, problems: list[Problem]) -> Any:
    """The dataclass at a path, or INVALID after noting why."""
    fields = {f.name: f for f in dataclasses.fields(schema)}
    prefix = f"{path}." if path else ""
    if not isinstance(node, Mapping):
        problems.append(Problem(path, f"must be a group of keys: {', '.join(fields)}", node))
        return INVALID
    for name in node:
        if name in CALLS:
            problems.append(
                Problem(prefix + str(name), "parts are built by name; nothing else is called")
            )
        elif name not in fields:
            problems.append(Problem(prefix + str(name), f"unknown key{nearest(str(name), fields)}"))
    hints, values = get_type_hints(schema), {}
    for name, field in fields.items():
        if node.get(name, INVALID) in (INVALID, "???"):
            meaning = field.metadata.get("meaning", "a group of keys")
            problems.append(Problem(prefix + name, f"must be set ({meaning})"))
        else:
            values[name] = _field(hints[name], field, node[name], prefix + name, problems)
    if len(values) < len(fields) or any(value is INVALID for value in values.values()):
        return INVALID
    config = schema(**values)
    for name, message in getattr(config, "problems", tuple)():
        value = flatten(dataclasses.asdict(config)).get(name, INVALID)
        problems.append(Problem(prefix + name, message, value))
    return config


def _field(hint: Any, field: Any, node: Any, path: str, problems: list[Problem]) -> Any:
    """The value of a field, of the type that its hint says."""
    if kind := field.metadata.get("kind"):
        if get_origin(hint) is not list:
            return _part(kind, node, path, problems)
        if not isinstance(node, list):
            problems.append(Problem(path, "must be a list: [{name: ...}, ...]", node))
            return INVALID
        parts = [_part(kind, each, f"{path}.{i}", problems) for i, each in enumerate(node)]
        return INVALID if any(part is INVALID for part in parts) else parts
    if dataclasses.is_dataclass(hint):
        return _dataclass(hint, node, path, problems)  # type: ignore[arg-type]
    holds, allowed = field.metadata["check"]
    allowed = allowed or _described(hint)
    value = _value(hint, node)
    if hint == dict[str, Any] and isinstance(value, dict):
        problems += _free_form(value, path)
    too_large = isinstance(value, int | float) and not abs(value) < LARGEST.get(type(value), math.inf)
    if too_large:
        allowed = f"finite, and below {LARGEST[type(value)]:,}"
    optional = type(None) in get_args(hint)
    is_null = value is None and optional
    if value is INVALID or too_large or not (is_null or holds(value)):
        problems.append(Problem(path, f"must be {'null or ' if optional else ''}{allowed}", node))
        return INVALID
    return value


def _part(kind: str, node: Any, path: str, problems: list[Problem]) -> Any:
    """The dataclass of a node that names a registered part."""
    selector = registry.SELECTORS.get(kind, "name")
    if not isinstance(node, Mapping):
        known = nearest(str(node), registry.names(kind))
        problems.append(Problem(path, f"must name a {kind}: {{{selector}: ...}}{known}", node))
        return INVALID
    name = node.get(selector)
    if (known := registry.schema_of(kind, name)) is None:
        message = f"unknown {kind}{nearest(str(name), registry.names(kind))}"
        problems.append(Problem(f"{path}.{selector}", message, name))
        return INVALID
    return _dataclass(known, node, path, problems)


def _value(hint: Any, node: Any) -> Any:
    """A value of a plain type, or INVALID."""
    if hint is Any:
        return node
    if get_origin(hint) is types.UnionType:
        return None if node is None else _value(get_args(hint)[0], node)
    if get_origin(hint) is list:
        values = (
            [_value(get_args(hint)[0], each) for each in node] if isinstance(node, list) else [INVALID]
        )
        return INVALID if INVALID in values else values
    if get_origin(hint) is dict:
        return dict(node) if isinstance(node, Mapping) else INVALID
    if hint is int:
        whole = whole_number(node)
        return INVALID if whole is None else whole
    if hint is float and isinstance(node, int | float) and not isinstance(node, bool):
        return float(node)
    return node if type(node) is hint else INVALID


def _described(hint: Any) -> str:
    """What a type is called in a message."""
    inner = get_args(hint)[0] if get_origin(hint) in (types.UnionType, list) else hint
    known = {int: "an integer", float: "a number", bool: "true or false", str: "text"}
    if get_origin(hint) is list:
        return f"a list, each item {known.get(inner, 'a value')}"
    return known.get(inner, "a group of keys")


def _free_form(node: Any, path: str) -> list[Problem]:
    """What is wrong with free-form arguments: keys that ask Hydra to call something, and depth."""
    if path.count(".") > DEEPEST:
        return [Problem(path, f"is nested more than {DEEPEST} levels deep")]
    if isinstance(node, list):
        return [p for i, each in enumerate(node) for p in _free_form(each, f"{path}.{i}")]
    if not isinstance(node, Mapping):
        return []
    own = [
        Problem(f"{path}.{name}", "parts are built by name; nothing else is called")
        for name in node
        if name in CALLS
    ]
    return own + [p for name, each in node.items() for p in _free_form(each, f"{path}.{name}")]
