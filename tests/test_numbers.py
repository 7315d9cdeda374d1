"""Numeric attributes: float and float_seq columns of items and users, from the file to the scores of the models."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import command, load_dataset, write_lines, write_toy
from torch import nn

from recbole_ser import testing
from recbole_ser.data.dataset import SERDataset
from recbole_ser.data.numbers import scaled, standardised, with_means
from recbole_ser.data.synthetic import write
from recbole_ser.errors import ConfigError, DataError, UserError
from recbole_ser.inference import Recommender
from recbole_ser.model.embeddings import Attribute, FeatureEmbedding, NumericAttribute, NumericEmbedding
from recbole_ser.runner import run
from recbole_ser.testing import CHECKS, ModelUnderTest
from recbole_ser.validation.report import validate

LOAD = {"inter": "*", "search": "*", "query": "*", "item": "*", "user": "*"}
ITEMS = ["i1\t1\t1 2", "i2\t3\t-3 4", "i3\t\t", "i4\t5\t0.5 0", "i5\t5\t1e1 .5", "i7\tnan\t7 7", "x\t1000\t9 9"]
USERS = ["a\t30", "b\t", "c\t31.5"]


def write_numbers(folder: Path, items: list[str] = ITEMS, label: str = "vec:float_seq", **rows: Any) -> Path:
    base = write_toy(folder, **rows)
    write_lines(base / "toy.item", f"item_id:token\tprice:float\t{label}", *items)
    write_lines(base / "toy.user", "user_id:token\tage:float", *USERS)
    return base


def load(folder: Path, **values: Any) -> SERDataset:
    return load_dataset(folder, "toy", **{"load_col": LOAD, "filter_inter_by_user_or_item": False, **values})


def of(dataset: SERDataset, name: str, *items: str) -> list[list[float]]:
    return [dataset.item_numbers[name][dataset.token2id("item_id", item)].tolist() for item in items]


# --- statistics -------------------------------------------------------------------------------------------------------


def plain_standardised(rows: list[list[float] | None], events: list[int]) -> list[list[float]]:
    """The definition, event by event: ``rows[i]`` are the numbers of entity i, or nothing."""
    width = len(next(row for row in rows if row is not None))
    seen = [row for event in events if (row := rows[event]) is not None]
    centre = [sum(row[k] for row in seen) / max(len(seen), 1) for k in range(width)]
    squares = [(row[k] - centre[k]) ** 2 for row in seen for k in range(width)]
    spread = (math.sqrt(sum(squares) / len(squares)) if squares else 0) or 1
    return [[0.0] * width if row is None else [(row[k] - centre[k]) / spread for k in range(width)] for row in rows]


@pytest.mark.parametrize("width", [1, 5])
@pytest.mark.parametrize("seed", range(4))
def test_standardised_as_by_the_plain_definition(width: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    values = random.integers(-3, 4, size=(40, width)) * 10.0 ** random.integers(-3, 7)  # many ties
    missing = random.random(40) < 0.3
    missing[0] = True
    values[missing] = np.nan
    events = random.integers(1, 40, size=200)
    rows = [None if gone else row for gone, row in zip(missing, values.tolist())]
    table = standardised(values, np.bincount(events, minlength=40))
    assert table.dtype == torch.float32
    np.testing.assert_allclose(table.numpy(), plain_standardised(rows, events.tolist()), rtol=1e-6, atol=1e-6)
    over_events = table[events[~missing[events]]].double()
    assert over_events.mean(0).abs().max() < 1e-6 and over_events.square().mean() == pytest.approx(1, abs=1e-6)
    assert not table[missing].any()


def test_columns_without_spread_or_without_values_are_not_divided() -> None:
    values = np.array([[np.nan], [4.0], [4.0], [7.0], [np.nan]])
    assert standardised(values, np.array([0, 2, 1, 0, 5])).flatten().tolist() == [0, 0, 0, 3, 0]
    assert not standardised(np.full((3, 2), np.nan), np.array([0, 1, 1])).any()


def test_the_geometry_of_vectors_is_kept() -> None:
    values = np.random.default_rng(0).normal(size=(30, 4)) * [1, 10, 1, 1]
    table = standardised(np.vstack([np.full((1, 4), np.nan), values]), np.arange(31))[1:].double().numpy()
    before, after = ((rows[:, None] - rows[None]).reshape(-1, 4) for rows in (values, table))
    factor = np.linalg.norm(after) / np.linalg.norm(before)
    np.testing.assert_allclose(after, factor * before, atol=1e-5)


def test_scaled_and_filled() -> None:
    values = np.array([[np.nan, np.nan], [1.0, 2.0], [5.0, 3.0], [np.nan, np.nan]])
    assert with_means(scaled(values)).tolist() == [[0, 0], [0, 0.25], [1, 0.5], [0.5, 0.375]]
    assert scaled(np.array([[np.nan], [2.0], [2.0]]))[1:].tolist() == [[1], [1]], "as in RecBole"


def test_the_columns_of_a_data_set(tmp_path: Path) -> None:
    write_numbers(tmp_path)
    dataset = load(tmp_path)
    names = dataset.id2token("item_id", np.arange(dataset.item_num)).tolist()
    given: dict[str, tuple[list[float] | None, list[float] | None]] = {
        "i1": ([1], [1, 2]), "i2": ([3], [-3, 4]), "i4": ([5], [0.5, 0]), "i5": ([5], [10, 0.5]), "i7": (None, [7, 7]),
        "x": ([1000], [9, 9]),
    }  # fmt: skip
    events = dataset.log.items[dataset.split.training_interactions].tolist()
    for number, column in enumerate(("price", "vec")):
        rows = [given.get(name, (None, None))[number] for name in names]
        np.testing.assert_allclose(dataset.item_numbers[column], plain_standardised(rows, events), rtol=1e-6, atol=1e-7)
    users = dataset.id2token("user_id", np.arange(dataset.user_num)).tolist()
    ages = [{"a": [30.0], "c": [31.5]}.get(name) for name in users]
    events = dataset.log.users[dataset.split.training_interactions].tolist()
    np.testing.assert_allclose(dataset.user_numbers["age"], plain_standardised(ages, events), rtol=1e-6, atol=1e-7)
    assert dataset.item_numbers["vec"].shape == (9, 2) and dataset.field2seqlen["vec"] == 2
    assert dataset.item_attributes == {} and dataset.user_attributes == {}


def test_held_out_events_have_no_influence(tmp_path: Path) -> None:
    inter = [f"{user} i{(step + shift) % 5 + 1} {step}" for shift, user in enumerate("abc") for step in range(6)]
    values = {"require_both_histories": False}
    write_numbers(tmp_path, inter=[*inter, "a x 7", "a i7 8"])
    first = load(tmp_path, **values)
    write_numbers(tmp_path, inter=[*inter, "a i1 7", "a i7 8"])
    second = load(tmp_path, **values)
    for column in ("price", "vec"):
        assert of(first, column, "i1", "i3", "i5", "x") == of(second, column, "i1", "i3", "i5", "x")
    write_numbers(tmp_path, inter=[*inter, "a x 5", "a i7 7", "a i7 8"])
    assert of(load(tmp_path, **values), "price", "i1") != of(first, "price", "i1"), "a training event counts"


def test_recboles_models_see_the_columns_as_they_are(tmp_path: Path) -> None:
    write_numbers(tmp_path)
    dataset = load(tmp_path)
    feat, i2, i3 = dataset.get_item_feature(), dataset.token2id("item_id", "i2"), dataset.token2id("item_id", "i3")
    assert feat["vec"].dtype == torch.float32 and feat["vec"].shape == (9, 2)
    assert feat["vec"][[0, i2, i3]].tolist() == [[0, 0], [-3, 4], [0, 0]]
    assert float(feat["price"][i2]) == 3 and float(feat["price"][i3]) == pytest.approx(1014 / 5), "RecBole's mean"
    normal = load(tmp_path, normalize_field=["vec", "price"]).get_item_feature()
    assert normal["vec"][i2].tolist() == pytest.approx([0, 7 / 13]) and float(normal["price"][i2]) == pytest.approx(
        2 / 999
    )


@pytest.mark.parametrize("values", [{"normalize_field": ["price", "vec"]}, {"normalize_all": True}])
def test_normalised_columns_are_scaled_instead(tmp_path: Path, values: dict[str, Any]) -> None:
    write_numbers(tmp_path)
    dataset = load(tmp_path, **values)
    vectors, prices = ([[1, 2], [-3, 4], [0.5, 0], [10, 0.5], [7, 7], [9, 9]], [1, 3, 5, 5, 1000])
    wanted = [[(x + 3) / 13 for x in vector] for vector in vectors]
    np.testing.assert_allclose(of(dataset, "vec", "i1", "i2", "i4", "i5", "i7", "x"), wanted, rtol=1e-6)
    np.testing.assert_allclose(of(dataset, "vec", "i3", "i6"), [np.mean(wanted, axis=0)] * 2, rtol=1e-6)
    assert of(dataset, "price", "i1", "x") == [[0], [1]]
    assert of(dataset, "price", "i3")[0] == pytest.approx([(np.mean(prices) - 1) / 999])
    assert not dataset.item_numbers["vec"][0].any() and not dataset.item_numbers["price"][0].any()
    if "normalize_all" in values:
        assert float(dataset.user_numbers["age"].max()) == 1
    else:
        assert torch.equal(dataset.user_numbers["age"], load(tmp_path).user_numbers["age"])


def test_vectors_are_cut_by_seq_len(tmp_path: Path) -> None:
    write_numbers(tmp_path)
    dataset = load(tmp_path, seq_len={"vec": 1})
    assert dataset.item_numbers["vec"].shape == (9, 1) and dataset.get_item_feature()["vec"].shape == (9, 1)


def test_a_column_without_vectors_is_zero(tmp_path: Path) -> None:
    write_numbers(tmp_path, [row.rsplit("\t", 1)[0] + "\t" for row in ITEMS])
    dataset = load(tmp_path)
    assert dataset.item_numbers["vec"].tolist() == [[0]] * 9 == dataset.get_item_feature()["vec"].tolist()


# --- files that are wrong ---------------------------------------------------------------------------------------------

WRONG_VECTORS = [
    ("i1\t1\t1 2", "i2\t1\t1 2 3", "3, not 2: not as many numbers as the first vector"),
    ("i1\t1\t", "i2\t1\t1 nan", "nan: not a finite number"),
    ("i1\t1\t1 2", "i2\t1\tinf 0", "inf: not a finite number"),
    ("i1\t1\t1 2", "i2\t1\t1 1e999", "1e999: not a finite number"),
    ("i1\t1\t1 2", "i2\t1\t1 two", "two: not a number"),
    ("i1\t1\t1 2", "i2\t1\t1,2", "1,2: not a number"),
    ("i1\t1\t1 2", "i2\t1\t0x1 2", "0x1: not a number"),
]


@pytest.mark.parametrize(("first", "second", "complaint"), WRONG_VECTORS)
def test_a_wrong_vector_is_named_by_loader_and_validator(
    tmp_path: Path, first: str, second: str, complaint: str
) -> None:
    base = write_numbers(tmp_path, [first, second, "i3\t1\t4 4", "i4\t1\t4 4 4"])
    with pytest.raises(DataError) as error:
        load(tmp_path)
    value, problem = complaint.split(": ")
    assert f"toy.item:3: column 'vec': '{value}': {problem}" in str(error.value) and "\n" not in str(error.value)
    assert any(f"toy.item:3: column 'vec': '{value}': {problem}" in str(f) for f in validate(base).first("error"))


def test_a_number_that_is_not_finite_is_named(tmp_path: Path) -> None:
    write_numbers(tmp_path, ["i1\t1\t1", "i2\t-inf\t1"])
    with pytest.raises(DataError, match=r"toy\.item:3: column 'price': '-inf': not a finite number"):
        load(tmp_path)


def test_the_validator_finds_nothing_wrong_with_vectors(tmp_path: Path) -> None:
    base = write_numbers(tmp_path)
    assert not validate(base).findings.by_rule("error") and not command("describe", base)


# --- the embedding ----------------------------------------------------------------------------------------------------


def test_the_embedding_is_the_plain_one() -> None:
    torch.manual_seed(0)
    numbers, vectors = torch.randn(6, 1), torch.randn(6, 4)
    numbers[0] = vectors[0] = 0
    tokens = torch.tensor([0, 1, 2, 1, 0, 2], dtype=torch.int32)
    attributes = [Attribute(tokens, 3, 2), NumericAttribute(numbers, 2), NumericAttribute(vectors, 3)]
    embedding = FeatureEmbedding(6, 5, attributes, width=7, activation=nn.Tanh()).double()
    ids = torch.tensor([[3, 0], [5, 3]])
    weights = {name: value.detach().clone().requires_grad_() for name, value in embedding.named_parameters()}
    assert set(embedding.state_dict()) == set(weights), "the values of the attributes are not saved"

    def plain(entity: int) -> torch.Tensor:
        token = int(tokens[entity])
        parts = [
            weights["ids.weight"][entity] if entity else torch.zeros(5, dtype=torch.float64),
            weights["attributes.0.table.weight"][token] if token else torch.zeros(2, dtype=torch.float64),
            weights["attributes.1.projection.weight"] @ numbers[entity].double(),
            weights["attributes.2.projection.weight"] @ vectors[entity].double(),
        ]
        return torch.tanh(weights["projection.weight"] @ torch.cat(parts) + weights["projection.bias"])

    wanted = torch.stack([torch.stack([plain(entity) for entity in row]) for row in ids.tolist()])
    factors = torch.randn(2, 2, 7, dtype=torch.float64)
    for result in (embedding(ids), wanted):
        (result * factors).sum().backward()
    torch.testing.assert_close(embedding(ids), wanted)
    for name, parameter in embedding.named_parameters():
        torch.testing.assert_close(parameter.grad, weights[name].grad, msg=lambda m, n=name: f"{n}: {m}")
    with embedding.shared(ids):
        torch.testing.assert_close(embedding(ids), wanted)
    with torch.no_grad():
        torch.testing.assert_close(embedding.eval()(ids), wanted)


def test_padding_has_no_numbers() -> None:
    embedding = FeatureEmbedding(4, 3, [NumericAttribute(torch.cat([torch.zeros(1, 2), torch.randn(3, 2)]), 5)])
    assert not embedding(torch.tensor([0])).any() and embedding(torch.tensor([2])).shape == (1, 8)


# --- models -----------------------------------------------------------------------------------------------------------


def write_with_numbers(logs: Any, folder: str | Path) -> None:
    """The generated logs, with a number and a vector for most items and users."""
    write(logs, folder)
    for suffix in ("item", "user"):
        path = Path(folder) / f"{Path(folder).name}.{suffix}"
        header, *rows = path.read_text().splitlines()
        random = np.random.default_rng(len(rows))
        numbers = [
            (f"{x:.3f}", " ".join(f"{y:.3f}" for y in v)) for x, *v in 5 + 9 * random.normal(size=(len(rows), 5))
        ]
        shown = [
            "\t".join([row, number * (k % 7 != 0), vector * (k % 5 != 0)])
            for k, (row, (number, vector)) in enumerate(zip(rows, numbers))
        ]
        write_lines(path, f"{header}\t{suffix}_number:float\t{suffix}_vector:float_seq", *shown)


@pytest.mark.parametrize("check", [check for check in CHECKS if "overfitted" not in check.__name__])
@pytest.mark.parametrize("model", ["SESRec", "SRJGraph", "UniSAR", "USER"])
def test_models_keep_the_contract_with_numbers(
    model: str, check: Callable[[ModelUnderTest], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(testing, "write", write_with_numbers)
    under_test = ModelUnderTest(model, tmp_path)
    for side in ("items", "users"):
        embedding = getattr(under_test.build(), side)
        assert sum(isinstance(attribute, NumericEmbedding) for attribute in embedding.attributes) == 2
    check(under_test)


QUICK: dict[str, Any] = {
    "epochs": 1, "show_progress": False, "state": "WARNING", "num_threads": 1, "require_both_histories": False,
    "load_col": LOAD, "eval_args": {"mode": "uni19"}, "MAX_ITEM_LIST_LENGTH": 8, "max_search_length": 4,
    "hidden_size": 16, "filter_inter_by_user_or_item": False,
}  # fmt: skip


@pytest.mark.parametrize("model", ["GRU4Rec", "SASRec", "SESRec"])
def test_runs_on_data_with_numbers(model: str, tmp_path: Path) -> None:
    write_with_numbers(testing.generate(testing.SMALL), tmp_path / "data" / "small")
    values = {**QUICK, "data_path": str(tmp_path / "data"), "run_dir": str(tmp_path / "run")}
    assert math.isfinite(run(model, "small", config_dict=values).test["mrr"])
    recommender = Recommender.load(tmp_path / "run")
    event = {"user_id": "new", "event": "click", "timestamp": 1, "query_id": None}
    items = recommender.dataset.id2token("item_id", np.array([1, 2, 3]))
    events = pd.DataFrame([{**event, "item_id": item} for item in items])
    users = recommender.users[0] if model == "SESRec" else "new"
    frame = recommender.recommend([users], events=events.assign(user_id=users), k=5)
    assert np.isfinite(frame["score"]).all() and len(frame) == 5


def write_planted(folder: Path, users: int = 300, items: int = 1500, kinds: int = 10) -> None:
    """A user's items are all of one kind; that an item's vector says alone, as hardly any item is taken twice."""
    random = np.random.default_rng(3)
    kind = random.integers(kinds, size=items)
    vectors = random.normal(size=(kinds, 8))[kind] + 0.3 * random.normal(size=(items, 8))
    rows = [
        f"u{user}\ti{item}\t{time}"
        for user in range(users)
        for time, item in enumerate(random.choice(np.flatnonzero(kind == user % kinds), size=7, replace=False))
    ]
    base = folder / "planted"
    write_lines(base / "planted.inter", "user_id:token\titem_id:token\ttimestamp:float", *rows)
    texts = [f"i{item}\t" + " ".join(f"{x:.4f}" for x in vector) for item, vector in enumerate(vectors)]
    write_lines(base / "planted.item", "item_id:token\tvec:float_seq", *texts)


def test_a_signal_in_the_vectors_alone_is_found(tmp_path: Path) -> None:
    write_planted(tmp_path / "data")
    values = {
        **QUICK, "data_path": str(tmp_path / "data"), "eval_args": {"mode": "uni99"}, "epochs": 15,
        "learning_rate": 0.003, "train_batch_size": 128,
    }  # fmt: skip
    hits = []
    for columns in (["item_id", "vec"], None):
        load_col = {"inter": "*", **({"item": columns} if columns else {})}
        result = run(
            "SESRec", "planted", config_dict={**values, "load_col": load_col, "run_dir": str(tmp_path / f"{columns}")}
        )
        hits.append(result.test["hit@10"])
    assert hits[0] > 0.5 and hits[0] > 2 * hits[1]


# --- preload_weight ---------------------------------------------------------------------------------------------------


def load_preloaded(folder: Path, *lines: str, **values: Any) -> SERDataset:
    base = write_toy(folder)
    write_lines(base / "toy.itememb", *lines)
    given = {
        "additional_feat_suffix": ["search", "query", "itememb"], "alias_of_item_id": ["iid"],
        "load_col": {"inter": "*", "search": "*", "query": "*", "itememb": ["iid", "vec"]},
        "preload_weight": {"iid": "vec"}, **values,
    }  # fmt: skip
    return load_dataset(folder, "toy", **given)


def test_preloaded_vectors_are_an_attribute(tmp_path: Path) -> None:
    lines = ["iid:token\tvec:float_seq", *(row.split("\t")[0] + "\t" + row.split("\t")[2] for row in ITEMS)]
    dataset = load_preloaded(tmp_path, *lines)
    write_numbers(tmp_path)
    assert of(dataset, "vec", "i1", "i3", "x") == of(load(tmp_path), "vec", "i1", "i3", "x")
    weight, i2 = dataset.get_preload_weight("iid"), dataset.token2id("item_id", "i2")
    assert weight.shape == (dataset.item_num, 2) and weight[i2].tolist() == [-3, 4] and not weight[0].any()
    numbers = load_preloaded(tmp_path, "iid:token\tvec:float", "i2\t3", "new\t4", "i1\t")
    assert numbers.get_preload_weight("iid")[numbers.token2id("item_id", "i2")] == 3
    assert numbers.get_preload_weight("iid").shape == (numbers.item_num,)
    assert numbers.item_num == 10 and numbers.target_num == 8, "'new' is never a target"
    assert numbers.item_numbers["vec"].shape == (10, 1)
    scaled_by = load_preloaded(tmp_path, *lines, normalize_field=["vec"])
    assert scaled_by.item_numbers["vec"][i2].tolist() == pytest.approx([0, 7 / 13])


def test_a_column_of_items_can_be_preloaded_too(tmp_path: Path) -> None:
    write_numbers(tmp_path)
    dataset = load(tmp_path, preload_weight={"item_id": "vec", "user_id": "age"})
    assert dataset.get_preload_weight("item_id")[dataset.token2id("item_id", "i1")].tolist() == [1, 2]
    assert dataset.get_preload_weight("user_id")[dataset.token2id("user_id", "c")] == 31.5
    assert list(dataset.item_numbers) == ["price", "vec"]


@pytest.mark.parametrize(
    ("lines", "values", "complaint"),
    [
        (["iid:token\tvec:float_seq", "i1\t1", "\t2"], {}, r"toy\.itememb:3: column 'iid': the entry is empty"),
        (["iid:token\tvec:float_seq", "i1\t1", "i1\t2"], {}, r"toy\.itememb:3: .*'i1' is listed twice"),
        (["iid:token\tvec:float_seq", "i1\t1", "i2\t2 3"], {}, r"toy\.itememb:3: column 'vec': '2, not 1'"),
        (["iid:token\tvec:token", "i1\t1"], {}, "'vec' a token column"),
        (["iid:token_seq\tvec:float_seq", "i1\t1"], {}, "'iid' is a token_seq"),
        (["iid:token\tvec:float_seq", "i1\t1"], {"preload_weight": {"iid": "vek"}, "load_col": None}, "'vek' is in no"),
        (["iid:token\tvec:float_seq", "i1\t1"], {"alias_of_item_id": None}, "'iid' holds no ids"),
        (["iid:token\tvec:float_seq", "i1\t1"], {"preload_weight": {"item_id": "vec"}}, "must be columns of one file"),
        (["iid:token\tvec:float_seq", "i1\t1"], {"preload_weight": None}, "column 'vec': nothing reads this column"),
    ],
)
def test_wrong_preloaded_weights_are_refused(
    tmp_path: Path, lines: list[str], values: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(UserError, match=complaint) as error:
        load_preloaded(tmp_path, *lines, **values)
    assert "\n" not in str(error.value)


# --- keys without an effect -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"normalize_field": ["prise"]}, "normalize_field: 'prise' is in no loaded file"),
        ({"normalize_field": ["tag"]}, "normalize_field: 'tag' is a token column of X.item"),
        ({"normalize_field": ["timestamp"]}, "orders the events"),
        ({"normalize_field": ["price"], "normalize_all": True}, "both set"),
        ({"load_col": {"inter": "*", "search": "*"}, "normalize_all": True}, "normalize_all has no effect"),
        ({"val_interval": {"price": ["3"]}}, r"val_interval: 'price' is a float column: give an interval such as"),
        ({"val_interval": {"item_id": "[1,2]"}}, "val_interval: .item_id. is a token column: give a list"),
        ({"load_col": {"inter": "*", "itm": ["x"]}}, "load_col: X.itm is not read: correct its name"),
        ({"unload_col": {"itm": ["x"]}, "load_col": None}, "unload_col: X.itm is not read"),
        ({"unused_col": {"item": ["price"]}}, "unused_col is .*: name it in unload_col"),
        ({"numerical_features": ["price"]}, "numerical_features is .*: name them in load_col"),
        ({"seq_len": {"tags": 3}}, "seq_len: 'tags' is in no loaded file"),
        ({"seq_len": {"tag": 3}}, "seq_len: 'tag' is not a token_seq or float_seq column"),
        ({"seq_len": {"terms": 3}}, "seq_len: 'terms' is not .* max_terms_per_query"),
        ({"alias_of_item_id": ["iid"]}, "alias_of_item_id: 'iid' is in no loaded file"),
        ({"alias_of_user_id": ["price"]}, "alias_of_user_id: 'price' is a float column"),
        ({"alias_of_user_id": ["tag"], "alias_of_item_id": ["tag"]}, "leave it out of one"),
        ({"val_interval": {"rating": "[1,2]"}}, "val_interval: 'rating' is in no loaded file"),
        ({"val_interval": {"vec": "[1,2]"}}, "val_interval: 'vec' is a float_seq column; name a float or"),
        ({"unload_col": {"item": ["vec"]}, "load_col": {**LOAD, "item": ["price"]}}, "both name columns of X.item"),
    ],
)  # fmt: skip
def test_keys_that_name_nothing_or_change_nothing_are_refused(
    tmp_path: Path, values: dict[str, Any], complaint: str
) -> None:
    write_numbers(tmp_path, [f"{row}\tt" for row in ITEMS], label="vec:float_seq\ttag:token")
    with pytest.raises(ConfigError, match=complaint) as error:
        load(tmp_path, **values)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("label", ["rating:float", "rating:float_seq", "rating:token"])
@pytest.mark.parametrize(("suffix", "keys"), [
    ("inter", "user_id:token\titem_id:token\ttimestamp:float"), ("query", "query_id:token\tterms:token_seq"),
])  # fmt: skip
def test_a_column_that_nothing_reads_is_refused_if_it_is_named(
    tmp_path: Path, suffix: str, keys: str, label: str
) -> None:
    path = write_toy(tmp_path) / f"toy.{suffix}"
    _, *rows = path.read_text().splitlines()
    write_lines(path, f"{keys}\t{label}", *(f"{row}\t{k % 3}" for k, row in enumerate(rows)))
    names = [column.split(":")[0] for column in keys.split("\t")]
    with pytest.raises(DataError, match=rf"toy\.{suffix}:1: column 'rating': nothing reads this column"):
        load(tmp_path, load_col={**LOAD, suffix: [*names, "rating"]})
    assert "rating" not in load(tmp_path).field2type, "by '*' it is left out"
    if suffix == "inter" and label == "rating:float":
        filtered = load(tmp_path, val_interval={"rating": "[1,inf)"})
        assert len(filtered.log.items) < len(load(tmp_path).log.items)
