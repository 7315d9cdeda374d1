"""The folder of a sweep: what is tried, and the result of each trial.  Resuming needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from recbole_ser.errors import DataError, UserError
from recbole_ser.files import exclusive
from recbole_ser.records import read_sealed, write_sealed
from recbole_ser.runs.folder import EpochMetrics, RunFolder, peak_memory
from recbole_ser.runs.result import RunResult

# The status of a trial.  Waiting and running are not written down: a trial without an outcome is one of them.
FINISHED, STOPPED, FAILED, KILLED = "finished", "stopped", "failed", "killed"
WAITING, RUNNING = "waiting", "running"
KEPT = (FINISHED, STOPPED, FAILED)  # a resumed sweep does not train these again

_NEW_SWEEP = "restore it from a copy, or start a new sweep"
_TRAIN_AGAIN = "remove metrics.jsonl, last.pt and outcome.json of this trial: resuming the sweep trains it again"


class SweepStart(TypedDict):
    """What a sweep was started with: its plan, and the arguments of its configuration."""

    plan: dict[str, Any]
    arguments: dict[str, Any]


class _Proposed(TypedDict):
    values: dict[str, Any]


class _Chosen(TypedDict):
    trial: int


@dataclass(frozen=True)
class Trial:
    """One trial, as read from its folder.

    Args:
        number: number of the trial, from 0; also the name of its folder.
        values: the trial's values of the swept keys.
        status: ``finished`` (all epochs, or early stopping), ``stopped`` (it was behind other trials), ``failed`` (an
            error of its own), ``killed`` (its process died twice), ``running`` or ``waiting``.
        error: what failed, in one line; empty if nothing did.
        epochs: number of epochs that were trained and evaluated.
        best_epoch: the epoch (from 0) with the best validation metric, -1 if there is none.
        valid: the validation metrics of the best epoch.
        scores: the validation metric that chooses, after each evaluated epoch.
        seconds, cpu_seconds: wall-clock and CPU time of all epochs.
        peak_memory_mib: peak memory of the trial's process, which earlier trials in it may have raised.
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
    """The folder of one trial, ``trials/007`` say: that of a run, with the trial's values and outcome in two files."""

    def __init__(self, path: Path) -> None:
        self.path, self.number = path, int(path.name)

    @property
    def outcome(self) -> dict[str, str]:
        """The ``status`` and ``error`` of the trial; empty if it has not ended."""
        path = self.path / "outcome.json"
        if not path.exists():
            return {}
        remedy = "remove it: resuming the sweep goes on with this trial"
        outcome = read_sealed(path, dict[str, str], remedy)
        if outcome.get("metrics", "") != self._metrics_checksum():
            problem = "damaged: its checksum is not the one in outcome.json"
            raise DataError(self.path / "metrics.jsonl", problem, hint=_TRAIN_AGAIN)
        return outcome

    def end(self, status: str, error: str = "") -> None:
        """Record how the trial ended, with a checksum of its metrics, which choose between trials."""
        outcome = {"status": status, "error": error, "metrics": self._metrics_checksum()}
        write_sealed(self.path / "outcome.json", outcome)

    def _metrics_checksum(self) -> str:
        return RunFolder(self.path).metrics_checksum()

    def reopen(self) -> None:
        (self.path / "outcome.json").unlink(missing_ok=True)

    def values(self) -> dict[str, Any]:
        return read_sealed(self.path / "trial.json", _Proposed, _NEW_SWEEP)["values"]

    def lines(self) -> list[EpochMetrics]:
        """The lines of the evaluated epochs in ``metrics.jsonl``."""
        return RunFolder(self.path).metrics()

    def read(self, metric: str) -> Trial:
        """The trial as it is now; ``metric`` is the validation metric that chooses."""
        lines, outcome = self.lines(), self.outcome
        if any(metric not in line["valid"] for line in lines):
            raise DataError(self.path / "metrics.jsonl", f"a line has no valid {metric}", hint=_TRAIN_AGAIN)
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
            peak_memory_mib=peak_memory(lines),
        )

    def drop_weights(self, best: bool) -> None:
        """Delete the checkpoint that resuming needs and, if ``best``, that of the best epoch too."""
        for name in ("last.pt", "best.pt") if best else ("last.pt",):
            (self.path / name).unlink(missing_ok=True)


class SweepFolder:
    """Writes and reads the files of one sweep.

    These are ``sweep.json`` (what was started), ``trials.csv``, ``trials.jsonl``, ``best.yaml``, ``result.json``,
    ``log.txt`` and those in ``trials/`` and ``plots/``.  Everything is plain JSON, YAML, CSV, or a checkpoint of
    tensors: resuming runs no code from it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self.trials_path, self.plots = self.path / "trials", self.path / "plots"
        self.log = self.path / "log.txt"

    @classmethod
    def start(cls, path: str | Path, content: SweepStart) -> SweepFolder:
        """Start a new sweep in the folder ``path``; ``content`` is written to ``sweep.json``."""
        folder = cls(path)
        folder.trials_path.mkdir(parents=True, exist_ok=True)
        folder.update(content)
        return folder

    @classmethod
    def load(cls, path: str | Path) -> SweepFolder:
        """The folder of a sweep that was started.

        Raises:
            UserError: ``path`` is not the folder of a sweep.
        """
        if not (Path(path) / "sweep.json").is_file():
            raise UserError(f"{path}: not the folder of a sweep: it has no sweep.json")
        return cls(path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Inside this block no other process can run the sweep; the system releases it if this process is killed.

        Raises:
            UserError: another process is running the sweep.
        """
        with exclusive(self.path / ".lock", f"{self.path}: another process is running this sweep"):
            yield

    def content(self) -> SweepStart:
        return read_sealed(self.path / "sweep.json", SweepStart, _NEW_SWEEP)

    def update(self, content: SweepStart) -> None:
        write_sealed(self.path / "sweep.json", content)

    def trial(self, number: int) -> TrialFolder:
        return TrialFolder(self.trials_path / f"{number:03d}")

    def add_trial(self, number: int, values: dict[str, Any]) -> TrialFolder:
        """Make the folder of a new trial and write the trial's values into it."""
        trial = self.trial(number)
        write_sealed(trial.path / "trial.json", {"number": number, "values": values})
        return trial

    def trials(self) -> list[TrialFolder]:
        """The folders of all trials proposed so far, in the order of their numbers."""
        folders = [path.parent for path in self.trials_path.glob("*/trial.json")]
        found = [TrialFolder(folder) for folder in folders if folder.name.isdecimal()]
        return sorted(found, key=lambda trial: trial.number)

    def read_trials(self, metric: str) -> list[Trial]:
        return [trial.read(metric) for trial in self.trials()]

    def write_result(self, trial: Trial, result: RunResult) -> None:
        """Write the number and the values of the chosen trial, and its result on the test split."""
        write_sealed(self.path / "result.json", {"trial": trial.number, "values": trial.values, **result.as_dict()})

    def result(self) -> tuple[int, RunResult] | None:
        """The number of the trial that was tested, and its result; ``None`` if none has been tested yet."""
        path = self.path / "result.json"
        if not path.exists():
            return None
        remedy = "remove it: resuming the sweep scores the chosen trial again"
        number = read_sealed(path, _Chosen, remedy)["trial"]
        return number, replace(read_sealed(path, RunResult, remedy), folder=self.trial(number).path)


def best_trial(trials: list[Trial]) -> Trial | None:
    """The trial with the best validation metric, the earliest of equals; failed and killed trials do not count."""
    good = [trial for trial in trials if trial.scores and trial.status not in (FAILED, KILLED)]
    return max(good, key=lambda trial: (trial.score, -trial.number), default=None)
