"""The rows of a table of results: finished runs that differ in nothing but the seed are one row."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recbole_ser.errors import UserError
from recbole_ser.evaluation.tested_runs import refuse_other_targets, refuse_other_users
from recbole_ser.files import write_json
from recbole_ser.records import read_record
from recbole_ser.runs.folder import RunFolder
from recbole_ser.runs.loading import finished_run
from recbole_ser.settings.run import RunSettings

_SHORT = 12  # characters of a hash
_OF_STUDY = "study.json"  # in the folder of a study's runs on one data set: the names of those that it asks for
_log = logging.getLogger("recbole_ser.comparison")


@dataclass(frozen=True)
class Row:
    """The runs of one model with the same settings.

    Args:
        name: what the runs set as ``row_name``, else the model and, if there are several rows of it, the settings in
            which they differ.
        folders: the folder of each run, in the order of the seeds.
        seeds: the seed of each run.
        ranks: ``[runs, n]``, the rank of each target in each run.
    """

    name: str
    folders: list[RunFolder]
    seeds: list[int]
    ranks: np.ndarray


def tables_in(paths: Sequence[str | Path]) -> list[list[str | Path]]:
    """The paths of each table: one table for all, but one for each data set of a study, a folder of folders of runs."""
    given = [Path(path) for path in paths]
    if len(given) != 1 or _is_one(given[0]) or not given[0].is_dir():
        return [list(paths)]
    inside = sorted(child for child in given[0].iterdir() if child.is_dir())
    of_runs = [folder for folder in inside if any(_is_finished(child) for child in folder.iterdir())]
    return [list(paths)] if any(map(_is_one, inside)) or not of_runs else [[folder] for folder in of_runs]


def find_runs(paths: Sequence[str | Path]) -> list[RunFolder]:
    """The finished runs at ``paths``, each the folder of a run, of a sweep (its chosen trial), or one that holds such.

    Runs below a folder of several that are not finished, or that the study which made the folder does not ask for any
    more, are left out, with a warning in the log ``recbole_ser.comparison``.

    Raises:
        UserError: a folder is none of these, holds no finished run, or a run is given twice.
    """
    found = [folder for path in paths for folder in _runs_at(Path(path))]
    places = [folder.path.resolve() for folder in found]
    for number, folder in enumerate(found):
        if places[number] in places[:number]:
            raise UserError(f"{folder.path}: this run is given twice")
    return found


def _runs_at(path: Path) -> list[RunFolder]:
    inside = [] if _is_one(path) or not path.is_dir() else sorted(child for child in path.iterdir() if _is_one(child))
    if not inside:
        return [finished_run(path)]
    if (path / _OF_STUDY).is_file():
        inside = _asked_for(path, inside)
    finished = [child for child in inside if _is_finished(child)]
    if unfinished := [child.name for child in inside if child not in finished]:
        _log.warning("%s: left out, as they are not finished: %s", path, ", ".join(unfinished))
    if not finished:
        raise UserError(f"{path}: none of the runs in this folder is finished")
    return [finished_run(child) for child in finished]


def write_names_of_study(path: Path, names: Sequence[str]) -> None:
    """Write to the folder ``path`` of a study's runs on one data set the ``names`` of those that it asks for."""
    write_json(path / _OF_STUDY, list(names))


def _asked_for(path: Path, inside: Sequence[Path]) -> list[Path]:
    """Of the runs ``inside`` the folder ``path`` those that its study asks for."""
    names = read_record(path / _OF_STUDY, list[str], "remove this file, and all runs are compared")
    if others := [child.name for child in inside if child.name not in names]:
        _log.warning("%s: left out, as the study does not ask for them any more: %s", path, ", ".join(others))
    return [child for child in inside if child.name in names]


def _is_one(path: Path) -> bool:
    return any((path / name).is_file() for name in ("config.yaml", "sweep.json"))


def _is_finished(path: Path) -> bool:
    return _is_one(path) and (path / "result.json").is_file()


def read_rows(folders: Sequence[RunFolder]) -> tuple[list[Row], list[str]]:
    """The rows of a table of these runs, in the order given, and the user of each target ``[n]``.

    Raises:
        UserError: the runs have other data, targets or candidates, a run is not finished, two runs of a row have the
            same seed, or two rows have the same name.
    """
    for other in folders[1:]:
        refuse_other_targets(folders[0], other)
    frames = [folder.ranks() for folder in folders]
    users = [frame["user_id"].tolist() for frame in frames]
    refuse_other_users(folders, users)
    kinds = [_kind(folder) for folder in folders]
    distinct = [kind for number, kind in enumerate(kinds) if kind not in kinds[:number]]
    rows = []
    for name, kind in zip(_names(distinct), distinct):
        mine = [number for number in range(len(folders)) if kinds[number] == kind]
        seeds = [folders[number].result().seed for number in mine]
        mine = [number for _, number in sorted(zip(seeds, mine))]
        _refuse_equal_seeds(name, [folders[number] for number in mine], sorted(seeds))
        ranks = np.stack([frames[number]["rank"].to_numpy() for number in mine])
        rows.append(Row(name, [folders[number] for number in mine], sorted(seeds), ranks))
    return rows, users[0]


def model_of(folder: RunFolder, model: str | None) -> str | None:
    """The ``model`` that the user names for some of several runs, if it is that of the run in ``folder``."""
    name = (model or "").rpartition(":")[2].rpartition(".")[2]
    return model if name == folder.model_name() else None


def run_names(folders: Sequence[RunFolder]) -> list[str]:
    """A name for each run by itself, as `read_rows` names rows; runs that differ in the seed have it in their names.

    Raises:
        UserError: two runs have the same name.
    """
    kinds = [(name, {**values, "seed": folder.result().seed}) for folder in folders for name, values in [_kind(folder)]]
    return _names(kinds)


def _kind(folder: RunFolder) -> tuple[str | None, dict[str, Any]]:
    """What the run set as ``row_name``, and its model and settings."""
    return _row_name(folder), {"model": folder.model_name(), **given_settings(folder)}


def given_settings(folder: RunFolder) -> dict[str, Any]:
    """The settings that the run was given, by their names with dots, without those that change no result but the seed.

    Of users' codes, and of vectors of texts, the hash of the files counts, and not their place.
    """
    given, data = folder.arguments()["config_dict"], folder.data()
    made = {"codes_file": data["codes"], "texts_folder": data.get("texts")}
    left_out = {*RunSettings.model_fields, "data_path", *made}
    values = {key: value for key, value in _flat(given).items() if key.partition(".")[0] not in left_out}
    return {**values, **{key: stage["hash"][:_SHORT] for key, stage in made.items() if stage is not None}}


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in values.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat


def _row_name(folder: RunFolder) -> str | None:
    return folder.arguments()["config_dict"].get("row_name")


def _names(kinds: Sequence[tuple[str | None, dict[str, Any]]]) -> list[str]:
    """A name for each row: the given one, or its model and, in brackets, its values where rows of the model differ.

    Args:
        kinds: the given name of each row, and its settings.

    Raises:
        UserError: two rows have the same name.
    """
    names: list[str] = []
    for given, values in kinds:
        same_model = [other for name, other in kinds if name is None and other["model"] == values["model"]]
        differing = [key for key in values if any(other.get(key, ...) != values[key] for other in same_model)]
        parts = ", ".join(f"{key}={_shown(values[key])}" for key in sorted(differing))
        name = given or (f"{values['model']} ({parts})" if parts else values["model"])
        if name in names:
            raise UserError(f"two rows are named '{name}', and their runs differ in more than the seed: compare one of "
                            "them, or run the other again with another row_name")  # fmt: skip
        names.append(name)
    return names


def _shown(value: Any) -> str:
    """``value`` as YAML, and whole, so that different values give different names."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _refuse_equal_seeds(name: str, folders: Sequence[RunFolder], seeds: Sequence[int]) -> None:
    for first, second, seed, following in zip(folders, folders[1:], seeds, seeds[1:]):
        if seed == following:
            raise UserError(
                f"{first.path} and {second.path} are both {name} with seed {seed}: give only one of them, as the "
                "spread over seeds counts each seed once"
            )
