"""Figures of a report, fit for a paper: SVG and PNG; needs matplotlib (extra `report`)."""

import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dqn_exp.analysis.groups import Group
from dqn_exp.analysis.results import Curve, Result, evaluation_curve, profile, training_curve
from dqn_exp.analysis.runs import EVALUATION, Series

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7e7e7e")  # Okabe & Ito
DASHES = ("-", "--")  # of the first seven groups, and of the next
MOST = len(COLOURS) * len(DASHES)  # groups in a figure
MOST_BANDS = 4  # of which the bands can be told apart
INK = "#1a1b1c"  # of text and axes; a page may put its own colour in its place
STYLE: Any = {
    "axes.edgecolor": INK, "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK,
    "ytick.color": INK, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
    "axes.grid": True, "grid.color": "#7f7f7f", "grid.alpha": 0.25, "grid.linewidth": 0.6,
    "font.family": "sans-serif", "font.size": 9, "legend.frameon": False, "lines.linewidth": 1.6,
    "svg.fonttype": "none", "svg.hashsalt": "dqn-exp", "text.parse_math": False,
}  # fmt: skip
SIZE = 4.6, 3.1  # inches: on a phone, letters of a figure of this width can still be read
STEPS, RETURN = "environment steps of each seed", "return per episode"


class Picture(NamedTuple):
    """A figure as files hold it."""

    name: str  # of its files
    caption: str
    svg: str
    png: bytes


def overview(groups: Sequence[Group], results: Sequence[Result]) -> Iterator[Picture]:
    """The figures that compare groups, in the order of the legend; none without data."""
    goal = results[0].target
    evaluated = [evaluation_curve(group.metric(EVALUATION)) for group in groups]
    if any(evaluated):
        caption = "Greedy evaluation during training: IQM over seeds with its 95 % bootstrap interval"
        yield _picture("evaluation", caption, SIZE, lambda f: _curves(f, groups, evaluated, goal))
    trained = [training_curve(group.episodes("return")) for group in groups]
    if any(trained):
        caption = (
            "Training return, mean of the last 100 episodes of each seed, with exploration: IQM over "
            "seeds with its 95 % bootstrap interval"
        )
        yield _picture("training", caption, SIZE, lambda f: _curves(f, groups, trained, goal))
    scored = [i for i, result in enumerate(results) if len(result.scores)]
    if scored:
        caption = "Final greedy evaluation: IQM with its 95 % bootstrap interval; each dot is a seed"
        size = SIZE[0], 1.1 + 0.3 * len(scored)
        yield _picture("final", caption, size, lambda f: _final(f, groups, results, scored))
        banded = len(scored) <= MOST_BANDS
        caption = (
            "Performance profile: the share of seeds whose final return is above a value"
            f"{', with its 95 % bootstrap interval' if banded else ''}. Further right and up is better"
        )
        yield _picture("profile", caption, SIZE, lambda f: _profiles(f, groups, results, scored))


def diagnostics(name: str, caption: str, group: Group) -> Picture | None:
    """The four curves of a run or group: episode durations, TD loss, V(s0), gradient norm."""
    panels = {
        "episode duration (steps)": training_curve(group.episodes("length")),
        "TD loss": evaluation_curve(group.metric("train/td_loss")),
        "V(s0) in evaluation": evaluation_curve(group.metric("eval/initial_state_value")),
        "gradient norm": evaluation_curve(group.metric("train/grad_norm")),
    }
    if not any(panels.values()):
        return None
    alone = list(group.episodes("length").values())
    single = alone[0] if len(alone) == 1 else None
    return _picture(name, caption, (SIZE[0], 4.0), lambda f: _panels(f, panels, single))


def _picture(
    name: str, caption: str, size: tuple[float, float], draw: Callable[[Figure], None]
) -> Picture:
    svg, png = io.StringIO(), io.BytesIO()
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a letter of a name that the font does not have
        figure = Figure(figsize=size, dpi=200, facecolor="white", layout="constrained")
        draw(figure)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # once is enough for both files, and takes the longest
        FigureCanvasAgg(figure).print_png(png)
        FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None})
    text = re.sub("<[^>]*>", lambda tag: _rounded(tag[0]), svg.getvalue())
    return Picture(name, caption, text, png.getvalue())


def _rounded(tag: str) -> str:
    """A tag with coordinates in hundredths of a point: no screen shows more; it halves the size."""
    return re.sub(r"(\d+\.\d\d)\d+", r"\1", tag)


def _look(i: int) -> dict[str, str]:
    """The colour and dashes of the i-th group."""
    return {"color": COLOURS[i % len(COLOURS)], "linestyle": DASHES[i // len(COLOURS) % len(DASHES)]}


def _curves(
    figure: Figure, groups: Sequence[Group], curves: Sequence[Curve | None], goal: float | None
) -> None:
    axes = figure.add_subplot()
    alpha = 0.16 if len(groups) <= MOST_BANDS else 0.07
    for i, (group, curve) in enumerate(zip(groups, curves, strict=True)):
        if curve:
            _line(axes, curve, _look(i), alpha, label=group.name)
    if goal is not None and axes.get_ylim()[1] > 0.8 * goal > 0:
        axes.axhline(goal, color=INK, linewidth=0.8, linestyle=":", zorder=1)
    axes.set(xlabel=STEPS, ylabel=RETURN)
    _steps_axis(axes)
    _legend(figure, axes)


def _line(
    axes: Axes, curve: Curve, look: Mapping[str, str], alpha: float, label: str | None = None
) -> None:
    """The line of a curve and its band; a curve of one point is a dot."""
    marker = "o" if len(curve.steps) == 1 else None
    axes.plot(curve.steps, curve.middle, marker=marker, markersize=3, label=_label(label), **look)  # type: ignore[arg-type]
    if curve.ends is not None:
        axes.fill_between(curve.steps, *curve.ends, color=look["color"], alpha=alpha, linewidth=0)


def _label(text: str | None) -> str | None:
    """A name for the legend, which leaves out those that begin with an underscore."""
    return text and f"\u200b{text}" if text and text.startswith("_") else text


def _steps_axis(axes: Axes) -> None:
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(lambda value, _: _short(value))
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))


def _short(value: float) -> str:
    """1500 -> 1.5k."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def _legend(figure: Figure, axes: Axes) -> None:
    """A legend above the axes, where it hides nothing; none for a single line."""
    handles, labels = axes.get_legend_handles_labels()
    if len(handles) > 1:
        columns = 1 if max(map(len, labels)) > 36 else 2 if max(map(len, labels)) > 14 else 3
        figure.legend(
            handles, labels, loc="outside upper left", ncols=columns, fontsize=8, handlelength=1.6
        )


def _final(
    figure: Figure, groups: Sequence[Group], results: Sequence[Result], scored: Sequence[int]
) -> None:
    axes = figure.add_subplot()
    for row, i in enumerate(scored):
        result, colour = results[i], _look(i)["color"]
        jitter = np.linspace(-0.12, 0.12, len(result.scores)) + row
        axes.plot(result.scores, jitter, "o", color=colour, markersize=3, alpha=0.45, markeredgewidth=0)
        if result.interval:
            axes.plot(result.interval, [row, row], color=colour, linewidth=4, alpha=0.5)
        axes.plot(result.iqm, row, "|", color=colour, markersize=14, markeredgewidth=2.5)
    axes.set_yticks(range(len(scored)), [_cut(groups[i].name) for i in scored])
    axes.set_ylim(len(scored) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.set(xlabel=f"final {RETURN}")


def _cut(name: str) -> str:
    return name if len(name) <= 32 else f"{name[:31]}…"


def _profiles(
    figure: Figure, groups: Sequence[Group], results: Sequence[Result], scored: Sequence[int]
) -> None:
    axes = figure.add_subplot()
    every = np.concatenate([results[i].scores for i in scored])
    margin = 0.03 * (np.ptp(every) or 1)
    grid = np.linspace(every.min() - margin, every.max() + margin, 120)
    for i in scored:
        share, ends = profile(results[i].scores, grid)
        look = _look(i)
        axes.plot(grid, share, drawstyle="steps-post", label=_label(groups[i].name), **look)  # type: ignore[arg-type]
        if len(results[i].scores) > 1 and len(scored) <= MOST_BANDS:
            axes.fill_between(grid, *ends, step="post", color=look["color"], alpha=0.1, linewidth=0)
    axes.set(xlabel=f"final {RETURN}", ylabel="share of seeds above it", ylim=(-0.02, 1.02))
    _legend(figure, axes)


def _panels(figure: Figure, panels: Mapping[str, Curve | None], alone: Series | None) -> None:
    """Four curves side by side; behind the first, the single episodes if there is one seed."""
    grid = figure.subplots(2, 2)
    for (title, curve), axes in zip(panels.items(), grid.flat, strict=True):
        if curve is None:
            axes.text(0.5, 0.5, "no values", ha="center", transform=axes.transAxes)
            axes.set(xticks=[], yticks=[])
        else:
            _line(axes, curve, _look(0), alpha=0.2)
            _steps_axis(axes)
        axes.set_title(title, fontsize=9, loc="left")
    if alone is not None:
        every = max(1, len(alone.steps) // 300)
        grid[0, 0].plot(
            alone.steps[::every], alone.values[::every], ".", color="#7f7f7f", markersize=2, zorder=1
        )
    figure.supxlabel(STEPS, fontsize=9)
