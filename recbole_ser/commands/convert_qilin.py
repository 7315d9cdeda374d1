"""``recbole-ser convert qilin``."""

from __future__ import annotations

import click

from recbole_ser.commands.arguments import Command
from recbole_ser.commands.conversion import conversion_settings
from recbole_ser.convert.layouts.qilin import TABLES, convert, find_tables
from recbole_ser.convert.settings import Settings, report

_NAMES = ", ".join(table for tables in TABLES.values() for table in tables)


@click.command(cls=Command, short_help="Qilin's tables")
@click.option(
    "--tables", required=True, metavar="FOLDER", help=f"folder of {_NAMES}, each a Parquet file or a folder of them"
)
@conversion_settings
def command(out: str, settings: Settings, tables: str) -> None:
    """Convert Qilin's tables."""
    print(report(convert(find_tables(tables), out, settings=settings)))
