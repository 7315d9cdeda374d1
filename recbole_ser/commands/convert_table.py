"""``recbole-ser convert table``."""

from __future__ import annotations

from typing import Any, get_args

import click

from recbole_ser.commands.arguments import Command
from recbole_ser.commands.conversion import conversion_settings
from recbole_ser.convert.settings import Settings, report
from recbole_ser.convert.table.convert import EngineName
from recbole_ser.errors import ConfigError

_MAPPING = """\
the mapping, with every key there is (all but interactions, and of that files, user, item and time, may be left out):

  interactions:
    files: logs/clicks-*.parquet        # or a list; .gz and .zst are fine; relative to this file
    user: uid
    item: vid
    time: {column: ts, unit: ms}        # s, ms, us, ns or iso; just 'ts': inferred from the values, and printed
    keep: {column: rating, minimum: 4}  # or values: [click, like]
    position: row                       # numbers that order interactions of one user and time; else items do
  searches:
    files: logs/search.csv.gz
    format: csv                         # csv, tsv, jsonl or parquet, if the name does not tell
    delimiter: ';'                      # of csv; also quote: '"' ('' for none), names: [a, b] without a header line
    user: uid
    time: searched_at
    query: {id: qid, text: keyword}     # or one of them; or terms: {column: words, separator: ' '}
    clicks: {column: clicked, separator: ','}    # of real lists just the name; json: text like [1, 2]
    # or a row per shown item:  clicks: {item: vid, search: session, keep: {...}, position: rank}
    source: entry
    keep: {column: action, values: [search]}
  items:                                # and users, with user: in place of item:
    files: items.jsonl
    item: vid
    columns: {category: token, title: token_seq, tags: {type: token_seq, separator: '|'}, price: float}
  deduplicate: true                     # of rows that are equal in all that is read, keep one
"""

_NEEDS = dict.fromkeys(("query", "query_id", "clicks", "search_id", "source"), "searches") | {"separator": "clicks"}


class _Table(Command):
    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write("\n" + _MAPPING)


@click.command(cls=_Table, short_help="any log in CSV, TSV, JSON lines or Parquet")
@click.option("--spec", metavar="FILE", help="YAML file with the mapping (below); or give the options:")
@click.option("--interactions", multiple=True, metavar="FILE ...", help="files or globs of the interaction log")
@click.option("--searches", multiple=True, metavar="FILE ...", help="files or globs of the search log")
@click.option(
    "--user",
    metavar="COLUMN",
    help="column of user ids; this and the following columns have the same names in both logs",
)
@click.option(
    "--item",
    metavar="COLUMN",
    help="column of item ids; with --search-id also that of the clicked item in the search log",
)
@click.option("--time", metavar="COLUMN", help="column of times")
@click.option("--query", metavar="COLUMN", help="column of the text of queries")
@click.option("--query-id", metavar="COLUMN", help="column of query ids")
@click.option("--clicks", metavar="COLUMN", help="column of lists of clicked items")
@click.option("--search-id", metavar="COLUMN", help="column of search ids, where every click has a row of its own")
@click.option("--source", metavar="COLUMN", help="column that says where a search was made")
@click.option("--unit", help="unit of times: s, ms, us, ns or iso (default: inferred from the values)")
@click.option("--separator", help="separator of clicked items in text; json: the text is like [1, 2]")
@click.option("--keep", metavar="COLUMN=V,V or COLUMN>=N", help="keep only the interactions with these values")
@click.option(
    "--engine",
    type=click.Choice(get_args(EngineName)),
    default="duckdb",
    show_default=True,
    help="what does the work; spark needs Java 17 and the extra spark",
)
@click.option("--master", metavar="URL", help="where Spark runs (default: local[*], on all cores of this machine)")
@click.option("--print-sql", is_flag=True, help="print the SQL of the conversion, and the report to standard error")
@conversion_settings
def command(
    out: str,
    settings: Settings,
    spec: str | None,
    engine: EngineName,
    master: str | None,
    print_sql: bool,
    **options: Any,
) -> None:
    """Convert any interaction and search log in CSV, TSV, JSON lines or Parquet.

    A small YAML file says what the columns mean; options do in the simple case.  The work is SQL, run by DuckDB in
    bounded memory, or by Apache Spark, which writes the same files.  --memory is then for the process of Spark that
    is started here; on a cluster all machines need the files under the same paths, and this package in their Python.

    \b
      recbole-ser convert table --spec shop.yaml --out dataset_atomic/shop
    """
    from recbole_ser.convert.table import convert_table, parse_spec, read_spec

    given = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in options.items()
        if value not in (None, ())  # an empty text is a mistake, and refused as such
    }
    if spec is not None and given:
        raise ConfigError(f"--{next(iter(given)).replace('_', '-')} belongs into the file of --spec, or leave that out")
    mapping = parse_spec(_from_options(given)) if spec is None else read_spec(spec)
    statements: list[str] = []
    manifest = convert_table(mapping, out, settings, statements, engine, master)
    if print_sql:
        print("".join(f"{statement};\n" for statement in statements), end="")
    click.echo(report(manifest), err=print_sql)  # so that standard output is SQL and nothing else


def _from_options(given: dict[str, Any]) -> dict[str, Any]:
    """The options in the form of the mapping that a YAML file would hold."""
    if "interactions" not in given:
        raise ConfigError("give --spec FILE, or --interactions FILE --user COLUMN --item COLUMN --time COLUMN")
    for name, needed in _NEEDS.items():
        if name in given and needed not in given:
            raise ConfigError(f"--{name.replace('_', '-')} has no effect without --{needed}: give that as well")
    if "clicks" in given and "search_id" in given:
        raise ConfigError("--clicks and --search-id exclude each other: clicks are lists, or have rows of their own")
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
