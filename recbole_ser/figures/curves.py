"""Learning curves: a validation metric and the loss after each epoch, of runs that are finished or not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from recbole_ser.comparison.rows import run_names
from recbole_ser.errors import ConfigError, UserError
from recbole_ser.evaluation.metrics import Metric
from recbole_ser.figures.paper import PaperFigure, check_labels
from recbole_ser.plotting import COLOURS, legend_above
from recbole_ser.runs.folder import RunFolder

_DASHES = ("-", "--", ":", "-.")  # so that lines are told apart without colours


def curves_figure(
    runs: Sequence[str | Path], labels: Sequence[str] = (), metric: str | None = None, against: str = "epoch"
) -> PaperFigure:
    """The figure of the runs in the folders ``runs``: a line for each, and a point at its best epoch.

    Args:
        labels: a name for each run; by default those of comparisons.
        metric: the validation metric; by default the one that chose the first run's epoch.
        against: ``epoch``, or ``cpu`` for CPU minutes since the start of training.

    Raises:
        UserError: a folder is not that of a run, or no epoch of it has been evaluated.
        ConfigError: there are other numbers of runs and labels; a metric was not computed.
    """
    if against not in ("epoch", "cpu"):
        raise ConfigError(f"--against {against}: use epoch or cpu")
    check_labels(labels, runs)
    folders = [RunFolder.load(path) for path in runs]
    name = Metric.parse(metric or folders[0].config()["valid_metric"]).key
    names = labels or run_names(folders)
    numbers = pd.concat([_curve(run, folder, name) for run, folder in zip(names, folders)], ignore_index=True)
    best = numbers.loc[numbers.groupby("run", sort=False)[name].idxmax()].reset_index(drop=True)
    table = best.assign(epochs=numbers.groupby("run", sort=False)["epoch"].max().to_numpy() + 1)
    caption = (
        f"{Metric.parse(name).title} in validation (points: each run's best epoch) and, relative to the first epoch, "
        "the sum of the weighted training losses."
    )
    column = {"epoch": "epoch", "cpu": "cpu_minutes"}[against]
    size = (6.4, 2.6)
    return PaperFigure("curves", caption, table, numbers, size, lambda figure: _draw(figure, numbers, name, column))


def _curve(run: str, folder: RunFolder, metric: str) -> pd.DataFrame:
    lines = folder.metrics()
    if not lines:
        raise UserError(f"{folder.path}: no epoch of this run has been evaluated yet")
    if metric not in lines[0]["valid"]:
        raise ConfigError(f"{folder.path}: {metric} was not computed: it has {', '.join(lines[0]['valid'])}")
    minutes = pd.Series([line["cpu_seconds"] for line in lines]).cumsum() / 60
    return pd.DataFrame(
        {
            "run": run,
            "epoch": [line["epoch"] for line in lines],
            "cpu_minutes": minutes,
            metric: [line["valid"][metric] for line in lines],
            "loss": [sum(line["losses"].values()) for line in lines],
        }
    )


def _draw(figure: Any, numbers: pd.DataFrame, metric: str, column: str) -> None:
    left, right = figure.subplots(1, 2)
    for number, (run, curve) in enumerate(numbers.groupby("run", sort=False)):
        look = {"color": COLOURS[number % len(COLOURS)], "linestyle": _DASHES[number % len(_DASHES)], "linewidth": 1.2}
        left.plot(curve[column], curve[metric], label=run, **look)
        best = curve.iloc[int(curve[metric].argmax())]
        left.plot(best[column], best[metric], "o", color=look["color"], markersize=4)
        right.plot(curve[column], curve["loss"] / curve["loss"].iloc[0], **look)
    for axes, title in (
        (left, f"{Metric.parse(metric).title} (validation)"),
        (right, "training loss / that of the first epoch"),
    ):
        axes.set_ylabel(title)
        axes.set_xlabel({"epoch": "epoch", "cpu_minutes": "CPU minutes"}[column])
        axes.xaxis.get_major_locator().set_params(integer=True)
    legend_above(figure, columns=3)
