"""DIN against a slow reference, and what its docstring promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from model_fakes import ROWS, assert_equals_reference, candidates, fake_dataset, interaction
from reference.din_reference import DINReference, cross_entropy
from reference.sesrec_reference import Row
from torch import Tensor

from recbole_ser.errors import ConfigError
from recbole_ser.model.search_aware.din import DIN
from recbole_ser.testing import CHECKS, ModelUnderTest

CONFIG: dict[str, Any] = {
    "USER_ID_FIELD": "user_id", "ITEM_ID_FIELD": "item_id", "LIST_SUFFIX": "_list", "NEG_PREFIX": "neg_",
    "ITEM_LIST_LENGTH_FIELD": "item_length", "MAX_ITEM_LIST_LENGTH": 6, "device": "cpu",
    "embedding_size": 5, "item_attribute_size": 3, "query_embedding_size": 4, "term_embedding_size": 3,
    "hidden_size": 8, "search_pools": False, "attention_hidden_size": [6, 5], "mlp_hidden_size": [12, 7],
    "dropout_prob": 0.0,
}  # fmt: skip
VARIANTS = pytest.mark.parametrize("search_pools", [False, True], ids=["interactions", "search pools"])


def build(seed: int = 0, **values: Any) -> DIN:
    """A model with weights so large that nothing in it is nearly linear or nearly zero."""
    torch.manual_seed(seed)
    model = DIN({**CONFIG, **values}, fake_dataset())
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.3, 2)
            elif value.is_floating_point():
                value.add_(torch.randn_like(value) * (0.2 if value.dim() == 1 else 0.4))
            if name.endswith(("ids.weight", "table.weight")):
                value[0] = 0
    return model


def reference(model: DIN, search_pools: bool) -> tuple[DINReference, dict[str, Tensor]]:
    weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
    for name, _ in model.named_parameters():
        weights[name].requires_grad_()
    config = {**CONFIG, "search_pools": search_pools}
    return DINReference(weights, fake_dataset(), config, model.training), weights


@VARIANTS
@pytest.mark.parametrize("training", [False, True], ids=["running statistics", "batch statistics"])
def test_scores_loss_and_all_gradients_equal_the_reference(search_pools: bool, training: bool) -> None:
    model = build(search_pools=search_pools).double().train(training)
    slow, weights = reference(model, search_pools)
    expected = slow.scores(ROWS)
    scores = model.score(model.encode(interaction(ROWS)), candidates(ROWS))
    torch.testing.assert_close(scores, torch.stack([torch.stack(row) for row in expected]))
    assert (scores - scores[:, :1])[:, 1:].abs().min() > 1e-3, "candidates score the same"
    assert_equals_reference(model, model.losses(interaction(ROWS)), {"rec": cross_entropy(expected)}, weights)


@VARIANTS
def test_training_updates_the_statistics_of_valid_events_alone(search_pools: bool) -> None:
    model = build(search_pools=search_pools).double().train()
    statistics = []
    for sizes in ((6, 5, 3), (9, 8, 5)):
        fresh = build(search_pools=search_pools).double().train()
        fresh.calculate_loss(interaction(ROWS, *sizes))
        statistics.append({name: value for name, value in fresh.state_dict().items() if "running" in name})
    for name, value in statistics[0].items():
        torch.testing.assert_close(value, statistics[1][name])
        assert not torch.equal(value, model.state_dict()[name])


def test_the_search_history_counts_only_with_search_pools() -> None:
    without = [Row(row.user, row.items, [], row.candidates) for row in ROWS]
    for search_pools in (False, True):
        model = build(search_pools=search_pools).eval()
        with torch.no_grad():
            changes = [
                (model.score(model.encode(interaction([row])), candidates([row])) - model.score(
                    model.encode(interaction([other])), candidates([other])
                )).abs().max().item()
                for row, other in zip(ROWS, without)
                if row.searches
            ]  # fmt: skip
        assert (min(changes) > 1e-3) if search_pools else (max(changes) == 0)


def test_without_search_pools_there_is_no_query_and_one_pool() -> None:
    names = {
        search_pools: set(dict(build(search_pools=search_pools).named_parameters())) for search_pools in (False, True)
    }
    extra = {name.split(".")[0] + "." + name.split(".")[1] for name in names[True] - names[False]}
    assert extra == {"queries.ids", "queries.attributes", "queries.projection", "units.1", "units.2"}
    assert build(search_pools=True).mlp.first.in_features - build().mlp.first.in_features == 2 * 8


def test_a_longer_history_of_the_same_weighs_more() -> None:
    model = build().double().eval()
    targets = model.items(torch.tensor([[9, 2]]))
    pools = [
        model.units[0](model.items(history), history != 0, targets)
        for history in (torch.tensor([[4, 5]]), torch.tensor([[4, 5, 4, 5]]))
    ]
    torch.testing.assert_close(2 * pools[0], pools[1])


@VARIANTS
def test_rows_without_any_history_get_finite_scores_and_gradients(search_pools: bool) -> None:
    model = build(search_pools=search_pools).train()
    rows = [ROWS[4], Row(7, [], [], [9, 3, 4, 5])]
    model.calculate_loss(interaction(rows)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name
    model.eval()
    scores = model.score(model.encode(interaction(rows)), candidates(rows))
    torch.testing.assert_close(scores[0, 2], scores[1, 1])  # item 3, and nothing known of either user


def test_the_dropout_is_that_of_the_mlp() -> None:
    model = build(dropout_prob=0.5).train()
    state, items = model.encode(interaction(ROWS)), candidates(ROWS)
    assert not torch.equal(model.score(state, items), model.score(state, items))


def test_search_pools_is_a_truth_value() -> None:
    with pytest.raises(ConfigError, match="search_pools is 'queries': it must be true or false"):
        DIN({**CONFIG, "search_pools": "queries"}, fake_dataset())


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_contract_with_search_pools(check: Any, tmp_path: Path) -> None:
    check(ModelUnderTest(DIN, tmp_path, {"search_pools": True}))
