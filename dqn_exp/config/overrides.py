"""What is wrong with overrides that Hydra does not accept."""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from dqn_exp.config import schema
from dqn_exp.config.help import meanings
from dqn_exp.config.problems import Problem, nearest
from dqn_exp.config.typed import CALLS, flatten

# Keys of Hydra that are not the user's to change, each with the reason.
OWN_OF_HYDRA = {
    "hydra": "cannot be replaced as a whole",
    "hydra.callbacks": "the program needs its own; add yours with +hydra.callbacks.<name>",
    "hydra.callbacks.name_jobs": "the program needs its own; add yours with +hydra.callbacks.<name>",
    "hydra.output_subdir": "a run writes .hydra/ itself",
    "hydra.sweep.subdir": "jobs are named by what varies; choose hydra.sweep.dir",
}


def quoted(overrides: Sequence[str]) -> list[str]:
    """Overrides whose `resume=<path>` Hydra takes as it is, whatever characters the path has."""
    return [_quoted(text) if text.startswith("resume=") else text for text in overrides]


def _quoted(text: str) -> str:
    key, _, path = text.partition("=")
    if path[:1] in ("'", '"') or path in ("", "null", "auto"):
        return text
    # Hydra: a backslash is one only before quotes.
    escaped = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), literal(path))
    return f"{key}='{escaped}'"


def literal(text: str) -> str:
    """A text as OmegaConf must get it in order not to interpolate `${...}` in it."""
    return re.sub(r"(\\*)\$\{", lambda m: m[1] * 2 + "\\${", text)


def given(hydra: Any) -> list[str]:
    """The overrides of a run or of a sweep's job, as typed: interpolations in them stay text."""
    return OmegaConf.to_container(hydra.overrides.task, resolve=False)  # type: ignore[return-value]


def varied_keys(hydra: Any) -> list[str]:
    """The keys that a sweep varies; its callback has excluded the others from the names of jobs."""
    fixed = set(hydra.job.config.override_dirname.exclude_keys)
    keys = [text.partition("=")[0].lstrip("+~") for text in given(hydra)]
    return [key for key in keys if key not in fixed]


def refused(overrides: Sequence[str]) -> list[Problem]:
    """Overrides that are wrong whatever the config: given twice, or not the user's to change."""
    problems, keys = [], []
    for text in overrides:
        try:
            override = OverridesParser.create().parse_override(text)
        except (HydraException, ValueError, RecursionError):
            continue  # Hydra says so
        key, value = override.key_or_group, override.value()
        keys.append(key)
        if key in OWN_OF_HYDRA or key.startswith("hydra.callbacks.name_jobs."):
            problems.append(Problem(key, OWN_OF_HYDRA.get(key, OWN_OF_HYDRA["hydra.callbacks"])))
        elif key == "hydra.verbose" and not isinstance(value, bool | str | list):
            problems.append(Problem(key, "must be true, false or names of loggers", value))
    return [Problem(key, "given twice") for key in sorted(set(keys)) if keys.count(key) > 1] + problems


def problems_of(
    choices: Sequence[Override], groups: Mapping[str, Sequence[str]]
) -> tuple[list[Problem], list[str]]:
    """Choices of options that no group has; and those that can be composed."""
    wrong, right = [], []
    for choice in choices:
        group, options = choice.key_or_group, groups[choice.key_or_group]
        if choice.is_delete():
            right.append(str(choice.input_line))
            continue
        values = list(choice.sweep_iterator()) if choice.is_sweep_override() else [choice.value()]
        values = ["null" if value is None else value for value in values]
        bad = [value for value in values if not isinstance(value, list) and str(value) not in options]
        wrong += [Problem(group, f"unknown option{nearest(str(v), options)}", v) for v in bad]
        if not bad and not isinstance(values[0], list):
            right.append(f"{group}={values[0]}")
    return wrong, right


def unknown_keys(others: Sequence[Override], cfg: DictConfig, groups: list[str]) -> list[Problem]:
    """Keys that the composed config does not have, each with those that were probably meant."""
    node: dict[str, Any] = OmegaConf.to_container(cfg, resolve=False)  # type: ignore[assignment]
    about = dict.fromkeys(flatten(node), "") | meanings(node)  # of plug-ins' keys no meaning is known
    problems = []
    for override in others:
        key = override.key_or_group
        if key.startswith("hydra") or override.is_add() or key in flatten(node):
            continue
        if isinstance(OmegaConf.select(cfg, key) if key else None, DictConfig):
            continue
        if key.rpartition(".")[2] in CALLS:
            problems.append(Problem(key, "parts are built by name; nothing else is called"))
            continue
        meant = _meant(key, about, groups)
        hint = f" - did you mean {' or '.join(meant)}?" if meant else "; --help lists all keys"
        problems.append(Problem(key or str(override.input_line), f"unknown key{hint}"))
    return problems


def _meant(key: str, about: Mapping[str, str], groups: list[str]) -> list[str]:
    """The groups or keys that an unknown key probably stands for, best first."""
    parent, _, last = key.rpartition(".")
    siblings = {k.removeprefix(f"{parent}."): k for k in about if parent and k.startswith(f"{parent}.")}
    if close := difflib.get_close_matches(last, siblings, n=1):
        return [siblings[close[0]]]
    roots = [*groups, *schema.Config.__dataclass_fields__]
    if not siblings and (close := difflib.get_close_matches(key, roots, n=1)):
        return close
    described = [
        k
        for k in siblings.values() or about
        if len(last) > 2 and any(w.startswith(last.lower()) for w in re.split(r"\W+", about[k].lower()))
    ]
    if described:  # those whose meaning begins with the word first
        return sorted(described, key=lambda k: not about[k].lower().startswith(last.lower()))[:2]
    words = {k: k.split(".")[-1] for k in about}
    close = difflib.get_close_matches(last, words.values(), n=1)
    return [k for k, word in words.items() if word in close][:2]
