"""RecBole's own models: the adapted scores equal the model's, empty histories are readable, Pop counts exactly."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import load_dataset, write_toy
from recbole.data.interaction import Interaction
from recbole.model.general_recommender import BPR
from recbole.model.general_recommender import Pop as RecBolePop
from recbole.model.sequential_recommender import DIN, FPMC, BERT4Rec, SASRec, TransRec
from torch import nn
from training_fakes import ITEMS, FakeConfig, FakeTrainLoader, Toy, fake_dataset, histories

from recbole_ser.model import foreign
from recbole_ser.model.foreign import DOT_PRODUCT, candidate_scorer, with_history
from recbole_ser.model.general.pop import Pop

SIZES: dict[str, Any] = {
    "hidden_size": 8, "inner_size": 8, "n_layers": 1, "n_heads": 2, "hidden_dropout_prob": 0.2,
    "attn_dropout_prob": 0.2, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "initializer_range": 0.5,
    "loss_type": "BPR", "num_layers": 1, "dropout_prob": 0.2, "dropout_probs": [0.2, 0.2], "mask_ratio": 0.2, "step": 1,
    "weight": 0.5, "reg_weight": 0.01, "nv": 2, "nh": 2, "kernel_size": 3, "block_num": 1, "dilations": [1],
    "k_interests": 2, "prototype_size": 3, "interest_size": 2, "tau_ratio": 0.1, "reg_loss_ratio": 0.1, "alpha": 0.5,
    "order_len": 2, "high_order": 2, "pooling_type_layer_1": "max", "pooling_type_layer_2": "average",
}  # fmt: skip


def imported(path: str) -> type[Any]:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def spread(model: nn.Module) -> Any:
    """The model in evaluation mode with weights of size 1, so that scores differ by far more than the tolerance."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5, generator=generator)
    return model.eval()


def build(model_class: type[Any]) -> Any:
    return spread(model_class(FakeConfig(".", **SIZES), fake_dataset()))


def batch(rows: int = 9) -> Interaction:
    return Interaction(histories(rows, seed=4)[0])


def predicted(model: Any, interaction: Interaction, items: torch.Tensor) -> torch.Tensor:
    """``[B, C]`` from the model's own ``predict``, one column at a time."""
    columns = [model.predict(Interaction({**interaction.interaction, "item_id": column})) for column in items.t()]
    return torch.stack(columns, dim=1)


@torch.no_grad()
def assert_scores_as_the_model_does(model: Any, interaction: Interaction, n_items: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    items = torch.randint(1, n_items, (len(interaction), 4), generator=generator)
    scorer = candidate_scorer(model)
    state = scorer.encode(interaction)
    scores = scorer.score(state, items)
    expected = predicted(model, interaction, items)
    assert expected.std() > 1e-3
    torch.testing.assert_close(scores, expected.to(scores.dtype), atol=1e-5, rtol=1e-5)
    catalogue = torch.tensor([3, 1, 5])
    torch.testing.assert_close(
        scorer.score_catalogue(state, catalogue),
        scorer.score(state, catalogue.expand(len(interaction), -1)),
        atol=1e-5,
        rtol=1e-5,
    )
    return scores


@pytest.mark.parametrize("path", DOT_PRODUCT)
def test_dot_products_equal_predict(path: str) -> None:
    model = build(imported(path))
    assert type(candidate_scorer(model)).__name__ == "_DotProduct"
    assert_scores_as_the_model_does(model, batch(), ITEMS)
    scorer = candidate_scorer(model)
    with torch.no_grad():
        everything = scorer.score_catalogue(scorer.encode(batch()), torch.arange(ITEMS))
        torch.testing.assert_close(everything, model.full_sort_predict(batch()).view(9, -1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("model_class", [BPR, FPMC, TransRec, BERT4Rec], ids=lambda cls: cls.__name__)
def test_full_sorts_equal_predict(model_class: type[Any]) -> None:
    model = build(model_class)
    assert candidate_scorer(model).scores_per_row == ITEMS
    assert_scores_as_the_model_does(model, batch(), ITEMS)


def test_a_subclass_is_not_taken_for_the_dot_product_of_its_parent() -> None:
    class Biased(SASRec):
        def full_sort_predict(self, interaction: Interaction) -> torch.Tensor:
            return super().full_sort_predict(interaction) + torch.arange(self.n_items)

        def predict(self, interaction: Interaction) -> torch.Tensor:
            return super().predict(interaction) + interaction["item_id"]

    assert_scores_as_the_model_does(build(Biased), batch(), ITEMS)


@pytest.mark.parametrize("pairs", [4096, 7])
def test_din_is_scored_in_pairs_and_by_logits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pairs: int) -> None:
    monkeypatch.setattr(foreign, "PAIRS_AT_ONCE", pairs)
    write_toy(tmp_path)
    dataset = load_dataset(tmp_path, "toy", "recbole.model.sequential_recommender:DIN", MAX_ITEM_LIST_LENGTH=3)
    model = spread(DIN(dataset.config, dataset))
    columns, _ = histories(6, seed=5)
    columns = {name: column % 3 if name == "user_id" else column % 8 for name, column in columns.items()}
    scorer, items = candidate_scorer(model), torch.tensor([[1, 2, 3, 4, 5]] * 6)
    with torch.no_grad():
        logits = scorer.score(scorer.encode(Interaction(columns)), items)
        expected = predicted(model, Interaction(columns), items)
    assert expected.std() > 1e-3
    torch.testing.assert_close(torch.sigmoid(logits), expected, atol=1e-5, rtol=1e-5)
    assert logits.min() < 0


def test_a_model_of_this_package_is_its_own_scorer() -> None:
    model = build(Toy)
    assert candidate_scorer(model) is model
    interaction = batch()
    assert with_history(model, interaction) is interaction


@pytest.mark.parametrize(
    "model_class", [*map(imported, DOT_PRODUCT), FPMC, TransRec, BERT4Rec], ids=lambda cls: cls.__name__
)
def test_an_empty_history_is_one_padding_item(model_class: type[Any]) -> None:
    empty = batch()
    empty["item_id_list"][3] = 0
    empty["item_length"][3] = 0
    padded = Interaction({**empty.interaction, "item_length": empty["item_length"].clamp(min=1)})
    scorer, items = candidate_scorer(build(model_class)), torch.arange(1, 6).expand(9, -1)
    with torch.no_grad():
        scores = scorer.score(scorer.encode(empty), items)
        assert torch.isfinite(scores).all()
        assert torch.equal(scores, scorer.score(scorer.encode(padded), items))
    assert empty["item_length"][3] == 0, "the loader's batch was changed"


def counted(model: Any, batch_size: int) -> torch.Tensor:
    loader = FakeTrainLoader(negatives=None, batch_size=batch_size)
    loader.set_epoch(0)
    for interaction in loader:
        model.calculate_loss(interaction)
    return model.item_cnt[:, 0]


def test_pop_counts_every_interaction_once_whatever_the_batch_size() -> None:
    expected = FakeTrainLoader().columns["item_id"].bincount(minlength=ITEMS)
    for batch_size in (1, 8, 40):
        assert torch.equal(counted(Pop(FakeConfig("."), fake_dataset()), batch_size), expected)
    assert not torch.equal(counted(RecBolePop(FakeConfig("."), fake_dataset()), 40), expected)


def test_pop_scores_equal_predict() -> None:
    model = Pop(FakeConfig("."), fake_dataset())
    counted(model, 8)
    assert_scores_as_the_model_does(model.eval(), batch(), ITEMS)
