"""Summaries of users' histories, and introductions of items, as short texts: the back-ends that can write them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from recbole_ser.text.backends import create_backend
from recbole_ser.text.user_histories import Side, UserHistory

if TYPE_CHECKING:
    from recbole_ser.text.summaries.prompted import PromptedSummariser


class Summariser(Protocol):
    """What the stages that make codes and vectors of texts need from a back-end.

    Attributes:
        report: what happened in ``summarise``, by side; it goes into the manifest but into no hash.
    """

    report: dict[str, Any]

    def describe(self) -> dict[str, Any]:
        """Everything that the texts depend on besides the histories, as JSON: back-end, model, parameters, versions."""
        ...

    def summarise(self, histories: Sequence[UserHistory], side: Side, progress: bool = False) -> list[str]:
        """A text for each history; '' where the side is empty."""
        ...


# The ``module:Class`` of each back-end, by its name; those of LANGUAGE_MODELS can introduce items too.
LANGUAGE_MODELS: dict[str, str] = {
    "openai": "recbole_ser.text.summaries.openai:OpenAISummariser",
    "transformers": "recbole_ser.text.summaries.transformers:TransformersSummariser",
}
SUMMARISERS: dict[str, str] = {
    "template": "recbole_ser.text.summaries.template:TemplateSummariser", **LANGUAGE_MODELS
}  # fmt: skip


def create_summariser(name: str, cache_folder: str | Path, **options: Any) -> Summariser:
    """Make the back-end ``name``, with ``options`` as the arguments of its class.

    A back-end that asks a model keeps the answers in a file in ``cache_folder``.

    Raises:
        ConfigError: there is no such back-end or option, an option is missing, or a value is wrong.
    """
    return create_backend("summariser", SUMMARISERS, name, Path(cache_folder) / f"summaries-{name}.jsonl", options)


def create_introducer(name: str, cache_folder: str | Path, **options: Any) -> PromptedSummariser:
    """Make the back-end ``name`` of ``LANGUAGE_MODELS``, a ``PromptedSummariser``, for texts about items.

    Raises:
        ConfigError: as for ``create_summariser``.
    """
    return create_backend("introducer", LANGUAGE_MODELS, name, Path(cache_folder) / f"items-{name}.jsonl", options)
