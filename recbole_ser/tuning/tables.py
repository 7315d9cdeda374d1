"""The results of a sweep, as files for other tools and as a table for the terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from recbole_ser.files import atomic_write
from recbole_ser.runs.sweep_folder import FAILED, KILLED, SweepFolder, Trial
from recbole_ser.tuning.live import WIDTH, rank, trial_table
from recbole_ser.yaml_values import Dumper

_SHOWN = 20  # number of trials in the printed table


def write_tables(folder: SweepFolder, trials: list[Trial]) -> None:
    """Write ``trials.csv`` and ``trials.jsonl``, with a line per trial in the order of the numbers."""
    rows = [trial.row() for trial in trials]
    with atomic_write(folder.path / "trials.csv") as handle:
        pd.DataFrame(rows).to_csv(handle, index=False, lineterminator="\n")
    with atomic_write(folder.path / "trials.jsonl") as handle:
        handle.writelines(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)


def write_best(path: Path, values: dict[str, Any], command: str) -> None:
    """Write the chosen configuration to ``path`` (``best.yaml``), in the form that ``--config_files`` takes.

    Args:
        values: the values that differ from the defaults for the model and the data set.
        command: the command that runs this configuration, for the first line.
    """
    with atomic_write(path) as handle:
        handle.write(f"# {command}\n")
        yaml.dump(values, handle, Dumper=Dumper, sort_keys=True, allow_unicode=True)


def sweep_table(trials: list[Trial], metric: str, width: int = WIDTH) -> str:
    """The best trials first, no wider than ``width``, then every failure with its configuration."""
    order = sorted(trials, key=rank)
    lines = trial_table(order[:_SHOWN], metric, width)
    if len(order) > _SHOWN:
        lines.append(f"{'':>5}  and {len(order) - _SHOWN} more in trials.csv")
    for trial in trials:
        if trial.status in (FAILED, KILLED):
            lines.append(failure_line(trial))
    return "\n".join(lines)


def failure_line(trial: Trial) -> str:
    """One line about a trial that failed: its status, its whole configuration and its error."""
    values = ", ".join(f"{key}={value}" for key, value in trial.values.items())
    return f"trial {trial.number} {trial.status} ({values}): {trial.error}"
