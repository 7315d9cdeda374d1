"""Every model of this package keeps the contract, and the contract notices models that do not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from recbole.model.sequential_recommender import SASRec
from torch import Tensor, nn

from recbole_ser import testing
from recbole_ser.errors import ConfigError
from recbole_ser.model import base, losses
from recbole_ser.model.base import SearchRecommender
from recbole_ser.registry import MODELS
from recbole_ser.testing import CHECKS, ModelUnderTest

OURS = sorted(name for name, spec in MODELS.items() if issubclass(spec.load(), SearchRecommender))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("model", OURS)
def test_contract(model: str, check: Callable[[ModelUnderTest], None], tmp_path: Path) -> None:
    check(ModelUnderTest(model, tmp_path))


@pytest.mark.parametrize("model", [model for model in OURS if model != "SRJGraph"])  # which refuses it
def test_the_softmax_over_all_items_is_the_same_in_parts_and_whole(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_test = ModelUnderTest(model, tmp_path, {"loss_type": "CE"})
    batch, results = under_test.training_batch(), {}
    for part in (1 << 30, 700):
        monkeypatch.setattr(losses, "LOGITS_AT_ONCE", part)
        monkeypatch.setattr(losses, "FEWEST_ROWS", 1)
        monkeypatch.setattr(base, "PAIRS_AT_ONCE", part)
        network = under_test.build()  # without dropout
        loss = network.losses(batch)["rec"]
        loss.backward()
        results[part] = [loss.detach(), *(p.grad for p in network.parameters() if p.grad is not None)]
    for whole, in_parts in zip(*results.values(), strict=True):
        torch.testing.assert_close(in_parts, whole, rtol=1e-4, atol=1e-5)
    if model == "QuerySeqRec" or network.trains_on == "users":  # more positions than the last are predicted
        return
    logits = network.full_sort_predict(batch)[:, 1 : under_test.dataset.target_num]
    torch.testing.assert_close(results[700][0], nn.functional.cross_entropy(logits, batch["item_id"] - 1).detach())


@pytest.mark.parametrize("model", [name for name in OURS if hasattr(MODELS[name].load(), "score_catalogue")])
def test_the_way_to_score_a_catalogue_has_the_gradients_of_scoring_candidates(model: str, tmp_path: Path) -> None:
    under_test = ModelUnderTest(model, tmp_path)
    (batch, _), network = under_test.evaluation_batch(), under_test.build().double()
    items = torch.arange(1, under_test.dataset.item_num)
    results = []
    for fast in (True, False):
        network.zero_grad()
        state = network.encode(batch)
        scores = network.score_catalogue(state, items) if fast else network.score(state, items.expand(len(batch), -1))
        (scores.softmax(dim=1) * torch.linspace(-1, 1, len(items))).sum().backward()
        results.append([scores.detach(), *(p.grad.clone() for p in network.parameters() if p.grad is not None)])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("model", OURS)
def test_the_pairwise_loss(model: str, tmp_path: Path) -> None:
    under_test = ModelUnderTest(model, tmp_path, {"loss_type": "BPR"})
    network, batch = under_test.build(), under_test.training_batch()
    loss = network.losses(batch)["rec"]
    if model != "QuerySeqRec" and network.trains_on != "users":
        logits = network.score(network.encode(batch), network.training_items(batch))
        expected = -(logits[:, :1] - logits[:, 1:]).sigmoid().log().mean()
        torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-6)
    assert loss.isfinite() and loss.requires_grad


class Mean(SearchRecommender):
    """The mean of the items in both histories, dotted with the candidate: a model that keeps the contract."""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.items = nn.Embedding(self.n_items, 16, padding_idx=0)
        self.bias = nn.Embedding(self.n_items, 1)

    def encode(self, interaction: Any) -> Tensor:
        seen = torch.cat([interaction["item_id_list"], interaction["search_click_list"].flatten(1)], dim=1)
        return self.items(seen).sum(1) / (seen != 0).sum(1, keepdim=True).clamp(min=1)

    def score(self, state: Tensor, items: Tensor) -> Tensor:
        return (self.items(items) @ state.unsqueeze(2)).squeeze(2) + self.bias(items).squeeze(2)


class UnusedParameter(Mean):
    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.forgotten = nn.Linear(2, 2)


class MeanOverPadding(Mean):
    def encode(self, interaction: Any) -> Tensor:
        seen = interaction["item_id_list"]
        return self.items(seen).mean(1)


class DividesByZero(Mean):
    def encode(self, interaction: Any) -> Tensor:
        seen = interaction["item_id_list"]
        return self.items(seen).sum(1) / (seen != 0).sum(1, keepdim=True)


class ComparesRows(Mean):
    def encode(self, interaction: Any) -> Tensor:
        state = super().encode(interaction)
        return state - state.mean(0)


class Probabilities(Mean):
    def score(self, state: Tensor, items: Tensor) -> Tensor:
        return super().score(state, items).sigmoid()


class RanksCandidates(Mean):
    def score(self, state: Tensor, items: Tensor) -> Tensor:
        return super().score(state, items).softmax(1) * 10


class RemembersTooLong(Mean):
    table: Tensor | None = None

    def score(self, state: Tensor, items: Tensor) -> Tensor:
        if self.training:
            return super().score(state, items)
        if self.table is None:
            self.table = self.items.weight.detach().clone()
        return (self.table[items] @ state.unsqueeze(2)).squeeze(2)


class KeepsWeightsOutside(Mean):
    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.seen = torch.zeros(self.n_items)

    def encode(self, interaction: Any) -> Tensor:
        if self.training:
            self.seen[interaction["item_id"]] += 1
        return super().encode(interaction)

    def score(self, state: Tensor, items: Tensor) -> Tensor:
        return super().score(state, items) + self.seen[items]


class ReadsTheFuture(Mean):
    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.register_buffer("popularity", torch.bincount(dataset.log.items, minlength=self.n_items).float())

    def score(self, state: Tensor, items: Tensor) -> Tensor:
        return super().score(state, items) + self.popularity[items]


class CannotLearn(Mean):
    def score(self, state: Tensor, items: Tensor) -> Tensor:
        return super().score(state, items) * 1e-6


class Unseeded(Mean):
    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        torch.seed()
        nn.init.normal_(self.items.weight)


@pytest.mark.parametrize("model", ["SASRec", "Pop", SASRec])
def test_models_without_what_is_checked_are_refused_in_one_line(model: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^the contract is that of SearchRecommender, and \w+ is none: .*$"):
        ModelUnderTest(model, tmp_path)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_simple_model_of_ones_own_passes(check: Callable[[ModelUnderTest], None], tmp_path: Path) -> None:
    check(ModelUnderTest(Mean, tmp_path))


@pytest.mark.parametrize(
    ("model", "check"),
    [
        (UnusedParameter, testing.losses_and_gradients_are_finite),
        (DividesByZero, testing.losses_and_gradients_are_finite),
        (DividesByZero, testing.scores_are_finite_logits),
        (Probabilities, testing.scores_are_finite_logits),
        (MeanOverPadding, testing.scores_do_not_depend_on_padding),
        (ComparesRows, testing.scores_do_not_depend_on_the_batch),
        (RanksCandidates, testing.scores_do_not_depend_on_the_batch),
        (RemembersTooLong, testing.nothing_is_remembered_when_training_goes_on),
        (KeepsWeightsOutside, testing.weights_carry_everything),
        (Unseeded, testing.the_same_seed_gives_the_same_weights),
        (ReadsTheFuture, testing.held_out_events_do_not_reach_training),
        (CannotLearn, testing.a_few_users_can_be_overfitted),
    ],
    ids=lambda value: value.__name__,
)
def test_a_model_that_breaks_the_contract_is_noticed(
    model: type[SearchRecommender], check: Callable[[ModelUnderTest], None], tmp_path: Path
) -> None:
    with pytest.raises(AssertionError):
        check(ModelUnderTest(model, tmp_path))
