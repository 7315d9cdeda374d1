"""``recbole-ser convert kuaisar``."""

from __future__ import annotations

import click

from recbole_ser.commands.arguments import Command
from recbole_ser.commands.conversion import conversion_settings
from recbole_ser.convert.layouts.kuaisar import convert
from recbole_ser.convert.layouts.kuaisar_files import NAMES
from recbole_ser.convert.settings import Settings, report


@click.command(cls=Command, short_help="KuaiSAR's logs")
@click.option("--logs", required=True, metavar="FOLDER", help=f"folder of {', '.join(NAMES)}")
@click.option(
    "--first-shown", is_flag=True, help="count the first item that a search shows as its click, where it has none"
)
@conversion_settings
def command(out: str, settings: Settings, logs: str, first_shown: bool) -> None:
    """Convert KuaiSAR's recommendation and search logs."""
    print(report(convert(logs, out, first_shown=first_shown, settings=settings)))
