"""Candidates, the items that are ranked: one fixed list per evaluated target, the same for all models and epochs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from recbole_ser.data.histories import EventLog
from recbole_ser.data.keys import distinct
from recbole_ser.errors import DataError


@dataclass(frozen=True)
class CandidateTable:
    """The candidates of one split.

    Args:
        items: int32 ``[rows, C]``, the positive and C - 1 distinct items that the user never interacted with.
        positive_column: int64 ``[rows]``, the column of the positive; it is random, so no model can learn it.
    """

    items: Tensor
    positive_column: Tensor

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the table's contents: equal hashes mean the same candidates in the same columns."""
        digest = hashlib.sha256(repr(tuple(self.items.shape)).encode())
        digest.update(self.items.numpy().astype("<i4").tobytes())
        digest.update(self.positive_column.numpy().astype("<i8").tobytes())
        return digest.hexdigest()


def build_candidates(
    log: EventLog, targets: Tensor, target_num: int, negatives: int, distribution: str, seed: int | list[int]
) -> CandidateTable:
    """Draw ``negatives`` distinct candidates per target, and hide the positive among them.

    Items that the user interacted with, or clicked in search, at any time are never drawn.  All rows are drawn at
    once; then, round by round, only the entries that are repeated in their row or known to the user are drawn again.

    Args:
        targets: ``[rows]``, positions of the targets in the interactions of ``log``.
        target_num: items ``1 .. target_num - 1`` may be drawn.
        negatives: number of candidates of a target besides the positive.
        distribution: ``uniform``, or ``popularity``: in proportion to the number of all interactions with an item, as
            GSERec's published pipeline draws.
        seed: seed of the random generator.

    Raises:
        DataError: a user has too few items left to draw from.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    users = log.users[targets].numpy().astype(np.int64)
    known = _known_pairs(log, target_num)
    items = log.items.numpy()

    def draw(size: int | tuple[int, int]) -> np.ndarray:
        if distribution == "uniform":
            return generator.integers(1, target_num, size, dtype=np.int32)
        return items[generator.integers(0, len(items), size)]

    table = draw((len(users), negatives))
    rows = np.arange(len(users))
    for _ in range(_ROUNDS):
        bad = _repeated(table[rows]) | _contains(known, users[rows, None] * target_num + table[rows])
        remaining = bad.any(axis=1)
        rows, bad = rows[remaining], bad[remaining]
        if not len(rows):
            break
        part = table[rows]
        part[bad] = draw(int(bad.sum()))
        table[rows] = part
    else:
        _draw_exactly(table, rows, users, known, target_num, generator)
    positive_column = generator.integers(0, negatives + 1, len(users))
    return _hide(table, log.items[targets].numpy(), positive_column)


_ROUNDS = 50  # of redrawing; a row that is not complete then has a user who knows nearly every item


def _known_pairs(log: EventLog, target_num: int) -> np.ndarray:
    """Sorted keys ``user * target_num + item`` of every interaction and every click."""
    search_users = np.repeat(np.arange(len(log.search_start) - 1), np.diff(log.search_start.numpy()))
    click_users = np.repeat(search_users, np.diff(log.click_start.numpy()))
    clicked = log.clicks.numpy() < target_num
    users = np.concatenate([log.users.numpy(), click_users[clicked]])
    items = np.concatenate([log.items.numpy(), log.clicks.numpy()[clicked]])
    return distinct(users.astype(np.int64) * target_num + items)


def _repeated(table: np.ndarray) -> np.ndarray:
    """bool, like ``table [rows, n]``: which entries occur further left in their row already.

    Sorting each row puts equal entries side by side, in their old order; all but the first of them are repeated.
    """
    order = np.argsort(table, axis=1, kind="stable")
    ordered = np.take_along_axis(table, order, axis=1)
    repeated = np.zeros(table.shape, dtype=bool)
    np.put_along_axis(repeated, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
    return repeated


def _contains(known: np.ndarray, keys: np.ndarray) -> np.ndarray:
    place = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    return known[place] == keys


def _draw_exactly(
    table: np.ndarray,
    rows: np.ndarray,
    users: np.ndarray,
    known: np.ndarray,
    target_num: int,
    generator: np.random.Generator,
) -> None:
    """Fill each of ``rows`` from the shuffled items that its user does not know; few rows ever come here."""
    for row in rows:
        mine = known[slice(*np.searchsorted(known, [users[row] * target_num, (users[row] + 1) * target_num]))]
        unknown = np.setdiff1d(np.arange(1, target_num), mine - users[row] * target_num)
        if len(unknown) < table.shape[1]:
            raise DataError(
                "candidates", f"a user never met only {len(unknown)} items, {table.shape[1]} are wanted",
                hint="take fewer with eval_args.mode uni<N>, or rank the whole catalogue with full",
            )  # fmt: skip
        table[row] = generator.permutation(unknown)[: table.shape[1]]


def _hide(negatives: np.ndarray, positives: np.ndarray, column: np.ndarray) -> CandidateTable:
    """Put each row's positive into its column; the negative that stood there moves to the end."""
    items = np.concatenate([negatives, positives[:, None]], axis=1).astype(np.int32)  # [rows, C]
    rows = np.arange(len(items))
    items[rows, -1] = items[rows, column]
    items[rows, column] = positives
    return CandidateTable(torch.from_numpy(items), torch.from_numpy(column.astype(np.int64)))
