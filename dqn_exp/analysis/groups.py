"""Runs in groups of equal settings, whose seeds are pooled; named by what differs between them."""

from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from dqn_exp.analysis.keys import ABSENT, PARTS, differing, is_implied, short, text
from dqn_exp.analysis.runs import Run, Series
from dqn_exp.config.problems import ConfigError, Problem, shown

# What may differ without changing what is measured; of a name with a dot at its end, all keys below it.
IRRELEVANT = (
    "seed", "seeds", "resume", "device", "threads", "compile", "plugins", "log.", "checkpoint.",
    "env.timeout", "env.vectorization", "eval.every", "eval.solved",
)  # fmt: skip
MOST_KEYS = 4  # in a name, if fewer tell the groups apart


@dataclass
class Group:
    """Runs of equal settings."""

    settings: dict[str, Any]  # of the first run
    runs: list[Run] = field(default_factory=list)
    name: str = ""
    notes: list[str] = field(default_factory=list)  # what the reader must know, a sentence each

    @cached_property
    def chosen(self) -> dict[int, Run]:
        """Seed -> the run that counts for it: a finished one, else the one that has come furthest."""
        found: dict[int, Run] = {}
        for run in sorted(self.runs, key=lambda r: (r.state == "finished", r.step), reverse=True):
            for seed in run.seeds:
                found.setdefault(seed, run)
        finished = {seed: run for seed, run in found.items() if seed in run.final}
        return dict(sorted((finished or found).items()))

    def final(self) -> dict[int, float]:
        """Seed -> mean return of its final evaluation."""
        chosen = self.chosen.items()
        return {seed: run.final[seed] for seed, run in chosen if seed in run.final}

    def metric(self, tag: str) -> dict[int, Series]:
        """Seed -> values of a tag."""
        found = {seed: run.metrics.get(tag, {}).get(seed) for seed, run in self.chosen.items()}
        return {seed: series for seed, series in found.items() if series is not None}

    def episodes(self, column: str) -> dict[int, Series]:
        """Seed -> `return` or `length` of its training episodes."""
        found = {seed: run.episodes[column].get(seed) for seed, run in self.chosen.items()}
        return {seed: series for seed, series in found.items() if series is not None}


def matters(key: str) -> bool:
    """Whether a key may change what is measured."""
    return not any(key.startswith(k) if k.endswith(".") else key == k for k in IRRELEVANT)


def group(runs: list[Run]) -> list[Group]:
    """The groups of those runs that have a config, in the order of their first runs.

    Raises:
        ConfigError: their environments differ.
    """
    known = [run for run in runs if isinstance(run.settings.get("env.id"), str)]
    envs = sorted({shown(run.settings["env.id"], 60) for run in known})
    if len(envs) > 1:
        message = "returns of different environments cannot be compared; report on one of them"
        raise ConfigError([Problem("env.id", message, ", ".join(envs))])
    groups: dict[tuple, Group] = {}
    for run in known:
        relevant = {key: value for key, value in run.settings.items() if matters(key)}
        key = tuple((name, text(relevant[name])) for name in sorted(relevant))
        groups.setdefault(key, Group(relevant)).runs.append(run)
    found = list(groups.values())
    _name(found)
    for each in found:
        each.notes = _notes(each)
    return found


def _name(groups: list[Group]) -> None:
    """Name each group by what tells it apart from the others, as short as people write it."""
    configs = [each.settings for each in groups]
    keys = [k for k in differing(configs, matters) if not is_implied(k, configs)] or list(PARTS)
    if len(keys) > MOST_KEYS:
        keys = _needed(keys, configs)
    names = {key: short(key, keys) for key in keys}
    taken: set[str] = set()
    for each in groups:
        values = [(key, each.settings[key]) for key in keys if key in each.settings]
        words = [
            shown(value, 60) if key.endswith(".name") else f"{names[key]}={shown(value, 60)}"
            for key, value in values
        ]
        name = " ".join(words).strip("_ ") or "run"
        while name in taken:  # values that differ after 60 characters
            name += "'"
        taken.add(name)
        each.name = name


def _needed(keys: list[str], configs: list[dict[str, Any]]) -> list[str]:
    """The first of the keys that together tell all configs apart."""
    needed, told = list[str](), 1
    for key in keys:
        now = len({tuple(text(each.get(k, ABSENT)) for k in [*needed, key]) for each in configs})
        if now > told:
            needed, told = [*needed, key], now
    return needed


def _notes(each: Group) -> list[str]:
    """What a reader must know about the seeds of a group."""
    notes, chosen = [], each.chosen
    holders = defaultdict(list)
    for run in each.runs:
        for seed in run.seeds:
            holders[seed].append(run)
    if twice := [seed for seed, runs in holders.items() if len(runs) > 1]:
        listed = ", ".join(map(str, sorted(twice)[:10])) + (", ..." if len(twice) > 10 else "")
        notes.append(f"{each.name}: in more than one run, and counted once: seed {listed}.")
    if left := [run for run in each.runs if run.state != "finished"]:
        states = ", ".join(f"{run.name} ({run.state})" for run in left[:5])
        count = f"{len(left)} of {len(each.runs)} runs"
        if each.final():
            notes.append(
                f"{each.name}: {count} not finished and left out: {states}. If they failed because "
                "they learned badly, the figures of the others are too good."
            )
        else:
            notes.append(f"{each.name}: no run has finished; it has curves at most: {states}.")
    lost = {seed for run in each.runs if run.state == "finished" for seed in run.seeds} - set(chosen)
    if lost and each.final():
        notes.append(f"{each.name}: {len(lost)} seeds have no finite final return and are left out.")
    if dropped := [run for run in each.runs if isinstance(run.summary.get("dropped"), dict)]:
        count = sum(len(run.summary["dropped"]) for run in dropped)
        notes.append(f"{each.name}: {count} seeds diverged and count with their last parameters.")
    return notes
