"""SASRec at all positions against a slow reference, and what its docstring promises."""

from __future__ import annotations

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
from recbole_ser.model.sequential.sasrec_all import SASRecAll
from recbole_ser.testing import CHECKS, ModelUnderTest, train_step

CONFIG: dict[str, Any] = {**SIZES, "loss_type": "CE"}
USERS = [[3, 4, 5, 6, 7, 8, 9], [10], [12, 13, 14], [19, 20, 4, 22, 3], [28, 29]]  # of up to L + 1 items
HISTORIES = [[3, 4, 5, 6, 7, 8], [10], [12, 13, 14], [], [19, 20, 21, 22]]
CANDIDATES = [[9, 2, 3, 4], [11, 5, 6, 7], [15, 8, 9, 1], [18, 1, 3, 5], [23, 4, 8, 12]]


def training(rows: list[list[int]] = USERS, length: int = 7) -> Interaction:
    items = histories(rows, length)
    drawn = torch.randint(1, 30, (len(rows), 12, 3), generator=torch.Generator().manual_seed(4))[:, :length]
    last = torch.tensor([row[-1] for row in rows])
    return Interaction({"item_id_list": items, "item_id": last, "neg_item_id": drawn})


def build(**values: Any) -> SASRecAll:
    torch.manual_seed(0)
    return enlarged(SASRecAll({**CONFIG, **values}, fake_dataset()))


class Reference(TransformerReference):
    def __init__(self, weights: Weights) -> None:
        super().__init__(weights, fake_dataset(), CONFIG["n_heads"], True, torch.relu)

    def states(self, items: list[int]) -> list[Tensor]:
        inputs = [self.item(item) + self.weights["positions.weight"][place] for place, item in enumerate(items)]
        return self.encoder(inputs, CONFIG["n_layers"], causal=True)

    def loss(self, kind: str, negatives: Tensor) -> Tensor:
        terms = []
        for number, row in enumerate(USERS):
            for place in range(len(row) - 1):
                state = self.states(row[: place + 1])[-1]  # anew for each prefix: nothing later can be seen
                own = state @ self.item(row[place + 1])
                if kind == "CE":
                    powers = [torch.exp(state @ self.item(item)) for item in range(1, 30)]
                    terms.append(-torch.log(torch.exp(own) / sum(powers)))
                    continue
                others = [state @ self.item(item) for item in negatives[number, place + 1].tolist()]
                if kind == "BPR":
                    terms.append(sum(-torch.log(torch.sigmoid(own - other)) for other in others) / len(others))
                else:
                    wrong = sum(-torch.log(1 - torch.sigmoid(other)) for other in others)
                    terms.append((wrong - torch.log(torch.sigmoid(own))) / (1 + len(others)))
        return sum(terms) / len(terms)


def test_scores_equal_the_reference() -> None:
    model = build().eval()
    slow = Reference(weights_of(model))
    asked = Interaction({"item_id_list": histories(HISTORIES, 6)})
    scores = model.score(model.encode(asked), torch.tensor(CANDIDATES))
    for number, history in enumerate(HISTORIES):
        if history:
            state = slow.states(history)[-1]
            torch.testing.assert_close(scores[number], torch.stack([state @ slow.item(c) for c in CANDIDATES[number]]))
    assert (scores - scores[:, :1])[[0, 1, 2, 4], 1:].abs().min() > 1e-3, "candidates score the same"
    assert (scores[3] == 0).all(), "without history all items score the same"


@pytest.mark.parametrize("kind", ["CE", "BCE", "BPR"])
def test_losses_and_all_gradients_equal_the_reference(kind: str) -> None:
    model, batch = build(loss_type=kind).train(), training()
    weights = weights_of(model)
    expected = {"rec": Reference(weights).loss(kind, batch["neg_item_id"])}
    assert_equals_reference(model, model.losses(batch), expected, weights)


def test_a_step_of_training_is_one_down_the_gradient_of_the_reference() -> None:
    model, batch = build(), training()
    weights = weights_of(model)
    Reference(weights).loss("CE", batch["neg_item_id"]).backward()
    train_step(model, batch, torch.optim.SGD(model.parameters(), lr=0.1))
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(
            parameter, weights[name] - 0.1 * weights[name].grad, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("kind", ["CE", "BPR"])
def test_rows_of_one_item_teach_nothing(kind: str) -> None:
    model = build(loss_type=kind)
    both, alone = model.losses(training([[3, 4], [10]])), model.losses(training([[3, 4]]))
    torch.testing.assert_close(both, alone)
    loss = model.calculate_loss(training([[3], [10]]))
    loss.backward()
    assert loss == 0 and all(not p.grad.any() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    ("values", "complaint"), [({"loss_type": "MSE"}, "loss_type is 'MSE'"), ({"n_heads": 3}, "n_heads is 3")]
)
def test_wrong_settings_are_refused(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        SASRecAll({**CONFIG, **values}, fake_dataset())


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_contract_with_sampled_negatives(check: Callable[[ModelUnderTest], None], tmp_path: Path) -> None:
    check(ModelUnderTest(SASRecAll, tmp_path, {"loss_type": "BCE"}))
