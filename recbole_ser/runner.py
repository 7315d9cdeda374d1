"""One run, from a configuration to a result."""

from __future__ import annotations

import copy
import logging
import os
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from recbole.model.abstract_recommender import AbstractRecommender

from recbole_ser.codes.stage import build_codes, ensure_codes
from recbole_ser.config import SERConfig
from recbole_ser.convert.prepare import ensure_dataset
from recbole_ser.data.candidates import CandidateTable
from recbole_ser.data.dataset import SERDataset
from recbole_ser.data.loader import EvalLoader, TrainLoader, candidate_table
from recbole_ser.data.splits import split_name
from recbole_ser.errors import ConfigError, UserError
from recbole_ser.evaluation.card import write_card
from recbole_ser.files import check_writable
from recbole_ser.logs import log_to
from recbole_ser.model.building import build_model
from recbole_ser.runs.claim import check_claimable, claim, claim_new
from recbole_ser.runs.folder import RunFolder
from recbole_ser.runs.loading import run_config
from recbole_ser.runs.result import RunResult, final_table
from recbole_ser.texts.stage import build_texts, ensure_texts, refuse_unused_factors
from recbole_ser.train.division import refuse_undividable
from recbole_ser.train.trainer import SERTrainer
from recbole_ser.workers import group

OnEvaluation = Callable[[int, dict[str, float]], None]


def run(
    model: str | type[AbstractRecommender],
    dataset: str,
    *,
    config_files: str | Path | Sequence[str | Path] | None = None,
    config_dict: dict[str, Any] | None = None,
    callback: OnEvaluation | None = None,
) -> RunResult:
    """Train ``model`` on ``dataset``, choose the best epoch by validation, and score the test split once.

    In processes that ``torchrun`` started together this is one run, whose batches they share; see ``workers``.

    Args:
        model: a registered name, ``package.module:Class``, or a model class.
        dataset: name of the data set; if it is not there, it is downloaded and converted, if its YAML file says how.
        config_files, config_dict: values that differ from the defaults; see ``SERConfig``.
        callback: called with (epoch, validation metrics) after every evaluated epoch.

    Returns:
        The result, as in ``result.json``; its ``folder`` is the run's folder.

    Raises:
        UserError: an argument, a setting or a file is wrong; the message says what to do.
    """
    with group.joined():
        config = SERConfig(model, dataset, config_files, config_dict)
        group.from_first(lambda: _check_place(config))
        return _run(config, None, callback)


def _check_place(config: SERConfig) -> None:
    if config["run_dir"]:
        check_claimable(config["run_dir"], _taken(config))
    else:
        check_writable(Path("saved") / config["dataset"] / ".new")


def resume(
    path: str | Path,
    *,
    model: str | type[AbstractRecommender] | None = None,
    callback: OnEvaluation | None = None,
) -> RunResult:
    """Go on with the run in folder ``path`` from its last finished epoch; a finished run is only scored again.

    Args:
        model: the run's model, if no installed package registers it: loading a folder runs no code that only the
            folder names.  As ``module:Class``, or as a class, which may have been defined in a notebook.
        callback: as for ``run``.

    Raises:
        UserError: there is no run, a file of it is damaged, it was started on other data, or another process is
            running it.
    """
    with group.joined():
        folder = RunFolder.load(path)
        return _run(run_config(folder, model), folder, callback)


@dataclass(frozen=True)
class Prepared:
    """What all runs with the same data and protocol share, whatever their model's settings.

    Args:
        dataset: the events and instances, with the configuration of one run.
        candidates: the candidates of each split; empty if the whole catalogue is ranked.
        codes: the hash of the user codes and the back-ends that made them; ``None`` if the model reads no codes.
        texts: the hash of the vectors of texts and the back-ends that made them; ``None`` if the model reads none.
    """

    dataset: SERDataset
    candidates: dict[str, CandidateTable]
    codes: dict[str, str] | None
    texts: dict[str, str] | None = None

    def under(self, config: SERConfig) -> Prepared:
        """The same for a run with another configuration of the same data and protocol; nothing is copied."""
        dataset = copy.copy(self.dataset)
        dataset.config = config
        return replace(self, dataset=dataset)

    def training(self) -> TrainLoader:
        """The training instances in batches, with new negatives in every epoch.

        Raises:
            UserError: there are none.
        """
        loader = TrainLoader(self.dataset.config, self.dataset)
        _refuse_empty("training", loader.rows)
        return loader

    def targets(self, phase: str) -> EvalLoader:
        """The targets of the split ``valid`` or ``test``, with the items that are ranked for each.

        Raises:
            UserError: there are none.
        """
        loader = EvalLoader(self.dataset.config, self.dataset, phase, self.candidates.get(phase))
        _refuse_empty({"valid": "validation"}.get(phase, phase), loader.rows)
        return loader


def _refuse_empty(split: str, rows: int) -> None:
    if not rows:
        raise UserError(f"the {split} split has no targets: too few events per user, or too strict filters")


def claim_folder(config: SERConfig) -> RunFolder:
    """Make the folder of a new run: ``run_dir``, by default ``saved/<dataset>/<model>-<time>-<seed>``.

    Raises:
        UserError: the folder ``run_dir`` exists already.
    """
    if config["run_dir"]:
        return RunFolder(claim(config["run_dir"], _taken(config)))
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return RunFolder(claim_new(Path("saved") / config["dataset"] / f"{config['model']}-{stamp}-{config['seed']}"))


def _taken(config: SERConfig) -> str:
    again = f"recbole-ser run --resume={config['run_dir']}{config.named_again()}"
    return f"go on with the run in it by '{again}', or choose another run_dir"


def enter(folder: RunFolder, config: SERConfig) -> None:
    """Make ``folder`` the place that the run of ``config`` writes to, and write configuration and environment there."""
    use_threads(config)
    config["run_dir"] = config["checkpoint_dir"] = str(folder.path)
    if group.is_first():
        folder.write_config(config.resolved(), config.arguments())
        folder.write_environment(config["device"])


def use_threads(config: SERConfig) -> None:
    """Let PyTorch use ``num_threads`` threads of the CPU or, of several workers, its share of all cores for each."""
    if config["num_threads"]:
        torch.set_num_threads(config["num_threads"])
    elif group.count() > 1:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // group.on_this_machine()))


def prepare(config: SERConfig, with_codes: bool = True) -> Prepared:
    """Get the data set and load it, draw the candidates, and make the user codes and texts if the model reads them.

    Args:
        with_codes: whether to make the codes; false if they are made elsewhere.

    Raises:
        UserError: see ``ensure_dataset``, ``SERDataset``, ``build_candidates``, ``ensure_codes`` and ``ensure_texts``.
    """
    use_threads(config)
    ensure_dataset(config["data_path"], config.final_config_dict)
    dataset = SERDataset(config)
    counts = ", ".join(f"{count:,} {name}" for name, count in dataset.summary().items())
    logging.getLogger().info(f"{config['dataset']}: {counts}")
    tables = {phase: candidate_table(config, dataset, phase) for phase in ("valid", "test")}
    candidates = {phase: table for phase, table in tables.items() if table is not None}
    reads_codes = getattr(config.model_class, "reads_codes", False)
    codes = ensure_codes(config, dataset) if with_codes and reads_codes else None
    texts = ensure_texts(config, dataset) if getattr(config.model_class, "reads_texts", False) else None
    return Prepared(dataset, candidates, codes, texts)


def make_codes(config: SERConfig) -> dict[str, Any]:
    """Make the user codes anew, as the block ``codes`` says, and write them to ``codes_file``.

    Returns:
        The manifest of the codes.

    Raises:
        UserError: see ``ensure_dataset``, ``SERDataset`` and ``build_codes``.
    """
    use_threads(config)
    ensure_dataset(config["data_path"], config.final_config_dict)
    return build_codes(SERDataset(config), config["codes"], config["codes_file"], config["show_progress"])


def make_texts(config: SERConfig) -> dict[str, Any]:
    """Make the vectors of texts anew, as the block ``texts`` says, and write them to ``texts_folder``.

    Returns:
        The manifest of the vectors.

    Raises:
        ConfigError: the model of ``config`` reads no texts, so there is no place for them.
        UserError: see ``ensure_dataset``, ``SERDataset`` and ``build_texts``.
    """
    if not getattr(config.model_class, "reads_texts", False):
        raise ConfigError(f"{config['model']} reads no texts: name a model that does, or none")
    refuse_unused_factors(config)
    use_threads(config)
    ensure_dataset(config["data_path"], config.final_config_dict)
    return build_texts(SERDataset(config), config["texts"], config["texts_folder"], config["show_progress"])


def build_trainer(
    config: SERConfig, folder: RunFolder, prepared: Prepared, model: AbstractRecommender | None = None
) -> SERTrainer:
    """A trainer of ``model``, by default a new one, for a run in ``folder``.

    Raises:
        UserError: the run in the folder was started on other data.
    """
    enter(folder, config)
    dataset = prepared.dataset
    group.from_first(lambda: _write_data(config, folder, prepared))
    return SERTrainer(config, build_model(config, dataset) if model is None else model)


def _write_data(config: SERConfig, folder: RunFolder, prepared: Prepared) -> None:
    dataset = prepared.dataset
    hashes = {phase: table.hash for phase, table in prepared.candidates.items()}
    targets = {phase: dataset.target_hash(phase) for phase in ("valid", "test")}
    folder.write_data(
        dataset.data_hash, protocol_name(config), hashes, dataset.summary(), prepared.codes, targets, prepared.texts
    )


def protocol_name(config: SERConfig) -> str:
    """The name of the protocol in results: the candidates, and what of the split and the averages is not the default.

    ``uni99`` is leave-one-out; ``uni99, TS [0.8, 0.9], mean over users`` names the rule and the average.
    """
    rule = split_name(config["eval_args"]["split"])
    parts = [config["eval_args"]["mode"]["test"], *([] if rule == "LS" else [rule])]
    return ", ".join(parts + ["mean over users"] * (config["average_over"] == "users"))


def _run(config: SERConfig, folder: RunFolder | None, callback: OnEvaluation | None) -> RunResult:
    """Train and test in ``folder``; ``None``: in a new one, which is made when all that a run needs is there."""
    with ExitStack() as held:
        also_log_to = held.enter_context(log_to(None, config["state"]))
        if folder is not None:
            _hold(folder, held, also_log_to)
        for line in config.notes():
            logging.getLogger().info(line)
        with group.first_before_others():
            prepared = prepare(config)
        training, valid, test = prepared.training(), prepared.targets("valid"), prepared.targets("test")
        model = build_model(config, prepared.dataset)
        refuse_undividable(config, model)
        if folder is None:
            folder = RunFolder(group.from_first(lambda: claim_folder(config).path))
            _hold(folder, held, also_log_to)
        trainer = build_trainer(config, folder, prepared, model)
        trainer.resume_checkpoint()
        with _resumable(folder, config):
            trainer.fit(training, valid, True, config["show_progress"], callback)
        result = trainer.test(test, show_progress=config["show_progress"])
        group.from_first(lambda: write_card(folder))
    if group.is_first():
        print(final_table(result))
    return result


@contextmanager
def _resumable(folder: RunFolder, config: SERConfig) -> Iterator[None]:
    """Say how to go on with the run if Ctrl-C ends this block."""
    try:
        yield
    except KeyboardInterrupt:
        if group.is_first():
            again = f"recbole-ser run --resume={shlex.quote(str(folder.path))}{config.named_again()}"
            logging.getLogger().warning(f"Finished epochs are kept; to go on: {again}")
        raise


def _hold(folder: RunFolder, held: ExitStack, also_log_to: Callable[[Path], None]) -> None:
    """Lock ``folder`` and log to it until ``held`` is left; the first worker does both for all."""
    group.from_first(lambda: held.enter_context(folder.locked()))
    if group.is_first():
        also_log_to(folder.log)
