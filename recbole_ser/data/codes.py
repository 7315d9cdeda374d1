"""The file ``X.codes``: discrete codes of every user's preferences in search and recommendation."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel
from torch import Tensor

from recbole_ser.atomic.ragged import Ragged
from recbole_ser.atomic.reading import read_atomic, read_header
from recbole_ser.atomic.schema import CODES, SEPARATOR, USER_ID
from recbole_ser.atomic.vocabulary import token_column
from recbole_ser.errors import DataError
from recbole_ser.files import atomic_write, sha256, write_json
from recbole_ser.records import read_record

COLUMNS = CODES.required
REBUILD = "build it anew with 'recbole-ser codes'"


@dataclass(frozen=True)
class UserCodes:
    """The codes of all users, as ids; codes of different levels have different ids, and each side has its own.

    Args:
        search, rec: int64 ``[user_num, L]``, the ids of each user's codes, numbered from 1 on each side; 0: no code.
        search_num, rec_num: number of code ids of a side, the padding id 0 included.
        origin: what the manifest says about how the codes were made.
        hash: SHA-256 of the file.
    """

    search: Tensor
    rec: Tensor
    search_num: int
    rec_num: int
    origin: dict[str, Any]
    hash: str


class _BackEnd(BaseModel, extra="allow"):
    backend: str


class _Manifest(BaseModel, extra="allow"):
    """What a manifest must say; it says more, and that is kept."""

    training_hash: str
    codes_hash: str
    settings: dict[str, Any]
    summaries: _BackEnd
    vectors: _BackEnd


def manifest_path(path: str | Path) -> Path:
    """``X.codes.json`` beside ``X.codes``."""
    return Path(f"{path}.json")


def training_hash(dataset: Any) -> str:
    """A hash of the events of the training period and of the texts of queries and items.

    Codes may only be used with the events and texts that they were made from.  What is held out, and which of all
    this a model reads, may differ.
    """
    digest = hashlib.sha256()
    log, interactions, searches = dataset.log, dataset.split.training_interactions, dataset.split.training_searches
    clicks = dataset.training_clicks
    for field, ids in [
        (dataset.uid_field, log.users[interactions]), (dataset.iid_field, log.items[interactions]),
        (dataset.uid_field, log.search_users(searches)), (dataset.query_field, log.queries[searches]),
        (dataset.iid_field, clicks.items),
    ]:  # fmt: skip
        used, places = np.unique(ids.numpy(), return_inverse=True)
        digest.update("\n".join(dataset.field2id_token[field][used] if len(used) else []).encode())
        digest.update(places.astype("<i4").tobytes())
    digest.update(np.unique(clicks.searches.numpy(), return_counts=True)[1].astype("<i4").tobytes())
    for suffix in ("query", "item"):
        path = Path(dataset.dataset_path) / f"{dataset.dataset_name}.{suffix}"
        digest.update(sha256(path).encode() if path.is_file() else b"none")
    return digest.hexdigest()


def write_codes(
    path: str | Path, dataset: Any, search: np.ndarray, rec: np.ndarray, origin: dict[str, Any]
) -> dict[str, Any]:
    """Write ``X.codes`` and its manifest, and return the manifest.

    Args:
        search, rec: ``[users, L]``, each user's code on each level, from 0; row r belongs to user id r + 1; -1: none.
        origin: how the codes were made, in values that JSON can hold.
    """
    tokens = dataset.id2token(dataset.uid_field, np.arange(1, dataset.user_num))
    with atomic_write(path) as handle:
        handle.write(SEPARATOR.join(column.label for column in COLUMNS) + "\n")
        for token, *sides in zip(tokens, search.tolist(), rec.tolist()):
            handle.write(SEPARATOR.join([token, *map(_code_tokens, sides)]) + "\n")
    manifest = {**origin, "training_hash": training_hash(dataset), "codes_hash": sha256(path)}
    write_json(manifest_path(path), manifest)
    return manifest


def read_codes(path: str | Path, dataset: Any) -> UserCodes:
    """Read the codes of the users of ``dataset``.

    Raises:
        DataError: the file or its manifest is missing or damaged, or was made from other training data; a user is
            missing from it or listed twice.
    """
    origin = read_manifest(path)
    if not Path(path).is_file():
        raise DataError(path, "file not found", hint=REBUILD)
    types = {column.name: column.type for column in read_header(path)}
    for column in COLUMNS:
        if column.name not in types:
            raise DataError(path, "the column is missing", line=1, column=column.name, hint=REBUILD)
        if types[column.name] != column.type:
            problem = f"the type is {types[column.name]}, not {column.type}"
            raise DataError(path, problem, line=1, column=column.name, hint=REBUILD)
    frame = read_atomic(path, COLUMNS, required=[USER_ID.name])
    digest = sha256(path)
    if origin["codes_hash"] != digest:
        raise DataError(path, "the file is not the one that its manifest describes", hint=REBUILD)
    if origin["training_hash"] != training_hash(dataset):
        raise DataError(path, "the codes were made from other data or under another protocol", hint=REBUILD)
    rows = _rows_of_users(path, frame[USER_ID.name], dataset)
    search, search_num = _table(frame[COLUMNS[1].name], rows)
    rec, rec_num = _table(frame[COLUMNS[2].name], rows)
    return UserCodes(search, rec, search_num, rec_num, origin, digest)


def read_manifest(path: str | Path) -> dict[str, Any]:
    """Read the manifest of ``path``, which says how the codes were made.

    Raises:
        DataError: the manifest is missing or damaged.
    """
    return read_record(manifest_path(path), _Manifest, REBUILD).model_dump()


def _rows_of_users(path: str | Path, users: Any, dataset: Any) -> np.ndarray:
    """The row ``[user_num]`` of the file that belongs to each user id; -1 for padding."""
    ids = dataset.field2token_id[dataset.uid_field]
    rows = np.full(dataset.user_num, -1)
    for row, user in enumerate(users):
        number = ids.get(user, 0)
        if number == 0:
            raise DataError(path, f"user '{user}' is not in the data set", line=row + 2, hint=REBUILD)
        if rows[number] >= 0:
            raise DataError(path, f"user '{user}' is listed twice", line=row + 2, hint=REBUILD)
        rows[number] = row
    missing = np.flatnonzero(rows[1:] < 0)
    if len(missing):
        token = dataset.id2token(dataset.uid_field, int(missing[0]) + 1)
        raise DataError(path, f"{len(missing):,} users are missing, the first is '{token}'", hint=REBUILD)
    return rows


def _table(texts: Any, rows: np.ndarray) -> tuple[Tensor, int]:
    column = token_column(texts, " ")
    lists = column.with_ids(np.arange(1, len(column.tokens) + 1, dtype=np.int64))
    assert isinstance(lists, Ragged)
    width = max(int(np.diff(lists.starts).max(initial=1)), 1)
    table = np.zeros((len(rows), width), dtype=np.int64)
    table[1:] = lists.padded(width)[rows[1:]]
    return torch.from_numpy(table), len(column.tokens) + 1


def _code_tokens(codes: list[int]) -> str:
    return " ".join(f"{level}-{code}" for level, code in enumerate(codes, start=1) if code >= 0)
