from __future__ import annotations

import json
import re
from collections.abc import Iterator
from copy import deepcopy
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_ser.convert.settings import Settings
from recbole_ser.convert.table import convert_table, parse_spec, read_spec
from recbole_ser.errors import ConfigError, DataError, UserError

T = 1_700_000_000
LOG = {"files": "log.csv", "user": "u", "item": "i", "time": {"column": "t", "unit": "s"}}
SEARCHES = {"files": "s.jsonl", "user": "u", "time": {"column": "t", "unit": "s"}, "query": "q", "clicks": "c"}
SEARCH = {"u": "u", "t": T, "q": "red", "c": ["a"]}


def convert(folder: Path, mapping: dict[str, Any], **options: Any) -> dict[str, Any]:
    return convert_table(parse_spec(mapping, folder), folder / "X", Settings(threads=1, **options))


def csv_log(folder: Path, *lines: str | bytes) -> dict[str, Any]:
    raw = [line if isinstance(line, bytes) else line.encode() for line in (f"u,i,t,k\nu,a,{T},1", *lines)]
    (folder / "log.csv").write_bytes(b"\n".join(raw) + b"\n")
    return {"interactions": LOG}


def with_searches(folder: Path, *rows: Any, **changes: Any) -> dict[str, Any]:
    lines = [row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=False).encode() for row in (SEARCH, *rows)]
    (folder / "s.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    return {**csv_log(folder), "searches": {**SEARCHES, **changes}}


def refused_and_skipped(folder: Path, mapping: dict[str, Any], log: str, where: str, problem: str) -> None:
    """A malformed row stops the conversion with its place, or is counted and shown; the good rows are converted."""
    with pytest.raises(DataError) as error:
        convert(folder, mapping)
    assert f"/{where}: " in str(error.value)
    assert problem in str(error.value)
    assert "--on-error skip" in str(error.value)
    assert not list((folder / "X").glob("[!.]*"))
    counts = convert(folder, mapping, on_error="skip")["rows"][log]
    assert counts["in"] == counts["out"] + sum(counts["rejected"].values())
    reasons = [reason for reason in counts["rejected"] if problem.startswith(reason)]
    assert len(reasons) == 1
    assert counts["examples"][reasons[0]][0].startswith(f"{where}: {problem}")


# --- malformed rows ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (f",a,{T},1", "user is missing"),
        (f"u,,{T},1", "item is missing"),
        ("u,a,,1", "time is missing"),
        (f"a b,a,{T},1", "user is not one word: 'a b'"),
        (f"u,a\tb,{T},1", "item is not one word: 'a\\tb'"),
        (f'u,"a\nb",{T},1', "item is not one word: 'a\\nb'"),
        (f"u,a\x00b,{T},1", "item is not one word: 'a\\x00b'"),
        (f"u,a\u00a0b,{T},1", "item is not one word: 'a\\xa0b'"),
        (f'u,"a""b",{T},1', "item is not one word: 'a\"b'"),
        (f"u,[PAD],{T},1", "item is the id of padding: '[PAD]'"),
        (f"[PAD],a,{T},1", "user is the id of padding: '[PAD]'"),
        (f"u,a,{T}", "the row has not as many columns as the header: 'u,a,1700000000'"),
        (f"u,a,{T},1,2", "the row has not as many columns as the header"),
        (b"u,\xffa,1700000000,1", "the row is not UTF-8"),
        ("", "user is missing"),
        (f"u,a,{T},x", "k is not a number: 'x'"),
        (f"u,a,{T},nan", "k is not a number: 'nan'"),
    ],
)
def test_a_malformed_interaction_is_named(tmp_path: Path, line: str | bytes, problem: str) -> None:
    mapping = csv_log(tmp_path, f"v,b,{T},1", line, f"w,c,{T},1")
    keep = {"column": "k", "minimum": 1} if problem.startswith("k ") else None
    mapping["interactions"] = {**LOG, "keep": keep}
    refused_and_skipped(tmp_path, mapping, "interactions", "log.csv:4", problem)
    assert len((tmp_path / "X" / "X.inter").read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"q": None}, "query is missing"),
        ({"q": " \u3000\t"}, "query is missing"),
        ({"u": ["u"]}, "user is neither text nor a number: '[\"u\"]'"),
        ({"u": True}, "user is neither text nor a number: 'true'"),
        ({"c": "a b"}, "clicked items is not a list: '\"a b\"'"),
        ({"c": {"a": 1}}, "clicked items is not a list"),
        ({"c": 5}, "clicked items is not a list: '5'"),
        ({"c": [["a"]]}, "clicked items is not a list of texts and numbers"),
        ({"c": [True]}, "clicked items is not a list of texts and numbers"),
        ({"c": ["a", "b c"]}, "a clicked item is not one word: 'b c'"),
        ({"c": ["a", None]}, "a clicked item is not one word: ''"),
        ({"c": [""]}, "a clicked item is not one word: ''"),
        ({"c": ["a\u2028b"]}, "a clicked item is not one word"),
        ({"c": ["a", "[PAD]"]}, "a clicked item is the id of padding: '[PAD]'"),
        (b'{"u": "u"', 'the row is not valid JSON: \'{"u": "u"\''),
        (b"[1, 2]", "the row is not a JSON object: '[1, 2]'"),
        (b'{"u": "\xff"}', 'the row is not UTF-8: \'{"u": "\ufffd"}\''),
        (b'{"u": "\\ud800"}', "the row is not valid JSON"),
        (b"", "the row is not valid JSON: ''"),
    ],
)
def test_a_malformed_search_is_named(tmp_path: Path, change: Any, problem: str) -> None:
    mapping = with_searches(tmp_path, change if isinstance(change, bytes) else {**SEARCH, **change}, SEARCH)
    refused_and_skipped(tmp_path, mapping, "searches", "s.jsonl:2", problem)
    assert len((tmp_path / "X" / "X.search").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("changes", "row", "problem"),
    [
        ({"query": {"id": "n"}}, {"n": "a b"}, "query id is not one word"),
        ({"query": {"id": "n"}}, {}, "query id is missing"),
        ({"query": {"terms": "n"}}, {"n": ["two words"]}, "a query term is not one word: 'two words'"),
        ({"query": {"terms": "n"}}, {"n": []}, "query is missing"),
        ({"query": {"terms": "n"}}, {"n": "red"}, "query is not a list"),
        ({"clicks": {"column": "n", "separator": "json"}}, {"n": "[1, 2"}, "clicked items is not a list: '[1, 2'"),
        (
            {"clicks": {"column": "n", "separator": "json"}},
            {"n": '{"a": 1}'},
            "clicked items is not a list",
        ),
        ({"clicks": {"item": "n"}}, {"n": "a b"}, "item is not one word: 'a b'"),
        ({"clicks": {"item": "u", "search": "n"}}, {}, "search id is missing"),
        ({"clicks": {"item": "u", "position": "n"}}, {"n": "first"}, "position is not a number: 'first'"),
        ({"clicks": {"item": "u", "keep": {"column": "n", "minimum": 1}}}, {"n": "yes"}, "n is not a number: 'yes'"),
    ],
)
def test_other_columns_of_a_search_may_be_malformed(
    tmp_path: Path, changes: dict[str, Any], row: dict[str, Any], problem: str
) -> None:
    good = "[1]" if "json" in str(changes) else ["x"] if "terms" in str(changes) else 1
    mapping = with_searches(tmp_path, {**SEARCH, "n": good}, {**SEARCH, **row}, **changes)
    lines = (tmp_path / "s.jsonl").read_text().splitlines()[1:]
    (tmp_path / "s.jsonl").write_text("\n".join(lines))
    refused_and_skipped(tmp_path, mapping, "searches", "s.jsonl:2", problem)


def test_the_first_malformed_row_is_named_whatever_its_kind(tmp_path: Path) -> None:
    for name, lines in [("a.csv", f"u,a,{T},1\nu,,{T},1"), ("b.csv", f",b,{T},1\nu,b,x,1")]:
        (tmp_path / name).write_text(f"u,i,t,k\n{lines}\n")
    mapping = {"interactions": {**LOG, "files": ["b.csv", "a.csv"]}}
    with pytest.raises(DataError, match=r"a\.csv:3: column 'i': item is missing"):
        convert(tmp_path, mapping)
    counts = convert(tmp_path, mapping, on_error="skip")["rows"]["interactions"]
    assert counts["rejected"] == {"item is missing": 1, "time is not a number": 1, "user is missing": 1}
    assert counts["examples"]["user is missing"] == ["b.csv:2: user is missing"]
    assert counts["examples"]["time is not a number"] == ["b.csv:3: time is not a number: 'x'"]


def test_the_first_three_examples_are_shown(tmp_path: Path) -> None:
    mapping = csv_log(tmp_path, *[f",a,{T},1"] * 5)
    counts = convert(tmp_path, mapping, on_error="skip")["rows"]["interactions"]
    assert counts["rejected"] == {"user is missing": 5}
    assert [example.split()[0] for example in counts["examples"]["user is missing"]] == [
        "log.csv:3:", "log.csv:4:", "log.csv:5:"
    ]  # fmt: skip


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    mapping = csv_log(tmp_path)
    mapping["interactions"] = {**LOG, "keep": {"column": "k", "values": [7]}}
    with pytest.raises(DataError, match=r"no row of 1 is left \(k is not one to keep: 1\)"):
        convert(tmp_path, mapping)
    (tmp_path / "log.csv").write_text("u,i,t\n")
    with pytest.raises(DataError, match=r"no row of 0 is left \(it is empty\)"):
        convert(tmp_path, {"interactions": LOG})


PIECES = st.sampled_from(["u", "i", "1700000000", "", "x y", '"', '"a"', ",", "\n", "é", "\r", "\x00", "1e9"])


@given(st.lists(st.one_of(PIECES.map(str.encode), st.binary(max_size=3)), max_size=30))
@settings(max_examples=30, deadline=None)
def test_any_log_is_converted_with_its_counts_or_refused(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    mapping = csv_log(folder, b"".join(pieces))
    try:
        convert(folder, mapping)
    except DataError as error:
        assert error.line is not None
    counts = convert(folder, mapping, on_error="skip")["rows"]["interactions"]
    written = (folder / "X" / "X.inter").read_bytes().decode().split("\n")
    assert len(written) - 2 == counts["out"] == counts["in"] - sum(counts["rejected"].values())
    assert all(re.fullmatch(r'[^\s"]+\t[^\s"]+\t\d+(\.\d+)?', line) for line in written[1:-1])


# --- files and columns ------------------------------------------------------------------------------------------------


def parquet(folder: Path, columns: dict[str, Any], name: str = "log.parquet") -> dict[str, Any]:
    pq.write_table(pa.table(columns), folder / name)
    return {"interactions": {**LOG, "files": "*.parquet"}}


def test_columns_that_are_missing_or_ambiguous_are_named(tmp_path: Path) -> None:
    mapping = csv_log(tmp_path)
    mapping["interactions"] = {**LOG, "item": "Item"}
    (tmp_path / "log.csv").write_text(f"u,items,t\nu,a,{T}\n")
    with pytest.raises(DataError, match=r"log\.csv:1: column 'Item': the column is missing \(did you mean 'items'"):
        convert(tmp_path, mapping)
    (tmp_path / "log.csv").write_text(f"u,i,t,I\nu,a,{T},b\n")
    with pytest.raises(DataError, match="column 'i': another column has this name"):
        convert(tmp_path, {"interactions": LOG})
    with pytest.raises(DataError, match=r"log\.parquet:1: column 'i': the column is missing"):
        convert(tmp_path, parquet(tmp_path, {"u": ["u"], "t": [T]}))


KEYS = [
    ({"clicks": "klicked"}, "klicked", "did you mean 'clicked'?"),
    ({"source": "entry"}, "entry", "it has clicked, id, page, t, text, u"),
    ({"query": {"id": "id", "text": "txt"}}, "txt", "did you mean 'text'?"),
    ({"keep": {"column": "pages", "values": ["x"]}}, "pages", "did you mean 'page'?"),
    ({"user": "user"}, "user", "it has"),
]


@pytest.mark.parametrize(("change", "column", "hint"), KEYS)
def test_a_key_that_no_row_of_json_lines_has_is_named(
    tmp_path: Path, change: dict[str, Any], column: str, hint: str
) -> None:
    row: dict[str, Any] = {"u": "u", "t": T, "id": "q", "text": "x", "clicked": None, "page": "home"}
    del_click = {name: value for name, value in row.items() if name != "clicked"}
    (tmp_path / "s.jsonl").write_text("".join(json.dumps(r) + "\n" for r in (del_click, del_click, row)) + "oops\n")
    (tmp_path / "i.csv").write_text(f"u,i,t\nu,a,{T}\n")
    log = {"files": "i.csv", "user": "u", "item": "i", "time": "t"}
    search = {"files": "s.jsonl", "user": "u", "time": "t", "query": {"id": "id", "text": "text"}, "clicks": "clicked"}
    right = parse_spec({"interactions": log, "searches": search}, tmp_path)
    assert convert_table(right, tmp_path / "X", Settings("skip"))["sizes"]["search_events"] == 3
    wrong = parse_spec({"interactions": log, "searches": {**search, **change}}, tmp_path)
    with pytest.raises(DataError) as error:
        convert_table(wrong, tmp_path / "X", Settings("skip"))
    assert str(error.value).startswith(f"{tmp_path / 's.jsonl'}: column '{column}': no row has the key ({hint}")


def test_parquet_files_of_one_log_have_one_type(tmp_path: Path) -> None:
    parquet(tmp_path, {"u": ["u"], "i": [1], "t": [T]}, "a.parquet")
    mapping = parquet(tmp_path, {"u": ["u"], "i": ["1"], "t": [T]}, "b.parquet")
    with pytest.raises(DataError, match=r"b\.parquet: column 'i': the type is string, but int64 in a\.parquet"):
        convert(tmp_path, mapping)


@pytest.mark.parametrize("ids", [[True], [T * 1.0], [[1]], [{"a": 1}], [b"x"]])
def test_types_that_are_no_ids_are_refused(tmp_path: Path, ids: list[Any]) -> None:
    mapping = parquet(tmp_path, {"u": ids, "i": [1], "t": [T]})
    if ids == [T * 1.0]:
        assert convert(tmp_path, mapping)["sizes"]["users"] == 1
        return
    with pytest.raises(DataError, match=r"log\.parquet: column 'u': (a value|values) of type"):
        convert(tmp_path, mapping)


@pytest.mark.parametrize(
    ("column", "problem"),
    [
        ({"column": "c", "separator": ","}, "it holds lists: leave out the separator"),
        ("n", "it holds lists of INTEGER\\[\\]|it holds lists of BIGINT\\[\\]"),
        ("u", "values of type VARCHAR are no lists"),
        ({"column": "t", "separator": ","}, "values of type BIGINT are no lists"),
    ],
)
def test_columns_that_are_no_lists_are_refused(tmp_path: Path, column: Any, problem: str) -> None:
    columns = {"u": ["u"], "t": [T], "q": ["x"], "c": [["a"]], "n": [[[1]]]}
    pq.write_table(pa.table(columns), tmp_path / "s.parquet")
    mapping = {**csv_log(tmp_path), "searches": {**SEARCHES, "files": "s.parquet", "clicks": column}}
    with pytest.raises(DataError, match=problem):
        convert(tmp_path, mapping)


def test_damaged_and_missing_files_are_named(tmp_path: Path) -> None:
    mapping = parquet(tmp_path, {"u": ["u"] * 500, "i": list(range(500)), "t": [T] * 500})
    whole = (tmp_path / "log.parquet").read_bytes()
    for broken in (b"", b"PAR1", whole[:-20], whole[:100]):
        (tmp_path / "log.parquet").write_bytes(broken)
        with pytest.raises(DataError, match=r"log\.parquet: not a Parquet file, or a damaged one"):
            convert(tmp_path, mapping)
    (tmp_path / "log.parquet").write_bytes(whole[:4] + bytes(400) + whole[404:])
    with pytest.raises(UserError):
        convert(tmp_path, mapping)
    with pytest.raises(UserError, match="there is no such file"):
        parse_spec({"interactions": {**LOG, "files": "no*.csv"}}, tmp_path)
    with pytest.raises(UserError, match=r"write .*/\*\.parquet"):
        parse_spec({"interactions": {**LOG, "files": str(tmp_path)}}, tmp_path)


# --- the mapping ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"interaction": {}}, "there is no key 'interaction': did you mean 'interactions'"),
        ({"deduplicate": "yes please"}, "deduplicate: 'yes please' is neither true nor false"),
        ({"interactions": None}, "interactions is missing"),
        ({"interactions": "log.csv"}, "interactions: 'log.csv' is no mapping"),
        ({"interactions": {**LOG, "usr": "u"}}, "interactions: there is no key 'usr': did you mean 'user'"),
        ({"interactions": {**LOG, "user": None}}, "interactions.user is missing"),
        ({"interactions": {**LOG, "user": 1}}, "interactions.user: 1 is not a text"),
        (
            {"interactions": {**LOG, "time": {"column": "t", "unit": "min"}}},
            "time.unit: 'min' is none of s, ms, us, ns",
        ),
        ({"interactions": {**LOG, "time": None}}, "interactions.time.column is missing"),
        ({"interactions": {**LOG, "files": None}}, "interactions.files is missing"),
        ({"interactions": {**LOG, "format": "xml"}}, "format: 'xml' is none of csv, tsv, jsonl, parquet"),
        ({"interactions": {**LOG, "delimiter": "||"}}, r"delimiter: '\|\|' is not one ASCII character"),
        ({"interactions": {**LOG, "names": "u"}}, "names: 'u' is no list"),
        ({"interactions": {**LOG, "keep": {"column": "k"}}}, "keep: give either values or minimum"),
        ({"interactions": {**LOG, "keep": {"column": "k", "minimum": "1"}}}, "keep.minimum: '1' is not a number"),
        ({"searches": {**SEARCHES, "query": None}}, "searches.query"),
        ({"searches": {**SEARCHES, "query": {"text": "q", "terms": "w"}}}, "not text and terms together"),
        ({"searches": {**SEARCHES, "clicks": {"column": "c", "seperator": ","}}}, "did you mean 'separator'"),
        ({"searches": {**SEARCHES, "clicks": {"item": "c", "session": "s"}}}, "there is no key 'session'"),
        ({"items": {"files": "log.csv", "item": "i"}}, "items.columns is missing"),
        ({"items": {"files": "log.csv", "item": "i", "columns": {"k": "int"}}}, "k.type: 'int' is none of token"),
        ({"items": {"files": "log.csv", "item": "i", "columns": {"k:x": "token"}}}, "'k:x' cannot name a column"),
        ({"items": {"files": "log.csv", "item": "i", "columns": {"item_id": "token"}}}, "'item_id' cannot name"),
        (
            {"users": {"files": "log.csv", "user": "u", "columns": {"k": {"type": "token", "separator": ","}}}},
            "a separator only to a token_seq",
        ),
    ],
)
def test_mistakes_in_the_mapping_are_named(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    mapping = {**with_searches(tmp_path), **change}
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(mapping))
    with pytest.raises(ConfigError, match=f"m.yaml: .*{problem}"):
        read_spec(tmp_path / "m.yaml")


@pytest.mark.parametrize("unprintable", ["", "a\0b", "a\nb", "\ud800"])
def test_names_that_nothing_can_have_are_refused_wherever_they_stand(tmp_path: Path, unprintable: str) -> None:
    full = with_searches(
        tmp_path, query={"id": "q", "terms": "c"}, source="k", clicks={"item": "i", "search": "s", "position": "p"}
    )
    full["interactions"] = {**LOG, "position": "k", "keep": {"column": "k", "minimum": 1}}
    full["items"] = {"files": "log.csv", "item": "i", "columns": {"k": {"type": "token", "column": "k"}}}
    places = list(texts_in(full))
    assert len(places) > 20
    for place in places:
        mapping = deepcopy(full)
        holder: Any = mapping
        for key in place[:-1]:
            holder = holder[key]
        holder[place[-1]] = unprintable
        if place[-1] not in ("unit", "type"):
            with pytest.raises(ConfigError, match=place[-1]) as error:
                parse_spec(mapping, tmp_path)
            assert str(error.value).isprintable()


def texts_in(value: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(value, str):
        yield place
    for key, entry in value.items() if isinstance(value, dict) else ():
        yield from texts_in(entry, (*place, key))


@pytest.mark.parametrize(
    ("keep", "problem"),
    [
        ({"minimum": float("nan")}, "minimum: nan is not a number"),
        ({"minimum": float("inf")}, "minimum: inf is not a number"),
        ({"minimum": 10**400}, "minimum: 1000000.*is not a number"),
        ({"minimum": 1 << 20_000}, "minimum: a value of type int is not a number"),
        ({"values": []}, "values is empty"),
        ({"values": [1 << 20_000]}, "values: a value of type int.*put it in quotes"),
        ({"values": [float("nan")]}, "values: nan.*put it in quotes"),
        ({"values": [date(2023, 11, 14)]}, "values: datetime.date.*put it in quotes"),
        ({"values": [["a"]]}, "values: .*put it in quotes"),
        ({"values": {"a": 1}}, "values: .*put it in quotes"),
        ({"values": ["a\0"]}, "values: .*put it in quotes"),
        ({"values": None, "minimum": "5"}, "minimum: '5' is not a number"),
    ],
)
def test_values_that_cannot_be_kept_are_refused(tmp_path: Path, keep: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=f"interactions.keep.{problem}"):
        parse_spec({**csv_log(tmp_path), "interactions": {**LOG, "keep": {"column": "k", **keep}}}, tmp_path)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"interactions": {**LOG, 1: "a"}}, "interactions: the key 1 is not a text"),
        ({"interactions": {**LOG, "files": "n" * 300}}, "interactions.files: .*File name too long"),
        ({"interactions": {**LOG, "files": "log.csv/x"}}, "no such file"),
        ({"interactions": {**LOG, "files": "."}}, "no such file"),
        ({"interactions": {**LOG, "files": []}}, "files is missing"),
        ({"interactions": {**LOG, "files": [["log.csv"]]}}, "files is missing"),
        ({"interactions": [[[["deep"] * 1000] * 1000]]}, "interactions: .*is no mapping"),
        ({"searches": {**SEARCHES, "clicks": {"column": "c", "separator": ""}}}, "separator: '' cannot separate"),
        ({"items": {"files": "log.csv", "item": "i", "columns": {"k": "token", "K": "token"}}}, "'K' is there twice"),
        ({"items": {"files": "log.csv", "item": "i", "columns": {1: "token"}}}, "columns: 1 cannot name a column"),
        ({"items": {"files": "log.csv", "item": "i", "columns": {"a\nb": "token"}}}, "cannot name a column"),
    ],
)
def test_values_of_any_kind_are_refused_in_one_short_line(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError, match=problem) as error:
        parse_spec({**with_searches(tmp_path), **change}, tmp_path)
    assert str(error.value).isprintable() and len(str(error.value)) < 600


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (("u", "U", "t"), "only upper and lower case tell it from the column 'u'"),
        (("u", "_Reason", "t"), "the converter needs this name"),
        (("u", "_keep", "t"), "the converter needs this name"),
        (("u", "_the_item", "t"), "the converter needs this name"),
    ],
)
def test_columns_that_sql_cannot_tell_apart_are_refused(
    tmp_path: Path, kind: str, names: tuple[str, str, str], problem: str
) -> None:
    row = dict(zip(names, ["a", "b", T]))
    path = tmp_path / f"log.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist([row]), path)
    else:
        path.write_text(json.dumps(row) if kind == "jsonl" else ",".join(names) + f"\na,b,{T}\n")
    log = {"files": path.name, "user": names[0], "item": names[1], "time": names[2]}
    with pytest.raises(DataError, match=problem):
        convert(tmp_path, {"interactions": log})


def test_a_parquet_column_of_a_name_that_duckdb_adds_is_refused(tmp_path: Path) -> None:
    rows = pa.table({"u": ["a"], "i": ["b"], "t": [T], "FileName": ["x"]})
    pq.write_table(rows, tmp_path / "log.parquet")
    with pytest.raises(DataError, match=r"log.parquet:1: column 'FileName': the converter needs this name"):
        convert(tmp_path, {"interactions": {**LOG, "files": "log.parquet"}})


def test_files_whose_names_do_not_tell_a_format_need_one(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(f"u|a|{T}\n")
    log = {**LOG, "files": "log"}
    with pytest.raises(ConfigError, match="give format"):
        parse_spec({"interactions": log}, tmp_path)
    log |= {"format": "csv", "delimiter": "|", "names": ["u", "i", "t"]}
    assert convert(tmp_path, {"interactions": log})["sizes"]["interactions"] == 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [("a: [", r"m\.yaml:1: not valid YAML"), ("- a", "m.yaml: holds no"), ("", "m.yaml: interactions is missing")],
)
def test_a_file_that_is_no_mapping_is_named(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "m.yaml").write_text(text)
    with pytest.raises(ConfigError, match=problem):
        read_spec(tmp_path / "m.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_spec(tmp_path / "nothing.yaml")
