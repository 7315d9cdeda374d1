"""Recommendations as a table on the terminal, and as files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from recbole_ser.files import atomic_write


def print_table(parts: Iterable[pd.DataFrame]) -> None:
    """Print a table, part by part; columns are as wide as the first part needs, so later entries may stick out."""
    widths: list[int] = []
    for part in parts:
        users, items = part["user_id"], part["item_id"]
        if not widths:
            widths = [max(map(len, [name, *column])) for name, column in (("user", users), ("item", items))]
            print(f"{'user':<{widths[0]}}  {'rank':>4}  {'item':<{widths[1]}}  {'score':>10}")
        for user, rank, item, score in zip(users, part["rank"], items, part["score"]):
            print(f"{user:<{widths[0]}}  {rank:>4}  {item:<{widths[1]}}  {score:>10.4f}")


def _write_csv(path: Path, parts: Iterable[pd.DataFrame]) -> None:
    with atomic_write(path) as handle:
        for number, part in enumerate(parts):
            part.to_csv(handle, index=False, header=number == 0, lineterminator="\n")


def _write_json_lines(path: Path, parts: Iterable[pd.DataFrame]) -> None:
    with atomic_write(path) as handle:
        for part in parts:
            part.to_json(handle, orient="records", lines=True, force_ascii=False, double_precision=15)


def _write_parquet(path: Path, parts: Iterable[pd.DataFrame]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"user_id": pa.string(), "rank": pa.int64(), "item_id": pa.string(), "score": pa.float64()}
    schema = pa.schema(list(types.items()))
    with atomic_write(path, "wb") as handle, pq.ParquetWriter(handle, schema) as writer:
        for part in parts:
            writer.write_table(pa.table({name: part[name].to_numpy() for name in types}, schema=schema))


# For each suffix of a file, the function that writes recommendations to it, part by part.
WRITERS: dict[str, Callable[[Path, Any], None]] = {
    ".csv": _write_csv,
    ".parquet": _write_parquet,
    ".jsonl": _write_json_lines,
}
