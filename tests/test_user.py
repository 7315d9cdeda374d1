"""USER against a slow reference, and what its docstring promises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from model_fakes import assert_equals_reference, fake_dataset
from recbole.data.interaction import Interaction
from reference.user_reference import Event, Row, USERReference
from torch import Tensor

from recbole_ser.data.loader import JointBatch
from recbole_ser.errors import ConfigError
from recbole_ser.model.layers import TransformerLayer
from recbole_ser.model.search_aware.user import USER, appended
from recbole_ser.testing import CHECKS, ModelUnderTest

LENGTHS = {"MAX_ITEM_LIST_LENGTH": 6, "max_search_length": 5, "max_clicks_per_search": 3}
CONFIG: dict[str, Any] = {
    "USER_ID_FIELD": "user_id", "ITEM_ID_FIELD": "item_id", "LIST_SUFFIX": "_list", "NEG_PREFIX": "neg_",
    "ITEM_LIST_LENGTH_FIELD": "item_length", "device": "cpu", **LENGTHS,
    "embedding_size": 5, "item_attribute_size": 3, "query_embedding_size": 4, "term_embedding_size": 3,
    "user_embedding_size": 4, "user_attribute_size": 2, "hidden_size": 8, "n_layers": 2, "n_heads": 2,
    "dropout_prob": 0.0, "mlp_hidden_size": 6, "temperature": 0.3, "search_weight": 0.5,
}  # fmt: skip


def search(session: int, query: int, *clicks: int) -> Event:
    return Event(0, session, query, clicks)


ROWS = [  # query 5 has no words
    Row(1, [Event(3, 3), search(3, 1, 4), Event(4, 3), Event(5, 2), search(2, 2, 5, 9), search(2, 1), Event(6, 1),
            search(0, 3, 4, 5, 6), Event(7, 0), Event(8, 0), search(0, 4, 11)], [9, 2, 3, 4]),
    Row(2, [search(1, 5, 12), Event(10, 1)], [11, 5, 6, 7]),
    Row(3, [Event(12, 0), Event(13, 0), Event(14, 0)], [15, 8, 9, 1]),
    Row(4, [search(2, 2, 5), search(0, 6, 17)], [16, 2, 4, 6]),
    Row(5, [], [18, 1, 3, 5]),
    Row(6, [Event(19, 1), Event(20, 1), search(1, 7, 20, 4), search(1, 1, 4), search(1, 2), Event(21, 1)],
        [23, 4, 8, 2]),
]  # fmt: skip
SEARCH_ROWS = [Row(row.user, row.events, row.candidates, query) for row, query in zip(ROWS, [1, 4, 2, 2, 9, 7])]


def interaction(rows: list[Row], length: int = 6, searches: int = 5, clicks: int = 3) -> Interaction:
    batch = {name: torch.zeros(len(rows), length, dtype=torch.int64) for name in ("item_id_list", "item_session_list")}
    for name in ("search_query_list", "search_source_list", "search_place_list", "search_session_list"):
        batch[name] = torch.zeros(len(rows), searches, dtype=torch.int64)
    batch["search_click_list"] = torch.zeros(len(rows), searches, clicks, dtype=torch.int64)
    for number, row in enumerate(rows):
        items = searched = 0
        for event in row.events:
            if event.item:
                batch["item_id_list"][number, items] = event.item
                batch["item_session_list"][number, items] = event.session
                items += 1
                continue
            batch["search_query_list"][number, searched] = event.query
            batch["search_session_list"][number, searched] = event.session
            batch["search_place_list"][number, searched] = items
            batch["search_click_list"][number, searched, : len(event.clicks)] = torch.tensor(event.clicks)
            searched += 1
    return Interaction({
        **batch,
        "user_id": torch.tensor([row.user for row in rows]),
        "item_id": torch.tensor([row.candidates[0] for row in rows]),
        "neg_item_id": torch.tensor([row.candidates[1:] for row in rows]),
        "query_id": torch.tensor([row.query for row in rows]),
        "item_length": (batch["item_id_list"] != 0).sum(1),
        "search_length": (batch["search_query_list"] != 0).sum(1),
    })  # fmt: skip


def candidates(rows: list[Row]) -> Tensor:
    return torch.tensor([row.candidates for row in rows])


def dataset() -> SimpleNamespace:
    fake = fake_dataset()
    fake.query_terms[5] = 0
    return fake


def build(**values: Any) -> USER:
    """A model with weights so large that nothing in it is nearly linear or nearly zero."""
    torch.manual_seed(0)
    model = USER({**CONFIG, **values}, dataset())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name != "temperature.raw":
                parameter.add_(torch.randn_like(parameter) * (0.2 if parameter.dim() == 1 else 0.5))
            if name.endswith(("ids.weight", "table.weight")):
                parameter[0] = 0
    return model.double()


def reference(model: USER, **values: Any) -> tuple[USERReference, dict[str, Tensor]]:
    weights = {name: value.detach().clone().requires_grad_() for name, value in model.named_parameters()}
    return USERReference(weights, dataset(), {**CONFIG, **values}), weights


def scores(model: USER, rows: list[Row], batch: Interaction | None = None) -> Tensor:
    model.eval()
    with torch.no_grad():
        return model.score(model.encode(batch or interaction(rows)), candidates(rows))


# --- against the reference ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [1, 2])
def test_records_intents_and_scores_equal_the_reference(layers: int) -> None:
    model = build(n_layers=layers)
    slow, _ = reference(model, n_layers=layers)
    records = model.search_records(interaction(ROWS))
    for rows, encode in ((ROWS, model.encode), (SEARCH_ROWS, model.encode_search)):
        state = encode(interaction(rows))
        fast = model.score_search(state, torch.tensor([row.query for row in rows]), candidates(rows))
        for number, row in enumerate(rows):
            of_session, of_history, past = slow.intents(row)
            torch.testing.assert_close(state.intents[number], torch.stack([of_session, of_history]))
            assert state.past_mask[number].sum() == len(past)
            torch.testing.assert_close(fast[number], torch.stack(slow.scores(row)))
            searched = [event for event in row.events if not event.item]
            for place, event in enumerate(searched):
                torch.testing.assert_close(records[number, place], slow.record(event))
        assert (fast[:, 1:] - fast[:, :1]).abs().min() > 1e-3, "candidates score the same"


@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_both_losses_and_all_gradients_equal_the_reference(weight: float) -> None:
    model = build(search_weight=weight).train()
    losses = model.losses(JointBatch(interaction(ROWS).interaction, interaction(SEARCH_ROWS)))
    slow, weights = reference(model)
    expected = {"rec": slow.loss(ROWS), "search": weight * slow.loss(SEARCH_ROWS)}
    assert_equals_reference(model, losses, expected, weights)


def test_a_token_appended_alone_is_what_the_layer_gives_in_the_whole_sequence() -> None:
    """Whether or not the memory sees the token."""
    torch.manual_seed(1)
    layer = TransformerLayer(8, 2, 0.0).double()
    tokens, memory = torch.randn(2, 5, 8).double(), torch.randn(2, 3, 8).double()
    mask = torch.tensor([[True, True, True], [True, False, True]])
    fast = appended(layer, tokens, memory, mask)
    for column in range(5):
        sequence = torch.cat([memory, tokens[:, column : column + 1]], dim=1)
        visible = torch.cat([mask, torch.ones(2, 1, dtype=torch.bool)], dim=1)
        torch.testing.assert_close(fast[:, column], layer(sequence, visible)[:, -1])
        hidden = visible.unsqueeze(1).repeat(1, 4, 1)
        hidden[:, :3, 3] = False
        torch.testing.assert_close(fast[:, column], layer(sequence, hidden)[:, -1])


# --- sessions -------------------------------------------------------------------------------------------------------


def test_without_sessions_in_the_batch_every_event_belongs_to_the_present_one() -> None:
    model = build()
    batch = interaction(ROWS).interaction
    without = Interaction({name: values for name, values in batch.items() if "session" not in name})
    one = [Row(r.user, [Event(e.item, 0, e.query, e.clicks) for e in r.events], r.candidates) for r in ROWS]
    assert not model.encode(without).past_mask.any()
    torch.testing.assert_close(scores(model, ROWS, without), scores(model, one))
    assert (scores(model, ROWS)[0] - scores(model, one)[0]).abs().min() > 1e-4


def test_a_past_session_reaches_the_present_one_through_the_history_alone() -> None:
    model = build()
    changed = Row(1, [Event(22, 3), *ROWS[0].events[1:]], ROWS[0].candidates)
    state = model.encode(interaction([ROWS[0], changed]))
    torch.testing.assert_close(state.intents[0, 0], state.intents[1, 0])
    assert (state.intents[0, 1] - state.intents[1, 1]).abs().max() > 1e-4
    differs = (state.past[0] - state.past[1]).abs().amax(dim=1) > 1e-9  # [T]: six items, then five searches
    assert differs.nonzero().squeeze(1).tolist() == [0, 1, 6]  # session 3


def test_the_merged_order_matters() -> None:
    model = build()
    swapped = Row(6, [*ROWS[5].events[:1], ROWS[5].events[2], ROWS[5].events[1], *ROWS[5].events[3:]], [23, 4, 8, 2])
    assert (scores(model, [ROWS[5]]) - scores(model, [swapped])).abs().max() > 1e-4


# --- intents, scores, histories -------------------------------------------------------------------------------------


def test_the_query_is_the_intent_of_a_search_and_the_user_that_of_a_recommendation() -> None:
    model = build().eval()
    rows = [Row(user, ROWS[0].events, [9, 2], query) for user, query in ((1, 3), (2, 3), (1, 8))]
    by_user = [model.encode(interaction([row])).intents for row in rows]
    by_query = [model.encode_search(interaction([row])).intents for row in rows]
    assert torch.equal(by_user[0], by_user[2]) and not torch.allclose(by_user[0], by_user[1])
    assert torch.equal(by_query[0], by_query[1]) and not torch.allclose(by_query[0], by_query[2])


def test_logits_are_not_confined_to_a_small_range() -> None:
    model = build()
    with torch.no_grad():
        before = scores(model, ROWS)
        model.temperature.raw.copy_(torch.tensor(0.02))
    assert model.no_weight_decay() == {"temperature.raw"}
    assert scores(model, ROWS).abs().max() > 5 * before.abs().max()


def test_scores_do_not_depend_on_padding_order_or_batch() -> None:
    model = build(MAX_ITEM_LIST_LENGTH=9, max_search_length=8)
    expected = scores(model, ROWS)
    torch.testing.assert_close(scores(model, ROWS, interaction(ROWS, length=9, searches=8, clicks=5)), expected)
    torch.testing.assert_close(scores(model, ROWS[::-1]).flip(0), expected)
    for number, row in enumerate(ROWS):
        torch.testing.assert_close(scores(model, [row])[0], expected[number])


def test_a_batch_without_clicks_or_without_any_history_trains() -> None:
    model = build().train()
    for rows in ([ROWS[2], ROWS[4]], [ROWS[4]], [Row(1, [search(0, 1)], [2, 3])]):
        model.zero_grad()
        model.calculate_loss(interaction(rows)).backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("values", [{"n_heads": 3}, {"temperature": 0.0}])
def test_impossible_settings_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        USER({**CONFIG, **values}, dataset())


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("values", [{"session_gap": None}, {"search_weight": 0}], ids=["one session", "no search"])
def test_contract_of_variants(values: dict[str, Any], check: Callable[[ModelUnderTest], None], tmp_path: Path) -> None:
    check(ModelUnderTest(USER, tmp_path, values))
