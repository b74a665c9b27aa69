"""The registry: names and keys are checked, and every key reaches its part."""

import ast
import dataclasses
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch
from helpers import node, tiny

from dqn_exp import registry
from dqn_exp.config import schema, typed
from dqn_exp.config.problems import ConfigError
from dqn_exp.parts import build as build_parts
from dqn_exp.registry import build, names, register, schema_of

PACKAGE = Path(registry.__file__).parent


@schema.config
class ParrotConfig(schema.Wrapper):
    colour: str = schema.key("of its feathers", schema.one_of("blue", "grey"))
    words: list[str] = schema.key("what it says")


@register("wrapper", "parrot")
class Parrot:
    """A part with two keys of its own."""

    config: ParrotConfig
    deviation = "parrot: says more than it was told"

    def __init__(self, env: str, config: ParrotConfig):
        self.env, self.config = env, config


@register("wrapper", "grey_parrot")
class GreyParrot(Parrot):
    """Its config is that of its base class."""


@register("wrapper", "cat")
def cat(env: str, config: schema.Wrapper) -> tuple[str, str]:
    return env, config.name


PARROT = {"name": "parrot", "colour": "blue", "words": ["hello"]}


def test_a_part_is_called_with_what_its_kind_is_given_and_its_config() -> None:
    config = typed.read(ParrotConfig, PARROT)
    parrot = build("wrapper", config, "cage")
    assert (parrot.env, parrot.config) == ("cage", config)
    assert build("wrapper", typed.read(schema.Wrapper, {"name": "cat"}), "roof") == ("roof", "cat")


def test_a_part_says_which_config_it_takes_itself_or_through_its_base_class() -> None:
    assert schema_of("wrapper", "parrot") is ParrotConfig
    assert schema_of("wrapper", "grey_parrot") is ParrotConfig
    assert schema_of("wrapper", "cat") is schema.Wrapper
    assert schema_of("wrapper", "clip_reward") is schema.ClipReward
    assert schema_of("agent", "parrot") is None
    assert schema_of("wrapper", 3) is None


def test_known_names_are_sorted_with_those_of_the_package_among_them() -> None:
    assert names("wrapper") == sorted(names("wrapper"))
    assert {"cat", "clip_reward", "grey_parrot", "parrot", "scale_reward"} <= set(names("wrapper"))
    assert "parrot" not in names("agent")


def test_what_a_part_does_on_purpose_is_known_by_its_config() -> None:
    parrot, plain = typed.read(ParrotConfig, PARROT), typed.read(schema.Wrapper, {"name": "cat"})
    assert registry.deviation("wrapper", parrot) == "parrot: says more than it was told"
    assert registry.deviation("wrapper", plain) is None


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({"name": "parot"}, ["env.wrappers.0.name=parot: unknown wrapper - did you mean 'parrot'?"]),
        ({"name": None}, ["env.wrappers.0.name=null: unknown wrapper (one of: "]),
        (
            {"color": "red"},
            ["env.wrappers.0.color: unknown key - did you mean 'colour'? (one of: colour"],
        ),
        ({"colour": "red"}, ["env.wrappers.0.colour=red: must be one of: blue, grey"]),
        ({"words": "hello"}, ["env.wrappers.0.words=hello: must be a list, each item text"]),
        (
            {"colour": "???", "words": "???"},
            [
                "env.wrappers.0.colour: must be set (of its feathers)",
                "env.wrappers.0.words: must be set (what it says)",
            ],
        ),
    ],
)
def test_the_keys_of_a_part_from_elsewhere_are_checked_like_those_of_the_package(
    changes: dict[str, Any], lines: list[str]
) -> None:
    env = {"backend": "gymnasium", "id": "CartPole-v1", "n": 1, "vectorization": "sync", "kwargs": {}}
    env |= {"max_episode_steps": None, "timeout": None, "wrappers": [PARROT]}
    assert typed.read(schema.Env, env).wrappers == [typed.read(ParrotConfig, PARROT)]
    with pytest.raises(ConfigError) as caught:
        typed.read(schema.Config, {"env": env | {"wrappers": [PARROT | changes]}})
    said = [line for line in map(str, caught.value.problems) if line.startswith("env.")]
    assert len(said) == len(lines)
    assert all(seen.startswith(line) for seen, line in zip(said, lines, strict=True)), said


def test_a_second_part_of_the_same_name_is_refused() -> None:
    def impostor(env: str, config: schema.Wrapper) -> None: ...

    with pytest.raises(ValueError, match=r"wrapper 'cat' is already registered by test_registry\.cat"):
        register("wrapper", "cat")(impostor)
    assert build("wrapper", typed.read(schema.Wrapper, {"name": "cat"}), "roof") == ("roof", "cat")


def test_a_module_may_be_loaded_again() -> None:
    register("wrapper", "cat")(cat)
    assert build("wrapper", typed.read(schema.Wrapper, {"name": "cat"}), "roof") == ("roof", "cat")


def test_a_part_must_say_what_its_config_is() -> None:
    def mute(env: str, config) -> None: ...

    def misfit(env: str, config: schema.Net) -> None: ...

    class Bare: ...

    wanted = "must declare `config: C`, where C is a subclass of schema.Wrapper"
    for part in (mute, misfit, Bare):
        with pytest.raises(TypeError, match=re.escape(wanted)):
            register("wrapper", "mute")(part)
    assert "mute" not in names("wrapper")


def test_a_module_or_a_package_of_ones_own_can_register_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = """
        from dqn_exp.config import schema
        from dqn_exp.registry import register

        @schema.config
        class PetConfig(schema.Wrapper):
            colour: str = schema.key("of its fur")

        @register("wrapper", "{name}")
        def pet(env, config: PetConfig):
            return env, config.colour
    """
    (tmp_path / "users_pets").mkdir()
    files = {"users_pet.py": "dog", "users_pets/__init__.py": "cow", "users_pets/small.py": "mouse"}
    for path, name in files.items():
        (tmp_path / path).write_text(textwrap.dedent(source.format(name=name)))
    monkeypatch.syspath_prepend(tmp_path)
    registry.load(["users_pet"])
    assert "dog" in names("wrapper")
    assert "cow" not in names("wrapper")
    registry.load(["users_pets", "users_pets.small"])
    known = schema_of("wrapper", "mouse")
    assert known
    config = typed.read(known, {"name": "mouse", "colour": "grey"})
    assert build("wrapper", config, "hole") == ("hole", "grey")


def test_all_modules_that_cannot_be_imported_are_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "users_broken.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError) as caught:
        registry.load(["users_broken", "users_gone"])
    assert [str(problem) for problem in caught.value.problems] == [
        "plugins=users_broken: cannot be imported: ZeroDivisionError: division by zero",
        "plugins=users_gone: cannot be imported: ModuleNotFoundError: No module named 'users_gone'",
    ]


def registered() -> Iterator[tuple[str, str, Any]]:
    """Kind, name and part of each registration in the package's sources."""
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for owner in ast.parse(path.read_text()).body:
            for call in getattr(owner, "decorator_list", []):
                if isinstance(call, ast.Call) and ast.unparse(call.func) == "register":
                    kind, name = (ast.literal_eval(argument) for argument in call.args)
                    yield kind, name, getattr(importlib.import_module(module), owner.name)  # type: ignore[attr-defined]


PARTS = {(kind, name): part for kind, name, part in registered()}


def test_the_schema_lists_exactly_the_parts_of_the_package() -> None:
    own = {key for key, part in PARTS.items() if part.__module__ != "dqn_exp.notebooks"}
    assert own == set(KEYS)
    assert set(schema.PARTS) == set(schema.BASES)


KEYS = [(kind, name) for kind, parts in schema.PARTS.items() for name in parts]


@pytest.mark.parametrize(("kind", "name"), KEYS)
def test_each_part_declares_the_config_that_the_schema_lists(kind: str, name: str) -> None:
    part = PARTS[kind, name]
    owners = part.__mro__ if inspect.isclass(part) else (part,)
    hints = (inspect.get_annotations(owner, eval_str=True) for owner in owners)
    assert next(hint["config"] for hint in hints if "config" in hint) is schema.PARTS[kind][name]
    assert issubclass(schema.PARTS[kind][name], schema.BASES[kind])


def spied(config: Any, read: set[str], prefix: str = "") -> Any:
    """An equal config that notes the keys that are read."""
    names = {field.name for field in dataclasses.fields(config)}

    class Spy(type(config)):
        def __getattribute__(self, name: str) -> Any:
            if name in names:
                read.add(prefix + name)
            return super().__getattribute__(name)

    values = {name: getattr(config, name) for name in names}
    nodes = {name: value for name, value in values.items() if dataclasses.is_dataclass(value)}
    return Spy(**values | {name: spied(value, read, f"{name}.") for name, value in nodes.items()})


@pytest.mark.parametrize(("kind", "name"), [key for key in KEYS if key[0] != "wrapper"])
def test_no_part_has_a_dead_key(kind: str, name: str) -> None:
    """A part that is built and has learned for a while has read every key of its config."""
    option = f"env.backend={name}" if kind == "env" else f"{kind}={name}"
    config, read = tiny(option, "optim.clip.kind=norm" if kind == "optim" else "seed=0"), set()
    spy = spied(getattr(config, kind), read)
    if kind == "env":
        env = build("env", spy, torch.tensor([0]), "train", True)
        env.reset()
        env.close()
    else:
        parts = build_parts(dataclasses.replace(config, **{kind: spy}))
        parts.loop.advance(60)
        assert parts.loop.gradient_step > 0
        parts.close()
    own = getattr(config, kind)
    keys = {field.name for field in dataclasses.fields(own)}
    assert keys | set(typed.flatten(typed.plain(own))) == read


@pytest.mark.parametrize("name", schema.PARTS["wrapper"])
def test_no_wrapper_has_a_dead_key(name: str) -> None:
    keys = {"clip_reward": {"low": -1.0, "high": 0.5}, "scale_reward": {"factor": 2.0}}[name]
    config, read = node("wrapper", name, **keys), set()
    env = build("wrapper", spied(config, read), gymnasium.make("CartPole-v1"))
    env.reset(seed=0)
    env.step(0)
    env.close()
    assert read == {"name", *keys}
