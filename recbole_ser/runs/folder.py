"""The folder that a run owns: its settings, its results, and what is needed to resume it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
import yaml
from pydantic import ConfigDict
from typing_extensions import NotRequired, TypedDict

from recbole_ser.environment import describe_environment
from recbole_ser.errors import DataError, UserError
from recbole_ser.files import atomic_write, exclusive, sha256, write_json
from recbole_ser.records import read_record, read_records, read_sealed, write_sealed
from recbole_ser.runs.result import RunResult
from recbole_ser.workers import group
from recbole_ser.yaml_values import read_yaml

_SCORE_AGAIN = "'recbole-ser run --resume=FOLDER' finishes the run, or scores it again"
_NEW_RUN = "restore it from a copy, or start a new run"


class RunArguments(TypedDict):
    """What a run was started with, see ``SERConfig.arguments``."""

    model: str
    dataset: str
    config_dict: dict[str, Any]


class RunData(TypedDict):
    """What a run is trained and tested on, see ``RunFolder.write_data``."""

    hash: str
    protocol: str
    candidates: dict[str, str]
    counts: dict[str, int]
    codes: dict[str, str] | None
    targets: dict[str, str]
    texts: NotRequired[dict[str, str]]


class EpochMetrics(TypedDict):
    """A line of ``metrics.jsonl``; it also has the peaks of memory, where the system tells them.

    ``losses`` are weighted, so that their sum is what was minimised; ``weights`` has what they were multiplied by, if
    that is not 1.  Lines of older runs have no ``weights``.
    """

    __pydantic_config__ = ConfigDict(extra="allow", allow_inf_nan=False)  # type: ignore[misc]

    epoch: int
    losses: dict[str, float]
    weights: NotRequired[dict[str, float]]
    valid: dict[str, float]
    learning_rate: float
    seconds: float
    cpu_seconds: float


class RunFolder:
    """Writes and reads the files of one run.  Every file but the log is either complete or not there at all.

    A file that was damaged is refused when it is read, in one line that says what to do.

    The files are ``config.yaml``, ``arguments.json``, ``environment.json``, ``data.json``, ``metrics.jsonl`` (one line
    per evaluated epoch), ``result.json``, ``ranks.csv`` (the ranks of the test targets), ``best.pt``, ``last.pt``,
    ``log.txt``, ``card.md`` (one page about the run) and those in ``tensorboard/``.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        self.best, self.last, self.log = self.path / "best.pt", self.path / "last.pt", self.path / "log.txt"

    @classmethod
    def load(cls, path: str | Path) -> RunFolder:
        """The folder of an existing run.

        Raises:
            UserError: ``path`` is not the folder of a run.
        """
        if not (Path(path) / "config.yaml").is_file():
            raise UserError(f"{path}: not the folder of a run: it has no config.yaml")
        return cls(path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Inside this block no other process can run in this folder.

        The operating system releases the lock if this process is killed.  Temporary files that an interrupted write
        left behind are removed.

        Raises:
            UserError: another process is running in the folder.
        """
        with exclusive(self.path / ".lock", f"{self.path}: another process is running in this folder"):
            for leftover in self.path.glob(".*.tmp"):
                leftover.unlink()
            yield

    def write_config(self, values: dict[str, Any], arguments: dict[str, Any]) -> None:
        """Write the resolved configuration, in plain YAML types, and, for resuming, the arguments it was made from."""
        write_sealed(self.path / "arguments.json", arguments)
        with atomic_write(self.path / "config.yaml") as handle:
            yaml.safe_dump(values, handle, sort_keys=True, allow_unicode=True)

    def arguments(self) -> RunArguments:
        return read_sealed(self.path / "arguments.json", RunArguments, _NEW_RUN)

    def model_name(self) -> str:
        """The name of the run's model, without the module of its class."""
        return self.arguments()["model"].rpartition(":")[2].rpartition(".")[2]

    def config(self) -> dict[str, Any]:
        return read_yaml(self.path / "config.yaml")

    def write_environment(self, device: torch.device | str) -> None:
        write_json(self.path / "environment.json", {**describe_environment(device), "workers": group.count()})

    def environment(self) -> dict[str, Any]:
        return read_record(self.path / "environment.json", dict[str, Any], "resuming the run writes it anew")

    def write_data(
        self,
        fingerprint: str,
        protocol: str,
        candidates: dict[str, str],
        counts: dict[str, int],
        codes: dict[str, str] | None = None,
        targets: dict[str, str] | None = None,
        texts: dict[str, str] | None = None,
    ) -> None:
        """Write what the run is trained and tested on.

        Args:
            fingerprint: hash of the data set.
            protocol: name of the evaluation protocol.
            candidates: hash of the candidate table by split; empty when the whole catalogue is ranked.
            counts: numbers of users, items, events, targets, ... of the data set, by name.
            codes: hash of the file of user codes and the back-ends that made them; ``None`` if the model reads none.
            targets: hash of the targets by split.
            texts: hash of the vectors of texts and the back-ends that made them; ``None`` if the model reads none.

        Raises:
            UserError: the run was started on other data.
        """
        data = RunData(
            hash=fingerprint,
            protocol=protocol,
            candidates=candidates,
            counts=counts,
            codes=codes,
            targets=targets or {},
        )
        if texts:
            data["texts"] = texts
        if (self.path / "data.json").exists() and (before := self.data()) != data:
            changed = ", ".join(key for key, value in data.items() if before.get(key) != value)
            raise UserError(f"{self.path}: this run was started on other data ({changed} changed): start a new run")
        write_sealed(self.path / "data.json", data)

    def data(self) -> RunData:
        return read_sealed(self.path / "data.json", RunData, _NEW_RUN)

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Add the line of one evaluated epoch; it must have the key ``epoch``."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8", newline="\n") as handle:
            handle.write(json.dumps(line, allow_nan=False) + "\n")
            handle.flush()
            os.fsync(handle.fileno())

    def metrics(self) -> list[EpochMetrics]:
        """The lines of the evaluated epochs; a line that was cut off by a crash is left out."""
        path = self.path / "metrics.jsonl"
        return read_records(path, EpochMetrics, _NEW_RUN) if path.exists() else []

    def drop_metrics_after(self, epoch: int) -> None:
        """Forget the lines of epochs that are about to be trained again."""
        path = self.path / "metrics.jsonl"
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        kept = [line for line, values in zip(lines, self.metrics()) if values["epoch"] <= epoch]
        with atomic_write(path, "wb") as handle:
            handle.writelines(kept)

    def metrics_checksum(self) -> str:
        """A hash of ``metrics.jsonl`` as it is now; empty if there is no such file."""
        path = self.path / "metrics.jsonl"
        return sha256(path) if path.exists() else ""

    def totals(self) -> dict[str, Any]:
        """The number of epochs, their seconds and CPU seconds together, and the largest peak memory of any of them."""
        lines = self.metrics()
        return {
            "epochs": lines[-1]["epoch"] + 1 if lines else 0,
            "seconds": sum(line["seconds"] for line in lines),
            "cpu_seconds": sum(line["cpu_seconds"] for line in lines),
            "peak_memory_mib": peak_memory(lines),
        }

    def write_result(self, result: RunResult) -> None:
        write_sealed(self.path / "result.json", result.as_dict())

    def result(self) -> RunResult:
        values = read_sealed(self.path / "result.json", RunResult, _SCORE_AGAIN)
        return replace(values, folder=self.path)

    def write_ranks(self, user_tokens: np.ndarray, ranks: torch.Tensor) -> str:
        """Write the rank of each test target, by user and then by time, for tests of significance between runs.

        Returns:
            The hash of the file, for the result.
        """
        with atomic_write(self.path / "ranks.csv") as handle:
            frame = pd.DataFrame({"user_id": user_tokens, "rank": ranks.numpy()})
            frame.to_csv(handle, index=False, lineterminator="\n")
        return sha256(self.path / "ranks.csv")

    def ranks(self) -> pd.DataFrame:
        """The ranks of the test targets, with the columns ``user_id`` (text) and ``rank`` (from 1).

        Raises:
            UserError: the run is not finished.
            DataError: the ranks are not those of the result.
        """
        expected, path = self.result().ranks, self.path / "ranks.csv"
        if not path.is_file() or sha256(path) != expected:
            raise DataError(path, "missing or damaged: it has not the checksum in result.json", hint=_SCORE_AGAIN)
        return pd.read_csv(path, dtype={"user_id": str, "rank": np.int64}, keep_default_na=False)


def peak_memory(lines: list[EpochMetrics]) -> float:
    """The largest resident memory, in MiB, that any of the lines reports; 0 if none does."""
    return max((cast(Any, line).get("peak_memory_mib", 0.0) for line in lines), default=0.0)
