"""A finished run's model and data, as they were when it was tested."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from recbole_ser.config import SERConfig
from recbole_ser.data.timed_dataset import TimedDataset
from recbole_ser.errors import UserError
from recbole_ser.train.checkpoint import load_checkpoint
from recbole_ser.train.run_folder import RunFolder

_HERE = frozenset(["device", "data_path", "codes_file"])  # settings that say where, not what


def load_run(path: str | Path) -> tuple[SERConfig, TimedDataset, Any]:
    """The run in folder ``path``: its configuration, its data, and its model with the weights that were tested.

    Settings are those that the run had, whatever the defaults have become.  Nothing is fetched or made anew.

    Raises:
        UserError: no run, one that is not finished, a damaged checkpoint, or data or codes that have changed.
    """
    folder = RunFolder.load(path)
    if not (folder.path / "result.json").is_file():
        raise UserError(f"{path}: this run is not finished: go on with 'recbole-ser run --resume={path}'")
    config = SERConfig(**folder.arguments())
    checkpoint = load_checkpoint(folder.best, config["device"], ("settings", "state_dict", "other_parameter"))
    _restore(config, checkpoint["settings"])
    dataset = TimedDataset(config)
    if dataset.data_hash != folder.data()["hash"]:
        raise UserError(f"{path}: the files of data set '{dataset.dataset_name}' have changed since this run")
    codes = folder.data().get("codes")
    if codes and dataset.user_codes.hash != codes["hash"]:
        raise UserError(f"{path}: the codes in {config['codes_file']} have changed since this run")
    model = config.model_class(config, dataset).to(config["device"])
    try:
        model.load_state_dict(checkpoint["state_dict"])
    except RuntimeError as error:  # other names or shapes
        raise UserError(f"{folder.best}: holds the weights of another model or of other data") from error
    model.load_other_parameter(checkpoint["other_parameter"])
    _blank_unknown_user(model)
    return config, dataset, model.eval()


def _restore(config: SERConfig, settings: dict[str, Any]) -> None:
    now = config.resolved()
    for key in settings.keys() - _HERE:
        if now.get(key) != settings[key]:
            config[key] = settings[key]


def _blank_unknown_user(model: Any) -> None:
    """Zero the user of id 0, who stands for users that are not in the data.

    RecBole's sequential models that embed users do not know 0 as padding: its vector is random and never trained.
    """
    table = getattr(model, "user_embedding", None)
    if isinstance(table, nn.Embedding):
        table.weight.data[0] = 0.0
