"""The data set: RecBole's loading and filters, events ordered in 64 bits, and the instances of the protocol."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from recbole.data.dataset import Dataset
from recbole.data.interaction import Interaction
from recbole.utils import FeatureSource, FeatureType
from torch import Tensor

from recbole_ser import compat
from recbole_ser.data import atomic
from recbole_ser.data.atomic import Column, Ragged
from recbole_ser.data.histories import EventLog, HistoryReader, Searches, build_event_log
from recbole_ser.data.instances import Split, split_instances
from recbole_ser.data.relations import TrainingClicks, training_clicks
from recbole_ser.data.vocabulary import token_column
from recbole_ser.errors import ConfigError, DataError
from recbole_ser.files import sha256

_SUFFIXES = ("search", "query")
_TOKENS = (FeatureType.TOKEN, FeatureType.TOKEN_SEQ)


class SERDataset(Dataset):
    """A RecBole data set with a second log: ``X.search`` and ``X.query`` beside ``X.inter``.

    RecBole's keys for loading and filtering work (``load_col``, ``alias_of_item_id``, ``val_interval``,
    ``item_inter_num_interval``, ...).  Searches of users that have no interaction left are dropped, which the log
    says.  An item that was only ever clicked in search has an id above ``target_num``: it is never a target nor a
    negative.

    Attributes:
        log: all events in order, see ``EventLog``.
        split: the instances, as positions in ``log``, see ``Split``.
        target_num: ids ``1 .. target_num - 1`` are the items with at least one interaction.
        query_terms: int32 ``[query_num, W]``, the words of each query, right-padded with 0; W is that of the longest.
        item_attributes, user_attributes: by name, int32 ``[n]`` or ``[n, width]``; row 0 is padding.

    Raises:
        DataError: a file that is missing or wrong, or nothing left to learn from.
    """

    log: EventLog
    split: Split
    target_num: int
    query_terms: Tensor
    search_feat: pd.DataFrame | None
    query_feat: pd.DataFrame | None
    _rest_fields: np.ndarray
    item_attributes: dict[str, Tensor]
    user_attributes: dict[str, Tensor]

    def _get_field_from_config(self) -> None:
        super()._get_field_from_config()
        config = self.config
        self.query_field, self.terms_field = config["QUERY_ID_FIELD"], config["TERMS_FIELD"]
        self.clicks_field, self.source_field = config["CLICKED_ITEMS_FIELD"], config["SOURCE_FIELD"]
        self.sequences: dict[tuple[str, str], Ragged] = {}
        self.file_hashes: dict[str, str] = {}

    # --- loading ----------------------------------------------------------------------------------------------------

    def _load_data(self, token: str, dataset_path: str) -> None:
        folder = Path(dataset_path)
        if not (folder / f"{token}.inter").is_file():
            raise DataError(folder / f"{token}.inter", "file not found", hint="data sets live in data_path/<name>/")
        super()._load_data(token, dataset_path)
        if self.inter_feat is None or not len(self.inter_feat):
            raise DataError(folder / f"{token}.inter", "there are no interactions")

    def _load_additional_feat(self, token: str, dataset_path: str) -> None:
        """As RecBole's, but a missing ``.query`` means queries without words, a missing ``.search`` no searches."""
        for suffix in self.config["additional_feat_suffix"] or []:
            path = Path(dataset_path) / f"{token}.{suffix}"
            if path.is_file():
                setattr(self, f"{suffix}_feat", self._load_feat(str(path), suffix))
            elif suffix not in _SUFFIXES:
                raise DataError(path, "file not found", hint="it is named in additional_feat_suffix")
            elif suffix == "search" and self.config["require_both_histories"]:
                raise DataError(path, "file not found", hint="without searches set require_both_histories to false")

    def _load_feat(self, filepath: str, source: FeatureSource | str) -> pd.DataFrame | None:
        load, unload = self._get_load_and_unload_col(source)
        if load == set():
            return None
        columns = atomic.read_header(filepath, self.config["field_separator"])
        required = self._required(source, filepath, {column.name for column in columns})
        wanted = [
            c
            for c in columns
            if c.name in required or ((load is None or c.name in load) and c.name not in (unload or ()))
        ]
        for name in sorted((load or set()) - {column.name for column in columns}):
            raise DataError(filepath, "the column named in load_col is missing", line=1, column=name)
        for column in wanted:
            self._register(column, source, filepath)
        self.file_hashes[Path(filepath).name] = sha256(filepath)
        return atomic.read_atomic(filepath, wanted, self.config["field_separator"], required=required)

    def _required(self, source: FeatureSource | str, filepath: str, present: set[str]) -> set[str]:
        """Columns that a file must have, every entry filled."""
        needed = {
            FeatureSource.INTERACTION: {self.uid_field, self.iid_field, self.time_field},
            FeatureSource.USER: {self.uid_field},
            FeatureSource.ITEM: {self.iid_field},
            "search": {self.uid_field, self.query_field, self.time_field},
            "query": {self.query_field},
        }.get(source, set())
        for name in sorted(needed - present):
            raise DataError(filepath, "the column is missing", line=1, column=name)
        return needed

    def _register(self, column: Column, source: FeatureSource | str, filepath: str) -> None:
        """Note a column's type, as RecBole's ``_load_feat`` does; keys that several files share keep their first."""
        if column.type == "float_seq":
            raise DataError(
                filepath, "float_seq columns are not read", line=1, column=column.name, hint="name it in unload_col"
            )
        kind = FeatureType(column.type)
        name = column.name
        if name in self.field2type:
            shared = {self.uid_field, self.iid_field, self.time_field, self.query_field}
            if name not in shared or self.field2type[name] != kind:
                raise DataError(filepath, "another file has a column of this name", line=1, column=name)
            return
        self.field2type[name], self.field2source[name], self.field2seqlen[name] = kind, source, 1

    def field2feats(self, field: str) -> list[pd.DataFrame]:
        """The frames that hold ``field``, first the one whose ids come first."""
        holders = {
            self.uid_field: ["inter", "user", "search"],
            self.iid_field: ["inter", "item"],
            self.query_field: ["search", "query"],
            self.time_field: ["inter", "search"],
        }.get(field)
        if holders is None:
            source = self.field2source[field]
            holders = [source.value if isinstance(source, FeatureSource) else source]
        feats = [getattr(self, f"{name}_feat", None) for name in holders]
        return [feat for feat in feats if feat is not None and field in feat]

    # --- filters ----------------------------------------------------------------------------------------------------

    def _data_filtering(self) -> None:
        super()._data_filtering()
        search = getattr(self, "search_feat", None)
        if search is not None:
            known = search[self.uid_field].isin(self.inter_feat[self.uid_field].unique())
            if not known.all():
                self.logger.info(f"{(~known).sum():,} searches of users without interactions are left out")
                self.search_feat = search[known].reset_index(drop=True)

    def _filter_by_inter_num(self) -> None:
        """RecBole's k-core filter, counted in NumPy: repeats until every user and item is inside its interval."""
        limits = [
            (field, self._parse_intervals_str(self.config[key]))
            for field, key in [(self.uid_field, "user_inter_num_interval"), (self.iid_field, "item_inter_num_interval")]
        ]
        limits = [(field, limit) for field, limit in limits if limit and limit != [("[", 0.0, float("inf"), ")")]]
        while True:
            keep = np.ones(len(self.inter_feat), dtype=bool)
            for field, limit in limits:
                codes = self.inter_feat[field].cat.codes.to_numpy()
                keep &= self._within_intervals(np.bincount(codes)[codes], limit)
            if keep.all():
                return
            self.inter_feat = self.inter_feat[keep]

    def _reset_index(self) -> None:
        if not len(self.inter_feat):
            raise DataError(f"{self.dataset_path}/{self.dataset_name}.inter", "no interaction is left after filtering")
        for name in self.feat_name_list:
            getattr(self, name).reset_index(drop=True, inplace=True)

    def _normalize(self) -> None:
        if self.config["normalize_all"] or self.time_field in (self.config["normalize_field"] or []):
            raise ConfigError(
                f"'{self.time_field}' orders the events and cannot be normalised: name other columns in normalize_field"
            )
        super()._normalize()

    # --- ids --------------------------------------------------------------------------------------------------------

    def _set_alias(self, alias_name: str, default_value: list[str]) -> None:
        """Clicked items are items, whatever the configuration says about aliases."""
        super()._set_alias(alias_name, default_value + [self.clicks_field] * (alias_name == "item_id"))

    def _init_alias(self) -> None:
        """RecBole leaves columns of additional files out of the id spaces; ours have ids too."""
        super()._init_alias()
        spaces = {field for alias in self.alias.values() for field in alias}
        ours = [
            field for field, kind in self.field2type.items()
            if isinstance(self.field2source[field], str) and kind in _TOKENS and field not in spaces
        ]  # fmt: skip
        self._rest_fields = np.concatenate([self._rest_fields, np.array(ours, dtype=object)])

    def _get_remap_list(self, field_list: np.ndarray) -> list[tuple[pd.DataFrame, str, FeatureType]]:
        return super()._get_remap_list([field for field in field_list if field in self.field2type])

    def _remap(self, remap_list: list[tuple[pd.DataFrame, str, FeatureType]]) -> None:
        """Number the tokens of one id space from 1, in order of appearance, file by file; sequences share the space."""
        separator = self.config["seq_separator"]
        columns = [
            token_column(feat[field], separator if kind == FeatureType.TOKEN_SEQ else None)
            for feat, field, kind in remap_list
        ]
        if not columns:
            return
        numbers, tokens = pd.factorize(np.concatenate([column.tokens for column in columns]))
        id_token = np.concatenate([["[PAD]"], tokens]).astype(object)
        token_id = dict(zip(id_token.tolist(), range(len(id_token))))
        ends = np.cumsum([len(column.tokens) for column in columns])[:-1]
        for (feat, field, _), column, ids in zip(remap_list, columns, np.split(numbers + 1, ends)):
            self.field2id_token[field], self.field2token_id[field] = id_token, token_id
            values = column.with_ids(ids.astype(np.int32))
            if isinstance(values, Ragged):
                self.sequences[self._feat_name(feat), field] = values
                del feat[field]
            else:
                feat[field] = values

    def _feat_name(self, feat: pd.DataFrame) -> str:
        return next(name for name in self.feat_name_list if getattr(self, name) is feat)

    # --- after RecBole's processing -----------------------------------------------------------------------------------

    def _data_processing(self) -> None:
        super()._data_processing()
        self.target_num = int(self.inter_feat[self.iid_field].max()) + 1
        self.query_terms = self._query_terms()
        self.item_attributes = self._attributes("item_feat", self.iid_field, self.item_num)
        self.user_attributes = self._attributes("user_feat", self.uid_field, self.user_num)
        self.log = self._build_log()
        self.split = split_instances(self.log, self.config["require_both_histories"])
        if not len(self.split.train):
            raise DataError(
                f"{self.dataset_path}/{self.dataset_name}.inter", "no training target is left",
                hint="require_both_histories keeps targets with an earlier interaction and an earlier search",
            )  # fmt: skip
        self.search_feat = self.query_feat = self._inter_feat = None
        for name, tables in [("item_feat", self.item_attributes), ("user_feat", self.user_attributes)]:
            feat = getattr(self, name)
            if feat is not None:
                setattr(self, name, self._as_interaction(feat, tables))

    def _as_interaction(self, feat: pd.DataFrame, tables: dict[str, Tensor]) -> Interaction:
        """A feature frame as RecBole's models read it: int64 tokens and token sequences, float32 floats."""
        columns = {
            field: torch.tensor(feat[field].to_numpy(np.float32 if self._is_float(field) else np.int64))
            for field in map(str, feat)
        }
        return Interaction({**columns, **{field: table.long() for field, table in tables.items()}})

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
        if search is None:
            searches = Searches.none()
        else:
            count = len(search)
            clicks = self.sequences.pop(("search_feat", self.clicks_field), None)
            searches = Searches(
                search[self.uid_field].to_numpy(),
                search[self.time_field].to_numpy(),
                search[self.query_field].to_numpy(),
                search[self.source_field].to_numpy() if self.source_field in search else np.ones(count, dtype=np.int32),
                clicks.truncated(self.config["max_clicks_per_search"])
                if clicks is not None
                else Ragged(np.zeros(0, dtype=np.int32), np.zeros(count + 1, dtype=np.int64)),
            )
        users, times, items = (inter[f].to_numpy() for f in (self.uid_field, self.time_field, self.iid_field))
        return build_event_log(users, times, items, searches, self.user_num, self.config["session_gap"])

    def _query_terms(self) -> Tensor:
        terms = self.sequences.pop(("query_feat", self.terms_field), None)
        if terms is None or self.query_feat is None:
            return torch.zeros((self.query_num, 1), dtype=torch.int32)
        queries = self.query_feat[self.query_field]
        if queries.duplicated().any():
            row = int(queries.duplicated().argmax())
            token = self.id2token(self.query_field, int(queries.iloc[row]))
            raise DataError(
                f"{self.dataset_path}/{self.dataset_name}.query", f"query '{token}' is listed twice", line=row + 2
            )
        return terms.table(queries.to_numpy(), self.query_num, self.config["max_terms_per_query"])

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
        for (name, field), lists in self.sequences.items():
            if name == feat_name:
                rows = self._sequence_rows[name]
                tables[field] = lists.table(rows, size, self.config["max_terms_per_query"])
        return tables

    def _user_item_feat_preparation(self) -> None:
        # RecBole now reorders these frames by id; sequences taken out of them stay in file order.
        self._sequence_rows = {
            name: feat[key].to_numpy()
            for name, key in [("user_feat", self.uid_field), ("item_feat", self.iid_field)]
            if (feat := getattr(self, name)) is not None
        }
        super()._user_item_feat_preparation()

    # --- what models and loaders read -------------------------------------------------------------------------------

    @property
    def inter_feat(self) -> Any:
        """While loading the frame of ``X.inter``; afterwards every interaction of the training period, as RecBole's."""
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
        """int32: the query of every search of the training period, one entry per search."""
        return self.log.queries[self.split.training_searches]

    @cached_property
    def training_clicks(self) -> TrainingClicks:
        """Every click of the training period with its user and query: what graphs and maps may be built from."""
        return training_clicks(self.log, self.split)

    @cached_property
    def data_hash(self) -> str:
        """Identifies the files that were read, whatever was made of them."""
        listing = "".join(f"{name} {digest}\n" for name, digest in sorted(self.file_hashes.items()))
        return hashlib.sha256(listing.encode()).hexdigest()

    def history_reader(self) -> HistoryReader:
        """Reads the histories of targets, with this configuration's lengths."""
        config = self.config
        lengths = (config["MAX_ITEM_LIST_LENGTH"], config["max_search_length"], config["max_clicks_per_search"])
        return HistoryReader(self.log, *lengths)

    def __str__(self) -> str:
        return f"{type(self).__name__}({self.dataset_name}: {self.summary()})"

    def summary(self) -> dict[str, int]:
        """How many of everything there are, padding not counted."""
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
