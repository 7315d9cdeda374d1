"""The declaration of a study: a YAML file, or one of the papers' in ``properties/study``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from recbole_ser.bundled import package_folder
from recbole_ser.config import merged
from recbole_ser.errors import ConfigError
from recbole_ser.settings.checking import check, nearest
from recbole_ser.settings.declaration import Settings, setting
from recbole_ser.settings.run import Seed
from recbole_ser.settings.types import Count
from recbole_ser.settings.wording import shown
from recbole_ser.yaml_values import read_yaml

# Settings that the study itself decides, and how.
_DECIDED = {
    "seed": "give the list seeds",
    "run_dir": "every run has its place in the study's folder",
    "row_name": "name the model: {model: ..., name: ...}",
}


class Tuning(Settings):
    """The block ``tune``: a sweep for each row and data set, before its runs, whose chosen values hold for all seeds.

    The budget has no default: it is what makes a comparison of tuned models a fair one.
    """

    trials: Count = setting("configurations that are tried")
    epochs: Count = setting("the most epochs of a trial")
    space: str | dict[str, Any] | None = setting(
        "a sweep of the model's file in properties/tune, FILE.yaml:NAME, or {key: {kind: values}}", default=None
    )
    search: str | None = setting("grid, random or tpe; ~: as the sweep says", default=None)
    scheduler: str | None = setting("asha or none; ~: as the sweep says", default=None)
    grace_period: Count | None = setting("epochs before a trial may be given up; ~: as the sweep says", default=None)
    reduction_factor: Count | None = setting("one trial in so many goes on; ~: as the sweep says", default=None)

    def options(self) -> dict[str, Any]:
        """The arguments of ``tune``, except for the number of epochs, which is a setting."""
        return self.model_dump(exclude={"epochs"})


class _Declaration(Settings):
    """The keys of a study's file."""

    models: Annotated[list[str | dict[str, Any]], Field(min_length=1)] = setting(
        "the rows: names of models, or {model: NAME, name: of the row, tune: ..., key: value}"
    )
    datasets: Annotated[list[str], Field(min_length=1)] = setting("names of data sets")
    seeds: Annotated[list[Seed], Field(min_length=1)] = setting("each model is run once with each", default=[2023])
    settings: dict[str, Any] = setting("settings of all runs", default={})
    tune: dict[str, Any] | None = setting("how each model is tuned first; ~: it is not", default=None)


@dataclass(frozen=True)
class Row:
    """A model with settings of its own: a row of the study's tables.

    Args:
        name: its name in the tables; ``None``: the model's.
        model: the model, a registered name or ``module:Class``.
        settings: what it is given, the study's settings and its own, of which its own win.
        tuning: how it is tuned first; ``None``: it is not.
    """

    name: str | None
    model: str
    settings: dict[str, Any]
    tuning: Tuning | None

    @property
    def title(self) -> str:
        return self.name or self.model.rpartition(":")[2]

    @property
    def folder_name(self) -> str:
        return re.sub(r"[^\w.+=-]+", "-", self.title).strip("-.")


@dataclass(frozen=True)
class Study:
    """A study: every row on every data set with every seed.

    Args:
        source: the file that declares it, for errors.
        folder: where everything that it makes is.
        rows, datasets, seeds: what is run.
    """

    source: Path
    folder: Path
    rows: list[Row]
    datasets: list[str]
    seeds: list[int]


def read_study(
    source: str | Path,
    datasets: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    folder: str | Path | None = None,
) -> Study:
    """Read the study that ``source`` names: a YAML file, or one in ``properties/study``.

    Args:
        datasets: data sets instead of those of the file.
        settings: settings of all runs, which win over those of the file, but not over a row's own.
        folder: the study's folder, by default ``saved/studies/<name of the file>``.

    Raises:
        ConfigError: there is no such study, or its declaration is wrong.
    """
    path = _find(source)
    values = read_yaml(path)
    if datasets:
        values["datasets"] = list(datasets)
    given = check(_Declaration, values, lambda key: str(path))
    lists: dict[str, list[Any]] = {"datasets": given.datasets, "seeds": given.seeds}
    for name, entries in lists.items():
        if twice := [entry for entry in entries if entries.count(entry) > 1]:
            raise ConfigError(f"{path}: {name}: {twice[0]} is listed twice")
    common = _overlaid(given.settings, settings or {})
    rows = [_row(entry, common, given.tune, f"{path}: models") for entry in given.models]
    _refuse_equal_names(rows, path)
    return Study(path, Path(folder or Path("saved") / "studies" / path.stem), rows, given.datasets, given.seeds)


def _find(source: str | Path) -> Path:
    if Path(source).suffix in (".yaml", ".yml"):
        return Path(source)
    known = sorted((package_folder("properties") / "study").glob("*.yaml"))
    path = next((path for path in known if path.stem == str(source)), None)
    if path is None:
        names = [path.stem for path in known]
        hint = nearest(str(source), names) or f"there are {', '.join(names)}"
        raise ConfigError(f"there is no study '{source}': {hint}; or give a YAML file")
    return path


def _row(entry: str | dict[str, Any], common: dict[str, Any], tune: dict[str, Any] | None, where: str) -> Row:
    own = {"model": entry} if isinstance(entry, str) else dict(entry)
    model, name, own_tune = own.pop("model", None), own.pop("name", None), own.pop("tune", None)
    if not isinstance(model, str):
        raise ConfigError(f"{where}: {shown(entry)} has no model: write a name, or {{model: NAME, key: value}}")
    if not (name is None or (isinstance(name, str) and name.isprintable() and 0 < len(name) <= 100)):
        raise ConfigError(f"{where}: name is {shown(name)}: it must be a short line")
    where = f"{where}: {name or shown(model)}"
    if not (own_tune is None or own_tune is False or isinstance(own_tune, dict)):
        raise ConfigError(f"{where}: tune is {{trials: N, epochs: N, ...}}, or false for a row that is not tuned")
    settings = _overlaid(common, own)
    for key in _DECIDED.keys() & settings.keys():
        raise ConfigError(f"{where}: {key} is decided by the study: {_DECIDED[key]}")
    block = None if own_tune is False or (tune is None and own_tune is None) else {**(tune or {}), **(own_tune or {})}
    tuning = None if block is None else check(Tuning, block, lambda key: f"{where}: tune")
    return Row(name, model, settings, tuning)


def _overlaid(values: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    return {**values, **{key: merged(values.get(key), value) for key, value in new.items()}}


def _refuse_equal_names(rows: Sequence[Row], path: Path) -> None:
    names = [row.folder_name for row in rows]
    for number, name in enumerate(names):
        if not name:
            raise ConfigError(f"{path}: models: '{rows[number].title}': a name needs a letter or a digit")
        if name in names[:number]:
            raise ConfigError(f"{path}: models: two rows are '{name}': give one of them another name: {{name: ...}}")
