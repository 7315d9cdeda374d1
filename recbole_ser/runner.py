"""One run, from a configuration to a result."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.utils import init_seed

from recbole_ser.codes.stage import ensure_codes
from recbole_ser.config import SERConfig, package_folder
from recbole_ser.convert.prepare import ensure_dataset
from recbole_ser.data.candidates import CandidateTable
from recbole_ser.data.dataset import SERDataset
from recbole_ser.data.loader import EvalLoader, TrainLoader, candidate_table
from recbole_ser.evaluation.report import RunResult, final_table
from recbole_ser.train.log import log_to
from recbole_ser.train.run_folder import RunFolder
from recbole_ser.train.trainer import SERTrainer


def run(
    model: str | type[AbstractRecommender],
    dataset: str,
    *,
    config_files: list[str] | None = None,
    config_dict: dict[str, Any] | None = None,
    callback: Callable[[int, dict[str, float]], None] | None = None,
) -> RunResult:
    """Train ``model`` on ``dataset``, choose the best epoch by validation, score the test split once.

    Args:
        model: a registered name, ``package.module:Class``, or a model class.
        dataset: name of the data set; one that is not there is fetched and converted, if it is known how.
        config_files, config_dict: values that differ from the defaults; see ``SERConfig``.
        callback: called with (epoch, validation metrics) after every evaluated epoch.

    Returns:
        The result, as in ``result.json`` of the run's folder.

    Raises:
        UserError: what the user gave is wrong; the message says what to do.
    """
    config = SERConfig(model, dataset, config_files, config_dict)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    default = Path("saved") / dataset / f"{config['model']}-{stamp}-{config['seed']}"
    folder = RunFolder.start(Path(config["run_dir"] or default))
    return _run(config, folder, callback)


def resume(path: str | Path, *, callback: Callable[[int, dict[str, float]], None] | None = None) -> RunResult:
    """Go on with the run in folder ``path`` from its last finished epoch; a finished run is only scored again.

    Raises:
        UserError: there is no run, or it was started on other data.
    """
    config = SERConfig(**RunFolder.load(path).arguments())
    return _run(config, RunFolder.start(path, resume=True), callback)


@dataclass(frozen=True)
class Prepared:
    """What all runs under one protocol share, whatever their model's settings.

    Args:
        dataset: the events and instances, under the configuration of one run.
        candidates: the lists that are ranked, by split; empty where the whole catalogue is.
        codes: the hash and origin of the users' codes, where the model reads them.
    """

    dataset: SERDataset
    candidates: dict[str, CandidateTable]
    codes: dict[str, str] | None

    def under(self, config: SERConfig) -> Prepared:
        """The same for a run with another configuration of the same data and protocol; nothing is copied."""
        dataset = copy.copy(self.dataset)
        dataset.config = config
        return replace(self, dataset=dataset)

    def targets(self, phase: str) -> EvalLoader:
        """The targets of ``valid`` or ``test`` with what is ranked for each."""
        return EvalLoader(self.dataset.config, self.dataset, phase, self.candidates.get(phase))


def prepare(config: SERConfig, with_codes: bool = True) -> Prepared:
    """Load the data set at ``data_path``, draw the candidates, and have the codes, where the model reads them.

    Args:
        with_codes: false where the codes are seen to elsewhere.

    Raises:
        UserError: see ``SERDataset``, ``build_candidates`` and ``ensure_codes``.
    """
    dataset = SERDataset(config)
    counts = ", ".join(f"{count:,} {name}" for name, count in dataset.summary().items())
    logging.getLogger().info(f"{config['dataset']}: {counts}")
    tables = {phase: candidate_table(config, dataset, phase) for phase in ("valid", "test")}
    candidates = {phase: table for phase, table in tables.items() if table is not None}
    codes = ensure_codes(config, dataset) if with_codes and reads_codes(config) else None
    return Prepared(dataset, candidates, codes)


def enter(folder: RunFolder, config: SERConfig) -> None:
    """Let ``folder`` be where the run of ``config`` writes, and say in it what is run."""
    if config["num_threads"]:
        torch.set_num_threads(config["num_threads"])
    config["run_dir"] = config["checkpoint_dir"] = str(folder.path)
    folder.write_config(config.resolved(), config.arguments())
    folder.write_environment(config["device"])


def build_trainer(config: SERConfig, folder: RunFolder, prepared: Prepared) -> SERTrainer:
    """A trainer of a new model, which depends on the seed and the configuration alone."""
    hashes = {phase: table.hash for phase, table in prepared.candidates.items()}
    dataset, protocol = prepared.dataset, config["eval_args"]["mode"]["test"]
    folder.write_data(dataset.data_hash, protocol, hashes, dataset.summary(), prepared.codes)
    init_seed(config["seed"], config["reproducibility"])
    return SERTrainer(config, config.model_class(config, dataset).to(config["device"]))


def _run(config: SERConfig, folder: RunFolder, callback: Callable[[int, dict[str, float]], None] | None) -> RunResult:
    with log_to(folder.log, config["state"]):
        locate_data(config)
        enter(folder, config)
        prepared = prepare(config)
        trainer = build_trainer(config, folder, prepared)
        trainer.resume_checkpoint()
        progress = config["show_progress"]
        trainer.fit(TrainLoader(config, prepared.dataset), prepared.targets("valid"), True, progress, callback)
        result = trainer.test(prepared.targets("test"), show_progress=progress)
    print(final_table(result, folder.path))
    return result


def reads_codes(config: SERConfig) -> bool:
    return getattr(config.model_class, "reads_codes", False)


def locate_data(config: SERConfig) -> None:
    """Point ``data_path`` at the data set: where it is, else at the bundled sample, else at where it is made.

    Codes of users are looked for, and made, in the first of these, for the bundled sample may not be writable.
    """
    folder, name = Path(config["data_path"]), config["dataset"]
    if reads_codes(config):
        config["codes_file"] = str(Path(config["codes_file"] or folder / f"{name}.codes").absolute())
    bundled = package_folder("dataset_atomic") / name
    if not (folder / f"{name}.inter").is_file() and (bundled / f"{name}.inter").is_file():
        config["data_path"] = str(bundled)
    else:
        config["data_path"] = str(ensure_dataset(name, config.final_config_dict, folder.parent))
