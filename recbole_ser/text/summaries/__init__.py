"""From a user's history to a short text: the back-ends by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from recbole_ser.text.backends import create_backend
from recbole_ser.text.user_histories import Side, UserHistory


class Summariser(Protocol):
    """What the codes stage asks of a back-end.

    Attributes:
        report: what happened in ``summarise``, by side; goes into the manifest and has no part in any hash.
    """

    report: dict[str, Any]

    def describe(self) -> dict[str, Any]:
        """Everything that the texts depend on besides the histories, as JSON: back-end, model, parameters, versions."""
        ...

    def summarise(self, histories: Sequence[UserHistory], side: Side, progress: bool = False) -> list[str]:
        """A text for each history; '' where the side is empty."""
        ...


# Name -> ``module:Class``.
SUMMARISERS: dict[str, str] = {
    "template": "recbole_ser.text.summaries.template:TemplateSummariser",
    "openai": "recbole_ser.text.summaries.openai:OpenAISummariser",
    "transformers": "recbole_ser.text.summaries.transformers:TransformersSummariser",
}


def create_summariser(name: str, cache_folder: str | Path, **options: Any) -> Summariser:
    """The back-end ``name`` with the arguments of its class; one that asks a model keeps its answers in a file.

    Raises:
        ConfigError: there is no such back-end or option, an option is missing, or a value is wrong.
    """
    return create_backend("summariser", SUMMARISERS, name, Path(cache_folder) / f"summaries-{name}.jsonl", options)
