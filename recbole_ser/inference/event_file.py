"""Reading a file of events, clicks and searches side by side, and checking its texts and numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from recbole_ser.atomic.numbers import is_number, misread, parsed_numbers
from recbole_ser.atomic.ragged import Ragged
from recbole_ser.errors import DataError

EVENT = "event"  # the column that says what a row is
CLICK, SEARCH = "click", "search"


@dataclass(frozen=True)
class RawEvents:
    """Events as they came, one entry per row, with ids still as text.

    Args:
        users, items, queries, sources: raw ids; '' where there is none.
        is_search: whether a row is a search; otherwise it is a click.
        times: int64 or float64.
        terms, clicks: the words of each search and the raw ids of the items that were clicked under it.
    """

    users: np.ndarray
    is_search: np.ndarray
    times: np.ndarray
    items: np.ndarray
    queries: np.ndarray
    sources: np.ndarray
    terms: Ragged
    clicks: Ragged


def read_event_file(source: str | Path | pd.DataFrame, columns: Mapping[str, str], separator: str = " ") -> RawEvents:
    """Read events from a file, CSV (``.csv``) or JSON lines (``.jsonl``), or from a frame.

    Args:
        columns: the name of the column for each of ``users``, ``times``, ``items``, ``queries``, ``sources``,
            ``terms`` and ``clicks``; the columns of users and times, and ``event``, must be there.
        separator: what stands between the entries of a list that comes as text.

    Raises:
        DataError: a file cannot be read, a column is missing, or a row lacks an entry that it needs.
    """
    if isinstance(source, pd.DataFrame):
        frame, path = source.set_axis(range(1, len(source) + 1)), "events"
    else:
        frame, path = _read(Path(source)), str(source)
    rows = _Rows(frame, path, separator)
    for name in (columns["users"], EVENT, columns["times"]):
        rows.need(name)
    kinds = rows.text(EVENT)
    rows.refuse(EVENT, ~np.isin(kinds, (CLICK, SEARCH)), f"write {CLICK} or {SEARCH}")
    is_search = kinds == SEARCH
    events = RawEvents(
        users=rows.text(columns["users"]),
        is_search=is_search,
        times=rows.numbers(columns["times"]),
        terms=rows.lists(columns["terms"]),
        clicks=rows.lists(columns["clicks"]),
        **{name: rows.text(columns[name]) for name in ("items", "queries", "sources")},
    )
    rows.refuse(columns["users"], events.users == "", "every event has a user")
    rows.refuse(columns["items"], ~is_search & (events.items == ""), "every click has an item")
    nothing = (events.queries == "") & (np.diff(events.terms.starts) == 0)
    rows.refuse(columns["queries"], is_search & nothing, f"every search has a query, or '{columns['terms']}'")
    return events


class _Rows:
    """Reads the columns of a frame whose index is the line number; errors name the column and the line."""

    def __init__(self, frame: pd.DataFrame, path: str, separator: str) -> None:
        self.frame, self.path, self.separator = frame, path, separator
        for name in frame.columns[frame.columns.duplicated()]:
            raise DataError(path, "there are two columns of this name", column=name)

    def need(self, name: str) -> None:
        if name not in self.frame:
            found = ", ".join(map(str, self.frame))
            raise DataError(self.path, "the column is missing", column=name, hint=f"the columns are {found or 'none'}")

    def refuse(self, name: str, wrong: np.ndarray, rule: str) -> None:
        """Raise for the first row where ``wrong [rows]`` is true."""
        if wrong.any():
            row = int(wrong.argmax())
            value = self.frame[name].iloc[row] if name in self.frame else None
            problem = "the value is missing" if _is_missing(value) else f"'{value}' cannot be read"
            raise DataError(self.path, problem, line=int(self.frame.index[row]), column=name, hint=rule)

    def text(self, name: str) -> np.ndarray:
        if name not in self.frame:
            return np.full(len(self.frame), "", dtype=object)
        values = self.frame[name].convert_dtypes()  # integers that became floats beside missing ones are integers again
        return np.array(["" if missing else str(v) for v, missing in zip(values, values.isna())], dtype=object)

    def numbers(self, name: str) -> np.ndarray:
        """The numbers of a column, int64 if all are whole, else float64; they are exact."""
        values = self.frame[name].astype(object)
        texts = pa.array(["" if _is_missing(value) else str(value).strip() for value in values], pa.string())
        self.refuse(name, ~is_number(texts).to_numpy(False), "times are numbers, in the unit of the data")
        written = pa.chunked_array([texts])
        times = parsed_numbers(written)
        rounded = np.array([isinstance(value, float) and abs(value) >= 2**53 for value in values], dtype=bool)
        rule = "so long a time is exact only if all are whole numbers below 2**63, without a decimal point"
        self.refuse(name, misread(written, times) | rounded | ~np.isfinite(times), rule)
        return times

    def lists(self, name: str) -> Ragged:
        values = self.frame[name] if name in self.frame else [None] * len(self.frame)
        lists = [self._entries(value) for value in values]
        starts = np.concatenate([[0], np.cumsum([len(entries) for entries in lists], dtype=np.int64)])
        return Ragged(np.array([entry for entries in lists for entry in entries], dtype=object), starts)

    def _entries(self, value: Any) -> list[str]:
        if isinstance(value, (list, tuple, np.ndarray)):
            return [str(entry) for entry in value]
        return [] if _is_missing(value) else [entry for entry in str(value).split(self.separator) if entry]


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or value == "" or (isinstance(value, float) and value != value)


def _read(path: Path) -> pd.DataFrame:
    readers = {".csv": _read_csv, ".jsonl": _read_json_lines}
    if path.suffix not in readers:
        raise DataError(path, f"events come in files that end in {' or '.join(readers)}")
    try:
        return readers[path.suffix](path)
    except FileNotFoundError:
        raise DataError(path, "file not found") from None
    except UnicodeDecodeError as error:
        raise DataError(path, f"not UTF-8: {error.reason}", hint="save the file as UTF-8") from error


def _read_csv(path: Path) -> pd.DataFrame:
    options: dict[str, Any] = {"dtype": str, "keep_default_na": False, "encoding": "utf-8-sig"}
    try:  # with header=0 pandas would take the first entry of a row that is too long for the row's name
        lines = pd.read_csv(path, header=None, skip_blank_lines=False, **options).fillna("")
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(path, f"not CSV: {' '.join(str(error).split())}") from error
    lines.index += 1
    frame = lines.iloc[1:].set_axis(lines.iloc[0].tolist(), axis=1)
    return frame[(frame != "").any(axis=1)]


def _read_json_lines(path: Path) -> pd.DataFrame:
    records = {}
    with path.open(encoding="utf-8-sig") as handle:
        for number, line in enumerate(handle, start=1):
            if line.strip():
                records[number] = _record(path, number, line)
    return pd.DataFrame(list(records.values()), index=list(records), dtype=object)


def _record(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise DataError(path, f"not JSON: {error}", line=number) from error
    if not isinstance(record, dict):
        raise DataError(path, "not a JSON object", line=number, hint='write lines like {"user_id": "u1", ...}')
    return record
