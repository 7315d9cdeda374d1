"""Words of any language, without a dictionary."""

from __future__ import annotations

import re

# Scripts that put no space between words: Thai to Lao, Burmese, Khmer, kana and Han.  Each character counts as a word.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_PUNCTUATION = (
    "!-/:-@\\[-`{-~\u00a1-\u00bf\u2000-\u206f\u3000-\u303f\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65"
)
_WORD = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]+")
_RUN = re.compile(rf"([{UNSPACED}]+)|[^\s{UNSPACED}{_PUNCTUATION}]+")


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
    """The distinct terms of ``text``, case folded, in order: words of two characters or more.

    Of scripts without spaces, every two neighbouring characters.
    """
    found: dict[str, None] = {}
    for match in _RUN.finditer(text.casefold()):
        run = match[0]
        if match[1]:
            found.update(dict.fromkeys(run[i : i + 2] for i in range(len(run) - 1)))
        elif len(run) > 1:
            found[run] = None
    return tuple(found)
