from __future__ import annotations

import csv
import gzip
import io
import json
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from recbole_ser.convert.raw_files import Files
from recbole_ser.convert.table import text_files as table_text
from recbole_ser.convert.table.text_files import (
    FAULT,
    LINE,
    RAGGED,
    ROW,
    TEXT,
    UNCLOSED,
    UNREADABLE,
    csv_batches,
    csv_header,
)
from recbole_ser.errors import DataError, UserError
from recbole_ser.text.words import normalised, query_terms

NOT_UTF8 = table_text.NOT_UTF8


def read(path: Path, columns: str = "ab", **options: Any) -> list[dict[str, Any]]:
    files = Files((path,), "csv", **options)
    return [row for batch in csv_batches(files, path, list(columns)) for row in batch.to_pylist()]


def values(rows: list[dict[str, Any]]) -> list[tuple[int, str, str]]:
    return [(row[LINE], row["a"], row["b"]) for row in rows]


def log(folder: Path, data: bytes, name: str = "log.csv") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


# --- CSV and TSV ------------------------------------------------------------------------------------------------------


def test_rows_know_their_lines(tmp_path: Path) -> None:
    assert values(read(log(tmp_path, b"a,x,b\n1,,2\n3,y,4"))) == [(2, "1", "2"), (3, "3", "4")]
    assert values(read(log(tmp_path, b"\xef\xbb\xbfb,a\r\n2,1\r\n4,3\r\n"))) == [(2, "1", "2"), (3, "3", "4")]
    assert values(read(log(tmp_path, b"1;2\n"), delimiter=";", names=("a", "b"))) == [(1, "1", "2")]


def test_a_quoted_value_may_hold_delimiters_quotes_and_lines(tmp_path: Path) -> None:
    path = log(tmp_path, b'a,b\n1,"x,""y"""\n2,"two\nlines"\n3,z\n')
    assert values(read(path)) == [(2, "1", 'x,"y"'), (3, "2", "two\nlines"), (5, "3", "z")]
    assert [(row[LINE], row[FAULT]) for row in read(path, quote=None)] == [
        (2, RAGGED), (3, None), (4, RAGGED), (5, None)
    ]  # fmt: skip


def test_without_quotes_a_quote_is_a_character(tmp_path: Path) -> None:
    path = log(tmp_path, b'a\tb\n27"\t"x\n1\t2\n')
    assert values(read(path, delimiter="\t", quote=None)) == [(2, '27"', '"x'), (3, "1", "2")]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b"1", RAGGED),
        (b"1,2,3", RAGGED),
        (b"1,\xff", NOT_UTF8),
        (b"1,x\ry", UNREADABLE),
        (b'1,"x', UNCLOSED),
    ],
)
def test_a_wrong_row_is_named_and_the_others_are_read(tmp_path: Path, line: bytes, fault: str) -> None:
    rows = read(log(tmp_path, b"a,b\n1,\xc3\xa9\n" + line + b"\n3,4\n"))
    assert values(rows[:1]) == [(2, "1", "é")]
    assert (rows[1][LINE], rows[1][FAULT], rows[1]["a"], rows[1]["b"]) == (3, fault, None, None)
    assert rows[1][TEXT] == line.decode("utf-8", "replace")
    assert values(rows[2:]) == ([] if fault == UNCLOSED else [(4, "3", "4")])


def test_broken_utf8_in_a_column_that_is_not_read_is_no_mistake(tmp_path: Path) -> None:
    assert values(read(log(tmp_path, b"a,x,b\n1,\xff,2\n3,4\n"))[:1]) == [(2, "1", "2")]


def test_a_blank_line_is_a_row_without_values(tmp_path: Path) -> None:
    assert values(read(log(tmp_path, b"a,b\n1,2\n\n3,4\n"))) == [(2, "1", "2"), (3, "", ""), (4, "3", "4")]
    assert values(read(log(tmp_path, b"a,b\n1,2\n\n3,4\n5\n"))[:3]) == [(2, "1", "2"), (3, "", ""), (4, "3", "4")]


def test_a_carriage_return_inside_a_row_does_not_shift_the_lines(tmp_path: Path) -> None:
    rows = read(log(tmp_path, b'a,b\n1,2\r3,"x\ny"\n5,6\n'))
    assert [(row[LINE], row[FAULT]) for row in rows] == [(2, UNREADABLE), (3, RAGGED), (4, None)]


def test_long_excerpts_are_cut(tmp_path: Path) -> None:
    assert read(log(tmp_path, b"a,b\n" + b"x" * 200 + b"\n"))[0][TEXT] == "x" * 80


cells = st.text(st.sampled_from('ab,"\n é'), max_size=4)


@given(st.lists(st.tuples(cells, cells), max_size=12), st.integers(1, 40), st.sampled_from(["\n", "\r\n"]))
@settings(max_examples=150, deadline=None)
def test_what_a_csv_writer_wrote_is_read_whatever_the_blocks(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], block: int, end: str
) -> None:
    written = io.StringIO(newline="")
    writer = csv.writer(written, lineterminator=end)
    lines = []
    for row in [("a", "b"), *rows]:
        lines.append(written.getvalue().count("\n") + 1)
        writer.writerow(row)
    path = log(tmp_path_factory.mktemp("csv"), written.getvalue().encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_text, "_BLOCK", block)
        assert values(read(path)) == [(line, *row) for line, row in zip(lines[1:], rows)]


@given(st.binary(max_size=40).map(lambda data: data.replace(b"\r", b"")), st.integers(1, 40))
@settings(max_examples=200, deadline=None)
def test_any_bytes_without_quoting_are_one_row_a_line(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, block: int
) -> None:
    path = log(tmp_path_factory.mktemp("bytes"), b"a,b\n" + data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_text, "_BLOCK", block)
        rows = read(path, quote=None)
    lines = data.split(b"\n")[: -1 if data.endswith(b"\n") or not data else None]
    assert [row[LINE] for row in rows] == list(range(2, len(lines) + 2))
    for row, line in zip(rows, lines):
        fields = line.split(b",") if line else [b"", b""]
        if row[FAULT] is None:
            assert [row["a"].encode(), row["b"].encode()] == fields
        elif row[FAULT] == RAGGED:
            assert len(fields) != 2


@pytest.mark.parametrize(
    ("data", "problem"),
    [(b"", "the header is missing"), (b"\n1,2\n", "the header is missing"), (b"\xff,b\n", "the header cannot be read")],
)
def test_a_header_is_needed(tmp_path: Path, data: bytes, problem: str) -> None:
    path = log(tmp_path, data)
    with pytest.raises(DataError, match=f"log.csv:1: {problem}"):
        csv_header(Files((path,), "csv"), path)


# --- compression and JSON lines ---------------------------------------------------------------------------------------


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("compress", [gzip.compress, zstd])
def test_compressed_files_are_read_whole_or_refused(tmp_path: Path, compress: Any) -> None:
    ending = ".gz" if compress is gzip.compress else ".zst"
    rows = [f"{n},{n * n}" for n in range(5000)]
    data = compress("\n".join(["a,b", *rows]).encode())
    found = read(log(tmp_path, data, f"log.csv{ending}"))
    assert values(found) == [(n + 2, str(n), str(n * n)) for n in range(5000)]
    assert values(read(log(tmp_path, data, "log.csv"))) == values(found)
    for broken in (data[:-5], data[: len(data) // 2], data + b"more"):
        with pytest.raises(DataError, match="damaged compressed file"):
            read(log(tmp_path, broken, f"log.csv{ending}"))
    with pytest.raises(DataError, match=f"not a {ending} file"):
        read(log(tmp_path, b"a,b\n1,2\n", f"log.csv{ending}"))


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read(tmp_path / "nothing.csv")


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_text, "_LONGEST_ROW", 1000)
    monkeypatch.setattr(table_text, "_BLOCK", 100)
    with pytest.raises(DataError, match=r"log\.csv:3: the line is longer"):
        read(log(tmp_path, b"a,b\n1,2\n" + b"x" * 2000))


@given(st.lists(st.one_of(st.binary(max_size=8), st.text(max_size=4).map(str.encode)), max_size=8), st.integers(1, 30))
@settings(max_examples=100, deadline=None)
def test_json_lines_are_taken_as_they_are(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], block: int
) -> None:
    data = b"\n".join(lines)
    assume(not data.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd")))  # as compressed files do
    path = log(tmp_path_factory.mktemp("json"), data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_text, "_BLOCK", block)
        rows = [row for batch in table_text.json_batches(path) for row in batch.to_pylist()]
    expected = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    expected = expected if expected[-1] else expected[:-1]
    assert [row[LINE] for row in rows] == list(range(1, len(expected) + 1))
    for row, line in zip(rows, expected):
        assert (row[FAULT], row[ROW]) in {(None, line.decode("utf-8", "replace")), (NOT_UTF8, None)}
        assert (row[FAULT] is None) == (line.decode("utf-8", "ignore").encode() == line)


# --- the words of queries ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("Red  SHOES, size 42!", ["red", "shoes", "size", "42"]),
        ("the the", ["the", "the"]),
        ("ＮＩＫＥ ﬁne Straße", ["nike", "fine", "strasse"]),
        ("café 16㎇", ["café", "16gb"]),
        ("हिन्दी फ़िल्म", ["हिन्दी", "फ़िल्म"]),
        ("红色鞋子", ["红色", "色鞋", "鞋子"]),
        ("鞋", ["鞋"]),
        ("nike鞋子 2件", ["nike", "鞋子", "2", "件"]),
        ("رقم ١٢، جديد", ["رقم", "١٢", "جديد"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        ("snake_case t-shirt", ["snake", "case", "t", "shirt"]),
        ("?!", []),
        ("a\x00b\tc", ["a", "b", "c"]),
    ],
)
def test_query_terms(text: str, terms: list[str]) -> None:
    assert query_terms(text) == [unicodedata.normalize("NFKC", term) for term in terms]


def test_normalisation_ignores_case_width_and_spacing_only() -> None:
    assert normalised(" Red　ＳＨＯＥＳ\n") == normalised("red shoes") == "red shoes"
    assert len({normalised(text) for text in ("c", "c++", "c#")}) == 3


@given(st.text(max_size=30))
@settings(max_examples=200, deadline=None)
def test_terms_fit_into_a_sequence_and_depend_on_the_normal_form(text: str) -> None:
    terms = query_terms(text)
    assert " ".join(terms).split() == terms
    assert not any(character in term for term in terms for character in '"\t\n\x00')
    assert query_terms(normalised(text)) == terms
    assert json.loads(json.dumps(terms)) == terms
