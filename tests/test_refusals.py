"""Every config key refuses values of a wrong type or out of its range, and says what is allowed.

The table is made from `config/schema.py`: which values are bad follows from the type of a key, and from
what its check says in words, not from the check's code.
"""

import functools
import math
import re
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, fields, is_dataclass
from itertools import zip_longest
from types import UnionType
from typing import Any, get_args, get_type_hints

import pytest

from dqn_exp import registry
from dqn_exp.config import schema, typed
from dqn_exp.config.compose import compose
from dqn_exp.config.problems import ConfigError

NAN, INF = math.nan, math.inf
WRAPPERS = {"clip_reward": {"low": -1.0, "high": 1.0}, "scale_reward": {"factor": 2.0}}
# Keys without a range whose values only the machine or a part can judge: see test_bad_inputs.py.
ANYTHING_OF_ITS_TYPE = {"env.id", "env.kwargs", "device", "resume", "plugins"}
WRONG_TYPES: dict[Any, list[Any]] = {
    int: ["abc", "", "10kk", "1e-3", 1.5, NAN, INF, True, [1], {"a": 1}],
    float: ["abc", "", True, [1.0], {"a": 1}],
    bool: ["abc", 1, 0, 1.0, [True], {"a": 1}],
    str: [3, 1.5, True, ["a"], {"a": 1}],
    list[int]: [3, "abc", [1.5], ["a"], [True], [None], [[1]], {"a": 1}],
    list[float]: [0.9, "abc", ["a", 0.9], [True, 0.9], [None, 0.9], {"a": 1}],
    list[str]: ["abc", 3, [3], [None], {"a": 1}],
    dict[str, Any]: [3, "abc", [1]],
    Any: [None, 1.5, [True], {"a": 1}],
}
NOT_FINITE: dict[Any, list[Any]] = {int: [2**60, -(2**60)], float: [NAN, INF, -INF, 1e31]}
# What a check says in words -> values that it must refuse, and values that it must accept.
WORDS: dict[str, tuple[list[Any], list[Any]]] = {
    "a number > 0": ([0.0, -0.1], [1e-9, 5]),
    "a number >= 0": ([-0.1], [0, 5.0]),
    "a number of seconds > 0, at most a day": ([0.0, -1, 86_401], [0.5, 86_400]),
    "a number < 0": ([0.0, 0.1], [-1e-9, -5]),
    "a number in [0, 1]": ([-0.1, 1.1], [0, 0.5, 1]),
    "a number in [0, 4]": ([-0.1, 4.1], [0, 0.5, 4]),
    "a number in (0, 1]": ([0.0, -0.5, 1.1], [1e-9, 1]),
    "a number in [0, 1)": ([-0.1, 1.0], [0, 0.999]),
    "a list of at most 100 integers >= 1": ([[0], [16, -3], [1] * 101], [[], [1], [8, 1], [1] * 100]),
    "a list of two numbers in [0, 1)": (
        [[], [0.9], [0.9] * 3, [0.9, 1.0], [-0.1, 0.9], [NAN, 0.9]],
        [[0, 0.999]],
    ),
    "tensorboard, wandb, or a list of them": (
        ["tensorbord", None, 3, ["tensorboard", "mlflow"], {"a": 1}],
        ["wandb", [], ["tensorboard", "wandb"]],
    ),
    "auto, true or false": (["sometimes", "AUTO", 1, 0], ["auto", True, False]),
}


def described(words: str) -> tuple[list[Any], list[Any]]:
    """Values that a check must refuse, and values that it must accept, from what it says."""
    if match := re.fullmatch(r"an integer >= (\d+)", words):
        least = int(match[1])
        return [least - 1, -5], [least, float(least + 1), "1_000", "1e4", "10k", "0.5M"]
    if match := re.fullmatch(r"an integer from (\d+) to ([\d,]+)", words):
        least, most = int(match[1]), int(match[2].replace(",", ""))
        return [least - 1, most + 1], [least, most]
    if words.startswith("one of: "):
        names = words.removeprefix("one of: ").split(", ")
        return ["", "no_such", *(f"{n}s" for n in names), names[0].upper()], list(names)
    return WORDS[words] if words else ([], [])


@dataclass(frozen=True)
class Key:
    """A config key, in one of the configs in which it exists."""

    path: str  # dotted
    hint: Any
    words: str  # what its check says is allowed
    kind: str | None  # of the part that it names, if it does
    recipe: tuple[str, ...]  # overrides that compose such a config

    @property
    def type(self) -> Any:
        """Its type when it is not null."""
        return get_args(self.hint)[0] if isinstance(self.hint, UnionType) else self.hint

    def wrong_types(self) -> list[Any]:
        """Values of other types; null if it may not be null."""
        if is_dataclass(self.type):
            return [None, 3, "abc", [1]]
        return WRONG_TYPES[self.type] + ([None] if self.type is self.hint is not Any else [])

    def out_of_range(self) -> list[Any]:
        """Values of its type, but not allowed."""
        if self.kind:
            return ["no_such", ""]
        return described(self.words)[0] + NOT_FINITE.get(self.type, [])

    def message(self, value: Any) -> str:
        """What a problem with a value must say."""
        if self.kind:
            return f"unknown {self.kind}"
        if is_dataclass(self.type):
            return "must be a group of keys: "
        names = {bool: "true or false", str: "text", float: "a number", dict[str, Any]: "a group"}
        allowed = self.words or names.get(self.type, "a list")
        if any(value is extreme for extreme in NOT_FINITE.get(self.type, [])):
            allowed = "finite, and below"
        return f"must be {'null or ' if self.hint is not self.type else ''}{allowed}"

    def problems(self, value: Any) -> list[tuple[str, str]]:
        """Path and message of all that is wrong with a config in which this key has a value."""
        node: Any = deepcopy(composed(self.recipe))
        *parents, last = self.path.split(".")
        place = functools.reduce(lambda at, key: at[int(key) if key.isdigit() else key], parents, node)
        place[last] = value
        try:
            typed.read(schema.Config, node)
        except ConfigError as error:
            return [(problem.path, problem.message) for problem in error.problems]
        return []


@functools.cache
def composed(recipe: tuple[str, ...]) -> dict[str, Any]:
    return typed.plain(compose(*recipe))


def recipes() -> Iterator[dict[str, tuple[str, type]]]:
    """Kind -> a part and its dataclass; together they have every part of the package."""
    columns = {kind: list(parts.items()) for kind, parts in schema.PARTS.items()}
    for row in zip_longest(*columns.values()):
        yield {
            kind: part or next(iter(parts))
            for (kind, parts), part in zip(columns.items(), row, strict=True)
        }


def overrides(parts: dict[str, tuple[str, type]]) -> tuple[str, ...]:
    """The overrides that choose these parts."""
    chosen = {kind: name for kind, (name, _) in parts.items()}
    env, wrapper = chosen.pop("env"), chosen.pop("wrapper")
    wrappers = text([{"name": wrapper, **WRAPPERS[wrapper]}])
    groups = (f"{group}={name}" for group, name in chosen.items())
    return (*groups, f"env.backend={env}", f"env.wrappers={wrappers}")


def keys_of(owner: type, prefix: str, recipe: tuple[str, ...], kind: str | None) -> Iterator[Key]:
    """The keys of a dataclass and of those in it, without the parts."""
    hints = get_type_hints(owner)
    for field in fields(owner):
        hint, path = hints[field.name], prefix + field.name
        if field.metadata.get("kind"):
            continue
        selects = kind if field.name == registry.SELECTORS.get(kind or "", "name") else None
        if is_dataclass(hint):
            yield Key(path, hint, "", None, recipe)
            yield from keys_of(hint, f"{path}.", recipe, None)  # type: ignore[arg-type]
        else:
            yield Key(path, hint, field.metadata["check"][1], selects, recipe)


def all_keys() -> Iterator[Key]:
    """Every key of every part, once for each dataclass that declares it, and those of the config."""
    done = set()
    for parts in recipes():
        recipe = overrides(parts)
        owners = [("", schema.Config, None)]
        owners += [
            ("env.wrappers.0." if kind == "wrapper" else f"{kind}.", owner, kind)
            for kind, (_, owner) in parts.items()
        ]
        for prefix, owner, kind in owners:
            if owner not in done:
                done.add(owner)
                yield from keys_of(owner, prefix, recipe, kind)


def text(value: Any) -> str:
    """A value as it is typed on the command line."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{k}:{text(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(text, value)) + "]"
    return str(value)


KEYS = list(all_keys())
each_key = pytest.mark.parametrize("key", KEYS, ids=lambda key: f"{key.recipe[0]}-{key.path}")


@each_key
def test_wrong_types_and_values_out_of_range_are_refused_with_what_is_allowed(key: Key) -> None:
    for value in key.wrong_types() + key.out_of_range():
        ((path, message),) = key.problems(value)
        assert path == key.path, value
        assert message.startswith(key.message(value)), value


@each_key
def test_every_value_that_is_said_to_be_allowed_is(key: Key) -> None:
    allowed = described(key.words)[1] + ([None] if key.hint is not key.type else [])
    for value in allowed:
        assert (key.path, key.message(value)) not in key.problems(value), value


@each_key
def test_a_key_that_is_not_set_is_asked_for_with_its_meaning(key: Key) -> None:
    if not key.kind:
        ((path, message),) = key.problems("???")
        assert path == key.path
        assert re.fullmatch(r"must be set \(.+\)", message)


def test_only_a_few_keys_accept_every_value_of_their_type() -> None:
    without = {key.path for key in KEYS if not key.out_of_range() and not is_dataclass(key.type)}
    switches = {key.path for key in KEYS if key.type is bool}
    assert without == switches | ANYTHING_OF_ITS_TYPE


def one_bad_value_each() -> Iterator[tuple[tuple[str, ...], dict[Key, Any]]]:
    """A recipe, and a bad value for each of the keys that no recipe before it has."""
    for recipe in dict.fromkeys(key.recipe for key in KEYS):
        own = [key for key in KEYS if key.recipe == recipe and not (key.kind or is_dataclass(key.type))]
        # `resume` is a path here before it is a value; wrappers are one value together.
        own = [key for key in own if key.path != "resume" and "wrappers" not in key.path]
        yield recipe, {key: key.wrong_types()[0] for key in own}
        yield recipe, {key: key.out_of_range()[-1] for key in own if key.out_of_range()}


COMMANDS = [(recipe, bad) for recipe, bad in one_bad_value_each() if bad]


@pytest.mark.parametrize(("recipe", "bad"), COMMANDS, ids=[recipe[0] for recipe, _ in COMMANDS])
def test_overrides_with_bad_values_are_all_listed_in_one_go(
    recipe: tuple[str, ...], bad: dict[Key, Any]
) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(*recipe, *(f"{key.path}={text(value)}" for key, value in bad.items()))
    expected = {key.path: f"{key.path}={value}: {key.message(value)}" for key, value in bad.items()}
    assert {problem.path for problem in caught.value.problems} == set(expected)
    assert len(caught.value.problems) == len(expected)
    for problem in caught.value.problems:
        assert str(problem).startswith(expected[problem.path])
