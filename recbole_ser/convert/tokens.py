"""Words of a query, in any language and without a dictionary."""

from __future__ import annotations

import re
import sys
import unicodedata
from functools import cache

from recbole_ser.codes.words import UNSPACED

_JOINERS = "\u200c\u200d"  # they stand inside words of Persian and Indic scripts
_RUN = re.compile(rf"([{UNSPACED}]+)|[^{UNSPACED}]+")


def normalised(text: str) -> str:
    """``text`` in Unicode's form NFKC, case folded, with single spaces: equal results mean the same query."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())


def query_terms(text: str) -> list[str]:
    """The terms of ``text`` in order, repeats included; none where it holds neither letters nor digits.

    A term is a run of letters, digits and the marks on them, normalised.  Of a run in a script that puts no space
    between words (see `recbole_ser.codes.words.UNSPACED`) every two neighbouring characters are a term, or the one
    that there is.
    """
    terms: list[str] = []
    for word in _word().findall(normalised(text)):
        for run in _RUN.finditer(word):
            if run[1] and len(run[1]) > 1:
                terms.extend(run[1][i : i + 2] for i in range(len(run[1]) - 1))
            else:
                terms.append(run[0])
    return terms


@cache
def _word() -> re.Pattern[str]:
    """Letters and digits as ``re`` has them, and what it leaves out of words: combining marks (vowels of Hindi)."""
    marks = "".join(character for character in map(chr, range(sys.maxunicode + 1)) if _is_mark(character))
    return re.compile(rf"(?:[^\W_]|[{re.escape(marks)}{_JOINERS}])+")


def _is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("M")
