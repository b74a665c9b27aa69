"""`dqn-exp report`: its files, and what odd run folders and bad input do to it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from helpers import digests, tiny_run
from run_folders import PER, run_folder

from dqn_exp.analysis import folders, runs
from dqn_exp.analysis.groups import Group
from dqn_exp.analysis.report import report
from dqn_exp.analysis.results import (
    result,
)  # fmt: skip
from dqn_exp.analysis.tables import as_csv, as_tex
from dqn_exp.cli import report as command
from dqn_exp.config.problems import ConfigError

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs the command with arguments; returns its exit code, output and errors."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["dqn-exp report", *map(str, arguments)])
        code = 0
        try:
            command.main()
        except ConfigError as refusal:
            return 2, "", f"{refusal}\n"
        except SystemExit as stop:
            code = int(stop.code or 0)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def read(*paths: Path) -> list[runs.Run]:
    return [runs.read(folder) for folder in folders.runs_in(list(paths))]


def test_a_real_sweep_is_reported(tmp_path: Path, call: Call) -> None:
    for i, agent in enumerate(("dqn", "ddqn")):
        tiny_run(tmp_path / f"sweep/{i}_agent={agent}", f"agent={agent}", "seeds=2").run()
    code, out, err = call(tmp_path, "--out", tmp_path / "there")
    assert (code, err) == (0, "")
    assert out.endswith(f"report: {tmp_path}/there/report.html\n")
    page = Page((tmp_path / "there/report.html").read_text())
    assert page.tags.count("svg") == 6
    assert not {"script", "img", "link", "iframe"} & set(page.tags)
    assert page.links
    assert all(link.startswith("#") for link in page.links)  # nothing comes from a network
    names = {"evaluation", "training", "final", "profile", "curves_1", "curves_2"}
    assert {p.stem for p in (tmp_path / "there/figures").iterdir()} == names
    table = (tmp_path / "there/table.csv").read_text().splitlines()
    assert [line.partition(",")[0] for line in table[1:]] == [
        line.split()[0] for line in out.partition("\n\n")[2].splitlines()[1:3]
    ]
    summaries = [json.loads(p.read_text()) for p in tmp_path.rglob("summary.json")]
    in_table = sorted(float(line.split(",")[2]) for line in table[1:])
    assert in_table == pytest.approx(sorted(summary["objective"] for summary in summaries))


def test_by_default_a_report_is_in_the_first_folder_and_replaces_one(
    tmp_path: Path, call: Call
) -> None:
    folder = run_folder(tmp_path / "run", {0: 1.0, 1: 2.0}, {0: {1: 2.0}})
    assert call(folder)[0] == 0
    before = digests(folder)
    assert "report/report.html" in before
    assert call(folder)[0] == 0
    assert digests(folder) == before  # the same bytes: figures have no dates or random names


@pytest.mark.parametrize("kind", ["other", "file", "link", "page is a link", "figures is a link"])
def test_nothing_but_a_report_is_replaced(tmp_path: Path, call: Call, kind: str) -> None:
    folder, out = run_folder(tmp_path / "run", {0: 1.0}), tmp_path / "out"
    (tmp_path / "other").mkdir()
    if kind == "file":
        out.write_text("mine")
    elif kind == "link":
        out.symlink_to(tmp_path / "other")
    else:
        out.mkdir()
        if kind == "figures is a link":
            (out / "figures").symlink_to(tmp_path / "other")
        elif kind == "page is a link":
            (tmp_path / "mine.html").write_text("mine")
            (out / "report.html").symlink_to(tmp_path / "mine.html")
        else:
            (out / "report.html").write_text("mine")
    before = digests(tmp_path)
    code, printed, err = call(folder, "--out", out)
    assert (code, printed, len(err.splitlines())) == (2, "", 1), err
    assert digests(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: RUN_OR_SWEEP"),
        (["nowhere"], "nowhere: no such folder"),
        (["empty"], "empty: contains no run"),
        (["mixed"], "env.id=Acrobot-v1, CartPole-v1: returns of different environments"),
        (["refused"], "report: none of these runs has a readable config"),
        (["\x1b[31m"], " [31m: no such folder"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    run_folder(tmp_path / "mixed/0", {0: 1.0})
    run_folder(tmp_path / "mixed/1", {0: 1.0}, env={"id": "Acrobot-v1"})
    (tmp_path / "refused/0").mkdir(parents=True)
    (tmp_path / "refused/0/summary.json").write_text('{"status": "refused"}')
    before = digests(tmp_path)
    code, out, err = call(*arguments)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert message in err
    assert digests(tmp_path) == before


def test_without_matplotlib_it_says_what_to_install(tmp_path: Path) -> None:
    run_folder(tmp_path, {0: 1.0})
    code = f"import sys; sys.modules['matplotlib'] = None; sys.argv = ['x', {str(tmp_path)!r}]; "
    code += "from dqn_exp.__main__ import main; main('report')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == 'matplotlib: is not installed: pip install "dqn-exp[report]"\n'


def test_a_report_needs_no_torch(tmp_path: Path) -> None:
    run_folder(tmp_path, {0: 1.0})
    code = f"import sys; sys.argv = ['x', {str(tmp_path)!r}]; "
    code += "from dqn_exp.cli.report import main; main(); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# --- the page, and odd folders ---


class Page(HTMLParser):
    """Counts the tags of a page, and collects its addresses."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [v or "" for k, v in attrs if k in ("href", "src", "xlink:href", "onload")]


@pytest.mark.slow
def test_the_page_of_many_runs_is_small(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    steps = np.arange(100, 10_001, 100).tolist()
    for i in range(20):
        evaluations = {s: dict(zip(steps, rng.normal(size=100), strict=True)) for s in range(10)}
        episodes = {s: [(t, rng.normal()) for t in steps] for s in range(10)}
        folder = run_folder(
            tmp_path / f"{i}_lr", {s: rng.normal() for s in range(10)}, evaluations, episodes,
            optim={"name": "adam", "lr": i},
        )  # fmt: skip
        metrics = (folder / "metrics.csv").read_text()
        body = metrics.partition("\n")[2]
        tags = ("train/td_loss", "train/grad_norm", "eval/initial_state_value")
        more = [body.replace("eval/return_mean", tag) for tag in tags]
        (folder / "metrics.csv").write_text("".join([metrics, *more]))
    made = report(read(tmp_path))
    assert len(made.files["report.html"]) < 1_000_000
    assert len([name for name in made.files if name.startswith("figures/curves_")]) == 2 * 20


def test_text_of_run_folders_is_only_text(tmp_path: Path, call: Call) -> None:
    evil = "<script>alert(1)</script>\x1b[31m$x^{$ &amp; _\u202e\n=1"
    for i in range(2):
        run_folder(
            tmp_path / f"{i}_<script>\x1b[31m", {0: 1.0, 1: 2.0}, {0: {1: 1.0}}, {0: [(1, 1.0)]},
            agent={"name": f"{evil}{i}"}, net={"name": "__x$"}, **{f"<b>{evil}": str(i)},
        )  # fmt: skip
    summary = json.loads((tmp_path / "0_<script>\x1b[31m/summary.json").read_text())
    (tmp_path / "0_<script>\x1b[31m/summary.json").write_text(
        json.dumps(summary | {"status": "failed", "error": evil})
    )
    code, out, err = call(tmp_path, "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    assert [c for c in out if not c.isprintable() and c != "\n"] == []
    for name in ("report.html", "figures/evaluation.svg", "table.csv", "table.tex"):
        text = (tmp_path / "out" / name).read_text()
        assert "\x1b" not in text
        assert "\u202e" not in text
        if name.endswith(("html", "svg")):
            assert "script" not in Page(text).tags
            assert "b" not in Page(text).tags


def test_figures_show_names_in_full(tmp_path: Path) -> None:
    for i, lr in enumerate((0.00125, 0.0025)):
        run_folder(tmp_path / str(i), {0: 1.0}, optim={"name": "adam", "lr": lr})
    assert "lr=0.00125" in report(read(tmp_path)).files["figures/final.svg"].decode()


def test_names_are_safe_in_spreadsheets_and_latex(tmp_path: Path) -> None:
    group_of = Group({"env.id": "CartPole-v1"}, [], "=1+1")
    assert as_csv([group_of], [result(group_of)]).splitlines()[1].startswith("'=1+1,0,")
    assert r"a\_b\% \textbackslash{}x \$ & 1 \\" in as_tex([["name", "n"], [r"a_b% \x $", "1"]])


def damage(folder: Path, kind: str) -> None:
    """Change the files of a run."""
    metrics, episodes = folder / "metrics.csv", folder / "episodes.csv"
    if kind == "missing":
        metrics.unlink()
        episodes.unlink()
    elif kind == "cut":
        metrics.write_bytes(metrics.read_bytes()[:-4])
    elif kind == "not a number":
        with metrics.open("a") as file:
            file.write(
                "0,100,eval/return_mean,nan\r\n0,x,eval/return_mean,1\r\n0,1,eval/return_mean,inf\r\n"
            )
            file.write(
                f"{'9' * 5000},1,eval/return_mean,1\r\n-1,1,eval/return_mean,1\r\n,,,\r\n0,1\r\n"
            )
    elif kind == "garbage":
        metrics.write_bytes(bytes(range(256)) * 100)
        episodes.write_bytes(b'seed,episode,step,return,length\r\n"' + b"x" * 200_000)
        (folder / "summary.json").write_bytes(b"\xff{")
    elif kind == "link":
        (folder.parent / "secret.csv").write_bytes(metrics.read_bytes())
        metrics.unlink()
        metrics.symlink_to(folder.parent / "secret.csv")
    elif kind == "pipe":
        metrics.unlink()
        os.mkfifo(metrics)
    elif kind == "huge":
        os.truncate(metrics, 1 << 40)
    elif kind == "summary":
        odd = {"status": "finished", "seeds": [0, "x", None], "final_returns": [float("nan"), 1, 2]}
        odd |= {"wall_seconds": "x", "dropped": 5, "error": ["x"], "objective": "x"}
        (folder / "summary.json").write_text(json.dumps(odd))
    elif kind == "config":
        (folder / ".hydra/config.yaml").write_text(
            f"{{env: {{id: CartPole-v1}}, 1: 2, n: 0x{'f' * 5000}}}"
        )


@pytest.mark.parametrize(
    "kind",
    [
        *("cut", "garbage", "pipe", "summary"),
        *(
            pytest.param(kind, marks=pytest.mark.slow)
            for kind in ("missing", "not a number", "link", "huge", "config")
        ),
    ],
)
def test_a_damaged_run_neither_stops_a_report_nor_changes_the_others(tmp_path: Path, kind: str) -> None:
    run_folder(tmp_path / "0", {0: 1.0, 1: 2.0}, {0: {100: 5.0}}, {0: [(10, 1.0)]})
    damaged = run_folder(tmp_path / "1", {0: 7.0}, {0: {100: 25.5}}, {0: [(10, 1.0)]}, buffer=PER)
    damage(damaged, kind)
    made = report(read(tmp_path))
    assert any("uniform" in line or "dqn" in line for line in made.answers)
    run = runs.read(damaged)
    values = {s: v.values.tolist() for s, v in run.metrics.get(runs.EVALUATION, {}).items()}
    assert values == ({0: [25.5]} if kind in ("not a number", "summary", "config") else {})
    assert run.final == ({} if kind in ("garbage", "summary") else {0: 7.0})


def test_a_run_of_another_version_is_read_from_its_config(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "old", {0: 1.0})
    (folder / "checkpoints/step=5").mkdir(parents=True)
    (folder / "checkpoints/step=5/manifest.json").write_text('{"schema": 1}')
    assert runs.read(folder).settings["agent.name"] == "dqn"


def test_folders_are_searched_in_order_without_following_links(tmp_path: Path) -> None:
    for name in ("multirun/day/time/10_x", "multirun/day/time/9_x", "outputs/day/run"):
        run_folder(tmp_path / "all" / name, {0: 1.0})
    run_folder(tmp_path / "elsewhere", {0: 1.0})
    (tmp_path / "all/link").symlink_to(tmp_path / "elsewhere")
    found = folders.runs_in([tmp_path / "all", tmp_path / "all/outputs"])
    assert [path.name for path in found] == ["9_x", "10_x", "run"]
    assert folders.runs_in([tmp_path / "all/link"]) == [tmp_path / "elsewhere"]  # it was asked for
    with pytest.raises(ConfigError, match="contains no run"):
        folders.runs_in([tmp_path / "all/outputs/day/run/.hydra"])
