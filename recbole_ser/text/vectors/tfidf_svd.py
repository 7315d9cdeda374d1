"""Vectors by TF-IDF and a truncated singular value decomposition: offline, for texts in any language."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np

from recbole_ser.errors import ConfigError
from recbole_ser.text.vectors.distinct import encode_distinct
from recbole_ser.text.words import UNSPACED

ANALYSERS = ("auto", "word", "char")

# Python's \w leaves out the vowel signs that are part of words in Devanagari, Thai and others.
_MARKS = "".join(chr(code) for code in range(0x300, 0xFE30) if unicodedata.category(chr(code)).startswith("M"))
_WORD = rf"[\w{_MARKS}]+"
_NGRAMS = (2, 4)  # shortest and longest, in characters
_WORDS = 1 << 16  # how many of the most frequent words are terms
_HASHES = 1 << 18
_ITERATIONS = 5  # iterations of the power method

_UNSPACED = re.compile(f"[{UNSPACED}]")
_LONGEST_WORD = 20  # characters; a longer text without a space is not one word

_log = logging.getLogger(__name__)


class TfidfSVD:
    """An encoder that is fitted on the very texts that it encodes, each distinct one once.

    Texts are compared after NFKC normalisation and case folding.  The same texts and seed give the same vectors on
    the same machine.

    Args:
        dimensions: d, width of a vector; it is lower if there are fewer texts or terms.
        analyser: what the terms are: ``word`` for Unicode words, ``char`` for 2 to 4 neighbouring characters within a
            word, or ``auto`` for characters if at least half of the texts are :func:`unspaced`, else words.
        seed: seed of the decomposition.

    Raises:
        ConfigError: the analyser is unknown, or ``dimensions`` is less than 1.
    """

    def __init__(self, dimensions: int = 128, analyser: str = "auto", seed: int = 2023) -> None:
        if analyser not in ANALYSERS:
            raise ConfigError(f"analyser '{analyser}' is not known: use any of {', '.join(ANALYSERS)}")
        if dimensions < 1:
            raise ConfigError(f"dimensions: {dimensions} is not a positive number")
        self.dimensions, self.analyser, self.seed = dimensions, analyser, seed

    def describe(self) -> dict[str, Any]:
        settings = {"dimensions": self.dimensions, "analyser": self.analyser, "seed": self.seed}
        return {"backend": "tfidf_svd", **settings}

    def encode(self, texts: Sequence[str], progress: bool = False) -> np.ndarray:
        """See ``TextEncoder``; the row of a text without a single word is zero too."""
        return encode_distinct(texts, self._fit_transform)

    def _fit_transform(self, texts: list[str]) -> np.ndarray:
        from sklearn.feature_extraction.text import TfidfTransformer
        from sklearn.utils.extmath import randomized_svd

        if not any(re.search(_WORD, _normalised(text)) for text in texts):
            return np.zeros((len(texts), 1))
        weights = TfidfTransformer(sublinear_tf=True).fit_transform(self._counts(texts))  # [n, terms] sparse
        dimensions = min(self.dimensions, *weights.shape)
        left, scale, _ = randomized_svd(weights, dimensions, n_iter=_ITERATIONS, random_state=self.seed)
        return left * scale  # [n, d]; as TruncatedSVD, which refuses a single term

    def _counts(self, texts: list[str]) -> Any:
        """How often each term occurs in each text; groups of characters are too many to list, so they are hashed."""
        from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer

        if self._uses_characters(texts):
            settings = {"analyzer": "char_wb", "ngram_range": _NGRAMS, "norm": None, "alternate_sign": False}
            hashing = HashingVectorizer(n_features=_HASHES, preprocessor=_normalised, dtype=np.float32, **settings)
            return hashing.transform(texts)
        words = CountVectorizer(token_pattern=_WORD, max_features=_WORDS, preprocessor=_normalised, dtype=np.float32)
        return words.fit_transform(texts)

    def _uses_characters(self, texts: list[str]) -> bool:
        if self.analyser != "auto":
            return self.analyser == "char"
        share = sum(map(unspaced, texts)) / len(texts)
        if share >= 0.5:
            _log.info(f"{share:.0%} of the texts are written without spaces: their terms are groups of characters")
        return share >= 0.5


def unspaced(text: str) -> bool:
    """Whether the words of ``text`` are not separated by spaces.

    That is so if the text has at least as many characters of scripts without spaces as words of other scripts (the
    labels around them may be in English), or if it has no space though it is longer than any word.
    """
    rest, characters = _UNSPACED.subn(" ", text)
    if characters:
        return characters >= len(re.findall(_WORD, rest))
    return len(text) > _LONGEST_WORD and not any(map(str.isspace, text))


def _normalised(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()
