"""Which settings tell runs apart, and what they are called; needs neither numpy nor torch."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dqn_exp.config.problems import shown

PARTS = ("agent.name", "buffer.name", "net.name")  # first in an order of keys
ABSENT = object()
Settings = Mapping[str, Any]  # a config by dotted keys


def differing(
    configs: Sequence[Settings], matters: Callable[[str], bool] = lambda key: True
) -> list[str]:
    """Keys that matter and whose values differ between configs, the parts' names first."""
    keys = dict.fromkeys(key for each in configs for key in each if matters(key))
    differ = [k for k in keys if len({text(each.get(k, ABSENT)) for each in configs}) > 1]
    return sorted(differ, key=lambda key: (*(key != part for part in PARTS), not key.endswith(".name")))


def is_implied(key: str, configs: Sequence[Settings]) -> bool:
    """Whether a key of a part follows from the part's name."""
    part = f"{key.partition('.')[0]}.name"
    values = defaultdict(set)
    for each in configs:
        values[text(each.get(part, ABSENT))].add(text(each.get(key, ABSENT)))
    return key != part and len(values) > 1 and all(len(found) == 1 for found in values.values())


def short(key: str, keys: Sequence[str]) -> str:
    """The last word of a key, or of `agent.name` the group; the whole key where that is ambiguous."""
    word = _last_word(key)
    unique = [_last_word(k) for k in keys].count(word) == 1
    return shown(word if unique else key, 60)


def text(value: Any) -> str:
    """A value as text that is equal for equal values, whatever a folder's config holds."""
    return shown(value, 1 << 20)


def _last_word(key: str) -> str:
    return key.removesuffix(".name").rpartition(".")[2]
