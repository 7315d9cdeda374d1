"""An explanation as text for a terminal, and as files that other programs read."""

from __future__ import annotations

import math
import textwrap
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from recbole_ser.atomic.time_unit import is_plausible, unit_of
from recbole_ser.errors import printable
from recbole_ser.files import atomic_write, write_json

if TYPE_CHECKING:  # what it holds takes seconds to import
    from recbole_ser.explanation.explain import Explanation

_ROOM_FOR_TIMES = 110  # columns of a terminal from which on times are shown
_GAP = "  "
_NUMBERS = ("effect", "rank", "back")
_LEAST = 24  # columns for what an event is, however narrow the terminal


def heading(explanation: Explanation) -> str:
    """The item that is explained, in one line."""
    if not explanation.title:
        return printable(f"item {explanation.item}")
    return printable(f"{explanation.title} ({explanation.item})")


def standing(explanation: Explanation) -> str:
    """Who ranks it for whom and when, and how high with all events, in one line."""
    when = "now" if explanation.target is None else f"at the {explanation.target} target"
    return printable(
        f"{explanation.model}, user {explanation.user}, {when}: "
        f"score {explanation.score:.4f}, rank {explanation.rank:,} of {explanation.ranked:,}"
    )


def text_of(explanation: Explanation, k: int, width: int) -> str:
    """The ``k`` events with the largest effects as a table about ``width`` columns wide, and what is to be known."""
    events = explanation.largest(k)
    columns = {"effect": signed(events["effect"])}
    if "rank_without" in events:
        columns["rank"] = [f"{rank:,}" for rank in events["rank_without"]]
    columns |= {"event": list(events["event"]), "back": [str(place) for place in events["place"]]}
    if "interest" in events:
        columns["interest"] = list(events["interest"])
    if width >= _ROOM_FOR_TIMES:
        columns["time"] = _times(events["timestamp"])
    left = width - sum(max(map(len, [name, *entries])) + len(_GAP) for name, entries in columns.items())
    columns["what"] = [shortened(label_of(event), max(left, _LEAST)) for event in events.to_dict("records")]
    below = [textwrap.fill(line, width) for line in _legend(explanation, len(events))]
    return "\n".join([heading(explanation), standing(explanation), "", *_lines(columns), "", *below])


def _lines(columns: dict[str, list[str]]) -> Iterator[str]:
    """The lines of a table; numbers stand on the right of their columns."""
    widths = {name: max(map(len, [name, *entries])) for name, entries in columns.items()}
    widths["what"] = 0  # the last
    for row in [tuple(columns), *zip(*columns.values())]:
        yield _GAP.join(
            f"{cell:>{widths[name]}}" if name in _NUMBERS else f"{cell:<{widths[name]}}"
            for name, cell in zip(columns, row)
        )


def _legend(explanation: Explanation, shown: int) -> list[str]:
    """What the columns mean, what is not shown, and the notes."""
    rank = "rank: the item's without the event; " if "rank_without" in explanation.events else ""
    lines = [
        "effect: the score minus the score without the event; + speaks for the item",
        f"{rank}back: 1 is the latest of its kind",
    ]
    left = explanation.events["effect"].iloc[shown:].abs()
    if len(left):
        lines.append(f"not shown: {len(left)} more, with effects of at most {left.max():.2g}")
    return [*lines, *explanation.notes]


def signed(effects: pd.Series[float]) -> list[str]:
    """Effects with as many decimals as give the largest three digits, and at least four."""
    largest = effects.abs().max()
    decimals = max(4, 2 - math.floor(math.log10(largest))) if largest else 4
    return [f"{effect:+.{decimals}f}" for effect in effects]


def label_of(event: Mapping[Any, Any]) -> str:
    """What an event is, in one line: the raw id and the title or words, and the items clicked in a search."""
    clicked = f" > {' '.join(event['clicked_items'])}" if event["clicked_items"] else ""
    return printable(f"{event['id']} {event['text']}".strip() + clicked)


def shortened(text: str, width: int) -> str:
    """``text`` cut to ``width`` columns of a terminal, where a character of East Asian scripts takes two."""
    wide = (0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)
    ends = list(accumulate(wide))
    return text if not ends or ends[-1] <= width else text[: bisect_right(ends, width - 1)] + "…"


def _times(times: pd.Series[Any]) -> list[str]:
    """Dates to the minute if the times can be such, or else the numbers as they are."""
    unit = unit_of(float(times.iloc[0]))
    if unit is None or not is_plausible(times, unit).all():
        return [str(time) for time in times]
    dates = times.to_numpy().astype(np.int64).astype(f"datetime64[{unit}]")
    return [text.replace("T", " ") for text in np.datetime_as_string(dates, unit="m").tolist()]


def write_csv(explanation: Explanation, path: Path) -> None:
    """Write a row for each event, with the user, the item, and its score and rank in front."""
    events = explanation.events.assign(clicked_items=explanation.events["clicked_items"].str.join(" "))
    for name in ("rank", "score", "item", "user"):
        value = getattr(explanation, name)
        events.insert(0, f"{name}_id" if name in ("user", "item") else name, value)
    with atomic_write(path) as handle:
        events.to_csv(handle, index=False, lineterminator="\n")


def write_json_file(explanation: Explanation, path: Path) -> None:
    """Write all of ``Explanation`` as one JSON object."""
    write_json(path, explanation.as_dict())


WRITERS: dict[str, Callable[[Explanation, Path], None]] = {".csv": write_csv, ".json": write_json_file}
