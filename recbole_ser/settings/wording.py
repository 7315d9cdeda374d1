"""Types of settings in words: what is allowed, for messages and for ``--help``."""

from __future__ import annotations

import types
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo


@dataclass(frozen=True)
class InWords:
    """Annotates a type whose words cannot be told from it, such as a text that has to have a certain form."""

    text: str


def allowed(field: FieldInfo) -> str:
    """What the setting ``field`` may be: ``a number from 0 to below 1``."""
    return _type_in_words(field.annotation, field.metadata)


def shown(value: Any) -> str:
    """``value`` as a user would write it in YAML, cut to a line."""
    if value is None:
        return "~"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _type_in_words(kind: Any, metadata: Iterable[Any] = ()) -> str:
    metadata = list(metadata)
    for entry in metadata:
        if isinstance(entry, InWords):
            return entry.text
    if hasattr(kind, "__metadata__"):  # Annotated
        return _type_in_words(kind.__origin__, [*kind.__metadata__, *metadata])
    metadata = [part for entry in metadata for part in (entry.metadata if isinstance(entry, FieldInfo) else [entry])]
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        leave_out = {type(None), *([int] if float in arguments else [])}  # a whole number is a number
        parts = [_type_in_words(part) for part in arguments if part not in leave_out]
        return " or ".join([*parts, *(["~"] if type(None) in arguments else [])])
    if origin is Literal:
        return _one_of([shown(value) if not isinstance(value, str) else value for value in arguments])
    if origin is list:
        return f"a list{_length(metadata)}, each {_type_in_words(arguments[0])}"
    if origin is dict:
        return f"a mapping to {_type_in_words(arguments[1])}"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "a mapping with " + ", ".join(kind.model_fields)
    if kind in (int, float):
        return f"a {'whole ' if kind is int else ''}number{_range(metadata)}"
    return {bool: "true or false", str: "text"}.get(kind, "any value")


def _one_of(values: list[str]) -> str:
    return values[0] if len(values) == 1 else f"{', '.join(values[:-1])} or {values[-1]}"


def _range(metadata: list[Any]) -> str:
    low = high = ""
    for entry in metadata:
        if isinstance(entry, Ge):
            low = f" from {entry.ge}"
        elif isinstance(entry, Gt):
            low = f" above {entry.gt}"
        elif isinstance(entry, Le):
            high = f" to {entry.le}" if low.startswith(" from") else f" up to {entry.le}"
        elif isinstance(entry, Lt):
            high = f" to below {entry.lt}" if low.startswith(" from") else f" and below {entry.lt}"
    return low + high


def _length(metadata: list[Any]) -> str:
    least = next((entry.min_length for entry in metadata if isinstance(entry, MinLen)), 0)
    most = next((entry.max_length for entry in metadata if isinstance(entry, MaxLen)), None)
    if most is None:
        return f" of at least {least}" if least else ""
    return f" of {most}" if least == most else f" of {least} to {most}"
