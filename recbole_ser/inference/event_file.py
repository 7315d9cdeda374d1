"""Reading a file of events, clicks and searches side by side, and checking its texts and numbers."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from recbole_ser.atomic.numbers import is_number, misread, parsed_numbers
from recbole_ser.atomic.ragged import Ragged
from recbole_ser.errors import DataError, one_line
from recbole_ser.records import parse_json

EVENT = "event"  # the column that says what a row is
CLICK, SEARCH = "click", "search"
_NO_TEXT = re.compile("[\0\ud800-\udfff]")  # what a file of results cannot hold
_FLOATS = (float, np.floating)
_INFINITE = (float("inf"), float("-inf"))
_ID_RULE = "ids and words are texts without NUL and lone surrogates, or numbers"


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
            raise DataError(path, "there are two columns of this name", column=one_line(str(name)))

    def need(self, name: str) -> None:
        if name not in self.frame:
            found = one_line(", ".join(map(str, self.frame)))
            raise DataError(self.path, "the column is missing", column=name, hint=f"the columns are {found or 'none'}")

    def refuse(self, name: str, wrong: np.ndarray, rule: str) -> None:
        """Raise for the first row where ``wrong [rows]`` is true."""
        if wrong.any():
            row = int(wrong.argmax())
            value = self.frame[name].iloc[row] if name in self.frame else None
            problem = "the value is missing" if _is_missing(value) else f"'{one_line(str(value), 80)}' cannot be read"
            raise DataError(self.path, problem, line=int(self.frame.index[row]), column=name, hint=rule)

    def text(self, name: str) -> np.ndarray:
        if name not in self.frame:
            return np.full(len(self.frame), "", dtype=object)
        self.refuse(name, np.array([not _is_text(value) for value in self.frame[name]], dtype=bool), _ID_RULE)
        return np.array([_as_text(value) for value in self.frame[name]], dtype=object)

    def numbers(self, name: str) -> np.ndarray:
        """The numbers of a column, int64 if all are whole, else float64; they are exact."""
        rule = "times are numbers, in the unit of the data"
        self.refuse(name, np.array([not _is_text(value) for value in self.frame[name]], dtype=bool), rule)
        values = self.frame[name].astype(object)
        texts = pa.array(["" if _is_missing(value) else str(value).strip() for value in values], pa.string())
        self.refuse(name, ~is_number(texts).to_numpy(False), rule)
        written = pa.chunked_array([texts])
        times = parsed_numbers(written)
        rounded = np.array([isinstance(value, float) and abs(value) >= 2**53 for value in values], dtype=bool)
        rule = "so long a time is exact only if all are whole numbers below 2**63, without a decimal point"
        self.refuse(name, misread(written, times) | rounded | ~np.isfinite(times), rule)
        return times

    def lists(self, name: str) -> Ragged:
        values: list[Any] = self.frame[name].tolist() if name in self.frame else [None] * len(self.frame)
        wrong = [not all(map(_is_text, value if _is_list(value) else [value])) for value in values]
        self.refuse(name, np.array(wrong, dtype=bool), _ID_RULE)
        lists = [self._entries(value) for value in values]
        starts = np.concatenate([[0], np.cumsum([len(entries) for entries in lists], dtype=np.int64)])
        return Ragged(np.array([entry for entries in lists for entry in entries], dtype=object), starts)

    def _entries(self, value: Any) -> list[str]:
        if _is_list(value):
            return [_as_text(entry) for entry in value if not _is_missing(entry)]
        return [] if _is_missing(value) else [entry for entry in _as_text(value).split(self.separator) if entry]


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple, np.ndarray))


def _is_missing(value: Any) -> bool:
    if isinstance(value, str):
        return not value
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, _FLOATS) and value != value)


def _as_text(value: Any) -> str:
    """``value`` as an id; whole numbers that became floats beside missing ones are whole numbers again."""
    if _is_missing(value):
        return ""
    return str(int(value)) if isinstance(value, _FLOATS) and float(value).is_integer() else str(value)


def _is_text(value: Any) -> bool:
    """Whether ``value`` can be an id or a word, or is missing."""
    if isinstance(value, str):
        return not _NO_TEXT.search(value)
    no_text = isinstance(value, (bool, np.bool_, Mapping)) or _is_list(value)
    return _is_missing(value) or not (no_text or value in _INFINITE)


def _read(path: Path) -> pd.DataFrame:
    readers = {".csv": _read_csv, ".jsonl": _read_json_lines}
    if path.suffix not in readers:
        raise DataError(path, f"events come in files that end in {' or '.join(readers)}")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(path, "file not found") from None
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror}") from error
    try:
        text = content.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(path, f"not UTF-8: {error.reason}", line=line, hint="save the file as UTF-8") from error
    return readers[path.suffix](path, text)


def _read_csv(path: Path, text: str) -> pd.DataFrame:
    if (place := text.find("\0")) >= 0:  # pandas would end the entry there
        raise DataError(path, "not CSV: a NUL", line=text.count("\n", 0, place) + 1)
    options: dict[str, Any] = {"dtype": str, "keep_default_na": False}
    try:  # with header=0 pandas would take the first entry of a row that is too long for the row's name
        lines = pd.read_csv(io.StringIO(text), header=None, skip_blank_lines=False, **options).fillna("")
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(path, f"not CSV: {one_line(str(error))}") from error
    lines.index = _first_lines(lines)
    frame = lines.iloc[1:].set_axis(lines.iloc[0].tolist(), axis=1)
    return frame[(frame != "").any(axis=1)]


def _first_lines(rows: pd.DataFrame) -> np.ndarray:
    """The number of the line on which each row begins, as quoted entries may hold line ends."""
    ends = np.array([sum(entry.count("\n") for entry in row) for row in rows.itertuples(index=False)], dtype=np.int64)
    return np.arange(1, len(rows) + 1) + np.cumsum(ends) - ends


def _read_json_lines(path: Path, text: str) -> pd.DataFrame:
    records = {}
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        if line.strip():
            records[number] = _record(path, number, line)
    return pd.DataFrame(list(records.values()), index=list(records), dtype=object)


def _record(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        record = parse_json(line, _without_repeats)
    except ValueError as error:
        raise DataError(path, f"not JSON: {error}", line=number) from error
    if not isinstance(record, dict):
        raise DataError(path, "not a JSON object", line=number, hint='write lines like {"user_id": "u1", ...}')
    return record


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        raise ValueError("a key stands in it twice")
    return record
