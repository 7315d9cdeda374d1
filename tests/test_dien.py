"""DIEN against a slow reference, and what its docstring promises."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from model_fakes import ROWS, SIZES, assert_equals_reference, candidates, fake_dataset, interaction
from reference.dien_reference import DIENReference
from reference.sesrec_reference import Row
from torch import Tensor, nn

from recbole_ser.errors import ConfigError
from recbole_ser.model import base
from recbole_ser.model.sequential.dien import AUGRU, DIEN

CONFIG: dict[str, Any] = {
    **SIZES, "mlp_hidden_size": [12, 7], "auxiliary_weight": 0.7, "auxiliary_hidden_size": [9, 5],
}  # fmt: skip


def build(**values: Any) -> DIEN:
    """A model with weights so large that nothing in it is nearly linear or nearly zero."""
    torch.manual_seed(0)
    model = DIEN({**CONFIG, **values}, fake_dataset())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
            if name.endswith(("ids.weight", "table.weight")):
                parameter[0] = 0
    return model.double()


def reference(model: DIEN) -> tuple[DIENReference, dict[str, Tensor]]:
    weights = {name: value.detach().clone().requires_grad_() for name, value in model.named_parameters()}
    return DIENReference(weights, fake_dataset(), CONFIG), weights


def scores(model: DIEN, rows: list[Row], length: int = 6) -> Tensor:
    return model.score(model.encode(interaction(rows, length)), candidates(rows))


def test_scores_equal_the_reference() -> None:
    model = build().eval()
    slow, _ = reference(model)
    found = scores(model, ROWS)
    torch.testing.assert_close(found, torch.stack([torch.stack(slow.scores(row)) for row in ROWS]))
    assert (found - found[:, :1])[:, 1:].abs().min() > 1e-3, "candidates score the same"
    torch.testing.assert_close(scores(model, ROWS, length=9), found)
    torch.testing.assert_close(scores(model, ROWS[::-1]), found.flip(0))


@pytest.mark.parametrize("loss_type", ["BCE", "BPR", "CE", "CE in parts"])
def test_losses_and_all_gradients_equal_the_reference(loss_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if loss_type == "CE in parts":
        monkeypatch.setattr(base, "PAIRS_AT_ONCE", 50)
    model = build(loss_type=loss_type.split()[0]).train()
    slow, weights = reference(model)
    found = model.losses(interaction(ROWS))
    drawn = [row[: max(len(each.items) - 1, 0)] for row, each in zip(model.drawn.tolist(), ROWS)]
    assert all(negative for row in drawn for negative in row)
    expected = {"rec": slow.main_loss(ROWS, loss_type.split()[0]), "auxiliary": 0.7 * slow.auxiliary(ROWS, drawn)}
    # A bias of all logits alike is none of BPR's business, nor of the softmax's.
    assert_equals_reference(model, found, expected, weights, every_gradient=loss_type == "BCE")


def test_negatives_are_drawn_for_each_step_from_all_targets() -> None:
    dataset = fake_dataset()
    dataset.target_num = 20
    model = DIEN(CONFIG, dataset)
    batch = interaction(ROWS * 100)
    drawn = []
    for _ in range(2):
        model.losses(batch)
        drawn.append(model.drawn)
    following = batch["item_id_list"][:, 1:] != 0
    assert not torch.equal(*drawn)
    for negatives in drawn:
        assert torch.equal(negatives != 0, following)
        counts = negatives[following].bincount(minlength=20)
        assert len(counts) == 20 and counts[0] == 0
        share = counts[1:] / following.sum()
        assert (share - 1 / 19).abs().max() < 0.03


def test_histories_without_a_pair_have_no_auxiliary_loss() -> None:
    model = build().train()
    found = model.losses(interaction([row for row in ROWS if len(row.items) < 2]))
    assert found["auxiliary"].item() == 0
    found["auxiliary"].backward()
    assert all(p.grad is None or (p.grad == 0).all() for p in model.parameters())


def test_without_its_weight_there_is_no_auxiliary_network() -> None:
    model = build(auxiliary_weight=0.0).train()
    assert set(model.losses(interaction(ROWS))) == {"rec"}
    assert not any(name.startswith("auxiliary") for name, _ in model.named_parameters())


def test_a_user_without_history_has_no_interest_in_anything() -> None:
    model = build().eval()
    rows = [Row(3, [], [], [4, 5, 6]), Row(4, [7, 8], [], [4, 5, 6])]
    targets = model.items(torch.tensor([[4, 5, 6]]))  # [1, 3, d]
    expected = model.mlp(targets.new_empty(1, 0), torch.cat([torch.zeros_like(targets), targets], dim=2))
    torch.testing.assert_close(scores(model, rows)[:1], expected)
    torch.testing.assert_close(scores(model, rows[:1]), expected)


def test_augru_is_a_gru_if_all_weights_are_1_and_stays_at_0_if_they_are_0() -> None:
    torch.manual_seed(0)
    augru, gru = AUGRU(4).double(), nn.GRU(4, 4, batch_first=True).double()
    with torch.no_grad():  # update gates with the opposite sign keep what PyTorch's let go
        for ours, name in ((augru.input.weight, "weight_ih_l0"), (augru.recurrent.weight, "weight_hh_l0"),
                           (augru.input.bias, "bias_ih_l0")):  # fmt: skip
            update, reset, candidate = ours.chunk(3)
            getattr(gru, name).copy_(torch.cat([reset, -update, candidate]))
        gru.bias_hh_l0.zero_()
    events = torch.randn(3, 5, 4, dtype=torch.float64)
    lengths, running = [5, 2, 0], [2, 2, 1, 1, 1]
    ones = torch.ones(3, 2, 5, dtype=torch.float64)
    found = augru(augru.input(events), ones, running)
    for row, length in enumerate(lengths):
        last = gru(events[row, :length])[0][-1] if length else torch.zeros(4, dtype=torch.float64)
        torch.testing.assert_close(found[row], last.expand(2, 4))
    assert (augru(augru.input(events), 0 * ones, running) == 0).all()


def test_the_order_of_events_counts() -> None:
    model = build().eval()
    row = ROWS[0]
    backwards = Row(row.user, row.items[::-1], row.searches, row.candidates)
    assert (scores(model, [row]) - scores(model, [backwards])).abs().min() > 1e-3


def test_recurrent_weights_start_orthogonal_and_biases_at_0() -> None:
    model = DIEN(CONFIG, fake_dataset())
    for weight in (model.extraction.weight_hh_l0, model.evolution.recurrent.weight):
        for gate in weight.chunk(3):
            torch.testing.assert_close(gate @ gate.t(), torch.eye(8))
    for name, parameter in model.named_parameters():
        assert "bias" not in name or (parameter == 0).all(), name


def test_the_dropout_is_that_of_the_mlp() -> None:
    model = build(dropout_prob=0.5).train()
    state, items = model.encode(interaction(ROWS)), candidates(ROWS)
    assert torch.equal(state.keys, model.encode(interaction(ROWS)).keys)
    assert not torch.equal(model.score(state, items), model.score(state, items))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"auxiliary_weight": -1}, "auxiliary_weight is -1: it must be a number from 0"),
        ({"auxiliary_hidden_size": []}, "auxiliary_hidden_size is .*: it must be a list of 1 to 16"),
        ({"mlp_hidden_size": 8}, "mlp_hidden_size is 8: it must be a list of 1 to 16"),
    ],
)
def test_settings_out_of_range_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        DIEN({**CONFIG, **values}, fake_dataset())
