"""The text of --help: groups with their options, and the keys of the chosen options."""

import dataclasses
import json
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from dqn_exp.config import schema
from dqn_exp.registry import SELECTORS

WIDTH = 100  # columns


def help_text(config: Mapping[str, Any], groups: Mapping[str, Sequence[str]]) -> str:
    """What can be chosen and set.

    Args:
        config: the composed config, as plain nested dicts.
        groups: the options of each config group.
    """
    lines = [
        "Train agents of the DQN family, many seeds at once. Every run gets a folder of its own.",
        "  python train.py agent=ddqn buffer=per seeds=8",
        "  python train.py --multirun agent=dqn,ddqn buffer=uniform,per seeds=8",
        "",
        "Groups (choose with group=option)",
    ]
    for group, meaning in schema.GROUPS.items():
        lines += _wrapped(group, f"{meaning}: {', '.join(groups[group])}", 14)
    lines += [
        "",
        "Keys of the chosen options (set with key=value); some counts of steps shrink in short runs",
    ]
    about = meanings(config)
    for path, value in _values(config, about).items():
        if path.split(".")[0] != "hydra":
            lines += _wrapped(f"{path}={_short(value)}", about.get(path, "a key of a plug-in"), 36)
    lines += ["", "Other flags: --multirun, --cfg job, --version, --hydra-help (all of them)."]
    return "\n".join(lines).replace("$", "$$")  # Hydra substitutes $NAME


def meanings(config: Mapping[str, Any]) -> dict[str, str]:
    """Each key of a composed config -> what it means and which values are allowed."""
    found: dict[str, str] = {}
    for field in dataclasses.fields(schema.Config):
        kind, node = field.metadata.get("kind"), config.get(field.name)
        if kind and isinstance(node, Mapping):
            name = node.get(SELECTORS.get(kind, "name"))
            found |= _meanings(schema.PARTS[kind].get(str(name)), f"{field.name}.")
        elif dataclasses.is_dataclass(field.type):
            found |= _meanings(field.type, f"{field.name}.")  # type: ignore[arg-type]
        else:
            found[field.name] = _meaning(field)
    return found


def _meanings(part: type | None, prefix: str) -> dict[str, str]:
    """Those of a dataclass; of a plug-in's part none are known without importing it."""
    found: dict[str, str] = {}
    for field in dataclasses.fields(part) if part else ():
        if dataclasses.is_dataclass(field.type):
            found |= _meanings(field.type, f"{prefix}{field.name}.")  # type: ignore[arg-type]
        else:
            found[prefix + field.name] = _meaning(field)
    return found


def _meaning(field: Any) -> str:
    allowed = field.metadata["check"][1]
    return field.metadata["meaning"] + (f" ({allowed})" if allowed else "")


def _values(config: Mapping[str, Any], about: Mapping[str, str], prefix: str = "") -> dict[str, Any]:
    """A config by dotted keys; what lies below a key with a meaning is its value."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and prefix + key not in about:
            found |= _values(value, about, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def _short(value: Any) -> str:
    """A value as it is typed; of one that shrinks in short runs, the usual one."""
    if isinstance(value, str):
        return value.removeprefix("${dqn_exp.scaled:").partition(",")[0].rstrip("}")
    return json.dumps(value, separators=(",", ":"))


def _wrapped(name: str, text: str, indent: int) -> list[str]:
    """A name, and beside it a text in lines of at most WIDTH columns."""
    first = f"  {name:<{indent - 3}} "
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=" " * indent)
