"""Batches of training instances with fresh negatives, and of evaluated targets with their candidates."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from recbole.utils import InputType, ModelType
from torch import Tensor

from recbole_ser.data.cache import Kept
from recbole_ser.data.candidates import CandidateTable, build_candidates
from recbole_ser.data.dataset import SERDataset
from recbole_ser.data.instances import last_training_interactions
from recbole_ser.data.negatives import NegativeSampler
from recbole_ser.recbole_models import learns_from_users
from recbole_ser.workers import group
from recbole_ser.workers.rows import own_part


class JointBatch(Interaction):
    """Training instances and, beside them, instances of the search task.

    ``search`` has the share of this batch when all instances of the search task are spread over the epoch; ``None`` if
    that is empty.
    """

    def __init__(self, interaction: dict[str, Tensor], search: Interaction | None) -> None:
        super().__init__(interaction)
        self.search = search

    def to(self, device: torch.device | str, selected_field: Any = None) -> JointBatch:
        moved = super().to(device, selected_field)
        return JointBatch(moved.interaction, None if self.search is None else self.search.to(device))


class SearchTask:
    """Instances of the search task: each training search with one item clicked under it.

    Attributes:
        rows: number of instances per epoch.
    """

    def __init__(self, dataset: SERDataset, negatives: Mapping[str, Any]) -> None:
        self.dataset, self.sample_num = dataset, negatives["sample_num"]
        self.positions = dataset.split.search_train
        self.rows = len(self.positions)
        self.reader = dataset.history_reader()
        clicks = dataset.training_clicks
        self.sampler = NegativeSampler(
            dataset.log, dataset.split, dataset.target_num, negatives["distribution"], negatives["alpha"],
            (clicks.users, clicks.items), dataset.training_pairs,
        )  # fmt: skip

    def batches(
        self, count: int, generator: torch.Generator, parts: Iterable[Callable[[int], slice]]
    ) -> Iterator[Interaction | None]:
        """All instances, shuffled if the others are, in ``count`` batches of nearly one size (empty: ``None``).

        Of a batch that is divided this worker gets its part; negatives are drawn for all rows, so that they depend on
        no division.
        """
        order = in_order(self.rows, self.dataset.config["shuffle"], generator)
        for chosen, part in zip(order.tensor_split(count), parts):
            yield self._batch(self.positions[chosen], generator, part(len(chosen))) if len(chosen) else None

    def size(self, number: int, count: int) -> int:
        """The number of instances in batch ``number`` of ``count``."""
        return self.rows // count + (number < self.rows % count)

    def _batch(self, clicks: Tensor, generator: torch.Generator, own: slice) -> Interaction:
        dataset, log = self.dataset, self.dataset.log
        searches = log.searches_of_clicks(clicks)
        users = log.search_users(searches)
        negatives = self.sampler.draw(users, self.sample_num, generator)[own]
        clicks, searches, users = clicks[own], searches[own], users[own]
        return Interaction(
            {
                dataset.uid_field: users,
                "query_id": log.queries[searches].long(),
                dataset.iid_field: log.clicks[clicks].long(),
                dataset.config["NEG_PREFIX"] + dataset.iid_field: negatives,
                **self.reader.read_searches(searches),
            }
        )


class TrainLoader:
    """Training instances, with new negatives in every epoch and, with ``shuffle``, in a new order.

    A model with ``search_task`` gets `JointBatch` objects, which bring all instances of the search task once an epoch.

    What a row is, a model of ours says with ``trains_on``: one of the training ``targets`` with its history, which is
    also what RecBole's sequential models get; any of the ``interactions`` of the training period, without history,
    which is what RecBole's general ones get; or one of the ``users``: ``item_id`` is the latest interaction of the
    training period, and also the last of ``item_id_list [B, L + 1]``, behind the L before it.  RecBole's autoencoders,
    which read what a user interacted with from a table of their own, get users without a history.

    Negatives come as our models read them, ``neg_item_id [B, N]``, or as RecBole's do: repeated rows for a pairwise
    model, labelled rows for a pointwise one.  A model that trains on users gets some for every position of the history,
    ``neg_item_id [B, L + 1, N]``, and none for a softmax over all items.

    Where several workers share the batches, each gets its rows of every batch that has at least as many rows as there
    are workers, and all rows of a smaller one.  All of them draw the order and the negatives of whole batches.

    Attributes:
        rows: number of positives per epoch.
    """

    def __init__(self, config: Any, dataset: SERDataset) -> None:
        self.config, self.dataset = config, dataset
        self.shuffle: bool = config["shuffle"]
        self.trains_on = training_rows(config)
        self.positions = self._positions()
        self.rows = len(self.positions)
        self.batch_size = config["train_batch_size"]
        self.reader = dataset.history_reader()
        negatives = config["train_neg_sample_args"]
        self.with_history = config["MODEL_TYPE"] == ModelType.SEQUENTIAL and self.trains_on != "interactions"
        all_items = self.trains_on == "users" and (not self.with_history or config["loss_type"] == "CE")
        without = negatives["distribution"] == "none" or all_items
        self.sample_num = 0 if without else negatives["sample_num"]
        self.sampler = None
        if self.sample_num:
            distribution = (negatives["distribution"], negatives["alpha"])
            self.sampler = NegativeSampler(
                dataset.log, dataset.split, dataset.target_num, *distribution, pairs=dataset.training_pairs
            )
        self.search_task = None
        if getattr(dataset.config.model_class, "search_task", False) and config["search_weight"]:
            self.search_task = SearchTask(dataset, negatives)
        self.set_epoch(0)

    def _positions(self) -> Tensor:
        """The position in the log of each row."""
        split = self.dataset.split
        if self.trains_on == "targets":
            return split.train
        if self.trains_on == "interactions":
            return split.training_interactions
        return last_training_interactions(self.dataset.log, split)

    def __len__(self) -> int:
        return -(-self.rows // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Fix the order and the negatives of the passes that follow: they depend on the seed and ``epoch`` alone."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Interaction]:
        seeds = np.random.SeedSequence([self.config["seed"], self.epoch]).generate_state(2)
        generator, search_generator = (torch.Generator().manual_seed(int(seed)) for seed in seeds)
        chosen = in_order(self.rows, self.shuffle, generator).split(self.batch_size)
        parts = [own_part if self.is_divided(number) else slice for number in range(len(self))]
        batches = (self._batch(self.positions[rows], generator, part(len(rows))) for rows, part in zip(chosen, parts))
        if self.search_task is None:
            yield from batches
        else:  # its own generator leaves the batches of recommendation the same as for other models
            searches = self.search_task.batches(len(self), search_generator, parts)
            for batch, search in zip(batches, searches):
                yield JointBatch(batch.interaction, search)

    def size(self, number: int) -> int:
        """The number of positives in batch ``number``."""
        return min(self.batch_size, self.rows - number * self.batch_size)

    def is_divided(self, number: int) -> bool:
        """Whether the rows of batch ``number`` are divided among the workers, each of which then has at least one."""
        searches = 0 if self.search_task is None else self.search_task.size(number, len(self))
        return min(self.size(number), searches or self.size(number)) >= group.count()

    def share(self, number: int) -> float:
        """The share of batch ``number`` that this worker answers for."""
        if not self.is_divided(number):
            return 1 / group.count()
        own = own_part(self.size(number))
        return (own.stop - own.start) / self.size(number)

    def _batch(self, positions: Tensor, generator: torch.Generator, own: slice) -> Interaction:
        """The rows ``own`` of the batch of ``positions [B]``; negatives are drawn for all of them."""
        batch = instances(self.dataset, positions[own], self.reader if self.trains_on == "targets" else None)
        if self.trains_on == "users" and self.with_history:
            batch.update(self.reader.read_through(positions[own]))
        if self.sampler is None:
            return Interaction(batch)
        users = self.dataset.log.users[positions].long()  # [B]
        if self.trains_on == "users":
            length = batch[self.reader.item_list].shape[1]  # L + 1
            negatives = self.sampler.draw(users, length * self.sample_num, generator)[own]
            return Interaction({**batch, self._negative_field: negatives.unflatten(1, (length, self.sample_num))})
        negatives = self.sampler.draw(users, self.sample_num, generator)[own]  # [own rows, N]
        if self.config["MODEL_INPUT_TYPE"] == InputType.LISTWISE:
            return Interaction({**batch, self._negative_field: negatives})
        return self._as_recbole(Interaction(batch), negatives)

    @property
    def _negative_field(self) -> str:
        return self.config["NEG_PREFIX"] + self.dataset.iid_field

    def _as_recbole(self, batch: Interaction, negatives: Tensor) -> Interaction:
        """The batch in one of RecBole's forms.

        A pairwise model gets N rows per positive, each with one of its negatives; a pointwise model gets the positives,
        labelled 1, and behind them the negatives, labelled 0.
        """
        count, flat = negatives.shape[1], negatives.T.reshape(-1)  # [N B]
        if self.config["MODEL_INPUT_TYPE"] == InputType.PAIRWISE:
            pairs = batch.repeat(count)
            pairs.update(Interaction({self._negative_field: flat}))
            return pairs
        rows = batch.repeat(1 + count)
        positives = len(batch)
        rows[self.dataset.iid_field][positives:] = flat
        labels = torch.zeros(len(rows))
        labels[:positives] = 1.0
        rows.update(Interaction({self.config["LABEL_FIELD"]: labels}))
        return rows


def training_rows(config: Any) -> str:
    """What a row of training is for the model of ``config``: ``targets``, ``interactions`` or ``users``."""
    if config["MODEL_TYPE"] == ModelType.SEQUENTIAL:
        return getattr(config.model_class, "trains_on", "targets")
    return "users" if learns_from_users(config.model_class) else "interactions"


def in_order(rows: int, shuffle: bool, generator: torch.Generator) -> Tensor:
    """``[rows]``: the numbers of all rows, in random order with ``shuffle``."""
    return torch.randperm(rows, generator=generator) if shuffle else torch.arange(rows)


class EvalLoader:
    """The targets of one split with the items that are ranked for each.

    Args:
        phase: the split, ``valid`` or ``test``.
        candidates: the candidates of this split, if they have been drawn already.

    Attributes:
        rows: number of targets.
        users: int32 ``[rows]``, the user of each target; a user's rows stand together, in the order of time.
        candidates: the candidates of each target; ``None`` if the whole catalogue is ranked.
        catalogue: int64, the items that are ranked in that case: those with at least one interaction.
    """

    def __init__(self, config: Any, dataset: SERDataset, phase: str, candidates: CandidateTable | None = None) -> None:
        self.dataset, self.phase = dataset, phase
        self.positions = getattr(dataset.split, phase)
        self.rows = len(self.positions)
        self.users = dataset.log.users[self.positions]
        self.batch_size = config["eval_batch_size"]
        self.reader = dataset.history_reader()
        self.catalogue = torch.arange(1, dataset.target_num)
        self.candidates = candidate_table(config, dataset, phase) if candidates is None else candidates

    def part(self, rows: slice) -> EvalLoader:
        """The targets ``rows`` alone."""
        some = copy.copy(self)
        some.positions, some.users = self.positions[rows], self.users[rows]
        some.rows = len(some.positions)
        if self.candidates is not None:
            some.candidates = CandidateTable(self.candidates.items[rows], self.candidates.positive_column[rows])
        return some

    def __len__(self) -> int:
        return -(-self.rows // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Interaction, Tensor | None, Tensor]]:
        for start in range(0, self.rows, self.batch_size):
            rows = slice(start, start + self.batch_size)
            batch = Interaction(instances(self.dataset, self.positions[rows], self.reader))
            if self.candidates is None:
                yield batch, None, batch[self.dataset.iid_field]
            else:
                yield batch, self.candidates.items[rows].long(), self.candidates.positive_column[rows]

    def user_tokens(self) -> np.ndarray:
        """The raw user id of each row."""
        return self.dataset.id2token(self.dataset.uid_field, self.users.numpy())


def candidate_table(config: Any, dataset: SERDataset, phase: str) -> CandidateTable | None:
    """The candidates of a split, drawn from (data, protocol, seed); ``None`` if the whole catalogue is ranked."""
    distribution, negatives = config.candidate_mode(phase)
    if distribution == "full":
        return None
    seed = [config["candidate_seed"], {"valid": 0, "test": 1}[phase]]
    targets = getattr(dataset.split, phase)

    def draw() -> Kept:
        table = build_candidates(dataset.log, targets, dataset.target_num, negatives, distribution, seed)
        return Kept({"items": table.items.numpy(), "positive_column": table.positive_column.numpy()})

    drawn = dataset.kept(f"the candidates of {phase}", {"draw": [distribution, negatives, seed]}, draw).arrays
    return CandidateTable(torch.from_numpy(drawn["items"]), torch.from_numpy(drawn["positive_column"]))


def instances(dataset: SERDataset, positions: Tensor, reader: Any) -> dict[str, Tensor]:
    """``user_id``, ``item_id`` and, with a ``reader``, the histories of the targets at ``positions``."""
    batch = {
        dataset.uid_field: dataset.log.users[positions].long(),
        dataset.iid_field: dataset.log.items[positions].long(),
    }
    return batch if reader is None else {**batch, **reader.read(positions)}
