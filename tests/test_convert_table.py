from __future__ import annotations

import csv
import gzip
import hashlib
import json
import os
import random
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import load_dataset

from recbole_ser.cli import main
from recbole_ser.commands.convert_table import _MAPPING
from recbole_ser.convert.duckdb_engine import DuckDBEngine
from recbole_ser.convert.settings import Settings, report
from recbole_ser.convert.table import convert_table, parse_spec
from recbole_ser.errors import ConfigError, DataError, UserError

T = 1_700_000_000
INTERACTIONS = [
    {"uid": "u2", "vid": "b", "ts": T + 50, "rating": 5},
    {"uid": "u1", "vid": "c", "ts": T + 10, "rating": 2},
    {"uid": "u1", "vid": "b", "ts": T + 20, "rating": 4},
    {"uid": "u1", "vid": "a", "ts": T + 20, "rating": 3},
    {"uid": "u2", "vid": "a", "ts": T + 40, "rating": 1},
]
SEARCHES = [
    {"uid": "u2", "ts": T + 45, "kw": "Red  SHOES", "clicked": ["b", "z"], "src": "home page"},
    {"uid": "u1", "ts": T + 15, "kw": "red shoes", "clicked": [], "src": None},
    {"uid": "u1", "ts": T + 5, "kw": "红色鞋子", "clicked": ["c"], "src": "home page"},
]
SEARCH_HEADER = ["user_id:token", "query_id:token", "timestamp:float", "clicked_items:token_seq"]
SHOWN = [
    {"uid": "u1", "sid": "1", "vid": "a", "ts": T + 15, "kw": "red shoes", "rank": 2, "click": 1},
    {"uid": "u1", "sid": "1", "vid": "b", "ts": T + 16, "kw": "red shoes", "rank": 1, "click": 2},
    {"uid": "u1", "sid": "1", "vid": "c", "ts": T + 12, "kw": "red shoes", "rank": 10, "click": 0},
    {"uid": "u2", "sid": "1", "vid": "a", "ts": T + 45, "kw": "hat", "rank": 1, "click": 0},
    {"uid": "u2", "sid": "2", "vid": None, "ts": T + 46, "kw": "hat", "rank": None, "click": 0},
    {"uid": "u2", "sid": "3", "vid": "b", "ts": T + 47, "kw": "hat", "rank": None, "click": 1},
    {"uid": "u2", "sid": "3", "vid": "a", "ts": T + 47, "kw": "hat", "rank": None, "click": 1},
]
LOG = {"files": "log.parquet", "user": "uid", "item": "vid", "time": "ts"}
SEARCH_LOG = {
    "files": "search.parquet",
    "user": "uid",
    "time": "ts",
    "query": "kw",
    "clicks": "clicked",
    "source": "src",
}
SHOWN_LOG = {
    "files": "search.parquet", "user": "uid", "time": "ts", "query": "kw",
    "clicks": {"item": "vid", "search": "sid", "keep": {"column": "click", "minimum": 1}, "position": "rank"},
}  # fmt: skip
FORMATS = ["csv", "csv.gz", "tsv", "jsonl", "jsonl.gz", "parquet"]


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows in the format that the name tells; in CSV and TSV a list is text with ``|``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = path.suffixes[0]
    if kind == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return
    with (gzip.open if path.suffix == ".gz" else open)(path, "wt", encoding="utf-8", newline="") as handle:  # type: ignore[operator]
        if kind == ".jsonl":
            handle.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            return
        writer = csv.DictWriter(handle, list(rows[0]), delimiter="\t" if kind == ".tsv" else ",", lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: "|".join(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows)


def convert(folder: Path, mapping: dict[str, Any], out: str = "X", **options: Any) -> dict[str, Any]:
    return convert_table(parse_spec(mapping, folder), folder / out, Settings(**{"threads": 1, **options}))


def logs(folder: Path, kind: str = "parquet", shown: bool = False, **changes: Any) -> dict[str, Any]:
    """Write both logs, and return their mapping."""
    write(folder / f"log.{kind}", changes.get("interactions", INTERACTIONS))
    write(folder / f"search.{kind}", changes.get("searches", SHOWN if shown else SEARCHES))
    search = {**(SHOWN_LOG if shown else SEARCH_LOG), "files": f"search.{kind}"}
    if not shown and kind.startswith(("csv", "tsv")):
        search["clicks"] = {"column": "clicked", "separator": "|"}
    return {"interactions": {**LOG, "files": f"log.{kind}"}, "searches": search}


def rows_of(folder: Path, suffix: str, out: str = "X") -> list[list[str]]:
    text = (folder / out / f"X.{suffix}").read_text(encoding="utf-8")
    assert text.endswith("\n")
    return [line.split("\t") for line in text[:-1].split("\n")]


def data_files(folder: Path, out: str = "X") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / out).glob("X.*")}


def query_id(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()[:20]


# --- what is written --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS)
def test_the_files_by_hand(tmp_path: Path, kind: str) -> None:
    manifest = convert(tmp_path, logs(tmp_path, kind))
    assert rows_of(tmp_path, "inter") == [
        ["user_id:token", "item_id:token", "timestamp:float"],
        ["u1", "c", str(T + 10)],
        ["u1", "a", str(T + 20)],
        ["u1", "b", str(T + 20)],
        ["u2", "a", str(T + 40)],
        ["u2", "b", str(T + 50)],
    ]
    red, hanzi = query_id("red shoes"), query_id("红色鞋子")
    assert rows_of(tmp_path, "search") == [
        ["user_id:token", "query_id:token", "timestamp:float", "clicked_items:token_seq", "source:token"],
        ["u1", hanzi, str(T + 5), "c", "home page"],
        ["u1", red, str(T + 15), "", ""],
        ["u2", red, str(T + 45), "b z", "home page"],
    ]
    assert rows_of(tmp_path, "query") == [
        ["query_id:token", "terms:token_seq"],
        *sorted([[red, "red shoes"], [hanzi, "红色 色鞋 鞋子"]]),
    ]
    assert manifest["sizes"] == {"users": 2, "items": 3, "interactions": 5, "search_events": 3, "queries": 2}
    assert manifest["rows"] == {
        "interactions": {"in": 5, "out": 5, "rejected": {}},
        "searches": {"in": 3, "out": 3, "rejected": {}},
        "texts of queries": {"in": 3, "out": 2, "rejected": {"the same query after normalisation": 1}},
    }


def test_a_position_orders_interactions_of_one_time(tmp_path: Path) -> None:
    rows = [
        {"uid": "u", "vid": item, "ts": T, "row": row} for item, row in [("b", 10), ("c", 9), ("a", None), ("d", 2)]
    ]
    mapping = {"interactions": {**logs(tmp_path, "csv", interactions=rows)["interactions"], "position": "row"}}
    convert(tmp_path, mapping)
    assert [row[1] for row in rows_of(tmp_path, "inter")[1:]] == ["d", "c", "b", "a"]


def test_columns_without_any_value(tmp_path: Path) -> None:
    mapping = logs(tmp_path)
    table = pq.read_table(tmp_path / "search.parquet").drop_columns(["clicked", "src"])
    nothing = pa.nulls(len(table))
    pq.write_table(table.append_column("clicked", nothing).append_column("src", nothing), tmp_path / "search.parquet")
    convert(tmp_path, mapping)
    assert {tuple(row[3:]) for row in rows_of(tmp_path, "search")[1:]} == {("", "")}
    empty = pa.array([[]] * len(table), pa.list_(pa.null()))
    pq.write_table(table.append_column("clicked", empty).append_column("src", nothing), tmp_path / "search.parquet")
    convert(tmp_path, mapping)
    assert {tuple(row[3:]) for row in rows_of(tmp_path, "search")[1:]} == {("", "")}


def test_clicked_items_that_no_interaction_has_are_said(tmp_path: Path) -> None:
    inter = [{"uid": "u", "vid": n, "ts": T + n} for n in (98, 99)]
    search = [{"uid": "u", "ts": T, "kw": "x", "clicked": ["98.0", "99.0"]}]
    mapping: dict[str, Any] = logs(tmp_path, "jsonl", interactions=inter, searches=search)
    mapping["searches"] = {"files": "search.jsonl", "user": "uid", "time": "ts", "query": "kw", "clicks": "clicked"}
    manifest = convert(tmp_path, mapping)
    assert manifest["warnings"] == [
        "no interaction has any of the 2 items clicked in searches: they look like '98.0', those of interactions like "
        "'98'; write both logs with the same ids"
    ]
    assert f"warning: {manifest['warnings'][0]}" in report(manifest)
    write(tmp_path / "search.jsonl", [*search, {"uid": "u", "ts": T, "kw": "x", "clicked": ["99"]}])
    assert "warnings" not in convert(tmp_path, mapping)
    write(tmp_path / "search.jsonl", [{"uid": "u", "ts": T, "kw": "x", "clicked": []}])
    assert "warnings" not in convert(tmp_path, mapping)


@pytest.mark.parametrize("kind", FORMATS)
def test_one_row_for_each_shown_item(tmp_path: Path, kind: str) -> None:
    manifest = convert(tmp_path, logs(tmp_path, kind, shown=True))
    assert rows_of(tmp_path, "search") == [
        [*SEARCH_HEADER, "click_times:float_seq"],
        ["u1", query_id("red shoes"), str(T + 12), "b a", f"{T + 16} {T + 15}"],
        ["u2", query_id("hat"), str(T + 45), "", ""],
        ["u2", query_id("hat"), str(T + 46), "", ""],
        ["u2", query_id("hat"), str(T + 47), "a b", f"{T + 47} {T + 47}"],
    ]
    assert manifest["rows"]["searches"] == {"in": 7, "out": 7, "rejected": {}}
    shown = {"in": 7, "out": 4, "rejected": {"no item": 1, "not clicked": 2}}
    assert manifest["rows"]["items shown under searches"] == shown


def test_clicks_at_the_time_of_their_search_need_no_times(tmp_path: Path) -> None:
    searches = [{**row, "ts": T + 12 if row["uid"] == "u1" else row["ts"]} for row in SHOWN]
    convert(tmp_path, logs(tmp_path, shown=True, searches=searches))
    assert rows_of(tmp_path, "search")[:2] == [SEARCH_HEADER, ["u1", query_id("red shoes"), str(T + 12), "b a"]]


def test_every_row_may_be_a_search_of_its_own(tmp_path: Path) -> None:
    mapping = logs(tmp_path, shown=True)
    mapping["searches"]["clicks"] = {"item": "vid", "keep": {"column": "click", "values": [1]}}
    assert convert(tmp_path, mapping)["sizes"]["search_events"] == 7
    assert sorted(row[3] for row in rows_of(tmp_path, "search")[1:]) == ["", "", "", "", "a", "a", "b"]


def test_rows_of_one_search_that_differ_are_malformed(tmp_path: Path) -> None:
    searches = [*SHOWN, {**SHOWN[0], "kw": "blue shoes"}]
    mapping = logs(tmp_path, "csv", shown=True, searches=searches)
    with pytest.raises(DataError, match=r"search\.csv:2: rows of one search differ in query or source"):
        convert(tmp_path, mapping)
    manifest = convert(tmp_path, mapping, on_error="skip")
    counts = manifest["rows"]["searches"]
    assert (counts["in"], counts["out"]) == (8, 4)
    assert [text.split()[0] for text in counts["examples"]["rows of one search differ in query or source"]] == [
        "search.csv:2:", "search.csv:3:", "search.csv:4:"
    ]  # fmt: skip
    assert [row[0] for row in rows_of(tmp_path, "search")[1:]] == ["u2", "u2", "u2"]
    assert len(rows_of(tmp_path, "query")) == 2


def test_if_all_searches_are_malformed_none_is_left(tmp_path: Path) -> None:
    rows = [{**row, "kw": f"{n}"} for n, row in enumerate(SHOWN) if row["sid"] == "1" and row["uid"] == "u1"]
    with pytest.raises(DataError, match=r"no row of 3 is left .rows of one search differ in query or source: 3"):
        convert(tmp_path, logs(tmp_path, shown=True, searches=rows), on_error="skip")


@pytest.mark.parametrize("query", [{"id": "qid"}, {"id": "qid", "text": "kw"}, {"id": "qid", "terms": "words"}])
def test_queries_with_ids(tmp_path: Path, query: dict[str, str]) -> None:
    texts = ["red shoes", "a Red shoe", None]
    searches = [
        {"uid": "u1", "ts": T, "qid": n // 2 + 7, "kw": text, "words": text and text.split()}
        for n, text in enumerate(texts)
    ]
    search = {"files": "search.jsonl", "user": "uid", "time": "ts", "query": query}
    manifest = convert(tmp_path, {**logs(tmp_path, "jsonl", searches=searches), "searches": search})
    assert [row[1] for row in rows_of(tmp_path, "search")[1:]] == ["7", "7", "8"]
    assert manifest["sizes"]["queries"] == 2
    if "text" not in query and "terms" not in query:
        assert not (tmp_path / "X" / "X.query").exists()
        return
    assert rows_of(tmp_path, "query")[1:] == [["7", "a red shoe" if "text" in query else "a Red shoe"], ["8", ""]]
    assert manifest["rows"]["texts of queries"]["rejected"] == {"another text of the query": 1}


@pytest.mark.parametrize(
    ("words", "column"),
    [
        (["b", "A", "b"], "words"),
        ("b;A; b;", {"column": "words", "separator": ";"}),
        ('["b", "A", "b"]', {"column": "words", "separator": "json"}),
    ],
)
def test_pre_tokenised_queries_are_left_as_they_are(tmp_path: Path, words: Any, column: Any) -> None:
    searches = [{"uid": "u1", "ts": T, "words": words}]
    search = {"files": "search.jsonl", "user": "uid", "time": "ts", "query": {"terms": column}}
    convert(tmp_path, {**logs(tmp_path, "jsonl", searches=searches), "searches": search})
    assert rows_of(tmp_path, "query")[1:] == [[query_id("b A b"), "b A b"]]


def test_whole_numbers_are_the_same_id_in_every_column(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"uid": [3.0, 4.0], "vid": pa.array([1, 2], pa.int32()), "ts": [T, T]}), tmp_path / "log.pq"
    )
    rows = [{"uid": 3, "ts": T, "kw": "x", "clicked": [1.0, 2.0]}, {"uid": 4.0, "ts": T, "kw": "x", "clicked": None}]
    pq.write_table(pa.Table.from_pylist(rows[:1]), tmp_path / "s.parquet")
    write(tmp_path / "s.jsonl", rows[1:])
    search = {**SEARCH_LOG, "source": None}
    for files, user in [("s.parquet", "3"), ("s.jsonl", "4")]:
        mapping = {"interactions": {**LOG, "files": "log.pq"}, "searches": {**search, "files": files}}
        convert(tmp_path, mapping)
        assert [row[:2] for row in rows_of(tmp_path, "inter")[1:]] == [["3", "1"], ["4", "2"]]
        assert [(row[0], row[3]) for row in rows_of(tmp_path, "search")[1:]] == [(user, "1 2" if user == "3" else "")]


def test_rows_to_keep(tmp_path: Path) -> None:
    mapping = logs(tmp_path, "csv")
    mapping["interactions"]["keep"] = {"column": "rating", "minimum": 3}
    mapping["searches"]["keep"] = {"column": "src", "values": ["home page"]}
    manifest = convert(tmp_path, mapping)
    assert [row[:2] for row in rows_of(tmp_path, "inter")[1:]] == [["u1", "a"], ["u1", "b"], ["u2", "b"]]
    assert manifest["rows"]["interactions"]["rejected"] == {"rating is not one to keep": 2}
    assert manifest["rows"]["searches"] == {"in": 3, "out": 2, "rejected": {"src is not one to keep": 1}}
    mapping["interactions"]["keep"] = {"column": "rating", "values": [1, "5"]}
    assert convert(tmp_path, mapping)["sizes"]["interactions"] == 2


def test_truth_values_are_kept_however_they_are_written(tmp_path: Path) -> None:
    for value in (True, "True", "true", "TRUE"):
        rows = [{**row, "rating": value if row["vid"] == "a" else not value} for row in INTERACTIONS]
        rows = rows if value is True else [{**row, "rating": str(row["rating"])} for row in rows]
        mapping = logs(tmp_path, interactions=rows)
        mapping["interactions"]["keep"] = {"column": "rating", "values": True}
        assert convert(tmp_path, mapping)["sizes"]["interactions"] == 2


def test_a_malformed_row_that_is_not_wanted_is_not_looked_at(tmp_path: Path) -> None:
    rows = [*INTERACTIONS, {"uid": "", "vid": "", "ts": "", "rating": 0}]
    mapping = logs(tmp_path, "csv", interactions=rows)
    mapping["interactions"]["keep"] = {"column": "rating", "minimum": 1}
    assert convert(tmp_path, mapping)["rows"]["interactions"]["rejected"] == {"rating is not one to keep": 1}


def test_duplicates_stay_unless_they_are_not_wanted(tmp_path: Path) -> None:
    mapping = logs(tmp_path, interactions=INTERACTIONS * 2, searches=SEARCHES * 2)
    assert convert(tmp_path, mapping)["sizes"]["interactions"] == 10
    manifest = convert(tmp_path, {**mapping, "deduplicate": True}, out="distinct/X")
    assert manifest["rows"]["interactions"] == {"in": 10, "out": 5, "rejected": {"another row is equal to it": 5}}
    assert manifest["rows"]["searches"] == {"in": 6, "out": 3, "rejected": {"another row is equal to it": 3}}
    convert(tmp_path, logs(tmp_path), out="once/X")
    assert data_files(tmp_path, "distinct/X") == data_files(tmp_path, "once/X")
    mapping = logs(tmp_path, shown=True, searches=SHOWN * 2)
    convert(tmp_path, mapping)
    assert rows_of(tmp_path, "search")[1][3] == "b b a a"
    manifest = convert(tmp_path, {**mapping, "deduplicate": True})
    assert rows_of(tmp_path, "search")[1][3] == "b a"
    assert manifest["rows"]["searches"] == {"in": 14, "out": 7, "rejected": {"another row is equal to it": 7}}


# --- items and users --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "csv"])
def test_tables_of_items_and_users(tmp_path: Path, kind: str) -> None:
    items = [
        {"id": "a", "title": 'The "best"\tShoe', "tags": ["two words", "x"], "price": 3, "kind": " new  thing "},
        {"id": "nowhere", "title": "x", "tags": ["x"], "price": 1, "kind": "x"},
        {"id": "z", "title": "", "tags": [], "price": 2.5, "kind": ""},
        {"id": "a", "title": "Another", "tags": ["y"], "price": 1, "kind": "a"},
    ]
    users = [{"uid": "u2", "level": 2}, {"uid": "u9", "level": 1}]
    mapping = logs(tmp_path)
    write(tmp_path / f"items.{kind}", items)
    write(tmp_path / f"users.{kind}", users)
    tags: Any = {"type": "token_seq", "separator": "|"} if kind == "csv" else "token_seq"
    columns = {"title": "token_seq", "tags": tags, "price": "float", "sort": {"type": "token", "column": "kind"}}
    mapping["items"] = {"files": f"items.{kind}", "item": "id", "columns": columns}
    mapping["users"] = {"files": f"users.{kind}", "user": "uid", "columns": {"level": "token"}}
    manifest = convert(tmp_path, mapping)
    assert rows_of(tmp_path, "item") == [
        ["item_id:token", "title:token_seq", "tags:token_seq", "price:float", "sort:token"],
        ["a", "Another", "y", "1.0", "a"],
        ["z", "", "", "2.5", ""],
    ]
    assert rows_of(tmp_path, "user") == [["user_id:token", "level:token"], ["u2", "2"]]
    assert manifest["rows"]["items"]["rejected"] == {
        "another row describes the item": 1, "the item is in neither log": 1
    }  # fmt: skip
    write(tmp_path / f"items.{kind}", items[:3])
    convert(tmp_path, mapping)
    assert rows_of(tmp_path, "item")[1] == ["a", "The best Shoe", "two_words x", "3.0", "new thing"]


def test_without_searches_only_the_items_of_interactions_count(tmp_path: Path) -> None:
    mapping = logs(tmp_path)
    write(tmp_path / "items.jsonl", [{"id": "a", "n": 1}, {"id": "z", "n": 2}])
    mapping["items"] = {"files": "items.jsonl", "item": "id", "columns": {"n": "float"}}
    assert convert(tmp_path, mapping)["rows"]["items"]["out"] == 2
    del mapping["searches"]
    assert convert(tmp_path, mapping)["rows"]["items"]["out"] == 1
    assert not (tmp_path / "X" / "X.search").exists()


# --- what the files do not depend on ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shown", [False, True])
def test_order_format_threads_and_memory_do_not_matter(tmp_path: Path, shown: bool) -> None:
    draw = random.Random(1)
    interactions = [
        {"uid": f"u{draw.randrange(9)}", "vid": f"i{draw.randrange(9)}", "ts": T + n // 3} for n in range(400)
    ]
    searches = SHOWN + [{**draw.choice(SHOWN), "sid": f"s{n // 4}", "kw": f"q{n // 4}"} for n in range(400)]
    if not shown:
        searches = [{**draw.choice(SEARCHES), "kw": f"q{draw.randrange(9)}"} for _ in range(400)]
    first = None
    for kind, threads, memory in [("parquet", 1, "1GiB"), ("csv", 4, "100MB"), ("jsonl", 2, "200MB")]:
        folder = tmp_path / kind
        draw.shuffle(interactions)
        draw.shuffle(searches)
        convert(
            folder,
            logs(folder, kind, shown, interactions=interactions, searches=searches),
            threads=threads,
            memory=memory,
        )
        first = first or data_files(folder)
        assert data_files(folder) == first


def test_one_file_may_hold_both_logs(tmp_path: Path) -> None:
    events = [{"uid": "u1", "ts": T + n, "what": "buy" if n % 2 else "ask", "ref": f"x{n}"} for n in range(4)]
    write(tmp_path / "events.jsonl", events)
    shared = {"files": "events.jsonl", "user": "uid", "time": "ts"}
    buys = {**shared, "item": "ref", "keep": {"column": "what", "values": ["buy"]}}
    asks = {**shared, "query": "ref", "keep": {"column": "what", "values": ["ask"]}}
    manifest = convert(tmp_path, {"interactions": buys, "searches": asks})
    assert [row[1] for row in rows_of(tmp_path, "inter")[1:]] == ["x1", "x3"]
    assert [row[2] for row in rows_of(tmp_path, "search")[1:]] == [str(T), str(T + 2)]
    assert [file["file"] for file in manifest["inputs"]] == ["events.jsonl"]


def test_a_glob_is_one_log(tmp_path: Path) -> None:
    mapping = logs(tmp_path)
    convert(tmp_path, mapping)
    for n, row in enumerate(INTERACTIONS):
        write(tmp_path / "parts" / f"ts={n}" / "part.parquet", [row])
    mapping["interactions"]["files"] = ["parts/**/*.parquet", "parts/ts=0/part.parquet"]
    manifest = convert(tmp_path, mapping, out="parts/X")
    assert data_files(tmp_path, "parts/X") == data_files(tmp_path)
    assert len(manifest["inputs"]) == 6


def test_converting_again_gives_the_same_bytes(tmp_path: Path) -> None:
    mapping = logs(tmp_path)
    first = convert(tmp_path, mapping)
    before = {path.name: path.read_bytes() for path in (tmp_path / "X").glob("[!.]*")}
    assert set(before) == {"X.inter", "X.search", "X.query", "manifest.json"}
    assert convert(tmp_path, mapping, threads=3, memory="1GB") == first
    assert {path.name: path.read_bytes() for path in (tmp_path / "X").glob("[!.]*")} == before
    assert first["options"]["mapping"]["interactions"]["time"] == {"column": "ts"}
    assert set(first["options"]["versions"]) == {"duckdb", "pyarrow"}
    assert str(tmp_path) not in json.dumps(first)


# --- interruption -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("step", range(8))
def test_a_killed_conversion_does_not_look_finished(tmp_path: Path, step: int) -> None:
    mapping = logs(tmp_path)
    child = os.fork()
    if not child:
        steps = iter(range(step))
        original = DuckDBEngine.run

        def dying(self: DuckDBEngine, statement: str) -> int:
            if next(steps, None) is None:
                os._exit(9)
            return original(self, statement)

        DuckDBEngine.run = dying  # type: ignore[method-assign]
        convert(tmp_path, mapping)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert not list((tmp_path / "X").glob("X.*"))
    convert(tmp_path, mapping)
    assert rows_of(tmp_path, "inter")[1][0] == "u1"


def test_an_interrupted_conversion_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(DuckDBEngine, "write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        convert(tmp_path, logs(tmp_path))
    assert not list((tmp_path / "X").glob("[!.]*"))


# --- the command ------------------------------------------------------------------------------------------------------


def command(*arguments: str) -> int:
    return main(["convert", "table", *arguments])


def test_flags_are_the_same_as_the_mapping(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mapping = logs(tmp_path, "csv")
    mapping["interactions"]["keep"] = {"column": "rating", "minimum": 2}
    convert(tmp_path, mapping)
    flags = ["--interactions", str(tmp_path / "log.csv"), "--searches", str(tmp_path / "search.csv"), "--user", "uid"]
    flags += [
        "--item",
        "vid",
        "--time",
        "ts",
        "--unit",
        "s",
        "--query",
        "kw",
        "--clicks",
        "clicked",
        "--separator",
        "|",
    ]
    flags += ["--source", "src", "--keep", "rating>=2", "--out", str(tmp_path / "flags" / "X"), "--print-sql"]
    assert command(*flags) == 0
    assert data_files(tmp_path, "flags/X") == data_files(tmp_path)
    sql, printed = capsys.readouterr()
    assert "CREATE VIEW interactions_rows AS SELECT" in sql
    statements = duckdb.extract_statements(sql)  # an error, if there is anything but SQL
    assert len(statements) > 5
    assert "times of interactions: s, 2023-11-14T22:13:30Z to 2023-11-14T22:14:10Z; written in seconds" in printed
    assert "interactions                                                   5           4           1" in printed


def test_flags_for_a_row_for_each_click(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs(tmp_path, "tsv", shown=True)
    flags = ["--interactions", str(tmp_path / "log.tsv"), "--searches", str(tmp_path / "sea*.tsv"), "--user", "uid"]
    flags += ["--item", "vid", "--time", "ts", "--query", "kw", "--search-id", "sid", "--keep", "rating=5,4"]
    assert command(*flags, "--out", str(tmp_path / "X")) == 0
    assert rows_of(tmp_path, "search")[1][3] == "c a b"
    assert len(rows_of(tmp_path, "inter")) == 3
    assert "times of searches: s (told from the values)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--query", "kw"], "--query has no effect without --searches"),
        (["--searches", "s.csv", "--separator", "|"], "--separator has no effect without --clicks"),
        (["--searches", "s.csv", "--clicks", "c", "--search-id", "s"], "--clicks and --search-id exclude each other"),
        (["--keep", ""], "--keep : write COLUMN=VALUE"),
        (["--keep", "rating>=nan"], "keep.minimum: nan is not a number"),
        (["--keep", "rating>=1e999"], "keep.minimum: inf is not a number"),
        (["--keep", "=1"], "keep.column: '' is no name"),
        (["--unit", ""], "time.unit: '' is none of"),
        (["--position", "x"], "No such option"),
    ],
)
def test_flags_without_effect_or_value_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], problem: str
) -> None:
    logs(tmp_path, "csv")
    columns = ["--user", "uid", "--item", "vid", "--time", "ts", "--out", str(tmp_path / "X")]
    assert command("--interactions", str(tmp_path / "log.csv"), *columns, *options) == 2
    assert problem in capsys.readouterr().err


def test_a_mapping_in_a_file_is_relative_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir("/")
    (tmp_path / "m.yaml").write_text(json.dumps(logs(tmp_path)))
    assert command("--spec", str(tmp_path / "m.yaml"), "--out", str(tmp_path / "X")) == 0
    capsys.readouterr()
    assert command("--spec", str(tmp_path / "m.yaml"), "--user", "uid", "--out", str(tmp_path / "X")) == 2
    assert "--user belongs into the file" in capsys.readouterr().err


def test_the_mapping_in_the_help_is_one(tmp_path: Path) -> None:
    import yaml

    mapping = yaml.safe_load(_MAPPING.partition("\n\n")[2])
    write(tmp_path / "logs" / "clicks-1.parquet", INTERACTIONS)
    write(tmp_path / "items.jsonl", [{"vid": "a"}])
    (tmp_path / "logs" / "search.csv.gz").write_bytes(b"")
    spec = parse_spec(mapping, tmp_path)
    assert (spec.deduplicate, spec.searches and spec.searches.files.delimiter) == (True, ";")


@pytest.mark.parametrize("options", [{"memory": "much"}, {"threads": 0}])
def test_wrong_options_are_named(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(options.values()))}"):
        convert(tmp_path, logs(tmp_path), **options)
    assert not list((tmp_path / "X").glob("[!.]*"))


def test_too_little_memory_is_an_error_that_says_so(tmp_path: Path) -> None:
    rows = [{"uid": f"u{n}", "vid": f"i{n}", "ts": T + n} for n in range(60_000)]
    with pytest.raises(UserError, match="--memory"):
        convert(
            tmp_path, {"interactions": LOG | {"files": "log.parquet"}} | logs(tmp_path, interactions=rows), memory="1MB"
        )


def test_the_loader_reads_what_was_written(tmp_path: Path) -> None:
    rows = [{**row, "ts": row["ts"] + n / 4, "vid": f"{row['vid']}{n}"} for n in range(4) for row in INTERACTIONS]
    convert(tmp_path, logs(tmp_path, interactions=rows))
    sizes = load_dataset(tmp_path, "X", require_both_histories=False).summary()
    names = ("users", "items", "queries", "interactions", "searches")
    assert [sizes[name] for name in names] == [2, 15, 2, 20, 3]
