"""Reading CSV, TSV and JSON lines as Arrow batches with the line number of every row.

A block of whole lines is parsed at once; if one of its rows is wrong, or spans several lines, the block is parsed
again row by row.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
from tqdm import tqdm

from recbole_ser.convert.raw_files import Files
from recbole_ser.errors import DataError, UserError

FILE, LINE, FAULT, TEXT = "_file", "_line", "_fault", "_text"
ROW = "_row"
NOT_UTF8 = "the row is not UTF-8"
RAGGED = "the row has not as many columns as the header"
UNREADABLE = "the row cannot be taken apart"
UNCLOSED = "a quote is opened and never closed"

_BLOCK = 1 << 23
_LONGEST_ROW = 1 << 24
_EXCERPT = 80
_MAGIC = {".gz": b"\x1f\x8b", ".zst": b"\x28\xb5\x2f\xfd"}
_BOM = b"\xef\xbb\xbf"


def csv_header(files: Files, path: Path) -> list[str]:
    """The names of the columns of a CSV or TSV file.

    Raises:
        DataError: there is no header, or it is not UTF-8.
        UserError: the file cannot be read.
    """
    if files.names is not None:
        return list(files.names)
    with _opened(path) as (handle, _):
        first = handle.readline(_LONGEST_ROW).removeprefix(_BOM).rstrip(b"\r\n")
    try:
        names: list[str] = next(_reader([first.decode()], files), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(path, f"the header cannot be read: {error}", line=1, hint="save the file as UTF-8") from error
    if not any(names):
        raise DataError(path, "the header is missing", line=1, hint="name the columns in the mapping: names: [...]")
    return names


def csv_batches(files: Files, path: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a CSV or TSV file: `LINE`, `FAULT`, `TEXT` and ``columns``, all as text.

    A row that cannot be read has the reason in `FAULT`, the beginning of its text in `TEXT`, and no values.

    Raises:
        DataError: the file is damaged.
        UserError: the file cannot be read.
    """
    header = csv_header(files, path)
    places = [header.index(name) for name in columns]
    for line, block in _blocks(path, files.quote):
        if line == 1 and files.names is None:
            block, line = block.partition(b"\n")[2], 2
        arrays = _parsed_at_once(block, len(header), places, files)
        if arrays is None:
            yield _parsed_by_row(block, len(header), dict(zip(columns, places)), files, line)
        elif len(arrays[0]):
            yield _batch(range(line, line + len(arrays[0])), dict(zip(columns, arrays)))


def json_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """Yield the lines of a file of JSON lines: `LINE`, `FAULT`, `TEXT` and the line itself as `ROW`.

    Raises:
        DataError: the file is damaged.
        UserError: the file cannot be read.
    """
    for line, block in _blocks(path, None):
        lines = block.decode("utf-8", "surrogateescape").removesuffix("\n").split("\n")
        numbers = range(line, line + len(lines))
        if block.isascii() or _is_utf8(lines):
            yield _batch(numbers, {ROW: pa.array(lines, pa.string())})
            continue
        wrong = [not _is_utf8([text]) for text in lines]
        faults = {number: (NOT_UTF8, text) for number, text, is_wrong in zip(numbers, lines, wrong) if is_wrong}
        values = pa.array([None if is_wrong else text for text, is_wrong in zip(lines, wrong)], pa.string())
        yield _batch(numbers, {ROW: values}, faults)


def _parsed_at_once(block: bytes, width: int, places: Sequence[int], files: Files) -> list[pa.Array] | None:
    """The columns at ``places`` of ``width``; ``None`` if a row is wrong or lines and rows do not correspond."""
    names = [str(n) for n in range(width)]
    wanted = [names[place] for place in places]
    if not block:
        return [pa.array([], pa.string()) for _ in wanted]
    if block.count(b"\r") != block.count(b"\r\n"):
        return None
    try:
        table = pa_csv.read_csv(
            pa.BufferReader(block),
            read_options=pa_csv.ReadOptions(column_names=names, use_threads=False, block_size=len(block)),
            parse_options=pa_csv.ParseOptions(
                delimiter=files.delimiter,
                quote_char=files.quote or False,
                newlines_in_values=files.quote is not None,
                ignore_empty_lines=False,
            ),
            convert_options=pa_csv.ConvertOptions(
                include_columns=wanted, column_types=dict.fromkeys(wanted, pa.string()), strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid:
        return None
    if table.num_rows != block.count(b"\n") + (not block.endswith(b"\n")):
        return None
    return [column.combine_chunks() for column in table.columns]


def _parsed_by_row(block: bytes, width: int, places: dict[str, int], files: Files, line: int) -> pa.RecordBatch:
    """The rows of a block, right and wrong, with the line at which each begins.

    A quote that is never closed takes all lines that follow into its row.  So a row of several lines that reaches the
    end of the block with an odd number of quotes is wrong, and these lines are lost with it.
    """
    lines = block.decode("utf-8", "surrogateescape").split("\n")
    lines = [f"{text}\n" for text in lines[:-1]] + lines[-1:] * bool(lines[-1])
    reader = _reader(lines, files)
    numbers: list[int] = []
    faults: dict[int, tuple[str, str]] = {}
    rows: list[list[str] | list[None]] = []
    while (start := reader.line_num) < len(lines):
        fault = None
        try:
            row = next(reader) or [""] * width
        except csv.Error:
            fault, row = UNREADABLE, []
        if files.quote and reader.line_num == len(lines) > start + 1 and "".join(lines[start:]).count(files.quote) % 2:
            fault = UNCLOSED
        elif fault is None and len(row) != width:
            fault = RAGGED
        values = [] if fault else [row[place] for place in places.values()]
        if fault is None and not _is_utf8(values):
            fault = NOT_UTF8
        numbers.append(line + start)
        rows.append(list(values) if fault is None else [None] * len(places))
        if fault is not None:
            faults[line + start] = (fault, lines[start].rstrip("\r\n"))
    columns = zip(*rows)
    return _batch(numbers, {name: pa.array(column, pa.string()) for name, column in zip(places, columns)}, faults)


def _batch(
    lines: Sequence[int],
    columns: dict[str, pa.Array],
    faults: dict[int, tuple[str, str]] | None = None,
) -> pa.RecordBatch:
    """A batch of rows that begin at ``lines``; ``faults`` has the reason and the text of wrong rows by line."""
    nothing = pa.nulls(len(lines), pa.string())
    fault, text = nothing, nothing
    if faults:
        entries = [faults.get(line, (None, None)) for line in lines]
        fault = pa.array([reason for reason, _ in entries], pa.string())
        text = pa.array([None if raw is None else _printable(raw[:_EXCERPT]) for _, raw in entries], pa.string())
    meta = {LINE: pa.array(np.asarray(lines, np.int64)), FAULT: fault, TEXT: text}
    return pa.RecordBatch.from_pydict({**meta, **columns})


def _reader(lines: Iterable[str], files: Files) -> Any:
    csv.field_size_limit(_LONGEST_ROW)
    if files.quote is None:
        return csv.reader(lines, delimiter=files.delimiter, quoting=csv.QUOTE_NONE)
    return csv.reader(lines, delimiter=files.delimiter, quotechar=files.quote)


def _blocks(path: Path, quote: str | None) -> Iterator[tuple[int, bytes]]:
    """Yield (number of the first line, bytes) of blocks that end with a line and, if possible, not inside quotes."""
    line, pending = 1, b""
    mark = None if quote is None else quote.encode()
    with (
        tqdm(total=path.stat().st_size, desc=f"Reading {path.name}", unit="B", unit_scale=True, disable=None) as bar,
        _opened(path) as (handle, place),
    ):
        while data := handle.read(_BLOCK):
            pending += data
            if line == 1:
                pending = pending.removeprefix(_BOM)
            end = _end_of_rows(pending, mark)
            if not end and len(pending) > _LONGEST_ROW and not (end := pending.rfind(b"\n") + 1):
                raise DataError(path, "the line is longer than 16 MiB", line=line)
            if end:
                yield line, pending[:end]
                line += pending.count(b"\n", 0, end)
                pending = pending[end:]
            bar.update(place() - bar.n)
        if pending:
            yield line, pending


def _end_of_rows(pending: bytes, mark: bytes | None) -> int:
    """Where the last complete row ends: behind a line end with an even number of quotes before it; 0: nowhere.

    From the last line end the search goes back line by line, and each line with an odd number of quotes changes
    whether the place is inside quotes.
    """
    end = pending.rfind(b"\n") + 1
    within = mark is not None and pending.count(mark, 0, end) % 2
    while end and within:
        before = pending.rfind(b"\n", 0, end - 1) + 1
        within = within != pending.count(mark, before, end) % 2 if mark is not None else 0
        end = before
    return end


@contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[bytes], Callable[[], int]]]:
    """The decompressed bytes of a file, and a function that says how many bytes of the file itself were read."""
    try:
        with path.open("rb") as raw:
            start = raw.peek(4)[:4]
            kind = next((suffix for suffix, magic in _MAGIC.items() if start.startswith(magic)), None)
            if path.suffix in _MAGIC and kind != path.suffix:
                raise DataError(path, f"not a {path.suffix} file", line=1, hint="get it again, or rename it")
            handle: Any = raw
            if kind == ".gz":
                handle = gzip.GzipFile(fileobj=raw)
            elif kind == ".zst":
                handle = io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd"))
            yield handle, raw.tell
    except (EOFError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from error
        hint = "the transfer was cut off or the file is damaged: get it again"
        raise DataError(path, f"damaged compressed file: {error}", hint=hint) from error


def _is_utf8(values: Iterable[str]) -> bool:
    """Whether texts that were decoded with surrogates in place of wrong bytes have no such surrogates."""
    try:
        "".join(values).encode()
    except UnicodeEncodeError:
        return False
    return True


def _printable(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
