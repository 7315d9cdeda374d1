"""KAR against a slow reference, and what its docstring promises."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from model_fakes import ROWS, SIZES, assert_equals_reference, candidates, fake_dataset, give_texts, interaction
from reference.din_reference import cross_entropy
from reference.kar_reference import KARReference
from reference.sesrec_reference import Row
from torch import Tensor

from recbole_ser.errors import ConfigError
from recbole_ser.model import base
from recbole_ser.model.sequential import kar
from recbole_ser.model.sequential.kar import KAR

CONFIG: dict[str, Any] = {
    **SIZES, "attention_hidden_size": [6, 5], "mlp_hidden_size": [12, 7], "shared_experts": 2, "own_experts": 3,
    "expert_hidden_size": 7,
}  # fmt: skip


def dataset() -> Any:
    """Users 2 and 5 have no text, and some of the candidates and of the histories' items have none."""
    return give_texts(fake_dataset(), without_items=(4, 9, 11, 20), without_users=(2, 5))


def build(data: Any = None, **values: Any) -> KAR:
    """A model with weights so large that nothing in it is nearly linear or nearly zero."""
    torch.manual_seed(0)
    model = KAR({**CONFIG, **values}, data or dataset())
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.3, 2)
            elif value.is_floating_point():
                value.add_(torch.randn_like(value) * (0.2 if value.dim() == 1 else 0.4))
            if name.endswith(("ids.weight", "table.weight")):
                value[0] = 0
    return model


def reference(model: KAR) -> tuple[KARReference, dict[str, Tensor]]:
    weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
    for name, _ in model.named_parameters():
        weights[name].requires_grad_()
    return KARReference(weights, dataset(), CONFIG, model.training), weights


def scores(model: KAR, rows: list[Row]) -> Tensor:
    return model.score(model.encode(interaction(rows)), candidates(rows))


# --- against the reference ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True], ids=["running statistics", "batch statistics"])
def test_scores_loss_and_all_gradients_equal_the_reference(training: bool) -> None:
    model = build().double().train(training)
    slow, weights = reference(model)
    expected = slow.scores(ROWS)
    found = scores(model, ROWS)
    torch.testing.assert_close(found, torch.stack([torch.stack(row) for row in expected]))
    assert (found - found[:, :1])[:, 1:].abs().min() > 1e-3, "candidates score the same"
    assert_equals_reference(model, model.losses(interaction(ROWS)), {"rec": cross_entropy(expected)}, weights)


@pytest.mark.parametrize("loss_type", ["BPR", "CE", "CE in parts"])
def test_the_other_losses_and_their_gradients_equal_the_reference(
    loss_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if loss_type == "CE in parts":
        monkeypatch.setattr(base, "PAIRS_AT_ONCE", 50)
    model = build(loss_type=loss_type.split()[0]).double().eval()
    slow, weights = reference(model)
    terms = []
    if loss_type == "BPR":
        for own, *others in slow.scores(ROWS):
            terms += [-torch.log(torch.sigmoid(own - other)) for other in others]
    else:
        everything = [Row(row.user, row.items, [], list(range(1, 30))) for row in ROWS]
        for row, logits in zip(ROWS, slow.scores(everything)):
            terms.append(torch.stack(logits).exp().sum().log() - logits[row.candidates[0] - 1])
    expected = {"rec": sum(terms) / len(terms)}
    # A bias of all logits alike is none of BPR's business, nor of the softmax's.
    assert_equals_reference(model, model.losses(interaction(ROWS)), expected, weights, every_gradient=False)


# --- the texts ------------------------------------------------------------------------------------------------------


def test_each_distinct_item_goes_through_the_experts_once_in_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    model, asked = build().train(), []
    forward = model.of_items.forward
    monkeypatch.setattr(model.of_items, "forward", lambda ids, shared: asked.append(ids) or forward(ids, shared))
    model.calculate_loss(interaction(ROWS))
    (ids,) = asked
    assert sorted(ids.tolist()) == sorted(set(candidates(ROWS).flatten().tolist()))


def test_all_items_go_through_the_experts_once_in_a_pass_of_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = scores(build().eval(), ROWS).detach()
    monkeypatch.setattr(kar, "ITEMS_AT_ONCE", 8)
    model, asked = build().eval(), []
    forward = model.of_items.forward
    monkeypatch.setattr(model.of_items, "forward", lambda ids, shared: asked.append(ids) or forward(ids, shared))
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(scores(model, ROWS), expected)
        assert torch.equal(torch.cat(asked), torch.arange(30))
        model.shared.first_bias.add_(1.0)
        assert not torch.allclose(scores(model, ROWS), expected), "an old table is in use"


def test_users_and_items_without_text_share_what_stands_for_it() -> None:
    model = build().eval()
    without, other = Row(2, [3, 4], [], [9, 8]), Row(5, [3, 4], [], [9, 8])
    torch.testing.assert_close(*scores(model, [without, other]))
    own = scores(model, [Row(3, [3, 4], [], [9, 8])])
    assert (own - scores(model, [without])).abs().min() > 1e-3
    knowledge = model.item_knowledge(torch.tensor([[4, 9, 5]]))[0]
    torch.testing.assert_close(knowledge[0], model.of_items.fallback)
    torch.testing.assert_close(knowledge[0], knowledge[1])
    assert (knowledge[0] - knowledge[2]).abs().max() > 1e-3


def test_what_stands_for_missing_texts_starts_at_zero_and_is_frozen_where_none_is_missing() -> None:
    for without_items, without_users in [((), ()), ((4,), ()), ((), (2,)), ((29,), ())]:
        data = give_texts(fake_dataset(), without_items, without_users)
        data.target_num = 29  # nobody is asked about the last item
        model = KAR(CONFIG, data)
        assert (model.of_items.fallback == 0).all() and (model.of_users.fallback == 0).all()
        frozen = {name for name, value in model.named_parameters() if not value.requires_grad}
        expected = {"of_items.fallback": 4 not in without_items, "of_users.fallback": not without_users}
        assert frozen == {name for name, is_frozen in expected.items() if is_frozen}


def test_the_vectors_of_texts_are_neither_trained_nor_saved() -> None:
    model = build()
    names = {*model.state_dict(), *dict(model.named_parameters())}
    assert not any(name.endswith(("vectors", "has_text")) for name in names)
    assert "of_items.vectors" in dict(model.named_buffers())


# --- the rest -------------------------------------------------------------------------------------------------------


def test_each_expert_starts_as_a_layer_of_its_own() -> None:
    torch.manual_seed(0)
    experts = kar.Experts(30, 40, 60, 20)
    assert experts.first_weight.std().item() == pytest.approx((2 / (40 + 60)) ** 0.5, rel=0.05)
    assert experts.second_weight.std().item() == pytest.approx((2 / (60 + 20)) ** 0.5, rel=0.05)
    assert not experts.first_bias.any() and not experts.second_bias.any()


def test_rows_without_any_history_get_finite_gradients() -> None:
    model = build().train()
    model.calculate_loss(interaction([Row(5, [], [], [18, 1, 3, 5])])).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_the_dropout_is_that_of_the_mlp() -> None:
    model = build(dropout_prob=0.5).train()
    state = model.encode(interaction(ROWS))
    assert not torch.equal(model.score(state, candidates(ROWS)), model.score(state, candidates(ROWS)))
    model.mlp.dropout.cut = 0
    torch.testing.assert_close(model.score(state, candidates(ROWS)), model.score(state, candidates(ROWS)))


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"shared_experts": 0}, "shared_experts is 0"),
        ({"own_experts": -1}, "own_experts is -1"),
        ({"expert_hidden_size": 0}, "expert_hidden_size is 0"),
        ({"attention_hidden_size": []}, "attention_hidden_size"),
        ({"dropout_prob": 1.0}, "dropout_prob is 1.0"),
    ],
)
def test_wrong_settings_are_refused(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        KAR({**CONFIG, **values}, dataset())
