"""``recbole-ser recommend``: what a trained model recommends now."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_ser.errors import ConfigError, UserError
from recbole_ser.files import atomic_write

if TYPE_CHECKING:
    import pandas as pd

_EVENTS_HELP = """\
histories, .csv or .jsonl; columns: user_id, event (click or search), timestamp, item_id of a click, query_id or terms
(words) of a search, clicked_items, source; by default they stand in place of what the data know of the user"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``recbole-ser recommend``."""
    parser.add_argument("run_folder", metavar="RUN", help="folder of a finished run")
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--users", nargs="+", metavar="U", help="raw ids; the default is everybody in --events")
    who.add_argument("--users-file", type=Path, metavar="FILE", help="raw ids, one per line")
    who.add_argument("--all", action="store_true", help="all users of the data")
    parser.add_argument("-k", type=int, default=10, metavar="N", help="items for each user (default: 10)")
    parser.add_argument("--events", type=Path, metavar="FILE", help=_EVENTS_HELP)
    parser.add_argument("--extend", action="store_true", help="put --events between what the data know of the user")
    parser.add_argument("--exclude-seen", action="store_true", help="leave out items of the user's history")
    parser.add_argument("--candidates", type=Path, metavar="FILE", help="rank these items only: raw ids, one per line")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write a .csv, .parquet or .jsonl file")


def run(arguments: argparse.Namespace) -> int:
    """Print the table, or write it to ``--out``; what was not understood goes to standard error.

    Raises:
        UserError: see ``Recommender``; files of ids that cannot be read.
    """
    if arguments.out is not None and arguments.out.suffix not in _WRITERS:
        raise ConfigError(f"--out {arguments.out}: the name must end in {', '.join(_WRITERS)}")
    if not (arguments.users or arguments.users_file or arguments.all or arguments.events):
        raise ConfigError("nobody is asked for: use --users, --users-file, --all or --events")
    if arguments.extend and not arguments.events:
        raise ConfigError("--extend says what to do with --events, and there are none")
    users = arguments.users if arguments.users_file is None else _lines(arguments.users_file)
    candidates = None if arguments.candidates is None else _lines(arguments.candidates)

    from recbole_ser.inference import Recommender  # which takes seconds

    recommender = Recommender.load(arguments.run_folder)
    with _warnings_on_stderr():
        parts = recommender.in_parts(
            recommender.users if arguments.all else users,
            arguments.k,
            arguments.events,
            arguments.exclude_seen,
            candidates,
            arguments.extend,
            show_progress=arguments.out is not None,
        )
        if arguments.out is None:
            _print(parts)
        else:
            _WRITERS[arguments.out.suffix](arguments.out, parts)
            print(f"recommendations are in {arguments.out}")
    return 0


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


def _print(parts: Iterable[pd.DataFrame]) -> None:
    """A table whose columns are as wide as the first users and items need; later ones may be wider."""
    widths: list[int] = []
    for part in parts:
        users, items = part["user_id"], part["item_id"]
        if not widths:
            widths = [max(map(len, [name, *column])) for name, column in (("user", users), ("item", items))]
            print(f"{'user':<{widths[0]}}  {'rank':>4}  {'item':<{widths[1]}}  {'score':>10}")
        for user, rank, item, score in zip(users, part["rank"], items, part["score"]):
            print(f"{user:<{widths[0]}}  {rank:>4}  {item:<{widths[1]}}  {score:>10.4f}")


def _write_csv(path: Path, parts: Iterable[pd.DataFrame]) -> None:
    with atomic_write(path) as handle:
        for number, part in enumerate(parts):
            part.to_csv(handle, index=False, header=number == 0, lineterminator="\n")


def _write_json_lines(path: Path, parts: Iterable[pd.DataFrame]) -> None:
    with atomic_write(path) as handle:
        for part in parts:
            part.to_json(handle, orient="records", lines=True, force_ascii=False, double_precision=15)


def _write_parquet(path: Path, parts: Iterable[pd.DataFrame]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"user_id": pa.string(), "rank": pa.int64(), "item_id": pa.string(), "score": pa.float64()}
    schema = pa.schema(list(types.items()))
    with atomic_write(path, "wb") as handle, pq.ParquetWriter(handle, schema) as writer:
        for part in parts:
            writer.write_table(pa.table({name: part[name].to_numpy() for name in types}, schema=schema))


_WRITERS: dict[str, Callable[[Path, Any], None]] = {
    ".csv": _write_csv,
    ".parquet": _write_parquet,
    ".jsonl": _write_json_lines,
}
