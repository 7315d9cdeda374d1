"""The histories of a user at one moment, and what is ranked for the user then."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_ser.data.loader import EvalLoader, instances
from recbole_ser.errors import ConfigError, UserError
from recbole_ser.inference.given_events import numbered
from recbole_ser.inference.recommender import Recommender

Phase = Literal["valid", "test"]


class Moment(NamedTuple):
    """A user at one moment, and what is ranked then.

    Args:
        batch: one row on the CPU, with the histories that the model is given.
        ends: where the user's interactions, and the searches, before this moment end in the log.
        item: id of the item that is explained.
        items: ids of what is ranked ``[n]``, in the order that decides between equal scores.
        catalogue: whether that is the whole catalogue, and not the candidates of a target.
        later_targets: how many targets the user has in the same split after this one.
    """

    batch: Interaction
    ends: tuple[int, int]
    item: int
    items: Tensor
    catalogue: bool
    later_targets: int = 0


def moment_of(recommender: Recommender, user: str, item: str | None, target: Phase | None) -> Moment:
    """The moment that `explain` is asked about, by raw ids.

    Raises:
        ConfigError: ``target`` is no split with targets that are ranked.
        UserError: the user or the item is unknown, or is not ranked at that moment.
    """
    dataset = recommender.dataset
    number = _known(recommender, "user", dataset.uid_field, user)
    chosen = None if item is None else _known(recommender, "item", dataset.iid_field, item)
    if chosen is not None and chosen >= dataset.target_num:
        raise UserError(f"item '{item}' is never ranked: it was only ever clicked in searches")
    if target is None:
        return _now(recommender, number, chosen)
    if target not in ("valid", "test"):
        raise ConfigError(f"target must be valid or test, not {target}")
    return _at_target(recommender, number, chosen, target)


def _known(recommender: Recommender, what: str, field: str, token: str) -> int:
    (number,) = numbered(recommender.dataset, field, np.array([token], dtype=object)).tolist()
    if not number:
        raise UserError(f"{what} '{token}' is not in the data of this run")
    return number


def _now(recommender: Recommender, user: int, item: int | None) -> Moment:
    """After all events of the user, as ``Recommender.recommend`` has it; by default with the item that is first."""
    dataset, log = recommender.dataset, recommender.dataset.log
    if item is None:
        first = recommender.recommend([dataset.id2token(dataset.uid_field, user)], 1)
        item = int(dataset.token2id(dataset.iid_field, first["item_id"].iloc[0]))
    row = np.array([user])
    batch, _ = recommender.histories(row, row, row * 0)
    ends = int(log.user_start[user + 1]), int(log.search_start[user + 1])
    return Moment(batch.to("cpu"), ends, item, torch.arange(1, dataset.target_num), catalogue=True)


def _at_target(recommender: Recommender, user: int, item: int | None, phase: Phase) -> Moment:
    """At the user's latest target, of the item if there is such a one, as the evaluation ranks it."""
    dataset, log = recommender.dataset, recommender.dataset.log
    loader = EvalLoader(recommender.config, dataset, phase)
    rows = (loader.users == user).nonzero().squeeze(1)
    if not len(rows):
        name = dataset.id2token(dataset.uid_field, user)
        raise UserError(f"user '{name}' has no {phase} target: leave target out to explain a score of now")
    of_item = rows[log.items[loader.positions[rows]] == item] if item is not None else rows
    row = int((of_item if len(of_item) else rows)[-1])
    position = int(loader.positions[row])
    items = loader.catalogue if loader.candidates is None else loader.candidates.items[row].long()
    explained = int(log.items[position]) if item is None else item
    if explained not in items:
        name = dataset.id2token(dataset.iid_field, explained)
        raise UserError(f"item '{name}' is not among the {len(items)} items that were ranked for this {phase} target")
    return Moment(
        Interaction(instances(dataset, loader.positions[row : row + 1], loader.reader)),
        (position, int(log.searches_before[position])),
        explained,
        items,
        loader.candidates is None,
        int((rows > row).sum()),
    )
