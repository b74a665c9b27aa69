"""The page of a report: one HTML file that needs nothing else."""

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from dqn_exp.analysis.figures import COLOURS, INK, Picture
from dqn_exp.analysis.groups import Group
from dqn_exp.analysis.keys import differing
from dqn_exp.analysis.results import Comparison
from dqn_exp.analysis.runs import Run
from dqn_exp.config.problems import shown

MARK = "<!-- a report of dqn-exp -->"  # the second line: a file that a report may replace
MOST_ROWS = 200  # of the list of runs
MOST_GROUPS = 12  # in the table of all pairs
HEAD = f"""<!doctype html>
{MARK}
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
"""
DARK = (
    "#4ba9e9",
    "#ff8240",
    "#2fc99b",
    "#e6a0c8",
    "#f2b62e",
    "#93d3f7",
    "#a9a9a9",
)  # COLOURS, brighter
LIGHT_COLOURS = "; ".join(f"--c{i}: {colour}" for i, colour in enumerate(COLOURS))
DARK_COLOURS = "; ".join(f"--c{i}: {colour}" for i, colour in enumerate(DARK))
CSS = (
    f"""
:root {{ {LIGHT_COLOURS} }}
@media (prefers-color-scheme: dark) {{ :root {{ {DARK_COLOURS} }} }}
"""
    + """\
:root { color-scheme: light dark; --back: #fff; --text: #1a1b1c; --soft: #5c6166; --line: #d9dcdf;
  --panel: #f5f6f7 }
@media (prefers-color-scheme: dark) { :root { --back: #15181b; --text: #e4e7ea; --soft: #a0a7ad;
  --line: #363c42; --panel: #1e2226 } }
body { margin: 0 auto; padding: 1rem; max-width: 70rem; background: var(--back); color: var(--text);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .5rem 0 }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem }
p { max-width: 46rem }
.answer { background: var(--panel); border-radius: .4rem; padding: .75rem 1rem .75rem 2rem; margin: 0 }
.answer li { margin: .25rem 0 }
.soft, figcaption, td.soft { color: var(--soft) }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums;
  overflow-wrap: normal }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap }
th { white-space: normal; vertical-align: bottom }
th:first-child, td:first-child, .text td { text-align: left; padding-left: 0 }
.text th { text-align: left } .text td, .text th { padding-right: 1rem; padding-left: 0 }
td.wrap { white-space: normal; min-width: 14rem }
.figures { display: grid; gap: 1.5rem; margin-top: 1.5rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 29rem), 1fr)) }
figure { margin: 0 } figure svg { display: block; width: 100%; max-width: 34rem; height: auto }
figcaption { font-size: .875rem; max-width: 34rem }
"""
)
METHODS = """\
IQM: the interquartile mean, the mean of the middle half of the seeds. Intervals are 95 %
percentile-bootstrap intervals over seeds (10,000 resamples; curves 2,000). P(X &gt; Y) is the
probability that a seed of one group scores higher than one of the other, equal scores counted half
(Agarwal et al. 2021). One group is called better only if the interval of P leaves out 1/2 and a
Mann-Whitney test, corrected by Holm's method for all pairs of groups, has p &lt; 0.05. The number
of seeds needed is Noether's (1987) for 80 % power, with P as estimated here and the level shared
between all pairs. The optimality gap is the mean shortfall below the target. Steps to the target
are the median over those seeds whose evaluation reached it during training."""


def page(
    title: str,
    answers: Iterable[str],
    table: Sequence[Sequence[str]],
    groups: Sequence[Group],
    compared: Mapping[tuple[int, int], Comparison],
    overview: Sequence[Picture],
    curves: Sequence[Picture],
    runs: Sequence[Run],
    notes: Sequence[str],
) -> str:
    """The page as text."""
    parts = [HEAD, f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n<h1>{escape(title)}</h1>\n"]
    parts.append(_list(answers, "answer"))
    parts += ["<h2>Results</h2>", _table(table)]
    if notes:
        parts.append(_list(notes, "soft"))
    parts += [_figures(overview), _pairs(groups, compared), _settings(groups)]
    if curves:
        parts += ["<h2>Learning in detail</h2>", _figures(curves)]
    parts += [_runs(runs), f'<h2>Methods</h2><p class="soft">{METHODS}</p>', "</html>\n"]
    return "\n".join(parts)


def _list(items: Iterable[str], name: str) -> str:
    return f'<ul class="{name}">' + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"


def _table(rows: Sequence[Sequence[str]], name: str = "") -> str:
    head, *body = rows
    lines = ["<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr>"]
    for row in body:
        cells = (f"<td{_wrap(cell)}>{escape(cell)}</td>" for cell in row)
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f'<div class="wide"><table class="{name}">{"".join(lines)}</table></div>'


def _wrap(cell: str) -> str:
    """A long text may take several lines."""
    return ' class="wrap"' if len(cell) > 40 else ""


def _figures(pictures: Iterable[Picture]) -> str:
    return (
        '<div class="figures">'
        + "".join(
            f"<figure>{_inline(p.svg)}<figcaption>{escape(p.caption)}.</figcaption></figure>"
            for p in pictures
        )
        + "</div>"
    )


def _inline(svg: str) -> str:
    """A figure within a page: its colours are the page's, and its groups have no names."""
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = svg.replace("fill: #ffffff", "fill: none")  # the page has a background of its own
    for i, colour in enumerate(COLOURS):
        svg = svg.replace(colour, f"var(--c{i})")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"\s*<!--.*?-->", "", svg, flags=re.DOTALL)
    return re.sub(r"\s*\n\s*", " ", re.sub(r'<g id="[^"]*"', "<g", svg))


def _pairs(groups: Sequence[Group], compared: Mapping[tuple[int, int], Comparison]) -> str:
    """The table of P(row > column); bold where the two are told apart."""
    if not compared or len(groups) > MOST_GROUPS:
        return ""
    lines = ["<tr><th></th>" + "".join(f"<th>{escape(g.name)}</th>" for g in groups) + "</tr>"]
    for i, group in enumerate(groups):
        cells = []
        for j in range(len(groups)):
            pair = compared.get((i, j)) or ((back := compared.get((j, i))) and back.reversed())
            if not pair:
                cells.append("<td></td>")
                continue
            text = f"{pair.probability:.2f}"
            interval = "[{:.2f}, {:.2f}]".format(*pair.interval)
            bold = f"<b>{text}</b>" if pair.told_apart else text
            cells.append(f'<td>{bold}<br><span class="soft">{interval}</span></td>')
        lines.append(f"<tr><td>{escape(group.name)}</td>{''.join(cells)}</tr>")
    return (
        "<h2>Each against each</h2>"
        '<p class="soft">The probability that a seed of the row scores higher than one of the column, '
        "with its 95 % interval; bold where the seeds tell the two apart.</p>"
        f'<div class="wide"><table>{"".join(lines)}</table></div>'
    )


def _settings(groups: Sequence[Group]) -> str:
    """The table of all settings that differ between groups."""
    keys = differing([group.settings for group in groups])
    if not keys:
        return ""
    rows = [["key", *(group.name for group in groups)]]
    rows += [[shown(k, 60), *(shown(g.settings.get(k, "-"), 60) for g in groups)] for k in keys]
    return "<h2>Settings that differ</h2>" + _table(rows, "text")


def _runs(runs: Sequence[Run]) -> str:
    rows = [["run", "state", "seeds", "env step", "IQM", "folder, and what went wrong"]]
    for run in runs[:MOST_ROWS]:
        objective = run.summary.get("objective")
        iqm = f"{objective:.1f}" if isinstance(objective, float) else "-"
        where = shown(run.folder) + (f": {run.error}" if run.error else "")
        rows.append([run.name, run.state, str(len(run.seeds)), f"{run.step:,}", iqm, where])
    more = f"<p>... and {len(runs) - MOST_ROWS} more.</p>" if len(runs) > MOST_ROWS else ""
    return "<h2>Runs</h2>" + _table(rows, "text") + more
