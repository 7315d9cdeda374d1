"""Reading the mapping of ``recbole-ser convert table`` from YAML; unknown keys are errors."""

from __future__ import annotations

import difflib
import glob
import re
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
        raise ConfigError(f"deduplicate: {deduplicate!r} is neither true nor false")
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
            raise ConfigError(f"{name}: {values!r} is no mapping of keys to values")
        self.name, self._values, self._known = name, {str(key): value for key, value in values.items()}, set[str]()

    def take(self, key: str, default: Any = None) -> Any:
        self._known.add(key)
        value = self._values.get(key)
        return default if value is None else value

    def text(self, key: str) -> str | None:
        value = self.take(key)
        if value is not None and not isinstance(value, str):
            raise ConfigError(f"{self.name}.{key}: {value!r} is not a text: put it in quotes")
        return value

    def required(self, key: str) -> str:
        value = self.text(key)
        if value is None:
            raise ConfigError(f"{self.name}.{key} is missing")
        return value

    def choice(self, key: str, choices: Sequence[str]) -> Any:
        value = self.text(key)
        if value is not None and value not in choices:
            raise ConfigError(f"{self.name}.{key}: '{value}' is none of {', '.join(choices)}")
        return value

    def finish(self) -> None:
        for key in self._values:
            if key not in self._known:
                nearest = difflib.get_close_matches(key, self._known, n=1)
                hint = f"did you mean '{nearest[0]}'?" if nearest else f"there are {', '.join(sorted(self._known))}"
                raise ConfigError(f"{self.name}: there is no key '{key}': {hint}")


def _interactions(block: _Block, folder: Path) -> InteractionLog:
    user, item, time = block.required("user"), block.required("item"), _time(block)
    keep, position = _keep(block), block.text("position")
    return InteractionLog(_files(block, folder), user, item, time, keep, position)


def _searches(block: _Block, folder: Path) -> SearchLog:
    user, time, query = block.required("user"), _time(block), _query(block)
    clicks, source, keep = _clicks(block), block.text("source"), _keep(block)
    return SearchLog(_files(block, folder), user, time, query, clicks, source, keep)


def _attributes(block: _Block, folder: Path) -> AttributeTable:
    key, keep = block.required("item" if block.name == "items" else "user"), _keep(block)
    columns = block.take("columns")
    if not isinstance(columns, Mapping) or not columns:
        raise ConfigError(f"{block.name}.columns is missing: it maps columns to {', '.join(get_args(AttributeType))}")
    reserved = "item_id" if block.name == "items" else "user_id"
    parsed = {str(name): _attribute(str(name), value, f"{block.name}.columns") for name, value in columns.items()}
    for name in parsed:
        if name == reserved or not _OUTPUT_NAME.fullmatch(name):
            raise ConfigError(
                f"{block.name}.columns: '{name}' cannot name a column of an atomic file: write "
                f"another_name: {{column: '{name}', type: ...}}"
            )
    return AttributeTable(_files(block, folder), key, parsed, keep)


def _attribute(name: str, value: Any, where: str) -> Attribute:
    block = _Block({"type": value} if isinstance(value, str) else value, f"{where}.{name}")
    kind = block.choice("type", get_args(AttributeType))
    column, separator = block.text("column") or name, block.text("separator")
    block.finish()
    if kind is None or (separator is not None and kind != "token_seq"):
        raise ConfigError(f"{block.name}: give its type, and a separator only to a token_seq")
    return Attribute(kind, column, separator)


def _query(block: _Block) -> Query:
    value = block.take("query")
    if isinstance(value, str):
        return Query(text=value)
    inner = _Block(value, f"{block.name}.query")
    query = Query(inner.text("id"), inner.text("text"), _list(inner, "terms"))
    inner.finish()
    if query == Query() or (query.text is not None and query.terms is not None):
        raise ConfigError(f"{inner.name}: name the column of an id, of text or of terms; not text and terms together")
    return query


def _clicks(block: _Block) -> ListColumn | ClickRows | None:
    value = block.take("clicks")
    if not isinstance(value, Mapping) or "item" not in value:
        return _list(block, "clicks")
    inner = _Block(value, f"{block.name}.clicks")
    rows = ClickRows(inner.required("item"), inner.text("search"), _keep(inner), inner.text("position"))
    inner.finish()
    return rows


def _list(block: _Block, key: str) -> ListColumn | None:
    value = block.take(key)
    if value is None or isinstance(value, str):
        return None if value is None else ListColumn(value)
    inner = _Block(value, f"{block.name}.{key}")
    column = ListColumn(inner.required("column"), inner.text("separator"))
    inner.finish()
    return column


def _time(block: _Block) -> TimeColumn:
    value = block.take("time")
    if isinstance(value, str):
        return TimeColumn(value)
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
    if minimum is not None and (isinstance(minimum, bool) or not isinstance(minimum, int | float)):
        raise ConfigError(f"{inner.name}.minimum: {minimum!r} is not a number")
    if values is None:
        return Keep(column, minimum=minimum)
    listed = values if isinstance(values, list) else [values]
    return Keep(column, tuple(text for value in listed for text in _spellings(value)))


def _spellings(value: Any) -> list[str]:
    """A value of YAML in the spellings that logs use; SQL, Python and R write truth values in three ways."""
    text = str(value)
    return [text.lower(), text, text.upper()] if isinstance(value, bool) else [text]


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
        raise ConfigError(f"{block.name}.names: {names!r} is no list of names")
    paths = tuple(sorted({path for pattern in patterns for path in _matches(folder, pattern)}))
    kind = given or _format(paths, block.name)
    delimiter = delimiter or {"tsv": "\t"}.get(kind, ",")
    quote = {"csv": '"'}.get(kind) if quote is None else quote or None
    for key, text in [("delimiter", delimiter), ("quote", quote)]:
        if text is not None and (len(text) != 1 or not text.isascii() or text in "\r\n"):
            raise ConfigError(f"{block.name}.{key}: {text!r} is not one ASCII character")
    return Files(paths, kind, delimiter, quote, None if names is None else tuple(names))


def _matches(folder: Path, pattern: str) -> list[Path]:
    exact = folder / pattern
    found = [exact] if exact.is_file() else [Path(name) for name in glob.glob(str(exact), recursive=True)]
    files = [path for path in found if path.is_file()]
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
