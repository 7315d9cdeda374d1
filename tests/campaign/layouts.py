"""Attacks on the raw files of the converters for known data sets: Amazon, KuaiSAR, Qilin and trivago."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from campaign import Attack
from campaign.conversions import outcome_of
from campaign.damage import damaged, displace, emptied
from campaign.mappings import CELLS


def prepare(folder: Path) -> Attack:
    import test_convert_amazon as amazon
    import test_convert_kuaisar as kuaisar
    import test_convert_qilin as qilin
    import test_convert_trivago as trivago

    base = folder / "base"
    amazon.write_raw(base / "amazon")
    kuaisar.write_raw(base / "kuaisar")
    qilin.write_tables(base / "qilin")
    trivago.write_log(base / "trivago" / "log.csv")

    def attack(random: Random) -> str:
        source = random.choice(["amazon", "kuaisar", "qilin", "trivago"])
        work = emptied(folder / "work")
        raw = work / "raw"
        shutil.copytree(base / source, raw)
        if source == "qilin" and random.random() < 0.7:
            _change_table(random, raw, deepcopy(qilin.TABLES))
        else:
            path = random.choice(sorted(raw.iterdir()))
            if random.random() < 0.15:
                displace(random, path)
            else:
                for _ in range(random.choice([1, 1, 3])):
                    path.write_bytes(damaged(random, path.read_bytes()))
        return f"{source} {outcome_of(random, work, _arguments(random, source, raw))}"

    return attack


def _arguments(random: Random, source: str, raw: Path) -> list[Any]:
    if source == "amazon":
        recipe = random.choice(["sesrec", "gserec"])
        files = ["--reviews", raw / "reviews.json", "--queries", raw, "--metadata", raw / "metadata.json"]
        return ["amazon", *files, "--recipe", recipe]
    files = {"kuaisar": ["--logs", raw], "qilin": ["--tables", raw], "trivago": ["--log", raw / "log.csv"]}[source]
    return [source, *files, "--threads=1", "--memory=1GB"]


def _change_table(random: Random, raw: Path, tables: dict[str, Any]) -> None:
    """Change one value, anywhere in a table, or the same value of all its rows."""
    name = random.choice(list(tables))
    holders = list(_holders(tables[name]))
    holder = random.choice(holders)
    key, value = random.choice(list(holder)), random.choice(CELLS)
    for changed in holders if random.random() < 0.4 else [holder]:
        if key in changed:
            changed[key] = value
    try:
        table = pa.Table.from_pylist(tables[name])
        pq.write_table(table, raw / f"{name}.parquet")
    except (pa.ArrowException, OverflowError, UnicodeError, TypeError):
        rows = [{key: repr(value) for key, value in row.items()} for row in tables[name]]
        pq.write_table(pa.Table.from_pylist(rows), raw / f"{name}.parquet")


def _holders(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for entry in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _holders(entry)
