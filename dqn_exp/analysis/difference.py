"""How two runs differ: settings, versions, results; and where they part if they should be equal."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from dqn_exp.analysis.conclusions import sentence
from dqn_exp.analysis.groups import matters
from dqn_exp.analysis.keys import differing
from dqn_exp.analysis.results import compare
from dqn_exp.analysis.runs import EPISODES, METRICS, Run, rows
from dqn_exp.analysis.tables import as_text
from dqn_exp.config.problems import shown
from dqn_exp.config.typed import flatten
from dqn_exp.statistics import confidence_interval, interquartile_mean

Row = tuple[str, tuple[str, ...], str]  # of a CSV file: seed, what it is of, value
MOST_SHOWN = 60  # characters of a value
MOST_SEEDS = 50  # that are listed one by one
FACTS = ("status", "step", "device", "git_revision", "resumed_from", "wall_seconds", "error")


def difference(a: Run, b: Run) -> Iterator[str]:
    """What to print about two runs, a line each."""
    yield from as_text([["", "A", "B"], ["run", a.name, b.name], *_facts(a, b), *_results(a, b)])
    yield ""
    keys = sorted(_differ(a.settings, b.settings))
    if not (a.settings and b.settings):
        yield "a config is missing or cannot be read: settings are not compared"
    elif keys:
        yield "settings that differ:"
        yield from as_text(
            [[f"  {shown(k, MOST_SHOWN)}", *_both(a.settings, b.settings, k)] for k in keys]
        )
    else:
        yield "the settings are the same"
    yield ""
    same = a.settings and b.settings and not differing([a.settings, b.settings], matters)
    if same and set(a.seeds) & set(b.seeds):
        yield "the same settings and seeds should give the same numbers:"
        yield from _divergence(a, b)
    else:
        yield from _conclusion(a, b)


def _differ(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    keys = dict.fromkeys([*a, *b])
    return [
        k for k in keys if shown(a.get(k), 1 << 20) != shown(b.get(k), 1 << 20) or (k in a) != (k in b)
    ]


def _both(a: Mapping[str, Any], b: Mapping[str, Any], key: str) -> list[str]:
    return [shown(values[key], MOST_SHOWN) if key in values else "-" for values in (a, b)]


def _facts(a: Run, b: Run) -> Iterator[list[str]]:
    """Rows of what the summaries say differently, versions too."""
    versions = [flatten({"versions": run.summary.get("versions")}) for run in (a, b)]
    about = [{k: run.summary[k] for k in FACTS if k in run.summary} for run in (a, b)]
    for facts in about:
        if isinstance(seconds := facts.get("wall_seconds"), float):
            facts["wall_seconds"] = f"{seconds:.1f}"
    x, y = ({**facts, **own} for facts, own in zip(about, versions, strict=True))
    for key in _differ(x, y):
        yield [shown(key.removeprefix("versions."), MOST_SHOWN), *_both(x, y, key)]


def _results(a: Run, b: Run) -> Iterator[list[str]]:
    """Rows of the final evaluations."""
    scores = [np.array(list(run.final.values())) for run in (a, b)]
    yield ["seeds", *(str(len(run.seeds)) for run in (a, b))]
    yield ["IQM", *(f"{interquartile_mean(s):.1f}" if len(s) else "-" for s in scores)]
    intervals = [confidence_interval(s) for s in scores]
    yield ["95 % CI", *("[{:.1f}, {:.1f}]".format(*i) if i else "-" for i in intervals)]


def _conclusion(a: Run, b: Run) -> Iterator[str]:
    """What the final evaluations allow to say, if they are of one environment."""
    envs = [shown(run.settings.get("env.id")) for run in (a, b)]
    if envs[0] != envs[1]:
        yield f"returns of {envs[0]} and {envs[1]} cannot be compared"
        return
    x, y = (np.array(list(run.final.values())) for run in (a, b))
    if pair := compare([x, y]).get((0, 1)):
        yield sentence("A", "B", len(x), len(y), pair)
    elif len(x) and len(y):
        yield "one seed says nothing about which of the two is better"
    else:
        yield "a final evaluation is missing: nothing can be said about which is better"


def _divergence(a: Run, b: Run) -> Iterator[str]:
    """Where each seed of two runs of the same settings first differs."""
    # Most metrics are means since the last log point: they differ if log points do.
    every = [shown(run.settings.get("log.every")) for run in (a, b)]
    left_out = ("train/", "buffer/") if every[0] != every[1] else ()
    episodes = _by_seed(_episodes(a), _episodes(b))
    metrics = _by_seed(_metrics(a, left_out), _metrics(b, left_out))
    seeds = sorted({*episodes} | {*metrics})
    for seed in seeds[:MOST_SEEDS]:
        found = [kinds.get(seed, (0, None)) for kinds in (episodes, metrics)]
        parting = "; ".join(text for _, text in found if text)
        equal = f"equal to the last digit of {found[0][0]:,} episodes and {found[1][0]:,} metric values"
        yield f"  seed {seed}: {parting or equal}"
    if len(seeds) > MOST_SEEDS:
        yield f"  ... and {len(seeds) - MOST_SEEDS} more seeds"


def _episodes(run: Run) -> Iterator[Row]:
    for seed, number, *values in rows(run.folder / "episodes.csv", EPISODES):
        step, total, length = values
        yield seed, ("episode", number), f"return {total}, length {length}, ends at step {step}"


def _metrics(run: Run, left_out: tuple[str, ...]) -> Iterator[Row]:
    for seed, step, tag, value in rows(run.folder / "metrics.csv", METRICS):
        if not tag.startswith(("time/", *left_out)):
            yield seed, ("step", step, tag), value


def _by_seed(a: Iterator[Row], b: Iterator[Row]) -> dict[int, tuple[int, str | None]]:
    """Seed -> how many rows both runs have, and what differs first."""
    theirs = {(seed, key): value for seed, key, value in b}
    found: dict[int, tuple[int, str | None]] = {}
    for seed, key, value in a:
        other = theirs.get((seed, key))
        if other is None or not (seed.isascii() and seed.isdigit() and len(seed) < 19):
            continue
        count, parting = found.get(int(seed), (0, None))
        if parting is None and value != other:
            parting = f"first differs in {' '.join(key)}: {value} in A, {other} in B"
        found[int(seed)] = count + 1, parting and shown(parting, 300)
    return found
