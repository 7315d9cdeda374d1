"""One trial of a sweep, as it runs in the process that trains it."""

from __future__ import annotations

import copy
import gc
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from recbole_ser.codes.stage import describe_codes
from recbole_ser.config import SERConfig
from recbole_ser.data.codes import UserCodes
from recbole_ser.errors import UserError
from recbole_ser.files import atomic_write
from recbole_ser.logs import log_to
from recbole_ser.runner import Prepared, build_trainer
from recbole_ser.runs.folder import RunFolder
from recbole_ser.runs.sweep_folder import FAILED, FINISHED, TrialFolder
from recbole_ser.tuning.space import settings


@dataclass(frozen=True)
class Shared:
    """What all trials of a sweep read; it is made once and must not be written to.

    Args:
        prepared: data and candidates; the data set in it has no configuration.
        codes: for a sweep over how codes are made, the file and the codes for each ``codes_key`` of swept values.
    """

    prepared: Prepared
    codes: dict[str, tuple[str, UserCodes]]

    def under(self, config: SERConfig, values: dict[str, Any]) -> Prepared:
        """The data for one trial, with the configuration ``config`` and the trial's ``values``."""
        prepared = self.prepared.under(config)
        if key := codes_key(values):
            path, codes = self.codes[key]
            config["codes_file"] = path
            prepared.dataset.user_codes = codes
            prepared = replace(prepared, codes=describe_codes(codes))
        return prepared


def codes_key(values: dict[str, Any]) -> str:
    """The text of those of a trial's values that decide the codes; empty if there are none."""
    return ", ".join(f"{key}={value}" for key, value in values.items() if key.startswith("codes."))


def trial_config(arguments: dict[str, Any], values: dict[str, Any]) -> SERConfig:
    """The configuration of a trial: the sweep's, with the trial's values.

    Args:
        arguments: the arguments of ``SERConfig`` for the sweep.
        values: the trial's values of the swept keys.
    """
    base = SERConfig(**arguments)
    if not values:
        return base
    given = {**arguments["config_dict"], **settings(values, base)}
    return SERConfig(**{**arguments, "config_dict": given})


@dataclass(frozen=True)
class Task:
    """Trains trials of one sweep, each in its own folder.

    Args:
        arguments: the arguments of ``SERConfig`` for the sweep.
        metric: the validation metric that chooses.
        trials_path: folder that holds the trials' folders.
        working_path: folder that the sweep was started in, where models that are no part of a package are found.
        has_gpu: whether a trial has a GPU or a part of one.
    """

    arguments: dict[str, Any]
    metric: str
    trials_path: str
    working_path: str
    has_gpu: bool

    def run(self, number: int, shared: Callable[[], Shared], report: Callable[[dict[str, Any]], None]) -> None:
        """Train trial ``number`` from where it was left, and report after every evaluated epoch.

        Epochs that were trained before are reported first, without training.  An error of the trial is its outcome: it
        is written down, and the sweep goes on.

        Args:
            shared: gives the shared data; it is called only if there is something to train.
            report: is called with ``epochs`` and, as ``score``, the best validation metric so far; it may end the trial
                by raising ``SystemExit``.
        """
        folder = TrialFolder(Path(self.trials_path) / f"{number:03d}")
        best = -float("inf")

        def tell(epoch: int, valid: dict[str, float]) -> None:
            nonlocal best
            best = max(best, valid[self.metric])
            report({"epochs": epoch + 1, "score": best})

        for line in folder.lines():
            tell(line["epoch"], line["valid"])
        if folder.outcome:
            return
        try:
            self._train(folder, shared(), tell)
        except Exception as error:  # whatever it is, the other trials do not depend on this one
            with atomic_write(folder.path / "error.txt") as handle:
                handle.write(traceback.format_exc())
            folder.end(FAILED, _in_a_line(error))
        else:
            folder.end(FINISHED)

    def _train(self, folder: TrialFolder, shared: Shared, tell: Callable[[int, dict[str, float]], None]) -> None:
        if not self.has_gpu:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        if self.working_path not in sys.path:
            sys.path.insert(0, self.working_path)
        gc.collect()  # this process's previous trial is in reference cycles, and its tensors are large
        gc.freeze()  # what is left are modules and shared data, through which no later collection needs to look
        values = folder.values()
        config = trial_config(self.arguments, values)
        run = RunFolder(folder.path)
        with log_to(run.log, config["state"]):
            prepared = shared.under(config, values)
            trainer = build_trainer(config, run, prepared)
            trainer.resume_checkpoint()
            try:
                trainer.fit(prepared.training(), prepared.targets("valid"), callback_fn=tell)
            finally:
                trainer.tensorboard.close()  # also if the trial is given up


def without_config(prepared: Prepared) -> Prepared:
    """A copy to share: its data set has no configuration, and all that is computed on first use is computed already."""
    dataset = copy.copy(prepared.dataset)
    _ = dataset.data_hash, dataset.training_clicks, dataset.training_pairs
    _ = [table.hash for table in prepared.candidates.values()]
    dataset.config = None
    return replace(prepared, dataset=dataset)


def _in_a_line(error: Exception) -> str:
    first = (str(error).strip().splitlines() or ["no details"])[0]
    return first if isinstance(error, UserError) else f"{type(error).__name__}: {first}"
