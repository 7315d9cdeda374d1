"""What a study would run, and what that costs at most, from a few training steps and evaluated rows of each model."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from recbole.utils import init_seed
from tabulate import tabulate

from recbole_ser.config import SERConfig
from recbole_ser.data.candidates import CandidateTable
from recbole_ser.data.loader import EvalLoader, TrainLoader
from recbole_ser.errors import UserError
from recbole_ser.evaluation.ranking import rank_targets
from recbole_ser.model.building import build_model
from recbole_ser.model.foreign import candidate_scorer, with_history
from recbole_ser.runner import prepare
from recbole_ser.study.cells import Cell, Group, inputs_to_make
from recbole_ser.study.declaration import Study
from recbole_ser.train.optimization import build_adam

_STEPS, _ROWS = 10, 1024  # training steps and evaluated rows that are measured


@dataclass(frozen=True)
class Planned:
    """What is left to do for one row on one data set.

    Args:
        group: the row and the data set.
        runs: number of runs that are not finished.
        trials: number of trials of its sweep, 0 if it is tuned already or is not to be.
        minutes: CPU minutes at most of all of it, NaN if they were not measured.
        note: why they were not.
    """

    group: Group
    runs: int
    trials: int
    minutes: float
    note: str


def planned(study: Study, group: Group) -> Planned:
    """What is left to do for ``group``; nothing is downloaded or made to find out what it costs."""
    tuned = group.tuned_values()
    runs = sum(not Cell(group, seed).is_finished() for seed in study.seeds)
    trials, sweep_epochs = 0, 0
    if group.row.tuning is not None and tuned is None:
        trials, sweep_epochs = group.row.tuning.trials, group.row.tuning.epochs
    config = group.config(study.seeds[0], tuned)
    if missing := inputs_to_make(config):
        return Planned(group, runs, trials, math.nan, f"not there yet: {missing[0]}")
    if not runs:
        return Planned(group, 0, trials, 0.0, "")
    try:
        epoch, test = cpu_seconds(config)
    except UserError as error:
        return Planned(group, runs, trials, math.nan, str(error))
    seconds = runs * (config["epochs"] * epoch + test) + trials * sweep_epochs * epoch
    return Planned(group, runs, trials, seconds / 60, "")


def cpu_seconds(config: SERConfig) -> tuple[float, float]:
    """CPU seconds of an epoch, with its validation, and of the test, from a part of each; loading is left out.

    Raises:
        UserError: see ``runner.prepare``.
    """
    prepared = prepare(config)
    init_seed(config["seed"], config["reproducibility"])
    model = build_model(config, prepared.dataset)
    training, valid, test = prepared.training(), prepared.targets("valid"), prepared.targets("test")
    validation = valid.rows / config["eval_step"]  # rows in an epoch
    step, row = _of_a_step(model, config, training), _of_a_row(model, config, valid)
    return len(training) * step + validation * row, test.rows * row


def _of_a_step(model: Any, config: SERConfig, loader: TrainLoader) -> float:
    """CPU seconds of a training step: loading, both passes, and Adam; the first step does not count."""
    optimizer = build_adam(model, "adam", config["learning_rate"], config["weight_decay"])
    model.train()
    times = [time.process_time()]
    for batch in itertools.islice(loader, _STEPS + 1):
        optimizer.zero_grad()
        losses = model.calculate_loss(with_history(model, batch.to(config["device"])))
        several = losses if isinstance(losses, tuple) else (losses,)
        torch.stack([loss.sum() for loss in several]).sum().backward()
        optimizer.step()
        times.append(time.process_time())
    steps = [later - earlier for earlier, later in zip(times, times[1:])]
    return sum(steps[1:] or steps) / len(steps[1:] or steps)


@torch.no_grad()
def _of_a_row(model: Any, config: SERConfig, loader: EvalLoader) -> float:
    """CPU seconds of ranking the candidates of a target; ``loader`` keeps its first rows alone."""
    model.eval()
    rows = min(_ROWS, loader.rows)
    loader.rows, loader.positions = rows, loader.positions[:rows]
    if loader.candidates is not None:
        loader.candidates = CandidateTable(loader.candidates.items[:rows], loader.candidates.positive_column[:rows])
    start = time.process_time()
    rank_targets(candidate_scorer(model), loader, config["device"], config["model"])
    return (time.process_time() - start) / rows


def plan_table(plans: Sequence[Planned], at_once: int | None) -> str:
    """The plans as a table, with their sum; ``at_once`` is the number of runs at the same time, as far as known."""
    header = ["row", "data set", "runs", "trials", "CPU min at most"]
    cells = [
        [plan.group.row.title, plan.group.dataset, plan.runs, plan.trials, plan.note or f"{plan.minutes:,.1f}"]
        for plan in plans
    ]
    known = [plan.minutes for plan in plans if not math.isnan(plan.minutes)]
    unknown = f", and {len(plans) - len(known)} rows that were not measured" if len(plans) > len(known) else ""
    together = "as many at once as the cluster can do" if at_once is None else f"{at_once} at once"
    lines = [
        tabulate(cells, header, disable_numparse=True, colalign=["left", "left", "right", "right", "left"]),
        "",
        f"together at most {sum(known):,.0f} CPU minutes{unknown}, {together}",
        "(all epochs are counted, and most models stop earlier; loading is left out)",
    ]
    return "\n".join(lines)
