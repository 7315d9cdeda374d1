"""The folder of texts' vectors: what is written is read again, and nothing damaged or of other data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_ser.data.dataset import SERDataset
from recbole_ser.data.text_vectors import manifest_path, read_text_vectors, write_text_vectors
from recbole_ser.errors import DataError
from recbole_ser.testing import write_random_texts

Toy = Callable[..., SERDataset]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "made" / "toy.texts"


def refusal(folder: Path, dataset: SERDataset) -> str:
    """The one line that says what is wrong, and what to do about it."""
    with pytest.raises(DataError) as caught:
        read_text_vectors(folder, dataset)
    message = str(caught.value)
    assert message.startswith(str(folder)) and "\n" not in message and "'recbole-ser texts'" in message
    return message.removeprefix(str(folder))


def test_rows_are_read_by_id_and_padding_is_zero(toy: Toy, folder: Path) -> None:
    dataset = toy(texts_folder=str(folder))
    items, users = np.eye(dataset.item_num - 1, 6, dtype=np.float32), np.eye(dataset.user_num - 1, 6, dtype=np.float32)
    back_ends = {name: {"backend": "mine"} for name in ("items", "users", "vectors")}
    manifest = write_text_vectors(folder, dataset, items, users, {"settings": {}, **back_ends})
    assert sorted(file.name for file in folder.iterdir()) == ["items.npy", "texts.json", "users.npy"]
    for found, expected in [(dataset.item_texts, items), (dataset.user_texts, users)]:
        assert found.vectors.dtype == torch.float32 and not found.vectors[0].any()
        assert torch.equal(found.vectors[1:], torch.from_numpy(expected))
        assert found.origin == manifest and found.hash == dataset.item_texts.hash


def test_files_that_are_missing_or_damaged_are_refused_in_a_line(toy: Toy, folder: Path) -> None:
    dataset = toy()
    assert refusal(folder, dataset).startswith("/texts.json: file not found")
    write_random_texts(folder, dataset)
    whole = {path: path.read_bytes() for path in folder.iterdir()}
    items, users = folder / "items.npy", folder / "users.npy"

    def damaged(path: Path, content: bytes) -> str:
        for name, data in whole.items():
            name.write_bytes(data)
        path.write_bytes(content)
        return refusal(folder, dataset)

    changed = bytearray(whole[items])
    changed[-2] ^= 1
    assert "not the one that its manifest describes" in damaged(items, bytes(changed))
    assert damaged(users, whole[users][:-4]).startswith("/users.npy: cannot be read")
    assert damaged(users, b"").startswith("/users.npy: cannot be read")
    assert damaged(users, whole[items]).startswith("/users.npy: holds float32 [")
    assert damaged(manifest_path(folder), b"{").startswith("/texts.json: damaged")
    listed = json.loads(whole[manifest_path(folder)])
    for key in ("dimension", "ids_hash", "vectors"):
        lacking = {name: value for name, value in listed.items() if name != key}
        assert f"damaged: {key}" in damaged(manifest_path(folder), json.dumps(lacking).encode())


def test_texts_of_other_events_or_items_are_refused(toy: Toy, folder: Path) -> None:
    inter = ["a i1 10", "a i2 20", "a i3 30", "a i4 40", "a i5 50"]
    write_random_texts(folder, toy(inter=inter))
    assert ": the texts were made from other data" in refusal(folder, toy(inter=["a i9 10", *inter[1:]]))
    # Another held-out item, which the training events do not know of.
    assert ": the texts were made for other items" in refusal(folder, toy(inter=[*inter[:-1], "a i7 50"]))
    read_text_vectors(folder, toy(inter=inter))
