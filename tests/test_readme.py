"""The READMEs: commands and snippets run, tables are those of the code, links lead somewhere.

Commands run in the order of their README, with small numbers, in a folder with the files that the
READMEs show.
"""

import contextlib
import dataclasses
import itertools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import yaml
from helpers import PROGRAM, TINY, options, rows, summary, tiny_run
from hydra.core.override_parser.overrides_parser import OverridesParser
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import dqn_exp
from dqn_exp.__main__ import COMMANDS
from dqn_exp.cli.bench import BENCHMARKS
from dqn_exp.config import schema
from dqn_exp.config.compose import CONF, compose
from dqn_exp.config.typed import whole_number
from dqn_exp.glossary import MEANINGS

ROOT = PROGRAM.parent
READMES = (
    "README.md",
    "conf/README.md",
    "dqn_exp/README.md",
    "dqn_exp/bench/README.md",
    "tests/README.md",
    ".github/CONTRIBUTING.md",
)
SMALL = dict(text.split("=") for text in TINY if not text.startswith(("net.", "buffer.")))
SMALLER = {"seeds": "2", "compile": "false", "hydra.sweeper.n_trials": "2"}  # where they are given
PROGRAMS = {
    "python train.py": [str(PROGRAM)],
    "python -m dqn_exp": ["-m", "dqn_exp"],
    "dqn-exp": ["-m", "dqn_exp"],
}
NEEDS = {  # what stands in a command -> the distribution that it needs
    "hydra/sweeper=optuna": "hydra-optuna-sweeper",
    "hydra/launcher=joblib": "hydra-joblib-launcher",
    "env=lunarlander": "box2d",
}
REFUSED = "python train.py agnet=dqn optim.lr=-1"
every_readme = pytest.mark.parametrize("readme", READMES)


def lines(readme: str) -> Iterator[tuple[str | None, str]]:
    """The lines of a README, each with the language of the code block that it is in; None outside."""
    language = None
    for line in (ROOT / readme).read_text().splitlines():
        if line.startswith("```"):
            language = line[3:] if language is None else None
        else:
            yield language, line


def blocks(readme: str, language: str) -> list[str]:
    """The code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / readme).read_text(), re.M | re.S)


def commands(readme: str) -> list[str]:
    """The commands that a README shows, in blocks and within text, once each."""
    found = []
    for language, line in lines(readme):
        spans = re.findall(r"`([^`]+)`", line) if language is None else [line.removeprefix("$ ")]
        for span in spans if language in (None, "") else ():
            parts = span.partition(" & ")[0].split(" && ")
            found += [p for p in parts if re.match(rf"({'|'.join(PROGRAMS)})(?= |$)", p)]
    return [command for command in dict.fromkeys(found) if command not in (REFUSED, "dqn-exp")]


def arguments(command: str) -> list[str]:
    """What a command gives the program, with small numbers."""
    _, given = split(command)
    flags = [text for text in given if text.startswith("-")]
    if given[:1] == ["bench"]:
        return [*given, "--help"]
    if given[:1] != ["train"] and {*given[:1]} & COMMANDS.keys():
        return given
    if {"--help", "--cfg"} & set(flags):
        return given
    head = given[:1] if given[:1] == ["train"] else []
    rest = [small(text) for text in given[len(head) :]]
    keys = {text.partition("=")[0] for text in rest}
    resumed = any(text.startswith("resume=") and text != "resume=auto" for text in rest)
    return [*head, *rest, *(f"{k}={v}" for k, v in SMALL.items() if k not in keys and not resumed)]


def small(text: str) -> str:
    """An argument with a small number, if it is a large one."""
    key, equals, value = text.partition("=")
    if key == "total_steps":  # longer runs stay longer
        return f"{key}=" + ",".join(str(300 + (whole_number(v) or 0) // 1000) for v in value.split(","))
    if key == "resume":
        return re.sub(r"step=\d+", "step=300", text)
    return f"{key}={(SMALL | SMALLER).get(key, value)}" if equals else text


def split(command: str) -> tuple[list[str], list[str]]:
    """The program that a command starts, as Python's arguments, and its own arguments."""
    name = next(name for name in PROGRAMS if command.startswith(name))
    return PROGRAMS[name], shlex.split(command.removeprefix(name), comments=True)


def needs(command: str) -> str | None:
    """The distribution that a command needs and that is not installed."""
    for words, distribution in NEEDS.items():
        if words in command:
            with contextlib.suppress(metadata.PackageNotFoundError):
                metadata.version(distribution)
                continue
            return distribution
    return None


def run(command: str, folder: Path) -> None:
    """Run a command with small numbers in a folder, to a good end."""
    program, _ = split(command)
    done = subprocess.run(
        [sys.executable, *program, *arguments(command)],
        cwd=folder,
        env=os.environ
        | {"PYTHONPATH": str(folder), "SDL_VIDEODRIVER": "dummy", "WANDB_MODE": "offline"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{command}\n{done.stderr}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the files that the READMEs show; Python finds modules there."""
    for readme in READMES:
        for block in blocks(readme, "python") + blocks(readme, "yaml"):
            if name := re.match(r"(?:# @.*\n)?# (\S+\.(?:py|yaml))\n", block):
                path = tmp_path / name[1]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(gymnasium.registry, "Corridor-v0", raising=False)  # of another test here
    return tmp_path


@pytest.mark.parametrize("readme", READMES[:3])
def test_every_command_is_a_valid_configuration(readme: str, folder: Path) -> None:
    checked = 0
    for command in commands(readme):
        given = arguments(command)
        if (
            given[0] in COMMANDS.keys() - {"train"}
            or "--help" in given
            or "resume=runs" in command
            or needs(command)
        ):
            continue
        config_dir = given[given.index("--config-dir") + 1] if "--config-dir" in given else None
        overrides = [t for t in given if "=" in t and not t.startswith(("-", "hydra"))]
        if "hydra.searchpath" in command:
            overrides.append(next(t for t in given if t.startswith("hydra.searchpath")))
        swept = [
            [f"{str(o.input_line).partition('=')[0]}={v}" for v in o.sweep_string_iterator()]
            if o.is_sweep_override()
            else [str(o.input_line)]
            for o in OverridesParser.create().parse_overrides(overrides)
        ]
        for job in itertools.product(*swept):
            dqn_exp.build(compose(*job, config_dir=config_dir)).close()
            checked += 1
    assert checked


@pytest.mark.slow
def test_the_commands_with_parts_of_your_own_run(folder: Path) -> None:
    shown = [command for command in commands("dqn_exp/README.md") if "plugins=" in command]
    assert len(shown) >= 4
    for command in shown:
        run(command, folder)


@pytest.mark.slow
@pytest.mark.parametrize("readme", READMES[:4])
def test_every_command_runs(readme: str, folder: Path) -> None:
    for command in commands(readme):
        if not needs(command):
            run(command, folder)


def test_a_refused_command_prints_what_the_readme_shows(tmp_path: Path) -> None:
    (block,) = [b for b in blocks("README.md", "") if b.startswith(f"$ {REFUSED}\n")]
    program, given = split(REFUSED)
    command = [sys.executable, *program, *given]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == block.partition("\n")[2]


@pytest.mark.slow
def test_the_command_that_a_job_of_a_sweep_prints_resumes_it(tmp_path: Path) -> None:
    job = tmp_path / "multirun/3_agent=ddqn,buffer=per"
    tiny_run(job).run()
    printed = f"python train.py resume={job.relative_to(tmp_path)} total_steps=100_000"
    run(printed, tmp_path)
    assert summary(job)["resumed_from"] == 300


@pytest.mark.parametrize("readme", READMES[:3])
def test_the_python_snippets_run(readme: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def compose_small(*overrides: str, **kwargs: Any) -> schema.Config:
        # Seeds stay: the shapes of observations depend on them.
        command = shlex.join(["dqn-exp", *overrides])
        seeds = [text for text in overrides if text.startswith("seeds=")]
        others = [text for text in arguments(command) if not text.startswith("seeds=")]
        return compose(*others, *seeds, **kwargs)

    monkeypatch.setattr(dqn_exp, "compose", compose_small, raising=False)
    snippets = [b for b in blocks(readme, "python") if not b.startswith("# ")]
    assert snippets
    for snippet in snippets:
        exec(compile(snippet, readme, "exec"), {})


def test_the_glossary_lists_the_tags_of_real_runs(tmp_path: Path) -> None:
    section = (ROOT / "dqn_exp/README.md").read_text().partition("## Metrics")[2].partition("\n## ")[0]
    listed = dict(re.findall(r"^\| `([a-z]+/\w+)` \| (.+) \|$", section, re.M))
    assert listed == MEANINGS
    groups = ("agent", "net", "buffer", "exploration")
    widest = max(len(options(group)) for group in groups)
    logged: set[str] = set()
    for number in range(widest):  # every option of every group once
        chosen = [f"{g}={options(g)[number % len(options(g))]}" for g in groups] + ["optim.anneal=true"]
        tiny_run(tmp_path / str(number), *chosen).run()
        logged |= {row["tag"] for row in rows(tmp_path / str(number) / "metrics.csv")}
        events = EventAccumulator(str(tmp_path / str(number) / "seed=0")).Reload()
        scalars = events.summary_metadata.items()
        logged |= {tag for tag, about in scalars if about.plugin_data.plugin_name == "scalars"}
    assert logged == listed.keys()


def test_the_table_of_groups_lists_the_options_of_conf_and_the_defaults() -> None:
    defaults: dict[str, Any] = {}
    for entry in yaml.safe_load((CONF / "config.yaml").read_text())["defaults"]:
        defaults |= entry if isinstance(entry, dict) else {}
    table = table_of("conf/README.md", "Groups")
    assert [row[0].strip("`") for row in table] == list(schema.GROUPS)
    for group, listed, _ in table:
        group = group.strip("`")
        if group != "experiment":
            names = [name.strip("*") for name in listed.split(", ")]
            bold = [name.strip("*") for name in listed.split(", ") if name.startswith("**")]
            assert names == options(group), group
            assert bold == [defaults[group]], group


def test_the_table_of_presets_lists_them_all() -> None:
    listed = [name for row in table_of("conf/README.md", "Presets") for name in ticked(row[0])]
    assert sorted(set(listed) & set(options("experiment"))) == options("experiment")


def test_the_keys_that_people_change_exist() -> None:
    listed = [
        name for row in table_of("conf/README.md", "Keys that people change") for name in ticked(row[0])
    ]
    parts = {kind: list(known.values()) for kind, known in schema.PARTS.items()}
    existing = {"hydra.run.dir", *keys_of(schema.Config)}
    for kind in schema.PARTS.keys() & schema.GROUPS.keys():
        existing |= {f"{kind}.{key}" for part in parts[kind] for key in keys_of(part)}
    assert listed
    assert set(listed) <= existing


def test_the_table_of_benchmarks_lists_them_all() -> None:
    table = table_of("dqn_exp/bench/README.md", "Speed")
    listed = [row[0].strip("`").removeprefix("dqn-exp bench ") for row in table]
    assert sorted(listed) == sorted(BENCHMARKS)


def test_the_layers_and_the_tests_that_are_named_exist() -> None:
    for row in table_of("dqn_exp/README.md", "Layers"):
        for name in ticked(row[1]):
            assert name == "dqn-exp" or (ROOT / "dqn_exp" / name).exists(), name
    for name in re.findall(r"`([\w/]+\.py)`", (ROOT / "tests/README.md").read_text()):
        assert (ROOT / "tests" / name).is_file(), name


def test_the_readme_is_short_and_has_both_set_up_commands() -> None:
    text = (ROOT / "README.md").read_text().splitlines()
    assert len(text) <= 200
    assert "pip install -e . && python train.py" in text
    assert 'pip install -e ".[dev]" && pytest' in text


@every_readme
def test_links_lead_to_files_and_headings(readme: str) -> None:
    text = "\n".join(line for language, line in lines(readme) if language is None)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / readme).parent / name if name else ROOT / readme
        assert path.exists(), target
        assert not anchor or anchor in headings(path), target


def headings(path: Path) -> set[str]:
    """The anchors of a Markdown file's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", path.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def table_of(readme: str, heading: str) -> list[list[str]]:
    """The first table below a heading: the cells of its rows, without the head."""
    section = re.split(rf"^#+ {heading}$", (ROOT / readme).read_text(), flags=re.M)[1]
    table = re.search(r"(?:^\|.*\n)+", section, re.M)
    assert table, heading
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[0].splitlines()]
    return cells[2:]


def ticked(cell: str) -> list[str]:
    """What stands between backticks."""
    return re.findall(r"`([^`]+)`", cell)


def keys_of(part: Any) -> Iterator[str]:
    """The dotted keys of a dataclass."""
    for field in dataclasses.fields(part):
        if dataclasses.is_dataclass(field.type):
            yield from (f"{field.name}.{key}" for key in keys_of(field.type))
        else:
            yield field.name
