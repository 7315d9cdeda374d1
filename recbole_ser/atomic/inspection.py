"""Reading an atomic file block by block to find everything that is wrong with it.

A block whose lines are all right is parsed at once, any other block line by line.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv
from tqdm import tqdm

from recbole_ser.atomic.header import BLOCK, header_columns
from recbole_ser.atomic.numbers import are_exact_together, is_no_number, is_number, misread, parsed_numbers
from recbole_ser.atomic.ragged import Ragged
from recbole_ser.atomic.rules import Findings
from recbole_ser.atomic.schema import SEPARATOR, Column
from recbole_ser.atomic.sequences import split_lists, split_sequences

_MISSING = r"^[+-]?(?i:nan)$"


@dataclass(frozen=True)
class Tokens:
    """A column of tokens, or of lists of tokens: for each row the index of its text in ``texts``, -1 if empty."""

    codes: np.ndarray
    texts: np.ndarray

    def categorical(self) -> pd.Series:
        """The column in the form that ``read_atomic`` gives."""
        return pd.Series(pd.Categorical.from_codes(self.codes, pd.Index(self.texts, dtype=object)))


@dataclass(frozen=True)
class Table:
    """The part of one file that could be read.

    Args:
        file: name of the file.
        rows: number of rows that were read.
        tokens, numbers: the columns that were kept, by name.
        skipped: the numbers of the lines that are no rows, rising.
        header: all columns of the file.
    """

    file: str
    rows: int
    tokens: dict[str, Tokens]
    numbers: dict[str, np.ndarray]
    skipped: np.ndarray
    header: list[Column]

    @property
    def complete(self) -> bool:
        return not len(self.skipped)

    def lines(self, rows: np.ndarray) -> np.ndarray:
        """The 1-based line of each of ``rows``, which count from 0."""
        return _lines(rows, self.skipped)

    def report(self, rule: str, column: str | None, wrong: np.ndarray, findings: Findings) -> None:
        """Add a finding for each row that is ``wrong [rows]``, with the row's entry in ``column``."""
        rows = np.flatnonzero(wrong)
        entries = None if column is None else self.tokens[column]
        value = None if entries is None else lambda place: entries.texts[entries.codes[rows[place]]]
        findings.add_rows(rule, self.file, self.lines(rows), column, value)


def inspect_table(
    path: Path,
    columns: Collection[Column],
    required: Collection[str],
    findings: Findings,
    separator: str = SEPARATOR,
    check_header: Callable[[list[Column]], object] | None = None,
    vector_separator: str | None = None,
) -> Table | None:
    """Read ``path`` and find what is wrong with its bytes, its header, its rows and their numbers.

    Memory: 4 to 8 bytes for each row of a column that is kept, the distinct texts, and a block of 16 MiB.

    Args:
        columns: the columns that are kept, if the header has them.
        required: names of columns in which an empty entry, or NaN, is an error.
        findings: what is found is added to these.
        check_header: called with the columns of the header; no row is read if it adds an error to ``findings``.
        vector_separator: what stands between the numbers of the ``float_seq`` columns that are not kept, which are then
            checked as vectors: their numbers are finite, and all that are not empty have one length.

    Returns:
        The columns that are kept; ``None`` if the header is wrong: no row is read then.  Nothing is read beyond a line
        that does not end within two blocks.
    """
    with path.open("rb") as handle:
        line = handle.readline(BLOCK)
        header = header_columns(line, path.name, findings, separator)
        before = findings.count("error")
        if header is not None and check_header is not None:
            check_header(header)
        if header is None or findings.count("error") > before:
            return None
        reader = _Reader(path.name, header, columns, required, findings, separator, vector_separator)
        reader.check_ends(line, 1, 1)
        size = path.stat().st_size
        with tqdm(total=size, desc=f"Reading {path.name}", unit="B", unit_scale=True, disable=None) as bar:
            bar.update(len(line))
            while block := handle.read(BLOCK):
                rest = b"" if block.endswith(b"\n") else handle.readline(BLOCK)
                if len(rest) == BLOCK and not rest.endswith(b"\n"):
                    reader.skip("long-line", reader.next_line + block.count(b"\n"))
                    break
                reader.read(block + rest)
                bar.update(len(block) + len(rest))
    return reader.table()


def inspect_number_lists(
    table: Table, name: str, findings: Findings, separator: str = " "
) -> tuple[np.ndarray, Ragged]:
    """Find the entries of column ``name``, a ``float_seq``, that hold anything but finite numbers that are exact.

    Returns:
        For each row the index of its list, -1 where it is missing, and the distinct lists, as indices of tokens.
    """
    tokens, rows, lists = split_sequences(table.tokens[name].categorical(), separator)
    texts = pa.array(tokens, pa.string())
    rules = _wrong_numbers(texts)
    right = pa.array(~rules["not-a-number"] & ~rules["not-finite"])
    texts = pa.chunked_array([pc.if_else(right, texts, pa.scalar(None, pa.string()))])
    rules["inexact-time"] = misread(texts, parsed_numbers(texts))
    for rule, wrong in rules.items():
        table.report(rule, name, lists.contain(wrong)[rows], findings)
    return rows, lists


def _wrong_numbers(texts: pa.Array) -> dict[str, np.ndarray]:
    """Which of ``texts`` are no finite numbers, by the rule that they break."""
    numbers, named = is_number(texts), is_no_number(texts).to_numpy(False)
    values = pc.cast(pc.if_else(numbers, texts, pa.scalar(None, pa.string())), pa.float64()).to_numpy(False)
    return {"not-a-number": ~numbers.to_numpy(False) & ~named, "not-finite": named | np.isinf(values)}


class _Reader:
    """Reads one file from its blocks, which consist of whole lines and come in order."""

    def __init__(
        self,
        file: str,
        header: list[Column],
        columns: Collection[Column],
        required: Collection[str],
        findings: Findings,
        separator: str,
        vector_separator: str | None,
    ) -> None:
        self.file, self.header, self.required, self.findings = file, header, required, findings
        self.separator, self.vector_separator = separator, vector_separator
        self.numeric = [column for column in header if column.type == "float"]
        kept = {column.name for column in columns}
        self.textual = [c for c in header if c.name in kept and c.type != "float"]
        self.vectors = [
            c for c in header if vector_separator is not None and c.name not in kept and c.type == "float_seq"
        ]
        self.lengths: dict[str, int] = {}  # of the vectors of each column, by the first of them
        kinds = {c.name: pa.string() for c in [*self.numeric, *self.vectors]}
        kinds |= {c.name: pa.dictionary(pa.int32(), pa.string()) for c in self.textual}
        self.convert = csv.ConvertOptions(
            column_types=kinds, include_columns=list(kinds), null_values=[""], strings_can_be_null=True
        )
        self.rows, self.next_line = 0, 2
        self.windows = False
        self.inexact: set[str] = set()  # columns with a finding
        self.skipped: list[int] = []
        self.texts: dict[str, list[pa.Array]] = {column.name: [] for column in self.textual}
        self.numbers: dict[str, list[np.ndarray]] = {c.name: [] for c in self.numeric if c.name in kept}

    def read(self, block: bytes) -> None:
        """Find what is wrong with ``block``, and keep its columns."""
        lines = block.count(b"\n") + (not block.endswith(b"\n"))
        self.check_ends(block, self.next_line, lines)
        try:
            table = self._parsed(block) if _looks_right(block) else None
        except pa.ArrowInvalid:  # a row has another number of columns than the header
            table = None
        if table is None and (rows := self._right_lines(block)):
            table = self._parsed(rows)
        self.next_line += lines
        if table is not None:
            self._keep(table)

    def table(self) -> Table:
        for name in self.required & self.numbers.keys():
            blocks = self.numbers[name]
            if name not in self.inexact and not are_exact_together(*blocks):  # each block is exact by itself
                place = next(place for place, block in enumerate(blocks) if block.dtype.kind == "f")
                row = np.array([sum(map(len, blocks[:place]))])
                line = int(_lines(row, np.array(self.skipped, dtype=np.int64))[0])
                self.findings.add("inexact-time", self.file, line, name)
        empty = pa.array([], pa.dictionary(pa.int32(), pa.string()))
        return Table(
            self.file,
            self.rows,
            {name: _unified(chunks or [empty]) for name, chunks in self.texts.items()},
            {name: np.concatenate(chunks or [np.zeros(0, np.int64)]) for name, chunks in self.numbers.items()},
            np.array(self.skipped, dtype=np.int64),
            self.header,
        )

    def _parsed(self, block: bytes) -> pa.Table:
        return csv.read_csv(
            pa.BufferReader(block),
            read_options=csv.ReadOptions(
                column_names=[c.name for c in self.header], block_size=len(block) + 1, use_threads=False
            ),
            parse_options=csv.ParseOptions(
                delimiter=self.separator, quote_char=False, newlines_in_values=False, ignore_empty_lines=False
            ),
            convert_options=self.convert,
        )

    def check_ends(self, block: bytes, first: int, lines: int) -> None:
        """Find line ends that are not ``\n`` in the ``lines`` from ``first`` on; those of Windows are reported once."""
        if not block.endswith(b"\n"):
            self.findings.add("cut-off", self.file, first + lines - 1)
        if not self.windows and (place := block.find(b"\r\n")) >= 0:
            self.windows = True
            self.findings.add("windows-line-ends", self.file, first + block.count(b"\n", 0, place))

    def skip(self, rule: str, line: int, value: str | None = None) -> None:
        """Add a finding for a line that is no row, and skip it."""
        self.findings.add(rule, self.file, line, value=value)
        self.skipped.append(line)

    def _right_lines(self, block: bytes) -> bytes:
        """The lines of ``block`` that are rows; the others are skipped, with a finding for each."""
        kept = []
        for number, line in enumerate(block.removesuffix(b"\n").split(b"\n"), start=self.next_line):
            line = line.removesuffix(b"\r")
            if b"\0" in line:
                self.findings.add("nul", self.file, number)
            fault = self._fault(line)
            if fault is None:
                kept.append(line)
            else:
                self.skip(fault[0], number, fault[1])
        return b"".join(line + b"\n" for line in kept)

    def _fault(self, line: bytes) -> tuple[str, str | None] | None:
        """The rule that ``line`` breaks and the value that breaks it; ``None`` if the line is a row."""
        if len(line) >= BLOCK:
            return "long-line", None
        if b"\r" in line:
            return "carriage-return", line.decode(errors="backslashreplace")
        try:
            line.decode()
        except UnicodeDecodeError as error:
            return "broken-utf8", line[error.start : error.start + 8].decode(errors="backslashreplace")
        if not line:
            return "blank-line", None
        width = line.count(self.separator.encode()) + 1
        return None if width == len(self.header) else ("row-width", f"{width} columns, not {len(self.header)}")

    def _keep(self, table: pa.Table) -> None:
        skipped = np.array(self.skipped, dtype=np.int64)
        lines = _lines(np.arange(self.rows, self.rows + table.num_rows), skipped)
        for column in self.textual:
            chunk = _one(table.column(column.name))
            if column.name in self.required and chunk.null_count:
                self.findings.add_rows("empty-entry", self.file, lines[chunk.is_null().to_numpy(False)], column.name)
            self.texts[column.name].append(chunk)
        for column in self.numeric:
            values = self._values(_one(table.column(column.name)), column.name, lines)
            if column.name in self.numbers:
                self.numbers[column.name].append(values)
        for column in self.vectors:
            self._check_vectors(_one(table.column(column.name)), column.name, lines)
        self.rows += table.num_rows

    def _check_vectors(self, texts: pa.Array, column: str, lines: np.ndarray) -> None:
        numbers, starts = split_lists(texts, self.vector_separator or " ")
        lengths = np.diff(starts)
        for rule, wrong in _wrong_numbers(numbers).items():
            places = np.flatnonzero(wrong)
            rows, first = np.unique(np.searchsorted(starts, places, side="right") - 1, return_index=True)
            self.findings.add_rows(rule, self.file, lines[rows], column, numbers.take(places[first]).__getitem__)
        if lengths.any():
            length = self.lengths.setdefault(column, int(lengths[lengths > 0][0]))
            rows = np.flatnonzero((lengths > 0) & (lengths != length))
            self.findings.add_rows(
                "vector-length", self.file, lines[rows], column, lambda k: f"{lengths[rows[k]]}, not {length}"
            )

    def _values(self, texts: pa.Array, column: str, lines: np.ndarray) -> np.ndarray:
        """The numbers in ``texts``: int64 if all are whole, else float64, with NaN for texts that are no numbers."""
        required = column in self.required
        if required and texts.null_count:
            self.findings.add_rows("empty-entry", self.file, lines[texts.is_null().to_numpy(False)], column)
        if not pc.all(pc.ascii_is_decimal(texts)).as_py():
            texts = self._readable(texts, column, lines, required)
        values = parsed_numbers(pa.chunked_array([texts]))
        self._report("not-finite", texts, np.isinf(values), column, lines)
        if required:
            wrong = misread(pa.chunked_array([texts]), values)
            self._report("inexact-time", texts, wrong, column, lines)
            self.inexact |= {column} if wrong.any() else set()
        return values

    def _readable(self, texts: pa.Array, column: str, lines: np.ndarray, required: bool) -> pa.Array:
        """``texts`` with null for what is no number; a NaN counts as empty where an entry may be empty."""
        known = pc.fill_null(is_number(texts), True)
        named = is_no_number(texts)
        wrong = pc.and_not(pc.invert(known), pc.fill_null(named, False))
        self._report("not-a-number", texts, wrong.to_numpy(False), column, lines)
        infinite = named if required else pc.and_not(named, pc.match_substring_regex(texts, _MISSING))
        self._report("not-finite", texts, pc.fill_null(infinite, False).to_numpy(False), column, lines)
        return pc.if_else(known, texts, pa.scalar(None, pa.string()))

    def _report(self, rule: str, texts: pa.Array, wrong: np.ndarray, column: str, lines: np.ndarray) -> None:
        rows = np.flatnonzero(wrong)
        self.findings.add_rows(rule, self.file, lines[rows], column, lambda place: texts[int(rows[place])])


def _looks_right(block: bytes) -> bool:
    """Whether the lines of ``block`` are rows, as far as one can tell without splitting them."""
    if b"\0" in block or block.startswith((b"\n", b"\r\n")) or b"\n\n" in block or b"\n\r\n" in block:
        return False
    if block.count(b"\r") != block.count(b"\r\n"):
        return False
    if len(block) - block.rfind(b"\n", 0, -1) > BLOCK:  # only the last line can be that long
        return False
    try:
        block.decode()
    except UnicodeDecodeError:
        return False
    return True


def _one(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


def _unified(chunks: list[pa.Array]) -> Tokens:
    """Join the chunks of a column under one numbering of their texts."""
    column = pa.chunked_array(chunks).unify_dictionaries()
    codes = [chunk.indices.fill_null(-1).to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return Tokens(np.concatenate(codes), column.chunk(0).dictionary.to_numpy(zero_copy_only=False))


def _lines(rows: np.ndarray, skipped: np.ndarray) -> np.ndarray:
    """The lines of ``rows``: row 0 is on line 2 if nothing is skipped, and no row is on one of the lines ``skipped``.

    The skipped line k (from 0) has ``skipped[k] - 2 - k`` rows before it, so it is before row r if that is at most r.
    """
    before = np.searchsorted(skipped - np.arange(len(skipped)), rows + 2, side="right")
    return rows + 2 + before
