"""A learning curve over seeds, as a picture."""

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np

from dqn_exp.statistics import confidence_interval, interquartile_mean

TAG = "eval/return_mean"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")  # Okabe & Ito's, told apart by everyone


def curve(runs: list[Path], out: Path) -> None:
    """IQM of the greedy evaluations over seeds, with its 95 % bootstrap interval, for each run."""
    from matplotlib import pyplot as plt

    plt.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "dqn-exp", "font.family": "sans-serif"}
    figure, axes = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
    for run, colour in zip(runs, COLOURS, strict=False):
        by_step = evaluations(run)
        steps = sorted(by_step)
        scores = [np.array(by_step[step]) for step in steps]
        band = np.array([confidence_interval(s) or (s[0], s[0]) for s in scores])
        label = f"{run.name} ({len(scores[0])} seeds)"
        axes.plot(steps, [float(interquartile_mean(s)) for s in scores], color=colour, label=label)
        axes.fill_between(steps, *band.T, color=colour, alpha=0.2, linewidth=0)
    axes.set(xlabel="env steps of each seed", ylabel="greedy return, IQM and 95 % interval")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, metadata={"Date": None} if out.suffix == ".svg" else None)
    plt.close(figure)
    print(f"-> {out}")


def evaluations(run: Path) -> dict[int, list[float]]:
    """Env step -> mean greedy return of each seed, from a run's metrics.csv."""
    by_step: dict[int, list[float]] = defaultdict(list)
    with (run / "metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["tag"] == TAG:
                by_step[int(row["step"])].append(float(row["value"]))
    return by_step
