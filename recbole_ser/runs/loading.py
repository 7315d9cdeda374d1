"""Load a run's configuration, data and model as they were when the run was tested."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import torch
from recbole.model.abstract_recommender import AbstractRecommender
from torch import nn

from recbole_ser.config import SERConfig
from recbole_ser.data.dataset import SERDataset
from recbole_ser.errors import UserError
from recbole_ser.model.building import build_model, random_states_kept
from recbole_ser.registry import available_models, find_model
from recbole_ser.runs.checkpoint import load_checkpoint
from recbole_ser.runs.folder import RunFolder
from recbole_ser.runs.sweep_folder import SweepFolder

# Settings that say where, not what.
_HERE = frozenset(["device", "data_path", "data_cache", "codes_file", "texts_folder"])

AnyDataset = TypeVar("AnyDataset", bound=SERDataset)


def run_config(folder: RunFolder, model: str | type[AbstractRecommender] | None = None) -> SERConfig:
    """The configuration that the run in ``folder`` was started with.

    Args:
        model: the run's model, as ``module:Class`` or as a class; needed if no installed package registers it.

    Raises:
        UserError: see ``trusted_model``.
    """
    arguments = folder.arguments()
    trusted = trusted_model(folder.path, arguments["model"], model)
    return SERConfig(trusted, arguments["dataset"], config_dict=arguments["config_dict"])


def trusted_model(
    path: Path, recorded: str, model: str | type[AbstractRecommender] | None
) -> str | type[AbstractRecommender]:
    """The model to load for the folder ``path``, whose files say that its model is ``recorded``.

    A folder may come from somebody else, and loading a model runs code.  So code that is not part of an installed
    package is only run when the user, and not just the folder, names it.

    Args:
        model: the model that the user names; ``None``: none.

    Raises:
        UserError: ``recorded`` is no registered model, and the user does not name it; or names another one.
        ConfigError: there is no such model, or it cannot be imported.
    """
    if model is None:
        if recorded not in available_models() and not recorded.startswith("recbole.model."):
            raise UserError(
                f"{path}: its model is {recorded}, which no installed package registers: to let its code run, name it: "
                f"--model={recorded}, or in Python model=..., as for a class that was defined in a notebook"
            )
        return recorded
    model_class = find_model(model) if isinstance(model, str) else model
    name = recorded.rpartition(":")[2].rpartition(".")[2]
    if model_class.__name__ != name:
        raise UserError(f"{path}: its model is {name}, not {model_class.__name__}")
    return model_class


def load_data(folder: RunFolder, config: SERConfig, dataset_class: type[AnyDataset]) -> AnyDataset:
    """Load the data of the run in ``folder``; nothing is downloaded or made anew.

    Raises:
        UserError: the files have changed since the run.
    """
    dataset = dataset_class(config)
    if dataset.data_hash != folder.data()["hash"]:
        raise UserError(f"{folder.path}: the files of data set '{dataset.dataset_name}' have changed since this run")
    return dataset


def load_run(
    folder: RunFolder, dataset_class: type[AnyDataset], model: str | type[AbstractRecommender] | None = None
) -> tuple[SERConfig, AnyDataset, Any]:
    """Load the finished run in ``folder``: its configuration, its data, and its model with the weights of its test.

    The settings are those that the run had, whatever the defaults are now.  Nothing is downloaded or made anew.

    Args:
        dataset_class: the class of the loaded data set.
        model: see ``run_config``.

    Raises:
        UserError: the run is not finished, its checkpoint is damaged, or data, codes or texts have changed.
    """
    if not (folder.path / "result.json").exists():
        raise UserError(f"{folder.path}: this run is not finished: go on with 'recbole-ser run --resume={folder.path}'")
    config = run_config(folder, model)
    checkpoint = load_checkpoint(folder.best, config["device"], ("settings", "state_dict", "other_parameter"))
    _restore(config, checkpoint["settings"])
    dataset = load_data(folder, config, dataset_class)
    codes = folder.data().get("codes")
    if codes and dataset.user_codes.hash != codes["hash"]:
        raise UserError(f"{folder.path}: the codes in {config['codes_file']} have changed since this run")
    texts = folder.data().get("texts")
    if texts and dataset.item_texts.hash != texts["hash"]:
        raise UserError(f"{folder.path}: the texts in {config['texts_folder']} have changed since this run")
    with random_states_kept(torch.device(config["device"])):
        network = build_model(config, dataset)
    try:
        network.load_state_dict(checkpoint["state_dict"])
    except RuntimeError as error:  # other names or shapes
        raise UserError(f"{folder.best}: holds the weights of another model or of other data") from error
    network.load_other_parameter(checkpoint["other_parameter"])
    _blank_unknown_user(network, dataset.user_num)
    return config, dataset, network.eval()


def finished_run(path: str | Path) -> RunFolder:
    """The run in folder ``path``; if that holds a sweep, the run of its chosen trial.

    Raises:
        UserError: ``path`` holds neither a run nor a sweep whose chosen trial has been tested.
    """
    if (Path(path) / "sweep.json").is_file():
        sweep = SweepFolder.load(path)
        tested = sweep.result()
        if tested is None:
            raise UserError(f"{path}: this sweep is not finished: go on with 'recbole-ser tune --resume={path}'")
        return RunFolder.load(sweep.trial(tested[0]).path)
    return RunFolder.load(path)


def _restore(config: SERConfig, settings: dict[str, Any]) -> None:
    now = config.resolved()
    for key in settings.keys() - _HERE:
        if now.get(key) != settings[key]:
            config[key] = settings[key]


def user_tables(model: nn.Module, user_num: int) -> list[nn.Embedding]:
    """The tables of ``model`` that have a row for each user.

    RecBole's models give them names that begin with u (``UI_emb``, ``user_lambda``).
    """
    return [
        table
        for name, table in model.named_modules()
        if isinstance(table, nn.Embedding)
        and table.num_embeddings == user_num
        and name.rpartition(".")[2][:1] in ("u", "U")
    ]


def _blank_unknown_user(model: Any, user_num: int) -> None:
    """Zero the user of id 0, who stands for users that are not in the data.

    RecBole's sequential models that embed users do not know 0 as padding: its vector is random and never trained.
    """
    for table in user_tables(model, user_num):
        table.weight.data[0] = 0.0
