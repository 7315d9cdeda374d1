"""RecBole's configuration with our defaults and typed settings; nothing is read from ``sys.argv`` or evaluated."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import yaml
from recbole.config import Config
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.utils import InputType, ModelType

from recbole_ser import compat
from recbole_ser.atomic.location import dataset_folder
from recbole_ser.bundled import package_folder
from recbole_ser.errors import ConfigError
from recbole_ser.recbole_models import PADDED_IN_FRONT, refuse_unfit, transform_of
from recbole_ser.registry import find_model, is_model, registered_name
from recbole_ser.settings.checking import check, nearest
from recbole_ser.settings.declaration import plain
from recbole_ser.settings.model import ModelSettings
from recbole_ser.settings.of_class import declared_defaults, settings_of, yaml_files
from recbole_ser.settings.run import FIXED, AllSettings, TrainingSettings, without_fixed
from recbole_ser.settings.wording import shown
from recbole_ser.workers import group
from recbole_ser.yaml_values import Loader, read_yaml

_WIDTHS = frozenset(["embedding_size", "hidden_size"])  # a data set's file has both, and a model one of them or both
_NAME = re.compile(r"[^./\\\x00-\x1f-][^/\\\x00-\x1f]*")  # of a data set: it becomes part of paths
_OF_DATASETS = "raw"  # the key of a data set's file that says where its raw files are


class SERConfig(Config):
    """RecBole's configuration for one model and one data set.

    It has these layers, of which later ones win, for all models alike: the defaults of every run (RecBole's, then
    ``properties/overall.yaml``), the model's own (what its ``Settings`` declare, then ``properties/model/<Model>.yaml``
    or RecBole's file), the data set's (``properties/dataset/<dataset>.yaml``, where ``models: {<Model>: {...}}`` holds
    for that model only and wins over the rest of the file), the user's (``config_files``, then ``config_dict``).
    Mappings (``eval_args``, ``train_neg_sample_args``, ``codes``, ``texts``) are merged key by key; everything else is
    replaced.  In the user's values a dot leads into a mapping: ``codes.rqvae.levels`` changes this one value and leaves
    the rest of ``codes`` as it is.

    Every value is checked against its declaration, see ``recbole_ser.settings``.

    The final ``data_path`` is the folder of the data set itself, see ``dataset_folder``.  User codes are looked for,
    and made, below the folder that the user gave, even if the data set is the bundled one, which may not be writable;
    so are the vectors of texts.

    Args:
        model: a registered name, ``package.module:Class``, or a model class.
        dataset: name of the data set, a folder below ``data_path``.
        config_files: the user's YAML file, or several files, of which later ones win.
        config_dict: values of the user with their types (strings stay strings).

    Attributes:
        origin: the layer that each key's value comes from.
        model_settings: the declaration of the model's own settings.
        changed: the settings of the model and of training that the data set's file changes, with the values before.
        given: the user's own values, as they were given.

    Raises:
        ConfigError: a model or key is unknown (the message names the most similar one), a value is not allowed, or the
            model is one of RecBole's that cannot be trained here, see ``recbole_models``.
    """

    model_settings: type[ModelSettings]

    def __init__(
        self,
        model: str | type[AbstractRecommender],
        dataset: str,
        config_files: str | Path | Sequence[str | Path] | None = None,
        config_dict: dict[str, Any] | None = None,
    ) -> None:
        self.origin: dict[str, str] = {}
        self.changed: dict[str, Any] = {}
        files = [config_files] if isinstance(config_files, (str, Path)) else list(config_files or ())
        try:
            super().__init__(model, dataset, files, config_dict)
        except (ValueError, TypeError, RuntimeError, NotImplementedError) as error:
            raise ConfigError(str(error)) from error

    def candidate_mode(self, phase: str) -> tuple[str, int]:
        """Distribution and number of negatives of a split's candidates; ``("full", 0)`` for the whole catalogue."""
        mode = self["eval_args"]["mode"][phase]
        match = re.fullmatch(r"(uni|pop)(\d+)", mode)
        return ("full", 0) if match is None else ({"uni": "uniform", "pop": "popularity"}[match[1]], int(match[2]))

    @property
    def model_keys(self) -> set[str]:
        """The keys of the model's own settings."""
        return set(self.model_settings.model_fields)

    def notes(self) -> list[str]:
        """Lines for the log: what the data set's file changes in the settings of the model and of training."""
        changes = [f"{key} {shown(self[key])} (before: {shown(value)})" for key, value in sorted(self.changed.items())]
        return [f"properties/dataset/{self.dataset}.yaml sets {', '.join(changes)}"] if changes else []

    def resolved(self) -> dict[str, Any]:
        """The final value of every key in plain YAML types, for the run folder."""
        return {key: _plain(value) for key, value in sorted(self.final_config_dict.items())}

    def arguments(self) -> dict[str, Any]:
        """The arguments, with absolute paths, for which ``SERConfig(**arguments)`` is this configuration again."""
        path = f"{self.model_class.__module__}:{self.model_class.__qualname__}"
        data_path = str(Path(self["data_path"]).absolute().parent)
        made = {key: self[key] for key in ("codes_file", "texts_folder", "data_cache") if self[key]}
        values = {**_plain(self.given), "data_path": data_path, **made}
        model = registered_name(self.model_class) or path
        return {"model": model, "dataset": self["dataset"], "config_dict": values}

    def named_again(self) -> str:
        """What resuming needs on the command line: the model, if no installed package registers it."""
        model = self.arguments()["model"]
        return f" --model={model}" if ":" in model else ""

    # --- what RecBole does differently ------------------------------------------------------------------------------

    def compatibility_settings(self) -> None:
        compat.set_numpy_aliases()
        compat.set_dok_update()

    def _init_device(self) -> None:
        self.final_config_dict["gpu_id"] = compat.visible_devices(self.final_config_dict["gpu_id"])
        super()._init_device()
        if not self.final_config_dict["use_gpu"]:
            self.final_config_dict["device"] = compat.cpu()
        elif group.count() > 1 and torch.cuda.is_available():
            workers, gpus = group.on_this_machine(), torch.cuda.device_count()
            if workers > gpus:
                raise ConfigError(
                    f"{workers} workers on {gpus} GPUs of this machine: start fewer, or set use_gpu: false"
                )
            self.final_config_dict["device"] = torch.device("cuda", torch.cuda.current_device())
        if not group.is_first():
            self.final_config_dict.update(log_wandb=False, log_mlflow=False, show_progress=False, state="CRITICAL")

    def _build_yaml_loader(self) -> type[yaml.SafeLoader]:
        return Loader

    def _load_cmd_line(self) -> dict[str, Any]:
        return {}

    def _convert_config_dict(self, config_dict: dict[str, Any]) -> dict[str, Any]:
        return dict(config_dict)

    def _load_config_files(self, file_list: Sequence[str | Path]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for path in file_list:
            self._overlay(values, read_yaml(path), str(path))
        return values

    def _merge_external_config_dict(self) -> None:
        self.external_config_dict = dict(self.file_config_dict)
        self._overlay(self.external_config_dict, self.variable_config_dict, "argument")
        self.given = self.external_config_dict
        self.external_config_dict = _with_given({}, self.given)

    def _get_model_and_dataset(
        self, model: str | type[AbstractRecommender], dataset: str
    ) -> tuple[str, type[AbstractRecommender], str]:
        model_class = find_model(model) if isinstance(model, str) else model
        if not is_model(model_class):
            raise ConfigError(f"model: {model!r} is no model class")
        if not isinstance(dataset, str) or not _NAME.fullmatch(dataset):
            raise ConfigError(
                f"dataset is {dataset!r}: it must be the name of a folder in data_path, no path, and not begin with "
                "'.' or '-': for a folder elsewhere give --data_path too"
            )
        refuse_unfit(model_class)
        return model_class.__name__, model_class, dataset

    def _load_internal_config_dict(self, model: str, model_class: type[AbstractRecommender], dataset: str) -> None:
        theirs, ours = compat.recbole_properties(), package_folder("properties")
        by_the_user, self.origin = self.origin, {}
        self.model_settings = settings_of(model_class)
        values: dict[str, Any] = {"MODEL_TYPE": model_class.type}
        for path in (theirs / "overall.yaml", theirs / "dataset/sample.yaml", ours / "overall.yaml"):
            self._overlay(values, read_yaml(path), _named(path))
        self._overlay(values, declared_defaults(self.model_settings), f"{model}.Settings")
        for path in yaml_files(model_class):
            self._overlay(values, read_yaml(path), _named(path))
        self._overlay_dataset(values, ours / f"dataset/{dataset}.yaml", model)
        self.internal_config_dict = values
        keys = {*self.origin, *self.external_config_dict} - {_OF_DATASETS}
        self.origin.update(by_the_user)
        for key in sorted(keys):
            self._refuse_unknown(key, model)

    def _overlay_dataset(self, values: dict[str, Any], path: Path, model: str) -> None:
        if not path.is_file():
            return
        new = read_yaml(path)
        new.update(new.pop("models", {}).get(model, {}))  # what the file sets for one model
        new = {key: value for key, value in new.items() if key not in _WIDTHS - self.model_keys}
        before = {key: values.get(key) for key in new if key in self.model_keys | set(TrainingSettings.model_fields)}
        self._overlay(values, new, _named(path))
        self.changed = {key: value for key, value in before.items() if value != values[key]}

    def _get_final_config_dict(self) -> dict[str, Any]:
        final = _with_given(self.internal_config_dict, self.given)
        self.changed = {key: value for key, value in self.changed.items() if key not in self.external_config_dict}
        self._check(final)
        if self.model_class.type == ModelType.TRADITIONAL:
            final["epochs"] = 1
        final["train_neg_sample_args"] = self._negatives(final)
        return final

    def _check(self, final: dict[str, Any]) -> None:
        """Check all values against their declarations."""
        for path, (only, reason) in FIXED.items():
            key, _, part = path.partition(".")
            only = transform_of(self.model_class) if path == "transform" else only
            value = final.get(key)
            if part:
                value = value.get(part, only) if isinstance(value, dict) else only
            if value != only or isinstance(value, bool) != isinstance(only, bool):
                raise ConfigError(f"{self._where(path)}: {path} is {shown(value)}: only {shown(only)} works: {reason}")
        for package in ("wandb", "mlflow"):
            key = f"log_{package}"
            if final[key] is True and find_spec(package) is None:
                problem = f"{key} is true, and {package} is missing: pip install {package}"
                raise ConfigError(f"{self._where(key)}: {problem}")
        general = {key: without_fixed(key, final[key]) for key in final if key in AllSettings.model_fields}
        check(AllSettings, general, self._where)
        check(self.model_settings, {key: final[key] for key in self.model_keys if key in final}, self._where)

    def _set_default_parameters(self) -> None:
        super()._set_default_parameters()
        folder = Path(self.final_config_dict["data_path"])  # data_path/<dataset>, but RecBole's own for its example
        self.final_config_dict["data_path"] = str(dataset_folder(folder.name, folder.parent))
        if self.final_config_dict["data_cache"]:
            self.final_config_dict["data_cache"] = str(Path(self.final_config_dict["data_cache"]).absolute())
        if self.final_config_dict["transform"] == PADDED_IN_FRONT:  # RecBole sets this key when it makes its loaders
            histories = self.final_config_dict["ITEM_ID_FIELD"] + self.final_config_dict["LIST_SUFFIX"]
            self.final_config_dict["INVERSE_ITEM_SEQ"] = f"Inverse_{histories}"
        for reads, key, name in [("reads_codes", "codes_file", "codes"), ("reads_texts", "texts_folder", "texts")]:
            if getattr(self.model_class, reads, False):
                place = self.final_config_dict[key] or folder / f"{self.dataset}.{name}"
                self.final_config_dict[key] = str(Path(place).absolute())

    def _negatives(self, final: dict[str, Any]) -> dict[str, Any] | None:
        """The settings of training negatives; only the user's own for a foreign model with a softmax over all items."""
        input_type = getattr(self.model_class, "input_type", None)
        ours = input_type == InputType.LISTWISE
        wanted = self.external_config_dict.get("train_neg_sample_args")
        if input_type is None and final.get("loss_type") == "CE":
            return wanted
        if final["train_neg_sample_args"] is None:
            raise ConfigError(
                f"{self._where('train_neg_sample_args')}: train_neg_sample_args is ~: {self.model} learns from sampled "
                "negatives: give their distribution and sample_num"
            )
        negatives = dict(final["train_neg_sample_args"])
        if not ours and not (wanted or {}).get("sample_num"):
            negatives["sample_num"] = 1
        if negatives.get("distribution") == "candidates":
            mode = final["eval_args"]["mode"]
            mode = mode if isinstance(mode, str) else mode.get("test") or mode["valid"]
            negatives["distribution"] = "popularity" if mode.startswith("pop") else "uniform"
        if negatives["distribution"] == "uniform" and negatives.get("alpha", 1) != 1:
            raise ConfigError(
                f"{self._where('train_neg_sample_args.alpha')}: train_neg_sample_args.alpha is {negatives['alpha']}: "
                "it is a power of popularity, and these negatives are drawn uniformly: set distribution to popularity"
            )
        return negatives

    def _overlay(self, values: dict[str, Any], new: dict[str, Any], origin: str) -> None:
        for key, value in plain(new).items():
            values[key] = merged(values.get(key), value)
            self.origin[key] = origin

    def _where(self, path: str) -> str:
        """The layer that the value at ``path`` comes from; a user's value may be given for a part of it or a whole."""
        parts = [key for key in self.given if f"{path}.".startswith(f"{key}.") or f"{key}.".startswith(f"{path}.")]
        return self.origin.get(parts[-1] if parts else path.partition(".")[0]) or str(self.model)

    def _refuse_unknown(self, key: str, model: str) -> None:
        known = self.model_keys | set(AllSettings.model_fields) | {path for path in FIXED if "." not in path}
        if key not in known:
            hint = nearest(key, known) or f"see 'recbole-ser run --model={model} --help'"
            raise ConfigError(f"{self._where(key)}: {model} has no key '{key}': {hint}")


def _named(path: Path) -> str:
    """The name of a file of defaults in messages: ``properties/...``, or ``recbole/properties/...``."""
    theirs = compat.recbole_properties()
    if path.is_relative_to(theirs):
        return f"recbole/properties/{path.relative_to(theirs).as_posix()}"
    return f"properties/{path.relative_to(package_folder('properties')).as_posix()}"


def merged(old: Any, new: Any) -> Any:
    """``new``, or both key by key where both are mappings."""
    return {**old, **new} if isinstance(old, dict) and isinstance(new, dict) else new


def _with_given(values: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """``values`` with the user's values; keys with dots are applied last, and change only the value they lead to."""
    result = dict(values)
    for key in sorted(given, key=lambda key: "." in key):
        head, *path = key.split(".")
        result[head] = _with_leaf(result.get(head), path, given[key]) if path else merged(result.get(key), given[key])
    return result


def _with_leaf(mapping: Any, path: list[str], value: Any) -> Any:
    """A copy of ``mapping`` in which ``path`` leads to ``value``."""
    if not path:
        return value
    inside = mapping if isinstance(mapping, dict) else {}
    return {**inside, path[0]: _with_leaf(inside.get(path[0]), path[1:], value)}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(item) for item in value]
    if isinstance(value, Enum):
        return value.name
    return value if isinstance(value, (bool, int, float, str, type(None))) else str(value)
