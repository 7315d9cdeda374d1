"""The table of a sweep in a terminal, while it runs."""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import replace
from typing import Any, TextIO

from recbole_ser.evaluation.report import duration
from recbole_ser.tune.folder import FAILED, FINISHED, KILLED, RUNNING, STOPPED, WAITING, Trial

WIDTH = 80
_ROWS = 15  # of the table: those that run first, then the best
_PAUSE = 0.5  # seconds between two drawings


class LiveTable:
    """Redraws itself in place in a terminal; anywhere else it prints nothing.

    Args:
        total: trials of the sweep.
        metric: the validation metric that chooses.
        stream: by default standard error.
    """

    def __init__(self, total: int, metric: str, stream: TextIO | None = None) -> None:
        self.total, self.metric = total, metric
        self.stream = sys.stderr if stream is None else stream
        self.visible = self.stream.isatty()
        self.trials: dict[int, Trial] = {}
        self.began, self._drawn_at, self._lines = time.monotonic(), 0.0, 0

    def show(self, trial: Trial, status: str | None = None) -> None:
        """Take over how ``trial`` stands now."""
        self.trials[trial.number] = trial if status is None else replace(trial, status=status)
        self.refresh()

    def refresh(self) -> None:
        """Draw, if the last time is long enough ago."""
        if self.visible and time.monotonic() - self._drawn_at >= _PAUSE:
            self._draw()

    def close(self) -> None:
        """Draw a last time."""
        if self.visible:
            self._draw()

    def _draw(self) -> None:
        width = min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns)
        lines = self.lines(width)
        up = f"\x1b[{self._lines}A" if self._lines else ""
        self.stream.write(up + "".join(f"\x1b[2K{line}\n" for line in lines) + "\x1b[J")
        self.stream.flush()
        self._drawn_at, self._lines = time.monotonic(), len(lines)

    def lines(self, width: int = WIDTH) -> list[str]:
        """The table as it is now, no line wider than ``width``."""
        trials = list(self.trials.values())
        count = {status: sum(trial.status == status for trial in trials) for status in
                 (FINISHED, STOPPED, FAILED, KILLED, RUNNING)}  # fmt: skip
        over = sum(count[status] for status in (FINISHED, STOPPED, FAILED, KILLED))
        parts = [f"{number} {status}" for status, number in count.items() if number]
        spent = duration(time.monotonic() - self.began)
        head = f"{over} of {self.total} trials over after {spent}: {', '.join(parts) or 'starting'}"
        running = [trial for trial in trials if trial.status in (RUNNING, WAITING)]
        rest = sorted(trials_over(trials), key=self._rank)
        shown = [t.number for t in running][:_ROWS] + rest[: max(_ROWS - len(running), 0)]
        table = trial_table([self.trials[number] for number in shown], self.metric, width)
        return [line[:width] for line in [head, *table]]

    def _rank(self, number: int) -> tuple[float, int]:
        score = self.trials[number].score
        return (float("inf") if score is None else -score, number)


def trials_over(trials: list[Trial]) -> list[int]:
    """The numbers of those that neither run nor wait."""
    return [trial.number for trial in trials if trial.status not in (RUNNING, WAITING)]


def trial_table(trials: list[Trial], metric: str, width: int = WIDTH) -> list[str]:
    """A line for each trial under a header; of its values only what fits into ``width``."""
    lines = [f"{'trial':>5}  {'status':<8} {'epochs':>6} {'best':>5} {metric[:10]:>10} {'time':>12}  values"]
    for trial in trials:
        best = "" if trial.best_epoch < 0 else str(trial.best_epoch)
        score = "" if trial.score is None else f"{trial.score:.4f}"
        time_spent = duration(trial.seconds) if trial.epochs else ""
        values = ", ".join(f"{key.split('.')[-1]} {short(value)}" for key, value in trial.values.items())
        line = (
            f"{trial.number:>5}  {trial.status:<8} {trial.epochs:>6} {best:>5} {score:>10} {time_spent:>12}  {values}"
        )
        lines.append(line if len(line) <= width else line[: width - 1] + "…")
    return lines


def short(value: Any) -> str:
    """``0.00012345`` as ``0.000123``; everything else as it is."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
