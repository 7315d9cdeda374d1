"""The words of a text in any language, without a dictionary."""

from __future__ import annotations

import re
import sys
import unicodedata
from functools import cache

# Scripts that put no space between words: Thai to Lao, Burmese, Khmer, kana and Han.  Each character counts as a word.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_PUNCTUATION = (
    "!-/:-@\\[-`{-~\u00a1-\u00bf\u2000-\u206f\u3000-\u303f\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65"
)
_WORD = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]+")
_RUN = re.compile(rf"([{UNSPACED}]+)|[^\s{UNSPACED}{_PUNCTUATION}]+")
_JOINERS = "\u200c\u200d"  # they stand inside words of Persian and Indic scripts
_QUERY_RUN = re.compile(rf"([{UNSPACED}]+)|[^{UNSPACED}]+")


def shorten(text: str, words: int) -> str:
    """The first ``words`` words of ``text``; a character of a script without spaces counts as one."""
    if len(text) <= words:
        return text
    end = 0
    for count, match in enumerate(_WORD.finditer(text)):
        if count == words:
            return text[:end]
        end = match.end()
    return text


def terms(text: str) -> tuple[str, ...]:
    """The distinct terms of ``text``, case folded, in order.

    A term is a word of at least two characters or, in scripts without spaces, any two neighbouring characters.
    """
    found: dict[str, None] = {}
    for match in _RUN.finditer(text.casefold()):
        run = match[0]
        if match[1]:
            found.update(dict.fromkeys(run[i : i + 2] for i in range(len(run) - 1)))
        elif len(run) > 1:
            found[run] = None
    return tuple(found)


def normalised(text: str) -> str:
    """``text`` in Unicode's form NFKC, case folded, with single spaces: equal results mean the same query."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())


def query_terms(text: str) -> list[str]:
    """The terms of ``text`` in order, repeats included; none if it holds neither letters nor digits.

    A term is a run of letters, digits and the marks on them, normalised.  In a script that puts no space between words
    (see ``UNSPACED``) any two neighbouring characters of a run are a term, and so is a character that stands alone.
    """
    terms: list[str] = []
    for word in _word().findall(normalised(text)):
        for run in _QUERY_RUN.finditer(word):
            if run[1] and len(run[1]) > 1:
                terms.extend(run[1][i : i + 2] for i in range(len(run[1]) - 1))
            else:
                terms.append(run[0])
    return terms


@cache
def _word() -> re.Pattern[str]:
    """The pattern of a word: letters, digits, and combining marks (vowels of Hindi), which ``\\w`` does not have."""
    marks = "".join(character for character in map(chr, range(sys.maxunicode + 1)) if _is_mark(character))
    return re.compile(rf"(?:[^\W_]|[{re.escape(marks)}{_JOINERS}])+")


def _is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("M")
