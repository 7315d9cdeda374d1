"""The space of values that a sweep tries, checked against the declared settings of the model and of training."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from recbole_ser.config import SERConfig, merged
from recbole_ser.errors import ConfigError
from recbole_ser.settings.checking import check_key, nearest
from recbole_ser.settings.run import AllSettings, without_fixed

# The keys that may be swept beside the model's own.  Keys that decide the data, the instances or the candidates may
# not: results for different ones cannot be compared.
TRAINING_KEYS = frozenset(
    ["learning_rate", "weight_decay", "train_batch_size", "learner", "clip_grad_norm", "train_neg_sample_args"]
    + ["lr_plateau", "enable_amp", "shuffle", "seed", "MAX_ITEM_LIST_LENGTH", "max_search_length"]
)
CODES = "codes"  # the keys below it change the user codes, which are made once per value

_KINDS = ("choice", "uniform", "loguniform", "integer")


@dataclass(frozen=True)
class Dimension:
    """One swept key.

    Args:
        key: key of the configuration; a dot leads into a mapping, as in ``codes.rqvae.lambda_rq_cl``.
        kind: ``choice``, ``uniform``, ``loguniform`` or ``integer``.
        values: the values of a ``choice``; for the other kinds the lowest and the highest value, both included.
    """

    key: str
    kind: str
    values: tuple[Any, ...]

    def draw(self, generator: np.random.Generator) -> Any:
        """Draw one value, independently of all others."""
        if self.kind == "choice":
            return self.values[generator.integers(len(self.values))]
        low, high = self.values
        if self.kind == "integer":
            return int(generator.integers(low, high + 1))
        if self.kind == "uniform":
            return float(generator.uniform(low, high))
        return float(np.clip(np.exp(generator.uniform(np.log(low), np.log(high))), low, high))


def read_space(text: Any, where: str) -> tuple[Dimension, ...]:
    """Read a mapping like ``{alpha: {choice: [0.1, 1]}, weight_decay: {loguniform: [1e-6, 1e-3]}}``.

    Args:
        where: the text that names the sweep in errors.

    Raises:
        ConfigError: the mapping is empty, or one of its entries is no dimension.
    """
    if not isinstance(text, Mapping) or not text:
        raise ConfigError(f"{where}: a space is written as {{key: {{kind: values}}}}, not {text}")
    return tuple(_dimension(str(key), value, where) for key, value in text.items())


def _dimension(key: str, value: Any, where: str) -> Dimension:
    known = isinstance(value, Mapping) and len(value) == 1 and next(iter(value)) in _KINDS
    kind, values = next(iter(value.items())) if known else ("", None)
    if not isinstance(values, list) or not values:
        raise ConfigError(
            f"{where}: {key}: write {{choice: [...]}}, {{uniform: [low, high]}}, {{loguniform: [low, high]}} or "
            f"{{integer: [low, high]}}, not {value}"
        )
    if unlimited := [item for item in values if isinstance(item, float) and not math.isfinite(item)]:
        raise ConfigError(f"{where}: {key}: {unlimited[0]} is no value that a sweep can try")
    if kind == "choice":
        if any(values.count(item) > 1 for item in values):
            raise ConfigError(f"{where}: {key}: a value is listed twice in {values}")
        return Dimension(key, kind, tuple(values))
    fits = [_is_number(item) and (kind != "integer" or isinstance(item, int)) for item in values]
    if len(values) != 2 or not all(fits):
        raise ConfigError(
            f"{where}: {key}: {kind} takes two {'whole ' if kind == 'integer' else ''}numbers, not {values}"
        )
    if not values[0] < values[1] or (kind == "loguniform" and values[0] <= 0):
        least = " and begins above 0" if kind == "loguniform" else ""
        raise ConfigError(f"{where}: {key}: {kind} goes from a lower to a higher number{least}, not {values}")
    return Dimension(key, kind, tuple(values))


def check_space(space: tuple[Dimension, ...], config: SERConfig, where: str) -> None:
    """Check that every dimension is a key that may be swept for the model of ``config``, with values that it may have.

    Raises:
        ConfigError: the model has no such key (the message names the most similar one), the key must be the same for
            all trials, or a value is not allowed.
    """
    reads_codes = getattr(config.model_class, "reads_codes", False)
    allowed = {key for key in config.model_keys | TRAINING_KEYS | ({CODES} if reads_codes else set()) if key in config}
    for dimension in space:
        key = dimension.key.partition(".")[0]
        if key not in allowed:
            _refuse(dimension.key, key, allowed, config, where)
        if key == CODES and (dimension.kind != "choice" or dimension.key == CODES):
            raise ConfigError(
                f"{where}: {dimension.key}: codes are made once for each value of a part of this mapping, so name "
                "the part and list its values: codes.rqvae.lambda_rq_cl: {choice: [...]}"
            )
        _refuse_parts_of_no_mapping(dimension, config, where)
        _check_values(dimension, config, where)
    paths = [dimension.key for dimension in space]
    for path in paths:
        for other in paths:
            if other.startswith(f"{path}."):
                raise ConfigError(f"{where}: {path} and {other}, a part of it, are both swept: leave one of them out")


def _refuse_parts_of_no_mapping(dimension: Dimension, config: SERConfig, where: str) -> None:
    key, *inside = dimension.key.split(".")
    value, path = config[key], key
    for part in inside:
        if not isinstance(value, Mapping) or not part:
            raise ConfigError(f"{where}: {dimension.key}: {path} is no mapping ({value}): sweep it as a whole")
        value, path = value.get(part), f"{path}.{part}"


def _refuse(path: str, key: str, allowed: set[str], config: SERConfig, where: str) -> None:
    model = config["model"]
    if key in config:
        raise ConfigError(
            f"{where}: {path} cannot be swept: it is no setting of {model} or of training, and trials "
            "must have the same data and candidates"
        )
    hint = nearest(key, allowed) or f"it has {', '.join(sorted(config.model_keys)) or 'none'}"
    raise ConfigError(f"{where}: {model} has no key '{path}' to sweep: {hint}")


def _check_values(dimension: Dimension, config: SERConfig, where: str) -> None:
    """Check the listed values, or both ends of the range, against the declaration of the key."""
    key = dimension.key.partition(".")[0]
    real = dimension.kind in ("uniform", "loguniform")
    for value in dimension.values:
        made = merged(config[key], settings({dimension.key: float(value) if real else value}, config)[key])
        check_key((config.model_settings, AllSettings), key, without_fixed(key, made), lambda path: where)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_given(path: str, values: Mapping[str, Any]) -> bool:
    """Whether a user's ``values`` contain the key ``path``, in which dots lead into mappings."""
    at: Any = values
    for part in path.split("."):
        if not isinstance(at, Mapping) or part not in at:
            return False
        at = at[part]
    return True


def grid(space: tuple[Dimension, ...], where: str) -> list[dict[str, Any]]:
    """Every combination of the listed values, the last key varying fastest; a range of integers lists all of them.

    Raises:
        ConfigError: a dimension is a continuous range.
    """
    columns = []
    for dimension in space:
        if dimension.kind in ("uniform", "loguniform"):
            raise ConfigError(f"{where}: {dimension.key}: a grid needs listed values (choice), or use --search=random")
        low_high = dimension.kind == "integer"
        columns.append(range(dimension.values[0], dimension.values[1] + 1) if low_high else dimension.values)
    keys = [dimension.key for dimension in space]
    return [dict(zip(keys, values)) for values in itertools.product(*columns)]


def settings(values: Mapping[str, Any], config: SERConfig) -> dict[str, Any]:
    """The values of one trial as keys of a configuration; a mapping keeps the other entries that ``config`` has."""
    made: dict[str, Any] = {}
    for path, value in values.items():
        key, *inside = path.split(".")
        if not inside:
            made[key] = _copy(value)
            continue
        target = made.setdefault(key, _copy(config[key]))
        for part in inside[:-1]:
            target = target.setdefault(part, {})
        target[inside[-1]] = value
    return made


def _copy(value: Any) -> Any:
    return {key: _copy(item) for key, item in value.items()} if isinstance(value, Mapping) else value
