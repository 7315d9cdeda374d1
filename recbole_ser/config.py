"""RecBole's configuration with our defaults and strict keys; nothing is read from ``sys.argv`` or evaluated."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import yaml
from recbole.config import Config
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.utils import InputType, ModelType

from recbole_ser import compat
from recbole_ser.atomic.location import dataset_folder
from recbole_ser.bundled import package_folder
from recbole_ser.errors import ConfigError
from recbole_ser.registry import find_model
from recbole_ser.yaml_values import Loader, read_yaml


class SERConfig(Config):
    """RecBole's configuration for one model and one data set.

    It has these layers, of which later ones win: RecBole's defaults, ``properties/overall.yaml``,
    ``properties/model/<Model>.yaml``, ``properties/dataset/<dataset>.yaml`` (where ``models: {<Model>: {...}}`` holds
    for that model only), the files of ``config_files``, ``config_dict``.  Mappings (``eval_args``,
    ``train_neg_sample_args``, ``codes``) are merged key by key; everything else is replaced.  In the user's values a
    dot leads into a mapping: ``codes.rqvae.levels`` changes this one value and leaves the rest of ``codes`` as it is.

    The final ``data_path`` is the folder of the data set itself, see ``dataset_folder``.  User codes are looked for,
    and made, below the folder that the user gave, even if the data set is the bundled one, which may not be writable.

    Args:
        model: a registered name, ``package.module:Class``, or a model class.
        dataset: name of the data set, a folder below ``data_path``.
        config_files: the user's YAML file, or several files, of which later ones win.
        config_dict: values of the user with their types (strings stay strings).

    Attributes:
        origin: the layer that each key's value comes from.
        model_keys: the keys in the model's own YAML file or ``default_config``.
        given: the user's own values, as they were given.

    Raises:
        ConfigError: a model or key is unknown (the message names the most similar one), or RecBole refuses a value.
    """

    model_keys: set[str]

    def __init__(
        self,
        model: str | type[AbstractRecommender],
        dataset: str,
        config_files: str | Path | Sequence[str | Path] | None = None,
        config_dict: dict[str, Any] | None = None,
    ) -> None:
        self.origin: dict[str, str] = {}
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

    def resolved(self) -> dict[str, Any]:
        """The final value of every key in plain YAML types, for the run folder."""
        return {key: _plain(value) for key, value in sorted(self.final_config_dict.items())}

    def arguments(self) -> dict[str, Any]:
        """The arguments, with absolute paths, for which ``SERConfig(**arguments)`` is this configuration again."""
        model = f"{self.model_class.__module__}:{self.model_class.__qualname__}"
        data_path = str(Path(self["data_path"]).absolute().parent)
        codes_file = {"codes_file": self["codes_file"]} if self["codes_file"] else {}
        values = {**_plain(self.given), "data_path": data_path, **codes_file}
        return {"model": model, "dataset": self["dataset"], "config_dict": values}

    # --- what RecBole does differently ------------------------------------------------------------------------------

    def compatibility_settings(self) -> None:
        compat.set_numpy_aliases()

    def _init_device(self) -> None:
        self.final_config_dict["gpu_id"] = compat.visible_devices(self.final_config_dict["gpu_id"])
        super()._init_device()

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
        return model_class.__name__, model_class, dataset

    def _load_internal_config_dict(self, model: str, model_class: type[AbstractRecommender], dataset: str) -> None:
        theirs, ours = compat.recbole_properties(), package_folder("properties")
        by_the_user, self.origin = self.origin, {}
        self.model_keys = set(getattr(model_class, "default_config", {}))
        self.internal_config_dict: dict[str, Any] = {"MODEL_TYPE": model_class.type}
        is_theirs = any(base.__name__ == model and base.__module__.startswith("recbole.") for base in model_class.mro())
        for folder, file in [
            (theirs, "overall.yaml"),
            *([(theirs, f"model/{model}.yaml")] if is_theirs else []),
            (theirs, "dataset/sample.yaml"),
            (ours, "overall.yaml"),
            (ours, f"model/{model}.yaml"),
            (ours, f"dataset/{dataset}.yaml"),
        ]:
            if (folder / file).is_file():
                owner = "recbole/properties" if folder == theirs else "properties"
                values = read_yaml(folder / file)
                self.model_keys |= set(values) if file.startswith("model/") else set()
                values.update(values.pop("models", {}).get(model, {}))  # what a data set's file sets for one model
                self._overlay(self.internal_config_dict, values, f"{owner}/{file}")
        defaults = getattr(model_class, "default_config", {})
        self._overlay(self.internal_config_dict, {k: v for k, v in defaults.items() if k not in self.origin}, model)
        self.origin.update(by_the_user)
        self._refuse_unknown_keys(model)

    def _get_final_config_dict(self) -> dict[str, Any]:
        final = _with_given(self.internal_config_dict, self.given)
        if self.model_class.type == ModelType.TRADITIONAL:
            final["epochs"] = 1
        final["train_neg_sample_args"] = self._negatives(final)
        return final

    def _set_default_parameters(self) -> None:
        super()._set_default_parameters()
        folder = Path(self.final_config_dict["data_path"])  # data_path/<dataset>, but RecBole's own for its example
        self.final_config_dict["data_path"] = str(dataset_folder(folder.name, folder.parent))
        if getattr(self.model_class, "reads_codes", False):
            codes_file = self.final_config_dict["codes_file"] or folder / f"{self.dataset}.codes"
            self.final_config_dict["codes_file"] = str(Path(codes_file).absolute())

    def _negatives(self, final: dict[str, Any]) -> dict[str, Any] | None:
        """The settings of training negatives; only the user's own for a foreign model with a softmax over all items."""
        input_type = getattr(self.model_class, "input_type", None)
        ours = input_type == InputType.LISTWISE
        wanted = self.external_config_dict.get("train_neg_sample_args")
        if input_type is None and final.get("loss_type") == "CE":
            return wanted
        negatives = dict(final["train_neg_sample_args"] or {})
        if not ours and not (wanted or {}).get("sample_num"):
            negatives["sample_num"] = 1
        if negatives.get("distribution") == "candidates":
            mode = final["eval_args"]["mode"]
            mode = mode if isinstance(mode, str) else mode.get("test", "full")
            negatives["distribution"] = "popularity" if mode.startswith("pop") else "uniform"
        return negatives

    def _overlay(self, values: dict[str, Any], new: dict[str, Any], origin: str) -> None:
        for key, value in new.items():
            values[key] = _merged(values.get(key), value)
            self.origin[key] = origin

    def _refuse_unknown_keys(self, model: str) -> None:
        known = set(self.internal_config_dict) | {key for keys in self.parameters.values() for key in keys}
        known |= {"encoding", "embedding_size", "hidden_size"}  # models use different names for their width
        for key, value in self.external_config_dict.items():
            self._refuse_unknown(key, known, f"{self._origin_of(key)}: {model} has no key '{key}'")
            if key in {"eval_args", "train_neg_sample_args", "codes"} and isinstance(value, dict):
                parts = {*self.internal_config_dict[key], "alpha", "dynamic", "candidate_num"}
                for part in value:
                    self._refuse_unknown(part, parts, f"{self._origin_of(key)}: {key} has no key '{part}'")

    def _origin_of(self, key: str) -> str:
        """The layer that the user's value of ``key``, or of a part of it, comes from."""
        return self.origin[next(given for given in self.given if given.partition(".")[0] == key)]

    @staticmethod
    def _refuse_unknown(key: str, known: set[str], complaint: str) -> None:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
            hint = f"did you mean '{near[0]}'?" if near else "see properties/overall.yaml and the model's YAML file"
            raise ConfigError(f"{complaint}: {hint}")


def _merged(old: Any, new: Any) -> Any:
    return {**old, **new} if isinstance(old, dict) and isinstance(new, dict) else new


def _with_given(values: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """``values`` with the user's values; keys with dots are applied last, and change only the value they lead to."""
    result = dict(values)
    for key in sorted(given, key=lambda key: "." in key):
        head, *path = key.split(".")
        result[head] = _with_leaf(result.get(head), path, given[key]) if path else _merged(result.get(key), given[key])
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
