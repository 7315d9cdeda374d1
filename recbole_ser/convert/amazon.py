"""Amazon reviews (McAuley's 2014 five-core files) and product-search queries (Ai et al., SIGIR'17) to atomic files.

Each review is an interaction.  A recipe says which interactions are search events as well; such an event has the
interaction's user and time, a query, and the item as its click.

- ``sesrec`` (Si et al., SIGIR'23): one query for each item, drawn among the item's queries; every interaction with an
  item that has a query is a search event.
- ``gserec``: one query for each (user, item) pair, drawn among the pair's queries; every interaction whose pair has a
  query is a search event.

The rows of ``X.inter`` and ``X.search`` are sorted by (user, time, item), with ids as text, so events of one user at
the same time stand in the order of their items.  A draw depends on nothing but the seed, the item or pair, and its
queries.  So the files do not depend on the order of the rows that are read.

A query's id is the number of its line, from 0; ``X.query`` holds the queries that were drawn.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from recbole_ser.atomic.schema import CLICKED_ITEMS, FILES
from recbole_ser.convert.amazon_items import write_items
from recbole_ser.convert.conversion import Conversion, OnError
from recbole_ser.convert.raw_lines import BadRow, RowCounts, decoded, token
from recbole_ser.errors import ConfigError, DataError, UserError
from recbole_ser.records import parse_json

RECIPES = ("sesrec", "gserec")
DEFAULT_SEED = 2023

_INT64 = range(-(1 << 63), 1 << 63)
_ROWS_PER_BLOCK = 1 << 16


@dataclass(frozen=True)
class Interactions:
    """The reviews, sorted by (user, time, item).

    Args:
        recipe: ``sesrec`` or ``gserec``.
        users, items: the raw ids, sorted as text.
        user, item: int64 ``[rows]``, indices in ``users`` and ``items``.
        time: int64 ``[rows]``, seconds.
    """

    recipe: str
    users: list[str]
    items: list[str]
    user: np.ndarray  # int64 [rows]
    item: np.ndarray  # int64 [rows]
    time: np.ndarray  # int64 [rows]

    @property
    def owners(self) -> np.ndarray:
        """The number of the owner of each interaction's query: its item (sesrec) or its (user, item) pair (gserec)."""
        return self.item if self.recipe == "sesrec" else self.user * len(self.items) + self.item

    def owner_name(self, owner: int) -> str:
        """The raw ids of an owner, which, unlike its number, do not depend on what else is in the log."""
        user, item = divmod(owner, len(self.items))
        return self.items[item] if self.recipe == "sesrec" else f"{self.users[user]}\t{self.items[item]}"


def convert(
    reviews: str | Path,
    queries: str | Path,
    out: str | Path,
    recipe: str,
    *,
    metadata: str | Path | None = None,
    seed: int = DEFAULT_SEED,
    on_error: OnError = "stop",
) -> dict[str, Any]:
    """Convert raw files into the data set in ``out``, which is named after the folder.

    Args:
        reviews: file of JSON lines with ``reviewerID``, ``asin`` and ``unixReviewTime`` (seconds), gzip or not.
        queries: folder of ``query_text.txt``, ``train.qrels`` and ``test.qrels``, each gzip (``.gz``) or not.
        out: folder of the data set.
        recipe: ``sesrec`` or ``gserec``.
        metadata: file with a Python dictionary per line, with ``asin`` and any of ``title``, ``description`` and
            ``categories``.
        seed: seed of the draws of queries.
        on_error: what to do at a malformed row: ``stop``, or ``skip`` it and count it.

    Returns:
        The manifest, which is also in the folder.

    Raises:
        DataError: a row is malformed (with ``stop``), a file is damaged, or the files do not belong together.
        UserError: a file is missing.
    """
    if recipe not in RECIPES:
        raise ConfigError(f"there is no recipe '{recipe}': choose one of {', '.join(RECIPES)}")
    folder = Path(queries)
    text_path, *judgement_paths = (_find(folder, name) for name in ("query_text.txt", "train.qrels", "test.qrels"))
    with Conversion(out, on_error) as conversion:
        log = _read_reviews(conversion, Path(reviews), recipe)
        query_rows = conversion.count("query lines")
        texts = {line - 1: text for line, text in conversion.read(text_path, parse_query, query_rows)}
        owners, lines = _read_judgements(conversion, judgement_paths, log, texts)
        drawn = draw_queries(owners, lines, log.owners, log.owner_name, seed)
        searches = _write_events(conversion, log, drawn)
        used = np.unique(drawn[drawn >= 0]).tolist()
        _write_queries(conversion, texts, used, query_rows)
        if metadata is not None:
            write_items(conversion, Path(metadata), log.items)
        sizes = {"users": len(log.users), "items": len(log.items), "interactions": len(log.time)}
        sizes |= {"search_events": searches, "queries": len(used)}
        return conversion.publish("amazon", {"recipe": recipe, "seed": seed}, sizes)


def from_raw(files: dict[str, list[Path]], out: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Convert the raw files that a data set's YAML names, by role, with its options ``recipe`` and perhaps ``seed``."""
    if "recipe" not in options or options.keys() - {"recipe", "seed"}:
        raise ConfigError(f"raw.convert: amazon takes recipe and seed, recipe is needed; found {sorted(options)}")
    numbers = {role: len(paths) for role, paths in files.items()}
    if numbers not in ({"reviews": 1, "queries": 3}, {"reviews": 1, "queries": 3, "metadata": 1}):
        raise ConfigError(
            f"raw.sources: amazon takes one file of the role reviews, three of queries and perhaps one of metadata; "
            f"found {numbers}"
        )
    metadata = files["metadata"][0] if "metadata" in files else None
    return convert(files["reviews"][0], files["queries"][0].parent, out, metadata=metadata, **options)


def parse_review(line: bytes) -> tuple[str, str, int]:
    """Parse a line of the review file into (user, item, time)."""
    text = decoded(line)
    try:
        row = parse_json(text)
    except ValueError as error:
        raise BadRow("not valid JSON", text) from error
    if not isinstance(row, dict):
        raise BadRow("not a JSON object", text)
    for key in ("reviewerID", "asin", "unixReviewTime"):
        if key not in row:
            raise BadRow(f"no {key}", text)
    time = row["unixReviewTime"]
    if type(time) is not int or time not in _INT64:
        raise BadRow("unixReviewTime is not a whole number of seconds", time)
    return token(row["reviewerID"], "reviewerID"), token(row["asin"], "asin"), time


def parse_query(line: bytes) -> str:
    """Parse a line of the query file into the words of the query, separated by one space."""
    terms = decoded(line).split()
    if not terms:
        raise BadRow("the query has no words")
    return " ".join(token(term, "query term") for term in terms)


def parse_judgement(line: bytes, texts: dict[int, str]) -> tuple[str, str, int, int]:
    """Parse a line ``<user>_<query line> 0 <item> <label>`` into (user, item, query line, label)."""
    text = decoded(line)
    fields = text.split()
    if len(fields) != 4:
        raise BadRow("not four fields '<user>_<query line> 0 <asin> <label>'", text)
    user, _, query = fields[0].rpartition("_")
    if not (query.isascii() and query.isdigit()):
        raise BadRow("the first field is not <user>_<query line>", fields[0])
    if len(query) > 9 or int(query) not in texts:
        raise BadRow("no such line among the queries", query)
    if fields[3] not in ("0", "1"):
        raise BadRow("the label is neither 0 nor 1", fields[3])
    return token(user, "user"), token(fields[2], "asin"), int(query), int(fields[3])


def draw_queries(
    owners: np.ndarray, lines: np.ndarray, wanted: np.ndarray, name: Callable[[int], str], seed: int
) -> np.ndarray:
    """Draw one query for each owner and look it up for each of ``wanted``.

    The draw is uniform among the owner's distinct queries; it depends on the seed, the owner's name and these queries.

    Judgements are sorted and made distinct, so the queries of each owner stand together.  What is drawn is a place
    among them, by a hash of the seed and the owner's name; an owner with a single query needs no draw.

    Args:
        owners: int64 ``[judgements]``, the owner of each judgement; there is at least one judgement.
        lines: int64 ``[judgements]``, the query of each judgement.
        wanted: int64 ``[rows]``, the owners whose queries are looked up.
        name: gives the name of an owner.
        seed: seed of the draws.

    Returns:
        int64 ``[rows]``: the query of each of ``wanted``, -1 if the owner has none.
    """
    order = np.lexsort((lines, owners))
    owners, lines = owners[order], lines[order]
    first = np.ones(len(owners), dtype=bool)
    first[1:] = (np.diff(owners) != 0) | (np.diff(lines) != 0)
    owners, lines = owners[first], lines[first]
    distinct, picks, numbers = np.unique(owners, return_index=True, return_counts=True)
    several = np.flatnonzero(numbers > 1)
    draws = [
        _keyed_hash(seed, name(owner)) % number
        for owner, number in zip(distinct[several].tolist(), numbers[several].tolist())
    ]
    picks[several] += np.array(draws, dtype=np.int64)
    place = np.minimum(np.searchsorted(distinct, wanted), len(distinct) - 1)
    return np.where(distinct[place] == wanted, lines[picks[place]], -1)


def _keyed_hash(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}\t{name}".encode(), digest_size=8).digest(), "big")


def _find(folder: Path, name: str) -> Path:
    found = [path for path in (folder / f"{name}.gz", folder / name) if os.path.isfile(path)]
    if len(found) != 1:
        problem = "holds both" if found else "holds neither"
        raise UserError(f"{folder} {problem} {name}.gz and {name}: exactly one of them is needed")
    return found[0]


def _read_reviews(conversion: Conversion, path: Path, recipe: str) -> Interactions:
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    user, item, time = array("i"), array("i"), array("q")
    counts = conversion.count("reviews")
    for _, (user_id, item_id, seconds) in conversion.read(path, parse_review, counts):
        user.append(users.setdefault(user_id, len(users)))
        item.append(items.setdefault(item_id, len(items)))
        time.append(seconds)
    counts.rows_out = len(time)
    if not time:
        raise DataError(path, "there is no usable review", line=counts.rows_in + 1)
    user_ids, user_column = _in_id_order(users, user)
    item_ids, item_column = _in_id_order(items, item)
    times = np.array(time, dtype=np.int64)
    order = np.lexsort((item_column, times, user_column))
    return Interactions(recipe, user_ids, item_ids, user_column[order], item_column[order], times[order])


def _in_id_order(numbers: dict[str, int], column: array[int]) -> tuple[list[str], np.ndarray]:
    """The ids, sorted, and ``column`` renumbered to be indices of the sorted ids."""
    ids = sorted(numbers)
    renumbered = np.empty(len(ids), dtype=np.int64)
    renumbered[[numbers[text] for text in ids]] = np.arange(len(ids))
    return ids, renumbered[np.array(column)]


def _read_judgements(
    conversion: Conversion, paths: list[Path], log: Interactions, texts: dict[int, str]
) -> tuple[np.ndarray, np.ndarray]:
    """Read the judgements: the owner (see `Interactions.owners`) and the query line of each, int64 ``[judgements]``."""
    users = {text: number for number, text in enumerate(log.users)}
    items = {text: number for number, text in enumerate(log.items)}
    owners, lines = array("q"), array("q")
    counts = conversion.count("judgements")
    for path in paths:
        for _, (user, item, line, label) in conversion.read(path, partial(parse_judgement, texts=texts), counts):
            user_number = 0 if log.recipe == "sesrec" else users.get(user)
            item_number = items.get(item)
            if label == 0:
                counts.reject("judged not relevant")
            elif user_number is None or item_number is None:
                counts.reject("no such interaction")
            else:
                owners.append(user_number * len(items) + item_number)
                lines.append(line)
    known = np.isin(np.array(owners, dtype=np.int64), log.owners)
    counts.rows_out = int(known.sum())
    counts.reject("no such interaction", len(known) - counts.rows_out)
    if not known.any():
        raise DataError(paths[0], "no judgement is about a review", hint="are the files of one category?")
    return np.array(owners)[known], np.array(lines)[known]


def _write_events(conversion: Conversion, log: Interactions, drawn: np.ndarray) -> int:
    """Write ``X.inter`` and ``X.search`` from each interaction's query (-1: none); return the number of searches."""
    everything, searches = np.arange(len(drawn)), np.flatnonzero(drawn >= 0)
    conversion.write("inter", FILES["inter"].columns, ((u, i, t) for u, i, t, _ in _events(log, drawn, everything)))
    conversion.write(
        "search",
        (*FILES["search"].required, CLICKED_ITEMS),
        ((u, q, t, i) for u, i, t, q in _events(log, drawn, searches)),
    )
    counts = conversion.count("search events among interactions")
    counts.rows_in, counts.rows_out = len(drawn), len(searches)
    owner = "item" if log.recipe == "sesrec" else "pair of user and item"
    counts.reject(f"the {owner} has no query", len(drawn) - len(searches))
    return len(searches)


def _write_queries(conversion: Conversion, texts: dict[int, str], used: list[int], counts: RowCounts) -> None:
    """Write ``X.query`` with the queries that were drawn."""
    conversion.write("query", FILES["query"].columns, ((str(line), texts[line]) for line in used))
    counts.rows_out = len(used)
    counts.reject("the query was not drawn", len(texts) - len(used))


def _events(log: Interactions, drawn: np.ndarray, rows: np.ndarray) -> Iterator[tuple[str, str, str, str]]:
    """Yield (user, item, time, query) of each of ``rows``, as text."""
    for start in range(0, len(rows), _ROWS_PER_BLOCK):
        block = rows[start : start + _ROWS_PER_BLOCK]
        columns = (column[block].tolist() for column in (log.user, log.item, log.time, drawn))
        for user, item, time, query in zip(*columns):
            yield log.users[user], log.items[item], str(time), str(query)
