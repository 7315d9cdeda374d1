"""Plots of a sweep: the metrics against each swept value, and all of them at once in parallel coordinates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recbole_ser.evaluation.metrics import Metric
from recbole_ser.plotting import COLOURS, figure_in, legend_above
from recbole_ser.runs.sweep_folder import FAILED, KILLED, STOPPED, Trial
from recbole_ser.tuning.live import short
from recbole_ser.tuning.plan import Plan
from recbole_ser.tuning.space import Dimension

# For the left axis and the right: colour, marker, line, and the share of the height that stays free below and above;
# without that, two metrics that agree would lie on each other.
_STYLES = ((COLOURS[0], "o", "-", (0.3, 0.1)), (COLOURS[1], "s", "--", (0.1, 0.3)))


def write_plots(plan: Plan, trials: Sequence[Trial], folder: Path, metric: str) -> None:
    """Write ``<key>.png`` for each swept key and, if there are more than two, ``parallel.png``.

    Args:
        plan: the plan of the sweep.
        trials: all trials; failed and killed ones are left out.
        folder: where the plots are written.
        metric: the validation metric that chooses.

    Raises:
        UserError: matplotlib is not installed.
    """
    trials = drawn(trials)
    for dimension in plan.space:
        with figure_in(folder / f"{dimension.key}.png", size=(4.8, 3.4)) as figure:
            axes = figure.add_subplot()
            draw_against(axes, dimension, trials, plan.plotted(metric), line=len(plan.space) == 1)
            legend_above(figure, columns=4)
    if len(plan.space) > 2:
        with figure_in(folder / "parallel.png", size=(1.6 * len(plan.space) + 2.4, 4.0)) as figure:
            _parallel(figure, plan.space, trials, metric)


def drawn(trials: Sequence[Trial]) -> list[Trial]:
    """The trials that have a result: failed and killed ones are left out."""
    return [trial for trial in trials if trial.scores and trial.status not in (FAILED, KILLED)]


def draw_against(left: Any, dimension: Dimension, trials: Sequence[Trial], metrics: Sequence[str], line: bool) -> None:
    """Plot one metric on the left axis and one on the right, as in Figure 5 of SESRec and Figure 7 of GSERec.

    Trials that were given up early have hollow markers: their metrics come from fewer epochs.

    Args:
        left: the left axes, to which those for a second metric are added.
        dimension: the swept key.
        trials: trials with a result, see `drawn`.
        metrics: names of one or two metrics, as in results.
        line: whether the points of a metric are joined.
    """
    scale = _Scale(dimension)
    scale.label_axis(left)
    left.set_xlabel(dimension.key)
    places = np.array([scale.place(trial.values[dimension.key]) for trial in trials])
    stopped = np.array([trial.status == STOPPED for trial in trials])
    for number, (metric, (colour, marker, style, free)) in enumerate(zip(metrics, _STYLES)):
        axes = left.twinx() if number else left
        title = Metric.parse(metric).title
        values = np.array([trial.valid[metric] for trial in trials])
        if line:
            order = np.argsort(places)
            axes.plot(places[order], values[order], style, color=colour, linewidth=1.2)
        axes.plot(places[~stopped], values[~stopped], marker, color=colour, label=title)
        if stopped.any():
            axes.plot(places[stopped], values[stopped], marker, color=colour, fillstyle="none", label="given up early")
        low, high = values.min(), values.max()
        height = (high - low) or 0.1
        axes.set_ylim(low - free[0] * height, high + free[1] * height)
        axes.set_ylabel(f"{title}, validation", color=colour)
        axes.ticklabel_format(axis="y", useOffset=False)
        axes.spines["top"].set_visible(False)
        axes.spines["right"].set_visible(bool(number))


def _parallel(figure: Any, space: Sequence[Dimension], trials: Sequence[Trial], metric: str) -> None:
    """Draw a line per trial through its values, coloured by the metric; the best one is thick and on top."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    axes = figure.add_subplot()
    scores = np.array([trial.valid[metric] for trial in trials])
    colours = ScalarMappable(Normalize(scores.min(), scores.max()), colormaps["viridis"])
    scales = [_Scale(dimension) for dimension in space]
    for trial, score in sorted(zip(trials, scores), key=lambda pair: pair[1]):
        heights = [scale.height(trial.values[scale.key]) for scale in scales]
        best = score == scores.max()
        axes.plot(range(len(space)), heights, color=colours.to_rgba(score), linewidth=3 if best else 1,
                  linestyle=":" if trial.status == STOPPED else "-")  # fmt: skip
    box = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"}
    for place, scale in enumerate(scales):
        axes.axvline(place, color="0.7", linewidth=0.8, zorder=0)
        for value in scale.ticks():
            where = {"xytext": (3, 0), "textcoords": "offset points", "va": "center"}
            axes.annotate(short(value), (place, scale.height(value)), **where, fontsize=7, bbox=box)
    axes.set_xticks(range(len(space)), [dimension.key for dimension in space])
    axes.set_yticks([])
    axes.set_xlim(-0.1, len(space) - 0.6)
    axes.spines[:].set_visible(False)
    figure.colorbar(colours, ax=axes, label=f"{metric}, validation")
    if any(trial.status == STOPPED for trial in trials):
        axes.set_title("dotted: given up early", fontsize="small", loc="left")


class _Scale:
    """Places the values of a swept key on an axis: by size, by logarithm or, for listed values, by index."""

    def __init__(self, dimension: Dimension) -> None:
        self.key, self.kind, self.values = dimension.key, dimension.kind, dimension.values

    def place(self, value: Any) -> float:
        return float(self.values.index(value)) if self.kind == "choice" else float(value)

    def height(self, value: Any) -> float:
        """The height of ``value``, from 0 for the lowest value to 1 for the highest."""
        if self.kind == "choice":
            return self.values.index(value) / max(len(self.values) - 1, 1)
        measure = math.log if self.kind == "loguniform" else float
        low, high = map(measure, self.values)
        return (measure(value) - low) / (high - low)

    def ticks(self) -> list[Any]:
        if self.kind != "loguniform":
            return list(self.values)
        low, high = (math.log10(value) for value in self.values)
        steps = (1,) if high - low >= 2 else (1, 2, 5)
        powers = range(math.floor(low), math.ceil(high) + 1)
        # Parsed from text, so that ten to the power of -3 is exactly 0.001.
        marks = [float(f"{step}e{power}") for power in powers for step in steps]
        return [mark for mark in marks if self.values[0] <= mark <= self.values[1]] or list(self.values)

    def label_axis(self, axes: Any) -> None:
        if self.kind == "choice":
            axes.set_xticks(range(len(self.values)), [short(value) for value in self.values])
        elif self.kind == "loguniform":
            axes.set_xscale("log")
            axes.set_xticks(self.ticks(), map(short, self.ticks()))
            axes.minorticks_off()
