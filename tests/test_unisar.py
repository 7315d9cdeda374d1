"""UniSAR against a slow reference, and what its docstring promises."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from model_fakes import assert_dropout_inside, assert_equals_reference, fake_dataset
from recbole.data.interaction import Interaction
from reference.unisar_reference import Reference, Row, Search
from torch import Tensor, nn

from recbole_ser.data.loader import JointBatch
from recbole_ser.errors import ConfigError
from recbole_ser.model.layers import Dropout
from recbole_ser.model.search_aware.unisar import UniSAR, other_side
from recbole_ser.testing import CHECKS, ModelUnderTest

CONFIG: dict[str, Any] = {
    "USER_ID_FIELD": "user_id", "ITEM_ID_FIELD": "item_id", "LIST_SUFFIX": "_list", "NEG_PREFIX": "neg_",
    "ITEM_LIST_LENGTH_FIELD": "item_length", "device": "cpu", "MAX_ITEM_LIST_LENGTH": 6, "max_search_length": 5,
    "embedding_size": 5, "item_attribute_size": 3, "query_embedding_size": 4, "term_embedding_size": 3,
    "user_embedding_size": 4, "user_attribute_size": 2, "hidden_size": 8, "n_layers": 2, "n_heads": 2,
    "dropout_prob": 0.0, "shared_experts": 2, "own_experts": 3, "mlp_hidden_size": [14, 10],
    "alignment_weight": 0.5, "alignment_temperature": 0.1, "alignment_negatives": 9,
    "transition_weight": 0.3, "transition_temperature": 0.2, "search_weight": 0.25,
}  # fmt: skip
VARIANTS: dict[str, dict[str, Any]] = {
    "all": {},
    "one layer": {"n_layers": 1},
    "no query-item alignment": {"alignment_weight": 0.0},
    "no transition alignment": {"transition_weight": 0.0},
    "no search task": {"search_weight": 0.0},
}
ROWS = [
    Row(1, [3, Search(1, [4]), 4, 5, Search(2, [5, 9]), Search(1, []), 6, 7, Search(3, [4, 5, 6]), 8], [9, 2, 3, 4]),
    Row(2, [Search(5, [12]), 10], [11, 5, 6, 7]),
    Row(3, [12, 13, 14], [15, 8, 9, 1]),
    Row(4, [Search(2, [5]), Search(6, [17])], [16, 2, 4, 6]),
    Row(5, [], [18, 1, 3, 5]),
    Row(6, [19, 20, Search(7, [20, 4]), 21, 22, Search(1, [4])], [23, 4, 8, 12]),
    Row(1, [Search(8, [24]), Search(9, [25]), Search(2, [5]), 3, 4, Search(10, [4])], [26, 7, 8, 9]),
]
SEARCHED = [
    Row(1, [3, Search(1, [4]), 4, 5], [5, 8, 9, 2], query=2),
    Row(7, [], [6, 2, 11, 7], query=11),
    Row(6, [19, 20, Search(8, [21])], [28, 4, 9, 1], query=7),
    Row(4, [Search(2, [5])], [17, 16, 3, 8], query=6),
]


def fields(rows: list[Row], length: int = 6, searches: int = 5, clicks: int = 3) -> dict[str, Tensor]:
    batch = {
        "user_id": torch.tensor([row.user for row in rows]),
        "item_id": torch.tensor([row.candidates[0] for row in rows]),
        "neg_item_id": torch.tensor([row.candidates[1:] for row in rows]),
        "item_id_list": torch.zeros(len(rows), length, dtype=torch.int64),
        "item_length": torch.tensor([len(row.items) for row in rows]),
        "search_query_list": torch.zeros(len(rows), searches, dtype=torch.int64),
        "search_click_list": torch.zeros(len(rows), searches, clicks, dtype=torch.int64),
        "search_place_list": torch.zeros(len(rows), searches, dtype=torch.int64),
        "search_length": torch.tensor([len(row.searches) for row in rows]),
    }
    for number, row in enumerate(rows):
        seen = found = 0
        for event in row.events:
            if isinstance(event, Search):
                batch["search_query_list"][number, found] = event.query
                batch["search_click_list"][number, found, : len(event.clicks)] = torch.tensor(event.clicks)
                batch["search_place_list"][number, found] = seen
                found += 1
            else:
                batch["item_id_list"][number, seen] = event
                seen += 1
    if rows[0].query:
        batch["query_id"] = torch.tensor([row.query for row in rows])
    return batch


def joint(rows: list[Row], searched: list[Row] | None, *sizes: int) -> JointBatch:
    return JointBatch(fields(rows, *sizes), Interaction(fields(searched, *sizes)) if searched else None)


def candidates(rows: list[Row]) -> Tensor:
    return torch.tensor([row.candidates for row in rows])


def build(seed: int = 0, **values: Any) -> UniSAR:
    """A model with weights so large that nothing in it is nearly linear or nearly zero."""
    torch.manual_seed(seed)
    model = UniSAR({**CONFIG, **values}, fake_dataset())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.endswith(".raw"):
                parameter.add_(torch.randn_like(parameter) * (0.2 if parameter.dim() == 1 else 0.4))
            if name.endswith(("ids.weight", "table.weight")):
                parameter[0] = 0
    return model


def reference(model: UniSAR, **values: Any) -> tuple[Reference, dict[str, Tensor]]:
    weights = {name: value.detach().clone().requires_grad_() for name, value in model.named_parameters()}
    return Reference(weights, fake_dataset(), {**CONFIG, **values}), weights


def losses_and_negatives(
    model: UniSAR, rows: list[Row], searched: list[Row] | None
) -> tuple[dict[str, Tensor], tuple[list[int], list[int]]]:
    torch.manual_seed(5)
    losses = model.losses(joint(rows, searched))
    negatives = model.alignment.drawn if model.alignment_weight else None
    return losses, (negatives.items.tolist(), negatives.queries.tolist()) if negatives else ([], [])


# --- against the reference ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [{}, {"n_layers": 1}], ids=["two layers", "one layer"])
def test_states_and_scores_of_both_tasks_equal_the_reference(values: dict[str, Any]) -> None:
    model = build(**values).double()
    slow, _ = reference(model, **values)
    for rows, query in ((ROWS, None), (SEARCHED, torch.tensor([row.query for row in SEARCHED]))):
        items, state = candidates(rows), model.encode(Interaction(fields(rows)))
        scores = model.score(state, items) if query is None else model.score_search(state, query, items)
        for number, row in enumerate(rows):
            expected = slow.encode(row)
            torch.testing.assert_close(state.user[number], expected.user)
            for side in ("rec", "search"):
                for name in ("own", "other", "fused"):
                    theirs = getattr(getattr(expected, side), name)
                    ours = getattr(getattr(state, side), name)[number, : len(theirs)]
                    torch.testing.assert_close(ours, torch.stack(theirs) if theirs else ours)
            wanted = torch.stack([slow.score(expected, item, row.query) for item in row.candidates])
            torch.testing.assert_close(scores[number], wanted)
        assert (scores - scores[:, :1])[:, 1:].abs().min() > 1e-4, "candidates score the same"


@pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS)
def test_losses_and_all_gradients_equal_the_reference(values: dict[str, Any]) -> None:
    model = build(**values).double().train()
    searched = SEARCHED if model.search_weight else []
    losses, negatives = losses_and_negatives(model, ROWS, searched)
    slow, weights = reference(model, **values)
    expected = slow.losses(ROWS, searched, *negatives)
    assert_equals_reference(model, losses, expected, weights)


# --- transitions ----------------------------------------------------------------------------------------------------


def test_items_see_searches_and_searches_see_items() -> None:
    sees = other_side(torch.tensor([[True, True, False]]), torch.tensor([[True, False]]))[0]
    assert sees.int().tolist() == [[0, 0, 0, 1, 0]] * 3 + [[1, 1, 0, 0, 0]] * 2


@pytest.mark.parametrize("n_layers", [1, 2])
def test_what_a_transition_depends_on(n_layers: int) -> None:
    """With one layer an item of src2rec knows all searches and no other item; with two, items reach it through them."""
    model = build(n_layers=n_layers).eval()
    with torch.no_grad():
        first = model.encode(Interaction(fields(ROWS[:1])))
        events = [11 if event == 5 else event for event in ROWS[0].events]
        other_item = model.encode(Interaction(fields([Row(1, events, [9, 2, 3, 4])])))
        events = [Search(9, [2]) if isinstance(e, Search) and e.query == 2 else e for e in ROWS[0].events]
        other_search = model.encode(Interaction(fields([Row(1, events, [9, 2, 3, 4])])))

    def changed(before: Tensor, after: Tensor) -> list[bool]:
        return ((before - after).abs().amax(dim=2)[0] > 1e-6).tolist()

    only_itself = [False, False, True, False, False, False]
    assert changed(first.rec.other, other_item.rec.other) == (only_itself if n_layers == 1 else [True] * 6)
    assert all(changed(first.search.other, other_item.search.other)[:4])
    assert all(changed(first.rec.other, other_search.rec.other))
    searches = changed(first.search.other, other_search.search.other)[:4]
    assert searches == ([False, True, False, False] if n_layers == 1 else [True] * 4)
    assert not any(changed(first.rec.own, other_search.rec.own)) and all(changed(first.rec.own, other_item.rec.own))


def test_the_order_of_items_and_searches_matters() -> None:
    model = build().eval()
    later = Row(1, [3, 4, Search(1, [4]), *ROWS[0].events[3:]], ROWS[0].candidates)
    assert later.items == ROWS[0].items and later.searches == ROWS[0].searches
    scores = [model.score(model.encode(Interaction(fields([row]))), candidates([row])) for row in (ROWS[0], later)]
    assert (scores[0] - scores[1]).abs().max() > 1e-4


def test_users_without_one_of_the_histories_have_no_transition_loss() -> None:
    model = build().double()
    both = [row for row in ROWS if row.items and row.searches]
    torch.testing.assert_close(
        model.losses(joint(ROWS, None))["transition"], model.losses(joint(both, None))["transition"]
    )
    losses = model.losses(joint(ROWS[1:5], None))  # one of them has both
    assert losses["transition"].item() == 0
    torch.stack(list(losses.values())).sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters() if parameter.grad is not None)


# --- both tasks -----------------------------------------------------------------------------------------------------


def test_the_search_weight_scales_the_losses_of_the_search_task_alone() -> None:
    found = [losses_and_negatives(build(search_weight=weight), ROWS, SEARCHED)[0] for weight in (0.25, 1.0)]
    for name in found[0]:
        torch.testing.assert_close(found[0][name], found[1][name] * (0.25 if name.startswith("search") else 1.0))


def test_without_search_instances_there_are_the_losses_of_recommendation_alone() -> None:
    model = build()
    alone, _ = losses_and_negatives(model, ROWS, None)
    beside, _ = losses_and_negatives(model, ROWS, SEARCHED)
    assert set(alone) == {"rec", "alignment", "transition"}
    assert set(beside) - set(alone) == {"search", "search_alignment", "search_transition"}
    for name, loss in alone.items():
        torch.testing.assert_close(loss, beside[name])


def test_the_search_task_teaches_the_items_and_leaves_the_experts_of_recommendation_alone() -> None:
    model = build().train()
    losses, _ = losses_and_negatives(model, ROWS, SEARCHED)
    losses["search"].backward()
    touched = {name for name, value in model.named_parameters() if value.grad is not None and value.grad.any()}
    assert model.items.ids.weight.grad[28].abs().sum() > 0  # the positive of a search, in no other batch
    assert {"items.projection.weight", "experts.shared.weight", "experts.own.1.weight", "towers.1.0.weight"} <= touched
    assert not touched & {"no_query", "experts.own.0.weight", "experts.gates.0.weight", "towers.0.0.weight"}


def test_both_tasks_are_told_from_the_same_negatives(monkeypatch: pytest.MonkeyPatch) -> None:
    model, draws = build(), []
    draw = model.alignment.draw
    monkeypatch.setattr(model.alignment, "draw", lambda count: draws.append(draw(count)) or draws[-1])
    for step in (1, 2):
        losses = model.losses(joint(ROWS, SEARCHED))
        assert {"alignment", "search_alignment"} < set(losses) and len(draws) == step


def test_what_is_switched_off_does_not_exist_or_is_frozen() -> None:
    everything = {name for name, _ in build().named_parameters()}
    for weight, modules in (("alignment_weight", ["alignment"]), ("transition_weight", ["to_rec", "to_search"])):
        gone = everything - {name for name, _ in build(**{weight: 0.0}).named_parameters()}
        assert gone == {f"{module}.{name}" for module in modules for name in ("weight", "temperature.raw")}
    frozen = {name for name, value in build(search_weight=0.0).named_parameters() if not value.requires_grad}
    assert frozen == {name for name in everything if name.startswith(("experts.own.1", "experts.gates.1", "towers.1"))}


def test_without_searches_in_training_there_is_no_query_item_alignment() -> None:
    dataset = fake_dataset()
    dataset.training_search_queries = dataset.training_search_queries[:0]
    losses = UniSAR(CONFIG, dataset).losses(joint([ROWS[2], ROWS[4]], None))
    assert set(losses) == {"rec", "transition"}


def test_temperatures_and_biases_are_spared_weight_decay() -> None:
    model = build()
    temperatures = {"alignment.temperature.raw", "to_rec.temperature.raw", "to_search.temperature.raw"}
    biases = {name for name, _ in model.named_parameters() if "bias" in name}
    assert model.no_weight_decay() == temperatures | biases
    assert {"experts.shared.bias", "encoder.layers.0.attention_norm.bias", "towers.1.0.bias"} < biases


def test_towers_and_initial_weights_are_the_published_ones() -> None:
    torch.manual_seed(0)
    values = {"hidden_size": 64, "mlp_hidden_size": [200, 80], "shared_experts": 4, "own_experts": 4}
    model = UniSAR({**CONFIG, **values}, fake_dataset(items=4000))
    tower = [
        (layer.in_features, layer.out_features) if isinstance(layer, nn.Linear) else type(layer)
        for layer in model.towers[0]
    ]
    published = [(64, 128), nn.ReLU, Dropout, (128, 64), nn.ReLU, Dropout]
    assert tower == [*published, (64, 200), nn.ReLU, Dropout, (200, 80), nn.ReLU, Dropout, (80, 1)]
    experts = torch.cat([layer.weight for layer in (model.experts.shared, *model.experts.own)]).split(64)
    spread = {
        **{expert: math.sqrt(2 / (320 + 64)) for expert in experts},
        model.experts.gates[0].weight: math.sqrt(2 / (320 + 8)),
        model.items.ids.weight[1:]: math.sqrt(2 / (4000 + 5)),
        model.encoder.layers[0].attention.input.weight: math.sqrt(2 / (4 * 64)),
        model.rec_interest.weight: math.sqrt(2 / (64 * 64 + 64)),
    }
    assert len(spread) == 3 * 4 + 4
    for weight, expected in spread.items():
        assert abs(weight.std().item() / expected - 1) < 0.05


def test_position_wise_networks_have_dropout_inside() -> None:
    assert_dropout_inside(build(dropout_prob=0.5))


def test_negative_queries_are_distinct_queries_of_the_training_searches() -> None:
    model = build(alignment_negatives=6000)
    items, queries = model.alignment.draw(model.items.count)
    assert set(items.tolist()) == set(range(1, 30))
    counts = queries.bincount()
    assert counts.nonzero().flatten().tolist() == [1, 2, 3, 5, 8]
    assert (counts[counts > 0] / 1200 - 1).abs().max() < 0.1, "as often, however often they were searched"


@pytest.mark.parametrize("values", [{"n_heads": 3}, {"transition_temperature": 0.01}])
def test_impossible_settings_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=str(next(iter(values.values()))).replace(".", r"\.")):
        UniSAR({**CONFIG, **values}, fake_dataset())


# --- histories ------------------------------------------------------------------------------------------------------


def test_losses_and_scores_depend_on_neither_padding_nor_batch() -> None:
    model = build(MAX_ITEM_LIST_LENGTH=9, max_search_length=8).double()
    results = []
    for sizes in ((6, 5, 3), (9, 8, 5)):
        torch.manual_seed(2)
        model.zero_grad()
        losses = model.losses(joint(ROWS, SEARCHED, *sizes))
        torch.stack(list(losses.values())).sum().backward()
        results.append([*losses.values(), *(parameter.grad.clone() for parameter in model.parameters())])
    for first, second in zip(*results):
        torch.testing.assert_close(first, second)
    queries = torch.tensor([row.query for row in SEARCHED])
    together = model.score_search(model.encode(Interaction(fields(SEARCHED))), queries, candidates(SEARCHED))
    for number, row in enumerate(SEARCHED):
        state = model.encode(Interaction(fields([row], 4, 2, 1)))
        alone = model.score_search(state, queries[number : number + 1], candidates([row])[:, 1:3])
        torch.testing.assert_close(alone[0], together[number, 1:3])


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("values", [VARIANTS["no transition alignment"], VARIANTS["no search task"]], ids=str)
def test_variants_keep_the_contract(
    values: dict[str, Any], check: Callable[[ModelUnderTest], None], tmp_path: Path
) -> None:
    check(ModelUnderTest(UniSAR, tmp_path, values))
