"""``recbole-ser recommend``."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from recbole_ser.commands.arguments import Command, trusted_model_option
from recbole_ser.commands.imports import lasting_imports
from recbole_ser.errors import ConfigError, UserError
from recbole_ser.files import check_writable

_FILE = click.Path(path_type=Path)
_SUFFIXES = (".csv", ".parquet", ".jsonl")


@click.command(cls=Command, short_help="the best items for users of a finished run")
@click.argument("run", metavar="RUN")
@click.option("--users", multiple=True, metavar="U ...", help="raw ids (default: everybody in --events)")
@click.option("--users-file", type=_FILE, metavar="FILE", help="raw ids, one per line")
@click.option("--all", "everybody", is_flag=True, help="all users of the data")
@click.option("-k", type=int, default=10, metavar="N", help="items for each user (default: 10)")
@click.option(
    "--events", type=_FILE, metavar="FILE", help="histories in a .csv or .jsonl file, instead of those in the data"
)
@click.option("--extend", is_flag=True, help="add --events to the user's history in the data, in order of time")
@click.option("--exclude-seen", is_flag=True, help="leave out items of the user's history")
@click.option("--candidates", type=_FILE, metavar="FILE", help="rank these items only: raw ids, one per line")
@click.option("--out", type=_FILE, metavar="FILE", help="write a .csv, .parquet or .jsonl file")
@trusted_model_option
def command(
    run: str,
    users: tuple[str, ...],
    users_file: Path | None,
    everybody: bool,
    k: int,
    events: Path | None,
    extend: bool,
    exclude_seen: bool,
    candidates: Path | None,
    out: Path | None,
    model: str | None,
) -> None:
    """Recommend the best items to users of a finished run, or for histories in a file.

    RUN is the folder of a finished run, or of a sweep, whose chosen trial is taken.

    \b
      recbole-ser recommend saved/shop/SESRec-... --users u1 u2 -k 5
      recbole-ser recommend saved/shop/SESRec-... --all -k 20 --exclude-seen --out=top20.parquet
      recbole-ser recommend saved/shop/SESRec-... --events=today.jsonl

    Columns of --events: user_id, event (click or search), timestamp, item_id of a click, query_id or terms (words) of
    a search, clicked_items, source.
    """
    if sum(map(bool, (users, users_file, everybody))) > 1:
        raise ConfigError("--users, --users-file and --all all say who is asked for: give one of them")
    if not (users or users_file or everybody or events):
        raise ConfigError("nobody is asked for: use --users, --users-file, --all or --events")
    if extend and not events:
        raise ConfigError("--extend says what to do with --events, and there are none")
    if out is not None and out.suffix not in _SUFFIXES:
        raise ConfigError(f"--out {out}: the name must end in {', '.join(_SUFFIXES)}")
    if out is not None:
        check_writable(out)
    names = _lines(users_file) if users_file is not None else list(users) or None
    ranked = None if candidates is None else _lines(candidates)

    with lasting_imports():
        from recbole_ser.inference import Recommender
        from recbole_ser.inference.tables import WRITERS, print_table

    recommender = Recommender.load(run, model)
    with _warnings_on_stderr():
        parts = recommender.in_parts(
            recommender.users if everybody else names,
            k,
            events,
            exclude_seen,
            ranked,
            extend,
            show_progress=out is not None,
        )
        if out is None:
            print_table(parts)
        else:
            WRITERS[out.suffix](out, parts)
            print(f"recommendations are in {out}")


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line]
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8: {error.reason}") from error


@contextmanager
def _warnings_on_stderr() -> Iterator[None]:
    logger, handler = logging.getLogger("recbole_ser.inference"), logging.StreamHandler(sys.stderr)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
