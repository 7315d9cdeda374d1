"""IV4REC and IV4REC+ against a slow reference, and what their docstring promises."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from model_fakes import ROWS, assert_equals_reference, candidates, interaction
from model_fakes import fake_dataset as fake_dataset_without_clicks
from reference.iv4rec_reference import IV4RECReference
from reference.sesrec_reference import Row
from torch import Tensor

from recbole_ser.data.dataset import SERDataset
from recbole_ser.data.relations import TrainingClicks
from recbole_ser.errors import ConfigError
from recbole_ser.model.search_aware.iv4rec import IV4REC, projected, queries_of_items
from recbole_ser.testing import CHECKS, ModelUnderTest, score, with_other_held_out_events

CONFIG: dict[str, Any] = {
    "USER_ID_FIELD": "user_id", "ITEM_ID_FIELD": "item_id", "LIST_SUFFIX": "_list", "NEG_PREFIX": "neg_",
    "ITEM_LIST_LENGTH_FIELD": "item_length", "MAX_ITEM_LIST_LENGTH": 6, "device": "cpu",
    "embedding_size": 5, "item_attribute_size": 3, "query_embedding_size": 4, "term_embedding_size": 3,
    "hidden_size": 8, "variant": "projection", "queries_per_item": 3, "gate_hidden_size": [7, 6], "dropout_prob": 0.0,
    "attention_hidden_size": [6, 5], "mlp_hidden_size": [12, 7], "n_heads": 2, "lambda_i": 0.7, "lambda_u": 0.4,
}  # fmt: skip
QUERIES = {
    3: [1], 4: [2, 1, 3], 5: [5], 6: [4, 6], 7: [8, 9, 10], 9: [1], 10: [11], 12: [2, 7], 13: [3], 19: [1, 2, 4],
    2: [6], 11: [5, 3], 16: [1], 23: [4], 26: [10, 2], 8: [9],
}  # fmt: skip
VARIANTS = ("projection", "regression_item", "regression_user_item")
EACH_VARIANT = pytest.mark.parametrize("variant", VARIANTS)


def fake_dataset() -> SimpleNamespace:
    """``QUERIES`` are what led to each item, the first ones more often."""
    dataset = fake_dataset_without_clicks()
    clicks = [(q, i) for i, queries in QUERIES.items() for n, q in enumerate(queries) for _ in range(4 - n)]
    queries, items = torch.tensor(clicks).unbind(dim=1)
    dataset.training_clicks = TrainingClicks(torch.ones_like(items), torch.zeros_like(items), queries, items)
    return dataset


def build(seed: int = 0, scale: float = 1.0, **values: Any) -> IV4REC:
    """A model with weights so large that nothing in it is nearly linear or nearly zero."""
    torch.manual_seed(seed)
    model = IV4REC({**CONFIG, **values}, fake_dataset())
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.3, 2)
            elif value.is_floating_point():
                value.add_(torch.randn_like(value) * (0.2 if value.dim() == 1 else 0.4) * scale)
            if name.endswith(("ids.weight", "table.weight")):
                value[0] = 0
    return model


def reference(model: IV4REC, **values: Any) -> tuple[IV4RECReference, dict[str, Tensor]]:
    weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
    for name, _ in model.named_parameters():
        weights[name].requires_grad_()
    return IV4RECReference(weights, fake_dataset(), {**CONFIG, **values}, model.training, QUERIES), weights


def summed(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


# --- against the reference --------------------------------------------------------------------------------------------


@EACH_VARIANT
@pytest.mark.parametrize("training", [False, True], ids=["running statistics", "batch statistics"])
def test_scores_losses_and_all_gradients_equal_the_reference(
    variant: str, training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recbole_ser.model.search_aware.iv4rec.RIDGE", 1e-13)  # the reference has none
    monkeypatch.setattr("recbole_ser.model.search_aware.iv4rec.TINY", 1e-16)
    model = build(variant=variant).double().train(training)
    slow, weights = reference(model, variant=variant)
    expected, expected_losses = slow.results(ROWS)
    scores = model.score(model.encode(interaction(ROWS)), candidates(ROWS))
    torch.testing.assert_close(scores, torch.stack([torch.stack(row) for row in expected]))
    assert (scores - scores[:, :1])[:, 1:].abs().min() > 1e-3, "candidates score the same"
    losses = model.losses(interaction(ROWS))
    names = {"projection": [], "regression_item": ["item_regression"]}
    assert set(losses) == {"rec", *names.get(variant, ["item_regression", "user_regression"])}
    assert_equals_reference(model, losses, expected_losses, weights)


@EACH_VARIANT
def test_losses_do_not_depend_on_padding(variant: str) -> None:
    model = build(variant=variant).double().train()
    results = []
    for sizes in ((6, 5, 3), (9, 8, 5)):
        model.zero_grad()
        losses = model.losses(interaction(ROWS, *sizes))
        summed(losses).backward()
        results.append([*losses.values(), *(parameter.grad.clone() for parameter in model.parameters())])
    for first, second in zip(*results):
        torch.testing.assert_close(first, second)


# --- the projection ---------------------------------------------------------------------------------------------------


def random_projections(queries: int) -> tuple[Tensor, Tensor]:
    """Vectors and what spans their subspaces; some with fewer queries than there is room for, or none."""
    torch.manual_seed(0)
    vectors, spanning = torch.randn(20, 8, dtype=torch.double), torch.randn(20, queries, 8, dtype=torch.double)
    spanning[5:10, queries // 2 :] = 0
    return vectors, spanning


@pytest.mark.parametrize("queries", [1, 2, 5, 8, 11])
def test_the_projection_is_that_of_the_pseudo_inverse(queries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recbole_ser.model.search_aware.iv4rec.RIDGE", 1e-12)
    vectors, spanning = random_projections(queries)
    for vector, columns, ours in zip(vectors, spanning.transpose(1, 2), projected(vectors, spanning)):
        torch.testing.assert_close(ours, columns @ (torch.linalg.pinv(columns) @ vector), rtol=0, atol=1e-6)


@pytest.mark.parametrize("queries", [1, 2, 5, 8, 11])
def test_the_ridge_shrinks_only_directions_that_hardly_any_query_has(queries: int) -> None:
    vectors, spanning = random_projections(queries)
    for vector, columns, ours in zip(vectors, spanning.transpose(1, 2), projected(vectors, spanning)):
        directions = columns / columns.norm(dim=0).clamp(min=1e-30)
        left, values, _ = torch.linalg.svd(directions, full_matrices=False)
        squares = values**2
        shares = squares / ((1 - 1e-5) * squares + 1e-5)
        torch.testing.assert_close(ours, left @ (shares * (left.t() @ vector)))
        if queries == 1:
            torch.testing.assert_close(ours, columns @ (torch.linalg.pinv(columns) @ vector))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dependent_equal_and_more_queries_than_dimensions_span_what_they_span(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    a, b, vector = torch.randn(3, 8, dtype=dtype)
    sets = {"equal": [a, a], "parallel": [a, -3 * a, 0 * a], "dependent": [a, b, a + b], "scales": [1e-3 * a, 1e3 * b]}
    for name, columns in sets.items():
        spanning = torch.stack(columns).requires_grad_()
        ours = projected(vector.unsqueeze(0), spanning.unsqueeze(0))[0]
        basis = torch.linalg.qr(torch.stack([a] if name in ("equal", "parallel") else [a, b], dim=1)).Q
        torch.testing.assert_close(
            ours, basis @ (basis.t() @ vector), rtol=0, atol=1e-3, msg=lambda m, n=name: f"{n}: {m}"
        )
        ours.square().sum().backward()
        assert torch.isfinite(spanning.grad).all(), name
    everything = projected(vector.unsqueeze(0), torch.randn(1, 30, 8, dtype=dtype))
    torch.testing.assert_close(everything[0], vector, rtol=0, atol=1e-3)


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-9, 1e-4])
def test_zero_and_tiny_queries_give_finite_projections_and_gradients(size: float) -> None:
    torch.manual_seed(0)
    vectors = torch.randn(4, 8, requires_grad=True)
    spanning = torch.randn(4, 3, 8)
    spanning[0] *= size  # all of them
    spanning[1, 1:] *= size  # some
    spanning[2, 0] *= size
    spanning.requires_grad_()
    fitted = projected(vectors, spanning)
    fitted.square().sum().backward()
    for values in (fitted, vectors.grad, spanning.grad):
        assert torch.isfinite(values).all()
    assert (fitted.norm(dim=1) <= vectors.norm(dim=1) * 1.001).all()
    if size < 1e-20:
        assert fitted[0].abs().max() < 1e-6
        torch.testing.assert_close(
            fitted[1], spanning[1, 0] * (spanning[1, 0] @ vectors[1] / spanning[1, 0].square().sum())
        )


def test_the_projection_keeps_its_precision_under_autocast() -> None:
    torch.manual_seed(0)
    vectors, spanning = torch.randn(9, 8), torch.randn(9, 3, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(projected(vectors, spanning), projected(vectors, spanning))
        lowered = projected(vectors.bfloat16(), spanning.bfloat16())
    torch.testing.assert_close(lowered, projected(vectors, spanning), rtol=0.1, atol=0.1)
    model = build(scale=0.5).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model.calculate_loss(interaction(ROWS))
    loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_without_queries_the_fitted_part_is_zero() -> None:
    model = build(variant="projection").double().eval()
    ids = torch.tensor([27, 3])  # no query led to 27
    treatment = model.projection.treatment(model.items(ids))
    first = torch.sigmoid(model.projection.gates[0](torch.cat([treatment, torch.zeros_like(treatment)], dim=1)))
    expected = first * treatment
    vectors = model.reconstructed(ids)
    torch.testing.assert_close(vectors[0], expected[0])
    assert (vectors[1] - expected[1]).abs().max() > 1e-3


def test_the_gates_stay_between_those_of_minus_one_and_one() -> None:
    model = build(scale=5.0)
    values = torch.randn(500, 16) * 10
    for gate in model.projection.gates:
        weights = torch.sigmoid(gate(values))
        assert 0.2689 < weights.min() < 0.3 and 0.7 < weights.max() < 0.7311


# --- queries of items -------------------------------------------------------------------------------------------------


def test_the_map_counts_the_clicks_of_the_training_period(tmp_path: Path) -> None:
    under_test = ModelUnderTest(IV4REC, tmp_path)
    dataset = under_test.dataset
    counts: dict[int, Counter[int]] = defaultdict(Counter)
    log, late = dataset.log, 0
    held_out = {int(log.users[target]): int(target) for target in dataset.split.valid}
    for user in range(dataset.user_num):
        for search in range(int(log.search_start[user]), int(log.search_start[user + 1])):
            if user in held_out and search >= int(log.searches_before[held_out[user]]):
                late += 1
                continue
            for click in range(int(log.click_start[search]), int(log.click_start[search + 1])):
                counts[int(log.clicks[click])][int(log.queries[search])] += 1
    assert late, "no search comes after a validation target"
    for width in (1, 2, 50):
        table = queries_of_items(dataset, width)
        assert table.shape[1] == min(width, max(len(queries) for queries in counts.values()))
        for item in range(dataset.item_num):
            ordered = sorted(counts[item], key=lambda query: (-counts[item][query], query))[:width]
            assert table[item][table[item] != 0].tolist() == ordered
            assert (table[item, len(ordered) :] == 0).all()


def test_searches_from_the_validation_target_on_leave_the_map_as_it_is(tmp_path: Path) -> None:
    under_test = ModelUnderTest(IV4REC, tmp_path)
    first = under_test.dataset
    second = under_test.load("altered", with_other_held_out_events(under_test))
    assert not torch.equal(first.log.clicks, second.log.clicks) and not torch.equal(
        first.log.queries, second.log.queries
    )
    assert torch.equal(queries_of_items(first, 10), queries_of_items(second, 10))
    assert leaky_table(first) != leaky_table(second), "the altered searches would not show in a map of all of them"


def leaky_table(dataset: SERDataset) -> list[list[int]]:
    log = dataset.log
    searches = log.searches_of_clicks(torch.arange(len(log.clicks)))
    everything = TrainingClicks(searches, searches, log.queries[searches].long(), log.clicks.long())
    return queries_of_items(SimpleNamespace(training_clicks=everything, item_num=dataset.item_num), 10).tolist()


def test_the_map_is_no_part_of_the_weights_and_has_no_more_columns_than_asked_for() -> None:
    model = build(queries_per_item=2)
    assert "item_queries" not in model.state_dict() and model.item_queries.shape == (30, 2)
    assert model.item_queries[4].tolist() == [2, 1]
    assert build(queries_per_item=9).item_queries.shape == (30, 3)


def test_without_training_clicks_everything_is_finite() -> None:
    dataset = fake_dataset()
    nothing = torch.zeros(0, dtype=torch.int64)
    dataset.training_clicks = TrainingClicks(nothing, nothing, nothing, nothing)
    for variant in VARIANTS:
        model = IV4REC({**CONFIG, "variant": variant}, dataset).train()
        losses = model.losses(interaction(ROWS))
        summed(losses).backward()
        assert losses.get("item_regression", torch.zeros(())).item() == 0
        assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


# --- variants ---------------------------------------------------------------------------------------------------------


def test_each_variant_has_the_networks_it_needs_and_no_others() -> None:
    names = {v: {name.split(".")[0] for name, _ in build(variant=v).named_parameters()} for v in VARIANTS}
    common = {"items", "queries", "unit", "mlp"}
    assert names == {
        "projection": common | {"projection"},
        "regression_item": common | {"item_regression"},
        "regression_user_item": common | {"item_regression", "user_regression", "searches"},
    }


def test_only_the_users_variant_reads_the_search_history() -> None:
    row = ROWS[0]
    other = Row(row.user, row.items, [], row.candidates)
    for variant in VARIANTS:
        model = build(variant=variant).eval()
        both = [score(model, interaction([r]), candidates([r])) for r in (row, other)]
        assert torch.equal(*both) == (variant != "regression_user_item")


def test_the_regressions_do_not_pull_at_what_they_regress() -> None:
    model = build(variant="regression_user_item").double().train()
    losses = model.losses(interaction(ROWS))
    losses["item_regression"].backward(retain_graph=True)
    assert model.items.ids.weight.grad is None or not model.items.ids.weight.grad.any()
    assert model.queries.ids.weight.grad.any()
    losses["user_regression"].backward()
    assert model.items.ids.weight.grad is None or not model.items.ids.weight.grad.any()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in model.unit.parameters())


@pytest.mark.parametrize("name", ["lambda_i", "lambda_u"])
def test_the_weights_of_the_losses_multiply_them(name: str) -> None:
    loss = {"lambda_i": "item_regression", "lambda_u": "user_regression"}[name]
    for weight in (0.0, 2.0):
        model = build(variant="regression_user_item", **{name: weight})
        one = build(variant="regression_user_item", **{name: 1.0})
        losses, of_one = model.losses(interaction(ROWS)), one.losses(interaction(ROWS))
        torch.testing.assert_close(losses.pop(loss), weight * of_one.pop(loss))
        torch.testing.assert_close(losses, of_one)


@EACH_VARIANT
def test_users_with_neither_history_get_finite_scores_and_gradients(variant: str) -> None:
    model = build(variant=variant).train()
    rows = [ROWS[4], Row(7, [], [], [9, 3, 4, 5])]
    losses = model.losses(interaction(rows))
    assert losses.get("user_regression", torch.zeros(())).item() == 0
    summed(losses).backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())
    scores = score(model, interaction(rows), candidates(rows))
    torch.testing.assert_close(scores[0, 2], scores[1, 1])  # item 3, and nothing known of either user


@EACH_VARIANT
def test_each_item_is_decomposed_once_per_step_and_once_per_evaluation(
    variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(variant=variant)
    calls: list[Tensor] = []
    decompose = model.decompose
    monkeypatch.setattr(model, "decompose", lambda ids: calls.append(ids) or decompose(ids))
    model.train().losses(interaction(ROWS))
    mentioned = model.decomposed_items(interaction(ROWS)).unique()
    assert len(calls) == 1 and torch.equal(calls[0], mentioned)
    assert torch.isin(candidates(ROWS), mentioned).all()
    calls.clear()
    model.eval()
    for rows in (ROWS[:3], ROWS[3:]):
        with torch.no_grad():
            model.score(model.encode(interaction(rows)), candidates(rows))
    assert len(calls) == 1 and calls[0].tolist() == list(range(30))


def test_one_dropout_mask_serves_all_occurrences_of_an_item_in_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(dropout_prob=0.5).train()
    batch = interaction([Row(1, [3, 4, 3], [], [3, 5, 6, 3])])
    seen: list[Tensor] = []
    unit = model.unit.forward

    def spy(states: Tensor, mask: Tensor, targets: Tensor) -> Tensor:
        seen.extend([states, targets])
        return unit(states, mask, targets)

    monkeypatch.setattr(model.unit, "forward", spy)
    model.losses(batch)
    states, targets = seen
    assert torch.equal(states[0, 0], states[0, 2]) and torch.equal(states[0, 0], targets[0, 3])
    model.losses(batch)
    assert not torch.equal(states, seen[2])


@pytest.mark.parametrize(
    "values",
    [{"variant": "closed_form"}, {"queries_per_item": 0}, {"n_heads": 3, "variant": "regression_user_item"}],
    ids=lambda values: next(iter(values)),
)
def test_impossible_settings_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=str(next(iter(values.values())))):
        IV4REC({**CONFIG, **values}, fake_dataset())


@pytest.mark.parametrize("variant", VARIANTS[1:])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_contract_with_regressions(check: Any, variant: str, tmp_path: Path) -> None:
    check(ModelUnderTest(IV4REC, tmp_path, {"variant": variant}))
