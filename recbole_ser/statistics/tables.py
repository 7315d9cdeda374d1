"""A data set's statistics as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable

from recbole_ser.statistics.counts import Distribution, Statistics
from recbole_ser.statistics.interests import Interests


def text_of(statistics: Statistics) -> str:
    """The statistics as tables, at most 80 columns wide."""
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
    names = {"both_histories": "targets with both histories", "all_interactions": "all interactions as targets"}
    for protocol, title in names.items():
        yield f"{title:<28}{'train':>13}{'valid':>13}{'test':>13}{'test users':>13}"
        for split, numbers in statistics.instances.items():
            parts = ["-"] * 4 if numbers is None else [f"{number:,}" for number in numbers[protocol].values()]
            yield f"  {split:<26}" + "".join(f"{part:>13}" for part in parts)


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
