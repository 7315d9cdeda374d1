"""Checking values against the declaration of settings; what is wrong is said in one line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError, create_model

from recbole_ser.errors import ConfigError
from recbole_ser.settings.wording import allowed, shown

Group = TypeVar("Group", bound=BaseModel)


def check(group: type[Group], values: Mapping[str, Any], origin: Callable[[str], str] = lambda key: "") -> Group:
    """The settings ``group`` with ``values``.

    Args:
        origin: gives the file, or whatever else it was, that has set a key; empty if that is not known.

    Raises:
        ConfigError: a value is missing or not allowed, or a key is unknown.  The message names the key, its value, what
            is allowed and where the value comes from.
    """
    try:
        return group.model_validate(dict(values))
    except ValidationError as error:
        # Every alternative of a type has an error; the one that says more than that the type is another one counts.
        errors = error.errors()
        said = next((found for found in errors if not found["type"].endswith("_type")), errors[0])
        raise ConfigError(_message(group, values, said, origin)) from None


def check_key(
    groups: Iterable[type[BaseModel]], key: str, value: Any, origin: Callable[[str], str] = lambda key: ""
) -> None:
    """Check one value alone, against every one of ``groups`` that declares ``key``; rules about several keys are left.

    Raises:
        ConfigError: see ``check``.
    """
    for group in groups:
        if key in group.model_fields:
            field = group.model_fields[key]
            alone = create_model("Alone", __config__=group.model_config, **{key: (field.annotation, field)})  # type: ignore[call-overload]
            check(alone, {key: value}, origin)


def nearest(key: str, known: Any) -> str:
    """``did you mean '...'?`` with the most similar of the ``known`` keys; empty if none is similar."""
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    return f"did you mean '{near[0]}'?" if near else ""


def _message(group: type[BaseModel], values: Mapping[str, Any], error: Any, origin: Callable[[str], str]) -> str:
    parent, inner, path, value = _place(group, values, error["loc"])
    name = ".".join(path)
    if error["type"] == "extra_forbidden":
        key, known = str(error["loc"][-1]), list(inner.model_fields)
        hint = nearest(key, known) or f"known are {', '.join(known)}"
        return _from(origin, path) + f"{name} has no key '{key}': {hint}".lstrip()
    if error["type"] == "missing":
        return _from(origin, path[:1]) + f"{name} is missing: it must be {_allowed(parent, path[-1])}"
    if error["type"] == "value_error":  # a rule of its own, which says it in its own words
        problem = str(error["ctx"]["error"])
        if path:
            return _from(origin, path) + f"{name} is {shown(value)}: {problem}"
        keys = [key for key in group.model_fields if re.search(rf"\b{key}\b", problem)]
        where = sorted({origin(key) for key in keys if key in values} - {""})
        return ": ".join([*([", ".join(where)] if where else []), problem])
    meaning = parent.model_fields[path[-1]].description
    return _from(origin, path) + (
        f"{name} is {shown(value)}: it must be {_allowed(parent, path[-1])}" + (f" ({meaning})" if meaning else "")
    )


def _place(
    group: type[BaseModel], values: Any, loc: tuple[Any, ...]
) -> tuple[type[BaseModel], type[BaseModel], list[str], Any]:
    """Where ``loc`` leads: the group of the innermost key, the group that is its value, its path and its value."""
    path: list[str] = []
    parent = group
    for part in loc:
        inner = group.model_fields.get(part) if isinstance(part, str) else None
        if inner is None:
            if path and isinstance(part, str) and group_in(parent.model_fields[path[-1]].annotation) is not None:
                continue  # the name of an alternative of a type, not a key
            break
        parent = group
        path.append(part)
        values = values.get(part) if isinstance(values, Mapping) else None
        group = group_in(inner.annotation) or _Nothing
    return parent, group, path, values


class _Nothing(BaseModel):
    pass


def group_in(annotation: Any) -> type[BaseModel] | None:
    """The group of settings that a value of this type may be, if there is one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = [group_in(part) for part in getattr(annotation, "__args__", ()) if not isinstance(part, str)]
    return next((group for group in found if group is not None), None)


def _allowed(group: type[BaseModel], key: str) -> str:
    return allowed(group.model_fields[key])


def _from(origin: Callable[[str], str], path: list[str]) -> str:
    where = origin(".".join(path))
    return f"{where}: " if where else ""
