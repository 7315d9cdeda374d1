"""Whatever is done to the bytes of a data set: the loader's counts are the validator's, or a line is named."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from conftest import load_dataset, write_lines, write_toy
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from recbole_ser.data.instances import targets_by_split
from recbole_ser.data.timed_dataset import TimedDataset
from recbole_ser.errors import UserError
from recbole_ser.validation.report import Report, validate

SUFFIXES = ("inter", "search", "query", "item", "user")
EVERYTHING: dict[str, Any] = {"load_col": None, "filter_inter_by_user_or_item": False}
JUNK = [
    b"\t", b"\n", b"\r", b"\r\n", b"\n\n", b" ", b"  ", b"\0", b"\xff", b"\xed\xa0\x80", b'"', b":", b"\xef\xbb\xbf",
    b"nan", b"inf", b"1e400", b"-", b"+1", b".5", b"0x1F", b"1_0", b"9" * 30, "é".encode(), "٣".encode(), b"[PAD]",
    b"\x0b", b"\x85", b":token", b":float", b":token_seq", b":float_seq", b"timestamp", b"user_id", b"query_id",
    b"clicked_items", b"click_times",
]  # fmt: skip
ENCODINGS = ["utf-16", "utf-16-le", "utf-8-sig", "latin-1", "utf-32"]

Mutation = tuple[str, int, int, bytes, str]

mutations = st.tuples(
    st.sampled_from(
        ["insert", "delete", "overwrite", "truncate", "double", "drop", "swap", "retype", "encode", "crlf"]
    ),
    st.integers(0, 10_000),
    st.integers(0, 10_000),
    st.sampled_from(JUNK),
    st.sampled_from(ENCODINGS),
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = write_toy(tmp_path_factory.mktemp("mutated"))
    header, *rows = (base / "toy.search").read_text().splitlines()
    timed = ["\t".join([row, *[" ".join(f"{20 + n}" for n in range(len(row.split("\t")[3].split())))]]) for row in rows]
    write_lines(base / "toy.search", header + "\tclick_times:float_seq", *timed)
    write_lines(
        base / "toy.item", "item_id:token\tcategory:token_seq\tprice:float", "i1\tc1 c2\t1.5", "i2\t\t", "x\tc1\t2"
    )
    write_lines(base / "toy.user", "user_id:token\tage:token", "a\told", "b\t", "z\tyoung")
    return base


def mutated(content: bytes, mutation: Mutation) -> bytes:
    kind, first, second, junk, encoding = mutation
    lines = content.splitlines(keepends=True) or [b""]
    at, line, other = first % (len(content) + 1), first % len(lines), second % len(lines)
    if kind == "insert":
        return content[:at] + junk + content[at:]
    if kind == "delete":
        return content[:at] + content[at + 1 + second % 12 :]
    if kind == "overwrite":
        return content[:at] + junk + content[at + len(junk) :]
    if kind == "truncate":
        return content[:at]
    if kind == "double":
        return b"".join([*lines[:other], lines[line], *lines[other:]])
    if kind == "drop":
        return b"".join(lines[:line] + lines[line + 1 :])
    if kind == "crlf":
        return content.replace(b"\n", b"\r\n")
    if kind == "encode":
        return content.decode("utf-8", "replace").encode(encoding, "replace")
    return swapped(lines, line, first, second, junk) if kind == "swap" else retyped(content, second, junk)


def swapped(lines: list[bytes], line: int, first: int, second: int, junk: bytes) -> bytes:
    """Two entries change places: in one line, or in all."""
    rows = [row.rstrip(b"\n").split(b"\t") for row in lines]
    for row in [rows[line]] if junk < b"a" else rows:
        i, j = first % len(row), second % len(row)
        row[i], row[j] = row[j], row[i]
    return b"".join(b"\t".join(row) + b"\n" for row in rows)


def retyped(content: bytes, second: int, junk: bytes) -> bytes:
    """Another type, or another name, in the header."""
    header, newline, rest = content.partition(b"\n")
    labels = header.split(b"\t")
    name, _, kind = labels[second % len(labels)].partition(b":")
    labels[second % len(labels)] = name + junk if junk.startswith(b":") else junk + b":" + kind
    return b"\t".join(labels) + newline + rest


@pytest.mark.slow
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.sampled_from(SUFFIXES), mutations), min_size=1, max_size=3))
@example(changes=[("inter", ("insert", 60, 0, b"\r", ""))])
@example(changes=[("search", ("truncate", 10_000, 0, b"", ""))])
@example(changes=[("query", ("retype", 0, 1, b"user_id", ""))])
@example(changes=[("search", ("retype", 0, 3, b"clicks", ""))])
@example(changes=[("search", ("retype", 0, 4, b":token_seq", ""))])
@example(changes=[("search", ("insert", 100, 0, b" ", ""))])
def test_counts_agree_or_a_line_is_named(base: Path, tmp_path: Path, changes: list[tuple[str, Mutation]]) -> None:
    folder = tmp_path / "toy"
    folder.mkdir(exist_ok=True)
    contents = {suffix: (base / f"toy.{suffix}").read_bytes() for suffix in SUFFIXES}
    for suffix, mutation in changes:
        contents[suffix] = mutated(contents[suffix], mutation)
    for suffix, content in contents.items():
        (folder / f"toy.{suffix}").write_bytes(content)
    check(validate(folder), tmp_path)


def check(report: Report, data_path: Path) -> None:
    errors = report.first("error")
    assert report.clean() == (not errors) == (report.counts is not None)
    if errors:
        assert all(finding.line is not None for finding in errors)
        with suppress(UserError):  # the loader may take what it is not to take, but never fails otherwise
            load_dataset(data_path, "toy", require_both_histories=False, **EVERYTHING)
        return
    assert report.counts is not None and report.targets is not None
    loaded = TimedDataset(load_dataset(data_path, "toy", require_both_histories=False).config)
    numbers = report.targets["LS"]
    assert numbers is not None
    assert {**report.counts, **numbers["all_interactions"]} == {
        **loaded.summary(),
        "test_users": len(loaded.split.test),
    }
    assert report.targets == targets_by_split(loaded.log, loaded.log.users.numpy(), loaded.item_times)
    if "column-not-loadable" not in report.findings.counts:
        load_dataset(data_path, "toy", require_both_histories=False, **EVERYTHING)


@pytest.mark.parametrize("missing", ["search", "query", "item", "user"])
def test_counts_agree_without_a_file(base: Path, tmp_path: Path, missing: str) -> None:
    (tmp_path / "toy").mkdir()
    for suffix in set(SUFFIXES) - {missing}:
        (tmp_path / "toy" / f"toy.{suffix}").write_bytes((base / f"toy.{suffix}").read_bytes())
    report = validate(tmp_path / "toy")
    assert report.counts is not None
    check(report, tmp_path)
