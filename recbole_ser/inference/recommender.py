"""Recommendations by the model of a finished run, which is loaded once and can be asked many times."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.utils import ModelType
from torch import Tensor
from tqdm import tqdm

from recbole_ser.data.loader import training_rows
from recbole_ser.data.timed_dataset import TimedDataset
from recbole_ser.errors import ConfigError, UserError
from recbole_ser.inference.given_events import GivenEvents, note, numbered, read_events
from recbole_ser.inference.new_queries import reads_words, with_queries
from recbole_ser.inference.scores import rows_at_once, top_k
from recbole_ser.inference.user_events import UserEvents, joined, latest_histories
from recbole_ser.model.base import SearchRecommender
from recbole_ser.model.catalogue import catalogue_scores, scores_of
from recbole_ser.model.foreign import candidate_scorer
from recbole_ser.model.general.pop import Pop
from recbole_ser.runs.loading import finished_run, load_run

_log = logging.getLogger("recbole_ser.inference")


def recommend(
    folder: str | Path,
    users: Iterable[Any] | None = None,
    k: int = 10,
    events: str | Path | pd.DataFrame | None = None,
    exclude_seen: bool = False,
    candidates: Iterable[Any] | None = None,
    extend: bool = False,
) -> pd.DataFrame:
    """Load the run in ``folder`` for one request: ``Recommender.load(folder).recommend(...)``."""
    return Recommender.load(folder).recommend(users, k, events, exclude_seen, candidates, extend)


class Request(NamedTuple):
    """A request in terms of ids; R rows, one for each user.

    Args:
        names: raw ids of the users ``[R]``.
        users: ids of the users ``[R]``, 0 where the data do not know the user.
        known: like ``users``, but 0 where the events in the data are not part of the user's history.
        given: the users' numbers in the events of the request ``[R]``, 0 where they have no events there.
        items: ids of the items that are ranked, ascending ``[n]``.
        k: the largest number of items that are recommended to a user.
        exclude_seen: whether items of the history are left out.
        retriever: chooses for each user which of the items are ranked; ``None``: all are.
    """

    names: list[str]
    users: np.ndarray
    known: np.ndarray
    given: np.ndarray
    items: Tensor
    k: int
    exclude_seen: bool
    retriever: Retriever | None


@dataclass(frozen=True)
class Retriever:
    """Another run's model, which is faster, chooses the items that are worth ranking.

    Args:
        recommender: that run; it was trained on the same data.
        count: number of items that it chooses for each user, at most.
    """

    recommender: Recommender
    count: int = 1000

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"a retriever chooses at least 1 item, not {self.count}")


class Recommender:
    """The model of a finished run and its data, which can be asked again and again (by one thread at a time).

    Attributes:
        users: raw ids of all users of the data.
        reads: the fields of a history that the model reads, as far as can be told; if none, events change no score.
    """

    def __init__(self, config: Any, dataset: TimedDataset, model: Any) -> None:
        self.config, self.dataset, self.model = config, dataset, model
        self.scorer = candidate_scorer(model)
        self.device = torch.device(config["device"])
        self.history = UserEvents.of_dataset(dataset)
        self._item_list = dataset.iid_field + config["LIST_SUFFIX"]
        self.users: list[str] = dataset.id2token(dataset.uid_field, np.arange(1, dataset.user_num)).tolist()
        self.reads = self._fields_read()

    @property
    def reads_interactions(self) -> bool:
        """Whether the model reads the interactions of a history."""
        return self._item_list in self.reads

    @property
    def reads_searches(self) -> bool:
        """Whether the model reads the searches of a history."""
        return "search_query_list" in self.reads

    @classmethod
    def load(cls, folder: str | Path, model: str | type[AbstractRecommender] | None = None) -> Recommender:
        """Load the finished run in ``folder``, or the chosen trial of a finished sweep.

        Args:
            model: the run's model, if no installed package registers it: loading a folder runs no code that only the
                folder names.  As ``module:Class``, or as a class, which may have been defined in a notebook.

        Raises:
            UserError: there is no run, it is not finished, its checkpoint is damaged, or the data have changed since.
        """
        return cls(*load_run(finished_run(folder), TimedDataset, model))

    def recommend(
        self,
        users: Iterable[Any] | None = None,
        k: int = 10,
        events: str | Path | pd.DataFrame | None = None,
        exclude_seen: bool = False,
        candidates: Iterable[Any] | None = None,
        extend: bool = False,
        show_progress: bool = False,
        retriever: Retriever | None = None,
    ) -> pd.DataFrame:
        """The k best items for each user now, after all events that are known of the user.

        Equal scores are ranked in the order in which the data number the items.  One warning in the log
        ``recbole_ser.inference`` lists all parts of the request that could not be used as given.

        Args:
            users: raw ids; by default all users who have ``events``.
            k: the largest number of items for a user; there are fewer if fewer can be ranked.
            events: histories, in a file (``.csv`` or ``.jsonl``) or a frame.  Columns are called as in the atomic
                files: ``user_id``, ``event`` (``click`` or ``search``) and ``timestamp`` (in the unit of the data) of
                every row; ``item_id`` of a click; of a search ``query_id`` or ``terms`` (its words) and, where there
                are any, ``clicked_items`` and ``source``.  Lists are lists, or text with spaces between.  The order
                of the rows decides between equal times.
            exclude_seen: whether to leave out the items of the history, also those clicked in searches.
            candidates: raw ids of the items to rank; by default all that anybody interacted with.
            extend: whether to merge the events with those that the data have of the user.  By default the events
                alone are the user's history.
            show_progress: whether to show a progress bar, on a terminal.
            retriever: chooses for each user the items that are ranked; by default all are.  Of a large catalogue
                a dot-product model finds them in a fraction of the time; ``recall`` says what this costs.

        Returns:
            The columns ``user_id``, ``rank`` (from 1), ``item_id`` and ``score`` (float64), with the users in the order
            asked for.

        Raises:
            UserError: no user is asked for; all users are neither in the data nor in the events (if only some are, the
                others are answered, and a warning names these); a user is only in the events though the model knows
                users by training alone; there is nothing to rank; a score is not finite; the retriever was trained on
                other data.
        """
        parts = self.in_parts(users, k, events, exclude_seen, candidates, extend, show_progress, retriever)
        return pd.concat(list(parts), ignore_index=True)

    def in_parts(
        self,
        users: Iterable[Any] | None = None,
        k: int = 10,
        events: str | Path | pd.DataFrame | None = None,
        exclude_seen: bool = False,
        candidates: Iterable[Any] | None = None,
        extend: bool = False,
        show_progress: bool = False,
        retriever: Retriever | None = None,
    ) -> Iterator[pd.DataFrame]:
        """``recommend`` for more users than fit in memory: an iterator over its rows, some users at a time."""
        request, given, notes = self._request(users, k, events, exclude_seen, candidates, extend, retriever)
        if notes:
            _log.warning("\n".join(notes))
        return self._parts(request, given, show_progress)

    def recall(
        self,
        retriever: Retriever,
        users: Iterable[Any] | None = None,
        k: int = 10,
        events: str | Path | pd.DataFrame | None = None,
        exclude_seen: bool = False,
        candidates: Iterable[Any] | None = None,
        extend: bool = False,
        at_most: int = 100,
    ) -> float:
        """The share of the ``k`` best items of the whole catalogue that are recommended with ``retriever``, too.

        Args:
            users, events, exclude_seen, candidates, extend: see ``recommend``.
            at_most: for how many of the users, drawn at random but each time the same, the whole catalogue is ranked.

        Raises:
            UserError: as for ``recommend``.
        """
        request, given, _ = self._request(users, k, events, exclude_seen, candidates, extend, retriever)
        rows = np.random.default_rng(0).permutation(len(request.names))[:at_most]
        request = request._replace(
            names=[request.names[row] for row in rows],
            users=request.users[rows],
            known=request.known[rows],
            given=request.given[rows],
        )
        found, whole = (
            pd.concat(list(self._parts(one, given, show_progress=False)))
            for one in (request, request._replace(retriever=None))
        )
        return len(whole.merge(found, on=["user_id", "item_id"])) / max(len(whole), 1)

    # --- the request ------------------------------------------------------------------------------------------------

    def _request(
        self,
        users: Iterable[Any] | None,
        k: int,
        events: str | Path | pd.DataFrame | None,
        exclude_seen: bool,
        candidates: Iterable[Any] | None,
        extend: bool,
        retriever: Retriever | None,
    ) -> tuple[Request, GivenEvents | None, list[str]]:
        """The arguments of ``recommend`` in terms of ids, the events, and what the caller should know."""
        if k < 1:
            raise ConfigError(f"k must be at least 1, not {k}")
        if retriever is not None:
            self._check(retriever, k)
        given = None if events is None else read_events(events, self.dataset, reads_words(self.model))
        names = self._names(users, given)
        ids = numbered(self.dataset, self.dataset.uid_field, np.array(names, dtype=object))
        rows = {} if given is None else {name: row for row, name in enumerate(given.users, start=1)}
        given_ids = np.array([rows.get(name, 0) for name in names], dtype=np.int64)
        answered = (ids != 0) | (given_ids != 0)
        missing = [name for name, known in zip(names, answered) if not known]
        if not answered.any():
            raise UserError(note("users who are not in the data", missing)[0] + "; give their events")
        names, ids, given_ids = [n for n, known in zip(names, answered) if known], ids[answered], given_ids[answered]
        known = ids if extend else ids * (given_ids == 0)
        unknown = [name for name, number in zip(names, ids) if not number]
        for one in [self] if retriever is None else [self, retriever.recommender]:
            one.refuse_unknown(unknown)
        notes = note("users who are not in the data, left out", missing) + self._notes(unknown, given)
        items = self._items(candidates, notes)
        return Request(names, ids, known, given_ids, items, k, exclude_seen, retriever), given, notes

    def _check(self, retriever: Retriever, k: int) -> None:
        other = retriever.recommender
        if other.dataset.data_hash != self.dataset.data_hash:
            raise UserError("the retriever was trained on other data: take a run of the same data set")
        if retriever.count < k:
            raise ConfigError(f"the retriever chooses {retriever.count} items, and {k} are to be recommended")
        if reads_words(self.model) and other.reads_searches and not reads_words(other.model):
            raise UserError(f"{other.config['model']} reads searches without their words: take another retriever")

    def _names(self, users: Iterable[Any] | None, given: GivenEvents | None) -> list[str]:
        if users is None:
            if given is None:
                raise UserError("nobody is asked for: name users, or give events")
            names = given.users
        else:
            names = list(dict.fromkeys(map(str, users)))
        if not names:
            raise UserError("there are no users to recommend to")
        return names

    def refuse_unknown(self, unknown: list[str]) -> None:
        """Raise ``UserError`` if there are ``unknown`` users and the model knows only those it was trained on."""
        model = self.config["model"]
        general = self.config["MODEL_TYPE"] != ModelType.SEQUENTIAL
        by_training = general or training_rows(self.config) == "interactions"  # not by the history in a batch
        if unknown and by_training and not isinstance(self.model, Pop):
            raise UserError(note(f"{model} knows users by training alone; users who are not in the data", unknown)[0])

    def _notes(self, unknown: list[str], given: GivenEvents | None) -> list[str]:
        """What the caller should know about unknown users and events."""
        model = self.config["model"]
        blind = not (self.reads_interactions or self.reads_searches)
        notes = note(f"users who are not in the data, {'all alike' if blind else 'known by events alone'}", unknown)
        if given is not None and blind:
            notes.append(f"{model} reads no histories: the events change no score")
        elif given is not None and len(given.events.queries) and not self.reads_searches:
            notes.append(f"{model} reads no searches: they change no score")
        return notes if given is None else notes + given.notes

    def _items(self, candidates: Iterable[Any] | None, notes: list[str]) -> Tensor:
        dataset = self.dataset
        if candidates is None:
            return torch.arange(1, dataset.target_num, device=self.device)
        tokens = np.array(list(map(str, candidates)), dtype=object)
        ids = numbered(dataset, dataset.iid_field, tokens)
        ranked = (ids > 0) & (ids < dataset.target_num)
        notes += note("candidates that nobody in the data interacted with, left out", tokens[~ranked])
        if not ranked.any():
            raise UserError("none of the candidates is an item that anybody in the data interacted with")
        return torch.from_numpy(np.unique(ids[ranked])).to(self.device)

    # --- the answer -------------------------------------------------------------------------------------------------

    def _parts(self, request: Request, given: GivenEvents | None, show_progress: bool) -> Iterator[pd.DataFrame]:
        others = [] if request.retriever is None else [request.retriever.recommender]
        at_once = [
            rows_at_once(one.scorer, len(request.items), one.config["eval_batch_size"]) for one in [self, *others]
        ]
        count, step = len(request.names), min(at_once)
        words = torch.zeros(0, 1, dtype=torch.int32) if given is None else given.words
        bar = tqdm(total=count, desc="Recommend", unit="user", leave=False, disable=None if show_progress else True)
        with bar, ExitStack() as stack:
            for model in [self.model, *(one.model for one in others if one.reads_searches)]:
                stack.enter_context(with_queries(model, words))
            for start in range(0, count, step):
                rows = slice(start, start + step)
                yield self._part(request, rows, None if given is None else given.events)
                bar.update(len(request.names[rows]))

    @torch.no_grad()
    def _part(self, request: Request, rows: slice, given: UserEvents | None) -> pd.DataFrame:
        batch, seen = self.histories(request.users[rows], request.known[rows], request.given[rows], given)
        names = np.array(request.names[rows], dtype=object)
        if request.retriever is None:
            scores = self._catalogue(request, batch, seen, names)  # [B, n]
            ranked = request.items.expand_as(scores)
        else:
            ranked, left_out = request.retriever.recommender.retrieved(request, rows, given)  # [B, C]
            scores = scores_of(self.scorer, batch, ranked)
            self.refuse_non_finite(scores, names)
            scores[left_out] = -torch.inf
        values, columns = top_k(scores, request.k)  # [B, k]
        left = torch.isfinite(values)
        row, rank = (places.cpu().numpy() for places in left.nonzero(as_tuple=True))
        items, values = ranked.gather(1, columns)[left].cpu().numpy(), values.cpu()
        return pd.DataFrame(
            {
                "user_id": names[row],
                "rank": rank + 1,
                "item_id": self.dataset.field2id_token[self.dataset.iid_field][items],
                "score": values[left.cpu()].double().numpy(),
            }
        )

    def _catalogue(
        self, request: Request, batch: Interaction, seen: tuple[np.ndarray, np.ndarray], names: np.ndarray
    ) -> Tensor:
        """Scores ``[B, n]`` of all items of the request, of which those to be left out have -inf."""
        scores = catalogue_scores(self.scorer, batch, request.items)
        self.refuse_non_finite(scores, names)
        if request.exclude_seen:
            scores[_cells(seen, request.items)] = -torch.inf
        return scores

    def retrieved(self, request: Request, rows: slice, given: UserEvents | None) -> tuple[Tensor, Tensor]:
        """The best items of each row, ids ``[B, C]``, ascending, and which of them are to be left out."""
        assert request.retriever is not None
        batch, seen = self.histories(request.users[rows], request.known[rows], request.given[rows], given)
        names = np.array(request.names[rows], dtype=object)
        values, columns = top_k(self._catalogue(request, batch, seen, names), request.retriever.count)
        columns, order = columns.sort(dim=1)
        return request.items[columns], torch.isinf(values.gather(1, order))

    def histories(
        self, users: np.ndarray, known: np.ndarray, given: np.ndarray, given_events: UserEvents | None = None
    ) -> tuple[Interaction, tuple[np.ndarray, np.ndarray]]:
        """A batch of the form that evaluation uses, and the pairs (row, item) of its histories.

        Args:
            users, known, given: ``[B]``, see ``Request``.
        """
        events = self.history.take(known)
        if given_events is not None:
            events = joined(events, given_events.take(given))
        ids = torch.from_numpy(users)
        fields = {self.dataset.uid_field: ids, self.dataset.iid_field: torch.zeros_like(ids)}
        histories = latest_histories(events, len(users), self.config)
        return Interaction({**fields, **histories}).to(self.device), events.seen()

    def refuse_non_finite(self, scores: Tensor, names: np.ndarray) -> None:
        """Raise ``UserError`` if one of ``scores [B, n]`` is not finite; ``names [B]`` are the users of the rows."""
        finite = torch.isfinite(scores).all(dim=1).cpu().numpy()
        if not finite.all():
            user = names[~finite][0]
            raise UserError(f"{self.config['model']} gives user '{user}' a score that is not finite: train it anew")

    @torch.no_grad()
    def _fields_read(self) -> frozenset[str]:
        """The fields that ``encode`` asks for; RecBole's sequential models read items, its others nothing."""
        if not isinstance(self.model, SearchRecommender):
            sequential = self.config["MODEL_TYPE"] == ModelType.SEQUENTIAL
            return frozenset([self._item_list] if sequential else [])
        first = np.ones(1, dtype=np.int64)
        batch, _ = self.histories(first, first, first * 0)
        watched = _Watched(batch.interaction)
        self.model.encode(watched)
        return frozenset(watched.read)


class _Watched(Interaction):
    """An interaction that records which of its fields are read."""

    def __init__(self, interaction: dict[str, Tensor]) -> None:
        super().__init__(interaction)
        self.read: set[str] = set()

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, str):
            self.read.add(index)
        return super().__getitem__(index)


def _cells(pairs: tuple[np.ndarray, np.ndarray], items: Tensor) -> tuple[Tensor, Tensor]:
    """The rows, and columns in ``items [n]`` (ascending), of those of ``pairs`` (row, item id) whose item is there."""
    rows, ids = (torch.from_numpy(part.astype(np.int64)).to(items.device) for part in pairs)
    columns = torch.searchsorted(items, ids).clamp(max=len(items) - 1)
    present = items[columns] == ids
    return rows[present], columns[present]
