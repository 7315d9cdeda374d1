"""The tables of sweeps and studies in a terminal, while they run."""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import replace
from typing import Any, TextIO

from recbole_ser.runs.result import duration
from recbole_ser.runs.sweep_folder import FAILED, FINISHED, KILLED, RUNNING, STOPPED, WAITING, Trial

WIDTH = 80  # columns of output that does not go to a terminal
_ROWS = 15  # rows of the table: first the trials that are running, then the best
_FACTS = ((">", 5), ("<", 8), (">", 6), (">", 9), (">", 7))  # alignment and smallest width of the first columns
_COLUMN = range(24, 7, -1)  # characters that a swept key's column may have: the most with which all columns fit
_PAUSE = 0.5  # seconds between two drawings


class LiveLines:
    """Lines that are drawn again in place in a terminal; anywhere else nothing is printed.

    Args:
        stream: where they are drawn, by default standard error.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = sys.stderr if stream is None else stream
        self.visible = self.stream.isatty()
        self.began, self._drawn_at, self._lines = time.monotonic(), 0.0, 0

    def lines(self, width: int = WIDTH) -> list[str]:
        """The lines as they are now, none wider than ``width``."""
        raise NotImplementedError

    def refresh(self) -> None:
        """Draw the lines again, unless they were drawn a moment ago."""
        if self.visible and time.monotonic() - self._drawn_at >= _PAUSE:
            self._draw()

    def close(self, erase: bool) -> None:
        """Draw the lines a last time or, if something else is printed in their place, erase them."""
        if self.visible and erase:
            self.stream.write(f"\x1b[{self._lines}A\x1b[J" if self._lines else "")
        elif self.visible:
            self._draw()

    def _draw(self) -> None:
        lines = self.lines(terminal_width())
        up = f"\x1b[{self._lines}A" if self._lines else ""
        self.stream.write(up + "".join(f"\x1b[2K{line}\n" for line in lines) + "\x1b[J")
        self.stream.flush()
        self._drawn_at, self._lines = time.monotonic(), len(lines)


def terminal_width() -> int:
    """Columns of the terminal, or of output that does not go to one."""
    return shutil.get_terminal_size((WIDTH, 24)).columns


class LiveTable(LiveLines):
    """The table of a sweep.

    Args:
        total: number of trials of the sweep.
        metric: the validation metric that chooses.
        stream: where the table is drawn, by default standard error.
    """

    def __init__(self, total: int, metric: str, stream: TextIO | None = None) -> None:
        super().__init__(stream)
        self.total, self.metric = total, metric
        self.trials: dict[int, Trial] = {}

    def show(self, trial: Trial, status: str | None = None) -> None:
        """Show ``trial`` as it is now, with ``status`` if that is given."""
        self.trials[trial.number] = trial if status is None else replace(trial, status=status)
        self.refresh()

    def lines(self, width: int = WIDTH) -> list[str]:
        """The lines of the table as it is now, none wider than ``width``."""
        trials = list(self.trials.values())
        count = {status: sum(trial.status == status for trial in trials) for status in
                 (FINISHED, STOPPED, FAILED, KILLED, RUNNING)}  # fmt: skip
        ended = sum(count[status] for status in (FINISHED, STOPPED, FAILED, KILLED))
        parts = [f"{number} {status}" for status, number in count.items() if number]
        spent = duration(time.monotonic() - self.began)
        head = f"{ended} of {self.total} trials over after {spent}: {', '.join(parts) or 'starting'}"
        running = [trial for trial in trials if trial.status in (RUNNING, WAITING)]
        over = sorted((trial for trial in trials if trial.status not in (RUNNING, WAITING)), key=rank)
        shown = running[:_ROWS] + over[: max(_ROWS - len(running), 0)]
        return [line[:width] for line in [head, *trial_table(shown, self.metric, width)]]


def rank(trial: Trial) -> tuple[bool, float, int]:
    """A key that sorts trials by their score, the best first; trials that cannot be chosen come last."""
    lost = trial.score is None or trial.status in (FAILED, KILLED)
    return lost, -(trial.score or 0.0), trial.number


def trial_table(trials: list[Trial], metric: str, width: int = WIDTH) -> list[str]:
    """A line for each trial under a header, with as many of the swept keys as fit into ``width``.

    Long names and values are cut, the more the less room there is, before keys are left out.
    """
    cells = [
        (trial.number, trial.status, trial.epochs, "" if trial.score is None else f"{trial.score:.4f}",
         clock(trial.seconds) if trial.epochs else "")
        for trial in trials
    ]  # fmt: skip
    facts = [["trial", "status", "epochs", metric[:9], "time"], *(list(map(str, row)) for row in cells)]
    lines = [""] * len(facts)
    for column, (align, least) in zip(zip(*facts), _FACTS):
        wide = max(least, *map(len, column))
        lines = [f"{line} {cell:{align}{wide}}" for line, cell in zip(lines, column)]
    lines = [line[1:] for line in lines]
    swept = _key_columns(trials, width - len(lines[0]))
    for place, named in enumerate(swept):
        more = " …" if place < len(swept) - 1 else ""
        if len(lines[0]) + len(named[0]) + len(more) > width:
            return [f"{lines[0]} …", *lines[1:]]
        lines = [line + cell for line, cell in zip(lines, named)]
    return lines


def _key_columns(trials: list[Trial], room: int) -> list[list[str]]:
    """The cells of each swept key, its name first, behind two spaces; cut, if they do not fit into ``room``."""
    keys, wide = list(trials[0].values) if trials else [], list[int]()
    cells = [[key.split(".")[-1], *(short(trial.values[key]) for trial in trials)] for key in keys]
    for most in _COLUMN:
        wide = [min(max(map(len, column)), most) for column in cells]
        if sum(wide) + 2 * len(wide) <= room:
            break
    return [[f"  {_cut(cell, size):>{size}}" for cell in column] for column, size in zip(cells, wide)]


def _cut(cell: str, most: int) -> str:
    return cell if len(cell) <= most else f"{cell[: most - 1]}…"


def clock(seconds: float) -> str:
    """``75.2`` as ``1:15``, two hours as ``2:00:00``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def short(value: Any) -> str:
    """``0.00012345`` as ``0.000123``; everything else as it is."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
