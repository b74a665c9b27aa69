"""What the results of groups allow to say, in plain sentences."""

import math
from collections.abc import Mapping, Sequence

from dqn_exp.analysis.groups import Group
from dqn_exp.analysis.results import Comparison, Result


def ranked(results: Sequence[Result]) -> list[int]:
    """The numbers of those groups that have scores, by falling IQM."""
    scored = [i for i, result in enumerate(results) if len(result.scores)]
    return sorted(scored, key=lambda i: -results[i].iqm)


def conclusions(
    groups: Sequence[Group],
    results: Sequence[Result],
    compared: Mapping[tuple[int, int], Comparison],
) -> list[str]:
    """What may be said, a line each: the group of the highest IQM against each of the others.

    Args:
        compared: what `compare` says of the groups' scores.
    """
    order = ranked(results)
    if not order:
        return ["No run has finished: there is no final evaluation to compare."]
    best = order[0]
    lines = [_alone(groups[best], results[best], highest=len(order) > 1)]
    for other in order[1:]:
        if (pair := compared.get((min(best, other), max(best, other)))) is None:
            lines.append(_one_seed(groups[best], groups[other], results[best], results[other]))
            continue
        x, y = (best, other) if best < other else (other, best)
        sizes = len(results[x].scores), len(results[y].scores)
        lines.append(sentence(groups[x].name, groups[y].name, *sizes, pair))
    return lines


def _alone(group: Group, result: Result, highest: bool) -> str:
    """What may be said of one group."""
    n = len(result.scores)
    if n == 1:
        return f"{group.name}: {result.iqm:.1f} with one seed, which says nothing about other seeds."
    low, high = result.interval or (result.iqm, result.iqm)
    solved = ""
    if result.target is not None:
        count = int((result.scores >= result.target).sum())
        solved = f"; {count} of {n} seeds reach {result.target:g}"
    place = "has the highest IQM," if highest else "has an IQM of"
    return f"{group.name} {place} {result.iqm:.1f} [{low:.1f}, {high:.1f}] over {n} seeds{solved}."


def _one_seed(best: Group, other: Group, x: Result, y: Result) -> str:
    alone = best if len(x.scores) == 1 else other
    return f"{best.name} and {other.name}: one seed of {alone.name} says nothing about which is better."


def sentence(name: str, other: str, n: int, n_other: int, pair: Comparison) -> str:
    """What a comparison of two groups, of n and n_other seeds, allows to say."""
    if pair.probability < 0.5:
        return sentence(other, name, n_other, n, pair.reversed())
    low, high = pair.interval
    figures = f"P = {pair.probability:.2f} [{low:.2f}, {high:.2f}]"
    if pair.told_apart:
        p = "p < 0.001" if pair.p < 0.001 else f"p = {pair.p:.3f}"
        meaning = f"that a seed of {name} scores higher than one of {other}"
        return f"{name} is better than {other}: {figures} {meaning} ({n} and {n_other} seeds, {p})."
    seeds = f"the {n} seeds of each" if n == n_other else f"{n} and {n_other} seeds"
    text = f"{name} and {other}: {seeds} do not tell them apart, {figures}"
    if pair.needed is None:
        return f"{text}."
    most = max(pair.needed, max(n, n_other) + 1)
    digits = 10 ** max(len(str(most)) - 2, 0)
    count = "more than 10,000" if most > 10_000 else f"about {math.ceil(most / digits) * digits:,}"
    return f"{text}; {count} seeds of each would, if the difference is as large as it looks."
