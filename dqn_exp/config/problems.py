"""What is wrong with a configuration, as values until they are printed."""

import difflib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

NO_VALUE = object()
MOST_SHOWN = 500  # characters of a path, a value or a message


@dataclass(frozen=True)
class Problem:
    """One invalid key: where it is, what is allowed there, and the value given, if there was one."""

    path: str  # dotted, as on the command line
    message: str
    value: Any = NO_VALUE

    def __str__(self) -> str:
        """One line for a person, without control characters."""
        value = json.dumps(self.value) if self.value in (None, True, False) else self.value
        given = "" if self.value is NO_VALUE else f"={shown(value)}"
        return f"{shown(self.path)}{given}: {shown(self.message)}"


class ConfigError(ValueError):
    """An invalid configuration, with every problem found."""

    def __init__(self, problems: Iterable[Problem]):
        self.problems = list(problems)
        super().__init__("\n".join(map(str, self.problems)))

    def __reduce__(self) -> tuple[type, tuple[list[Problem]]]:
        """Keep the problems when a job of a sweep reports from another process."""
        return ConfigError, (self.problems,)


def printable(text: str) -> str:
    """A text as one line, without characters that control a terminal."""
    return "".join(c if c.isprintable() else " " for c in text)


def shown(value: Any, most: int = MOST_SHOWN) -> str:
    """Any value for a person, on one line, cut after `most` characters."""
    try:
        text = str(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, or a deep list
        text = f"a {type(value).__name__} that is too large to show"
    cut = f"{text[:most]}... ({len(text):,} characters)" if len(text) > most else text
    return printable(cut)


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest known one, and all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(word[:MOST_SHOWN], known, n=1, cutoff=0.5)
    hint = f" - did you mean {close[0]!r}?" if close else ""
    return f"{hint} (one of: {', '.join(known)})"
