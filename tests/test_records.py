"""Our own JSON files are read back as written; one line names file, fault and remedy when they were not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_ser.errors import DataError
from recbole_ser.records import parse_json, read_record, read_records, read_sealed, write_sealed

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=8,
)  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(st.text().filter(lambda key: key != "checksum"), PLAIN, max_size=4))
def test_a_sealed_file_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any]) -> None:
    path = tmp_path_factory.getbasetemp() / "sealed.json"
    write_sealed(path, content)
    assert read_sealed(path, dict[str, Any], "") == content


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_a_changed_bit_is_refused_or_means_nothing(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "rotten.json"
    content = {"rate": 0.001, "name": "SESRec", "values": [1, 2, {"alpha": 1e-5}]}
    write_sealed(path, content)
    changed = bytearray(path.read_bytes())
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(changed)
    try:
        assert read_sealed(path, dict[str, Any], "start anew").items() >= content.items()
    except DataError as error:
        assert str(error).startswith(f"{path}: damaged") and "(start anew" in str(error)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "file not found"),
        ("", "damaged: Invalid JSON: EOF"),
        ("[", "damaged: Invalid JSON"),
        ("[" * 100_000, "damaged: Invalid JSON: recursion limit exceeded"),
        ("null", "damaged: Input should be"),
        ('{"a": "x"}', "damaged: a: Input should be a valid integer"),
        (b"\xff", "damaged: Invalid JSON"),
    ],
)
def test_fault_and_remedy_are_named(text: Any, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError) as error:
        read_record(path, dict[str, int], "copy it")
    assert str(error.value).startswith(f"{path}: {problem}") and str(error.value).endswith(" (copy it)")
    assert "\n" not in str(error.value)


def test_a_folder_in_place_of_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be read: Is a directory \(copy it\)"):
        read_record(tmp_path, dict[str, int], "copy it")


def test_of_lines_the_damaged_one_is_named_and_a_torn_one_dropped(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}\n{"a"')
    assert read_records(path, dict[str, int], "") == [{"a": 1}, {"a": 2}]
    path.write_text('{"a": 1}\n{"a": 2.5}\n')
    with pytest.raises(DataError, match=r"a\.jsonl:2: damaged: a: Input should be a valid integer \(train again\)"):
        read_records(path, dict[str, int], "train again")


def test_foreign_json_that_is_nested_too_deeply_is_no_json() -> None:
    assert parse_json(json.dumps([1, {"a": None}])) == [1, {"a": None}]
    for text in ("[" * 100_000, "{", "9" * 10_000):
        with pytest.raises(ValueError, match=r"nested too deeply|Expecting|Exceeds the limit"):
            parse_json(text)
