"""What all summarisers with a language model share: asking once per distinct history, checking, caching, retrying."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from tqdm import tqdm

from recbole_ser.errors import ConfigError, UserError
from recbole_ser.text.cache import Cache, key_of
from recbole_ser.text.openai_api import UnusableAnswer
from recbole_ser.text.summaries.prompts import PROMPT_VERSION, parse, prompt
from recbole_ser.text.summaries.template import TemplateSummariser
from recbole_ser.text.user_histories import Side, UserHistory

_GIVEN_UP = ""  # the cached value of a history about which no answer could be used
_log = logging.getLogger(__name__)


class PromptedSummariser:
    """A summariser that asks a language model.  Subclasses say how to ask; this class does everything else.

    The model is asked once about users with equal histories.  Every summary goes into the cache as it arrives, under
    the hash of the model, its parameters and the prompt.

    Args:
        cache: file of answers, see ``text.cache``.
        model: what identifies the model, in values that JSON can hold.
        parameters: parameters of the generation; ``seed`` rises by one each time the model is asked again.
        ask_again: how often the model is asked again when an answer cannot be used.
        on_failure: what to do when no answer can be used: ``error``, or ``template`` to take the summary of
            ``TemplateSummariser``.

    Attributes:
        report: for each side, how many histories were ``asked`` about in the last call, and how many got the text of
            the ``template``.

    Raises:
        ConfigError: an argument is wrong.
    """

    backend: ClassVar[str]

    def __init__(
        self, cache: str | Path, model: dict[str, Any], parameters: dict[str, Any], ask_again: int, on_failure: str
    ) -> None:
        if on_failure not in ("error", "template"):
            raise ConfigError(f"on_failure: '{on_failure}' is not error or template")
        if ask_again < 0:
            raise ConfigError(f"ask_again: {ask_again} is below 0")
        self.report: dict[str, Any] = {}
        self._cache = Path(cache)
        self._parameters = {name: value for name, value in parameters.items() if value is not None}
        self._source = {
            "backend": self.backend, **model, "parameters": self._parameters, "prompt_version": PROMPT_VERSION
        }  # fmt: skip
        self._ask_again, self._on_failure = ask_again, on_failure

    def describe(self) -> dict[str, Any]:
        return {**self._source, "ask_again": self._ask_again, "on_failure": self._on_failure}

    def summarise(self, histories: Sequence[UserHistory], side: Side, progress: bool = False) -> list[str]:
        """A text for each history; '' where the side is empty.

        Raises:
            UserError: no answer about a history could be used and ``on_failure`` is ``error``, or the back-end failed.
            DataError: the cache is damaged.
        """
        keys = [key_of(**self._source, prompt=prompt(h, side)) if h.length(side) else None for h in histories]
        first_rows = {key: row for row, key in reversed(list(enumerate(keys))) if key is not None}
        with Cache(self._cache) as cache:
            answers = {key: _cached_summary(cache, key) for key in first_rows}
            unanswered = (_GIVEN_UP, None) if self._on_failure == "error" else (None,)
            missing = sorted(first_rows[key] for key, answer in answers.items() if answer in unanswered)

            def ask(row: int) -> str:
                return self._ask_about(row, prompt(histories[row], side), side)

            arriving = tqdm(
                self._each(ask, missing), desc=f"Summaries ({side})", unit=" users", total=len(missing),
                disable=None if progress else True,
            )  # fmt: skip
            for place, summary in arriving:
                key = keys[missing[place]]
                assert key is not None
                cache.put(key, summary)
                answers[key] = summary
        texts = ["" if key is None else answers[key] or "" for key in keys]
        failed = [row for row, key in enumerate(keys) if key is not None and answers[key] == _GIVEN_UP]
        self.report[side] = {"asked": len(missing), "template": len(failed)}
        return self._with_template(texts, failed, histories, side)

    def _with_template(
        self, texts: list[str], failed: list[int], histories: Sequence[UserHistory], side: Side
    ) -> list[str]:
        if failed:
            _log.warning("%d of %d users get the template's summary (%s)", len(failed), len(texts), side)
            template = TemplateSummariser().summarise(histories, side)
            for row in failed:
                texts[row] = template[row]
        return texts

    def _ask_about(self, row: int, text: str, side: Side) -> str:
        seed = self._parameters.get("seed")
        for attempt in range(self._ask_again + 1):
            again = {} if seed is None else {"seed": seed + attempt}
            try:
                return parse(self._answer(text, {**self._parameters, **again}))
            except UnusableAnswer as error:
                problem = error
        where = f"user row {row} ({side}), asked {self._ask_again + 1} times"
        if self._on_failure == "error":
            raise UserError(f"{where}: {problem}; 'on_failure: template' takes the template's summary instead")
        _log.warning("%s: %s", where, problem)
        return _GIVEN_UP

    def _answer(self, text: str, parameters: dict[str, Any]) -> str:
        """The model's answer to ``text``; raises UnusableAnswer if there is none that could hold a summary."""
        raise NotImplementedError

    def _each(self, ask: Callable[[int], str], rows: Sequence[int]) -> Iterator[tuple[int, str]]:
        """Call ``ask`` on every row, and yield (place in ``rows``, result) as the results arrive."""
        raise NotImplementedError


def _cached_summary(cache: Cache, key: str) -> str | None:
    summary = cache.get(key)
    if summary is not None and not isinstance(summary, str):
        raise cache.fault(key, f"the cached summary is no text but a {type(summary).__name__}")
    return summary
