"""The options that the commands that convert with DuckDB have in common."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, get_args

import click

from recbole_ser.convert.conversion import OnError
from recbole_ser.convert.settings import DEFAULT_MEMORY, Settings

out_option = click.option(
    "--out", required=True, metavar="FOLDER", help="folder of the new data set, which is named after it"
)
on_error_option = click.option(
    "--on-error",
    type=click.Choice(get_args(OnError)),
    default="stop",
    help="stop at a malformed row, or skip and count it (default: stop)",
)


def conversion_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give ``command`` the options of ``Settings``, which it gets as ``settings``, and the option ``--out``."""

    @out_option
    @on_error_option
    @click.option(
        "--memory",
        metavar="SIZE",
        default=DEFAULT_MEMORY,
        help=f"memory that DuckDB may use (default: {DEFAULT_MEMORY}); it puts the rest into --out",
    )
    @click.option("--threads", type=int, metavar="N", help="threads of DuckDB (default: one per core)")
    @functools.wraps(command)
    def with_settings(on_error: OnError, memory: str, threads: int | None, **options: Any) -> None:
        command(settings=Settings(on_error, memory, threads), **options)

    return with_settings
