"""The prompts that ask a language model about a user or an item, and the text in its answer.

Without factors the prompts about users are GSERec's (4.1.1).  With factors, prompts about users and items ask for them
one after another, as KAR's do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from recbole_ser.text.openai_api import UnusableAnswer
from recbole_ser.text.user_histories import SearchRecord, Side, UserHistory
from recbole_ser.text.words import shorten

PROMPT_VERSION = 1  # part of every result: raise it with any change of the prompts or of what is taken from an answer
KEY = "summary"

_QUERY_WORDS, _ITEM_WORDS = 32, 128  # as in the published code, which counts tokens of the language model

_OBJECT = re.compile(r'\{\s*"')
_BROKEN_OBJECTS = 100  # how many beginnings of objects that turn out to be none are tried in one answer

_TASKS: dict[Side, str] = {
    "search": (
        "Here is what one user searched for, from the oldest search to the latest, one per line: the query, and the "
        "items that the user clicked in its results. From the queries and the clicked items, describe what the user is "
        "interested in: topics of interest, areas of focus, tendencies in style, types of preference."
    ),
    "rec": (
        "Here is what one user picked from recommendations, from the oldest item to the latest, one per line. From "
        "these items, describe what the user is probably interested in: interests, tendencies in style, preferred "
        "types of items."
    ),
    "both": (
        "Here is what one user did, each part from the oldest to the latest, one per line: first what the user "
        "searched for, with the items that the user clicked in the results, then what the user picked from "
        "recommendations. From all of it, describe what the user is interested in: topics of interest, areas of "
        "focus, tendencies in style, preferred types of items."
    ),
}
_FACTORS = (
    "Go through these factors one after another: {}. Say of each what the user prefers, and which records show it. "
    "Do not rank or recommend items."
)
_ITEM_TASK = "Here is what a catalogue says about one item. Introduce the item to somebody who does not know it."
_ITEM_FACTORS = "Go through these factors one after another: {}. Say of each what is characteristic of the item."
_FORM = (
    f'Answer with a single JSON object that has one key, "{KEY}"; its value is your description as plain text of a '
    "few sentences, in the language of the "
)
_RULES = (
    "Use nothing but this history: no outside knowledge, no guesses about the person. Where it says too little, stay "
    f"general. {_FORM}history."
)
_OPEN_RULES = f"You may use what you know about the items, but do not guess about the person. {_FORM}history."
_ITEM_RULES = (
    "You may use what you know about the item; where you know too little, stay general. Do not rank it, compare it "
    f"with others or recommend it. {_FORM}entry."
)


def prompt(history: UserHistory, side: Side, factors: Sequence[str] = ()) -> str:
    """The request to summarise one side of ``history``; queries and items are cut to 32 and 128 words.

    Args:
        factors: what the model is asked to go through; it may then use what it knows of the items.
    """
    searches = [] if side == "rec" else [json.dumps(_searched(r), ensure_ascii=False) for r in history.searches]
    items = [] if side == "search" else [json.dumps(_chosen(item), ensure_ascii=False) for item in history.items]
    task = [_TASKS[side], *([_FACTORS.format(", ".join(factors))] if factors else [])]
    return "\n".join([*task, "", *searches, *items, "", _OPEN_RULES if factors else _RULES])


def item_prompt(item: str, factors: Sequence[str] = ()) -> str:
    """The request to introduce an item, given what a catalogue says about it, which is cut to 128 words."""
    task = [_ITEM_TASK, *([_ITEM_FACTORS.format(", ".join(factors))] if factors else [])]
    return "\n".join([*task, "", json.dumps(_chosen(item), ensure_ascii=False), "", _ITEM_RULES])


def parse(answer: str) -> str:
    """The summary in a model's answer.

    Reasoning up to the last ``</think>`` is dropped, and anything around the JSON object is ignored.  The time is
    linear in the length of the answer, as only so many beginnings of objects are tried.

    Raises:
        UnusableAnswer: the reasoning does not end, or no JSON object has the key ``summary`` with a text.
    """
    _, _, given = answer.rpartition("</think>")
    if "<think>" in given:
        raise UnusableAnswer("the reasoning does not end", answer)
    decoder = json.JSONDecoder(strict=False)
    found, broken = _OBJECT.search(given), 0
    while found and broken < _BROKEN_OBJECTS:
        try:
            value, end = decoder.raw_decode(given, found.start())
        except (ValueError, RecursionError):
            broken, end = broken + 1, found.start() + 1
        else:
            text = value.get(KEY)
            if isinstance(text, str) and text.strip():
                return " ".join(text.encode("utf-8", "replace").decode("utf-8").split())
        found = _OBJECT.search(given, end)
    raise UnusableAnswer(f"no JSON object with the key '{KEY}' and a text", given.strip() or answer)


def _searched(record: SearchRecord) -> dict[str, object]:
    items = [shorten(item, _ITEM_WORDS) for item in record.items]
    return {"query": shorten(record.query, _QUERY_WORDS), "clicked items": items}


def _chosen(item: str) -> dict[str, str]:
    return {"item": shorten(item, _ITEM_WORDS)}
