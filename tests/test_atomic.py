"""Reading atomic files: right ones exactly, wrong ones with the line that is wrong."""

from __future__ import annotations

import math
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import load_dataset, write_toy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recbole_ser.atomic import header, inspection, reading
from recbole_ser.atomic.ragged import Ragged
from recbole_ser.atomic.reading import read_atomic, read_header
from recbole_ser.atomic.sequences import split_sequences
from recbole_ser.errors import DataError
from recbole_ser.validation.report import validate

HEADER = "user_id:token\titem_id:token\ttimestamp:float"
NS = "164000000000000000"  # nanoseconds but for the last digit
JUNK = ["", "\t", "\n", "\r\n", "\r", '"', "\x00", " ", "é", "٣", "0x", "1e5", "nan", ":", "a\tb\tc\n"]


def read(path: Path, content: str | bytes) -> pd.DataFrame:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_atomic(path, read_header(path), required=["user_id", "item_id", "timestamp"])


def test_integers_stay_exact_and_fractions_are_float64(tmp_path: Path) -> None:
    frame = read(tmp_path / "x.inter", f"{HEADER}\nu\ti\t9007199254740993\nu\ti\t-5\n")
    assert frame.timestamp.tolist() == [9007199254740993, -5]
    frame = read(tmp_path / "x.inter", f"{HEADER}\nu\ti\t1.25\nu\ti\t1e3\n")
    assert frame.timestamp.tolist() == [1.25, 1000.0]


@pytest.mark.parametrize(
    ("written", "exact"),
    [
        ([f"{NS}1", "1.64e18", f"{NS}3.0"], [int(f"{NS}1"), int(f"{NS}0"), int(f"{NS}3")]),
        (["1700000000.000001", "1700000000.000002", "1e3"], [1700000000.000001, 1700000000.000002, 1000]),
        (["1700000000.1234567", "5"], [1700000000.1234567, 5]),  # as Python writes time.time()
        (["1700000000123456.5", "1.5"], [1700000000123456.5, 1.5]),
        (["1e19", "0.5"], [1e19, 0.5]),
    ],
)  # fmt: skip
def test_times_are_exact(tmp_path: Path, written: list[str], exact: list[float]) -> None:
    frame = read(tmp_path / "x.inter", "\n".join([HEADER, *(f"u\ti\t{text}" for text in written)]) + "\n")
    assert frame.timestamp.tolist() == exact


@pytest.mark.parametrize(
    ("written", "line"),
    [
        (["1700000000", "1700000000.000000001", "1700000000.000000002"], 3),
        (["1640000000000000001", "1640000000000000002", "1640000000000000003.5"], 4),
        (["1640000000000000001", "1640000000000000002", "0.5"], 4),
        (["1640000000000000001", "99999999999999999999"], 3),
        (["0.5", "1700000000.1234567", "1700000000.12345671"], 4),
        (["0.5", "0." + "1" * 18], 3),
    ],
)
@pytest.mark.parametrize("block", [1 << 24, 30])
def test_times_that_64_bits_do_not_hold_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: list[str], line: int, block: int
) -> None:
    for module in (inspection, reading):
        monkeypatch.setattr(module, "BLOCK", max(block, len(HEADER) + 2))
    path = write_toy(tmp_path, inter=[f"a i{n} {text}" for n, text in enumerate(written)]) / "toy.inter"
    with pytest.raises(DataError, match=rf"toy\.inter:{line}: column 'timestamp': .*only if all are whole"):
        read_atomic(path, read_header(path), required=["user_id", "item_id", "timestamp"])
    finding = validate(path.parent).first("error")[0]
    assert (finding.rule, finding.line) == ("inexact-time", line)


TIME = st.one_of(
    st.integers(0, 2**63 - 1).map(str),
    st.floats(0, 2e18).map(repr),
    st.decimals(1_700_000_000, 1_700_000_001, places=9).map(str),
    st.decimals(1_700_000_000, 1_700_000_001, places=6).map(str),
)


@given(st.lists(TIME, min_size=2, max_size=6))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_times_that_are_read_have_the_order_that_is_written(tmp_path: Path, written: list[str]) -> None:
    try:
        frame = read(tmp_path / "x.inter", "\n".join([HEADER, *(f"u\ti\t{text}" for text in written)]) + "\n")
    except DataError as error:
        assert "only if all are whole" in str(error)
        return
    order = np.argsort(frame.timestamp.to_numpy(), kind="stable")
    assert order.tolist() == sorted(range(len(written)), key=lambda n: Decimal(written[n]))
    assert frame.timestamp.nunique() == len({Decimal(text) for text in written})


def test_a_fraction_in_one_column_leaves_another_exact(tmp_path: Path) -> None:
    header = "user_id:token\titem_id:token\ttimestamp:float\trating:float"
    frame = read(tmp_path / "x.inter", f"{header}\nu\ti\t9007199254740993\t4.5\n")
    assert frame.timestamp.tolist() == [9007199254740993] and frame.rating.tolist() == [4.5]


def test_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    frame = read(tmp_path / "x.inter", b"\xef\xbb\xbf" + f"{HEADER}\r\nu\ti\t1\r\n".encode())
    assert frame.astype(str).to_numpy().tolist() == [["u", "i", "1"]]


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("u\ti", r":3: '2 columns, not 3': not as many columns"),
        ("u\ti\t1\t2", r":3: '4 columns, not 3': not as many columns"),
        ("u\ti\tsoon", r":3: column 'timestamp': 'soon': not a number"),
        ("u\ti\t", r":3: column 'timestamp': the entry is empty"),
        ("u\ti\tnan", r":3: column 'timestamp': 'nan': not a finite number"),
        ("u\ti\tinf", r":3: column 'timestamp': 'inf': not a finite number"),
        ("u\ti\t-1e999", r":3: column 'timestamp': '-1e999': not a finite number"),
        ("\ti\t1", r":3: column 'user_id': the entry is empty"),
        ("", r":3: a blank line"),
        ("\r", r":3: a blank line"),
        ("u\ti\r\t1", r":3: .*a carriage return inside the line"),
        ("u\ti\t1\ru\ti\t2", r":3: .*a carriage return inside the line"),
        ("u\ti\t1\r\r", r":3: .*a carriage return inside the line"),
        ("u\ti\0\t1", r":3: the line holds a NUL"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, row: str, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        read(tmp_path / "x.inter", f"{HEADER}\nu\ti\t1\n{row}\nu\ti\t2\n")


def test_the_first_of_several_kinds_of_fault_is_named(tmp_path: Path) -> None:
    for wrong in ("u\ti\tx", "u\ti\t", "u\ti\r\t1", "u\ti\0\t1", "u\t", ""):
        with pytest.raises(DataError, match=r":2: "):
            read(tmp_path / "x.inter", f"{HEADER}\n{wrong}\nu\ti\t0x1\nu\t\0\r\t1\nu\n\n")


@pytest.mark.parametrize("text", ["1", "-1", "+1", "007", "1.", ".5", "-.5", "1e5", "1.5E-3", "1e-400"])
def test_numbers(tmp_path: Path, text: str) -> None:
    path = write_toy(tmp_path, inter=[f"a i1 {text}", "a i2 3"]) / "toy.inter"
    assert read_atomic(path, read_header(path))["timestamp"].tolist() == [float(text), 3]
    assert validate(path.parent).clean()


@pytest.mark.parametrize(
    "text",
    [" 1", "1 ", "0x1F", "0X1", "-0x1", "\u0663", "1_0", "1,5", "-", ".", "e5", "1e", "1f", "1\x0b", "nan(1)", "in"],
)
@pytest.mark.parametrize("other", ["3", "-3", "3.5"])
def test_what_is_no_number(tmp_path: Path, text: str, other: str) -> None:
    path = tmp_path / "toy" / "toy.item"
    write_toy(tmp_path)
    path.write_text(f"item_id:token\tprice:float\ni1\t{other}\ni2\t\ni3\t{text}\n")
    with pytest.raises(DataError, match=r"toy\.item:4: column 'price': '.*': not a number"):
        read_atomic(path, read_header(path), required=["item_id"])
    (finding,) = validate(path.parent).first("error")
    assert (finding.rule, finding.line) == ("not-a-number", 4)


def test_an_optional_number_may_be_missing_but_not_infinite(tmp_path: Path) -> None:
    path = tmp_path / "x.item"
    path.write_text("item_id:token\tprice:float\ni1\t\ni2\tNaN\ni3\t-nan\ni4\t2\n")
    assert read_atomic(path, read_header(path))["price"].isna().tolist() == [True, True, True, False]
    path.write_text("item_id:token\tprice:float\ni1\tnan\ni2\t-Infinity\n")
    with pytest.raises(DataError, match=r":3: column 'price': '-Infinity': not a finite number"):
        read_atomic(path, read_header(path))


def test_columns_that_are_not_read_are_not_blamed(tmp_path: Path) -> None:
    path = tmp_path / "x.item"
    path.write_text("item_id:token\tprice:float\tsize:float\ni1\tcheap\t1\ni2\t1\tbig\n")
    with pytest.raises(DataError, match=r":3: column 'size': 'big'"):
        read_atomic(path, [column for column in read_header(path) if column.name != "price"])


@pytest.mark.parametrize("block", [60, 61, 62, 63, 64, 1000])
def test_line_ends_on_the_edge_of_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    for module in (reading, header, inspection):
        monkeypatch.setattr(module, "BLOCK", block)
    rows = "".join(f"u\ti\t{k}\r\n" for k in range(100, 120))
    assert len(read(tmp_path / "x.inter", f"{HEADER}\r\n{rows}")) == 20
    with pytest.raises(DataError, match=r":21: the last line has no end"):
        read(tmp_path / "x.inter", f"{HEADER}\r\n{rows[:-1]}")


def test_a_long_line_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (reading, header, inspection):
        monkeypatch.setattr(module, "BLOCK", 60)
    with pytest.raises(DataError, match=r":3: the line is longer"):
        read(tmp_path / "x.inter", f"{HEADER}\nu\ti\t1\nu\t{'i' * 200}\t1\n")
    with pytest.raises(DataError, match=r":1: the line is longer"):
        read(tmp_path / "x.inter", "\t".join(f"column{k}:token" for k in range(20)))


def test_broken_utf8_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\.inter:3: .*: not UTF-8"):
        read(tmp_path / "x.inter", f"{HEADER}\nu\ti\t1\nu\xff\ti\t1\n".encode("latin1"))


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        ("", "header is missing"),
        ("user_id", "not name:type"),
        ("user_id:word", "types are token"),
        ("a:token\ta:token", "declared twice"),
        ("a:token\tb:token\ru\t1", "a carriage return"),
        ("a:token\tb\0:token", "a NUL"),
        ("a:token\tb\udcff:token", "not UTF-8"),
    ],
)
def test_a_wrong_header_is_named(tmp_path: Path, header: str, complaint: str) -> None:
    with pytest.raises(DataError, match=rf":1: .*{complaint}"):
        read(tmp_path / "x.inter", (header + "\n").encode(errors="surrogateescape"))


@pytest.mark.parametrize("end", ["", "\r"])
def test_a_header_without_end_is_named(tmp_path: Path, end: str) -> None:
    with pytest.raises(DataError, match=r":1: (the last line has no end|a carriage return)"):
        read(tmp_path / "x.inter", HEADER + end)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_mutated_file_either_loads_whole_or_names_a_line(tmp_path: Path, data: st.DataObject) -> None:
    rows = [f"u{k % 3}\ti{k}\t{k * 10}" for k in range(8)]
    content = "\n".join([HEADER, *rows]) + "\n"
    at = data.draw(st.integers(len(HEADER), len(content)))
    cut = data.draw(st.integers(0, 3))
    junk = data.draw(st.sampled_from(JUNK))
    mutated = content[:at] + junk + content[at + cut :]
    try:
        frame = read(tmp_path / "x.inter", mutated)
    except DataError as error:
        assert error.line is not None, str(error)
    else:
        lines = mutated.removesuffix("\n").split("\n")
        assert len(frame) == len(lines) - 1
        assert all(math.isfinite(time) for time in frame.timestamp)


@given(st.lists(st.one_of(st.none(), st.lists(st.sampled_from("abcd"), max_size=4)), min_size=1, max_size=8))
def test_sequences_split_as_text_splits(rows: list[list[str] | None]) -> None:
    texts = pd.Series(pd.Categorical([None if row is None else "  ".join(row) for row in rows]))
    tokens, numbers, lists = split_sequences(texts)
    for row, number in zip(rows, numbers):
        values = [] if number < 0 else lists.values[lists.starts[number] : lists.starts[number + 1]]
        assert [str(tokens[value]) for value in values] == (row or [])


@given(st.lists(st.lists(st.integers(1, 9), max_size=5), min_size=1, max_size=6), st.integers(1, 6), st.data())
def test_ragged_lists(rows: list[list[int]], width: int, data: st.DataObject) -> None:
    ragged = Ragged(np.array([v for row in rows for v in row], dtype=np.int32), np.cumsum([0, *map(len, rows)]))
    assert ragged.padded(width).tolist() == [(row + [0] * width)[:width] for row in rows]
    order = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=8))
    taken = ragged.take(np.array(order, dtype=np.int64)).truncated(width)
    got = [taken.values[a:b].tolist() for a, b in zip(taken.starts, taken.starts[1:])]
    assert got == [rows[k][:width] for k in order]


def test_a_missing_column_or_file_is_named(tmp_path: Path) -> None:
    base = write_toy(tmp_path)
    (base / "toy.search").write_text("user_id:token\tquery_id:token\n")
    with pytest.raises(DataError, match=r"toy\.search:1: column 'timestamp': the column is missing"):
        load_dataset(tmp_path, "toy")
    with pytest.raises(DataError, match=r"nowhere\.inter: file not found"):
        load_dataset(tmp_path, "nowhere")


def test_an_empty_search_file_is_no_search(tmp_path: Path) -> None:
    base = write_toy(tmp_path)
    (base / "toy.search").write_text("user_id:token\tquery_id:token\ttimestamp:float\tclicked_items:token_seq\n")
    dataset = load_dataset(tmp_path, "toy", require_both_histories=False)
    assert dataset.summary()["searches"] == 0
