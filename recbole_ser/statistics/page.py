"""One page of plots that show the statistics of a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from recbole_ser.atomic.time_unit import DAY, UNITS
from recbole_ser.plotting import COLOURS, figure_in
from recbole_ser.statistics.counts import PERIODS, Distribution, Statistics

_REC, _SEARCH = COLOURS[:2]


def write_page(statistics: Statistics, path: Path) -> None:
    """Draw one page of plots to ``path``, in the format that its suffix names.

    Raises:
        ConfigError: no format has that suffix.
        UserError: matplotlib is not installed.
    """
    with figure_in(path, size=(11, 6.5)) as figure:
        figure.suptitle(f"{statistics.dataset}, data {statistics.data[:12]}")
        draw = (_users_by_searches, _lengths, _popularity, _course, _before_targets, _clicks_or_interests)
        for axes, plot in zip(figure.subplots(2, 3).flat, draw):
            axes.spines[["top", "right"]].set_visible(False)
            plot(axes, statistics)


def _users_by_searches(axes: Any, statistics: Statistics) -> None:
    groups = statistics.users_by_searches
    axes.bar(range(len(groups)), list(groups.values()), color=_SEARCH)
    axes.set_xticks(range(len(groups)), list(groups), rotation=60)
    axes.set(xlabel="searches of a user", ylabel="users")


def _lengths(axes: Any, statistics: Statistics) -> None:
    numbers = statistics.distributions
    _at_least(axes, numbers["interactions of a user"], "interactions", _REC)
    _at_least(axes, numbers["searches of a user"], "searches", _SEARCH)
    axes.set(xlabel="at least this many", ylabel="users")
    axes.legend(frameon=False)


def _popularity(axes: Any, statistics: Statistics) -> None:
    _at_least(axes, statistics.distributions["interactions of an item"], "items", _REC)
    axes.set(xlabel="at least this many interactions", ylabel="items", xlim=(1, None))


def _at_least(axes: Any, numbers: Distribution, label: str, colour: str) -> None:
    """Plot how many of the numbers are at least as large as each value, on logarithmic axes, so 0 is left out."""
    values, counts = np.array(numbers.values), np.array(numbers.counts)
    inside = values > 0
    axes.step(values[inside], np.cumsum(counts[inside][::-1])[::-1], where="pre", label=label, color=colour)
    axes.set(xscale="log", yscale="log")


def _course(axes: Any, statistics: Statistics) -> None:
    course = statistics.course
    edges = np.linspace(0, course.last - course.first, PERIODS + 1)
    if course.unit is not None:
        edges = edges / (DAY * UNITS[course.unit])
    for counts, label, colour in ((course.interactions, "interactions", _REC), (course.searches, "searches", _SEARCH)):
        axes.stairs(counts, edges, label=label, color=colour)
    axes.set(xlabel="time from the first event" + ("" if course.unit is None else ", days"), ylabel="events")
    axes.set_ylim(top=1.25 * max(*course.interactions, *course.searches))  # room for the legend
    axes.legend(frameon=False, ncols=2)


def _before_targets(axes: Any, statistics: Statistics) -> None:
    numbers = statistics.distributions
    for kind, colour in (("interactions", _REC), ("searches", _SEARCH)):
        lengths = numbers[f"{kind} before a test"]
        share = np.cumsum(lengths.counts) / max(sum(lengths.counts), 1)
        axes.step(lengths.values, share, where="post", label=kind, color=colour)
    axes.set(xlabel="at most this many before a test target", ylabel="share of test targets", ylim=(0, 1.02))
    axes.set_xscale("symlog")
    axes.set_xlim(left=0)
    axes.legend(frameon=False)


def _clicks_or_interests(axes: Any, statistics: Statistics) -> None:
    """Plot the shares of searches that are like recent interests, by kind; without categories, searches by clicks."""
    interests = statistics.interests
    if interests is None:
        clicks = statistics.distributions["clicks of a search"]
        axes.bar(clicks.values, clicks.counts, color=_SEARCH)
        axes.set(xlabel="clicks of a search", ylabel="searches")
        return
    rows = interests.rows
    similar, judged = np.array([row.similar for row in rows]), np.array([row.judged for row in rows])
    searches = np.maximum([row.searches for row in rows], 1)
    bottom = np.zeros(len(rows))
    for numbers, label, colour in ((similar, "similar", _REC), (judged - similar, "dissimilar", _SEARCH)):
        axes.bar(range(len(rows)), numbers / searches, bottom=bottom, label=label, color=colour)
        bottom = bottom + numbers / searches
    axes.set_xticks(range(len(rows)), [row.kind for row in rows], rotation=60)
    axes.set(ylabel="share of searches, by the last 7 days", ylim=(0, 1.02))
    axes.legend(frameon=False)
