"""What runs that are compared must have in common, and the data that they were tested on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recbole_ser.data.dataset import SERDataset
from recbole_ser.errors import UserError
from recbole_ser.runs.folder import RunFolder
from recbole_ser.runs.loading import load_data, run_config

_SHORT = 12  # characters of a hash


def refuse_other_targets(first: RunFolder, other: RunFolder) -> None:
    """Make sure that both runs ranked the same items for the same targets of the same data.

    Raises:
        UserError: they did not; the message names both and says what differs.
    """
    a, b = first.data(), other.data()
    pairs: list[tuple[str, Any, Any]] = [
        ("data sets", a["hash"], b["hash"]),
        ("protocols", a["protocol"], b["protocol"]),
        ("test targets", a["targets"].get("test", "none"), b["targets"].get("test", "none")),
        ("test candidates", a["candidates"].get("test", "none"), b["candidates"].get("test", "none")),
        ("numbers of users, items or events", a["counts"], b["counts"]),
    ]
    for what, one, two in pairs:
        if one != two:
            short = None if what == "protocols" else _SHORT
            names = f" ({one[:short]} and {two[:short]})" if isinstance(one, str) else ""
            raise UserError(f"{first.path} and {other.path} cannot be compared: their {what} differ{names}")


def refuse_other_users(folders: Sequence[RunFolder], users: Sequence[list[str]]) -> None:
    """Make sure that the ranks of all runs are of the same users.

    Raises:
        UserError: they are not.
    """
    for folder, names in zip(folders, users):
        if names != users[0]:
            raise UserError(f"{folder.path}: ranks.csv has other users than that of {folders[0].path}")


def tested_dataset(folder: RunFolder, users: list[str], model: str | None) -> SERDataset:
    """The data set as the run had it, after a check that ``users`` are the users of its test targets.

    Args:
        model: the run's model, if no installed package registers it, see ``run_config``.

    Raises:
        UserError: they are not, or the data files have changed.
    """
    dataset = load_data(folder, run_config(folder, model), SERDataset)
    tested = dataset.log.users[dataset.split.test.long()].numpy()
    if dataset.id2token(dataset.uid_field, tested).tolist() != users:
        raise UserError(f"{folder.path}: the users in ranks.csv are not those of the test split")
    return dataset
