"""Write Amazon Toys and Games (five-core, with titles and queries) as a data set, for measurements.

    python benchmarks/toys.py --raw=FOLDER --out=dataset_atomic/toys --recipe=gserec

The raw folder holds ``interactions.tsv.gz`` (user, asin), each user's rows in true order; ``items.tsv.gz`` (asin,
title, categories); ``queries.tsv.gz`` (query_id, query) and ``item_queries.tsv.gz`` (item, query_ids), queries made of
category paths in the manner of Ai et al. (SIGIR'17).  Times are the positions of the rows, since the days are not all
known.  Searches follow the recipe:

- ``sesrec``: every item with queries has one of them, and each of its interactions is also a search with it;
- ``gserec``: each such interaction is a search with a probability of .77, with a random one of the item's queries;
- ``poor-and-rich``: like ``gserec`` for every second user; the others keep their first search only.

In all of them the item is the search's click, at the same time.  Cite He and McAuley, WWW'16, and McAuley et al.,
SIGIR'15.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from random import Random

import pandas as pd

from recbole_ser.files import atomic_write

PROBABILITY = 0.77  # of a search in GSERec's published data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raw", required=True, type=Path, help="folder of the raw files")
    parser.add_argument("--out", required=True, type=Path, help="folder of the data set, which is named after it")
    parser.add_argument("--recipe", choices=["sesrec", "gserec", "poor-and-rich"], default="gserec")
    arguments = parser.parse_args()
    raw, out = arguments.raw, arguments.out
    events = pd.read_csv(raw / "interactions.tsv.gz", sep="\t", usecols=["user", "asin"], dtype=str, quoting=3)
    events = events.assign(time=range(1, len(events) + 1))
    searches = searches_of(events, queries_of_items(raw), arguments.recipe)
    queries = pd.read_csv(raw / "queries.tsv.gz", sep="\t", dtype=str, quoting=3)
    items = pd.read_csv(raw / "items.tsv.gz", sep="\t", dtype=str, quoting=3, keep_default_na=False)
    write(out, "search", {"user_id:token": "user", "query_id:token": "query", "timestamp:float": "time",
                          "clicked_items:token_seq": "asin"}, searches)  # fmt: skip
    write(out, "query", {"query_id:token": "query_id", "terms:token_seq": "query"}, queries)
    items = items.assign(
        categories=items["categories"].str.replace(" > ", "|").str.replace(" ", "_").str.replace("|", " ")
    )
    write(out, "item", {"item_id:token": "asin", "title:token_seq": "title", "category:token_seq": "categories"}, items)
    write(out, "inter", {"user_id:token": "user", "item_id:token": "asin", "timestamp:float": "time"}, events)
    print(f"{out}: {len(events):,} interactions, {len(searches):,} searches")


def queries_of_items(raw: Path) -> dict[str, list[str]]:
    table = pd.read_csv(raw / "item_queries.tsv.gz", sep="\t", dtype=str, quoting=3)
    return {item: queries.split(" ") for item, queries in zip(table["asin"], table["query_ids"])}


def searches_of(events: pd.DataFrame, queries: dict[str, list[str]], recipe: str) -> pd.DataFrame:
    """The events that are searches too, with the column ``query``."""
    draw = Random(7)
    if recipe == "sesrec":
        one = {item: draw.choice(of_item) for item, of_item in queries.items()}
        return events.assign(query=events["asin"].map(one)).dropna()
    chosen = [draw.choice(queries[item]) if item in queries and draw.random() < PROBABILITY else None
              for item in events["asin"]]  # fmt: skip
    searches = events.assign(query=chosen).dropna()
    if recipe == "gserec":
        return searches
    poor = dict(zip(events["user"].unique(), [number % 2 == 1 for number in range(events["user"].nunique())]))
    is_first = ~searches["user"].duplicated()
    return searches[is_first | ~searches["user"].map(poor)]


def write(out: Path, suffix: str, columns: dict[str, str], rows: pd.DataFrame) -> None:
    """Write ``X.<suffix>``; ``columns`` are labels in the file and the columns of ``rows`` that they hold."""
    with atomic_write(out / f"{out.name}.{suffix}") as handle:
        handle.write("\t".join(columns) + "\n")
        rows[list(columns.values())].to_csv(handle, sep="\t", index=False, header=False, quoting=3, lineterminator="\n")


if __name__ == "__main__":
    main()
