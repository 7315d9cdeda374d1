"""``recbole-ser recommend``."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
@click.option(
    "--retriever", metavar="RUN", help="rank only what this run of the same data, a fast one, finds for a user"
)
@click.option("--retrieve", type=int, metavar="N", help="items that it finds for each user (default: 1000)")
@click.option("--check", type=int, metavar="N", help="rank all items for N of the users, too, and say what was missed")
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
    retriever: str | None,
    retrieve: int | None,
    check: int | None,
    out: Path | None,
    model: str | None,
) -> None:
    """Recommend the best items to users of a finished run, or for histories in a file.

    RUN is the folder of a finished run, or of a sweep, whose chosen trial is taken.

    \b
      recbole-ser recommend saved/shop/SESRec-... --users u1 u2 -k 5
      recbole-ser recommend saved/shop/SESRec-... --all -k 20 --exclude-seen --out=top20.parquet
      recbole-ser recommend saved/shop/SESRec-... --events=today.jsonl
      recbole-ser recommend saved/shop/SESRec-... --all --retriever=saved/shop/SASRecAll-... --check=50

    Columns of --events: user_id, event (click or search), timestamp, item_id of a click, query_id or terms (words) of
    a search, clicked_items, source.
    """
    if sum(map(bool, (users, users_file, everybody))) > 1:
        raise ConfigError("--users, --users-file and --all all say who is asked for: give one of them")
    if not (users or users_file or everybody or events):
        raise ConfigError("nobody is asked for: use --users, --users-file, --all or --events")
    if extend and not events:
        raise ConfigError("--extend says what to do with --events, and there are none")
    if retriever is None and not (retrieve is None and check is None):
        raise ConfigError("--retrieve and --check say something about --retriever, and there is none")
    if check is not None and check < 1:
        raise ConfigError(f"--check {check}: at least 1 user is needed")
    if out is not None and out.suffix not in _SUFFIXES:
        raise ConfigError(f"--out {out}: the name must end in {', '.join(_SUFFIXES)}")
    if out is not None:
        check_writable(out)
    names = _lines(users_file) if users_file is not None else list(users) or None
    ranked = None if candidates is None else _lines(candidates)

    with lasting_imports():
        from recbole_ser.inference import Recommender, Retriever
        from recbole_ser.inference.tables import WRITERS, print_table

    recommender = Recommender.load(run, model)
    found_by = (
        None if retriever is None else Retriever(Recommender.load(retriever), 1000 if retrieve is None else retrieve)
    )
    asked = recommender.users if everybody else names
    request: dict[str, Any] = {"events": events, "exclude_seen": exclude_seen, "candidates": ranked, "extend": extend}
    with _warnings_on_stderr():
        parts = recommender.in_parts(asked, k, show_progress=out is not None, retriever=found_by, **request)
        if out is None:
            print_table(parts)
        else:
            WRITERS[out.suffix](out, parts)
            print(f"recommendations are in {out}")
    if found_by is not None and check is not None:
        share = recommender.recall(found_by, asked, k, at_most=check, **request)
        print(f"retriever   {share:.1%} of the {k} best of all items were found (checked for at most {check} users)")


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
