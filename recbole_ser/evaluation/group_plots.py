"""Plots of user groups: their sizes, each run's metrics, and which groups gain (GSERec, Fig. 1, 2 and 5)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from recbole_ser.evaluation.group_report import GroupReport
from recbole_ser.evaluation.groups import ALL
from recbole_ser.plotting import COLOURS, figure_in, legend_above

_BAR = 0.8  # width of all bars of one group together
_AXIS = "searches before the (first) test target"


def write_plots(report: GroupReport, folder: Path) -> None:
    """Write ``group_sizes``, ``<metric>`` and, for several runs, ``<metric>_improvement`` to ``folder``: PNG and PDF.

    Raises:
        UserError: matplotlib is not installed.
    """
    with _axes(folder / "group_sizes", report.groups) as axes:
        _bars(axes, {"tested users": report.users, "all users, by all their searches": report.all_users})
        axes.set_ylabel("users")
    for metric in report.metrics:
        with _axes(folder / metric, [*report.groups, ALL]) as axes:
            _bars(axes, {name: _values(report, metric, name) for name in report.runs})
            axes.set_ylabel(metric)
        if len(report.runs) > 1:
            with _axes(folder / f"{metric}_improvement", [*report.groups, ALL]) as axes:
                _improvements(axes, report, metric)


@contextmanager
def _axes(stem: Path, labels: list[str]) -> Iterator[Any]:
    """The axes of a plot with a place for each group, written to ``stem.png`` and ``stem.pdf`` when the block ends."""
    paths = [stem.with_name(stem.name + suffix) for suffix in (".png", ".pdf")]
    with figure_in(*paths, size=(6.4, 3.6)) as figure:
        axes = figure.add_subplot()
        axes.set_xticks(range(len(labels)), labels)
        axes.set_xlabel(_AXIS)
        axes.spines[["top", "right"]].set_visible(False)
        yield axes
        legend_above(figure, columns=3)


def _values(report: GroupReport, metric: str, name: str) -> list[float]:
    """The metric of one run in every group; a group without users gets a bar of no height."""
    return [report.row(metric, label, name).value or 0.0 for label in [*report.groups, ALL]]


def _bars(axes: Any, series: dict[str, list[Any]]) -> None:
    width = _BAR / len(series)
    for (name, heights), offset, colour in zip(series.items(), _offsets(len(series)), _colours(len(series))):
        axes.bar(np.arange(len(heights)) + offset, heights, width, label=name, color=colour)


def _improvements(axes: Any, report: GroupReport, metric: str) -> None:
    """A point with its 95 % interval for each later run and group; what could not be computed is left out."""
    first, *later = report.runs
    axes.axhline(0.0, color="0.6", linewidth=0.8)
    for name, offset, colour in zip(later, _offsets(len(later)), _colours(len(later) + 1)[1:]):
        gains = [report.row(metric, label, name).gain for label in [*report.groups, ALL]]
        known = [(place, gain) for place, gain in enumerate(gains) if gain is not None and gain.percent is not None]
        places = [place + offset for place, _ in known]
        axes.plot(places, [gain.percent for _, gain in known], "o", color=colour, label=name)
        bounded = [(place, gain) for place, (_, gain) in zip(places, known) if gain.low is not None]
        axes.vlines(
            [place for place, _ in bounded],
            [gain.low for _, gain in bounded],
            [gain.high for _, gain in bounded],
            color=colour,
        )
    axes.set_ylabel(f"{metric} over {first}, per cent")


def _offsets(count: int) -> np.ndarray:
    return (np.arange(count) - (count - 1) / 2) * _BAR / count


def _colours(count: int) -> list[str]:
    return [COLOURS[number % len(COLOURS)] for number in range(count)]
