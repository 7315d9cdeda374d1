"""The runs of a study: what each is made of, where it is, and what is left to do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_ser.atomic.location import has_interactions
from recbole_ser.config import SERConfig
from recbole_ser.data.text_vectors import manifest_path
from recbole_ser.errors import ConfigError
from recbole_ser.runs.folder import RunFolder
from recbole_ser.runs.sweep_folder import SweepFolder
from recbole_ser.settings.run import RunSettings
from recbole_ser.study.declaration import Row, Study, Tuning
from recbole_ser.tuning.plan import read_plan
from recbole_ser.tuning.space import is_given

WAITING, TUNING, PREPARING, RUNNING, FINISHED, FAILED = (
    "waiting", "tuning", "preparing", "running", "finished", "failed"
)  # fmt: skip

# What may change between two calls of a study without making a finished run another one: where and how runs work.
_NOT_WHAT = {*RunSettings.model_fields, "data_path", "codes_file", "texts_folder"} - {"seed"}

_ELSEWHERE = "give the study another --folder, or remove this one"

# What models read that is made from the data: the mark of such a model, the setting of its place, and how it is made.
_MADE = (("reads_codes", "codes_file", "codes"), ("reads_texts", "texts_folder", "texts"))


@dataclass(frozen=True)
class Group:
    """A row on one data set: runs that differ in nothing but the seed.

    Args:
        study: the study.
        row: the row.
        dataset: name of the data set.
    """

    study: Study
    row: Row
    dataset: str

    @property
    def folder(self) -> Path:
        """The folder of all runs on this data set."""
        return self.study.folder / self.dataset

    @property
    def sweep(self) -> Path:
        """The folder of the sweep that tunes this row."""
        return self.folder / "tuning" / self.row.folder_name

    def config(self, seed: int, tuned: dict[str, Any] | None = None) -> SERConfig:
        """The configuration of a run.

        Codes and vectors of texts for which the row has settings of its own are kept beside the usual ones, under a
        name that these settings decide, so that rows with other settings do not read them.

        Args:
            tuned: what ``tuned_values`` gives.

        Raises:
            ConfigError: a setting is wrong; the message names the study's file and the row.
        """
        values = {"show_progress": False, **self.row.settings, **(tuned or {}), "seed": seed}
        if self.row.name is not None:
            values["row_name"] = self.row.name
        try:
            config = SERConfig(self.row.model, self.dataset, None, values)
            places = _places_of_its_own(config, values)
            return SERConfig(self.row.model, self.dataset, None, {**values, **places}) if places else config
        except ConfigError as error:
            raise ConfigError(f"{self.study.source}: {self.row.title}: {error}") from error

    def sweep_config(self, tuning: Tuning) -> SERConfig:
        """The configuration of the sweep, whose seed is the first."""
        row = Row(None, self.row.model, {**self.row.settings, "epochs": tuning.epochs}, None)
        return Group(self.study, row, self.dataset).config(self.study.seeds[0])

    def tuned_values(self) -> dict[str, Any] | None:
        """The values that the sweep chose, and those that it fixed; ``None`` if it has yet to be finished.

        Raises:
            ConfigError: the sweep in the folder has another plan or other settings.
        """
        tuning = self.row.tuning
        if tuning is None:
            return {}
        if not (self.sweep / "sweep.json").is_file():
            return None
        sweep = SweepFolder.load(self.sweep)
        content, result = sweep.content(), sweep.result()
        plan = json.loads(json.dumps(read_plan(self.row.model, **tuning.options())[0].to_json()))
        fixed = {key: value for key, value in plan["fixed"].items() if not is_given(key, self.row.settings)}
        if changed := [key for key in plan if plan[key] != content["plan"][key]]:
            raise ConfigError(f"{self.sweep} was tuned with another {changed[0]}: {_ELSEWHERE}")
        by_the_sweep = {key.partition(".")[0] for key in fixed}
        _refuse_changes(self.sweep, content["arguments"], self.sweep_config(tuning), by_the_sweep)
        return None if result is None else {**fixed, **sweep.trial(result[0]).values()}

    def check(self) -> None:
        """Refuse, before anything runs, settings that are wrong, and folders that hold other runs than this study's.

        Raises:
            ConfigError: that is so.
        """
        tuning = self.row.tuning
        if tuning is not None:
            try:
                plan, where = read_plan(self.row.model, **tuning.options())
                plan.check(self.sweep_config(tuning), where)
            except ConfigError as error:
                raise ConfigError(f"{self.study.source}: {self.row.title}: tune: {error}") from error
        tuned = self.tuned_values()
        for cell in (Cell(self, seed) for seed in self.study.seeds):
            config = self.config(cell.seed, tuned)
            if (cell.path / "arguments.json").is_file():
                if tuned is None:
                    raise ConfigError(f"{cell.path} was made before its settings were tuned: {_ELSEWHERE}")
                _refuse_changes(cell.path, RunFolder(cell.path).arguments(), config)


@dataclass
class Cell:
    """One run of a study.

    Args:
        group: its row and data set.
        seed: its seed.
        status: how far it is.
        error: why it failed, in one line.
    """

    group: Group
    seed: int
    status: str = WAITING
    error: str = ""

    @property
    def path(self) -> Path:
        """The folder of the run."""
        return self.group.folder / f"{self.group.row.folder_name}-{self.seed}"

    @property
    def title(self) -> str:
        return f"{self.group.row.title} on {self.group.dataset}, seed {self.seed}"

    def is_finished(self) -> bool:
        return (self.path / "result.json").is_file()

    def config(self) -> SERConfig:
        """Its configuration, with the values that its row was tuned to."""
        return self.group.config(self.seed, self.group.tuned_values())


def groups_of(study: Study) -> list[Group]:
    """Every row on every data set, one data set after the other."""
    return [Group(study, row, dataset) for dataset in study.datasets for row in study.rows]


def inputs_to_make(config: SERConfig) -> tuple[str, ...]:
    """What a run of ``config`` reads and is not there yet: its data set, codes or texts; each by its place."""
    data = Path(config["data_path"])
    missing = [] if has_interactions(data) else [str(data)]
    for mark, key, _ in _MADE:
        place = config[key]
        if getattr(config.model_class, mark, False):
            made = manifest_path(place) if key == "texts_folder" else Path(place)
            missing += [] if made.exists() else [place]
    return tuple(missing)


def _places_of_its_own(config: SERConfig, given: dict[str, Any]) -> dict[str, str]:
    places = {}
    for mark, key, block in _MADE:
        has_own = any(name.partition(".")[0] == block for name in given) and key not in given
        if has_own and getattr(config.model_class, mark, False):
            usual = Path(config[key])
            digest = hashlib.sha256(json.dumps(config[block], sort_keys=True).encode()).hexdigest()
            places[key] = str(usual.with_name(f"{usual.stem}-{digest[:8]}{usual.suffix}"))
    return places


def _refuse_changes(path: Path, before: Any, config: SERConfig, but: Set[str] = frozenset()) -> None:
    """Refuse a run or sweep that was started (``before``) with other settings than ``config``, except for ``but``."""
    was, now = (_what(arguments, but) for arguments in (before, config.arguments()))
    if changed := sorted(key for key in {**was, **now} if was.get(key, ...) != now.get(key, ...)):
        raise ConfigError(f"{path} was made with another {', '.join(changed)}: {_ELSEWHERE}")


def _what(arguments: Any, but: Set[str]) -> dict[str, Any]:
    values = json.loads(json.dumps(arguments["config_dict"]))
    left_out = _NOT_WHAT | but
    return {"model": arguments["model"], **{k: v for k, v in values.items() if k.partition(".")[0] not in left_out}}
