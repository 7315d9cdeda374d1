"""Reading the mapping of ``recbole-ser convert table`` from YAML; unknown keys are errors."""

from __future__ import annotations

import difflib
import glob
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast, get_args

from recbole_ser.convert.raw_files import Files, Format
from recbole_ser.convert.table.spec import (
    Attribute,
    AttributeTable,
    AttributeType,
    ClickRows,
    InteractionLog,
    Keep,
    ListColumn,
    Query,
    SearchLog,
    TableSpec,
    TimeColumn,
    Unit,
)
from recbole_ser.errors import ConfigError, UserError
from recbole_ser.yaml_values import read_yaml

_ENDINGS: dict[str, Format] = {
    ".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl",
    ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
_COMPRESSED = (".gz", ".zst")
_OUTPUT_NAME = re.compile(r"\w+")
_NO_NAME = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_SHOWN = 60  # characters of a wrong value


def read_spec(path: str | Path) -> TableSpec:
    """Read the spec in a YAML file; the paths in it are relative to its folder.

    Raises:
        ConfigError: the file is not YAML, or a key in it is unknown, missing or wrong.
        UserError: a file that it names does not exist.
    """
    path = Path(path)
    values = read_yaml(path)
    try:
        return parse_spec(values, path.parent)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def parse_spec(values: Any, folder: str | Path = ".") -> TableSpec:
    """Read the spec in a mapping; relative paths start at ``folder``.

    Raises:
        ConfigError: a key is unknown, missing or wrong.
        UserError: a file that it names does not exist.
    """
    found = _Block(values, "the mapping")
    deduplicate = found.take("deduplicate", False)
    if not isinstance(deduplicate, bool):
        raise ConfigError(f"deduplicate: {_shown(deduplicate)} is neither true nor false")
    parsers = {"interactions": _interactions, "searches": _searches, "items": _attributes, "users": _attributes}
    blocks = {
        name: None if (block := found.take(name)) is None else parse(_Block(block, name), Path(folder))
        for name, parse in parsers.items()
    }
    found.finish()
    if blocks["interactions"] is None:
        raise ConfigError("interactions is missing: it names the files of the interaction log and their columns")
    return TableSpec(**cast(dict[str, Any], blocks), deduplicate=deduplicate)


class _Block:
    """A mapping whose keys are taken one by one; a key that is left at `finish` is an error."""

    def __init__(self, values: Any, name: str) -> None:
        if not isinstance(values, Mapping):
            raise ConfigError(f"{name}: {_shown(values)} is no mapping of keys to values")
        for key in values:
            if not isinstance(key, str):
                raise ConfigError(f"{name}: the key {_shown(key)} is not a text: put it in quotes")
        self.name, self._values, self._known = name, dict(values), set[str]()

    def take(self, key: str, default: Any = None) -> Any:
        self._known.add(key)
        value = self._values.get(key)
        return default if value is None else value

    def text(self, key: str) -> str | None:
        value = self.take(key)
        if value is not None and not isinstance(value, str):
            raise ConfigError(f"{self.name}.{key}: {_shown(value)} is not a text: put it in quotes")
        return value

    def column(self, key: str) -> str | None:
        value = self.text(key)
        return None if value is None else _name(value, f"{self.name}.{key}")

    def required(self, key: str) -> str:
        value = self.column(key)
        if value is None:
            raise ConfigError(f"{self.name}.{key} is missing")
        return value

    def separator(self) -> str | None:
        """What stands between the entries of a list that is written as text."""
        value = self.text("separator")
        if value is not None and (not value or "\0" in value or not _is_encodable(value)):
            raise ConfigError(
                f"{self.name}.separator: {_shown(value)} cannot separate entries: leave it out, or correct it"
            )
        return value

    def choice(self, key: str, choices: Sequence[str]) -> Any:
        value = self.text(key)
        if value is not None and value not in choices:
            raise ConfigError(f"{self.name}.{key}: {_shown(value)} is none of {', '.join(choices)}")
        return value

    def finish(self) -> None:
        for key in self._values:
            if key not in self._known:
                nearest = difflib.get_close_matches(key, self._known, n=1)
                hint = f"did you mean '{nearest[0]}'?" if nearest else f"there are {', '.join(sorted(self._known))}"
                raise ConfigError(f"{self.name}: there is no key {_shown(key)}: {hint}")


def _shown(value: Any) -> str:
    """A wrong value in a message: on one line, and shortened if it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a whole number of thousands of digits, or lists in lists in lists
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _name(value: str, where: str) -> str:
    """``value`` as the name of a column or a file."""
    if not value or _NO_NAME.search(value):
        raise ConfigError(f"{where}: {_shown(value)} is no name: it is empty, or holds control characters")
    return value


def _is_encodable(text: str) -> bool:
    """Whether UTF-8 has the text: YAML can write halves of characters."""
    return not re.search(r"[\ud800-\udfff]", text)


def _interactions(block: _Block, folder: Path) -> InteractionLog:
    user, item, time = block.required("user"), block.required("item"), _time(block)
    keep, position = _keep(block), block.column("position")
    return InteractionLog(_files(block, folder), user, item, time, keep, position)


def _searches(block: _Block, folder: Path) -> SearchLog:
    user, time, query = block.required("user"), _time(block), _query(block)
    clicks, source, keep = _clicks(block), block.column("source"), _keep(block)
    return SearchLog(_files(block, folder), user, time, query, clicks, source, keep)


def _attributes(block: _Block, folder: Path) -> AttributeTable:
    key, keep = block.required("item" if block.name == "items" else "user"), _keep(block)
    columns = block.take("columns")
    if not isinstance(columns, Mapping) or not columns:
        raise ConfigError(f"{block.name}.columns is missing: it maps columns to {', '.join(get_args(AttributeType))}")
    reserved = "item_id" if block.name == "items" else "user_id"
    names: set[str] = set()
    for name in columns:
        if not isinstance(name, str) or name == reserved or not _OUTPUT_NAME.fullmatch(name):
            raise ConfigError(
                f"{block.name}.columns: {_shown(name)} cannot name a column of an atomic file: write "
                f"another_name: {{column: {_shown(name)}, type: ...}}"
            )
        if name.casefold() in names:
            raise ConfigError(f"{block.name}.columns: {_shown(name)} is there twice, upper and lower case aside")
        names.add(name.casefold())
    parsed = {name: _attribute(name, value, f"{block.name}.columns") for name, value in columns.items()}
    return AttributeTable(_files(block, folder), key, parsed, keep)


def _attribute(name: str, value: Any, where: str) -> Attribute:
    block = _Block({"type": value} if isinstance(value, str) else value, f"{where}.{name}")
    kind = block.choice("type", get_args(AttributeType))
    column, separator = block.column("column") or name, block.separator()
    block.finish()
    if kind is None or (separator is not None and kind != "token_seq"):
        raise ConfigError(f"{block.name}: give its type, and a separator only to a token_seq")
    return Attribute(kind, column, separator)


def _query(block: _Block) -> Query:
    value = block.take("query")
    if isinstance(value, str):
        return Query(text=_name(value, f"{block.name}.query"))
    inner = _Block(value, f"{block.name}.query")
    query = Query(inner.column("id"), inner.column("text"), _list(inner, "terms"))
    inner.finish()
    if query == Query() or (query.text is not None and query.terms is not None):
        raise ConfigError(f"{inner.name}: name the column of an id, of text or of terms; not text and terms together")
    return query


def _clicks(block: _Block) -> ListColumn | ClickRows | None:
    value = block.take("clicks")
    if not isinstance(value, Mapping) or "item" not in value:
        return _list(block, "clicks")
    inner = _Block(value, f"{block.name}.clicks")
    rows = ClickRows(inner.required("item"), inner.column("search"), _keep(inner), inner.column("position"))
    inner.finish()
    return rows


def _list(block: _Block, key: str) -> ListColumn | None:
    value = block.take(key)
    if value is None or isinstance(value, str):
        return None if value is None else ListColumn(_name(value, f"{block.name}.{key}"))
    inner = _Block(value, f"{block.name}.{key}")
    column = ListColumn(inner.required("column"), inner.separator())
    inner.finish()
    return column


def _time(block: _Block) -> TimeColumn:
    value = block.take("time")
    if isinstance(value, str):
        return TimeColumn(_name(value, f"{block.name}.time"))
    inner = _Block({} if value is None else value, f"{block.name}.time")
    time = TimeColumn(inner.required("column"), inner.choice("unit", get_args(Unit)))
    inner.finish()
    return time


def _keep(block: _Block) -> Keep | None:
    value = block.take("keep")
    if value is None:
        return None
    inner = _Block(value, f"{block.name}.keep")
    column, values, minimum = inner.required("column"), inner.take("values"), inner.take("minimum")
    inner.finish()
    if (values is None) == (minimum is None):
        raise ConfigError(f"{inner.name}: give either values or minimum")
    if values is None:
        return Keep(column, minimum=_minimum(minimum, f"{inner.name}.minimum"))
    listed = values if isinstance(values, list) else [values]
    if not listed:
        raise ConfigError(f"{inner.name}.values is empty: no row would be kept")
    return Keep(column, tuple(text for value in listed for text in _spellings(value, f"{inner.name}.values")))


def _minimum(value: Any, where: str) -> float:
    if isinstance(value, bool) or not _is_finite(value):
        raise ConfigError(f"{where}: {_shown(value)} is not a number")
    return float(value)


def _spellings(value: Any, where: str) -> list[str]:
    """A value of YAML in the spellings that logs use; SQL, Python and R write truth values in three ways."""
    if isinstance(value, bool):
        return [str(value).lower(), str(value), str(value).upper()]
    if _is_finite(value) or (isinstance(value, str) and "\0" not in value and _is_encodable(value)):
        return [str(value)]
    raise ConfigError(f"{where}: {_shown(value)} is neither text nor a number nor true or false: put it in quotes")


def _is_finite(value: Any) -> bool:
    """Whether ``value`` is a number that a float can hold."""
    return isinstance(value, int | float) and abs(value) <= sys.float_info.max


def _files(block: _Block, folder: Path) -> Files:
    """The block's files; this is called last, because it checks that no key is left over."""
    patterns = block.take("files")
    names, quote = block.take("names"), block.text("quote")
    given, delimiter = block.choice("format", get_args(Format)), block.text("delimiter")
    block.finish()
    patterns = [patterns] if isinstance(patterns, str) else patterns
    if not isinstance(patterns, list) or not patterns or not all(isinstance(entry, str) for entry in patterns):
        raise ConfigError(f"{block.name}.files is missing: a path, a glob, or a list of them")
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise ConfigError(f"{block.name}.names: {_shown(names)} is no list of names")
    paths = tuple(sorted({path for pattern in patterns for path in _matches(folder, pattern, f"{block.name}.files")}))
    kind = given or _format(paths, block.name)
    delimiter = delimiter or {"tsv": "\t"}.get(kind, ",")
    quote = {"csv": '"'}.get(kind) if quote is None else quote or None
    for key, text in [("delimiter", delimiter), ("quote", quote)]:
        if text is not None and (len(text) != 1 or not text.isascii() or text in "\r\n"):
            raise ConfigError(f"{block.name}.{key}: {_shown(text)} is not one ASCII character")
    return Files(paths, kind, delimiter, quote, None if names is None else tuple(names))


def _matches(folder: Path, pattern: str, where: str) -> list[Path]:
    exact = folder / _name(pattern, where)
    try:
        found = [exact] if exact.is_file() else [Path(name) for name in glob.glob(str(exact), recursive=True)]
        files = [path for path in found if path.is_file()]
    except OSError as error:
        raise UserError(f"{where}: {_shown(pattern)}: {error.strerror}") from error
    if not files:
        hint = f"write {pattern.rstrip('/')}/*.parquet for the files in it" if exact.is_dir() else "check the path"
        raise UserError(f"{exact}: there is no such file ({hint})")
    return files


def _format(paths: Sequence[Path], where: str) -> Format:
    kinds = set()
    for path in paths:
        suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in _COMPRESSED]
        kinds.add(_ENDINGS.get(suffixes[-1] if suffixes else ""))
    if len(kinds) == 1 and None not in kinds:
        return cast(Format, kinds.pop())
    raise ConfigError(f"{where}: the file names do not tell one format: give format: {', '.join(get_args(Format))}")
