"""Run folders in which any entry has been replaced: refused by a line, or resumed exactly."""

import itertools
import os
import shutil
import socket
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from forks import forked
from helpers import TINY, digests, entries, result

RUN = [*TINY, "checkpoint.every=100", "checkpoint.keep=3", "seeds=2"]
MODES = ["resume=auto hydra.run.dir=run", "resume=run"]
ENTRIES = [
    ".lock",
    ".lock.owner",
    ".summary.json",
    "summary.json",
    "train.log",
    "metrics.csv",
    "episodes.csv",
    ".hydra",
    ".hydra/config.yaml",
    "seed=0",
    "seed=0/{events}",
    "checkpoints",
    "checkpoints/step=200",
    "checkpoints/step=200/manifest.json",
    "checkpoints/step=200/state.safetensors",
    "checkpoints/step=100",
    "checkpoints/step=300",
    "checkpoints/.new.step=300",
    "checkpoints/.old.step=100",
]
CANARY = "not to be touched"


def absent(path: Path, outside: Path) -> None:
    pass


def empty(path: Path, outside: Path) -> None:
    path.write_bytes(b"")


def garbage(path: Path, outside: Path) -> None:
    path.write_bytes(os.urandom(3000))


def text(path: Path, outside: Path) -> None:
    path.write_text("${oc.env:HOME}\n!!python/object/apply:os.system ['touch x']\n\x1b]0;title\x07")


def huge(path: Path, outside: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 27)


def folder(path: Path, outside: Path) -> None:
    path.mkdir()
    (path / "note").write_text(CANARY)


def pipe(path: Path, outside: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path, outside: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # its path may have 107 bytes at most
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)
    os.chdir(here)


def link_to_a_file(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "file")


def link_to_a_folder(path: Path, outside: Path) -> None:
    path.symlink_to(outside)


def link_to_nothing(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "created")


def link_to_itself(path: Path, outside: Path) -> None:
    path.symlink_to(path.name)


def link_to_zeros(path: Path, outside: Path) -> None:
    path.symlink_to("/dev/zero")


def hard_link(path: Path, outside: Path) -> None:
    path.hardlink_to(outside / "file")


KINDS: list[Callable[[Path, Path], None]] = [
    absent, empty, garbage, text, huge, folder, pipe, unix_socket, link_to_a_file, link_to_a_folder,
    link_to_nothing, link_to_itself, link_to_zeros, hard_link,
]  # fmt: skip
CASES = [(entry, kind) for entry in ENTRIES for kind in KINDS]


@pytest.fixture(scope="module", params=["interrupted", "finished"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds `run`, which is to be continued, and `end`, where it ends."""
    path = tmp_path_factory.mktemp("whole")
    assert forked(path, *RUN, "hydra.run.dir=run").code == 0
    shutil.copytree(path / "run", path / "end")
    if request.param == "interrupted":
        shutil.rmtree(path / "run/checkpoints/step=300")
        (path / "run/summary.json").write_text('{"status": "interrupted"}')
    return path


def notes(path: Path) -> int:
    """Files that are not the program's."""
    return sum(p.is_file() and not p.is_symlink() and p.name == "note" for p in path.rglob("*"))


@pytest.mark.parametrize(
    ("entry", "kind", "mode"),
    [
        pytest.param(*case, MODES[i % 2], marks=[pytest.mark.slow] * (i % 200 > 0))
        for i, case in enumerate(CASES)
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_a_run_with_an_odd_entry_is_refused_or_resumed_exactly(
    whole: Path, tmp_path: Path, entry: str, kind: Callable[[Path, Path], None], mode: str
) -> None:
    run, outside = shutil.copytree(whole / "run", tmp_path / "run"), tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text(CANARY)
    path = run / entry.format(events=next(run.glob("seed=0/events*")).name)
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    kind(path, outside)
    before, mine = entries(run), notes(run)
    code, text = forked(tmp_path, *RUN, *mode.split())
    assert code in (0, 2), text
    assert "Traceback" not in text
    assert "\x1b" not in text
    assert digests(outside) == {"file": sha256(CANARY.encode()).hexdigest()}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["output", "outside", "run"]
    assert notes(run) == mine
    if code == 2:
        assert [line for line in text.splitlines() if ": " not in line] == []
        assert entries(run) == before
    else:
        with_rows = not entry.endswith(".csv")  # which cannot be had again
        assert result(run, with_rows) == result(whole / "end", with_rows)


RESUMES = ["null", "auto"]
OWN = ["metrics.csv", "episodes.csv", "train.log", ".hydra/config.yaml", "checkpoints/x", "seed=0/x"]


@pytest.mark.parametrize(
    ("name", "resume"),
    [
        pytest.param(name, resume, marks=[pytest.mark.slow] * (i > 0))
        for i, (name, resume) in enumerate(itertools.product([*OWN, "summary.json", ".lock"], RESUMES))
    ],
)
def test_a_run_does_not_begin_among_files_of_others(tmp_path: Path, name: str, resume: str) -> None:
    path = tmp_path / "run" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    code, text = forked(tmp_path, *RUN, "hydra.run.dir=run", f"resume={resume}")
    assert code == 2
    assert name.partition("/")[0] in text or "contains a run" in text
    assert [p for p in tmp_path.rglob("run/*") if p.is_file() and p.name != name] == []
    assert path.read_text() == "mine"
