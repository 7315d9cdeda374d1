"""Reading atomic files: right ones exactly, wrong ones with the line that is wrong."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import load_dataset, write_toy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recbole_ser.data.atomic import Ragged, read_atomic, read_header, split_sequences
from recbole_ser.errors import DataError

HEADER = "user_id:token\titem_id:token\ttimestamp:float"


def read(path: Path, content: str | bytes) -> pd.DataFrame:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_atomic(path, read_header(path), required=["user_id", "item_id", "timestamp"])


def test_integers_stay_exact_and_fractions_are_float64(tmp_path: Path) -> None:
    frame = read(tmp_path / "x.inter", f"{HEADER}\nu\ti\t9007199254740993\nu\ti\t-5\n")
    assert frame.timestamp.tolist() == [9007199254740993, -5]
    frame = read(tmp_path / "x.inter", f"{HEADER}\nu\ti\t1.25\nu\ti\t1e3\n")
    assert frame.timestamp.tolist() == [1.25, 1000.0]


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
        ("u\ti", r":3: 2 columns where the header has 3"),
        ("u\ti\t1\t2", r":3: 4 columns where the header has 3"),
        ("u\ti\tsoon", r":3: column 'timestamp': 'soon' is not a number"),
        ("u\ti\t", r":3: column 'timestamp': the value is missing"),
        ("u\ti\tnan", r":3: column 'timestamp': the value is missing or not finite"),
        ("u\ti\tinf", r":3: column 'timestamp': the value is missing or not finite"),
        ("\ti\t1", r":3: column 'user_id': the value is missing"),
        ("", r":3: "),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, row: str, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        read(tmp_path / "x.inter", f"{HEADER}\nu\ti\t1\n{row}\nu\ti\t2\n")


def test_broken_utf8_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\.inter:3: not UTF-8"):
        read(tmp_path / "x.inter", f"{HEADER}\nu\ti\t1\nu\xff\ti\t1\n".encode("latin1"))


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        ("", "header is missing"),
        ("user_id", "not name:type"),
        ("user_id:word", "types are token"),
        ("a:token\ta:token", "declared twice"),
    ],
)
def test_a_wrong_header_is_named(tmp_path: Path, header: str, complaint: str) -> None:
    with pytest.raises(DataError, match=rf":1: .*{complaint}"):
        read(tmp_path / "x.inter", header + "\n")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_mutated_file_either_loads_whole_or_names_a_line(tmp_path: Path, data: st.DataObject) -> None:
    rows = [f"u{k % 3}\ti{k}\t{k * 10}" for k in range(8)]
    content = "\n".join([HEADER, *rows]) + "\n"
    at = data.draw(st.integers(len(HEADER), len(content)))
    cut = data.draw(st.integers(0, 3))
    junk = data.draw(st.sampled_from(["", "\t", "\n", "\r\n", '"', "\x00", " ", "é", "1e5", "nan", ":", "a\tb\tc\n"]))
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
