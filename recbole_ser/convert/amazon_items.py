"""Converting Amazon metadata (McAuley's 2014 files) to the texts and categories of ``X.item``."""

from __future__ import annotations

import ast
import html
import io
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from recbole_ser.atomic.schema import ITEM_ID, Column
from recbole_ser.convert.conversion import Conversion
from recbole_ser.convert.raw_lines import BadRow, decoded, token, words

ITEM_COLUMNS = (ITEM_ID, *(Column(name, "token_seq") for name in ("title", "description", "categories")))

_TAG = re.compile(r"</?[A-Za-z][^<>]*>")


def write_items(conversion: Conversion, metadata: Path, items: list[str]) -> None:
    """Write ``X.item``: a row for each of ``items`` that ``metadata`` describes, in the order of ``items``.

    Of several rows for one item, the one that is first in the order of texts is taken, wherever it stands in the file.
    Texts are kept in a temporary file, so memory holds only their places.
    """
    counts = conversion.count("metadata")
    places: dict[str, int | None] = dict.fromkeys(items)
    with tempfile.TemporaryFile(dir=conversion.staging) as spill:
        for _, (item, *texts) in conversion.read(metadata, parse_metadata, counts):
            if item not in places:
                counts.reject("item has no review")
                continue
            row = "\t".join(texts).encode() + b"\n"
            place = places[item]
            if place is not None:
                counts.reject("another row describes the item")
                spill.seek(place)
                if spill.readline() <= row:
                    continue
            places[item] = spill.seek(0, io.SEEK_END)
            spill.write(row)

        def rows() -> Iterator[tuple[str, str]]:
            for item, place in places.items():
                if place is not None:
                    spill.seek(place)
                    yield item, spill.readline()[:-1].decode()

        conversion.write("item", ITEM_COLUMNS, rows())
    counts.rows_out = sum(place is not None for place in places.values())


def parse_metadata(line: bytes) -> tuple[str, str, str, str]:
    """Parse a line of the metadata file into (item, title, description, categories); what is missing is empty.

    The line is a Python dictionary of literals; nothing in it is run.  HTML entities, tags and double quotes are
    removed from the texts.  The categories are the names on all of the item's category paths, from the top, each once,
    with ``_`` for spaces.
    """
    text = decoded(line).strip()
    try:
        row = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise BadRow("not a Python dictionary of literals", text) from error
    if not isinstance(row, dict) or "asin" not in row:
        raise BadRow("not a dictionary with an asin", text)
    title, description, paths = row.get("title", ""), row.get("description", ""), row.get("categories", [])
    if not isinstance(title, str) or not isinstance(description, str):
        raise BadRow("title or description is not text", text)
    if not isinstance(paths, list) or not all(isinstance(path, list) for path in paths):
        raise BadRow("categories is not a list of lists", paths)
    names = [name for path in paths for name in path]
    if not all(isinstance(name, str) for name in names):
        raise BadRow("a category is not text", names)
    categories = dict.fromkeys(clean_text(name).replace(" ", "_") for name in names)
    return token(row["asin"], "asin"), clean_text(title), clean_text(description), words(" ".join(categories))


def clean_text(text: str) -> str:
    """``text`` without HTML entities, tags and double quotes, and with single spaces."""
    return words(_TAG.sub(" ", html.unescape(text)))
