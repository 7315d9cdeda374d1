"""The folder ``X.texts``: the vectors of what the texts of items and users say, in one space."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel
from torch import Tensor

from recbole_ser.data.codes import training_hash
from recbole_ser.data.vector_file import read_vectors
from recbole_ser.errors import DataError
from recbole_ser.files import atomic_write, sha256, write_json
from recbole_ser.records import read_record

REBUILD = "build it anew with 'recbole-ser texts'"


@dataclass(frozen=True)
class TextVectors:
    """The vectors of the texts of all items, or of all users.

    Args:
        vectors: float32 ``[n, m]``, by id.  A row has length 1, or is zero: the padding id 0, and what has no text.
        origin: what the manifest says about how the vectors were made.
        hash: a hash of the vectors of items and users together.
    """

    vectors: Tensor
    origin: dict[str, Any]
    hash: str


class _BackEnd(BaseModel, extra="allow"):
    backend: str


class _Manifest(BaseModel, extra="allow"):
    """What a manifest must say; it says more, and that is kept."""

    training_hash: str
    ids_hash: str
    items_hash: str
    users_hash: str
    dimension: int
    settings: dict[str, Any]
    items: _BackEnd
    users: _BackEnd
    vectors: _BackEnd


def manifest_path(folder: str | Path) -> Path:
    """``texts.json`` in the folder; it is written last."""
    return Path(folder) / "texts.json"


def vector_paths(folder: str | Path) -> tuple[Path, Path]:
    """``items.npy`` and ``users.npy`` in the folder."""
    return Path(folder) / "items.npy", Path(folder) / "users.npy"


def write_text_vectors(
    folder: str | Path, dataset: Any, items: np.ndarray, users: np.ndarray, origin: dict[str, Any]
) -> dict[str, Any]:
    """Write the vectors and their manifest, and return the manifest.

    Args:
        items: float32 ``[item_num - 1, m]``; row r belongs to item id r + 1.  Rows have length 1 or are zero.
        users: float32 ``[user_num - 1, m]``, of users likewise.
        origin: how the vectors were made, in values that JSON can hold.
    """
    for path, vectors in zip(vector_paths(folder), (items, users)):
        with atomic_write(path, "wb") as handle:
            np.save(handle, np.concatenate([np.zeros_like(vectors[:1]), vectors]), allow_pickle=False)
    items_hash, users_hash = map(sha256, vector_paths(folder))
    manifest = {
        **origin, "dimension": items.shape[1], "training_hash": training_hash(dataset), "ids_hash": ids_hash(dataset),
        "items_hash": items_hash, "users_hash": users_hash,
    }  # fmt: skip
    write_json(manifest_path(folder), manifest)
    return manifest


def read_text_vectors(folder: str | Path, dataset: Any) -> tuple[TextVectors, TextVectors]:
    """Read the vectors of the items and of the users of ``dataset``.

    Raises:
        DataError: a file or the manifest is missing or damaged, or was made from other training data, or for other
            items or users.
    """
    manifest = read_text_manifest(folder)
    if manifest["training_hash"] != training_hash(dataset):
        raise DataError(folder, "the texts were made from other data or under another protocol", hint=REBUILD)
    if manifest["ids_hash"] != ids_hash(dataset):
        raise DataError(folder, "the texts were made for other items or users", hint=REBUILD)
    items, users = vector_paths(folder)
    tables = [
        _table(items, (dataset.item_num, manifest["dimension"]), manifest["items_hash"]),
        _table(users, (dataset.user_num, manifest["dimension"]), manifest["users_hash"]),
    ]
    hash = texts_hash(manifest)
    return TextVectors(tables[0], manifest, hash), TextVectors(tables[1], manifest, hash)


def read_text_manifest(folder: str | Path) -> dict[str, Any]:
    """Read the manifest in ``folder``, which says how the vectors were made.

    Raises:
        DataError: the manifest is missing or damaged.
    """
    return read_record(manifest_path(folder), _Manifest, REBUILD).model_dump()


def texts_hash(manifest: dict[str, Any]) -> str:
    """A hash of the vectors of items and users together."""
    return hashlib.sha256(f"{manifest['items_hash']} {manifest['users_hash']}".encode()).hexdigest()


def ids_hash(dataset: Any) -> str:
    """A hash of the raw ids of all items and users in the order of their ids, which rows of vectors follow."""
    digest = hashlib.sha256()
    for field in (dataset.iid_field, dataset.uid_field):
        digest.update("\n".join([*map(str, dataset.field2id_token[field]), ""]).encode())
    return digest.hexdigest()


def _table(path: Path, shape: tuple[int, int], expected_hash: str) -> Tensor:
    vectors = read_vectors(path, REBUILD)
    if vectors.shape != shape or vectors.dtype != np.float32:
        problem = f"holds {vectors.dtype} {list(vectors.shape)}, not float32 {list(shape)}"
        raise DataError(path, problem, hint=REBUILD)
    if sha256(path) != expected_hash:
        raise DataError(path, "the file is not the one that its manifest describes", hint=REBUILD)
    return torch.from_numpy(np.array(vectors))
