"""The files that a conversion reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Format = Literal["csv", "tsv", "jsonl", "parquet"]


@dataclass(frozen=True)
class Files:
    """The files of one log or table.

    Args:
        paths: existing files, each once, sorted by path.
        format: of all of them.
        delimiter: between the columns of a CSV or TSV file, one character.
        quote: around values that hold the delimiter; ``None`` if there is no such thing.
        names: of the columns of a CSV or TSV file without a header.
    """

    paths: tuple[Path, ...]
    format: Format
    delimiter: str = ","
    quote: str | None = '"'
    names: tuple[str, ...] | None = None
