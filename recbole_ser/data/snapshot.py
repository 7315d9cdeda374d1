"""A loaded data set as arrays and facts that can be kept, and back.

Times, texts and frames of the files are not among them: they are what loading is done with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from recbole.data.interaction import Interaction
from recbole.utils import FeatureSource, FeatureType
from torch import Tensor

from recbole_ser.atomic.vocabulary import TokenIds
from recbole_ser.data.cache import Kept
from recbole_ser.data.histories import EventLog
from recbole_ser.data.instances import Split
from recbole_ser.data.splits import TimePoints

_PARTS: dict[str, type] = {"log": EventLog, "split": Split, "points": TimePoints}
_TABLES = ("item_attributes", "user_attributes", "item_numbers", "user_numbers")
_FRAMES = ("item_feat", "user_feat")
_TENSORS = ("query_terms", "training_pairs")
_FACTS = ("target_num", "field2seqlen", "feat_name_list")
_SOURCES = {kind.value: kind for kind in FeatureSource}


def taken(dataset: Any, more: tuple[str, ...]) -> Kept:
    """What is kept of a data set that has been loaded.

    Args:
        more: names of further attributes that are arrays.
    """
    groups: dict[str, Mapping[str, Any]] = {table: getattr(dataset, table) for table in _TABLES}
    for name in _PARTS:
        part = getattr(dataset, name)
        groups[name] = {} if part is None else {field.name: getattr(part, field.name) for field in fields(part)}
    for name in _FRAMES:
        frame = getattr(dataset, name)
        groups[name] = {} if frame is None else frame.interaction
    groups["tensors"] = {name: getattr(dataset, name) for name in _TENSORS}
    groups["more"] = {name: getattr(dataset, name) for name in more}
    groups["preloaded"] = dataset._preloaded_weight
    spaces, groups["tokens"] = _taken_tokens(dataset.field2id_token)
    facts = {
        **{name: getattr(dataset, name) for name in _FACTS}, "spaces": spaces,
        "types": {field: kind.value for field, kind in dataset.field2type.items()},
        "sources": {field: getattr(source, "value", source) for field, source in dataset.field2source.items()},
        "files": [field for field, source in dataset.field2source.items() if isinstance(source, str)],
    }  # fmt: skip
    return Kept(
        {
            f"{group}/{name}": np.asarray(array)
            for group, arrays in groups.items()
            for name, array in arrays.items()
            if array is not None
        },
        facts,
    )


def restore(dataset: Any, kept: Kept) -> None:
    """Give ``dataset`` what `taken` took of the loaded one."""
    groups: dict[str, dict[str, np.ndarray]] = {}
    for path, array in kept.arrays.items():
        group, _, name = path.partition("/")
        groups.setdefault(group, {})[name] = array
    for table in _TABLES:
        setattr(dataset, table, _tensors(groups.get(table, {})))
    for name, kind in _PARTS.items():
        setattr(dataset, name, kind(**_with_none(kind, _tensors(groups[name]))) if name in groups else None)
    for name in _FRAMES:
        setattr(dataset, name, Interaction(_tensors(groups[name])) if name in groups else None)
    for name, tensor in _tensors(groups["tensors"]).items():
        setattr(dataset, name, tensor)
    for name, array in groups.get("more", {}).items():
        setattr(dataset, name, array)
    dataset._preloaded_weight = groups.get("preloaded", {})
    facts = kept.facts
    for name in _FACTS:
        setattr(dataset, name, facts[name])
    dataset.field2type = {field: FeatureType(kind) for field, kind in facts["types"].items()}
    dataset.field2source = {
        field: source if field in facts["files"] else _SOURCES[source] for field, source in facts["sources"].items()
    }
    tokens = _given_tokens(groups["tokens"])
    dataset.field2id_token = {field: tokens[space] for field, space in facts["spaces"].items()}
    dataset.field2token_id = TokenIds(dataset.field2id_token)
    dataset.search_feat = dataset.query_feat = dataset.inter_feat = None
    dataset.sequences = {}


def _tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _with_none(kind: type, values: dict[str, Tensor]) -> dict[str, Tensor | None]:
    """The arguments of the dataclass ``kind``, with ``None`` for those that are not among ``values``."""
    return {field.name: values.get(field.name) for field in fields(kind)}


def _taken_tokens(id_token: Mapping[str, np.ndarray]) -> tuple[dict[str, int], dict[str, np.ndarray]]:
    """The number of each field's id space, and the tokens of each space as UTF-8 and as where each token begins."""
    spaces = list({id(tokens): tokens for tokens in id_token.values()}.values())
    numbers = {id(tokens): number for number, tokens in enumerate(spaces)}
    arrays = {}
    for number, tokens in enumerate(spaces):
        _, starts, text = pa.array(tokens, pa.large_string()).buffers()
        arrays[f"{number}.starts"] = np.frombuffer(starts, np.int64)[: len(tokens) + 1]
        arrays[f"{number}.text"] = np.frombuffer(text, np.uint8)
    return {field: numbers[id(tokens)] for field, tokens in id_token.items()}, arrays


def _given_tokens(arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The tokens of each id space, as an array of texts."""
    spaces = []
    for number in range(len(arrays) // 2):
        starts, text = (pa.py_buffer(arrays[f"{number}.{part}"]) for part in ("starts", "text"))
        tokens = pa.LargeStringArray.from_buffers(len(arrays[f"{number}.starts"]) - 1, starts, text)
        spaces.append(tokens.to_numpy(zero_copy_only=False))
    return spaces
