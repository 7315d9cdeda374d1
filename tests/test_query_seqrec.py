"""Query-SeqRec against a slow reference: one user, one token, one position at a time, and no padding anywhere."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from model_fakes import assert_dropout_inside, assert_equals_reference
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_ser.data.loader import instances
from recbole_ser.data.relations import TrainingClicks
from recbole_ser.errors import ConfigError
from recbole_ser.model.search_aware.query_seqrec import QuerySeqRec, Tokens
from recbole_ser.testing import CHECKS, ModelUnderTest

CONFIG: dict[str, Any] = {
    "USER_ID_FIELD": "user_id", "ITEM_ID_FIELD": "item_id", "LIST_SUFFIX": "_list", "NEG_PREFIX": "neg_",
    "ITEM_LIST_LENGTH_FIELD": "item_length", "device": "cpu",
    "MAX_ITEM_LIST_LENGTH": 9, "max_search_length": 7, "max_clicks_per_search": 4,
    "embedding_size": 5, "item_attribute_size": 3, "query_embedding_size": 4, "term_embedding_size": 3,
    "hidden_size": 6, "n_layers": 2, "n_heads": 2, "dropout_prob": 0.0, "loss_type": "CE",
    "augmentation_prob": 0.0, "graph_prob": 0.2,
}  # fmt: skip
TAGS = torch.tensor([[(7 * i + j) % 5 * (j <= i % 3) for j in range(3)] for i in range(30)], dtype=torch.int32)
TERMS = torch.tensor([[(3 * q + j) % 8 * (j < q % 4) for j in range(3)] for q in range(12)], dtype=torch.int32)
CLICKED = [(1, 4), (1, 5), (2, 5), (3, 6), (5, 28)]  # (query, item) of each training click
SEARCHED = [1, 1, 2, 3, 5, 7]
TARGETS = 27  # items from here on were only ever clicked


def fake_dataset(clicked: list[tuple[int, int]] = CLICKED, searched: list[int] = SEARCHED) -> SimpleNamespace:
    queries, items = torch.tensor(clicked, dtype=torch.int64).view(-1, 2).unbind(1)
    return SimpleNamespace(
        user_num=10, item_num=30, query_num=12, term_num=8, target_num=TARGETS,
        num={"item_id": 30, "tags": 5}.__getitem__, query_terms=TERMS, item_attributes={"tags": TAGS}, item_numbers={},
        training_clicks=TrainingClicks(items * 0, items * 0, queries, items),
        training_search_queries=torch.tensor(searched, dtype=torch.int32),
    )  # fmt: skip


class Row(NamedTuple):
    items: list[int]
    searches: list[tuple[int, list[int], int]]  # query, clicked items, how many of the items come before
    candidates: list[int]  # the positive first


BOTH = Row([3, 4, 5], [(1, [14], 0), (2, [4, 9], 1), (3, [3], 2), (4, [], 3), (6, [8, 3], 3)], [12, 2, 10, 11])
LOGGED_TWICE = Row([3, 5, 3], [(1, [5], 1), (2, [3], 1), (2, [5], 2)], [9, 6, 7, 8])
BOUGHT_AT_ONCE = Row([4, 7], [(2, [7], 1)], [3, 6, 8, 9])
NO_SEARCH = Row([12, 13], [], [15, 8, 9, 1])
NO_ITEM = Row([], [(2, [28], 0), (6, [], 0), (7, [17, 18], 0)], [16, 2, 4, 6])
ENDS_WITH_QUERY = Row([14], [(3, [], 0), (4, [], 1)], [6, 20, 21, 7])
NOTHING = Row([], [], [18, 1, 3, 5])
ROWS = [BOTH, LOGGED_TWICE, BOUGHT_AT_ONCE, NO_SEARCH, NO_ITEM, ENDS_WITH_QUERY, NOTHING]

# The tokens by hand: a query q is -q.  Then the items to predict: by position, the target last.
EXPECTED = {
    "both": (BOTH, [-1, 14, 3, -2, 9, 4, -3, 3, 5, -4, -6, 8, 3], {10: 8, 11: 3, 12: 12}),
    "logged twice": (LOGGED_TWICE, [3, -1, -2, 5, -2, 5, 3], {6: 9}),
    "bought at once": (BOUGHT_AT_ONCE, [4, -2, 7], {1: 7, 2: 3}),
    "no search": (NO_SEARCH, [12, 13], {1: 15}),
    "no item": (NO_ITEM, [-2, 28, -6, -7, 17, 18], {0: 28, 3: 17, 4: 18, 5: 16}),
    "ends with a query": (ENDS_WITH_QUERY, [-3, 14, -4], {0: 14, 2: 6}),
    "nothing": (NOTHING, [], {0: 18}),
}


def interaction(rows: list[Row], length: int = 4, searches: int = 5, clicks: int = 2) -> Interaction:
    batch = {
        "item_id": torch.tensor([row.candidates[0] for row in rows]),
        "neg_item_id": torch.tensor([row.candidates[1:] for row in rows]),
        "item_id_list": torch.zeros(len(rows), length, dtype=torch.int64),
        "search_query_list": torch.zeros(len(rows), searches, dtype=torch.int64),
        "search_click_list": torch.zeros(len(rows), searches, clicks, dtype=torch.int64),
        "search_place_list": torch.zeros(len(rows), searches, dtype=torch.int64),
    }
    for number, row in enumerate(rows):
        batch["item_id_list"][number, : len(row.items)] = torch.tensor(row.items)
        for slot, (query, clicked, place) in enumerate(row.searches):
            batch["search_query_list"][number, slot] = query
            batch["search_click_list"][number, slot, : len(clicked)] = torch.tensor(clicked)
            batch["search_place_list"][number, slot] = place
    return Interaction(batch)


def candidates(rows: list[Row]) -> Tensor:
    return torch.tensor([row.candidates for row in rows])


def build(dataset: Any = None, **values: Any) -> QuerySeqRec:
    """A model with weights so large that nothing in it is nearly linear or nearly zero."""
    torch.manual_seed(0)
    model = QuerySeqRec({**CONFIG, **values}, dataset or fake_dataset())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(torch.randn_like(parameter) * 0.4)
            if name.endswith(("ids.weight", "table.weight")):
                parameter[0] = 0
    return model.double()


def signed(tokens: Tokens) -> list[list[int]]:
    """Items, and queries with a minus, of each row without its padding."""
    return [[number for number in row if number] for row in (tokens.items - tokens.queries).tolist()]


def labels(model: QuerySeqRec, batch: Interaction) -> list[dict[int, int]]:
    found = model.labels(batch, model.merge(batch)).tolist()
    return [{position: item for position, item in enumerate(row) if item} for row in found]


# --- the reference --------------------------------------------------------------------------------------------------

Weights = dict[str, Tensor]


class Token(NamedTuple):
    kind: str
    number: int
    predicted: bool = False


def tokens_of(row: Row) -> list[Token]:
    tokens = []
    for place in range(len(row.items) + 1):
        for query, clicked, searched_at in row.searches:
            if searched_at == place:
                kept = [item for item in clicked if item not in row.items[place:]]
                tokens.append(Token("query", query))
                tokens += [Token("item", item, place == len(row.items)) for item in kept]
        behind_query = bool(tokens) and tokens[-1].kind == "query"
        latest = place == len(row.items) - 1
        tokens += [Token("item", item, latest and behind_query) for item in row.items[place : place + 1]]
    return tokens


def linear(weights: Weights, name: str, vector: Tensor) -> Tensor:
    return weights[f"{name}.weight"] @ vector + weights[f"{name}.bias"]


def norm(weights: Weights, name: str, vector: Tensor) -> Tensor:
    centred = vector - vector.mean()
    return centred / (centred.square().mean() + 1e-8).sqrt() * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def entity(weights: Weights, kind: str, number: int) -> Tensor:
    name, values = {"item": ("items", TAGS), "query": ("queries", TERMS)}[kind]
    table = weights[f"{name}.attributes.0.table.weight"]
    present = [table[value] for value in values[number].tolist() if value]
    mean = torch.stack(present).mean(0) if present else torch.zeros_like(table[0])
    own = weights[f"{name}.ids.weight"][number] if number else torch.zeros_like(weights[f"{name}.ids.weight"][0])
    return linear(weights, f"{name}.projection", torch.cat([own, mean]))


def attend(weights: Weights, name: str, states: list[Tensor]) -> Tensor:
    """What the last of ``states`` gets from all of them."""
    projected = [linear(weights, f"{name}.input", state) for state in states]
    mixed = []
    for head in (slice(0, 3), slice(3, 6)):
        query = projected[-1][:6][head]
        powers = [torch.exp(query @ other[6:12][head] / math.sqrt(3)) for other in projected]
        mixed.append(sum(power * other[12:][head] for power, other in zip(powers, projected)) / sum(powers))
    return linear(weights, f"{name}.output", torch.cat(mixed))


def states_of(weights: Weights, row: Row) -> list[Tensor]:
    tokens = tokens_of(row)
    states = [
        entity(weights, kind, number)
        + weights["positions.weight"][position]
        + weights["types.weight"][int(kind == "query")]
        for position, (kind, number, _) in enumerate(tokens or [Token("item", 0)])
    ]
    for layer in (f"encoder.layers.{number}" for number in range(2)):
        normed = [norm(weights, f"{layer}.attention_norm", state) for state in states]
        for position in range(len(states)):
            seen = normed[: position + 1]
            nothing = weights[f"{layer}.attention.output.bias"]
            attended = attend(weights, f"{layer}.attention", seen) if tokens else nothing
            state = states[position] + attended
            inner = linear(weights, f"{layer}.network.0", norm(weights, f"{layer}.network_norm", state)).clamp(min=0)
            states[position] = state + linear(weights, f"{layer}.network.2", inner)
    return [norm(weights, "encoder.norm", state) for state in states]


def loss_of(weights: Weights, rows: list[Row], loss_type: str) -> Tensor:
    losses = []
    for row in rows:
        states, tokens = states_of(weights, row), tokens_of(row)
        wanted = [(states[-1], row.candidates[0])]
        wanted += [(states[place - 1], token.number) for place, token in enumerate(tokens) if token.predicted]
        for state, label in wanted:
            if loss_type == "CE":
                logits = torch.stack([entity(weights, "item", item) @ state for item in range(1, 30)])
                losses.append(torch.log(torch.exp(logits).sum()) - logits[label - 1])
            else:
                losses.append(torch.log1p(torch.exp(-entity(weights, "item", label) @ state)))
                for item in row.candidates[1:]:
                    losses.append(torch.log1p(torch.exp(entity(weights, "item", item) @ state)))
    return sum(losses, torch.zeros(())) / len(losses)


def parameters(model: QuerySeqRec) -> Weights:
    return {name: value.detach().clone().requires_grad_() for name, value in model.named_parameters()}


# --- tokens and loss positions --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("row", "tokens", "wanted"), EXPECTED.values(), ids=EXPECTED)
def test_tokens_and_loss_positions_are_those_written_by_hand(
    row: Row, tokens: list[int], wanted: dict[int, int]
) -> None:
    model = build()
    for batch, place in ((interaction([row]), 0), (interaction([*ROWS, row], 6, 6, 3), len(ROWS))):
        assert signed(model.merge(batch))[place] == tokens
        assert labels(model, batch)[place] == wanted
    assert [token.number * (1 if token.kind == "item" else -1) for token in tokens_of(row)] == tokens


def test_every_item_of_the_training_period_is_predicted_once(toy: Callable[..., Any]) -> None:
    """User a of the toy data: i1 at 10, i2 and i3 at 20, i4 at 30, i5 at 40; searches at 5, 20 and 40."""
    dataset = toy(QuerySeqRec, require_both_histories=False)
    model = QuerySeqRec(dataset.config, dataset)
    user = dataset.token2id("user_id", "a")
    train = dataset.split.train.long()
    batch = Interaction(instances(dataset, train[dataset.log.users[train] == user], dataset.history_reader()))

    def name(number: int) -> str:
        return dataset.id2token("item_id", number) if number > 0 else dataset.id2token("query_id", -number)

    assert [" ".join(name(token) for token in row) for row in signed(model.merge(batch))] == [
        "q2 i3 x",
        "q2 i3 x i1",
        "q2 i3 x i1 i2",
        "q2 x i1 q1 i2 i3",
        "q2 x i1 q1 i2 i3 i4",
    ]
    found = [{position: name(item) for position, item in row.items()} for row in labels(model, batch)]
    assert found == [{0: "i3", 1: "x", 2: "i1"}, {3: "i2"}, {4: "i3"}, {5: "i4"}, {6: "i5"}]


# --- against the reference ------------------------------------------------------------------------------------------


def test_states_and_scores_equal_the_reference() -> None:
    model = build()
    weights = parameters(model)
    state = model.encode(interaction(ROWS))
    scores = model.score(state, candidates(ROWS))
    for number, row in enumerate(ROWS):
        expected = torch.stack(states_of(weights, row))
        torch.testing.assert_close(state.states[number, : len(expected)], expected)
        wanted = [entity(weights, "item", item) @ expected[-1] for item in row.candidates]
        torch.testing.assert_close(scores[number], torch.stack(wanted))
    assert (scores - scores[:, :1])[:, 1:].abs().min() > 1e-3, "candidates score the same"


@pytest.mark.parametrize("loss_type", ["CE", "BCE"])
def test_the_loss_and_all_gradients_equal_the_reference(loss_type: str) -> None:
    model = build(loss_type=loss_type).train()
    weights = parameters(model)
    expected = {"rec": loss_of(weights, ROWS, loss_type)}
    assert_equals_reference(model, model.losses(interaction(ROWS)), expected, weights)


def test_a_token_sees_nothing_that_comes_after_it() -> None:
    model = build()
    later = BOTH._replace(items=[3, 4, 6], searches=[*BOTH.searches[:3], (5, [1], 3)])
    first, second = (model.encode(interaction([row])).states[0] for row in (BOTH, later))
    torch.testing.assert_close(first[:8], second[:8])
    assert (first[8:10] - second[8:10]).abs().max(dim=1).values.min() > 1e-3


def test_losses_and_scores_do_not_depend_on_padding() -> None:
    model = build()
    results = []
    for sizes in ((4, 5, 2), (9, 7, 4)):
        batch = interaction(ROWS, *sizes)
        results.append((model.losses(batch)["rec"], model.score(model.encode(batch), candidates(ROWS))))
    torch.testing.assert_close(*results)


def test_position_wise_networks_have_dropout_inside() -> None:
    assert_dropout_inside(build(dropout_prob=0.5))


def test_full_histories_have_a_place_for_every_token() -> None:
    sizes = {"MAX_ITEM_LIST_LENGTH": 4, "max_search_length": 5, "max_clicks_per_search": 2}
    row = Row([1, 2, 3, 4], [(query, [10 + query, 20], 4) for query in range(1, 6)], [5, 6, 7, 8])
    model = build(**sizes)
    assert len(signed(model.merge(interaction([row])))[0]) == len(model.positions.weight) == 4 + 5 * (1 + 2)
    assert torch.isfinite(model.calculate_loss(interaction([row])))


# --- augmentation ---------------------------------------------------------------------------------------------------


def augmented(rows: list[Row], times: int, dataset: Any = None, **values: Any) -> tuple[Tokens, Tokens]:
    """The tokens of ``rows``, ``times`` over, before and after augmentation."""
    model = build(dataset, **values)
    tokens = model.merge(interaction(rows * times))
    return tokens, model.augment(tokens)


def replacements(before: Tensor, after: Tensor, number: int) -> set[int]:
    return set(after[before == number].tolist())


def test_with_the_graph_related_items_and_queries_of_the_next_item_take_their_places() -> None:
    row = Row([4, 6, 28], [(9, [], 0), (10, [], 0), (11, [], 1)], [1, 2, 3, 7])
    before, after = augmented([row], 300, augmentation_prob=1.0, graph_prob=1.0)
    assert signed(before)[0] == [-9, -10, 4, -11, 6, 28]
    assert replacements(before.items, after.items, 4) == {4, 5}  # 5 also by query 1
    assert replacements(before.items, after.items, 6) == {6}
    assert replacements(before.items, after.items, 28) == {28}
    assert replacements(before.queries, after.queries, 9) == {1}  # the next item is 4
    assert replacements(before.queries, after.queries, 10) == {1}
    assert replacements(before.queries, after.queries, 11) == {3}


def test_what_has_no_relation_becomes_any_target_item_or_any_training_query() -> None:
    before, after = augmented([ENDS_WITH_QUERY], 600, augmentation_prob=1.0, graph_prob=1.0)
    assert replacements(before.items, after.items, 14) == set(range(1, TARGETS))
    assert replacements(before.queries, after.queries, 4) == {1, 2, 3, 5, 7}  # no item follows, the target is none


def test_without_the_graph_anything_takes_the_places() -> None:
    before, after = augmented([Row([4], [(9, [], 0)], [1, 2, 3, 5])], 600, augmentation_prob=1.0, graph_prob=0.0)
    assert replacements(before.items, after.items, 4) == set(range(1, TARGETS))
    assert replacements(before.queries, after.queries, 9) == {1, 2, 3, 5, 7}


def test_the_probabilities_are_those_of_the_configuration() -> None:
    row = Row([28] * 4, [(9, [], 0), (10, [], 1)], [1, 2, 3, 4])  # 28 is related to itself and to query 5 alone
    before, after = augmented([row], 2000, augmentation_prob=0.25, graph_prob=0.5)
    items, queries = after.items[before.items == 28], after.queries[before.queries != 0]
    assert (items != 28).double().mean().item() == pytest.approx(0.25 * 0.5, abs=0.02)
    assert ((queries != 9) & (queries != 10)).double().mean().item() == pytest.approx(0.25, abs=0.03)
    assert (queries == 5).double().mean().item() == pytest.approx(0.25 * (0.5 + 0.5 / 5), abs=0.03)


def test_padding_places_and_what_is_to_be_predicted_stay() -> None:
    before, after = augmented(ROWS, 50, augmentation_prob=1.0)
    assert torch.equal(before.predicted, after.predicted)
    for old, new in ((before.items, after.items), (before.queries, after.queries)):
        assert torch.equal(old != 0, new != 0)


@pytest.mark.parametrize("loss_type", ["CE", "BCE"])
def test_only_training_is_augmented_and_a_seed_repeats_it(loss_type: str) -> None:
    plain = build(loss_type=loss_type)
    model = build(loss_type=loss_type, augmentation_prob=0.5)
    batch = interaction(ROWS)

    def loss(seed: int) -> float:
        torch.manual_seed(seed)
        return model.calculate_loss(batch).item()

    expected = plain.eval().calculate_loss(batch).item()
    model.eval()
    assert loss(1) == pytest.approx(expected) and loss(2) == pytest.approx(expected)
    model.train()
    assert loss(1) == loss(1) != loss(2)
    assert abs(loss(1) - expected) > 1e-4
    torch.testing.assert_close(model.encode(batch).states, plain.encode(batch).states)


def test_without_clicks_or_searches_in_training_items_are_still_replaced() -> None:
    before, after = augmented([NO_SEARCH], 300, fake_dataset([], []), augmentation_prob=1.0, graph_prob=1.0)
    assert replacements(before.items, after.items, 12) == set(range(1, TARGETS))


def test_the_graph_knows_nothing_of_held_out_events(toy: Callable[..., Any]) -> None:
    """The validation target of user a is at 50: a click from there on is in no table, one before it is."""
    search = ["a q1 20 i2", "a q2 5 i3,x,i1", "a q1 40 ", "a q3 45 i6", "b q2 20 x"]

    def tables(*more: str) -> list[list[int]]:
        dataset = toy(QuerySeqRec, search=[*search, *more])
        model = QuerySeqRec(dataset.config, dataset)
        relations = model.queries_of_item, model.items_of_query
        return [values.tolist() for r in relations for values in (r.start, r.values)] + [model.searched.tolist()]

    assert tables("a q3 50 i1", "a q3 55 i2") == tables()
    assert tables("a q3 49 i1") != tables()


# --- the rest -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values", [{"loss_type": "XE"}, {"augmentation_prob": 1.5}, {"graph_prob": -0.1}, {"n_heads": 4}]
)
def test_impossible_settings_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=str(next(iter(values.values())))):
        build(**values)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("values", [{"loss_type": "BCE"}, {"augmentation_prob": 0.0}], ids=["BCE", "no augmentation"])
def test_variants_keep_the_contract(
    values: dict[str, Any], check: Callable[[ModelUnderTest], None], tmp_path: Path
) -> None:
    check(ModelUnderTest(QuerySeqRec, tmp_path, values))
