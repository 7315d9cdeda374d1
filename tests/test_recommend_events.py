"""Events that come with a request: what a file may look like, what is wrong with it, and when now is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import write_lines

from recbole_ser.atomic.ragged import Ragged
from recbole_ser.data.histories import Searches
from recbole_ser.errors import DataError
from recbole_ser.inference.event_file import RawEvents, read_event_file
from recbole_ser.inference.user_events import Events, latest_histories

COLUMNS = {"users": "user_id", "times": "timestamp", "items": "item_id", "queries": "query_id", "sources": "source",
           "terms": "terms", "clicks": "clicked_items"}  # fmt: skip


def plain(raw: RawEvents) -> dict[str, list[Any]]:
    lists = {"terms": raw.terms, "clicks": raw.clicks}
    columns = {name: values.tolist() for name, values in vars(raw).items() if name not in lists}
    return {**columns, **{name: [part.values.tolist(), part.starts.tolist()] for name, part in lists.items()}}


def test_events_mean_the_same_in_every_form(tmp_path: Path) -> None:
    rows = [("u1", "click", 5, "i1", None, None, None), ("2", "search", 7, None, "q1", "red  hat", "i2 i1"),
            ("u1", "search", 6, None, None, None, None)]  # fmt: skip
    frame = pd.DataFrame(
        rows, columns=["user_id", "event", "timestamp", "item_id", "query_id", "terms", "clicked_items"]
    )
    frame.loc[2, "terms"] = "blue"
    frame.to_csv(tmp_path / "a.csv", index=False)
    lists = frame.assign(terms=[None, ["red", "hat"], ("blue",)], clicked_items=[None, np.array(["i2", "i1"]), []])
    lists.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    expected = {
        "users": ["u1", "2", "u1"], "is_search": [False, True, True], "times": [5, 7, 6], "items": ["i1", "", ""],
        "queries": ["", "q1", ""], "sources": ["", "", ""], "terms": [["red", "hat", "blue"], [0, 0, 2, 3]],
        "clicks": [["i2", "i1"], [0, 0, 2, 2]],
    }  # fmt: skip
    for source in (frame, lists, tmp_path / "a.csv", str(tmp_path / "a.jsonl")):
        assert plain(read_event_file(source, COLUMNS)) == expected
    dates = frame.assign(timestamp=pd.to_datetime("2020-01-01"))
    with pytest.raises(DataError, match="events:1: column 'timestamp': '2020-01-01 00:00:00' cannot be read"):
        read_event_file(dates, COLUMNS)


NS = 1_640_000_000_000_000_000


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ([str(NS + 1), "1.64e18", f"{NS + 2}.0"], [NS + 1, NS, NS + 2]),
        ([NS + 1, NS + 2], [NS + 1, NS + 2]),
        ([2**63 - 1, 5], [2**63 - 1, 5]),
        ([1.5, 2**53 + 2], [1.5, 2**53 + 2]),
        ([1700000000.1234567, 1700000000], [1700000000.1234567, 1700000000]),
    ],
)
def test_times_are_exact(written: list[Any], read: list[Any]) -> None:
    frame = pd.DataFrame(
        {"user_id": "u", "event": "click", "item_id": "i", "timestamp": pd.Series(written, dtype=object)}
    )
    assert read_event_file(frame, COLUMNS).times.tolist() == read


@pytest.mark.parametrize("wrong", [f"{NS}.5", "1700000000.123456789", float(NS), 2**63, "9" * 30])
def test_times_that_are_not_exact_are_named(wrong: Any) -> None:
    rows = {"user_id": "u", "event": "click", "item_id": "i", "timestamp": pd.Series([5, wrong], dtype=object)}
    with pytest.raises(DataError, match=r"events:2: column 'timestamp': .*so long a time is exact only if"):
        read_event_file(pd.DataFrame(rows), COLUMNS)


def test_ids_that_are_numbers_are_ids() -> None:
    """Rows of searches have no item, which turns a column of numbers into floats."""
    rows = [(7, "click", 12, None, 5), (7, "search", None, 3, 6)]
    frame = pd.DataFrame(rows, columns=["u", "event", "i", "q", "t"])
    raw = read_event_file(frame, dict(zip(COLUMNS, "utiqswc")))
    assert (raw.users.tolist(), raw.items.tolist(), raw.queries.tolist()) == (["7", "7"], ["12", ""], ["", "3"])
    assert raw.times.dtype == np.int64 and raw.is_search.tolist() == [False, True]


CLICK = '{"user_id": "u1", "event": "click", "item_id": "i1", "timestamp": 5}'


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("a.csv", ["user_id,event,item_id", "u1,click,i1"], "column 'timestamp': the column is missing"),
        (
            "a.csv",
            ["user_id,event,item_id,timestamp", "", "u1,view,i1,5"],
            "a.csv:3: column 'event': 'view' cannot be read",
        ),
        ("a.csv", ["user_id,event,item_id,timestamp", "u1,click,i1,5", "u1,click,,5"], "a.csv:3: column 'item_id'"),
        (
            "a.csv",
            ["user_id,event,item_id,timestamp", ",click,i1,5"],
            "a.csv:2: column 'user_id': the value is missing",
        ),
        ("a.csv", ["user_id,event,item_id,timestamp", "u1,click,i1,inf"], "a.csv:2: column 'timestamp': 'inf'"),
        ("a.csv", ["user_id,event,timestamp", "u1,search,5"], "a.csv:2: column 'query_id'"),
        ("a.csv", ["user_id,event,item_id,timestamp", "u1,click,i1,5,6"], "a.csv: not CSV"),
        ("a.csv", [], "a.csv: not CSV"),
        ("a.csv", ["event,user_id,user_id"], "column 'user_id': there are two columns of this name"),
        ("a.jsonl", ['{"user_id": "u1"}', "", "{"], "a.jsonl:3: not JSON"),
        ("a.jsonl", ["[1]"], "a.jsonl:1: not a JSON object"),
        ("a.jsonl", ["", "[" * 100_000], "a.jsonl:2: not JSON: nested too deeply"),
        ("a.jsonl", ["1" * 5000], "a.jsonl:1: not JSON"),
        ("a.jsonl", ['{"user_id": "a", "user_id": "b"}'], "a.jsonl:1: not JSON: a key stands in it twice"),
        ("a.jsonl", [CLICK.replace('"i1"', '"\\ud800"')], "a.jsonl:1: column 'item_id': '' cannot be read"),
        ("a.jsonl", [CLICK.replace('"i1"', '"i\\u0000"')], "a.jsonl:1: column 'item_id'"),
        ("a.jsonl", [CLICK, CLICK.replace('"i1"', "Infinity")], "a.jsonl:2: column 'item_id': 'inf'"),
        ("a.jsonl", [CLICK.replace('"i1"', "NaN")], "a.jsonl:1: column 'item_id': the value is missing"),
        ("a.jsonl", [CLICK.replace('"i1"', '{"id": 1}')], "a.jsonl:1: column 'item_id'"),
        ("a.jsonl", [CLICK.replace('"u1"', "true")], "a.jsonl:1: column 'user_id'"),
        ("a.jsonl", [CLICK.replace("5", '"\\ud800"')], "a.jsonl:1: column 'timestamp'"),
        ("a.jsonl", [CLICK.replace("5", "1" + "0" * 400)], "a.jsonl:1: column 'timestamp'"),
        ("a.jsonl", [CLICK.replace("}", ', "terms": [["a"]]}')], "a.jsonl:1: column 'terms'"),
        ("a.jsonl", [CLICK.replace("}", ', "clicked_items": {"a": 1}}')], "a.jsonl:1: column 'clicked_items'"),
        ("a.csv", ["user_id,event,item_id,timestamp", "u1,click,i\0,5"], "a.csv:2: not CSV: a NUL"),
        ("a.csv", ["user_id,event,item_id,timestamp", '"u\n1",click,i1,5', "u1,click,,5"], "a.csv:4: column 'item_id'"),
        ("a.jsonl", ['{"user_id": "u1", "event": "click", "item_id": 1, "timestamp": "2020-01-01"}'], "a.jsonl:1: "),
    ],
)
def test_wrong_events_are_named_by_line(tmp_path: Path, name: str, lines: list[str], message: str) -> None:
    write_lines(tmp_path / name, *lines)
    with pytest.raises(DataError) as error:
        read_event_file(tmp_path / name, COLUMNS)
    assert message in str(error.value)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_file_that_is_none_is_one_line(tmp_path: Path, suffix: str) -> None:
    folder, broken, empty = (tmp_path / f"{name}{suffix}" for name in ("folder", "broken", "empty"))
    folder.mkdir()
    broken.write_bytes(b"user_id\n\xff\xfe\n")
    empty.write_bytes(b"")
    none, below = tmp_path / f"none{suffix}", broken / f"x{suffix}"
    for path, words in ((folder, "Is a directory"), (broken, ":2: not UTF-8"), (none, "not found"),
                        (empty, "not CSV: |the column is missing"), (below, "Not a directory")):  # fmt: skip
        with pytest.raises(DataError, match=words) as caught:
            read_event_file(path, COLUMNS)
        assert str(caught.value).startswith(str(path)) and str(caught.value).isprintable()


def test_missing_ids_and_numbers_in_json(tmp_path: Path) -> None:
    """NaN is how pandas writes what is missing; a number beyond 64 bits is an id like any other."""
    big = 10**30
    write_lines(
        tmp_path / "a.jsonl", CLICK.replace('"u1"', str(big)),
        '{"user_id": 7.0, "event": "search", "item_id": NaN, "query_id": 1.5, "terms": [null, 2.0, "x"], '
        '"timestamp": 6}',
    )  # fmt: skip
    raw = read_event_file(tmp_path / "a.jsonl", COLUMNS)
    assert (raw.users.tolist(), raw.items.tolist(), raw.queries.tolist()) == ([str(big), "7"], ["i1", ""], ["", "1.5"])
    assert raw.terms.values.tolist() == ["2", "x"]


@pytest.mark.parametrize("late", [1.7e18, 2**63 - 1, 1_700_000_000_000_000_001])
def test_now_is_after_the_last_event_and_in_its_session(late: float) -> None:
    """Also at times that single steps of a float cannot tell apart."""
    clicks = Ragged(np.array([3]), np.array([0, 1, 1]))
    times, search_times = np.array([late, 0]), np.array([late, 5])
    searches = Searches(np.array([0, 1]), search_times, np.array([2, 1]), np.array([1, 1]), clicks)
    events = Events(np.array([0, 0]), times, np.array([9, 8]), searches)
    config = {"session_gap": 1000, "MAX_ITEM_LIST_LENGTH": 3, "max_search_length": 2, "max_clicks_per_search": 1,
              "ITEM_ID_FIELD": "item_id", "LIST_SUFFIX": "_list", "ITEM_LIST_LENGTH_FIELD": "item_length"}  # fmt: skip
    found = latest_histories(events, 3, config)
    assert found["item_id_list"].tolist() == [[8, 9, 0], [0, 0, 0], [0, 0, 0]]
    assert found["search_query_list"].tolist() == [[2, 0], [1, 0], [0, 0]]
    assert found["search_click_list"].tolist() == [[[3], [0]], [[0], [0]], [[0], [0]]]
    assert found["search_place_list"].tolist() == [[1, 0], [0, 0], [0, 0]]
    assert found["item_session_list"].tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert found["search_session_list"].tolist() == [[0, 0], [0, 0], [0, 0]]
