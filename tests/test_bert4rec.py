"""BERT4Rec against a slow reference, and what its docstring promises."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from model_fakes import SIZES, assert_equals_reference, fake_dataset
from recbole.data.interaction import Interaction
from reference.transformer_reference import TransformerReference, Weights, enlarged, histories, weights_of
from torch import Tensor

from recbole_ser.errors import ConfigError
from recbole_ser.model.sequential.bert4rec import BERT4Rec
from recbole_ser.testing import CHECKS, ModelUnderTest, train_step

CONFIG: dict[str, Any] = {**SIZES, "loss_type": "CE", "mask_prob": 0.4, "last_item_prob": 0.3}
USERS = [[3, 4, 5, 6, 7, 8, 9], [10], [12, 13, 14], [19, 20, 4, 22, 3], [28, 29]]  # of up to L + 1 items
HISTORIES = [[3, 4, 5, 6, 7, 8], [10], [12, 13, 14], [], [19, 20, 21, 22]]
CANDIDATES = [[9, 2, 3, 4], [11, 5, 6, 7], [15, 8, 9, 1], [18, 1, 3, 5], [23, 4, 8, 12]]


def training(rows: list[list[int]] = USERS, length: int = 7, negatives: int = 3) -> Interaction:
    generator = torch.Generator().manual_seed(4)
    items = histories(rows, length)
    drawn = torch.randint(1, 30, (len(rows), 12, negatives), generator=generator)[:, :length]
    return Interaction(
        {"item_id_list": items, "item_id": torch.ones(len(rows), dtype=torch.int64), "neg_item_id": drawn}
    )


def asked(rows: list[list[int]] = HISTORIES, length: int = 6) -> Interaction:
    return Interaction({"item_id_list": histories(rows, length), "item_id": torch.ones(len(rows), dtype=torch.int64)})


def build(**values: Any) -> BERT4Rec:
    torch.manual_seed(0)
    return enlarged(BERT4Rec({**CONFIG, **values}, fake_dataset()))


class Reference(TransformerReference):
    def __init__(self, weights: Weights) -> None:
        super().__init__(weights, fake_dataset(), CONFIG["n_heads"], False, self.gelu)

    @staticmethod
    def gelu(vector: Tensor) -> Tensor:
        return vector * 0.5 * (1 + torch.erf(vector / math.sqrt(2)))

    def outputs(self, items: list[int | None]) -> list[Tensor]:
        """The output at every position; ``None`` is the mask."""
        inputs = []
        for place, item in enumerate(items):
            vector = self.weights["mask"] if item is None else self.item(item)
            inputs.append(self.norm("input_norm", vector + self.weights["positions.weight"][place]))
        states = self.encoder(inputs, CONFIG["n_layers"], causal=False)
        return [self.norm("output_norm", self.gelu(self.linear("output", state))) for state in states]

    def logit(self, output: Tensor, item: int) -> Tensor:
        return output @ self.item(item) + self.weights["item_bias"][item, 0]

    def loss(self, kind: str, rows: list[list[int]], masked: Tensor, negatives: Tensor) -> Tensor:
        terms = []
        for number, row in enumerate(rows):
            hidden = [bool(masked[number, place]) for place in range(len(row))]
            outputs = self.outputs([None if hide else item for item, hide in zip(row, hidden)])
            for place in (place for place, hide in enumerate(hidden) if hide):
                output, item = outputs[place], row[place]
                own = self.logit(output, item)
                if kind == "CE":
                    powers = [torch.exp(self.logit(output, other)) for other in range(1, 30)]
                    terms.append(-torch.log(torch.exp(own) / sum(powers)))
                    continue
                others = [self.logit(output, other) for other in negatives[number, place].tolist()]
                if kind == "BPR":
                    terms.append(sum(-torch.log(torch.sigmoid(own - other)) for other in others) / len(others))
                else:
                    wrong = sum(-torch.log(1 - torch.sigmoid(other)) for other in others)
                    terms.append((wrong - torch.log(torch.sigmoid(own))) / (1 + len(others)))
        return sum(terms) / len(terms)


# --- against the reference ------------------------------------------------------------------------------------------


def test_scores_equal_the_reference() -> None:
    model = build().eval()
    slow = Reference(weights_of(model))
    scores = model.score(model.encode(asked()), torch.tensor(CANDIDATES))
    for number, history in enumerate(HISTORIES):
        output = slow.outputs([*history, None])[-1]
        torch.testing.assert_close(scores[number], torch.stack([slow.logit(output, c) for c in CANDIDATES[number]]))
    assert (scores - scores[:, :1])[:, 1:].abs().min() > 1e-3, "candidates score the same"


@pytest.mark.parametrize("kind", ["CE", "BCE", "BPR"])
def test_losses_and_all_gradients_equal_the_reference(kind: str) -> None:
    model = build(loss_type=kind).train()
    batch = training()
    torch.manual_seed(3)
    masked = model.cloze(batch["item_id_list"] != 0)
    weights = weights_of(model)
    expected = {"rec": Reference(weights).loss(kind, USERS, masked, batch["neg_item_id"])}
    torch.manual_seed(3)
    assert_equals_reference(model, model.losses(batch), expected, weights)


def test_a_step_of_training_is_one_down_the_gradient_of_the_reference() -> None:
    model = build()
    batch = training()
    torch.manual_seed(3)
    weights = weights_of(model)
    Reference(weights).loss("CE", USERS, model.cloze(batch["item_id_list"] != 0), batch["neg_item_id"]).backward()
    torch.manual_seed(3)
    train_step(model, batch, torch.optim.SGD(model.parameters(), lr=0.1))
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(
            parameter, weights[name] - 0.1 * weights[name].grad, msg=lambda m, n=name: f"{n}: {m}"
        )


# --- the cloze ------------------------------------------------------------------------------------------------------


def drawn(rows: int = 20_000, length: int = 4, **values: Any) -> Tensor:
    """The masks of many rows of ``length`` items in 7 places."""
    torch.manual_seed(1)
    exists = (torch.arange(7) < length).expand(rows, -1)
    masked = BERT4Rec({**CONFIG, **values}, fake_dataset()).cloze(exists)
    assert not masked[:, length:].any()
    return masked[:, :length]


@pytest.mark.parametrize("length", [1, 4, 7])
def test_every_row_has_a_mask_and_every_position_its_probability(length: int) -> None:
    masked = drawn(length=length, last_item_prob=0.0)
    assert masked.any(dim=1).all()
    # As drawn, or, where none was, the only one: with probability 1 / length each.
    expected = 0.4 + 0.6**length / length
    torch.testing.assert_close(masked.double().mean(0), torch.full((length,), expected).double(), atol=0.015, rtol=0)
    sizes, others = masked.sum(dim=1), math.comb(length, 2) * 0.4**2 * 0.6 ** (length - 2) if length > 1 else 0.0
    assert (sizes == 2).double().mean().item() == pytest.approx(others, abs=0.015), "positions are independent"


def test_some_rows_have_their_last_item_masked_and_no_other() -> None:
    masked = drawn(mask_prob=1.0, last_item_prob=0.3)
    only_last = masked.sum(dim=1) == 1
    assert only_last.double().mean().item() == pytest.approx(0.3, abs=0.015)
    assert masked[only_last, -1].all() and masked[~only_last].all()
    assert (drawn(last_item_prob=1.0) == torch.tensor([False, False, False, True])).all()


def test_without_a_probability_one_position_of_a_row_is_masked() -> None:
    masked = drawn(mask_prob=0.0, last_item_prob=0.0)
    assert (masked.sum(dim=1) == 1).all()
    torch.testing.assert_close(masked.double().mean(0), torch.full((4,), 0.25).double(), atol=0.015, rtol=0)


def test_a_row_without_items_has_no_mask_and_counts_for_nothing() -> None:
    model = build(mask_prob=1.0, last_item_prob=0.0)
    assert not model.cloze(torch.zeros(2, 7, dtype=torch.bool)).any()
    torch.testing.assert_close(model.losses(training([[3, 4], []])), model.losses(training([[3, 4]])))


def test_masks_are_new_in_every_step() -> None:
    model = build().train()
    assert model.calculate_loss(training()) != model.calculate_loss(training())


# --- the model ------------------------------------------------------------------------------------------------------


def test_a_masked_item_is_not_seen() -> None:
    model = build()
    items = histories([[3, 4, 5], [3, 9, 5]], 7)
    masked = torch.tensor([[False, True, False, *[False] * 4]] * 2)
    first, second = model.states(items, masked)
    torch.testing.assert_close(first[:3], second[:3])
    first, second = model.states(items, ~masked & (items != 0))
    assert (first[:3] - second[:3]).abs().amin(dim=1).max() > 1e-3, "the other item is"


def test_every_position_sees_what_comes_later() -> None:
    model = build()
    first, second = model.states(histories([[3, 4, 5], [3, 4, 9]], 7), torch.zeros(2, 7, dtype=torch.bool))
    assert (first[0] - second[0]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["CE", "BCE"])
def test_losses_do_not_depend_on_padding(kind: str) -> None:
    model = build(MAX_ITEM_LIST_LENGTH=10, mask_prob=1.0, last_item_prob=0.0, loss_type=kind)
    torch.testing.assert_close(model.losses(training(length=7)), model.losses(training(length=11)))


def test_the_place_behind_a_full_history_is_learnt() -> None:
    model = build(mask_prob=1.0)
    model.calculate_loss(training()).backward()
    assert model.positions.weight.shape == (7, 8) and (model.positions.weight.grad.abs().sum(dim=1) > 0).all()


def test_the_mask_is_no_item() -> None:
    model = build()
    assert model.full_sort_predict(asked()).shape == (5, 30)
    assert model.mask.shape == (8,) and model.items.count == 30


def test_the_dropout_reaches_every_part() -> None:
    model = build(dropout_prob=0.5)
    assert model.dropout.cut == 2**15
    assert all(layer.attention.dropout.cut == layer.dropout.cut == 2**15 for layer in model.encoder.layers)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"mask_prob": 1.5}, "mask_prob is 1.5"),
        ({"last_item_prob": -0.1}, "last_item_prob is -0.1"),
        ({"loss_type": "MSE"}, "loss_type is 'MSE'"),
        ({"n_heads": 3}, "n_heads is 3"),
    ],
)
def test_wrong_settings_are_refused(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        BERT4Rec({**CONFIG, **values}, fake_dataset())


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_contract_with_sampled_negatives(check: Callable[[ModelUnderTest], None], tmp_path: Path) -> None:
    check(ModelUnderTest(BERT4Rec, tmp_path, {"loss_type": "BCE", "last_item_prob": 0.5}))


def test_of_a_large_catalogue_only_parts_of_the_logits_are_kept() -> None:
    model = BERT4Rec({**CONFIG, "mask_prob": 1.0, "last_item_prob": 0.0}, fake_dataset(items=60_001))
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.losses(training([[3, 4, 5, 6, 7, 8, 9]] * 10))  # 70 positions
    assert max(kept) < 16 * 60_000 < 70 * 60_000
