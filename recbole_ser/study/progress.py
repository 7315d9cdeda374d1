"""What a study shows while it runs: a table in a terminal, and elsewhere a line for whatever begins and ends."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import TextIO

from recbole_ser.runs.folder import RunFolder
from recbole_ser.runs.result import duration
from recbole_ser.study.cells import FAILED, FINISHED, PREPARING, RUNNING, TUNING, WAITING, Cell
from recbole_ser.tuning.live import WIDTH, LiveLines

_ROWS = 20  # lines of the table at most


class Progress(LiveLines):
    """The runs of a study and how far they are.

    Args:
        cells: the runs.
        stream: where the table is drawn, by default standard error.
    """

    def __init__(self, cells: Sequence[Cell], stream: TextIO | None = None) -> None:
        super().__init__(stream)
        self.cells = cells

    def say(self, text: str) -> None:
        """Print a line, where there is no table."""
        if not self.visible:
            print(text, flush=True)

    def lines(self, width: int = WIDTH) -> list[str]:
        """What is going on, and what has failed, under a line of totals."""
        count = Counter(cell.status for cell in self.cells)
        over = count[FINISHED] + count[FAILED]
        parts = [f"{count[status]} {status}" for status in (RUNNING, TUNING, PREPARING, WAITING, FAILED)
                 if count[status]]  # fmt: skip
        spent = duration(time.monotonic() - self.began)
        lines = [f"{over} of {len(self.cells)} runs over after {spent}: {', '.join(parts) or 'done'}"]
        busy = [cell for cell in self.cells if cell.status in (RUNNING, TUNING, PREPARING)]
        failed = [cell for cell in self.cells if cell.status == FAILED]
        lines += [f"{cell.status:<10}{cell.title}{_epochs(cell)}" for cell in busy]
        lines += [f"{cell.status:<10}{cell.title}: {cell.error}" for cell in failed]
        return [line[:width] for line in lines[:_ROWS]]


def _epochs(cell: Cell) -> str:
    """How far a run is that is being trained."""
    if cell.status != RUNNING or not (cell.path / "metrics.jsonl").is_file():
        return ""
    lines = RunFolder(cell.path).metrics()
    return f": {lines[-1]['epoch'] + 1} epochs" if lines else ""
