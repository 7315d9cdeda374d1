"""``recbole-ser describe``: the statistics of a data set that papers print, as a table, JSON and a page of plots."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from recbole_ser.data.time_unit import UNITS

if TYPE_CHECKING:
    from recbole_ser.data.interests import Interests
    from recbole_ser.data.statistics import Distribution, Statistics


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``recbole-ser describe``."""
    parser.add_argument("dataset", metavar="DATASET", help="name of the data set, or its folder")
    parser.add_argument("--data_path", default="dataset_atomic", metavar="FOLDER", help="(default: dataset_atomic)")
    parser.add_argument("--config_files", metavar="FILES", help="as of a run: what is loaded and filtered")
    parser.add_argument("--category", metavar="COLUMN", help="of X.item (default: the first whose name says so)")
    parser.add_argument("--spontaneous", default="", metavar="S,S,...", help="sources of searches typed unprompted")
    parser.add_argument("--unit", choices=list(UNITS), help="of the times (default: guessed from their size)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw a page of plots there: .png, .pdf or .svg")


def run(arguments: argparse.Namespace) -> int:
    """Print the tables, and write the numbers and the plots where they are wanted.

    Raises:
        ConfigError: there is no such column, or no such source.
        UserError: there is no such data set, a file is wrong, or no matplotlib for the plots.
    """
    # Imported here: RecBole takes seconds, and other commands must run where it does not.
    from recbole_ser.data.location import find_dataset
    from recbole_ser.data.statistics import describe, load_described
    from recbole_ser.data.statistics_plots import write_page
    from recbole_ser.files import write_json

    folder = find_dataset(arguments.dataset, arguments.data_path)
    dataset = load_described(folder, arguments.config_files.split() if arguments.config_files else None)
    spontaneous = tuple(source for source in arguments.spontaneous.split(",") if source)
    statistics = describe(dataset, arguments.category, spontaneous, arguments.unit)
    print(text_of(statistics))
    if arguments.json is not None:
        write_json(arguments.json, statistics.as_dict())
    if arguments.plot is not None:
        write_page(statistics, arguments.plot)
    return 0


def text_of(statistics: Statistics) -> str:
    """The tables, at most 80 columns wide."""
    counts = dict(statistics.counts)
    first = [("users", "users"), ("items", "items"), ("queries", "queries")]
    first += [("actions S", "searches"), ("actions R", "interactions")]
    table = [(title, counts.pop(name)) for title, name in first]
    lines = [
        f"{statistics.dataset}, data {statistics.data[:12]}; S: search, R: recommendation",
        "",
        "".join(f"{title:>16}" for title, _ in table),
        "".join(f"{number:>16,}" for _, number in table),
        "",
        *(_line(name, f"{number:,}") for name, number in counts.items()),
        _line("sparsity", f"{statistics.sparsity:.4%}"),
        "",
        *_instances(statistics),
        "",
        *_distributions(statistics.distributions),
        "",
        f"{'searches of a user':<40}{'users':>20}{'share':>20}",
        *_with_shares(statistics.users_by_searches),
        "",
        "tied in time",
        *(_line(f"  {name}", _percent(share)) for name, share in statistics.ties.items()),
        "",
        "clicks in search",
        *(_line(f"  {name}", _percent(share)) for name, share in statistics.clicks.items()),
        "",
        *_interests(statistics.interests, statistics.course.unit),
    ]
    return "\n".join(lines)


def _line(name: str, value: str) -> str:
    return f"{name:<60}{value:>20}"


def _instances(statistics: Statistics) -> Iterable[str]:
    yield f"{'targets':<32}{'train':>16}{'valid':>16}{'test':>16}"
    names = {"both_histories": "with both histories", "all_interactions": "all interactions"}
    for key, parts in statistics.instances.items():
        yield f"{names[key]:<32}" + "".join(f"{parts[part]:>16,}" for part in ("train", "valid", "test"))


def _distributions(distributions: dict[str, Distribution]) -> Iterable[str]:
    quantiles = next(iter(distributions.values())).quantiles
    yield f"{'':<28}{'mean':>9}{'min':>6}" + "".join(f"{name:>6}" for name in quantiles) + f"{'max':>7}"
    for name, numbers in distributions.items():
        mean = "-" if numbers.mean is None else f"{numbers.mean:,.1f}"
        cells = "".join(f"{_whole(number):>6}" for number in numbers.quantiles.values())
        yield f"{name:<28}{mean:>9}{_whole(numbers.minimum):>6}{cells}{_whole(numbers.maximum):>7}"


def _with_shares(groups: dict[str, int]) -> Iterable[str]:
    everyone = sum(groups.values())
    return (f"  {label:<38}{users:>20,}{users / everyone:>20.2%}" for label, users in groups.items())


def _interests(interests: Interests | None, unit: str | None) -> Iterable[str]:
    if interests is None:
        why = "the unit of the times is not known: --unit" if unit is None else "no column of X.item: --category"
        return [f"searches like recent interests: not counted, {why}"]
    lines = [
        f"searches like the interests of the last 7 days ({interests.category}; times in {unit})",
        f"{'':<22}{'searches':>14}{'share':>8}{'judged':>14}{'similar':>11}{'dissimilar':>11}",
    ]
    total = interests.rows[-1].searches
    for row in interests.rows:
        similar = None if not row.judged else row.similar / row.judged
        share = None if not total else row.searches / total
        lines.append(
            f"  {row.kind[:19]:<20}{row.searches:>14,}{_percent(share):>8}{row.judged:>14,}{_percent(similar):>11}"
            f"{_percent(None if similar is None else 1 - similar):>11}"
        )
    return lines


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"


def _whole(number: int | None) -> str:
    return "-" if number is None else f"{number}"
