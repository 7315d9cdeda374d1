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
        paths: paths of existing files, each once, sorted.
        format: format of all the files.
        delimiter: the character between the columns of a CSV or TSV file.
        quote: the character around values that hold the delimiter; ``None`` if values are never quoted.
        names: names of the columns of a CSV or TSV file without a header; ``None`` if it has a header.
    """

    paths: tuple[Path, ...]
    format: Format
    delimiter: str = ","
    quote: str | None = '"'
    names: tuple[str, ...] | None = None
