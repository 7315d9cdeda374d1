"""What the figures of papers have in common: their files, and how they read runs."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from tabulate import tabulate

from recbole_ser.comparison.rows import run_names
from recbole_ser.errors import ConfigError, UserError
from recbole_ser.evaluation.tested_runs import refuse_other_targets
from recbole_ser.files import atomic_write
from recbole_ser.plotting import PAPER, figure_in
from recbole_ser.runs.folder import RunFolder
from recbole_ser.runs.loading import finished_run

_WIDTH = 100  # characters of a line of text


@dataclass(frozen=True)
class PaperFigure:
    """A figure that is ready to be drawn.

    Args:
        name: what its files are called.
        caption: what it shows and how that was computed, in whole sentences.
        table: the numbers in short, for the terminal.
        numbers: all numbers that are drawn.
        size: width and height in inches.
        draw: draws it into an empty figure of matplotlib.
    """

    name: str
    caption: str
    table: pd.DataFrame
    numbers: pd.DataFrame
    size: tuple[float, float]
    draw: Callable[[Any], None]

    def text(self) -> str:
        """The caption and the table."""
        columns = {name: _cells(column) for name, column in self.table.items()}
        table = tabulate(columns, headers="keys", tablefmt="simple", disable_numparse=True, colalign=self._alignment())
        return f"{textwrap.fill(self.caption, _WIDTH, break_on_hyphens=False)}\n\n{table}"

    def _alignment(self) -> list[str]:
        return ["right" if pd.api.types.is_numeric_dtype(column) else "left" for _, column in self.table.items()]

    def write(self, folder: Path) -> None:
        """Write ``NAME.csv`` (the numbers), ``NAME.txt`` (the caption and the table), ``NAME.png`` and ``NAME.pdf``.

        Raises:
            UserError: matplotlib is not installed.
        """
        with atomic_write(folder / f"{self.name}.csv") as handle:
            self.numbers.to_csv(handle, index=False, lineterminator="\n")
        with atomic_write(folder / f"{self.name}.txt") as handle:
            handle.write(self.text() + "\n")
        paths = [folder / f"{self.name}.{suffix}" for suffix in ("png", "pdf")]
        with figure_in(*paths, size=self.size, style=PAPER) as figure:
            self.draw(figure)


def _cells(column: pd.Series) -> list[str]:
    """The entries of a column as a table shows them: fractions to four decimals, large numbers with commas."""
    if pd.api.types.is_float_dtype(column):
        return [f"{value:.4f}" for value in column]
    return [f"{value:,}" for value in column] if pd.api.types.is_integer_dtype(column) else list(map(str, column))


def comparable_runs(paths: Sequence[str | Path], labels: Sequence[str]) -> list[tuple[str, RunFolder]]:
    """The finished runs at ``paths``, each with its name: one of ``labels`` or, without any, as comparisons name it.

    Raises:
        UserError: a folder holds no finished run, or the runs are of different data.
        ConfigError: there are other numbers of runs and labels, or a label is given twice.
    """
    check_labels(labels, paths)
    folders = [finished_run(path) for path in paths]
    for other in folders[1:]:
        refuse_other_targets(folders[0], other)
    return list(zip(labels or run_names(folders), folders))


def check_labels(labels: Sequence[str], paths: Sequence[str | Path]) -> None:
    """Refuse labels, if there are any, that do not name each of the runs at ``paths``.

    Raises:
        ConfigError: there are other numbers of runs and labels, or a label is given twice.
    """
    if labels and (len(labels) != len(paths) or len(set(labels)) < len(labels)):
        raise ConfigError(f"--labels {','.join(labels)}: give each of the {len(paths)} runs a name of its own")


def of_model(model: Any, folder: RunFolder, method: str, need: str) -> Callable[..., Any]:
    """The ``method`` of a run's model from which a figure is drawn.

    Args:
        need: what the model must do, in words.

    Raises:
        UserError: the model has no such method.
    """
    found = getattr(model, method, None)
    if found is None:
        raise UserError(f"{folder.path}: its model, {folder.model_name()}, does not {need}: choose a run of another")
    return found


def wrapped(name: str, width: int) -> str:
    """The name of a run on lines of about ``width`` characters, for an axis."""
    return textwrap.fill(name, width, break_long_words=False)
