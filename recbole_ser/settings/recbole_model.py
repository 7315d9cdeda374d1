"""The declaration of the settings of RecBole's own models: their YAML files, whose comments say what a value means.

    hidden_dropout_prob: 0.5        # (float) The probability of an element to be zeroed.
    loss_type: 'CE'                 # (str) The type of loss function. Range in ['BPR', 'CE'].

The type is that of the value.  The range follows from the comment where it lists the values, from names that RecBole
uses alike in all its models, and else from the value: what is positive stays positive, what is 0 may grow.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, create_model

from recbole_ser.settings.declaration import setting
from recbole_ser.settings.model import ModelSettings
from recbole_ser.settings.types import Layers, Positive, Probability, Width
from recbole_ser.yaml_values import read_yaml

_COMMENT = re.compile(r"^([\w-]+):[^#]*#\s*(?:\([^)]*\)\s*)?(.*)$")
_LISTED = re.compile(r"[Rr]ange in:? ?\[([^\]]*)\]")
_ACTIVATIONS = Literal["gelu", "relu", "swish", "tanh", "sigmoid"]  # of recbole.model.layers.FeedForward
_LOSSES = Literal["CE", "BPR"]

# Patterns of names, of which the first one that matches decides.
_BY_NAME: list[tuple[str, Any]] = [
    (r"drop(out)?(_|s$|$)|_dropout$|_prob$|^mask_ratio$|^ft_ratio$|^corruption_ratio$", Probability),
    (r"^hidden_act$", _ACTIVATIONS),
    (r"^loss_type$", _LOSSES),
    (r"(^|_)(temp|tau|temperature)$", Positive),
    (r"^(n|num)_(layers|heads)$", Layers),
    (r"(embedding|hidden|inner|attention)_size$", Width),
]


@cache
def recbole_settings(path: Path) -> type[ModelSettings]:
    """The settings that the YAML file ``path`` of a RecBole model declares."""
    lines = map(_COMMENT.match, path.read_text(encoding="utf-8").splitlines())
    comments = {line[1]: line[2] for line in lines if line}
    fields: dict[str, Any] = {
        key: (_kind(key, value, comments.get(key, "")), setting(_meaning(comments.get(key, "")), default=value))
        for key, value in read_yaml(path).items()
    }
    return create_model(f"{path.stem}Settings", __base__=ModelSettings, **fields)


def _meaning(comment: str) -> str:
    text = _LISTED.sub("", comment).strip(" .")
    return text[:1].lower() + text[1:]


def _kind(key: str, value: Any, comment: str) -> Any:
    if isinstance(value, list):
        entry = _kind(key, value[0], "") if value else Any
        fixed = bool(value) and not isinstance(value[0], (int, str))  # one number for each of several parts
        least, most = (len(value), len(value)) if fixed else (min(1, len(value)), 1000)
        return Annotated[list[entry], Field(min_length=least, max_length=most)]  # type: ignore[valid-type]
    if isinstance(value, bool):
        return bool
    listed = _LISTED.search(comment)
    if isinstance(value, str) and listed:
        choices = [choice.strip().strip("'\"") for choice in listed[1].split(",")]
        return Literal[tuple(dict.fromkeys([*choices, value]))]  # type: ignore[misc]
    for pattern, kind in _BY_NAME:
        if re.search(pattern, key) and (isinstance(value, str) == (kind in (_ACTIVATIONS, _LOSSES))):
            return kind
    if isinstance(value, int) and "float" not in comment and not re.search(r"weight|reg|ratio", key):
        least = -1_000 if value < 0 else min(value, 1)
        return Annotated[int, Field(ge=least, le=max(1_000_000, value))]
    if isinstance(value, (int, float)):
        return Annotated[float, Field(ge=-1_000_000 if value < 0 else 0, le=1_000_000)]
    return str if isinstance(value, str) else Any
