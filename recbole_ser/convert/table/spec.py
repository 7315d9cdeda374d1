"""The meaning of the columns of a log, which is the mapping of ``recbole-ser convert table``."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, cast

from recbole_ser.convert.raw_files import Files

Unit = Literal["s", "ms", "us", "ns", "iso"]
AttributeType = Literal["token", "token_seq", "float"]

JSON_LIST = "json"


@dataclass(frozen=True)
class Keep:
    """Which rows to keep: those whose ``column`` is, as text, one of ``values``, or is a number >= ``minimum``."""

    column: str
    values: tuple[str, ...] | None = None
    minimum: float | None = None


@dataclass(frozen=True)
class TimeColumn:
    """A column of times: numbers in a unit, or ISO 8601 text (UTC if it names no zone).

    Without a unit it is inferred from the values.
    """

    column: str
    unit: Unit | None = None


@dataclass(frozen=True)
class ListColumn:
    """A column of lists in Parquet or JSON, or of text with a ``separator`` (``json``: each text is a JSON list)."""

    column: str
    separator: str | None = None


@dataclass(frozen=True)
class ClickRows:
    """Clicked items that have a row each: the rows of a user with the same ``search`` are one search.

    The time of the search is the earliest of its rows, and the time of a click is that of its row.

    Args:
        item: column of the item, which may be empty in a row.
        search: column of the search's id; ``None``: every row is a search.
        keep: which rows are clicks; a search without such rows has no click.
        position: column of numbers that order the clicks of a search; time and item decide between equal ones.
    """

    item: str
    search: str | None = None
    keep: Keep | None = None
    position: str | None = None


@dataclass(frozen=True)
class Query:
    """The columns of what was searched for: an id, a text or a list of terms; text and terms exclude each other."""

    id: str | None = None
    text: str | None = None
    terms: ListColumn | None = None


@dataclass(frozen=True)
class InteractionLog:
    """The interaction log.

    ``position`` is a column of numbers that order the interactions of one user at the same time; without it, items do.
    """

    files: Files
    user: str
    item: str
    time: TimeColumn
    keep: Keep | None = None
    position: str | None = None


@dataclass(frozen=True)
class SearchLog:
    files: Files
    user: str
    time: TimeColumn
    query: Query
    clicks: ListColumn | ClickRows | None = None
    source: str | None = None
    keep: Keep | None = None


@dataclass(frozen=True)
class Attribute:
    """A column of ``X.item`` or ``X.user``.

    A ``token_seq`` is a list column; text without a separator is split at white space.
    """

    type: AttributeType
    column: str
    separator: str | None = None


@dataclass(frozen=True)
class AttributeTable:
    """A table of items or users; ``columns`` has the attributes by their names in the atomic file."""

    files: Files
    key: str
    columns: dict[str, Attribute] = field(default_factory=dict)
    keep: Keep | None = None


@dataclass(frozen=True)
class TableSpec:
    """Everything that decides the atomic files, besides the contents of the logs.

    Args:
        interactions: the interaction log.
        searches: the search log, if there is one.
        items, users: the tables of items and users, if there are any.
        deduplicate: whether to keep only one of the rows that are equal in every column that is read.
    """

    interactions: InteractionLog
    searches: SearchLog | None = None
    items: AttributeTable | None = None
    users: AttributeTable | None = None
    deduplicate: bool = False

    def mapping(self) -> dict[str, Any]:
        """The spec as the manifest has it: as nested dictionaries, without paths and values that are not set."""
        return cast(dict[str, Any], _without_paths(asdict(self)))


def _without_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_paths(v) for k, v in value.items() if v is not None and k != "paths"}
    return [_without_paths(entry) for entry in value] if isinstance(value, tuple | list) else value
