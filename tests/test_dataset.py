"""Instances, histories and batch fields, by hand, against a slow reference, and under planted future events."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SIZES, load_dataset, write_lines, write_toy

from recbole_ser.data.dataset import SERDataset
from recbole_ser.data.loader import EvalLoader, TrainLoader, instances
from recbole_ser.errors import ConfigError, DataError
from recbole_ser.model.base import SearchRecommender
from recbole_ser.validation.report import validate


def tokens(dataset: SERDataset, field: str, ids: torch.Tensor) -> list[str]:
    return [str(token) for token in dataset.id2token(field, ids.numpy()) if token != "[PAD]"]


def target_rows(dataset: SERDataset, positions: torch.Tensor) -> dict[tuple[str, str], dict[str, object]]:
    """(user, target item) to what a model would see, in raw tokens."""
    batch = instances(dataset, positions, dataset.history_reader())
    seen = {}
    for row in range(len(positions)):
        user, item = (tokens(dataset, f, batch[f][row : row + 1])[0] for f in ("user_id", "item_id"))
        seen[user, item] = {
            "items": tokens(dataset, "item_id", batch["item_id_list"][row]),
            "queries": tokens(dataset, "query_id", batch["search_query_list"][row]),
            "clicks": [tokens(dataset, "item_id", clicks) for clicks in batch["search_click_list"][row]],
            "lengths": (int(batch["item_length"][row]), int(batch["search_length"][row])),
        }
    return seen


def test_histories_and_split_by_hand(toy: Callable[..., SERDataset]) -> None:
    dataset = toy()
    test, valid, train = (target_rows(dataset, getattr(dataset.split, name)) for name in ("test", "valid", "train"))
    assert set(test) == {("a", "i7")}
    assert set(valid) == {("a", "i6")}
    # i2 and i3 of a are tied with a's search q1: that search is not before them.
    assert set(train) == {("a", "i2"), ("a", "i3"), ("a", "i4"), ("a", "i5"), ("b", "i1"), ("b", "i3")}
    assert train["a", "i2"]["queries"] == ["q2"]
    assert train["a", "i2"]["clicks"][0] == ["i3", "x"], "only the first two clicks are kept"
    assert train["a", "i3"]["items"] == ["i1", "i2"], "a tie is ordered by the file"
    assert train["a", "i5"]["queries"] == ["q2", "q1"], "the search at the target's own time is not seen"
    assert test["a", "i7"] == {
        "items": ["i3", "i4", "i5", "i6"],
        "queries": ["q1", "q1", "q3"],
        "clicks": [["i2"], [], ["i6"]],
        "lengths": (4, 3),
    }


def test_without_the_protocol_every_interaction_is_a_target(toy: Callable[..., SERDataset]) -> None:
    dataset = toy(require_both_histories=False)
    assert dataset.summary() == {
        "users": 3, "items": 8, "queries": 3, "interactions": 14, "searches": 5, "train": 8, "valid": 3, "test": 3,
    }  # fmt: skip
    rows = target_rows(dataset, dataset.split.train)
    assert rows["c", "i4"]["lengths"] == (0, 0)
    assert rows["c", "i5"]["queries"] == []


def test_clicked_only_items_have_an_id_but_are_no_target(toy: Callable[..., SERDataset]) -> None:
    dataset = toy()
    assert dataset.token2id("item_id", "x") == dataset.target_num == dataset.item_num - 1
    assert dataset.log.items.max() < dataset.target_num


def test_query_terms_and_training_searches(toy: Callable[..., SERDataset]) -> None:
    dataset = toy()
    words = [tokens(dataset, "terms", dataset.query_terms[dataset.token2id("query_id", q)]) for q in ("q1", "q3")]
    assert words == [["red", "shoe"], ["red", "hat", "big"]]
    assert not dataset.query_terms[0].any()
    queries = tokens(dataset, "query_id", dataset.training_search_queries)
    assert sorted(queries) == ["q1", "q1", "q2", "q2", "q3"], "a's validation target is at 50, all searches are earlier"


def test_general_models_train_on_what_precedes_the_validation_target(toy: Callable[..., SERDataset]) -> None:
    dataset = toy()
    pairs = {
        (tokens(dataset, "user_id", u[None])[0], tokens(dataset, "item_id", i[None])[0])
        for u, i in zip(dataset.inter_feat["user_id"], dataset.inter_feat["item_id"])
    }
    assert ("a", "i5") in pairs and ("c", "i7") in pairs and ("b", "i2") in pairs
    assert not {("a", "i6"), ("a", "i7")} & pairs


def reference_instances(inter: list[tuple], search: list[tuple]) -> dict[tuple[int, int], tuple[list, list]]:
    """The rules of the protocol, row by row: (user, index in the user's order) to (item history, search history)."""
    result = {}
    for user in sorted({row[0] for row in inter}):
        mine = sorted((row for row in inter if row[0] == user), key=lambda row: row[2])
        searched = sorted((row for row in search if row[0] == user), key=lambda row: row[2])
        for index, (_, item, time) in enumerate(mine):
            result[user, index, item] = (
                [row[1] for row in mine[:index]],
                [row[1] for row in searched if row[2] < time],
            )
    return result


@pytest.mark.parametrize("scale", [1, 1_000_000_007, 2**40])
def test_histories_equal_a_slow_reference(tmp_path: Path, scale: int) -> None:
    rng = np.random.default_rng(scale)
    inter = [(f"u{rng.integers(9)}", f"i{rng.integers(40)}", int(rng.integers(30)) * scale) for _ in range(300)]
    search = [(f"u{rng.integers(9)}", f"q{rng.integers(20)}", int(rng.integers(30)) * scale) for _ in range(150)]
    write_toy(
        tmp_path,
        inter=[f"{u} {i} {t}" for u, i, t in inter],
        search=[f"{u} {q} {t} " for u, q, t in search],
    )
    dataset = load_dataset(tmp_path, "toy", require_both_histories=False)
    positions = torch.arange(len(inter), dtype=torch.int32)
    batch = instances(dataset, positions, dataset.history_reader())
    expected = reference_instances(inter, search)
    start = dataset.log.user_start
    for row in range(len(inter)):
        user = tokens(dataset, "user_id", batch["user_id"][row : row + 1])[0]
        item = tokens(dataset, "item_id", batch["item_id"][row : row + 1])[0]
        items, queries = expected[user, row - int(start[batch["user_id"][row]]), item]
        assert tokens(dataset, "item_id", batch["item_id_list"][row]) == items[-4:]
        assert tokens(dataset, "query_id", batch["search_query_list"][row]) == queries[-3:]
        assert int(batch["item_length"][row]) == min(len(items), 4)
        assert int(batch["search_length"][row]) == min(len(queries), 3)


def test_times_that_float32_cannot_tell_apart_keep_their_order(tmp_path: Path) -> None:
    base = 1_690_000_000_000
    shuffled = [f"a i{k} {base + k}" for k in (5, 3, 1, 4, 2, 6)]
    write_toy(tmp_path, inter=shuffled, search=[f"a q1 {base} i1"])
    dataset = load_dataset(tmp_path, "toy", require_both_histories=False)
    assert tokens(dataset, "item_id", dataset.log.items) == ["i1", "i2", "i3", "i4", "i5", "i6"]


def test_an_event_planted_in_the_future_changes_nothing(tmp_path: Path) -> None:
    """Later events of every kind, and a search at the target's own timestamp, leave what a target sees as it was."""
    inter = [f"a i{k} {10 * k}" for k in range(1, 8)]
    search = ["a q1 15 i1", "a q2 35 i3"]
    write_toy(tmp_path / "before", inter=inter, search=search)
    write_toy(
        tmp_path / "after",
        inter=[*inter, "a secret 45", "a secret 80"],
        search=[*search, "a q3 40 secret", "a q3 41 secret", "a q3 90 secret"],
    )
    before, after = (load_dataset(tmp_path / name, "toy", require_both_histories=False) for name in ("before", "after"))
    everything = [target_rows(d, torch.arange(len(d.log.items), dtype=torch.int32)) for d in (before, after)]
    for item in ("i1", "i2", "i3", "i4"):
        assert everything[0]["a", item] == everything[1]["a", item]
    assert everything[0]["a", "i5"] != everything[1]["a", "i5"], "a past event does change what is seen"


def test_recboles_filters_apply_and_searches_follow(toy: Callable[..., SERDataset]) -> None:
    dataset = toy(require_both_histories=False, user_inter_num_interval="[4,inf)")
    assert set(dataset.field2token_id["user_id"]) == {"[PAD]", "a", "c"}
    assert len(dataset.log.queries) == 4, "b's search goes with b"
    dataset = toy(require_both_histories=False, val_interval={"timestamp": "[0,45)"})
    assert int(dataset.log.items.shape[0]) == 12
    assert len(dataset.log.queries) == 4, "times are filtered in both logs"


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_what_a_partial_list_of_items_drops_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    base = write_toy(tmp_path)
    write_lines(base / "toy.item", "item_id:token\tkind:token", *(f"i{n}\tx" for n in range(1, 7)))
    values = {"load_col": {"inter": ["user_id"], "item": ["kind"]}, "require_both_histories": False}
    assert len(load_dataset(tmp_path, "toy", **values).log.items) == 12
    (message,) = messages(caplog)
    assert message.startswith(
        "2 of 14 interactions are left out: X.item, which is loaded, has no line for 1 of 7 items"
    )
    assert message.endswith("list them there, or set filter_inter_by_user_or_item to false")
    caplog.clear()
    assert len(load_dataset(tmp_path, "toy", filter_inter_by_user_or_item=False, **values).log.items) == 14
    assert not messages(caplog)


def test_clicks_that_no_interaction_has_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_toy(tmp_path, search=["a q1 20 98.0", "b q1 20 99.0", "b q2 21 98.0"])
    load_dataset(tmp_path, "toy")
    (message,) = messages(caplog)
    assert message.startswith("no interaction has any of the 2 items clicked in searches: they look like '98.0'")
    caplog.clear()
    write_toy(tmp_path)
    load_dataset(tmp_path, "toy")
    assert not messages(caplog)


NS = 1_640_000_000_000_000_000


@pytest.mark.parametrize(
    ("interval", "kept"),
    [
        (f"[{NS + 3},{NS + 5}]", [3, 4, 5]),
        (f"({NS + 3},{NS + 5})", [4]),
        (f"[{NS + 3}.5,inf)", [4, 5, 6]),
        (f"({NS + 3}.5,inf)", [4, 5, 6]),
        (f"(-inf,{NS + 3}.5]", [1, 2, 3]),
        (f"[0,{NS + 2});[{NS + 6},1e19]", [1, 6]),
        ("[1.64e18,inf)", [1, 2, 3, 4, 5, 6]),
    ],
)
def test_intervals_of_nanoseconds_are_exact(tmp_path: Path, interval: str, kept: list[int]) -> None:
    write_toy(tmp_path, inter=[f"a i{n} {NS + n}" for n in (6, 5, 4, 3, 2, 1)], search=[f"a q1 {NS} i1"])
    dataset = load_dataset(tmp_path, "toy", val_interval={"timestamp": interval}, require_both_histories=False)
    names = dataset.id2token("item_id", dataset.log.items.numpy())
    assert names.tolist() == [f"i{n}" for n in kept]


def test_intervals_of_fractions(tmp_path: Path) -> None:
    write_toy(tmp_path, inter=[f"a i{n} 1700000000.00000{n}" for n in (1, 2, 3, 4)])
    interval = "[1700000000.000002,1700000000.000004)"
    dataset = load_dataset(tmp_path, "toy", val_interval={"timestamp": interval}, require_both_histories=False)
    assert dataset.id2token("item_id", dataset.log.items.numpy()).tolist() == ["i2", "i3"]


def test_logs_that_are_not_exact_beside_each_other_are_refused(tmp_path: Path) -> None:
    write_toy(tmp_path, inter=[f"a i{n} {NS + n}" for n in (1, 2, 3)], search=["a q1 0.5 i1"])
    with pytest.raises(DataError, match="times are fractions in one column and whole numbers above"):
        load_dataset(tmp_path, "toy", require_both_histories=False)
    (finding,) = validate(tmp_path / "toy").first("error")
    assert finding.rule == "inexact-time"


def test_k_core_is_repeated_until_it_holds(tmp_path: Path) -> None:
    # Dropping item r leaves user d with one interaction; dropping d then leaves item s with one.
    inter = ["d r 1", "d s 2", "e s 3", "e t 4", "f t 5", "f t 6", "e t 7"]
    write_toy(tmp_path, inter=inter, search=["e q1 1 t"])
    dataset = load_dataset(
        tmp_path, "toy", require_both_histories=False,
        user_inter_num_interval="[2,inf)", item_inter_num_interval="[2,inf)",
    )  # fmt: skip
    assert set(dataset.field2token_id["item_id"]) == {"[PAD]", "t"}


def test_item_and_user_attributes(tmp_path: Path) -> None:
    base = write_toy(tmp_path)
    write_lines(
        base / "toy.item", "item_id:token\tkind:token\ttags:token_seq\tprice:float", "i2\tB\tu v\t3", "i1\t\tv\t1.5"
    )
    write_lines(base / "toy.user", "user_id:token\tage:token", "b\told", "a\tyoung")
    load = {
        "inter": ["user_id", "item_id", "timestamp"], "search": "*", "query": "*",
        "item": ["item_id", "kind", "tags", "price"], "user": "*",
    }  # fmt: skip
    dataset = load_dataset(tmp_path, "toy", load_col=load, filter_inter_by_user_or_item=False)
    i1, i2, i3 = (dataset.token2id("item_id", item) for item in ("i1", "i2", "i3"))
    kind, tags = dataset.item_attributes["kind"], dataset.item_attributes["tags"]
    assert dataset.id2token("kind", int(kind[i2])) == "B"
    assert kind[i1] == kind[i3] == kind[0] == 0, "missing and unlisted are padding"
    assert tokens(dataset, "tags", tags[i2]) == ["u", "v"] and tokens(dataset, "tags", tags[i1]) == ["v"]
    assert dataset.id2token("age", int(dataset.user_attributes["age"][dataset.token2id("user_id", "a")])) == "young"
    item_feat = dataset.get_item_feature()
    assert torch.isfinite(item_feat["price"]).all() and float(item_feat["price"][i2]) == 3.0


def test_attributes_are_as_long_as_they_are_unless_the_user_cuts_them(tmp_path: Path) -> None:
    base = write_toy(tmp_path)
    write_lines(base / "toy.item", "item_id:token\ttags:token_seq", "i1\ta b c d e", "i2\tb")
    load = {"inter": ["user_id", "item_id", "timestamp"], "search": "*", "query": "*", "item": "*"}
    values: dict[str, Any] = {"load_col": load, "filter_inter_by_user_or_item": False, "max_terms_per_query": 2}
    dataset = load_dataset(tmp_path, "toy", **values)
    i1 = dataset.token2id("item_id", "i1")
    assert tokens(dataset, "tags", dataset.item_attributes["tags"][i1]) == ["a", "b", "c", "d", "e"]
    assert dataset.query_terms.shape[1] == 2
    cut = load_dataset(tmp_path, "toy", **values, seq_len={"tags": 3})
    assert tokens(cut, "tags", cut.item_attributes["tags"][i1]) == ["a", "b", "c"]


def test_a_data_set_without_searches_runs_where_the_protocol_allows(tmp_path: Path) -> None:
    base = write_toy(tmp_path)
    (base / "toy.search").unlink()
    (base / "toy.query").unlink()
    with pytest.raises(DataError, match=r"toy\.search.*require_both_histories"):
        load_dataset(tmp_path, "toy")
    dataset = load_dataset(tmp_path, "toy", require_both_histories=False)
    batch = instances(dataset, dataset.split.test, dataset.history_reader())
    assert not batch["search_query_list"].any() and not batch["search_length"].any()
    assert batch["search_click_list"].shape == (3, 3, 2)


def test_required_columns_are_loaded_whatever_load_col_says(toy: Callable[..., SERDataset]) -> None:
    full, narrow = toy(), toy(load_col={"inter": ["item_id"], "search": ["clicked_items"], "query": ["terms"]})
    assert torch.equal(full.log.items, narrow.log.items) and torch.equal(full.log.queries, narrow.log.queries)
    assert torch.equal(full.log.clicks, narrow.log.clicks)


def test_clicked_items_are_items_under_any_name(tmp_path: Path) -> None:
    base = write_toy(tmp_path)
    path = base / "toy.search"
    path.write_text(path.read_text().replace("clicked_items:", "opened:"))
    dataset = load_dataset(tmp_path, "toy", CLICKED_ITEMS_FIELD="opened")
    assert tokens(dataset, "item_id", dataset.log.clicks) == ["i3", "x", "i2", "i6", "x"]


def test_a_query_that_is_listed_twice_is_named(tmp_path: Path) -> None:
    base = write_toy(tmp_path)
    with (base / "toy.query").open("a") as handle:
        handle.write("q2\tgreen\n")
    for values in ({}, {"load_col": {"inter": [], "search": "*", "query": ["query_id"]}}):
        with pytest.raises(DataError, match=r"toy\.query:5: query 'q2' is listed twice"):
            load_dataset(tmp_path, "toy", **values)


@pytest.mark.parametrize(("suffix", "key"), [("item", "i2"), ("user", "b")])
def test_an_item_or_user_that_is_listed_twice_is_named(tmp_path: Path, suffix: str, key: str) -> None:
    base = write_toy(tmp_path)
    write_lines(base / f"toy.{suffix}", f"{suffix}_id:token\tkind:token", "z\tk", f"{key}\tk", "y\t", f"{key}\tl")
    with pytest.raises(DataError, match=rf"toy\.{suffix}:5: {suffix} '{key}' is listed twice"):
        load_dataset(tmp_path, "toy", load_col=None)


@pytest.mark.parametrize(
    ("suffix", "label", "wrong"),
    [
        ("inter", "user_id:token", "token_seq"),
        ("inter", "item_id:token", "token_seq"),
        ("inter", "item_id:token", "float"),
        ("inter", "timestamp:float", "token"),
        ("inter", "timestamp:float", "token_seq"),
        ("search", "user_id:token", "float"),
        ("search", "query_id:token", "token_seq"),
        ("search", "timestamp:float", "token"),
        ("search", "clicked_items:token_seq", "token"),
        ("query", "query_id:token", "float"),
        ("query", "terms:token_seq", "token"),
    ],
)
def test_a_known_column_of_another_type_is_named(tmp_path: Path, suffix: str, label: str, wrong: str) -> None:
    path = write_toy(tmp_path) / f"toy.{suffix}"
    name, _, right = label.partition(":")
    path.write_text(path.read_text().replace(label, f"{name}:{wrong}"))
    with pytest.raises(DataError, match=rf"toy\.{suffix}:1: column '{name}': the type is {wrong}, not {right} "):
        load_dataset(tmp_path, "toy", require_both_histories=False)


def test_types_of_known_columns_under_other_names(tmp_path: Path) -> None:
    path = write_toy(tmp_path) / "toy.search"
    path.write_text(path.read_text().replace("clicked_items:token_seq", "opened:float_seq"))
    with pytest.raises(DataError, match=r"toy\.search:1: column 'opened': the type is float_seq, not token_seq"):
        load_dataset(tmp_path, "toy", CLICKED_ITEMS_FIELD="opened")
    write_lines(path, "user_id:token\tquery_id:token\ttimestamp:float\tplace:float", "a\tq1\t20\t", "a\tq1\t21\t1")
    with pytest.raises(DataError, match=r"toy\.search:1: column 'place': the type is float, not token"):
        load_dataset(tmp_path, "toy", SOURCE_FIELD="place")
    dataset = load_dataset(tmp_path, "toy", unload_col={"search": ["place"]}, load_col=None, SOURCE_FIELD="place")
    assert dataset.source_num == 2


@pytest.mark.parametrize(
    ("suffix", "label"),
    [
        ("item", "user_id:token"),
        ("item", "query_id:token_seq"),
        ("user", "item_id:token"),
        ("query", "timestamp:float"),
    ],
)
def test_the_key_of_another_file_is_no_attribute(tmp_path: Path, suffix: str, label: str) -> None:
    base, name = write_toy(tmp_path), label.partition(":")[0]
    write_lines(base / f"toy.{suffix}", f"{suffix}_id:token\t{label}", "a\t1", "b\t")
    with pytest.raises(DataError, match=rf"toy\.{suffix}:1: column '{name}': this key belongs to other files"):
        load_dataset(tmp_path, "toy", load_col=None)


def test_two_files_with_a_column_of_one_name_are_named(tmp_path: Path) -> None:
    base = write_toy(tmp_path)
    write_lines(base / "toy.query", "query_id:token\tclicked_items:token_seq", "q1\ti1")
    with pytest.raises(DataError, match=r"toy\.query:1: column 'clicked_items': another file has a column"):
        load_dataset(tmp_path, "toy")


def test_keys_in_a_file_of_another_suffix_are_filled(tmp_path: Path) -> None:
    base = write_toy(tmp_path)
    write_lines(base / "toy.extra", "user_id:token\tmood:token", "a\t", "b\tgood")
    values = {"additional_feat_suffix": ["search", "query", "extra"], "load_col": None}
    assert load_dataset(tmp_path, "toy", **values).extra_feat["mood"].tolist() == [0, 1]
    write_lines(base / "toy.extra", "user_id:token\tmood:token", "a\t", "\tgood")
    with pytest.raises(DataError, match=r"toy\.extra:3: column 'user_id': the entry is empty"):
        load_dataset(tmp_path, "toy", **values)
    write_lines(base / "toy.extra", "user_id:float", "1")
    with pytest.raises(DataError, match=r"toy\.extra:1: column 'user_id': the type is float, not token"):
        load_dataset(tmp_path, "toy", **values)


def test_time_cannot_be_normalised(toy: Callable[..., SERDataset]) -> None:
    with pytest.raises(ConfigError, match="orders the events"):
        toy(normalize_field=["timestamp"])


def test_nothing_to_train_on_is_said(toy: Callable[..., SERDataset]) -> None:
    with pytest.raises(DataError, match="no training target"):
        toy(search=["a q1 999 i1"])


# --- loaders ----------------------------------------------------------------------------------------------------------


def test_training_batches_depend_on_seed_and_epoch_alone(toy: Callable[..., SERDataset]) -> None:
    dataset = toy("SASRec", loss_type="BPR", train_batch_size=4)

    def epoch(number: int) -> list[torch.Tensor]:
        loader = TrainLoader(dataset.config, dataset)
        loader.set_epoch(number)
        return [torch.cat([b["user_id"], b["item_id"], b["neg_item_id"]]) for b in loader]

    first, again, other = epoch(0), epoch(0), epoch(1)
    assert len(first) == 2
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert not all(torch.equal(a, b) for a, b in zip(first, other))
    items = torch.cat([b[4:8] for b in first[:1]])
    assert (items > 0).all()


def test_pairwise_and_pointwise_batches_have_recboles_form(toy: Callable[..., SERDataset]) -> None:
    dataset = toy("SASRec", loss_type="BPR", train_neg_sample_args={"sample_num": 2}, train_batch_size=6)
    batch = next(iter(TrainLoader(dataset.config, dataset)))
    assert len(batch) == 12 and batch["neg_item_id"].shape == (12,)
    assert torch.equal(batch["item_id"][:6], batch["item_id"][6:])
    config = dataset.config
    config["MODEL_INPUT_TYPE"] = type(config["MODEL_INPUT_TYPE"]).POINTWISE
    batch = next(iter(TrainLoader(config, dataset)))
    assert batch["label"].tolist() == [1.0] * 6 + [0.0] * 12
    assert torch.equal(batch["item_id_list"][:6], batch["item_id_list"][12:])


def test_evaluation_batches_carry_the_positive_in_its_column(toy: Callable[..., SERDataset]) -> None:
    inter = [f"{user} i{k} {k}" for k in range(1, 5) for user in "abc"] + ["b i8 9", "c i9 9"]
    dataset = toy(inter=inter, require_both_histories=False, eval_args={"mode": "uni1"}, eval_batch_size=2)
    loader = EvalLoader(dataset.config, dataset, "test")
    assert list(loader.user_tokens()) == ["a", "b", "c"] and len(loader) == 2
    for batch, items, positive in loader:
        assert torch.equal(items[torch.arange(len(items)), positive], batch["item_id"])


def test_full_mode_ranks_every_item_with_an_interaction(toy: Callable[..., SERDataset]) -> None:
    dataset = toy(require_both_histories=False, eval_args={"mode": "full"})
    loader = EvalLoader(dataset.config, dataset, "valid")
    assert loader.candidates is None and loader.catalogue.tolist() == list(range(1, 8))
    _, items, positive = next(iter(loader))
    assert items is None and tokens(dataset, "item_id", positive) == ["i6", "i1", "i6"]


def test_sizes_in_actions_not_in_actions_times_length(tmp_path: Path) -> None:
    write_toy(tmp_path)
    short, long = (
        load_dataset(tmp_path, "toy", MAX_ITEM_LIST_LENGTH=length, max_search_length=length) for length in (2, 5000)
    )
    assert short.log.nbytes == long.log.nbytes


@pytest.mark.parametrize("keep", ["first", "last"])
def test_repeated_interactions_are_left_out_in_the_order_of_time_and_file(
    keep: str, toy: Callable[..., SERDataset]
) -> None:
    rng = np.random.default_rng(3)
    rows = [(f"u{rng.integers(3)}", f"i{rng.integers(9)}", int(rng.integers(12))) for _ in range(80)]
    dataset = toy(inter=[f"{u} {i} {t}" for u, i, t in rows], rm_dup_inter=keep, require_both_histories=False)
    kept: dict[tuple[str, str], tuple[int, int]] = {}
    for place, (user, item, time) in enumerate(rows):
        met = kept.get((user, item))
        if met is None or ((time, place) < met) == (keep == "first"):
            kept[user, item] = (time, place)
    expected = sorted((rows[place][0], time, place, rows[place][1]) for time, place in kept.values())
    log = dataset.log
    found = list(zip(dataset.id2token("user_id", log.users.numpy()), dataset.id2token("item_id", log.items.numpy())))
    assert sorted(found) == sorted((user, item) for user, _, _, item in expected)
    for name in ("u0", "u1", "u2"):
        assert [item for user, item in found if user == name] == [row[3] for row in expected if row[0] == name]


class OneRowPerUser(SearchRecommender):
    """Its training rows are users."""

    trains_on = "users"


class AnyInteraction(SearchRecommender):
    """Its training rows are all interactions of the training period, also those without a history."""

    trains_on = "interactions"


@pytest.mark.parametrize("both", [True, False])
def test_one_row_per_user_holds_the_whole_training_period(toy: Callable[..., SERDataset], both: bool) -> None:
    dataset = toy(OneRowPerUser, require_both_histories=both, shuffle=False)
    (batch,) = TrainLoader(dataset.config, dataset)
    split, log = dataset.split, dataset.log
    assert len(batch) == len(log.users[split.training_interactions].unique())
    for row, user in enumerate(batch["user_id"].tolist()):
        items = log.items[split.training_interactions][log.users[split.training_interactions] == user].tolist()
        length = int(batch["item_length"][row])
        assert batch["item_id_list"][row, :length].tolist() == items[-1 - SIZES["MAX_ITEM_LIST_LENGTH"] :]
        assert batch["item_id_list"][row, length:].sum() == 0 and int(batch["item_id"][row]) == items[-1]
    held_out = {(int(log.users[p]), int(log.items[p])) for p in [*split.valid.tolist(), *split.test.tolist()]}
    last = set(zip(batch["user_id"].tolist(), batch["item_id"].tolist()))
    assert not held_out & last


def test_every_position_of_a_users_row_has_negatives_unless_all_items_are(toy: Callable[..., SERDataset]) -> None:
    few = {"sample_num": 2}
    dataset = toy(OneRowPerUser, require_both_histories=False, loss_type="BPR", train_neg_sample_args=few)
    (batch,) = TrainLoader(dataset.config, dataset)
    negatives, log, split = batch["neg_item_id"], dataset.log, dataset.split
    assert negatives.shape == (*batch["item_id_list"].shape, 2) == (len(batch), 5, 2)
    for user, drawn in zip(batch["user_id"], negatives):
        known = log.items[split.training_interactions][log.users[split.training_interactions] == user]
        assert drawn.min() > 0 and not torch.isin(drawn, known).any()
    dataset = toy(OneRowPerUser, require_both_histories=False, loss_type="CE")
    assert all("neg_item_id" not in batch for batch in TrainLoader(dataset.config, dataset))


def test_a_model_may_train_on_any_interaction(toy: Callable[..., SERDataset]) -> None:
    dataset = toy(AnyInteraction, require_both_histories=False)
    loader = TrainLoader(dataset.config, dataset)
    rows = [(int(u), int(i)) for batch in loader for u, i in zip(batch["user_id"], batch["item_id"])]
    log, positions = dataset.log, dataset.split.training_interactions
    assert sorted(rows) == sorted(zip(log.users[positions].tolist(), log.items[positions].tolist()))
    assert all("item_id_list" not in batch and "neg_item_id" in batch for batch in loader)
