"""A run is resumed only as itself, and only in a folder of its own."""

import shutil
from pathlib import Path

import pytest
from helpers import latest, summary, tiny_run, train

from dqn_exp.config.compose import compose
from dqn_exp.config.problems import ConfigError
from dqn_exp.manifest import newest, signed

BEGUN = ["env.backend=native", "agent.gamma=0.99", "exploration=constant"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of 300 steps."""
    folder = tmp_path_factory.mktemp("run")
    tiny_run(folder, *BEGUN).run()
    return folder


@pytest.mark.parametrize(
    ("overrides", "messages"),
    [
        ("resume=null", ["contains a run; resume=auto continues it"]),
        ("total_steps=240", ["total_steps=240: 300 steps have already been made"]),
        (
            "total_steps=600 agent.gamma=0.9 seeds=2 net.hidden=[17] log.every=9",
            [
                "agent.gamma=0.9: the run began with 0.99; it continues with its own value",
                "seeds=2: the run began with 1;",
                "net.hidden=[17]: the run began with [16];",
            ],
        ),
    ],
)
def test_a_run_does_not_continue_as_another(
    finished: Path, overrides: str, messages: list[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    with pytest.raises(ConfigError) as caught:
        tiny_run(finished, *latest(*BEGUN, "resume=auto", *overrides.split())).run()
    assert not [m for m in messages if m not in str(caught.value)], caught.value
    assert len(caught.value.problems) == len(messages)
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


def test_a_folder_does_not_continue_the_run_of_another(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="neither auto nor a checkpoint of this run"):
        tiny_run(tmp_path / "other", f"resume={finished}").run()


@pytest.mark.parametrize("name", ["nowhere", "no_run", "no_run/checkpoints/step=100"])
def test_a_path_without_a_run_cannot_be_resumed(tmp_path: Path, name: str) -> None:
    (tmp_path / "no_run").mkdir()
    with pytest.raises(ConfigError, match=f"resume={tmp_path / name}: ") as caught:
        compose(f"resume={tmp_path / name}")
    assert len(caught.value.problems) == 1
    assert [path.name for path in tmp_path.rglob("*")] == ["no_run"]


def saved_with(folder: Path, **changes: object) -> None:
    """Write a checkpoint's manifest with other keys in its config."""
    checkpoint = folder / "checkpoints/step=300"
    manifest = newest(folder)
    manifest["config"] |= changes
    checkpoint.joinpath("manifest.json").write_bytes(signed(manifest))


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """A run folder with a manifest only."""
    checkpoint = tmp_path / "checkpoints/step=300"
    checkpoint.mkdir(parents=True)
    checkpoint.joinpath("manifest.json").write_bytes(signed(newest(finished)))
    return tmp_path


def test_a_saved_config_imports_nothing_unless_it_is_asked_to(
    copy: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "trojan.py").write_text("from pathlib import Path\nPath(__file__).rename('loaded')\n")
    monkeypatch.syspath_prepend(elsewhere)
    monkeypatch.chdir(elsewhere)
    env = newest(copy)["config"]["env"]
    saved_with(copy, plugins=["trojan"], env=env | {"id": "trojan:Env-v0"})
    with pytest.raises(ConfigError) as caught:
        compose(f"resume={copy}")
    needs = "the run needs plug-ins, which run code; repeat plugins=[trojan] if you trust them"
    imports = "the run's env imports a module; repeat env.id=trojan:Env-v0 if you trust it"
    assert [problem.message for problem in caught.value.problems] == [needs, imports]
    assert not (elsewhere / "loaded").exists()
    config = compose(f"resume={copy}", "plugins=[trojan]", "env.id=trojan:Env-v0")
    assert config.plugins == ["trojan"]
    assert (elsewhere / "loaded").exists()


def test_a_saved_config_is_checked_like_any_other(copy: Path) -> None:
    saved_with(copy, seeds=0, zzz=1)
    with pytest.raises(ConfigError) as caught:
        compose(f"resume={copy}", "threads=0")
    said = sorted(str(problem).partition(":")[0] for problem in caught.value.problems)
    assert said == ["seeds=0", "threads=0", "zzz"]


def test_a_run_is_not_resumed_as_a_preset(copy: Path) -> None:
    with pytest.raises(ConfigError, match="experiment: leave it out"):
        compose(f"resume={copy}", "experiment=rainbow")


def test_a_run_that_may_continue_needs_a_folder_of_its_own(tmp_path: Path) -> None:
    done = train(tmp_path, "resume=auto")
    line = "hydra.run.dir: must be set to the folder of the run that resume=auto continues\n"
    assert (done.returncode, done.stderr) == (2, line)
    assert list(tmp_path.iterdir()) == []


NAMES = [
    "a\\b",
    "a${oc.env:HOME}b",
    "a'b",
    'a"b',
    "a b,c=d",
    "a[1]{2}",
    "früh",
    "a$b",
    "-a",
    "#a",
    "a:b",
    "a\\${x}",
    "a\\'b",
    "a\\",
    "10",
]


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (i % 10 > 0)) for i, name in enumerate(NAMES)],
)
def test_a_folder_of_any_name_is_resumed_and_nothing_else_begins(tmp_path: Path, name: str) -> None:
    tiny_run(tmp_path / name, "total_steps=200").run()
    done = train(tmp_path, f"resume={name}", "total_steps=240")
    assert (done.returncode, done.stderr) == (0, "")
    assert summary(tmp_path / name)["resumed_from"] == 200
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_run_does_not_begin_where_another_has_ended_meanwhile(tmp_path: Path) -> None:
    first, second = (tiny_run(tmp_path / "run", *BEGUN) for _ in range(2))
    first.run()
    with pytest.raises(ConfigError, match="contains a run"):
        second.run()


ODD = ["", "[]", "{}", "null", '{"status": 3}', '{"status": "finished"}', "{" * 100_000]


@pytest.mark.parametrize("text", [*ODD, '{"status": "finished", "step": 300, "objective": "x"}'])
def test_a_damaged_summary_is_made_again(finished: Path, tmp_path: Path, text: str) -> None:
    folder, before = shutil.copytree(finished, tmp_path / "run"), summary(finished)
    (folder / "summary.json").write_text(text)
    tiny_run(folder, *BEGUN, "resume=auto").run()
    after = summary(folder)
    for key in ("status", "objective", "final_returns", "step"):
        assert after[key] == before[key]
