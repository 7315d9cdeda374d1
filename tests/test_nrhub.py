"""NRHUB against a slow reference: one user, one event, one candidate at a time, and no padding anywhere."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from model_fakes import assert_equals_reference
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_ser.model.search_aware.nrhub import NRHUB

CONFIG: dict[str, Any] = {
    "USER_ID_FIELD": "user_id", "ITEM_ID_FIELD": "item_id", "LIST_SUFFIX": "_list", "NEG_PREFIX": "neg_",
    "ITEM_LIST_LENGTH_FIELD": "item_length", "device": "cpu", "MAX_ITEM_LIST_LENGTH": 5,
    "embedding_size": 5, "item_attribute_size": 3, "query_embedding_size": 4, "term_embedding_size": 3,
    "hidden_size": 6, "attention_size": 7, "view_size": 9, "view_attention_size": 4,
}  # fmt: skip
TAGS = torch.tensor([[(7 * i + j) % 5 * (j <= i % 3) for j in range(3)] for i in range(30)], dtype=torch.int32)
TERMS = torch.tensor([[(3 * q + j) % 8 * (j < q % 4) for j in range(3)] for q in range(12)], dtype=torch.int32)
DATASET = SimpleNamespace(
    user_num=10, item_num=30, target_num=30, query_num=12, term_num=8, num={"item_id": 30, "tags": 5}.__getitem__,
    query_terms=TERMS, item_attributes={"tags": TAGS}, item_numbers={},
)  # fmt: skip


class Row(NamedTuple):
    items: list[int]
    searches: list[tuple[int, list[int]]]  # query, clicked items
    candidates: list[int]  # the positive first


FULL = Row([3, 4, 5, 4], [(1, [4]), (2, [5, 9]), (1, [])], [9, 2, 3, 4])
NO_SEARCH = Row([12, 13], [], [15, 8, 9, 1])
NO_CLICK = Row([14], [(3, []), (4, [])], [6, 20, 21, 7])
ONLY_SEARCH = Row([], [(2, [5]), (6, [17, 18, 5])], [16, 2, 4, 6])
NOTHING = Row([], [], [18, 1, 3, 5])
ROWS = [FULL, NO_SEARCH, NO_CLICK, ONLY_SEARCH, NOTHING]


def interaction(rows: list[Row], length: int = 5, searches: int = 4, clicks: int = 3) -> Interaction:
    batch = {
        "item_id": torch.tensor([row.candidates[0] for row in rows]),
        "neg_item_id": torch.tensor([row.candidates[1:] for row in rows]),
        "item_id_list": torch.zeros(len(rows), length, dtype=torch.int64),
        "search_query_list": torch.zeros(len(rows), searches, dtype=torch.int64),
        "search_click_list": torch.zeros(len(rows), searches, clicks, dtype=torch.int64),
    }
    for number, row in enumerate(rows):
        batch["item_id_list"][number, : len(row.items)] = torch.tensor(row.items)
        for place, (query, clicked) in enumerate(row.searches):
            batch["search_query_list"][number, place] = query
            batch["search_click_list"][number, place, : len(clicked)] = torch.tensor(clicked)
    return Interaction(batch)


def candidates(rows: list[Row]) -> Tensor:
    return torch.tensor([row.candidates for row in rows])


def build() -> NRHUB:
    """A model with weights so large that nothing in it is nearly linear or nearly zero."""
    torch.manual_seed(0)
    model = NRHUB(CONFIG, DATASET)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(torch.randn_like(parameter) * 0.5)
            if name.endswith(("ids.weight", "table.weight")):
                parameter[0] = 0
    return model.double()


# --- the reference --------------------------------------------------------------------------------------------------

Weights = dict[str, Tensor]


def linear(weights: Weights, name: str, vector: Tensor) -> Tensor:
    return weights[f"{name}.weight"] @ vector + weights[f"{name}.bias"]


def entity(weights: Weights, name: str, number: int, values: Tensor) -> Tensor:
    table = weights[f"{name}.attributes.0.table.weight"]
    present = [table[value] for value in values[number].tolist() if value]
    mean = torch.stack(present).mean(0) if present else torch.zeros_like(table[0])
    return linear(weights, f"{name}.projection", torch.cat([weights[f"{name}.ids.weight"][number], mean]))


def attention(weights: Weights, name: str, vectors: list[Tensor]) -> Tensor:
    votes = [weights[f"{name}.vote.weight"][0] @ torch.tanh(linear(weights, f"{name}.inner", x)) for x in vectors]
    powers = [torch.exp(vote) for vote in votes]
    return sum((power * x for power, x in zip(powers, vectors)), torch.zeros_like(vectors[0])) / sum(powers)


def user(weights: Weights, row: Row) -> Tensor:
    kinds = {
        "searched": [entity(weights, "queries", query, TERMS) for query, _ in row.searches],
        "clicked": [entity(weights, "items", item, TAGS) for _, clicked in row.searches for item in clicked],
        "browsed": [entity(weights, "items", item, TAGS) for item in row.items],
    }
    views = [attention(weights, name, vectors) for name, vectors in kinds.items() if vectors]
    states = [torch.tanh(linear(weights, "view", view)) for view in views]
    return attention(weights, "mixture", states) if states else torch.zeros(9, dtype=torch.float64)


def scores(weights: Weights, row: Row) -> list[Tensor]:
    vector = user(weights, row)
    items = [entity(weights, "items", item, TAGS) for item in row.candidates]
    return [vector @ torch.tanh(linear(weights, "target", item)) for item in items]


def parameters(model: NRHUB) -> Weights:
    return {name: value.detach().clone().requires_grad_() for name, value in model.named_parameters()}


# --- tests ----------------------------------------------------------------------------------------------------------


def test_scores_equal_the_reference() -> None:
    model = build()
    found = model.score(model.encode(interaction(ROWS)), candidates(ROWS))
    expected = torch.stack([torch.stack(scores(parameters(model), row)) for row in ROWS])
    torch.testing.assert_close(found, expected)
    assert (found[:4] - found[:4, :1])[:, 1:].abs().min() > 1e-3, "candidates score the same"


def test_the_loss_and_all_gradients_equal_the_reference() -> None:
    model = build().train()
    weights = parameters(model)
    pairs = []
    for row in ROWS:
        first, *others = scores(weights, row)
        pairs += [torch.log1p(torch.exp(-first)), *(torch.log1p(torch.exp(score)) for score in others)]
    expected = {"rec": sum(pairs, torch.zeros(())) / len(pairs)}
    assert_equals_reference(model, model.losses(interaction(ROWS)), expected, weights)


def test_a_user_with_one_kind_of_behaviour_is_that_view_alone() -> None:
    model = build()
    items = model.items(torch.tensor([[12, 13]]))
    view = model.browsed(items, torch.ones(1, 2, dtype=torch.bool))  # [1, d]
    torch.testing.assert_close(model.encode(interaction([NO_SEARCH])), torch.tanh(model.view(view)))


def test_a_user_without_any_history_is_the_zero_vector_with_finite_gradients() -> None:
    model = build().train()
    assert (model.encode(interaction([NOTHING])) == 0).all()
    loss = model.calculate_loss(interaction([NOTHING, NOTHING]))
    assert loss.item() == pytest.approx(math.log(2))
    loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_scores_do_not_depend_on_padding_or_on_the_order_of_events() -> None:
    model = build()
    expected = model.score(model.encode(interaction(ROWS)), candidates(ROWS))
    padded = model.encode(interaction(ROWS, length=9, searches=7, clicks=5))
    torch.testing.assert_close(model.score(padded, candidates(ROWS)), expected)
    backwards = [Row(row.items[::-1], row.searches[::-1], row.candidates) for row in ROWS]
    torch.testing.assert_close(model.score(model.encode(interaction(backwards)), candidates(ROWS)), expected)


@pytest.mark.parametrize(
    "changed",
    [
        FULL._replace(items=[3, 4, 5, 6]),
        FULL._replace(searches=[(1, [4]), (3, [5, 9]), (1, [])]),
        FULL._replace(searches=[(1, [4]), (2, [5, 10]), (1, [])]),
        FULL._replace(searches=[(1, [4]), (2, [5, 9])]),
    ],
    ids=["browsed", "query", "click", "search without clicks"],
)
def test_every_kind_of_behaviour_counts(changed: Row) -> None:
    model = build()
    found = [model.score(model.encode(interaction([row])), candidates([row])) for row in (FULL, changed)]
    assert (found[0] - found[1]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("key", "sizes"),
    [
        ("attention_size", {"searched.inner.weight", "clicked.inner.weight", "browsed.inner.weight"}),
        ("view_size", {"view.weight", "target.weight"}),
        ("view_attention_size", {"mixture.inner.weight"}),
    ],
)
def test_the_sizes_are_those_of_the_configuration(key: str, sizes: set[str]) -> None:
    model = NRHUB({**CONFIG, key: 11}, DATASET)
    assert {name for name, value in model.named_parameters() if value.dim() == 2 and len(value) == 11} == sizes
