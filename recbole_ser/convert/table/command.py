"""``recbole-ser convert table``: interaction and search logs in CSV, TSV, JSON lines or Parquet to atomic files.

A small YAML file says what the columns mean; flags do for the simple case.  The work is SQL, run by DuckDB in bounded
memory; ``--print-sql`` shows it.
"""

from __future__ import annotations

import argparse
from typing import Any

from recbole_ser.convert.settings import add_settings, report, settings_of
from recbole_ser.convert.table import convert_table, parse_spec, read_spec
from recbole_ser.errors import ConfigError

_EPILOG = """\
the mapping, with every key there is (all but interactions, and of that files, user, item and time, may be left out):

  interactions:
    files: logs/clicks-*.parquet        # or a list; .gz and .zst are fine; relative to this file
    user: uid
    item: vid
    time: {column: ts, unit: ms}        # s, ms, us, ns or iso; just 'ts': told from the values, and said
    keep: {column: rating, minimum: 4}  # or values: [click, like]
    position: row                       # numbers that order interactions of one user and time; else items do
  searches:
    files: logs/search.csv.gz
    format: csv                         # csv, tsv, jsonl or parquet, if the name does not tell
    delimiter: ';'                      # of csv; also quote: '"' ('' for none), names: [a, b] without a header line
    user: uid
    time: searched_at
    query: {id: qid, text: keyword}     # or one of them; or terms: {column: words, separator: ' '}
    clicks: {column: clicked, separator: ','}    # of lists just the column; separator: json for text like [1, 2]
    # or a row per shown item:  clicks: {item: vid, search: session, keep: {...}, position: rank}
    source: entry
    keep: {column: action, values: [search]}
  items:                                # and users, with user: in place of item:
    files: items.jsonl
    item: vid
    columns: {category: token, title: token_seq, tags: {type: token_seq, separator: '|'}, price: float}
  deduplicate: true                     # of rows that are equal in all that is read, keep one
"""


_FLAGS = (
    "interactions", "searches", "user", "item", "time", "query", "query_id", "clicks", "search_id", "source",
    "unit", "separator", "keep",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``recbole-ser convert table``."""
    parser.epilog = _EPILOG
    parser.add_argument("--spec", metavar="FILE", help="YAML file with the mapping (below); or give the flags:")
    simple = parser.add_argument_group("flags for the simple case, with the same column names in both logs")
    simple.add_argument("--interactions", nargs="+", metavar="FILE", help="files or globs of the interaction log")
    simple.add_argument("--searches", nargs="+", metavar="FILE", help="files or globs of the search log")
    for flag, text in [
        ("user", "of users"),
        ("item", "of items; with --search-id also of the clicked item in the search log"),
        ("time", "of times"),
        ("query", "of the text of queries"),
        ("query-id", "of the ids of queries"),
        ("clicks", "of lists of clicked items"),
        ("search-id", "of searches, where every click has a row"),
        ("source", "of where the search was made"),
    ]:
        simple.add_argument(f"--{flag}", metavar="COLUMN", help=f"column {text}")
    simple.add_argument("--unit", help="of the times: s, ms, us, ns or iso (default: told from the values)")
    simple.add_argument("--separator", help="between clicked items in text; json: text like [1, 2]")
    simple.add_argument("--keep", metavar="COLUMN=V,V or COLUMN>=N", help="interactions to keep")
    add_settings(parser)
    parser.add_argument("--print-sql", action="store_true", help="print the SQL of the conversion as well")


def run(arguments: argparse.Namespace) -> int:
    """Convert, and print what became of the rows and how the times were read."""
    given = {flag: value for flag in _FLAGS if (value := getattr(arguments, flag)) is not None}
    if arguments.spec is not None and given:
        raise ConfigError(f"--{next(iter(given)).replace('_', '-')} belongs into the file of --spec, or leave that out")
    spec = parse_spec(_from_flags(given)) if arguments.spec is None else read_spec(arguments.spec)
    statements: list[str] = []
    manifest = convert_table(spec, arguments.out, settings_of(arguments), statements)
    if arguments.print_sql:
        print("".join(f"{statement};\n" for statement in statements))
    print(report(manifest))
    return 0


def _from_flags(given: dict[str, Any]) -> dict[str, Any]:
    """The flags as the mapping that a YAML file would hold."""
    if "interactions" not in given:
        raise ConfigError("give --spec FILE, or --interactions FILE --user COLUMN --item COLUMN --time COLUMN")
    shared = {key: given[key] for key in ("user", "time") if key in given}
    if "unit" in given:
        shared["time"] = {"column": given.get("time"), "unit": given["unit"]}
    mapping: dict[str, Any] = {"interactions": {"files": given["interactions"], "item": given.get("item"), **shared}}
    if "keep" in given:
        mapping["interactions"]["keep"] = _keep(given["keep"])
    if "searches" in given:
        clicks: Any = (
            {"column": given.get("clicks"), "separator": given.get("separator")} if "clicks" in given else None
        )
        if "search_id" in given:
            clicks = {"item": given.get("item"), "search": given["search_id"]}
        query = {"id": given.get("query_id"), "text": given.get("query")}
        mapping["searches"] = {"files": given["searches"], **shared, "query": query, "clicks": clicks}
        mapping["searches"]["source"] = given.get("source")
    return mapping


def _keep(text: str) -> dict[str, Any]:
    column, sign, value = text.partition(">=")
    if not sign:
        column, sign, value = text.partition("=")
        if sign:
            return {"column": column, "values": value.split(",")}
    try:
        return {"column": column, "minimum": float(value)}
    except ValueError:
        raise ConfigError(f"--keep {text}: write COLUMN=VALUE,VALUE or COLUMN>=NUMBER") from None
