"""UnifiedSSR against a slow reference, and what its docstring promises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from model_fakes import ROWS, SIZES, assert_equals_reference, candidates, fake_dataset
from model_fakes import interaction as histories
from recbole.data.interaction import Interaction
from reference.sesrec_reference import Row, Search
from reference.unified_ssr_reference import UnifiedSSRReference
from torch import Tensor

from recbole_ser.data.loader import JointBatch
from recbole_ser.errors import ConfigError
from recbole_ser.model.search_aware.unified_ssr import UnifiedSSR
from recbole_ser.testing import CHECKS, ModelUnderTest

CONFIG: dict[str, Any] = {
    **SIZES, "attention_dropout_prob": 0.0, "pretrain_epochs": 3, "search_weight": 0.5, "session_weight": 0.3,
}  # fmt: skip
QUERIES = [2, 5, 9, 2, 11, 7, 1]  # the present query of each of ROWS, as instances of the search task
BOTH = {"rec", "session", "search", "search_session"}


def interaction(rows: list[Row], queries: list[int], *sizes: int) -> Interaction:
    batch = histories(rows, *sizes)
    batch.update(Interaction({"query_id": torch.tensor(queries)}))
    return batch


def joint(rows: list[Row] = ROWS, queries: list[int] = QUERIES, *sizes: int) -> JointBatch:
    return JointBatch(histories(rows, *sizes).interaction, interaction(rows, queries, *sizes))


def build(**values: Any) -> UnifiedSSR:
    """A model with weights so large that nothing in it is nearly linear or nearly zero."""
    torch.manual_seed(0)
    model = UnifiedSSR({**CONFIG, **values}, fake_dataset())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = 0.2 if parameter.dim() < 2 or name.startswith(("items", "queries", "users")) else 0.4
            parameter.add_(torch.randn_like(parameter) * spread)
            if name.endswith(("ids.weight", "table.weight")):
                parameter[0] = 0
    return model.double()


def reference(model: UnifiedSSR, **values: Any) -> tuple[UnifiedSSRReference, dict[str, Tensor]]:
    weights = {name: value.detach().clone().requires_grad_() for name, value in model.named_parameters()}
    return UnifiedSSRReference(weights, fake_dataset(), {**CONFIG, **values}), weights


# --- against the reference ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [1, 2])
def test_states_and_scores_of_both_tasks_equal_the_reference(layers: int) -> None:
    model = build(n_layers=layers)
    slow, _ = reference(model, n_layers=layers)
    batch, items, weight = interaction(ROWS, QUERIES), candidates(ROWS), slow.product_weight()
    rec, search = model.encode(batch), model.encode_search(batch)
    fast, fast_search = model.score(rec, items), model.score_search(search, batch["query_id"], items)
    for number, row in enumerate(ROWS):
        expected = slow.products(row)
        torch.testing.assert_close(rec.products[number, : len(expected)], torch.stack(expected))
        torch.testing.assert_close(fast[number], torch.stack([slow.score(expected[-1], c) for c in row.candidates]))
        products, queries = slow.sides(row, QUERIES[number])
        torch.testing.assert_close(search.products[number, : len(products)], torch.stack(products))
        torch.testing.assert_close(search.queries[number, : len(queries)], torch.stack(queries))
        for column, candidate in enumerate(row.candidates):
            both = weight * slow.score(products[-1], candidate) + (1 - weight) * slow.score(queries[-1], candidate)
            torch.testing.assert_close(fast_search[number, column], both)
    for scores in (fast, fast_search):
        assert (scores[:, 1:] - scores[:, :1]).abs().min() > 1e-3, "candidates score the same"


@pytest.mark.parametrize("values", [{}, {"search_weight": 2.0}, {"session_weight": 1.0}])
def test_losses_and_all_gradients_equal_the_reference(values: dict[str, Any]) -> None:
    model = build(**values).train()
    losses = model.losses(joint())
    slow, weights = reference(model, **values)
    expected = slow.losses(ROWS, QUERIES)
    assert losses.keys() == BOTH
    assert_equals_reference(model, losses, expected, weights)


# --- phases ---------------------------------------------------------------------------------------------------------


def test_pre_training_learns_both_tasks_and_fine_tuning_recommendation_alone() -> None:
    model = build(pretrain_epochs=3).train()
    assert model.pretrain_epochs == 3
    assert set(model.losses(joint())) == BOTH, "before any epoch"
    phases = {}
    for epoch in (0, 2, 3, 9, 1):  # the last as after going back to an earlier checkpoint
        model.begin_epoch(epoch)
        phases[epoch] = set(model.losses(joint()))
    assert phases == {0: BOTH, 2: BOTH, 3: {"rec", "session"}, 9: {"rec", "session"}, 1: BOTH}


def test_fine_tuning_leaves_alone_what_only_searches_train() -> None:
    model = build().train()
    model.begin_epoch(3)
    model.calculate_loss(joint()).backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert without == {name for name, _ in model.named_parameters() if name.startswith(("queries", "balance"))}


def test_fine_tuning_is_the_recommendation_part_of_pre_training() -> None:
    model = build().train()
    before = model.losses(joint())
    model.begin_epoch(3)
    after = model.losses(joint())
    torch.testing.assert_close(after, {name: before[name] for name in ("rec", "session")})


def test_without_search_instances_only_recommendation_is_trained() -> None:
    assert set(build().losses(JointBatch(histories(ROWS).interaction, None))) == {"rec", "session"}


# --- the encoder ----------------------------------------------------------------------------------------------------


def test_a_state_does_not_change_with_what_comes_later() -> None:
    model = build().eval()
    row = Row(1, [3, 4, 5, 6, 7], [Search(1, [4], 1), Search(2, [5], 1), Search(3, [6], 1), Search(4, [8], 1)], [9, 2])
    for place in range(5):
        items = [*row.items[:place], 22, *row.items[place + 1 :]]
        states = model.encode(histories([row, Row(1, items, row.searches, [9, 2])])).products
        changed = (states[0] - states[1]).abs().amax(dim=1) > 1e-9
        assert changed[:6].tolist() == [number > place for number in range(6)]  # product l is at position l + 1
    for place in range(4):
        for search, first in ((Search(9, row.searches[place].clicks, 1), place),
                              (Search(row.searches[place].query, [23], 1), place + 1)):  # fmt: skip
            searches = [*row.searches[:place], search, *row.searches[place + 1 :]]
            state = model.encode_search(interaction([row, Row(1, row.items, searches, [9, 2])], [6, 6]))
            for states in (state.products, state.queries):
                changed = (states[0] - states[1]).abs().amax(dim=1) > 1e-9
                assert changed[:5].tolist() == [number >= first for number in range(5)]


def test_every_layer_matters_and_is_trained() -> None:
    model = build(n_layers=3).train()
    model.calculate_loss(joint()).backward()
    for name, parameter in model.encoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, f"{name} gets no gradient"


def test_an_instance_cut_short_has_the_states_of_the_longer_one() -> None:
    """So that the last position of every prefix stands for all positions of the longest."""
    model = build().eval()
    whole = model.encode(histories([ROWS[0]])).products[0]
    for length in range(len(ROWS[0].items)):
        row = Row(1, ROWS[0].items[:length], [], [9, 2])
        prefix = model.score(model.encode(histories([row])), torch.arange(1, 9).unsqueeze(0))
        mask = torch.ones(1, length + 1, dtype=torch.bool)
        torch.testing.assert_close(model.match(whole[None, : length + 1], mask, torch.arange(1, 9)[None]), prefix)


@pytest.mark.parametrize(("raw", "weight"), [(-50.0, 0.1), (0.0, 0.5), (50.0, 0.9)])
def test_neither_side_of_a_search_is_ever_ignored(raw: float, weight: float) -> None:
    model = build()
    with torch.no_grad():
        model.balance.fill_(raw)
    assert model.product_weight().item() == pytest.approx(weight)


# --- segments -------------------------------------------------------------------------------------------------------


def test_windows_start_as_the_middle_half_of_each_half() -> None:
    model = build()
    assert model.window is not None
    torch.nn.init.zeros_(model.window.bias)
    torch.nn.init.zeros_(model.window.weight)
    mask = torch.ones(1, 64, dtype=torch.bool)
    states = torch.zeros(1, 64, 8).double()
    inside = []
    for place in range(64):
        states.zero_()[0, place, 0] = 1
        inside.append(model.segments(states, mask)[0, :, 0])
    found = torch.stack(inside, dim=1)  # [2, 64]
    assert found[0, 8:24].min() > 1.5 and found[1, 40:56].min() > 1.5
    assert found[0, :8].max() < 1.5 and found[0, 24:32].max() < 1.5 and found[0, 44:].max() < 0.01
    assert found[1, :20].max() < 0.01


def test_the_window_is_trained_and_moves() -> None:
    model = build().train()
    assert model.window is not None
    losses = model.losses(joint())
    for name in ("session", "search_session"):
        for gradient in torch.autograd.grad(losses[name], list(model.window.parameters()), retain_graph=True):
            assert (gradient.abs() > 1e-6).all(), name


def test_rows_too_short_for_two_segments_are_left_out() -> None:
    model = build().train()
    long, short = ROWS[5], [Row(2, [10], [], [11, 5, 6, 7]), Row(5, [], [], [18, 1, 3, 5])]
    alone = model.losses(joint([long], [3]))
    mixed = model.losses(joint([long, *short], [3, 4, 5]))
    for name in ("session", "search_session"):
        torch.testing.assert_close(mixed[name], alone[name])
    none = model.losses(joint(short, [4, 5]))
    assert none["session"].item() == none["search_session"].item() == 0
    torch.stack(list(none.values())).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_without_a_session_loss_there_is_no_window() -> None:
    model = build(session_weight=0)
    assert set(model.losses(joint())) == {"rec", "search"}
    assert not [name for name, _ in model.named_parameters() if name.startswith("window")]


# --- histories ------------------------------------------------------------------------------------------------------


def test_scores_and_losses_do_not_depend_on_padding_order_or_batch() -> None:
    model = build(MAX_ITEM_LIST_LENGTH=9, max_search_length=8).eval()
    batch = interaction(ROWS, QUERIES)
    padded = interaction(ROWS, QUERIES, 9, 8, 5)
    for encode, score in ((model.encode, model.score),
                          (model.encode_search, lambda s, i: model.score_search(s, batch["query_id"], i))):  # fmt: skip
        expected = score(encode(batch), candidates(ROWS))
        torch.testing.assert_close(score(encode(padded), candidates(ROWS)), expected)
        alone = encode(interaction(ROWS[3:4], QUERIES[3:4]))
        torch.testing.assert_close(score(alone, candidates(ROWS[3:4]))[0], expected[3])
    torch.testing.assert_close(model.losses(joint(ROWS, QUERIES, 9, 8, 5)), model.losses(joint()))
    torch.testing.assert_close(model.losses(joint(ROWS[::-1], QUERIES[::-1])), model.losses(joint()))


def test_full_histories_without_any_padding_train() -> None:
    row = Row(1, [3, 4, 5], [Search(1, [4, 5], 1), Search(2, [5, 6], 1)], [9, 2])
    losses = build().train().losses(joint([row], [3], 3, 2, 2))
    assert all(torch.isfinite(loss) for loss in losses.values())


def test_more_heads_than_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="n_heads"):
        build(n_heads=3)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract_without_session_loss(check: Callable[[ModelUnderTest], None], tmp_path: Path) -> None:
    check(ModelUnderTest(UnifiedSSR, tmp_path, {"session_weight": 0, "n_layers": 1}))
