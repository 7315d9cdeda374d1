"""The options that the commands that convert with DuckDB have in common."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, get_args

import click

from recbole_ser.convert.conversion import OnError
from recbole_ser.convert.settings import DEFAULT_MEMORY, Settings

out_option = click.option("--out", required=True, metavar="FOLDER", help="of the data set, which is named after it")
on_error_option = click.option(
    "--on-error", type=click.Choice(get_args(OnError)), default="stop", help="what a malformed row does (default: stop)"
)


def conversion_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give ``command`` the options of ``Settings``, which it gets as ``settings``, and the option ``--out``."""

    @out_option
    @on_error_option
    @click.option(
        "--memory",
        metavar="SIZE",
        default=DEFAULT_MEMORY,
        help=f"that DuckDB may hold (default: {DEFAULT_MEMORY}); more goes into the folder of --out",
    )
    @click.option("--threads", type=int, metavar="N", help="of DuckDB (default: one for each core)")
    @functools.wraps(command)
    def with_settings(on_error: OnError, memory: str, threads: int | None, **options: Any) -> None:
        command(settings=Settings(on_error, memory, threads), **options)

    return with_settings
