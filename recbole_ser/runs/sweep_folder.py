"""The folder of a sweep: what is tried, and what each trial found.  It is all that resuming needs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_ser.errors import UserError
from recbole_ser.files import exclusive, write_json
from recbole_ser.runs.folder import RunFolder
from recbole_ser.runs.result import RunResult

# What has become of a trial.  Waiting and running are not written down: a trial without an outcome is one of them.
FINISHED, STOPPED, FAILED, KILLED = "finished", "stopped", "failed", "killed"
WAITING, RUNNING = "waiting", "running"
KEPT = (FINISHED, STOPPED, FAILED)  # a resumed sweep does not train these again


@dataclass(frozen=True)
class Trial:
    """One trial, as its folder tells.

    Args:
        number: from 0; also the name of its folder.
        values: of the swept keys.
        status: ``finished`` (all epochs, or early stopping), ``stopped`` (behind others), ``failed`` (an error of its
            own), ``killed`` (its process died twice), else ``running`` or ``waiting``.
        error: what failed, in a line.
        epochs: that were trained and evaluated.
        best_epoch: the epoch (from 0) with the best validation metric, -1 if there is none.
        valid: the validation metrics of that epoch.
        scores: the validation metric after each evaluated epoch.
        seconds, cpu_seconds, peak_memory_mib: of its epochs; memory is that of the process, which earlier trials
            may have raised.
    """

    number: int
    values: dict[str, Any]
    status: str
    error: str
    epochs: int
    best_epoch: int
    valid: dict[str, float]
    scores: tuple[float, ...]
    seconds: float
    cpu_seconds: float
    peak_memory_mib: float

    @property
    def score(self) -> float | None:
        return max(self.scores, default=None)

    def row(self) -> dict[str, Any]:
        """The trial as a line of ``trials.csv``."""
        facts = {"trial": self.number, **self.values, "status": self.status, "epochs": self.epochs}
        costs = {
            "seconds": round(self.seconds, 1),
            "cpu_seconds": round(self.cpu_seconds, 1),
            "peak_memory_mib": self.peak_memory_mib,
        }
        return {**facts, "best_epoch": self.best_epoch, **self.valid, **costs, "error": self.error}


class TrialFolder:
    """``trials/007``: the folder of a run with the trial's values and outcome beside it."""

    def __init__(self, path: Path) -> None:
        self.path, self.number = path, int(path.name)

    @property
    def outcome(self) -> dict[str, str]:
        """``status`` and ``error``; empty for a trial that is not over."""
        path = self.path / "outcome.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def end(self, status: str, error: str = "") -> None:
        write_json(self.path / "outcome.json", {"status": status, "error": error})

    def reopen(self) -> None:
        (self.path / "outcome.json").unlink(missing_ok=True)

    def values(self) -> dict[str, Any]:
        return json.loads((self.path / "trial.json").read_text(encoding="utf-8"))["values"]

    def lines(self) -> list[dict[str, Any]]:
        """Of its evaluated epochs, as in ``metrics.jsonl``."""
        return RunFolder(self.path).metrics()

    def read(self, metric: str) -> Trial:
        """The trial as it is now; ``metric`` is the one that chooses."""
        lines, outcome = self.lines(), self.outcome
        scores = [line["valid"][metric] for line in lines]
        best = scores.index(max(scores)) if scores else None
        return Trial(
            number=self.number,
            values=self.values(),
            status=outcome.get("status", RUNNING if lines else WAITING),
            error=outcome.get("error", ""),
            epochs=lines[-1]["epoch"] + 1 if lines else 0,
            best_epoch=-1 if best is None else lines[best]["epoch"],
            valid={} if best is None else lines[best]["valid"],
            scores=tuple(scores),
            seconds=sum(line["seconds"] for line in lines),
            cpu_seconds=sum(line["cpu_seconds"] for line in lines),
            peak_memory_mib=max((line.get("peak_memory_mib", 0.0) for line in lines), default=0.0),
        )

    def drop_weights(self, best: bool) -> None:
        """Delete the checkpoint to go on from and, if ``best``, that of the best epoch too."""
        for name in ("last.pt", "best.pt") if best else ("last.pt",):
            (self.path / name).unlink(missing_ok=True)


class SweepFolder:
    """``sweep.json`` (what was started), ``trials/``, ``trials.csv``, ``trials.jsonl``, ``best.yaml``, ``result.json``,
    ``plots/``, ``log.txt``.

    Everything is plain JSON, YAML, CSV, or a checkpoint of tensors: resuming runs no code from it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self.trials_path, self.plots = self.path / "trials", self.path / "plots"
        self.log = self.path / "log.txt"

    @classmethod
    def start(cls, path: str | Path, content: dict[str, Any]) -> SweepFolder:
        """A new sweep's folder.

        Args:
            content: of ``sweep.json``, JSON-able.

        Raises:
            UserError: it holds a sweep already.
        """
        folder = cls(path)
        if (folder.path / "sweep.json").exists():
            raise UserError(f"{path}: holds a sweep already: go on with --resume={path}, or choose another folder")
        folder.trials_path.mkdir(parents=True, exist_ok=True)
        write_json(folder.path / "sweep.json", content)
        return folder

    @classmethod
    def load(cls, path: str | Path) -> SweepFolder:
        """The folder of a sweep that was started.

        Raises:
            UserError: there is none.
        """
        if not (Path(path) / "sweep.json").is_file():
            raise UserError(f"{path}: not the folder of a sweep: it has no sweep.json")
        return cls(path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Inside this block no other process can run the sweep; the system gives it free if this one is killed.

        Raises:
            UserError: one is running it.
        """
        with exclusive(self.path / ".lock", f"{self.path}: another process is running this sweep"):
            yield

    def content(self) -> dict[str, Any]:
        try:
            return json.loads((self.path / "sweep.json").read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{self.path / 'sweep.json'}: not JSON: {error}") from error

    def update(self, content: dict[str, Any]) -> None:
        write_json(self.path / "sweep.json", content)

    def trial(self, number: int) -> TrialFolder:
        return TrialFolder(self.trials_path / f"{number:03d}")

    def add_trial(self, number: int, values: dict[str, Any]) -> TrialFolder:
        """The folder of a new trial, in which its values are written down."""
        trial = self.trial(number)
        write_json(trial.path / "trial.json", {"number": number, "values": values})
        return trial

    def trials(self) -> list[TrialFolder]:
        """All that were proposed so far, by number."""
        folders = [path.parent for path in self.trials_path.glob("*/trial.json")]
        found = [TrialFolder(folder) for folder in folders if folder.name.isdecimal()]
        return sorted(found, key=lambda trial: trial.number)

    def read_trials(self, metric: str) -> list[Trial]:
        return [trial.read(metric) for trial in self.trials()]

    def write_result(self, trial: Trial, result: RunResult) -> None:
        """The chosen trial, its values, and what the test split said of it."""
        write_json(self.path / "result.json", {"trial": trial.number, "values": trial.values, **result.as_dict()})

    def result(self) -> tuple[int, RunResult] | None:
        """The number of the trial that was tested, and its result; ``None`` if none was yet."""
        path = self.path / "result.json"
        if not path.is_file():
            return None
        content = json.loads(path.read_text(encoding="utf-8"))
        number = content.pop("trial")
        content.pop("values")
        return number, RunResult(**content, folder=self.trial(number).path)


def best_trial(trials: list[Trial]) -> Trial | None:
    """The one with the best validation metric, the earliest of equals; failed and killed ones do not count."""
    good = [trial for trial in trials if trial.scores and trial.status not in (FAILED, KILLED)]
    return max(good, key=lambda trial: (trial.score, -trial.number), default=None)
