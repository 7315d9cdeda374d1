"""An explanation as a plot: a bar for each of the events with the largest effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_ser.errors import printable
from recbole_ser.explanation.tables import heading, shortened, signed, standing
from recbole_ser.inference.event_file import CLICK, SEARCH
from recbole_ser.plotting import COLOURS, figure_in

if TYPE_CHECKING:
    from recbole_ser.explanation.explain import Explanation

_COLOURS = {CLICK: COLOURS[0], SEARCH: COLOURS[1]}
_HATCH = "////"  # of events that the model finds dissimilar to the user's other history
_LABEL, _HEADING = 60, 90  # columns, as on a terminal


def write_plot(explanation: Explanation, path: Path, k: int) -> None:
    """Draw the ``k`` largest effects to ``path``, in the format that its suffix names.

    Raises:
        ConfigError: no format has that suffix.
        UserError: matplotlib is not installed.
    """
    events = explanation.largest(k).to_dict("records")
    with figure_in(path, size=(10, 1.8 + 0.28 * len(events))) as figure:
        axes = figure.add_subplot()
        _bars(axes, events)
        axes.axvline(0, color="0.3", linewidth=0.8)
        axes.set_yticks(range(len(events)), [_name(event) for event in events], parse_math=False)
        axes.set_ylim(len(events) - 0.4, -0.6)  # the largest on top
        ranks = "; on the right also the item's rank without it" if "rank_without" in explanation.events else ""
        meaning = f"effect: the score minus the score without the event{ranks}\nclick 1, search 1: the latest"
        axes.set_xlabel(meaning, fontsize="small")
        numbers = axes.secondary_yaxis("right")
        numbers.set_yticks(range(len(events)), _numbers(explanation, k))
        for side in (axes, numbers):
            side.tick_params(axis="y", length=0, labelsize="small")
            side.spines[["top", "right", "left"]].set_visible(False)
        figure.suptitle(
            f"{shortened(heading(explanation), _HEADING)}\n{shortened(standing(explanation), _HEADING)}",
            parse_math=False, fontsize="medium",
        )  # fmt: skip
        figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize="small")


def _bars(axes: Any, events: Sequence[Mapping[Any, Any]]) -> None:
    """A bar for each event, and a label for each look of bars."""
    looks = [(event["event"], event.get("interest", "")) for event in events]
    for kind, interest in sorted(set(looks)):
        places = [place for place, look in enumerate(looks) if look == (kind, interest)]
        axes.barh(
            places, [events[place]["effect"] for place in places], 0.7, color=_COLOURS[kind], edgecolor="white",
            linewidth=0, hatch=_HATCH if interest == "dissimilar" else None,
            label=f"{kind}, {interest}" if interest in ("similar", "dissimilar") else kind,
        )  # fmt: skip


def _name(event: Mapping[Any, Any]) -> str:
    """What an event is; people know titles and words, where there are any, and not ids."""
    return shortened(printable(f"{event['event']} {event['place']}: {event['text'] or event['id']}"), _LABEL)


def _numbers(explanation: Explanation, k: int) -> list[str]:
    """What stands beside each bar: its effect, and the item's rank without the event."""
    events = explanation.largest(k)
    effects = signed(events["effect"])
    if "rank_without" not in events:
        return effects
    return [f"{effect}, rank {rank:,}" for effect, rank in zip(effects, events["rank_without"])]
