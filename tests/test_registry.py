"""The registry: names and keys are checked, and every key reaches its part."""

import ast
import inspect
import textwrap
from pathlib import Path

import pytest

import dqn_exp.experiment  # noqa: F401  registers every part
from dqn_exp import registry
from dqn_exp.registry import ConfigError, build, discover, keys, names, problems, register


@register("animal", "parrot")
class Parrot:
    """A part with two context arguments, two keys that must be given, and one that need not."""

    def __init__(self, place: str, owner: str, *, colour: str, words: list, age: int = 3):
        self.all = (place, owner, colour, words, age)


@register("animal", "cat")
def cat(place: str, *, colour: str) -> tuple[str, str]:
    return place, colour


def test_every_key_of_a_node_is_passed_on() -> None:
    node = {"name": "parrot", "colour": "blue", "words": ["hello"], "age": 7}
    assert build("animal", node, "cage", "Ada").all == ("cage", "Ada", "blue", ["hello"], 7)
    assert build("animal", {"name": "cat", "colour": "black"}, "roof") == ("roof", "black")


def test_a_key_with_a_default_may_be_left_out() -> None:
    node = {"name": "parrot", "colour": "blue", "words": []}
    assert build("animal", node, "cage", "Ada").all[-1] == 3


def test_the_keys_are_the_keyword_only_parameters() -> None:
    assert list(keys("animal", "parrot")) == ["colour", "words", "age"]
    assert list(keys("animal", "cat")) == ["colour"]


def test_names_are_sorted_and_an_unknown_kind_has_none() -> None:
    assert names("animal") == ["cat", "parrot"]
    assert names("plant") == []


CAT = {"name": "cat", "colour": "black"}


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (CAT, []),
        (
            {**CAT, "name": "parot"},
            ["animal.name=parot: unknown animal - did you mean 'parrot'? (one of: cat, parrot)"],
        ),
        ({"name": "zzz"}, ["animal.name=zzz: unknown animal (one of: cat, parrot)"]),
        ({}, ["animal.name=None: unknown animal (one of: cat, parrot)"]),
        (
            {**CAT, "color": "red"},
            ["animal.color: unknown key of animal 'cat' - did you mean 'colour'? (one of: colour)"],
        ),
        ({**CAT, "place": "x"}, ["animal.place: unknown key of animal 'cat' (one of: colour)"]),
        ({"name": "cat"}, ["animal.colour: missing, animal 'cat' needs it"]),
        (
            {"name": "parrot", "xyz": 1, "words": []},
            [
                "animal.xyz: unknown key of animal 'parrot' (one of: age, colour, words)",
                "animal.colour: missing, animal 'parrot' needs it",
            ],
        ),
    ],
)
def test_what_is_wrong_with_a_node_is_said_line_by_line(node: dict, expected: list[str]) -> None:
    assert problems("animal", node) == expected
    if expected:
        with pytest.raises(ConfigError) as caught:
            build("animal", node, "roof")
        assert caught.value.problems == expected
        assert str(caught.value) == "\n".join(expected)


def test_a_kind_with_a_key_of_its_own_for_the_part_is_named_by_that_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(registry.SELECTORS, "animal", "species")
    assert build("animal", {"species": "cat", "colour": "black"}, "roof") == ("roof", "black")
    assert problems("animal", CAT) == ["animal.species=None: unknown animal (one of: cat, parrot)"]
    assert problems("animal", {"species": "cat", **CAT}) == [
        "animal.name: unknown key of animal 'cat' (one of: colour)"
    ]


def test_a_second_part_of_the_same_name_is_refused() -> None:
    def impostor(place: str, *, colour: str) -> None: ...

    with pytest.raises(ValueError, match=r"animal 'cat' is registered by test_registry\.cat already"):
        register("animal", "cat")(impostor)
    assert build("animal", CAT, "roof") == ("roof", "black")


def test_the_same_name_under_another_kind_is_fine() -> None:
    register("cartoon", "cat")(cat)
    assert names("cartoon") == ["cat"]


def test_a_users_module_or_package_can_register_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = """
        from dqn_exp.registry import register

        @register("pet", "{name}")
        class Pet:
            def __init__(self, *, colour: str):
                self.colour = colour
    """
    (tmp_path / "users_pets").mkdir()
    files = {"users_pet.py": "dog", "users_pets/__init__.py": "cow", "users_pets/small.py": "mouse"}
    for path, name in files.items():
        (tmp_path / path).write_text(textwrap.dedent(source.format(name=name)))
    monkeypatch.syspath_prepend(tmp_path)
    discover("users_pet")
    assert names("pet") == ["dog"]
    discover("users_pets")
    assert names("pet") == ["cow", "dog", "mouse"]
    assert build("pet", {"name": "mouse", "colour": "grey"}).colour == "grey"


PARTS = {  # of the package, not of tests
    (kind, name): part
    for kind, parts in registry._parts.items()
    for name, part in parts.items()
    if part.__module__.startswith("dqn_exp.")
}


@pytest.mark.parametrize(("kind", "name"), PARTS)
def test_no_part_has_a_dead_knob(kind: str, name: str) -> None:
    part = PARTS[kind, name]
    function = part.__init__ if inspect.isclass(part) else part
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    assert isinstance(tree, ast.FunctionDef)
    nodes = (node for statement in tree.body for node in ast.walk(statement))
    read = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    assert keys(kind, name) or kind == "wrapper"  # a wrapper may have nothing to choose
    assert set(keys(kind, name)) <= read


def test_every_kind_of_part_is_looked_at() -> None:
    assert {kind for kind, _ in PARTS} == {
        "env",
        "wrapper",
        "agent",
        "net",
        "buffer",
        "optim",
        "exploration",
    }
