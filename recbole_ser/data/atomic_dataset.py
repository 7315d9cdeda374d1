"""RecBole's loading and filtering on top of strictly read atomic files, for two logs and their id spaces."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from recbole.data.dataset import Dataset
from recbole.utils import FeatureSource, FeatureType

from recbole_ser.atomic.location import is_there
from recbole_ser.atomic.publishing import restore
from recbole_ser.atomic.ragged import Ragged
from recbole_ser.atomic.reading import read_atomic, read_header
from recbole_ser.atomic.rules import Finding
from recbole_ser.atomic.schema import FILES, KEYS, PADDING, Column
from recbole_ser.atomic.sequences import split_sequences
from recbole_ser.atomic.vocabulary import TokenIds, token_column
from recbole_ser.data.named_columns import LoadedColumn, check_named_columns, check_named_files, normalised
from recbole_ser.data.numbers import scaled
from recbole_ser.errors import ConfigError, DataError
from recbole_ser.files import sha256

# The configuration's key for the name of each column that has a meaning.
_NAME_KEYS = {
    "user_id": "USER_ID_FIELD", "item_id": "ITEM_ID_FIELD", "query_id": "QUERY_ID_FIELD", "timestamp": "TIME_FIELD",
    "terms": "TERMS_FIELD", "clicked_items": "CLICKED_ITEMS_FIELD", "click_times": "CLICK_TIMES_FIELD",
    "source": "SOURCE_FIELD",
}  # fmt: skip
_TOKENS = (FeatureType.TOKEN, FeatureType.TOKEN_SEQ)


class AtomicDataset(Dataset):
    """The first half of our data set, up to RecBole's frames: files are read and filtered, and tokens get their ids.

    RecBole's keys for loading and filtering work (``load_col``, ``alias_of_item_id``, ``val_interval``,
    ``item_inter_num_interval``, ...).  Searches of users that have no interaction left are dropped, with a line in the
    run's log.

    Attributes:
        sequences: the lists of ids of each token_seq column, by (name of the frame, column).
        file_hashes: SHA-256 of each file that was read, by file name.

    Raises:
        DataError: a file is missing or wrong.
    """

    inter_feat: Any
    search_feat: pd.DataFrame | None
    query_feat: pd.DataFrame | None
    _rest_fields: np.ndarray

    def _get_field_from_config(self) -> None:
        super()._get_field_from_config()
        config = self.config
        self.query_field, self.terms_field = config["QUERY_ID_FIELD"], config["TERMS_FIELD"]
        self.clicks_field, self.source_field = config["CLICKED_ITEMS_FIELD"], config["SOURCE_FIELD"]
        self.click_times_field = config["CLICK_TIMES_FIELD"]
        self.sequences: dict[tuple[str, str], Ragged] = {}
        self.file_hashes: dict[str, str] = {}
        self.field2token_id = TokenIds(self.field2id_token)

    # --- loading ----------------------------------------------------------------------------------------------------

    def _load_data(self, token: str, dataset_path: str) -> None:
        folder = Path(dataset_path)
        restore(folder)
        if not is_there(folder / f"{token}.inter"):
            raise DataError(folder / f"{token}.inter", "file not found", hint="data sets live in data_path/<name>/")
        for suffix in ("item", "user"):
            is_there(folder / f"{token}.{suffix}")  # RecBole takes for missing what is no file
        check_named_files(self.config, folder, token)
        super()._load_data(token, dataset_path)
        if self.inter_feat is None or not len(self.inter_feat):
            raise DataError(folder / f"{token}.inter", "there are no interactions")
        check_named_columns(self.config, self._loaded_columns(), self.time_field)

    def _loaded_columns(self) -> dict[str, LoadedColumn]:
        kinds, sources = self.field2type, self.field2source
        return {name: LoadedColumn(kinds[name].value, _suffix(sources[name])) for name in kinds}

    def _load_additional_feat(self, token: str, dataset_path: str) -> None:
        """As in RecBole, but a missing ``.query`` means queries without words and a missing ``.search`` no searches."""
        for suffix in self.config["additional_feat_suffix"] or []:
            path = Path(dataset_path) / f"{token}.{suffix}"
            if is_there(path):
                setattr(self, f"{suffix}_feat", self._load_feat(str(path), suffix))
            elif suffix not in FILES:
                raise DataError(path, "file not found", hint="it is named in additional_feat_suffix")
            elif suffix == "search" and self.config["require_both_histories"]:
                raise DataError(path, "file not found", hint="without searches set require_both_histories to false")

    def _load_feat(self, filepath: str, source: FeatureSource | str) -> pd.DataFrame | None:
        if all((self.config[key] or {}).get(_suffix(source), "*") != "*" for key in ("load_col", "unload_col")):
            raise ConfigError(
                f"load_col and unload_col both name columns of X.{_suffix(source)}: leave one of them out, "
                "or write load_col: ~ to load all columns but those of unload_col"
            )
        load, unload = self._get_load_and_unload_col(source)
        if load == set():
            return None
        columns = read_header(filepath, self.config["field_separator"])
        required, optional = self._known_columns(source)
        for name in sorted(required.keys() - {column.name for column in columns}):
            raise DataError(filepath, "the column is missing", line=1, column=name)
        left_out = {c.name for c in columns if (load is not None and c.name not in load) or c.name in (unload or ())}
        if source == "search" and self.clicks_field not in left_out:
            left_out.discard(self.click_times_field)  # without its time a click would be shown too early
        wanted = [c for c in columns if c.name in required or c.name not in left_out]
        for name in sorted((load or set()) - {column.name for column in columns}):
            raise DataError(filepath, "the column named in load_col is missing", line=1, column=name)
        for column in wanted:
            self._check_column(column, {**required, **optional}, filepath)
        wanted = self._read_by_something(wanted, {**required, **optional}, source, filepath, named=load is not None)
        for column in wanted:
            self._register(column, source)
        self.file_hashes[Path(filepath).name] = sha256(filepath)
        keys = [column.name for column in wanted if column.name in self._keys]
        preload_ids = [column.name for column in wanted if column.name in (self.config["preload_weight"] or ())]
        frame = read_atomic(
            filepath, wanted, self.config["field_separator"], seq_separator=self.config["seq_separator"],
            required=[*keys, *preload_ids],
            vectors=[c.name for c in wanted if c.type == "float_seq" and c.name not in optional],
        )  # fmt: skip
        ids = {name: None for name in keys if name != self.time_field}
        for name, separator in (ids | {self.clicks_field: self.config["seq_separator"]}).items():
            if name in frame:
                _check_no_padding(frame[name], separator, filepath)
        for name in set(preload_ids) - set(keys):
            _check_listed_once(frame[name], filepath)
        if (schema := FILES.get(_suffix(source))) is not None and schema.listing:
            _check_listed_once(frame[keys[0]], filepath)
        if self.click_times_field in frame:
            self._check_click_times(frame, filepath)
        return frame

    def _check_click_times(self, frame: pd.DataFrame, filepath: str) -> None:
        separator = self.config["seq_separator"]
        if self.clicks_field not in frame:
            raise DataError(
                filepath, f"there are no '{self.clicks_field}' to it", line=1, column=self.click_times_field
            )
        numbers = []
        for field in (self.clicks_field, self.click_times_field):
            _, rows, lists = split_sequences(frame[field], separator)
            numbers.append(np.append(np.diff(lists.starts), 0)[rows])
        wrong = numbers[0] != numbers[1]
        if wrong.any():
            row = int(wrong.argmax())
            raise DataError(
                filepath, f"{numbers[1][row]} times of {numbers[0][row]} clicked items", line=row + 2,
                column=self.click_times_field, hint="give every clicked item its time",
            )  # fmt: skip

    @property
    def _keys(self) -> dict[str, str]:
        """The types of the columns that relate the files to each other, by their names in the configuration."""
        return self._renamed(KEYS)

    def _known_columns(self, source: FeatureSource | str) -> tuple[dict[str, str], dict[str, str]]:
        """The types, by name, of the columns that a file must have and of those that have a meaning if it has them."""
        schema = FILES.get(_suffix(source))
        return ({}, self._keys) if schema is None else (self._renamed(schema.required), self._renamed(schema.optional))

    def _renamed(self, columns: Iterable[Column]) -> dict[str, str]:
        """The types of ``columns`` by the names that the configuration gives them."""
        return {self.config[_NAME_KEYS[column.name]]: column.type for column in columns}

    def _check_column(self, column: Column, known: dict[str, str], filepath: str) -> None:
        if column.name in self._keys and column.name not in known:
            raise DataError(
                filepath, "this key belongs to other files", line=1, column=column.name,
                hint="rename the column, or leave it out of load_col",
            )  # fmt: skip
        if column.type != known.get(column.name, column.type):
            raise DataError(
                filepath, f"the type is {column.type}, not {known[column.name]}", line=1, column=column.name,
                hint="correct the type in the header",
            )  # fmt: skip
        if column.name in self.field2type and column.name not in self._keys:
            raise DataError(filepath, "another file has a column of this name", line=1, column=column.name)

    def _read_by_something(
        self, columns: list[Column], known: dict[str, str], source: FeatureSource | str, filepath: str, named: bool
    ) -> list[Column]:
        """Those of ``columns`` that something reads; ``named``: they are in ``load_col``, so that others are refused.

        Read are the columns that have a meaning, the attributes of items and users, everything but vectors in a file
        that the user added, and what ``val_interval`` and ``preload_weight`` name.
        """
        schema = FILES.get(_suffix(source))
        read_elsewhere = {*(self.config["val_interval"] or ()), *(self.config["preload_weight"] or {}).values(), *known}
        unread = {
            column.name for column in columns
            if not (schema.attributes if schema else column.type != "float_seq") and column.name not in read_elsewhere
        }  # fmt: skip
        if unread and named:
            raise DataError(
                filepath, "nothing reads this column", line=1, column=min(unread),
                hint="leave it out of load_col; " + (
                    "attributes belong into X.item and X.user, and filters into val_interval" if schema
                    else "the vectors of such a file are those that preload_weight names"
                ),
            )  # fmt: skip
        if unread:
            self.logger.info(f"{filepath}: columns that nothing reads are left out: {', '.join(sorted(unread))}")
        return [column for column in columns if column.name not in unread]

    def _register(self, column: Column, source: FeatureSource | str) -> None:
        """Record a column's type, as RecBole's ``_load_feat`` does; a key of several files belongs to the first one."""
        name = column.name
        if name not in self.field2type:
            self.field2type[name], self.field2source[name] = FeatureType(column.type), source
            self.field2seqlen[name] = 1

    def field2feats(self, field: str) -> list[pd.DataFrame]:
        """The frames that have the column ``field``, in the order in which their tokens are numbered."""
        holders = {
            self.uid_field: ["inter", "user", "search"],
            self.iid_field: ["inter", "item"],
            self.query_field: ["search", "query"],
            self.time_field: ["inter", "search"],
        }.get(field)
        if holders is None:
            holders = [_suffix(self.field2source[field])]
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

    def _remove_duplication(self) -> None:
        """Keep a user's first or last interaction with an item, in the order (time, order in the file).

        RecBole sorts the interactions by time for this, and its sort shuffles those that have the same time.
        """
        keep, frame = self.config["rm_dup_inter"], self.inter_feat
        if keep is None:
            return
        order = np.argsort(frame[self.time_field].to_numpy(), kind="stable")
        again = np.empty(len(frame), dtype=bool)
        again[order] = frame.iloc[order].duplicated([self.uid_field, self.iid_field], keep=keep).to_numpy()
        self.logger.info(f"{again.sum():,} interactions with an item that the user has met are left out ({keep} kept)")
        self.inter_feat = frame[~again]

    def _filter_inter_by_user_or_item(self) -> None:
        """As in RecBole, but the log says how many interactions it leaves out, and why."""
        if self.config["filter_inter_by_user_or_item"]:
            for suffix, key in [("user", self.uid_field), ("item", self.iid_field)]:
                feat, keys = getattr(self, f"{suffix}_feat"), self.inter_feat[key]
                gone = keys[~keys.isin(feat[key])] if feat is not None else keys[:0]
                if len(gone):
                    self.logger.warning(
                        f"{len(gone):,} of {len(keys):,} interactions are left out: X.{suffix}, which is loaded, has "
                        f"no line for {gone.nunique():,} of {keys.nunique():,} {suffix}s, or the filters leave none; "
                        "list them there, or set filter_inter_by_user_or_item to false"
                    )
        super()._filter_inter_by_user_or_item()

    def _parse_intervals_str(self, intervals_str: Any) -> list[tuple[str, Any, Any, str]] | None:
        """As in RecBole, but bounds are exact decimals: nanoseconds are more than a float holds."""
        if intervals_str is None:
            return None
        parts = [part.strip() for part in str(intervals_str).split(";")]
        ends = [[Decimal(end.strip()) for end in part[1:-1].split(",")] for part in parts]
        return [(part[0], low, high, part[-1]) for part, (low, high) in zip(parts, ends)]

    def _within_intervals(self, num: np.ndarray, intervals: Any) -> Any:
        """As in RecBole, but whole numbers are compared with whole bounds, in 64 bits."""
        whole = num.dtype.kind == "i"
        ends = [
            (left, _bound(low, left == "[", whole), _bound(high, right == ")", whole), right)
            for left, low, high, right in intervals
        ]
        return super()._within_intervals(num, ends)

    def _filter_by_inter_num(self) -> None:
        """RecBole's k-core filter, in NumPy: it repeats until the count of every user and item is in its interval."""
        limits = [
            (field, self._parse_intervals_str(self.config[key]))
            for field, key in [(self.uid_field, "user_inter_num_interval"), (self.iid_field, "item_inter_num_interval")]
        ]
        limits = [(field, limit) for field, limit in limits if limit and limit != [("[", 0, Decimal("inf"), ")")]]
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
            setattr(self, name, getattr(self, name).reset_index(drop=True))

    def _normalize(self) -> None:
        """As in RecBole, but in NumPy, and without the times, which order the events; vectors are scaled later."""
        for field in self._normalised_fields():
            for feat in self.field2feats(field):
                feat[field] = scaled(feat[field].to_numpy(np.float64))

    def _normalised_fields(self) -> set[str]:
        return normalised(self.config, self._loaded_columns())

    # --- ids --------------------------------------------------------------------------------------------------------

    def _set_alias(self, alias_name: str, default_value: list[str]) -> None:
        """Clicked items share the ids of items, whatever the configuration says about aliases."""
        super()._set_alias(alias_name, default_value + [self.clicks_field] * (alias_name == "item_id"))

    def _init_alias(self) -> None:
        """Give the token columns of additional files ids too: RecBole leaves them out of the id spaces."""
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
        id_token = np.concatenate([[PADDING], tokens]).astype(object)
        ends = np.cumsum([len(column.tokens) for column in columns])[:-1]
        for (feat, field, _), column, ids in zip(remap_list, columns, np.split(numbers + 1, ends)):
            self.field2id_token[field] = id_token
            values = column.with_ids(ids.astype(np.int32))
            if isinstance(values, Ragged):
                self.sequences[self._feat_name(feat), field] = values
                del feat[field]
            else:
                feat[field] = values

    def _feat_name(self, feat: pd.DataFrame) -> str:
        return next(name for name in self.feat_name_list if getattr(self, name) is feat)


def _suffix(source: FeatureSource | str) -> str:
    """The suffix of a frame's file: RecBole names its own files by an enumeration, additional ones by their suffix."""
    return source.value if isinstance(source, FeatureSource) else source


def _bound(bound: Decimal, up: bool, whole: bool) -> float:
    """An end of an interval as a number; for ``whole`` numbers it is rounded, up or down."""
    if not whole or not bound.is_finite():
        return float(bound)
    return math.ceil(bound) if up else math.floor(bound)


def _check_no_padding(texts: pd.Series, separator: str | None, filepath: str) -> None:
    """Check that no id is that of padding; with a ``separator`` each of the texts is a sequence of ids."""
    before, after = (rf"(?:^|{re.escape(separator)})", rf"(?:{re.escape(separator)}|$)") if separator else ("^", "$")
    distinct = pa.array(texts.cat.categories.to_numpy(object), pa.string())
    reserved = pc.match_substring_regex(distinct, before + re.escape(PADDING) + after).to_numpy(zero_copy_only=False)
    wrong = np.append(reserved, False)[texts.cat.codes]
    if wrong.any():
        line = int(wrong.argmax()) + 2
        raise Finding("reserved-id", "", line, str(texts.name), PADDING).as_error(filepath)


def _check_listed_once(ids: pd.Series, filepath: str) -> None:
    again = ids.duplicated().to_numpy()
    if again.any():
        row = int(again.argmax())
        suffix = Path(filepath).suffix[1:]
        raise DataError(filepath, f"{suffix} '{ids.iloc[row]}' is listed twice", line=row + 2, hint="list it once")
