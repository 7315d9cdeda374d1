"""Attacks on ``recbole-ser convert table``: mappings, options and raw files of any kind."""

from __future__ import annotations

import csv
import datetime
import gzip
import io
import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from campaign import Attack
from campaign.conversions import outcome_of
from campaign.damage import damaged, displace, emptied

T = 1_700_000_000
Rows = list[dict[str, Any]]

LOG: Rows = [
    {"uid": f"u{n % 3}", "vid": f"i{n % 4}", "ts": T + 10 * n, "rating": n % 5, "flag": n % 2 == 0} for n in range(9)
]
SEARCHES: Rows = [
    {"uid": f"u{n % 3}", "ts": T + 7 * n, "kw": ["red shoes", "Hat", "红色鞋子"][n % 3], "qid": f"q{n % 3}",
     "words": ["red", "hat"], "clicked": [f"i{n % 4}", "i1"][: n % 3], "src": ["home page", None][n % 2]}
    for n in range(6)
]  # fmt: skip
SHOWN: Rows = [
    {"uid": f"u{n % 2}", "sid": str(n // 3), "vid": f"i{n % 4}", "ts": T + 5 * n, "kw": "red shoes", "rank": n % 3,
     "click": n % 2, "src": "home"}
    for n in range(9)
]  # fmt: skip
ITEMS: Rows = [{"vid": f"i{n}", "kind": f"k{n % 2}", "tags": ["x", "two words"], "price": n / 2} for n in range(5)]
USERS: Rows = [{"uid": f"u{n}", "level": n} for n in range(3)]
TABLES = {"log": LOG, "search": SEARCHES, "shown": SHOWN, "items": ITEMS, "users": USERS}

_LOG = {"files": "log", "user": "uid", "item": "vid", "time": "ts"}
_SEARCH_LOG = {"files": "search", "user": "uid", "time": "ts"}
_SHOWN_LOG = {"files": "shown", "user": "uid", "time": "ts"}
_CLICK_ROWS = {"item": "vid", "search": "sid", "keep": {"column": "click", "minimum": 1}, "position": "rank"}
_COLUMNS = {"kind": "token", "tags": {"type": "token_seq"}, "cost": {"type": "float", "column": "price"}}
_ATTRIBUTES = {
    "items": {"files": "items", "item": "vid", "columns": _COLUMNS},
    "users": {"files": "users", "user": "uid", "columns": {"level": "token"}},
}
MAPPINGS: list[dict[str, Any]] = [
    {"interactions": _LOG, "searches": {**_SEARCH_LOG, "query": "kw", "clicks": "clicked", "source": "src"}},
    {
        "interactions": {
            **_LOG, "files": ["log"], "time": {"column": "ts", "unit": "s"}, "position": "rating",
            "keep": {"column": "rating", "minimum": 1},
        },
        "searches": {**_SHOWN_LOG, "query": {"text": "kw"}, "source": "src", "clicks": _CLICK_ROWS},
        "deduplicate": True,
    },
    {
        "interactions": {**_LOG, "keep": {"column": "flag", "values": [True]}},
        "searches": {
            **_SEARCH_LOG, "query": {"id": "qid", "terms": "words"}, "clicks": "clicked",
            "keep": {"column": "qid", "values": ["q0", "q1"]},
        },
        **_ATTRIBUTES,
    },
    {"interactions": _LOG, "searches": {**_SHOWN_LOG, "query": "kw", "clicks": {"item": "vid"}}, **_ATTRIBUTES},
]  # fmt: skip
FORMATS = ("csv", "tsv", "jsonl", "parquet")
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 0.5, 10**400, "HUGE", float("nan"), float("inf"), -float("inf"), "", " ", "a\0b",
    "\ud800", "uid", "UID", "Vid", "vid", "ts", "kw", "sid", "clicked", "rating", "item_id", "user_id", "search",
    "q" * 300, "_file", "_line", "_text", "_fault", "_row", "_keep", "_reason", "_value", "_the_user", "_the_time",
    "filename", "file_row_number", "time", "query_id", "differ", "json", "iso", "ns", "csv", "parquet", ",", "\t",
    "\n", '"', "'", ";", "--", '"; DROP TABLE x', "%", "é", "*", "**", "**/*", "/", ".", "..", "~", "[", "/dev/null",
    "/proc/self/mem", "log", "search", "shown", "n" * 300, "nowhere/x", "log.csv/x", [], [[]], {}, {"": ""}, ["uid"],
    [1], [None], ["", ""], {"column": "uid"}, {"column": "", "separator": ""}, {"item": "vid"}, {"id": "uid"},
    {"values": []}, {"minimum": "x"}, datetime.date(2023, 11, 14), datetime.datetime(2023, 11, 14, 1), b"bytes", {"a"},
    "1e5", "token", "token_seq",
]  # fmt: skip
KEYS = (
    "keep", "names", "delimiter", "quote", "format", "clicks", "time", "separator", "Kind", "KIND", "timestamp",
    "item_id", 1, None, "",
)  # fmt: skip
OPTIONS = ("a=", "=1", ">=", "rating>=nan", "rating>=1e999", "rating=", "uid=u1,")
CELLS: list[Any] = [
    None, True, 0, -1, 1.5, 10**400, 10**19, 2**63, -(2**63), float("nan"), float("inf"), "", " ", "[PAD]", "[PAD]",
    "[PAD]", "a b", 'a"b', "a\tb", "a\nb", "\0", "\ud800", "\u2028", "é", "nan", "inf", "1e400", "1e5",
    "2023-11-14T22:13:20Z", "2023-11-14", T * 1000, str(T), T + 0.25, f"{T}.1234567891", "9" * 400, "x" * 5000, [],
    [[]], ["[PAD]"], ["a b"], [None], [1, "a"], {}, {"a": [1]}, [float("nan")], "[1, 2]", "[", "{}", "true",
]  # fmt: skip
TYPES: list[Any] = [
    pa.null(), pa.bool_(), pa.int8(), pa.int32(), pa.int64(), pa.uint64(), pa.float16(), pa.float32(), pa.float64(),
    pa.string(), pa.large_string(), pa.binary(), pa.date32(), pa.date64(), pa.time64("us"), pa.timestamp("s"),
    pa.timestamp("ns"), pa.timestamp("ms", "UTC"), pa.duration("s"), pa.decimal128(38, 9), pa.decimal256(60, 2),
    pa.list_(pa.string()), pa.list_(pa.int64()), pa.list_(pa.list_(pa.string())), pa.list_(pa.null()),
    pa.struct([("a", pa.int64())]), pa.map_(pa.string(), pa.int64()), pa.dictionary(pa.int32(), pa.string()),
    pa.list_(pa.string(), 2), pa.list_(pa.float64()),
]  # fmt: skip


def prepare(folder: Path) -> Attack:
    def attack(random: Random) -> str:
        work = emptied(folder / "work")
        arguments = random.choices([_spec, _options], [4, 1])[0](random, work)
        return outcome_of(random, work, [*arguments, "--threads=1", "--memory=1GB"])

    return attack


# --- mappings ---------------------------------------------------------------------------------------------------------


def _spec(random: Random, work: Path) -> list[Any]:
    mapping, places = deepcopy(random.choice(MAPPINGS)), {}
    tables = {name: deepcopy(rows) for name, rows in TABLES.items()}
    if random.random() < 0.5:
        _change_cells(random, tables)
    for name, rows in tables.items():
        places[name] = _write(random, work / name, rows, random.choice(FORMATS))
    _name_files(mapping, places)
    if random.random() < 0.25:
        _damage_files(random, list(places.values()))
    for _ in range(random.choice([0, 0, 1, 1, 2, 4])):
        _mutate(random, mapping)
    spec = work / "spec.yaml"
    spec.write_text(yaml.safe_dump(mapping).replace("HUGE", "0x1" + "0" * 5000))  # as decimal digits Python refuses it
    return ["table", "--spec", spec]


def _name_files(mapping: dict[str, Any], places: dict[str, Path]) -> None:
    """Put the names of the files into the blocks, and separators where lists are texts."""
    for block in (value for value in mapping.values() if isinstance(value, dict)):
        path = places[block["files"] if isinstance(block["files"], str) else block["files"][0]]
        block["files"] = path.name if isinstance(block["files"], str) else [path.name]
        if path.suffixes[0] in (".csv", ".tsv"):
            if isinstance(block.get("clicks"), str):
                block["clicks"] = {"column": block["clicks"], "separator": "|"}
            if isinstance(block.get("query"), dict) and "terms" in block["query"]:
                block["query"]["terms"] = {"column": "words", "separator": "|"}


def _mutate(random: Random, mapping: dict[str, Any]) -> None:
    """Change one entry anywhere in the mapping."""
    holders = list(_holders(mapping))
    holder = random.choice(holders)
    keys: list[Any] = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
    if not keys:
        return
    key, value = random.choice(keys), deepcopy(random.choice(VALUES))
    kind = random.randrange(6)
    if kind == 0 and isinstance(holder, dict):
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        if random.random() < 0.5:
            value = holder.pop(key)
        holder[random.choice(KEYS)] = value
    elif kind == 2 and isinstance(holder, dict):
        other = random.choice(holders)
        if isinstance(other, dict) and other:
            holder[key] = deepcopy(other[random.choice(list(other))])
    elif kind == 3:
        for _ in range(random.choice([1, 30])):
            holder[key] = [holder[key]] if random.random() < 0.5 else {"column": holder[key]}
    else:
        holder[key] = value


def _holders(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        yield value
        for entry in value.values() if isinstance(value, dict) else value:
            yield from _holders(entry)


# --- options ----------------------------------------------------------------------------------------------------------


def _options(random: Random, work: Path) -> list[Any]:
    kind = random.choice(FORMATS)
    tables = deepcopy(TABLES)
    if random.random() < 0.3:
        _change_cells(random, tables)
    log, searches = (
        _write(random, work / name, tables[name], kind) for name in ("log", random.choice(["search", "shown"]))
    )
    if random.random() < 0.3:
        _damage_files(random, [log, searches])
    options = {
        "interactions": str(log),
        "user": "uid",
        "item": "vid",
        "time": "ts",
        "searches": str(searches),
        "query": "kw",
    }
    extra = {
        "clicks": "clicked", "search-id": "sid", "source": "src", "unit": "s", "separator": "|", "keep": "rating>=1",
        "query-id": "qid",
    }  # fmt: skip
    options |= {key: extra[key] for key in random.sample(list(extra), random.randrange(4))}
    for key in random.sample(list(options), random.choice([0, 1, 1, 2])):
        value = random.choice([*map(str, VALUES), *OPTIONS])
        options[key] = value.replace("\0", "0")[:300]
    return ["table", *(f"--{key}={value}" for key, value in options.items())]


# --- raw files --------------------------------------------------------------------------------------------------------


def _change_cells(random: Random, tables: dict[str, Rows]) -> None:
    for _ in range(random.choice([1, 2, 5])):
        rows = random.choice(list(tables.values()))
        row = random.choice(rows)
        key = random.choice(list(row))
        kind, value = random.randrange(6), random.choice(CELLS)
        for n, changed in enumerate(rows if kind < 2 else [row]):
            changed[key] = f"{n}" if kind == 1 else value


def _damage_files(random: Random, paths: list[Path]) -> None:
    path = random.choice(paths)
    if random.random() < 0.3:
        displace(random, path)
    else:
        for _ in range(random.choice([1, 1, 3])):
            path.write_bytes(damaged(random, path.read_bytes()))


def _write(random: Random, path: Path, rows: Rows, kind: str) -> Path:
    path = path.with_name(f"{path.name}.{kind}")
    if kind == "parquet":
        pq.write_table(pa.table({key: _column(random, [row[key] for row in rows]) for key in rows[0]}), path)
        return path
    text = io.StringIO(newline="")
    if kind == "jsonl":
        text.writelines(json.dumps(row) + "\n" for row in rows)
    else:
        writer = csv.DictWriter(text, list(rows[0]), delimiter="\t" if kind == "tsv" else ",")
        writer.writeheader()
        writer.writerows(
            {k: "|".join(map(str, v)) if isinstance(v, list) else v for k, v in row.items()} for row in rows
        )
    content = text.getvalue().encode(errors="surrogatepass")
    if random.random() < 0.15:
        path, content = path.with_name(f"{path.name}.gz"), gzip.compress(content)
    path.write_bytes(content)
    return path


def _column(random: Random, values: list[Any]) -> pa.Array:
    """The values in the type that they have, or as text if they have several; seldom in some other type."""
    wanted = [random.choice(TYPES)] if random.random() < 0.05 else []
    attempts: list[Callable[[], pa.Array]] = [
        *(lambda kind=kind: pa.array(values, kind) for kind in wanted),
        *(lambda kind=kind: pa.array(values).cast(kind) for kind in wanted),
        *(lambda kind=kind: pa.nulls(len(values), kind) for kind in wanted),
        lambda: pa.array(values),
        lambda: pa.array([None if value is None else str(value) for value in values]),
        lambda: pa.array([None if value is None else ascii(value) for value in values]),
    ]
    for attempt in attempts:
        try:
            column = attempt()
            pq.write_table(pa.table([column], ["x"]), pa.BufferOutputStream())  # refuses empty structs, for example
            return column
        except (pa.ArrowException, OverflowError, UnicodeError, TypeError, ValueError):
            continue
    raise AssertionError(values)
