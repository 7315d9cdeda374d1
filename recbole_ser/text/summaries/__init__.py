"""From a user's history to a short text: the back-ends by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from recbole_ser.errors import ConfigError
from recbole_ser.text.summaries.openai import OpenAISummariser
from recbole_ser.text.summaries.template import TemplateSummariser
from recbole_ser.text.summaries.transformers import TransformersSummariser
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


SUMMARISERS: dict[str, Callable[..., Summariser]] = {
    "template": TemplateSummariser,
    "openai": OpenAISummariser,
    "transformers": TransformersSummariser,
}


def create_summariser(name: str, cache_folder: str | Path, **options: Any) -> Summariser:
    """The back-end ``name`` with the arguments of its class; one that asks a model keeps its answers in a file.

    Raises:
        ConfigError: there is no such back-end or option, an option is missing, or a value is wrong.
    """
    if name not in SUMMARISERS:
        raise ConfigError(f"there is no summariser '{name}': known are {', '.join(sorted(SUMMARISERS))}")
    factory = SUMMARISERS[name]
    parameters = dict(inspect.signature(factory).parameters)
    if parameters.pop("cache", None) is not None:
        factory = _with_cache(factory, Path(cache_folder) / f"summaries-{name}.jsonl")
    for option in sorted(options.keys() - parameters):
        known = f"known are {', '.join(sorted(parameters))}" if parameters else "it has none"
        raise ConfigError(f"summariser '{name}' has no option '{option}': {known}")
    needed = [option for option, parameter in parameters.items() if parameter.default is inspect.Parameter.empty]
    for option in needed:
        if options.get(option) is None:
            raise ConfigError(f"summariser '{name}' needs the option '{option}'")
    return factory(**options)


def _with_cache(factory: Callable[..., Summariser], path: Path) -> Callable[..., Summariser]:
    return lambda **options: factory(path, **options)
