"""Metrics against the weights of losses, or against any other key of a sweep (SESRec, Figure 5; GSERec, Figure 7)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbole_ser.errors import ConfigError, UserError
from recbole_ser.evaluation.metrics import Metric
from recbole_ser.figures.paper import PaperFigure
from recbole_ser.plotting import legend_above
from recbole_ser.runs.folder import RunFolder
from recbole_ser.runs.sweep_folder import SweepFolder, Trial
from recbole_ser.tuning.live import short
from recbole_ser.tuning.plan import Plan
from recbole_ser.tuning.plots import draw_against, drawn
from recbole_ser.tuning.space import Dimension

OTHERS = ("best", "fixed")


@dataclass(frozen=True)
class Sweep:
    """A finished sweep; ``trials`` are those with a result, and ``metric`` is the validation metric that chooses."""

    path: Path
    plan: Plan
    trials: list[Trial]
    chosen: Trial
    metric: str
    model: str
    dataset: str


@dataclass(frozen=True)
class Panel:
    """One panel: a swept key and the trials that are drawn against it; ``others`` says what became of other keys."""

    sweep: Sweep
    dimension: Dimension
    trials: list[Trial]
    others: str
    line: bool


def weights_figure(
    sweeps: Sequence[str | Path], keys: Sequence[str] = (), metrics: Sequence[str] = (), others: str = "best"
) -> PaperFigure:
    """The figure of the finished sweeps in the folders ``sweeps``: a panel for each swept key of each of them.

    Args:
        keys: the keys that get a panel; by default all.
        metrics: one or two metrics; by default those that the first sweep plots.
        others: which trials are drawn where several keys are varied.  ``best``: for each value of a panel's key the
            trial that is best in validation, whatever its other keys; ``fixed``: those whose other keys have the values
            of the chosen trial.

    Raises:
        UserError: a folder holds no finished sweep.
        ConfigError: a key is not swept, a metric was not computed, there are more than two metrics, or no two trials
            have the fixed values.
    """
    if others not in OTHERS:
        raise ConfigError(f"--others {others}: use any of {', '.join(OTHERS)}")
    read = [read_sweep(Path(path)) for path in sweeps]
    swept = [dimension.key for sweep in read for dimension in sweep.plan.space]
    for key in keys:
        if key not in swept:
            raise ConfigError(f"--keys {key}: not swept: use any of {', '.join(dict.fromkeys(swept))}")
    shown = [Metric.parse(name).key for name in metrics] or read[0].plan.plotted(read[0].metric)
    _check_metrics(shown, read)
    panels = [
        _panel(sweep, dimension, others)
        for sweep in read
        for dimension in sweep.plan.space
        if not keys or dimension.key in keys
    ]
    numbers = pd.DataFrame([row for panel in panels for row in _rows(panel, shown)])
    about = dict.fromkeys(f"{panel.sweep.model} on {panel.sweep.dataset}" for panel in panels)
    treated = "; ".join(f"{panel.dimension.key}: {panel.others}" for panel in panels)
    titles = " and ".join(Metric.parse(name).title for name in shown)
    caption = (
        f"{titles} in validation, at each trial's best epoch, against swept settings of "
        f"{', '.join(about)}. The other swept settings in each panel: {treated}."
    )
    table = numbers.drop(columns=["others", *(["model", "dataset"] if len(about) == 1 else [])])
    table["value"] = table["value"].map(short)
    size = (0.2 + 3.2 * len(panels), 2.6)
    return PaperFigure("weights", caption, table, numbers, size, lambda figure: _draw(figure, panels, shown))


def read_sweep(path: Path) -> Sweep:
    """The finished sweep in the folder ``path``.

    Raises:
        UserError: there is none.
    """
    folder = SweepFolder.load(path)
    tested = folder.result()
    if tested is None:
        raise UserError(f"{path}: this sweep is not finished: go on with 'recbole-ser tune --resume={path}'")
    number, result = tested
    metric = RunFolder.load(folder.trial(number).path).config()["valid_metric"].lower()
    trials = drawn(folder.read_trials(metric))
    chosen = next(trial for trial in trials if trial.number == number)
    plan = Plan.from_json(folder.content()["plan"], f"{folder.path / 'sweep.json'}")
    return Sweep(path, plan, trials, chosen, metric, result.model, result.dataset)


def _check_metrics(names: Sequence[str], sweeps: Sequence[Sweep]) -> None:
    if len(names) > 2:
        raise ConfigError(f"--metrics {','.join(names)}: one or two fit in a panel")
    for sweep in sweeps:
        for name in names:
            if name not in sweep.chosen.valid:
                raise ConfigError(f"{sweep.path}: {name} was not computed: it has {', '.join(sweep.chosen.valid)}")


def _panel(sweep: Sweep, dimension: Dimension, others: str) -> Panel:
    """The panel of one swept key.

    Raises:
        ConfigError: other keys are to be fixed, and no two trials have the values of the chosen one.
    """
    key, rest = dimension.key, [other.key for other in sweep.plan.space if other.key != dimension.key]
    if not rest:
        return Panel(sweep, dimension, _one_each(key, sweep), "there are none", line=True)
    if others == "best":
        over = f"over {', '.join(rest)}"
        if dimension.kind in ("uniform", "loguniform"):
            return Panel(sweep, dimension, sweep.trials, f"every trial is drawn, {over}", line=False)
        best = f"the trial with the best {Metric.parse(sweep.metric).title}, {over}"
        return Panel(sweep, dimension, _one_each(key, sweep), best, line=True)
    values = {other: sweep.chosen.values[other] for other in rest}
    fixed = [trial for trial in sweep.trials if all(trial.values[other] == values[other] for other in rest)]
    words = ", ".join(f"{other} = {short(value)}" for other, value in values.items())
    if len(fixed) < 2:
        raise ConfigError(f"{sweep.path}: --others fixed: only one trial has {words}: use --others best")
    return Panel(sweep, dimension, _one_each(key, replace(sweep, trials=fixed)), f"fixed at {words}", line=True)


def _one_each(key: str, sweep: Sweep) -> list[Trial]:
    """The best trial for each value of ``key``, in the order in which the values were first tried."""
    values: list[Any] = []
    for trial in sweep.trials:
        if trial.values[key] not in values:
            values.append(trial.values[key])
    of_values = [[trial for trial in sweep.trials if trial.values[key] == value] for value in values]
    return [max(trials, key=lambda trial: (trial.score, -trial.number)) for trials in of_values]


def _rows(panel: Panel, metrics: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A line of the numbers for each trial that is drawn."""
    for trial in panel.trials:
        rest = {key: value for key, value in trial.values.items() if key != panel.dimension.key}
        yield {
            "model": panel.sweep.model,
            "dataset": panel.sweep.dataset,
            "key": panel.dimension.key,
            "value": trial.values[panel.dimension.key],
            **{name: trial.valid[name] for name in metrics},
            "trial": trial.number,
            "status": trial.status,
            "other keys": ", ".join(f"{key}={value}" for key, value in rest.items()),
            "others": panel.others,
        }


def _draw(figure: Any, panels: Sequence[Panel], metrics: Sequence[str]) -> None:
    for panel, axes in zip(panels, np.atleast_1d(figure.subplots(1, len(panels)))):
        draw_against(axes, panel.dimension, panel.trials, metrics, panel.line)
    legend_above(figure, columns=3)
