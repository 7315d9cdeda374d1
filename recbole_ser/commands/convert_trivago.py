"""``recbole-ser convert trivago``."""

from __future__ import annotations

import click

from recbole_ser.commands.arguments import Command
from recbole_ser.commands.conversion import conversion_settings
from recbole_ser.convert.settings import Settings, report


@click.command(cls=Command, short_help="the log of the RecSys Challenge 2019")
@click.option(
    "--log",
    required=True,
    multiple=True,
    metavar="FILE ...",
    help="files of the log: train.csv and the like, or Parquet",
)
@click.option("--keep-repeats", is_flag=True, help="keep repeats of an item that follow each other")
@conversion_settings
def command(out: str, settings: Settings, log: tuple[str, ...], keep_repeats: bool) -> None:
    """Convert the log of the RecSys Challenge 2019."""
    from recbole_ser.convert.layouts.trivago import convert

    print(report(convert(log, out, keep_repeats=keep_repeats, settings=settings)))
