"""Mutated files of events for ``recbole-ser recommend --events``."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import numpy as np

from campaign import Attack, command
from recbole_ser.data.planted import generate
from recbole_ser.data.synthetic import write
from recbole_ser.errors import UserError
from recbole_ser.inference import Recommender, recommender
from recbole_ser.inference.event_file import RawEvents, read_event_file
from recbole_ser.runner import run
from recbole_ser.testing import SMALL

COLUMNS = {"users": "user_id", "times": "timestamp", "items": "item_id", "queries": "query_id", "sources": "source",
           "terms": "terms", "clicks": "clicked_items"}  # fmt: skip
NAMES = ["user_id", "event", "timestamp", "item_id", "query_id", "source", "terms", "clicked_items"]
# What JSON can hold and an event had better not, as it is written.
VALUES = [
    "null", "NaN", "Infinity", "-Infinity", "true", "false", '""', '" "', '"\\ud800"', '"u\\u0000"', '"a\\nb"', "[]",
    "{}", '["a", null]', '["a", ["b"]]', '[{"a": 1}]', '["\\udfff"]', "[1, 2.5]", '[true]', '{"a": 1}', "1e400", "-0",
    "1" + "0" * 400, "1" * 5000, "[" * 100_000, '{"a":' * 2000, "1.5", "9223372036854775807", "9223372036854775808",
    "1700000000.123456789", '"0x10"', '"\u0661"', '"1_000"', '"+5"', "1e3", '"\\u2028"', '"NaN"', '"click"', '"-"',
    "\x00", "'a'", "1 2", '"',
]  # fmt: skip


def prepare(folder: Path) -> Attack:
    write(generate(SMALL), folder / "data" / "small")
    values: dict[str, Any] = {
        "data_path": str(folder / "data"), "run_dir": str(folder / "run"), "epochs": 1, "show_progress": False,
        "state": "WARNING", "MAX_ITEM_LIST_LENGTH": 8, "max_search_length": 6, "max_clicks_per_search": 2,
        "max_terms_per_query": 4, "require_both_histories": False, "eval_args": {"mode": "uni19"}, "embedding_size": 8,
        "hidden_size": 8,
    }  # fmt: skip
    run("SESRec", "small", config_dict=values)
    loaded = Recommender.load(folder / "run")

    def attack(random: Random) -> str:
        if random.random() < 0.02:
            return _special_path(folder, random)
        path = folder / random.choice(["events.csv", "events.jsonl"])
        rows = [_row(loaded, random) for _ in range(random.randint(1, 6))]
        path.write_bytes(_mutated(_csv(rows) if path.suffix == ".csv" else _json_lines(rows), random))
        outcome = _try(loaded, path)
        if random.random() < 0.02:
            status, _ = command("recommend", folder / "run", f"--events={path}", f"--out={folder / 'out.csv'}")
            assert (status == 0) == (outcome == "accepted"), (status, outcome)
        return f"{path.suffix[1:]} {outcome}"

    return attack


def _try(loaded: Recommender, path: Path) -> str:
    try:
        raw = read_event_file(path, COLUMNS)
    except UserError as error:
        message = str(error)
        assert message.startswith(str(path)) and "\n" not in message and message.isprintable(), message
        named = re.match(rf"{re.escape(str(path))}:(\d+): ", message)
        whole = ("not CSV", "the column is missing", "two columns of this name")
        assert named or any(problem in message for problem in whole), message
        assert not named or 0 < int(named[1]) <= path.read_bytes().count(b"\n") + path.read_bytes().count(b"\r") + 1
        return "refused"
    expected = _expected_csv(path) if path.suffix == ".csv" else _expected_json(path)
    assert len(expected) == len(raw.users), (len(expected), len(raw.users))
    for row, record in enumerate(expected):
        _compare(raw, row, record)
    try:
        with mock.patch.object(recommender._log, "disabled", True):
            found = loaded.recommend(k=3, events=path)
    except UserError as error:
        assert str(error).isprintable(), str(error)
        return "read, but not usable"
    assert np.isfinite(found["score"]).all() and set(found["user_id"]) == set(raw.users.tolist())
    return "accepted"


def _special_path(folder: Path, random: Random) -> str:
    path = folder / f"special{random.choice(['.csv', '.jsonl', '.txt', ''])}"
    kind = random.choice(["folder", "missing", "empty", "link to nothing", "below a file", "long name"])
    if kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "link to nothing":
        path.symlink_to(folder / "nothing")
    elif kind == "below a file":
        path = folder / "data" / "small" / "small.inter" / "events.csv"
    elif kind == "long name":
        path = folder / ("e" * 300 + ".csv")
    status, output = command("recommend", folder / "run", f"--events={path}")
    assert status == 2 and str(path) in output, output
    if kind == "folder":
        path.rmdir()
    elif kind in ("empty", "link to nothing"):
        path.unlink()
    return "path refused"


# --- files ------------------------------------------------------------------------------------------------------------


def _row(loaded: Recommender, random: Random) -> dict[str, Any]:
    tokens = loaded.dataset.field2id_token
    pick: Callable[[str], str] = lambda field: str(random.choice([*tokens[field][1:20].tolist(), "new"]))  # noqa: E731
    common = {"user_id": pick("user_id"), "timestamp": random.choice([5, 7.5, 1_700_000_000, "12"])}
    if random.random() < 0.5:
        return {**common, "event": "click", "item_id": pick("item_id")}
    return {
        **common, "event": "search", "query_id": pick("query_id"),
        "terms": [pick("terms") for _ in range(random.randint(0, 3))],
        "clicked_items": [pick("item_id") for _ in range(random.randint(0, 2))],
    }  # fmt: skip


def _csv(rows: list[dict[str, Any]]) -> bytes:
    entry = lambda value: " ".join(value) if isinstance(value, list) else str(value)  # noqa: E731
    lines = [",".join(NAMES), *(",".join(entry(row.get(name, "")) for name in NAMES) for row in rows)]
    return "".join(line + "\n" for line in lines).encode()


def _json_lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _mutated(data: bytes, random: Random) -> bytes:
    for _ in range(random.choice([0, 1, 1, 1, 2, 5])):
        data = random.choice([_other_bytes, _other_value, _other_lines])(data, random)
    return data


def _other_bytes(data: bytes, random: Random) -> bytes:
    start = random.randrange(len(data) + 1)
    end = min(len(data), start + random.choice([0, 0, 1, 1, 5, 50, 5000]))
    odd = [
        b"", b"\0", b"\xff", b"\xef\xbb\xbf", b"\r", b"\r\n", b"\n", b",", b'"', b'""', b"\\", b"\xed\xa0\x80", b"\t",
        "\u0085".encode(), "\u2028".encode(), random.randbytes(3), data[start:end] * 2,
    ]  # fmt: skip
    return data[:start] + random.choice(odd) + data[end:]


def _other_value(data: bytes, random: Random) -> bytes:
    """One value, as it stands in JSON or CSV, replaced by an odd one."""
    places = list(re.finditer(rb'(?<=: )("[^"]*"|[0-9.]+|\[[^]]*\])|(?<=[,\n])[^,\n]*', data))
    if not places:
        return data
    place = random.choice(places)
    return data[: place.start()] + random.choice(VALUES).encode() + data[place.end() :]


def _other_lines(data: bytes, random: Random) -> bytes:
    lines = data.splitlines(keepends=True) or [b""]
    place = random.randrange(len(lines))
    line = lines[place]
    odd = [
        [], [line] * 2, [b"\n"], [b"[1]\n"], [line[:-1]], [line.rstrip(b"}\n") + b', "event": 1}\n'],
        [line.replace(b"event", b"user_id")], [line.replace(b"event", b"Event")], [b"  ,,,,,,,\n"],
    ]  # fmt: skip
    return b"".join([*lines[:place], *random.choice(odd), *lines[place + 1 :]])


# --- what a file says, read in another way ----------------------------------------------------------------------------


def _expected_json(path: Path) -> list[Mapping[str, Any]]:
    records = []
    for line in path.read_bytes().decode("utf-8-sig").split("\n"):
        if line.strip():
            pairs = json.loads(line, object_pairs_hook=list)
            assert len(dict(pairs)) == len(pairs), "a key that comes twice was accepted"
            records.append(json.loads(line))
    return records


def _expected_csv(path: Path) -> list[Mapping[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as handle:
        header, *rows = list(csv.reader(handle))
    return [dict(zip(header, row)) for row in rows if any(row)]


def _compare(raw: RawEvents, row: int, record: Mapping[str, Any]) -> None:
    for name, values in (
        ("user_id", raw.users),
        ("item_id", raw.items),
        ("query_id", raw.queries),
        ("source", raw.sources),
    ):
        assert values[row] == _text(record.get(name)), (name, values[row], record.get(name))
    assert raw.is_search[row] == (record["event"] == "search")
    assert _same_number(raw.times[row], record["timestamp"]), (raw.times[row], record["timestamp"])
    for name, lists in (("terms", raw.terms), ("clicked_items", raw.clicks)):
        found = lists.values[lists.starts[row] : lists.starts[row + 1]].tolist()
        value = record.get(name)
        if isinstance(value, list):
            assert found == [_text(entry) for entry in value if _text(entry)], (found, value)
        else:
            assert found == [entry for entry in _text(value).split(" ") if entry], (found, value)


def _text(value: Any) -> str:
    if value is None or value != value:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _same_number(read: Any, written: Any) -> bool:
    if isinstance(read, np.integer):
        return Decimal(int(read)) == Decimal(str(written).strip())
    return float(read) == float(written)
