"""The plan of a sweep: its space, what is fixed, how configurations are chosen, and which are given up early."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from recbole_ser.bundled import package_folder
from recbole_ser.config import SERConfig
from recbole_ser.errors import ConfigError
from recbole_ser.registry import find_model
from recbole_ser.tuning.space import Dimension, check_space, grid, is_given, read_space
from recbole_ser.yaml_values import read_yaml

SEARCHES = ("grid", "random", "tpe")
SCHEDULERS = ("asha", "none")


@dataclass(frozen=True)
class Plan:
    """The plan of one sweep.

    Args:
        name: name of the sweep, as its file calls it.
        space: the swept keys and what is tried for each.
        fixed: values of other keys that hold in every trial, unless the user gives them.
        search: ``grid`` (every combination), ``random``, or ``tpe`` (Optuna's model of what was good so far).
        trials: number of configurations that are tried; for a grid, the number of all its points.
        scheduler: ``asha`` gives up trials that are behind others at the same number of epochs, ``none`` gives up none.
        grace_period: number of epochs before a trial may be given up.
        reduction_factor: of the trials that reach a rung of ASHA, one in this many goes on to the next rung, which has
            this many times the epochs.
        plot: one or two validation metrics for the plots; by default the one that chooses, and MRR.
    """

    name: str
    space: tuple[Dimension, ...]
    fixed: dict[str, Any] = field(default_factory=dict)
    search: str = "random"
    trials: int = 20
    scheduler: str = "asha"
    grace_period: int = 5
    reduction_factor: int = 3
    plot: tuple[str, ...] = ()

    def plotted(self, metric: str) -> list[str]:
        """The names, as in results, of the metrics in the plots; ``metric`` is the one that chooses."""
        return list(dict.fromkeys(name.lower() for name in self.plot or (metric, "mrr")))[:2]

    def check(self, config: SERConfig, where: str) -> None:
        """Refuse a plan that cannot be run with ``config``; ``where`` names the plan in errors.

        Raises:
            ConfigError: an option is out of its range, or the space is wrong (see ``check_space``).
        """
        for name, value, known in [("search", self.search, SEARCHES), ("scheduler", self.scheduler, SCHEDULERS)]:
            if value not in known:
                raise ConfigError(f"{where}: {name} is any of {', '.join(known)}, not '{value}'")
        for name, least in [("trials", 1), ("grace_period", 1), ("reduction_factor", 2)]:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigError(f"{where}: {name} is a whole number from {least} on, not {value}")
        if len(self.plot) > 2:
            raise ConfigError(f"{where}: plot: one or two metrics fit, not {', '.join(self.plot)}")
        names = {f"{name}@{k}".lower() for name in config["metrics"] for k in config["topk"]} | {"mrr"}
        if unknown := [name for name in self.plot if name.lower() not in names]:
            raise ConfigError(f"{where}: plot: '{unknown[0]}' is not computed: use any of {', '.join(sorted(names))}")
        for dimension in self.space:
            if is_given(dimension.key, config.external_config_dict):
                raise ConfigError(f"{where}: {dimension.key} is swept and given as well: leave one of them out")
        check_space(self.space, config, where)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "space": {d.key: {d.kind: list(d.values)} for d in self.space}}

    @classmethod
    def from_json(cls, values: dict[str, Any], where: str) -> Plan:
        return cls(**{**values, "space": read_space(values["space"], where), "plot": tuple(values["plot"])})


def read_plan(model: Any, space: str | Mapping[str, Any] | None, **options: Any) -> tuple[Plan, str]:
    """Read the plan that ``space`` names.

    Args:
        model: the model, whose sweeps are in ``properties/tune/<Model>.yaml``; if it has none, those in
            ``properties/tune/overall.yaml`` are used.
        space: the name of a sweep in that file (by default its first), a YAML file (``mine.yaml``, for its first
            sweep), a sweep of a YAML file (``mine.yaml:name``), or the space itself as a mapping.
        options: fields of ``Plan`` that replace those of the file; ``None`` counts as not given.

    Returns:
        The plan, and the text that names it in errors.

    Raises:
        ConfigError: there is no such sweep, or what is there is no plan.
    """
    given = {key: value for key, value in options.items() if value is not None}
    if isinstance(space, Mapping):
        return _plan("space", {"space": space}, "space", given), "space"
    if space is not None and not isinstance(space, str):
        raise ConfigError(f"space: give the name of a sweep, a YAML file, or {{key: {{kind: values}}}}, not {space}")
    path, name = _find(model, space)
    sweeps = read_yaml(path)
    if not sweeps:
        raise ConfigError(f"{path}: holds no sweep")
    name = next(iter(sweeps)) if name is None else name
    if name not in sweeps:
        near = difflib.get_close_matches(name, map(str, sweeps), n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise ConfigError(f"{path}: there is no sweep '{name}': {hint}it has {', '.join(map(str, sweeps))}")
    where = f"{path}: {name}"
    if not isinstance(sweeps[name], Mapping) or "space" not in sweeps[name]:
        raise ConfigError(f"{where}: a sweep is written as {{space: {{key: {{kind: values}}}}, ...}}")
    return _plan(name, dict(sweeps[name]), where, given), where


def _find(model: Any, space: str | None) -> tuple[Path, str | None]:
    if space is not None and (file := re.fullmatch(r"(.+\.ya?ml)(?::(.+))?", space)):
        return Path(file[1]), file[2]
    model_class = find_model(model) if isinstance(model, str) else model
    own = package_folder("properties") / "tune" / f"{model_class.__name__}.yaml"
    return own if own.is_file() else own.with_name("overall.yaml"), space


def _plan(name: str, values: dict[str, Any], where: str, given: dict[str, Any]) -> Plan:
    known = set(Plan.__dataclass_fields__) - {"name"}
    for key in values:
        if key not in known:
            raise ConfigError(f"{where}: a sweep has no key '{key}': known are {', '.join(sorted(known))}")
    if not isinstance(values.get("fixed", {}), dict):
        raise ConfigError(f"{where}: fixed is written as {{key: value}}, not {values['fixed']}")
    if not isinstance(values.get("plot", []), list):
        raise ConfigError(f"{where}: plot is a list of metrics, not {values['plot']}")
    values["plot"] = tuple(map(str, values.get("plot", ())))
    plan = Plan(name, read_space(values.pop("space"), where), **{**values, **given})
    if plan.search != "grid":
        return plan
    points = len(grid(plan.space, where))
    if "trials" in given and given["trials"] != points:
        raise ConfigError(f"{where}: its grid has {points} points: leave --trials out, or use --search=random")
    return replace(plan, trials=points)
