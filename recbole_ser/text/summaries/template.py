"""Summaries without a language model: the most frequent parts of a user's records, in a fixed form."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from tqdm import tqdm

from recbole_ser.text import words
from recbole_ser.text.user_histories import Side, UserHistory

TEMPLATE_VERSION = 1  # part of every result: raise it with any change of the text

_QUERIES, _RECENT, _TYPICAL, _TERMS = 5, 5, 5, 12  # how many of each a summary names
_TITLE_WORDS = 16
_TEXT_WORDS = 128  # how many words of each text are searched for terms


class TemplateSummariser:
    """Lists frequent queries, recent titles, recurring titles and categories, and salient terms, by counting alone.

    A part of an item's text (title, description, category) that several of a user's items share is typical of the
    user.  A term that several of the user's texts share is the more salient, the more texts share it and the fewer
    users have it; a term that no other user has does not show which users are alike and is left out.  No knowledge of
    any language is used, and the text is the same in every run.
    """

    def __init__(self) -> None:
        self.report: dict[str, Any] = {}

    def describe(self) -> dict[str, Any]:
        return {"backend": "template", "version": TEMPLATE_VERSION}

    def summarise(self, histories: Sequence[UserHistory], side: Side, progress: bool = False) -> list[str]:
        """A text for each history; '' where the side is empty.

        Terms are compared with all of ``histories``, so a text depends on who else is there.
        """
        read = lru_cache(maxsize=None)(_terms)  # titles and queries recur many times
        parts = lru_cache(maxsize=None)(_parts)
        spread: Counter[str] = Counter()  # how many users have the term
        for history in histories:
            spread.update({term for text in _texts(history, side) for term in read(text)})
        weight = {term: math.log((1 + len(histories)) / count) for term, count in spread.items() if count > 1}
        rows = tqdm(histories, desc=f"Summaries ({side})", unit=" users", disable=None if progress else True)
        return [
            _summary(history, side, _salient([read(text) for text in _texts(history, side)], weight), parts)
            for history in rows
        ]


def _texts(history: UserHistory, side: Side) -> Iterable[str]:
    """The texts of a side's records; those of a search are the query and the clicked items."""
    searched = [text for record in history.searches for text in (record.query, *record.items)]
    return {"search": searched, "rec": history.items, "both": [*searched, *history.items]}[side]


def _terms(text: str) -> tuple[str, ...]:
    return words.terms(words.shorten(text, _TEXT_WORDS))


def _parts(text: str) -> tuple[str, ...]:
    """The parts of an item's text (title, description and so on), each cut to the length of a title."""
    return tuple(dict.fromkeys(words.shorten(part, _TITLE_WORDS) for part in text.split(". ") if part))


def _salient(texts: Sequence[Sequence[str]], weight: dict[str, float]) -> list[str]:
    counts: Counter[str] = Counter()
    for terms in texts:
        counts.update(terms)
    several = min(2, len(texts))
    score = {term: -count * weight[term] for term, count in counts.items() if count >= several and term in weight}
    return heapq.nsmallest(_TERMS, score, key=lambda term: (score[term], term))


def _summary(history: UserHistory, side: Side, salient: Sequence[str], parts: Any) -> str:
    if not history.length(side):
        return ""
    clicked = () if side == "rec" else [item for record in history.searches for item in record.items]
    items = [*clicked, *(() if side == "search" else history.items)]
    latest = [parts(item) for item in reversed(items)]
    counts = Counter(part for item in latest for part in item)
    frames = {
        "Searches": _most_frequent(record.query for record in reversed(history.searches)) if side != "rec" else [],
        "Recent": list(dict.fromkeys(item[0] for item in latest if item))[:_RECENT],
        "Typical": [part for part, count in counts.most_common(_TYPICAL) if count > 1],
        "Terms": salient,
    }
    return ". ".join(f"{name}: {'; '.join(entries)}" for name, entries in frames.items() if entries)


def _most_frequent(queries: Iterable[str]) -> list[str]:
    """The most frequent queries, of equally frequent ones the first."""
    return [words.shorten(query, _TITLE_WORDS * 2) for query, _ in Counter(queries).most_common(_QUERIES)]
