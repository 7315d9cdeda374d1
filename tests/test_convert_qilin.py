"""Qilin's layout: requests with lists of shown notes, in Parquet tables."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import command, load_dataset

from recbole_ser.config import SERConfig
from recbole_ser.convert.layouts import qilin
from recbole_ser.convert.settings import Settings
from recbole_ser.errors import ConfigError, DataError, UserError
from recbole_ser.validation.report import validate

T = 1_730_000_000


def note(number: int | None, position: int, click: int, time: int | None, kind: str, **more: Any) -> dict[str, Any]:
    """An entry of the details; ``kind`` is request or search."""
    return {
        "note_idx": number, "position": position, "click": click, "like": 0, "collect": 0, "comment": 0, "share": 0,
        "page_time": 1.5 * click, f"{kind}_timestamp": time, **more,
    }  # fmt: skip


def request(user: int | None, number: int, *details: dict[str, Any]) -> dict[str, Any]:
    return {
        "user_idx": user, "session_idx": 1, "request_idx": number, "query": "", "recent_clicked_note_idxs": [1, 2],
        "rec_result_details_with_idx": list(details),
    }  # fmt: skip


def search(user: int, number: int, query: str | None, *details: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "user_idx": user, "session_idx": 1, "search_idx": number, "query": query, "query_from_type": 2,
        "recent_clicked_note_idxs": [], "search_result_details_with_idx": list(details), **more,
    }  # fmt: skip


def rec_note(number: int | None, position: int, click: int, time: int | None = T, **more: Any) -> dict[str, Any]:
    return note(number, position, click, time, "request", **more)


def found_note(number: int | None, position: int, click: int, time: int | None = T, **more: Any) -> dict[str, Any]:
    return note(number, position, click, time, "search", **more)


REC_TRAIN = [
    request(7, 1, rec_note(30, 2, 1, T + 10), rec_note(10, 5, 1, T + 10), rec_note(20, 3, 1, T + 10)),
    request(7, 2, rec_note(40, 0, 0, T + 20)),
    request(7, 3),
    request(8, 1, rec_note(20, 1, 1, T + 5), rec_note(30, 2, 0, T + 5)),
]
REC_TEST = [request(7, 9, rec_note(50, 0, 1, T + 1))]
SEARCH_TRAIN = [
    search(7, 1, "Mac  口红", found_note(21, 3, 1, T + 4), found_note(11, 12, 1, T + 4), found_note(20, 2, 1, T + 4)),
    search(7, 2, "Mac  口红", found_note(20, 1, 0, T + 6)),
    search(7, 3, "MAC 口红", found_note(20, 1, 0, T + 8), query_from_type=None),
    search(7, 1, "Mac  口红", found_note(12, 20, 1, T + 5)),
    search(8, 1, "奶茶", found_note(30, 1, 1, T + 7)),
    search(8, 2, "nothing found"),
]
SEARCH_TEST = [search(8, 1, "咖啡", found_note(10, 1, 1, T + 3))]
NOTES = [
    {"note_idx": number, "note_title": title, "note_content": text, "note_type": 1, "taxonomy1_id": "美妆",
     "taxonomy2_id": "唇妆", "taxonomy3_id": third, "image_path": ["a.jpg"]}
    for number, third, title, text in [
        (10, None, '红\t"唇"', "第一行\n第二行"), (21, 5, "", None), (99, 6, "nobody", "saw it"),
    ]
]  # fmt: skip
USERS = [
    {"user_idx": user, "gender": "f", "platform": "iOS", "age": "18-22", "location": "上海 市", "fans_num": 12.0,
     "follows_num": 3, "dense_feat1": 0.5}
    for user in (8, 7, 5)
]  # fmt: skip
TABLES: dict[str, list[dict[str, Any]]] = {
    "recommendation_train": REC_TRAIN, "recommendation_test": REC_TEST, "search_train": SEARCH_TRAIN,
    "search_test": SEARCH_TEST, "notes": NOTES, "user_feat": USERS,
}  # fmt: skip


def write_tables(folder: Path, **tables: list[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in {**TABLES, **tables}.items():
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
    return folder


def convert(tmp_path: Path, on_error: Any = "stop", **tables: list[dict[str, Any]]) -> dict[str, Any]:
    files = qilin.find_tables(write_tables(tmp_path / "raw", **tables))
    return qilin.convert(files, tmp_path / "q", settings=Settings(on_error, threads=1))


def rows_of(tmp_path: Path, suffix: str) -> list[str]:
    return (tmp_path / "q" / f"q.{suffix}").read_text(encoding="utf-8").replace("\t", "|").splitlines()[1:]


def query_id(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()[:20]


LIPSTICK, TEA, COFFEE = query_id("mac 口红"), query_id("奶茶"), query_id("咖啡")


def test_the_files_by_hand(tmp_path: Path) -> None:
    manifest = convert(tmp_path)
    assert rows_of(tmp_path, "inter") == [
        f"7|50|{T + 1}",  # of the test table
        f"7|30|{T + 10}",
        f"7|20|{T + 10}",
        f"7|10|{T + 10}",  # of one time: by position
        f"8|20|{T + 5}",
    ]
    assert rows_of(tmp_path, "search") == [
        f"7|{LIPSTICK}|{T + 4}|20 21 11 12|{T + 4} {T + 4} {T + 4} {T + 5}|2",  # two rows, by position
        f"7|{LIPSTICK}|{T + 6}|||2",
        f"7|{LIPSTICK}|{T + 8}|||",
        f"8|{COFFEE}|{T + 3}|10|{T + 3}|2",  # another query under the same number
        f"8|{TEA}|{T + 7}|30|{T + 7}|2",
    ]
    assert rows_of(tmp_path, "query") == sorted([f"{LIPSTICK}|mac 口红", f"{TEA}|奶茶", f"{COFFEE}|咖啡"])
    assert rows_of(tmp_path, "item") == ["10|红 唇|第一行 第二行|1|美妆|唇妆|", "21|||1|美妆|唇妆|5"]
    assert rows_of(tmp_path, "user") == ["7|f|iOS|18-22|上海 市|12.0|3.0", "8|f|iOS|18-22|上海 市|12.0|3.0"]
    nothing = {"the request shows no note": 1}
    rows = manifest["rows"]
    assert rows["recommendation"] == {"in": 8, "out": 5, "rejected": {"the note was not clicked": 2, **nothing}}
    assert rows["search"] == {"in": 9, "out": 8, "rejected": nothing}
    assert rows["items shown under searches"] == {"in": 8, "out": 6, "rejected": {"not clicked": 2}}
    assert manifest["sizes"] == {"users": 2, "items": 4, "interactions": 5, "search_events": 5, "queries": 3}
    assert sorted(entry["file"] for entry in manifest["inputs"]) == sorted(f"{name}.parquet" for name in TABLES)
    assert manifest["options"]["times"]["searches"]["unit"] == "s"


def test_the_result_is_clean_and_loads(tmp_path: Path) -> None:
    convert(tmp_path)
    found = validate(tmp_path / "q")
    assert found.clean(), str(found)
    counts = load_dataset(tmp_path, "q", require_both_histories=False).summary()
    assert (counts["users"], counts["interactions"], counts["searches"]) == (2, 5, 5)


def test_milliseconds_are_told_from_the_values(tmp_path: Path) -> None:
    def late(rows: list[dict[str, Any]], column: str, field: str) -> list[dict[str, Any]]:
        return [{**row, column: [{**entry, field: entry[field] * 1000 + 250} for entry in row[column]]} for row in rows]

    rec, found = "rec_result_details_with_idx", "search_result_details_with_idx"
    manifest = convert(
        tmp_path,
        recommendation_train=late(REC_TRAIN, rec, "request_timestamp"),
        recommendation_test=late(REC_TEST, rec, "request_timestamp"),
        search_train=late(SEARCH_TRAIN, found, "search_timestamp"),
        search_test=late(SEARCH_TEST, found, "search_timestamp"),
    )
    assert manifest["options"]["times"]["interactions"]["unit"] == "ms"
    assert rows_of(tmp_path, "inter")[0] == f"7|50|{T + 1}.25"
    assert f"8|{TEA}|{T + 7}.25|30|{T + 7}.25|2" in rows_of(tmp_path, "search")


def test_equal_bytes_from_tables_in_parts_and_of_other_types(tmp_path: Path) -> None:
    convert(tmp_path)
    first = {path.name: path.read_bytes() for path in (tmp_path / "q").glob("q.*")}
    raw = tmp_path / "parts"
    for name, rows in TABLES.items():
        (raw / name).mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows), raw / name / "train-0.parquet")
    # A click that is a float, fields in another order, and another field.
    other = [{**entry, "click": 1.0} for entry in [rec_note(50, 0, 1, T + 1)]]
    (raw / "recommendation_test" / "train-0.parquet").unlink()
    details = [dict(sorted({**entry, "more": 1}.items())) for entry in other]
    pq.write_table(pa.Table.from_pylist([request(7, 9, *details)]), raw / "recommendation_test" / "b.parquet")
    qilin.convert(qilin.find_tables(raw), tmp_path / "q", settings=Settings(threads=2))
    assert {path.name: path.read_bytes() for path in (tmp_path / "q").glob("q.*")} == first


@pytest.mark.parametrize(
    ("table", "row", "column", "reason"),
    [
        ("recommendation_train", request(None, 5, rec_note(1, 0, 1)), "user_idx", "user is missing"),
        ("recommendation_train", request(7, 5, rec_note(None, 0, 1)), "note_idx", "note is missing"),
        ("recommendation_train", request(7, 5, rec_note(1, 0, 1, None)), "request_timestamp", "time is missing"),
        (
            "recommendation_train", request(7, 5, rec_note(1, 0, 1, T * 1000)), "request_timestamp",
            "time is not between March 1973 and 2200 in s, as most times are",
        ),
        ("search_train", search(7, 5, None, found_note(1, 0, 1)), "query", "query is missing"),
        ("search_train", search(7, 5, " \t", found_note(1, 0, 1)), "query", "query is missing"),
        ("search_train", search(7, 5, "q", found_note(None, 0, 1)), "note_idx", "note is missing"),
        ("search_train", search(7, 5, "q", found_note(1, 0, 1), search_idx=None), "search_idx", "search is missing"),
        ("notes", {**NOTES[0], "note_idx": None}, "note_idx", "item is missing"),
    ],
)  # fmt: skip
def test_a_malformed_row(tmp_path: Path, table: str, row: dict[str, Any], column: str, reason: str) -> None:
    rows = [*TABLES[table], row]
    with pytest.raises(DataError, match=reason) as stopped:
        convert(tmp_path, **{table: rows})
    assert (stopped.value.line, stopped.value.column) == (len(rows), column)
    assert f"{table}.parquet:{len(rows)}: " in str(stopped.value) and not list((tmp_path / "q").glob("[!.]*"))
    manifest = convert(tmp_path, "skip", **{table: rows})
    source = {"notes": "items"}.get(table, table.partition("_")[0])
    assert manifest["rows"][source]["rejected"][reason] == 1
    assert manifest["rows"][source]["examples"][reason][0].startswith(f"{table}.parquet:{len(rows)}: ")
    assert manifest["sizes"]["interactions"] == 5 and manifest["sizes"]["search_events"] == 5


def test_wrong_input_has_one_clear_line(tmp_path: Path) -> None:
    write_tables(tmp_path / "raw")
    (tmp_path / "raw" / "search_test.parquet").unlink()
    with pytest.raises(UserError, match=r"raw holds neither search_test\.parquet nor search_test/\*\.parquet"):
        qilin.find_tables(tmp_path / "raw")
    with pytest.raises(ConfigError, match=r"the first two are needed; found \['notes'\]"):
        qilin.convert({"notes": [tmp_path / "raw" / "notes.parquet"]}, tmp_path / "q")
    with pytest.raises(ConfigError, match="qilin takes no options; found seed: 1"):
        qilin.from_raw({}, tmp_path / "q", {"seed": 1})
    less = [{**row, "search_result_details_with_idx": [{"note_idx": 1, "position": 0}]} for row in SEARCH_TEST]
    with pytest.raises(DataError, match=r"search_test.*no list of structs with search_timestamp, click, but STRUCT"):
        convert(tmp_path, search_test=less)
    text = [{**row, "rec_result_details_with_idx": "[]"} for row in REC_TEST]
    with pytest.raises(DataError, match=r"column 'rec_result_details_with_idx': it is no list of structs .* VARCHAR"):
        convert(tmp_path, recommendation_test=text)


def test_the_command_and_the_raw_files_of_a_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = write_tables(tmp_path / "raw")
    for name in ("notes", "user_feat"):
        (tables / f"{name}.parquet").unlink()
    assert command("convert", "qilin", *["--tables", str(tables), "--out", str(tmp_path / "q")]) == 0
    printed = capsys.readouterr().out
    assert "q: 2 users, 4 items, 5 interactions, 5 search events, 3 queries" in printed
    assert "times of interactions: s (told from the values), " in printed
    assert not list((tmp_path / "q").glob("q.item")) + list((tmp_path / "q").glob("q.user"))
    by_command = (tmp_path / "q" / "q.search").read_bytes()
    files = {role: paths for role, paths in qilin.find_tables(tables).items() if paths}
    qilin.from_raw(files, tmp_path / "q", {})
    assert (tmp_path / "q" / "q.search").read_bytes() == by_command


def test_the_papers_settings() -> None:
    config = SERConfig("GSERec", "qilin")
    assert (config["embedding_size"], config["hidden_size"], config["weight_decay"]) == (32, 32, 1e-7)
    assert (config["MAX_ITEM_LIST_LENGTH"], config["max_search_length"]) == (20, 20)
    assert config.candidate_mode("test") == ("uniform", 99) and not config["require_both_histories"]
