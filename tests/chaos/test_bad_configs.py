"""A corpus of bad command lines, and random values for every key: refused in lines, nothing written."""

import re
import shlex
from pathlib import Path

import pytest
from forks import forked
from helpers import TINY
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_refusals import KEYS, Key

from dqn_exp.config import typed
from dqn_exp.config.compose import compose
from dqn_exp.config.problems import ConfigError, Problem
from dqn_exp.config.schema import Config

HERE = Path(__file__).parent
LINES = [
    line
    for line in (HERE / "bad_configs.txt").read_text().splitlines()
    if line and not line.startswith("#")
]
LONGEST = 2000  # characters of a line on the terminal


def arguments(line: str) -> list[str]:
    """The arguments of a line of the corpus, on top of those of a tiny run."""
    words = [
        re.sub(r"<([^<>]+)\*(\d+)>", lambda m: m[1] * int(m[2]), word) for word in shlex.split(line)
    ]
    words = [
        re.sub(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4}))", lambda m: chr(int(m[1] or m[2], 16)), word)
        for word in words
    ]
    given = {word.partition("=")[0].lstrip("+~") for word in words}
    rest = [text for text in TINY if not _is_given(text.partition("=")[0], given)]
    return [*words, *rest]


def _is_given(key: str, given: set[str]) -> bool:
    return any(key == each or key.startswith(f"{each}.") for each in given if each)


def complaint(folder: Path, line: str) -> str | None:
    """What is wrong with the refusal of a command line; None if nothing is."""
    folder.mkdir()
    code, text = forked(folder, *arguments(line))
    if code != 2:
        return f"exit code {code}"
    if "Traceback" in text:
        return "a traceback"
    if files := [path.name for path in folder.iterdir() if path.name != "output"]:
        return f"files: {files}"
    lines = [line for line in text.splitlines() if "[HYDRA] Launching" not in line]
    if not lines or text[-1] != "\n" or len(set(lines)) < len(lines):
        return "no lines, or one twice"
    for line in lines:
        if not line.isprintable() or len(line) > LONGEST or not re.match(r".*: \S", line):
            return f"a line that is not for people: {line[:200]!r}"
    return None


def check(folder: Path, lines: list[str]) -> None:
    wrong = {line[:200]: complaint(folder / str(i), line) for i, line in enumerate(lines)}
    assert not {line: reason for line, reason in wrong.items() if reason}


def test_the_corpus_has_hundreds_of_different_lines() -> None:
    assert len(set(LINES)) == len(LINES) >= 300


def test_a_sample_of_bad_command_lines_is_refused(tmp_path: Path) -> None:
    check(tmp_path, LINES[:: len(LINES) // 4])


@pytest.mark.slow
def test_every_bad_command_line_is_refused(tmp_path: Path) -> None:
    check(tmp_path, LINES)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_subnormal=False)
    | st.text(max_size=20)
    | st.sampled_from(
        ["1e4", "10k", "${seed}", "${", "???", "auto", "null", "\x1b[31m", "\ud800", "1,2"]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def changed(draw: st.DrawFn) -> tuple[Key, object]:
    """A key, and a value that may be right or wrong for it."""
    key = draw(st.sampled_from(KEYS))
    return key, draw(VALUES | st.sampled_from(key.wrong_types() + key.out_of_range()))


def read_or_refuse(case: tuple[Key, object]) -> None:
    """A node with the value gives a config, or problems of which each is one line."""
    key, value = case
    for path, message in key.problems(value):
        assert str(Problem(path, message)).isprintable()


def compose_or_refuse(case: tuple[Key, object]) -> None:
    """An override with the value composes, or problems of which each is one line are raised."""
    key, value = case
    try:
        config = compose(*key.recipe, f"{key.path}={value}")
    except ConfigError as error:
        problems = [str(problem) for problem in error.problems]
    else:
        problems = []
        assert typed.read(Config, typed.plain(config)) == config
    assert all(problem.isprintable() for problem in problems)


def many(examples: int) -> settings:
    slow = [HealthCheck.too_slow]
    return settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=slow,
    )


@given(changed())
@many(300)
def test_a_key_takes_a_random_value_or_says_what_it_must_be(case: tuple[Key, object]) -> None:
    read_or_refuse(case)


@given(changed())
@many(10)
def test_a_random_override_composes_or_is_refused(case: tuple[Key, object]) -> None:
    compose_or_refuse(case)


@pytest.mark.slow
@given(changed())
@many(500)
def test_many_random_overrides_compose_or_are_refused(case: tuple[Key, object]) -> None:
    compose_or_refuse(case)
