"""Making the back-end that a configuration chooses by name: ``template``, or ``{backend: openai, model: ...}``."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recbole_ser.errors import ConfigError
from recbole_ser.files import check_writable
from recbole_ser.text.openai_api import Client


def create_backend(kind: str, homes: Mapping[str, str], name: str, cache: Path, options: Mapping[str, Any]) -> Any:
    """Make the back-end ``name`` with ``options`` as the arguments of its class.

    A class that has a parameter ``cache`` gets the path of a file in which it keeps answers; one that has a parameter
    ``client`` gets a ``Client``, whose own arguments are options too.

    Args:
        kind: what the back-ends are, for error messages.
        homes: ``module:Class`` of each back-end by its name; the module, and the libraries it needs, is imported only
            when the back-end is asked for.
        name: name of the back-end.
        cache: file for the answers of the back-end.
        options: options of the back-end.

    Raises:
        ConfigError: there is no such back-end or option, an option is missing, or a value is wrong.
        UserError: ``cache`` cannot be written.
    """
    if name not in homes:
        near = difflib.get_close_matches(name, homes, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise ConfigError(f"there is no {kind} '{name}': {hint}known are {', '.join(homes)}")
    module, _, class_name = homes[name].partition(":")
    factory = getattr(importlib.import_module(module), class_name)
    own = dict(inspect.signature(factory).parameters)
    arguments: dict[str, Any] = {}
    if own.pop("cache", None) is not None:
        check_writable(cache)
        arguments["cache"] = cache
    of_client = {} if own.pop("client", None) is None else dict(inspect.signature(Client).parameters)
    known = {**of_client, **own}
    for option in sorted(options.keys() - known):
        listed = f"known are {', '.join(known)}" if known else "it has none"
        raise ConfigError(f"{kind} '{name}' has no option '{option}': {listed}")
    for option, parameter in known.items():
        if parameter.default is parameter.empty and options.get(option) is None:
            raise ConfigError(f"{kind} '{name}' needs the option '{option}'")
    if of_client:
        arguments["client"] = Client(**{option: value for option, value in options.items() if option in of_client})
    return factory(**arguments, **{option: value for option, value in options.items() if option in own})
