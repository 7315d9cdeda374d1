"""The folder that a run owns: its settings, its results, and what is needed to resume it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml

from recbole_ser.environment import describe_environment
from recbole_ser.errors import UserError
from recbole_ser.files import atomic_write, exclusive, write_json
from recbole_ser.runs.result import RunResult


class RunFolder:
    """Writes and reads the files of one run.  Every file but the log is either complete or not there at all.

    The files are ``config.yaml``, ``arguments.json``, ``environment.json``, ``data.json``, ``metrics.jsonl`` (one line
    per evaluated epoch), ``result.json``, ``ranks.csv`` (the ranks of the test targets), ``best.pt``, ``last.pt``,
    ``log.txt`` and those in ``tensorboard/``.
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
        write_json(self.path / "arguments.json", arguments)
        with atomic_write(self.path / "config.yaml") as handle:
            yaml.safe_dump(values, handle, sort_keys=True, allow_unicode=True)

    def arguments(self) -> dict[str, Any]:
        return json.loads(self._read("arguments.json"))

    def config(self) -> dict[str, Any]:
        return yaml.safe_load(self._read("config.yaml"))

    def write_environment(self, device: torch.device | str) -> None:
        write_json(self.path / "environment.json", describe_environment(device))

    def environment(self) -> dict[str, Any]:
        return json.loads(self._read("environment.json"))

    def write_data(
        self,
        fingerprint: str,
        protocol: str,
        candidates: dict[str, str],
        counts: dict[str, int],
        codes: dict[str, str] | None = None,
        targets: dict[str, str] | None = None,
    ) -> None:
        """Write what the run is trained and tested on.

        Args:
            fingerprint: hash of the data set.
            protocol: name of the evaluation protocol.
            candidates: hash of the candidate table by split; empty when the whole catalogue is ranked.
            counts: numbers of users, items, events, targets, ... of the data set, by name.
            codes: hash of the file of user codes and the back-ends that made them; ``None`` if the model reads none.
            targets: hash of the targets by split.

        Raises:
            UserError: the run was started on other data.
        """
        data = {"hash": fingerprint, "protocol": protocol, "candidates": candidates, "counts": counts, "codes": codes}
        data["targets"] = targets or {}
        if (self.path / "data.json").exists() and (before := self.data()) != data:
            changed = ", ".join(key for key in data if before.get(key) != data[key])
            raise UserError(f"{self.path}: this run was started on other data ({changed} changed): start a new run")
        write_json(self.path / "data.json", data)

    def data(self) -> dict[str, Any]:
        return json.loads(self._read("data.json"))

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Add the line of one evaluated epoch; it must have the key ``epoch``."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8", newline="\n") as handle:
            handle.write(json.dumps(line, allow_nan=False) + "\n")
            handle.flush()
            os.fsync(handle.fileno())

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of the evaluated epochs; a line that was cut off by a crash is left out."""
        path = self.path / "metrics.jsonl"
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def drop_metrics_after(self, epoch: int) -> None:
        """Forget the lines of epochs that are about to be trained again."""
        kept = [line for line in self.metrics() if line["epoch"] <= epoch]
        with atomic_write(self.path / "metrics.jsonl") as handle:
            handle.writelines(json.dumps(line, allow_nan=False) + "\n" for line in kept)

    def totals(self) -> dict[str, Any]:
        """The number of epochs, their seconds and CPU seconds together, and the largest peak memory of any of them."""
        lines = self.metrics()
        return {
            "epochs": lines[-1]["epoch"] + 1 if lines else 0,
            "seconds": sum(line["seconds"] for line in lines),
            "cpu_seconds": sum(line["cpu_seconds"] for line in lines),
            "peak_memory_mib": max((line.get("peak_memory_mib", 0.0) for line in lines), default=0.0),
        }

    def write_result(self, result: RunResult) -> None:
        write_json(self.path / "result.json", result.as_dict())

    def result(self) -> RunResult:
        return RunResult(**json.loads(self._read("result.json")), folder=self.path)

    def write_ranks(self, user_tokens: np.ndarray, ranks: torch.Tensor) -> None:
        """Write the rank of each test target, by user and then by time, for tests of significance between runs."""
        with atomic_write(self.path / "ranks.csv") as handle:
            frame = pd.DataFrame({"user_id": user_tokens, "rank": ranks.numpy()})
            frame.to_csv(handle, index=False, lineterminator="\n")

    def ranks(self) -> pd.DataFrame:
        """The ranks of the test targets, with the columns ``user_id`` (text) and ``rank`` (from 1)."""
        self._read("ranks.csv")
        return pd.read_csv(self.path / "ranks.csv", dtype={"user_id": str, "rank": np.int64}, keep_default_na=False)

    def _read(self, name: str) -> str:
        try:
            return (self.path / name).read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise UserError(f"{self.path}: this run has no {name} (yet)") from error
