"""What the columns of a log mean: the mapping of ``recbole-ser convert table``."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, cast

from recbole_ser.convert.raw_files import Files

Unit = Literal["s", "ms", "us", "ns", "iso"]
AttributeType = Literal["token", "token_seq", "float"]

JSON_LIST = "json"


@dataclass(frozen=True)
class Keep:
    """Rows to keep: those whose ``column`` is one of ``values`` as text, or a number of at least ``minimum``."""

    column: str
    values: tuple[str, ...] | None = None
    minimum: float | None = None


@dataclass(frozen=True)
class TimeColumn:
    """A column of times: numbers in a unit, or ISO 8601 text (UTC where it names no zone); no unit: to be inferred."""

    column: str
    unit: Unit | None = None


@dataclass(frozen=True)
class ListColumn:
    """A column of lists: of Parquet or JSON, or text with a ``separator`` (``json``: every text is a JSON list)."""

    column: str
    separator: str | None = None


@dataclass(frozen=True)
class ClickRows:
    """Clicked items that have a row each: the rows of a user with the same ``search`` are one search.

    Its time is the earliest of them; a click is as old as its row.

    Args:
        item: column of the item; it may be empty.
        search: column of the search's id; ``None``: every row is a search.
        keep: which rows are clicks; a search whose rows are none has no click.
        position: column of numbers that orders the clicks of a search; then time and item do.
    """

    item: str
    search: str | None = None
    keep: Keep | None = None
    position: str | None = None


@dataclass(frozen=True)
class Query:
    """What was searched for: an id, text or a list of terms; text and terms exclude each other."""

    id: str | None = None
    text: str | None = None
    terms: ListColumn | None = None


@dataclass(frozen=True)
class InteractionLog:
    """``position``: column of numbers that orders interactions of one user and time; without it their items do."""

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
    """A table of items or users; ``columns`` by their names in the atomic file."""

    files: Files
    key: str
    columns: dict[str, Attribute] = field(default_factory=dict)
    keep: Keep | None = None


@dataclass(frozen=True)
class TableSpec:
    """Everything that decides the atomic files, besides the contents of the logs.

    Args:
        deduplicate: of rows that are equal in every column that is read, keep one.
    """

    interactions: InteractionLog
    searches: SearchLog | None = None
    items: AttributeTable | None = None
    users: AttributeTable | None = None
    deduplicate: bool = False

    def mapping(self) -> dict[str, Any]:
        """The spec for the manifest: as nested dictionaries, without what is not set and without paths."""
        return cast(dict[str, Any], _without_paths(asdict(self)))


def _without_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_paths(v) for k, v in value.items() if v is not None and k != "paths"}
    return [_without_paths(entry) for entry in value] if isinstance(value, tuple | list) else value
