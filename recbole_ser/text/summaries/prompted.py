"""What all back-ends with a language model share: asking once per distinct prompt, checking, caching, retrying."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from tqdm import tqdm

from recbole_ser.errors import ConfigError, UserError
from recbole_ser.text.cache import Cache, key_of
from recbole_ser.text.openai_api import UnusableAnswer
from recbole_ser.text.summaries.prompts import PROMPT_VERSION, item_prompt, parse, prompt
from recbole_ser.text.summaries.template import TemplateSummariser
from recbole_ser.text.user_histories import Side, UserHistory

_GIVEN_UP = ""  # the cached value of a history about which no answer could be used
_log = logging.getLogger(__name__)


class PromptedSummariser:
    """A summariser that asks a language model.  Subclasses say how to ask; this class does everything else.

    The model is asked once about users with equal histories, and about items with equal texts.  Every answer goes into
    the cache as it arrives, under the hash of the model, its parameters and the prompt.

    Args:
        cache: file of answers, see ``text.cache``.
        model: what identifies the model, in values that JSON can hold.
        parameters: parameters of the generation; ``seed`` rises by one each time the model is asked again.
        ask_again: how often the model is asked again when an answer cannot be used.
        on_failure: what to do when no answer can be used: ``error``, or ``template`` to take the summary of
            ``TemplateSummariser``, and for an item its text as it was.
        factors: what the model is asked to go through, such as genre and mood.

    Attributes:
        report: for each side, and for ``items``, how many were ``asked`` about in the last call, and how many got the
            text of the ``template``.

    Raises:
        ConfigError: an argument is wrong.
    """

    backend: ClassVar[str]

    def __init__(
        self,
        cache: str | Path,
        model: dict[str, Any],
        parameters: dict[str, Any],
        ask_again: int,
        on_failure: str,
        factors: Sequence[str],
    ) -> None:
        if isinstance(factors, str) or not all(isinstance(factor, str) and factor.strip() for factor in factors):
            raise ConfigError(f"factors: {factors!r} is no list of texts, such as [genre, mood]")
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
        self._ask_again, self._on_failure, self._factors = ask_again, on_failure, list(factors)

    def describe(self) -> dict[str, Any]:
        factors = {"factors": self._factors} if self._factors else {}
        return {**self._source, "ask_again": self._ask_again, "on_failure": self._on_failure, **factors}

    def summarise(self, histories: Sequence[UserHistory], side: Side, progress: bool = False) -> list[str]:
        """A text for each history; '' where the side is empty.

        Raises:
            UserError: no answer about a history could be used and ``on_failure`` is ``error``, or the back-end failed.
            DataError: the cache is damaged.
        """

        def asked(row: int) -> str | None:
            history = histories[row]
            return prompt(history, side, self._factors) if history.length(side) else None

        texts, failed = self._answers(len(histories), asked, side, "users", progress)
        if failed:
            template = TemplateSummariser().summarise(histories, side)
            for row in failed:
                texts[row] = template[row]
        return texts

    def introduce(self, items: Sequence[str], progress: bool = False) -> list[str]:
        """A text about each item, given what a catalogue says about it; '' where that is nothing.

        Raises:
            UserError, DataError: as for ``summarise``.
        """

        def asked(row: int) -> str | None:
            return item_prompt(items[row], self._factors) if items[row] else None

        texts, failed = self._answers(len(items), asked, "items", "items", progress)
        for row in failed:
            texts[row] = items[row]
        return texts

    def _answers(
        self, count: int, asked: Callable[[int], str | None], name: str, unit: str, progress: bool
    ) -> tuple[list[str], list[int]]:
        """The answers to ``count`` prompts, and the rows where no answer could be used; '' there and without a prompt.

        Args:
            asked: gives the prompt of a row, or ``None`` if there is nothing to ask; called again when it is needed,
                since all prompts together may not fit into memory.
            name: the name of the rows in the report.
        """
        prompts = map(asked, range(count))
        keys = [None if text is None else key_of(**self._source, prompt=text) for text in prompts]
        first_rows = {key: row for row, key in reversed(list(enumerate(keys))) if key is not None}
        with Cache(self._cache) as cache:
            answers = {key: _cached_summary(cache, key) for key in first_rows}
            unanswered = (_GIVEN_UP, None) if self._on_failure == "error" else (None,)
            missing = sorted(first_rows[key] for key, answer in answers.items() if answer in unanswered)

            def ask(row: int) -> str:
                return self._ask_about(f"{unit[:-1]} row {row}", name, asked(row) or "")

            arriving = tqdm(
                self._each(ask, missing), desc=f"Summaries ({name})", unit=f" {unit}", total=len(missing),
                disable=None if progress else True,
            )  # fmt: skip
            for place, summary in arriving:
                key = keys[missing[place]]
                assert key is not None
                cache.put(key, summary)
                answers[key] = summary
        texts = ["" if key is None else answers[key] or "" for key in keys]
        failed = [row for row, key in enumerate(keys) if key is not None and answers[key] == _GIVEN_UP]
        self.report[name] = {"asked": len(missing), "template": len(failed)}
        if failed:
            _log.warning("%d of %d %s get the template's summary (%s)", len(failed), count, unit, name)
        return texts, failed

    def _ask_about(self, row: str, name: str, text: str) -> str:
        seed = self._parameters.get("seed")
        for attempt in range(self._ask_again + 1):
            again = {} if seed is None else {"seed": seed + attempt}
            try:
                return parse(self._answer(text, {**self._parameters, **again}))
            except UnusableAnswer as error:
                problem = error
        where = f"{row} ({name}), asked {self._ask_again + 1} times"
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
