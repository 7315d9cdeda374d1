"""The atomic files of a data set X: which files there are, and which of their columns have a meaning.

Converters and the generator write these files; the loader and ``recbole-ser validate`` read them.  All of them take
the names and types of columns from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

TYPES = ("token", "token_seq", "float", "float_seq")
SEPARATOR = "\t"  # between the columns of a line
PADDING = "[PAD]"  # RecBole's name for the id 0, which is no user, item or query


@dataclass(frozen=True)
class Column:
    """One ``name:type`` of an atomic file's header."""

    name: str
    type: str

    @property
    def label(self) -> str:
        return f"{self.name}:{self.type}"


USER_ID = Column("user_id", "token")
ITEM_ID = Column("item_id", "token")
QUERY_ID = Column("query_id", "token")
TIMESTAMP = Column("timestamp", "float")
TERMS = Column("terms", "token_seq")
CLICKED_ITEMS = Column("clicked_items", "token_seq")
CLICK_TIMES = Column("click_times", "float_seq")
SOURCE = Column("source", "token")

# The columns that relate the files to each other.  They are filled in every line.
KEYS = (USER_ID, ITEM_ID, QUERY_ID, TIMESTAMP)


@dataclass(frozen=True)
class FileSchema:
    """One kind of atomic file.

    Args:
        suffix: suffix of the file's name, X.``suffix``.
        required: columns that the file must have.
        optional: columns that the file may have, and that have a meaning.
        expected: optional columns whose absence is worth a warning.
        listing: whether the file has one line for each id, which stands in its first column.
        loaded: whether all columns are loaded by default.  Of the other files only the required columns of ``X.inter``
            are loaded by default.
        attributes: whether its further columns are attributes, which models read.
    """

    suffix: str
    required: tuple[Column, ...]
    optional: tuple[Column, ...] = ()
    expected: tuple[Column, ...] = ()
    listing: bool = False
    loaded: bool = False
    attributes: bool = False

    @property
    def columns(self) -> tuple[Column, ...]:
        return (*self.required, *self.optional)

    @property
    def types(self) -> dict[str, str]:
        """The type of each column that has a meaning, by its name."""
        return {column.name: column.type for column in self.columns}


# All files, in the order in which they are loaded.
FILES: Mapping[str, FileSchema] = {
    schema.suffix: schema
    for schema in (
        FileSchema("inter", (USER_ID, ITEM_ID, TIMESTAMP)),
        FileSchema("user", (USER_ID,), listing=True, attributes=True),
        FileSchema("item", (ITEM_ID,), listing=True, attributes=True),
        FileSchema(
            "search",
            (USER_ID, QUERY_ID, TIMESTAMP),
            (CLICKED_ITEMS, CLICK_TIMES, SOURCE),
            expected=(CLICKED_ITEMS,),
            loaded=True,
        ),
        FileSchema("query", (QUERY_ID,), (TERMS,), expected=(TERMS,), listing=True, loaded=True),
    )
}

# The file of user codes is made from the other files, for the models that read codes.
CODES = FileSchema("codes", (USER_ID, Column("search_codes", "token_seq"), Column("rec_codes", "token_seq")))
