"""The data set: the loaded events in order of their exact 64-bit times, and the instances of the protocol."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from recbole.data.interaction import Interaction
from recbole.utils import FeatureType
from torch import Tensor

from recbole_ser import compat
from recbole_ser.atomic.location import is_there
from recbole_ser.atomic.numbers import are_exact_together
from recbole_ser.atomic.publishing import restore as finish_publishing
from recbole_ser.atomic.ragged import Ragged
from recbole_ser.atomic.rules import no_common_items
from recbole_ser.atomic.schema import FILES
from recbole_ser.atomic.sequences import split_numbers
from recbole_ser.data import snapshot
from recbole_ser.data.atomic_dataset import AtomicDataset
from recbole_ser.data.cache import WORTH_BYTES, DataCache, Kept, cache_folder
from recbole_ser.data.codes import UserCodes, read_codes
from recbole_ser.data.histories import EventLog, HistoryReader, Searches, build_event_log
from recbole_ser.data.instances import Split, split_instances
from recbole_ser.data.keys import distinct
from recbole_ser.data.negatives import training_pairs
from recbole_ser.data.numbers import by_id, scaled, standardised, with_means, with_zeros
from recbole_ser.data.relations import TrainingClicks, training_clicks
from recbole_ser.data.splits import LEAVE_ONE_OUT, TimePoints, points_of, split_name
from recbole_ser.data.text_vectors import TextVectors, read_text_vectors
from recbole_ser.errors import DataError
from recbole_ser.files import sha256
from recbole_ser.logs import lines_logged
from recbole_ser.settings.run import DataSettings, HistorySettings

_NUMBERS = (FeatureType.FLOAT, FeatureType.FLOAT_SEQ)
# The settings of data and histories that a loaded data set does not depend on: they are read afterwards.
_READ_LATER = {
    "data_path", "codes_file", "codes", "texts_folder", "texts", "MAX_ITEM_LIST_LENGTH", "max_search_length"
}  # fmt: skip


class SERDataset(AtomicDataset):
    """A RecBole data set with a second log: ``X.search`` and ``X.query`` beside ``X.inter``.

    See ``AtomicDataset`` for how files are read.  What comes of it is kept for the next time, see ``DataCache``, unless
    the files are small, there are others than those of the schema, or the setting ``data_cache`` is false.  An item
    that was only ever clicked in search has an id above ``target_num``: it is never a target nor a negative.

    Attributes:
        log: all events in order, see ``EventLog``.
        split: the instances, as positions in ``log``, see ``Split``.
        points: the two points in time of the rule TS, as places in ``log``; ``None`` under other rules.
        cache: what was made of the files earlier; ``None`` if nothing is kept.
        target_num: ids ``1 .. target_num - 1`` are the items with at least one interaction.
        query_terms: int32 ``[query_num, W]``, the words of each query, right-padded with 0; W is the number of words
            of the longest.
        item_attributes, user_attributes: the token columns of ``X.item`` and ``X.user`` by name, int32 ``[n]`` or
            ``[n, width]``; row 0 is padding.
        item_numbers, user_numbers: the ``float`` and ``float_seq`` columns of ``X.item`` and ``X.user`` by name, and
            what ``preload_weight`` names, float32 ``[n, W]``, where W is 1 for ``float``.  They are standardised on the
            training interactions, each of which counts its item, or its user: held-out events have no influence.
            Missing values and padding are 0, the mean.  Columns that are normalised (``normalize_field``) are in the
            range from 0 to 1 instead, with the column's mean for missing values.

    Raises:
        DataError: a file is missing or wrong, or there is no training target; under another rule ``eval_args.split``
            than LS also if there is none for validation or test.
        ConfigError: the points in time of the rule TS do not fit the data.
    """

    # Further attributes, arrays, that are kept.  A subclass that loads in another way and does not say what is kept of
    # it does not get what was kept of its base class.
    also_kept: ClassVar[tuple[str, ...]] = ()

    cache: DataCache | None
    log: EventLog
    split: Split
    points: TimePoints | None
    target_num: int
    query_terms: Tensor
    item_attributes: dict[str, Tensor]
    user_attributes: dict[str, Tensor]
    item_numbers: dict[str, Tensor]
    user_numbers: dict[str, Tensor]

    # --- what is kept of it -------------------------------------------------------------------------------------------

    def _from_scratch(self) -> None:
        self._load_or_restore()
        pa.default_memory_pool().release_unused()  # Arrow keeps what reading the files took, several times their size

    def _load_or_restore(self) -> None:
        """Load the files, or what was made of them the last time."""
        self._get_preset()
        self._get_field_from_config()
        self.cache = self._find_cache()
        if self.cache is None:
            super()._from_scratch()
            return
        kept = self.cache.get(self.dataset_name, self._shaping_settings(), self._load_to_keep)
        snapshot.restore(self, kept)
        self._init_alias()
        self._set_history_length()
        if not self._is_loaded:
            self.file_hashes = dict(self.cache.files)
            for level, line in kept.facts["log"]:
                self.logger.log(level, line)
        elif self.file_hashes != self.cache.files:
            self.cache = None

    def _load_to_keep(self) -> Kept:
        assert self.cache is not None
        with lines_logged() as lines:
            super()._from_scratch()
        self._is_loaded = True
        self.cache.writable &= self.file_hashes == self.cache.files  # else a file has been replaced meanwhile
        kept = snapshot.taken(self, self.also_kept)
        return Kept(kept.arrays, {**kept.facts, "log": lines})

    def _find_cache(self) -> DataCache | None:
        self._is_loaded = False
        place = self.config["data_cache"]
        if place is False or "also_kept" not in vars(type(self)):
            return None
        finish_publishing(self.dataset_path)
        load, added = self.config["load_col"], self.config["additional_feat_suffix"] or []
        if any(suffix not in FILES for suffix in added):  # whoever adds a file wants its frame
            return None
        read = [suffix for suffix in ("inter", "user", "item", *added) if load is None or load.get(suffix)]
        paths = [Path(self.dataset_path) / f"{self.dataset_name}.{suffix}" for suffix in read]
        paths = [path for path in paths if is_there(path)]
        if sum(path.stat().st_size for path in paths) < WORTH_BYTES:
            return None
        hashes = {path.name: sha256(path) for path in paths}
        return DataCache(cache_folder(self.dataset_path, self.dataset_name, place), hashes)

    def _shaping_settings(self) -> dict[str, Any]:
        """The settings that what is loaded depends on."""
        keys = ({*DataSettings.model_fields} | {*HistorySettings.model_fields}) - _READ_LATER
        values = self.config.resolved()
        rule = values["eval_args"]["split"]
        kind = f"{type(self).__module__}.{type(self).__qualname__}"
        return {"class": kind, "split": rule, **{key: values[key] for key in sorted(keys)}}

    def kept(self, what: str, settings: Mapping[str, Any], make: Callable[[], Kept]) -> Kept:
        """What ``make`` makes of this data set and ``settings``, from the cache if it is there, see ``DataCache``."""
        if self.cache is None:
            return make()
        return self.cache.get(what, {**self._shaping_settings(), **settings}, make)

    # --- after loading ------------------------------------------------------------------------------------------------

    def _data_processing(self) -> None:
        super()._data_processing()
        self.target_num = int(self.inter_feat[self.iid_field].max()) + 1
        self.query_terms = self._query_terms()
        self.item_attributes = self._attributes("item_feat", self.iid_field, self.item_num)
        self.user_attributes = self._attributes("user_feat", self.uid_field, self.user_num)
        self.log = self._build_log()
        both_histories, rule = self.config["require_both_histories"], self.config["eval_args"]["split"]
        self.split = split_instances(self.log, both_histories, rule, self.points)
        self._refuse_empty_splits(rule)
        self._warn_of_unknown_clicks()
        self.search_feat = self.query_feat = self._inter_feat = None
        self._set_history_length()
        for name, attributes in [("item_feat", self.item_attributes), ("user_feat", self.user_attributes)]:
            feat = getattr(self, name)
            if feat is not None:
                setattr(self, name, self._as_interaction(feat, {**attributes, **self._vectors(name)}))
        positions = self.split.training_interactions
        self.item_numbers = self._number_tables("item_feat", self.log.items[positions], self.item_num)
        self.user_numbers = self._number_tables("user_feat", self.log.users[positions], self.user_num)
        del self._numbers, self._sequence_rows

    def _set_history_length(self) -> None:
        self.field2seqlen[self.iid_field + self.config["LIST_SUFFIX"]] = self.config["MAX_ITEM_LIST_LENGTH"]  # for CORE

    def _refuse_empty_splits(self, rule: dict[str, Any]) -> None:
        """Refuse what cannot be trained and tested; without held-out targets under LS it can still be trained."""
        parts = {"training": self.split.train, "validation": self.split.valid, "test": self.split.test}
        under, hint = f" under eval_args.split {split_name(rule)}", "choose other shares or points in time: "
        if rule == LEAVE_ONE_OUT:
            parts, under, hint = {"training": self.split.train}, "", ""
        hint += "require_both_histories keeps targets with an earlier interaction and an earlier search"
        for name, targets in parts.items():
            if not len(targets):
                path = f"{self.dataset_path}/{self.dataset_name}.inter"
                raise DataError(path, f"no {name} target is left{under}", hint=hint)

    def _warn_of_unknown_clicks(self) -> None:
        clicked = self.log.clicks.numpy()
        if len(clicked) and (clicked >= self.target_num).all():
            names = self.field2id_token[self.iid_field]
            self.logger.warning(no_common_items(len(distinct(clicked)), names[clicked.min()], names[1]))

    def _as_interaction(self, feat: pd.DataFrame, tables: dict[str, Tensor]) -> Interaction:
        """A feature frame as RecBole's models read it: int64 tokens and token sequences, float32 floats."""
        columns = {
            field: torch.tensor(feat[field].to_numpy(np.float32 if self._is_float(field) else np.int64))
            for field in map(str, feat)
        }
        others = {field: table if table.is_floating_point() else table.long() for field, table in tables.items()}
        return Interaction({**columns, **others})

    def _is_float(self, field: str) -> bool:
        return self.field2type[field] == FeatureType.FLOAT

    def _fill_nan(self) -> None:
        for name in self.feat_name_list:
            feat = getattr(self, name)
            kinds = {field: self.field2type[field] for field in feat}
            compat.fill_missing(
                feat,
                [field for field, kind in kinds.items() if kind == FeatureType.TOKEN and feat[field].isna().any()],
                [field for field, kind in kinds.items() if kind == FeatureType.FLOAT and feat[field].isna().any()],
            )

    def _build_log(self) -> EventLog:
        inter, search = self.inter_feat, getattr(self, "search_feat", None)
        users, times, items = (inter[f].to_numpy() for f in (self.uid_field, self.time_field, self.iid_field))
        searches = Searches.none() if search is None else self._searches(search)
        columns = [times, searches.times, *([] if searches.click_times is None else [searches.click_times])]
        if not are_exact_together(*columns):
            path = f"{self.dataset_path}/{self.dataset_name}.search"
            problem = "times are fractions in one column and whole numbers above 2**53 in the other"
            raise DataError(path, problem, column=self.time_field, hint="write both logs in whole numbers of one unit")
        self.points = points_of(self.config["eval_args"]["split"], users, times, searches, self.user_num)
        return build_event_log(users, times, items, searches, self.user_num, self.config["session_gap"])

    def _searches(self, search: pd.DataFrame) -> Searches:
        clicks = self.sequences.pop(("search_feat", self.clicks_field), None)
        if clicks is None:
            clicks = Ragged(np.zeros(0, dtype=np.int32), np.zeros(len(search) + 1, dtype=np.int64))
        click_times = None
        if self.click_times_field in search:
            rows, lists = split_numbers(search[self.click_times_field], self.config["seq_separator"])
            times = Ragged(lists.values, np.append(lists.starts, lists.starts[-1])).take(rows).values
            order = np.lexsort((times, np.repeat(np.arange(len(search)), np.diff(clicks.starts))))
            clicks = Ragged(clicks.values[order], clicks.starts)  # by time, as only the first clicks are kept
            width = self.config["max_clicks_per_search"]
            click_times = Ragged(times[order], clicks.starts).truncated(width).values
        return Searches(
            search[self.uid_field].to_numpy(),
            search[self.time_field].to_numpy(),
            search[self.query_field].to_numpy(),
            search[self.source_field].to_numpy() if self.source_field in search else np.ones(len(search), np.int32),
            clicks.truncated(self.config["max_clicks_per_search"]),
            click_times,
        )

    def _query_terms(self) -> Tensor:
        terms = self.sequences.pop(("query_feat", self.terms_field), None)
        if terms is None or self.query_feat is None:
            return torch.zeros((self.query_num, 1), dtype=torch.int32)
        queries = self.query_feat[self.query_field].to_numpy()
        return torch.from_numpy(terms.table(queries, self.query_num, self.config["max_terms_per_query"]))

    def _attributes(self, feat_name: str, key: str, size: int) -> dict[str, Tensor]:
        """The token columns of ``.item`` or ``.user`` as tables indexed by id; floats stay with RecBole."""
        feat = getattr(self, feat_name, None)
        if feat is None:
            return {}
        tables = {
            field: torch.from_numpy(feat[field].to_numpy().astype(np.int32))
            for field in feat
            if field != key and self.field2type[field] == FeatureType.TOKEN
        }
        for field in [field for name, field in self.sequences if name == feat_name]:
            lists, rows = self.sequences.pop((feat_name, field)), self._sequence_rows[feat_name]
            most = (self.config["seq_len"] or {}).get(field)  # RecBole's key for long sequences; None: as they are
            tables[field] = torch.from_numpy(lists.table(rows, size, most))
        return tables

    def _user_item_feat_preparation(self) -> None:
        # RecBole now reorders these frames by id; sequences taken out of them stay in file order.
        self._sequence_rows = {
            name: feat[key].to_numpy()
            for name, key in [("user_feat", self.uid_field), ("item_feat", self.iid_field)]
            if (feat := getattr(self, name)) is not None
        }
        super()._user_item_feat_preparation()
        self._numbers: dict[tuple[str, str], np.ndarray] = {}
        for name in self._sequence_rows:
            feat = getattr(self, name)
            for field in [field for field in feat if self.field2type[field] in _NUMBERS]:
                self._take_numbers(name, feat, field, np.arange(len(feat)), len(feat))
        for ids, field in (self.config["preload_weight"] or {}).items():
            if isinstance(self.field2source[field], str):  # else it is an attribute already
                feat = getattr(self, f"{self.field2source[field]}_feat")
                name = "item_feat" if ids in self.alias["item_id"] else "user_feat"
                self._take_numbers(name, feat, field, feat[ids].to_numpy(), self.num(ids))

    def _take_numbers(self, name: str, feat: pd.DataFrame, field: str, ids: np.ndarray, size: int) -> None:
        """Take the numbers of the entities ``ids``; vectors leave the frame, as RecBole has no fast way with them."""
        values = by_id(feat[field], ids, size)
        if not self._is_float(field):
            values = values[:, : (self.config["seq_len"] or {}).get(field)]
            self.field2seqlen[field] = values.shape[1]
            del feat[field]
        normalise = field in self._normalised_fields()
        self._numbers[name, field] = scaled(values) if normalise else values

    def _vectors(self, name: str) -> dict[str, Tensor]:
        """The vectors of ``.item`` or ``.user`` as RecBole's models read them."""
        return {
            field: with_zeros(values)
            for (side, field), values in self._numbers.items()
            if side == name and not self._is_float(field) and not isinstance(self.field2source[field], str)
        }

    def _number_tables(self, name: str, trained_on: Tensor, size: int) -> dict[str, Tensor]:
        counts = torch.bincount(trained_on, minlength=size).numpy()
        return {
            field: with_means(values) if field in self._normalised_fields() else standardised(values, counts)
            for (side, field), values in self._numbers.items()
            if side == name
        }

    def _preload_weight_matrix(self) -> None:
        """As in RecBole: 0 stands for padding and for what is missing; one number each comes without a dimension."""
        for ids, field in (self.config["preload_weight"] or {}).items():
            values = next(values for (_, name), values in self._numbers.items() if name == field)
            matrix = np.nan_to_num(values)
            self._preloaded_weight[ids] = matrix[:, 0] if self._is_float(field) else matrix

    # --- what models and loaders read -------------------------------------------------------------------------------

    @property
    def inter_feat(self) -> Any:
        """While loading, the frame of ``X.inter``; afterwards all interactions of the training period, for RecBole."""
        if self._inter_feat is None:
            positions = self.split.training_interactions
            self._inter_feat = Interaction(
                {self.uid_field: self.log.users[positions].long(), self.iid_field: self.log.items[positions].long()}
            )
        return self._inter_feat

    @inter_feat.setter
    def inter_feat(self, value: Any) -> None:
        self._inter_feat = value

    @property
    def query_num(self) -> int:
        return self._vocabulary(self.query_field)

    @property
    def term_num(self) -> int:
        return self._vocabulary(self.terms_field)

    @property
    def source_num(self) -> int:
        return max(self._vocabulary(self.source_field), 2)  # 1 stands for the one source that is not named

    def _vocabulary(self, field: str) -> int:
        return self.num(field) if field in self.field2id_token else 1

    @property
    def training_search_queries(self) -> Tensor:
        """The query of every search of the training period, int32 ``[training searches]``."""
        return self.log.queries[self.split.training_searches]

    @cached_property
    def training_clicks(self) -> TrainingClicks:
        """Every click of the training period with its user and query: all that graphs and maps may be built from."""
        return training_clicks(self.log, self.split)

    @cached_property
    def training_pairs(self) -> Tensor:
        """The distinct (user, item) pairs of the training period, see `negatives.training_pairs`."""
        return training_pairs(self.log, self.split, self.target_num)

    @cached_property
    def user_codes(self) -> UserCodes:
        """The users' codes in the file ``codes_file``.

        Raises:
            DataError: the file is missing or damaged, or was made from other training data.
        """
        return read_codes(self.config["codes_file"], self)

    @property
    def item_texts(self) -> TextVectors:
        """The vectors of the items' texts, ``[item_num, m]``, in the space of ``user_texts``.

        Raises:
            DataError: a file in ``texts_folder`` is missing or damaged, or was made from other training data.
        """
        return self._text_vectors[0]

    @property
    def user_texts(self) -> TextVectors:
        """The vectors of the users' texts, ``[user_num, m]``; see ``item_texts``."""
        return self._text_vectors[1]

    @cached_property
    def _text_vectors(self) -> tuple[TextVectors, TextVectors]:
        return read_text_vectors(self.config["texts_folder"], self)

    @cached_property
    def data_hash(self) -> str:
        """A hash that identifies the files that were read, whatever the settings then made of them."""
        listing = "".join(f"{name} {digest}\n" for name, digest in sorted(self.file_hashes.items()))
        return hashlib.sha256(listing.encode()).hexdigest()

    def target_hash(self, phase: str) -> str:
        """A hash of the targets of the split ``phase``: equal hashes mean the same items of the same users in order."""
        positions = getattr(self.split, phase)
        users = self.id2token(self.uid_field, self.log.users[positions].numpy())
        items = self.id2token(self.iid_field, self.log.items[positions].numpy())
        return hashlib.sha256("\n".join([*users, "", *items]).encode()).hexdigest()

    def history_reader(self) -> HistoryReader:
        """A reader of the histories of targets, with the lengths that the configuration gives."""
        return HistoryReader.of(self.config, self.log)

    def __str__(self) -> str:
        return f"{type(self).__name__}({self.dataset_name}: {self.summary()})"

    def summary(self) -> dict[str, int]:
        """The numbers of users, items, queries, events and targets; padding is not counted."""
        log, split = self.log, self.split
        return {
            "users": self.user_num - 1,
            "items": self.item_num - 1,
            "queries": self.query_num - 1,
            "interactions": len(log.items),
            "searches": len(log.queries),
            "train": len(split.train),
            "valid": len(split.valid),
            "test": len(split.test),
        }
