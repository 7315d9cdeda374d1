"""LLM-ESR against a slow reference, and what its docstring promises."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from model_fakes import SIZES, assert_equals_reference, fake_dataset, give_texts
from recbole.data.interaction import Interaction
from reference.llm_esr_reference import LLMESRReference
from reference.transformer_reference import Weights, enlarged, histories, weights_of
from sklearn.decomposition import PCA
from torch import Tensor
from torch.nn.functional import normalize

from recbole_ser.data.histories import HistoryReader, Searches, build_event_log
from recbole_ser.errors import ConfigError
from recbole_ser.model.sequential import llm_esr
from recbole_ser.model.sequential.llm_esr import LLMESR, first_vectors, most_similar
from recbole_ser.testing import ModelUnderTest, losses_and_gradients_are_finite, train_step

CONFIG: dict[str, Any] = {
    **SIZES, "n_heads": 1, "cross_heads": 2, "similar_users": 2, "distillation_weight": 0.25,
    "MAX_ITEM_LIST_LENGTH": 4,
}  # fmt: skip
# What each user took in the training period; user 6 took nothing, and the validation and test items follow.
TRAINING = {1: [3, 4, 5, 6, 7, 8], 2: [10], 3: [12, 13, 14, 4], 4: [5, 9, 3], 5: [19, 20], 6: [], 7: [21, 8, 2, 3, 11]}
HELD_OUT = [16, 17]
HISTORIES = [[3, 4, 5, 6], [10], [12, 13, 14], [], [19, 20, 21, 22], [3, 4]]
USERS = [1, 2, 3, 4, 5, 6]
CANDIDATES = [[9, 2, 3, 4], [11, 5, 6, 7], [15, 8, 9, 1], [18, 1, 3, 5], [23, 4, 8, 12], [26, 7, 8, 9]]


def dataset(held_out: list[int] = HELD_OUT, training: dict[int, list[int]] = TRAINING) -> Any:
    """Users 3 and 8 have no text, and items 4, 9 and 20 have none."""
    data = give_texts(fake_dataset(), without_items=(4, 9, 20), without_users=(3, 8))
    events = [(user, item) for user, items in training.items() for item in [*items, *held_out]]
    users, items = np.array(events, dtype=np.int64).T
    data.log = build_event_log(users, np.arange(len(users)), items, Searches.none(), data.user_num)
    in_training = [place < len(items) for items in training.values() for place in range(len(items) + len(held_out))]
    data.split = SimpleNamespace(training_interactions=torch.tensor(in_training).nonzero().squeeze(1).int())
    data.history_reader = lambda: HistoryReader.of(CONFIG, data.log)
    return data


def batch(rows: range | list[int] = range(6), length: int = 4) -> Interaction:
    items = torch.tensor([CANDIDATES[row] for row in rows])
    return Interaction(
        {
            "user_id": torch.tensor([USERS[row] for row in rows]),
            "item_id_list": histories([HISTORIES[row] for row in rows], length),
            "item_id": items[:, 0],
            "neg_item_id": items[:, 1:],
        }
    )


def build(data: Any = None, **values: Any) -> LLMESR:
    torch.manual_seed(0)
    model = enlarged(LLMESR({**CONFIG, **values}, data or dataset()))
    with torch.no_grad():
        model.items.collaborative[0] = 0
    return model


def reference(model: LLMESR) -> tuple[LLMESRReference, Weights]:
    weights = weights_of(model)
    return LLMESRReference(weights, dataset(), CONFIG), weights


# --- against the reference ------------------------------------------------------------------------------------------


def test_scores_equal_the_reference() -> None:
    model = build().eval()
    slow, _ = reference(model)
    scores = model.score(model.encode(batch()), torch.tensor(CANDIDATES))
    for number, history in enumerate(HISTORIES):
        expected = [slow.score(slow.user(history), item) for item in CANDIDATES[number]]
        torch.testing.assert_close(scores[number], torch.stack(expected))
    assert (scores - scores[:, :1])[[0, 1, 2, 4, 5], 1:].abs().min() > 1e-3, "candidates score the same"
    assert (scores[3] == 0).all(), "without history all items score the same"


@pytest.mark.parametrize("kind", ["BCE", "BPR", "CE"])
def test_losses_and_all_gradients_equal_the_reference(kind: str) -> None:
    model = build(loss_type=kind).train()
    slow, weights = reference(model)
    expected = {
        "rec": slow.next_item(kind, HISTORIES, CANDIDATES),
        "distillation": 0.25 * slow.distillation(USERS, HISTORIES, TRAINING),
    }
    model.begin_epoch(0)
    assert_equals_reference(model, model.losses(batch()), expected, weights)


def test_losses_do_not_depend_on_padding() -> None:
    short, long = (build(MAX_ITEM_LIST_LENGTH=7).train().losses(batch(length=length)) for length in (4, 7))
    torch.testing.assert_close(short, long)


# --- the teachers ---------------------------------------------------------------------------------------------------


def test_similar_users_equal_the_reference() -> None:
    for count in (1, 2, 3, 50):
        model = build(similar_users=count)
        model.begin_epoch(0)
        assert model.similar is not None and model.similar.shape == (10, min(count, 5))  # 1, 2, 4, 5 and 7 can teach
        slow, _ = reference(model)
        slow.config = {**CONFIG, "similar_users": count}
        for user in range(1, 10):
            assert [other for other in model.similar[user].tolist() if other] == slow.similar(user, TRAINING)


def test_a_user_teaches_by_the_training_period_alone() -> None:
    model = build()
    found = model.after_training_period()
    slow, _ = reference(model)
    for user, items in TRAINING.items():
        torch.testing.assert_close(found[user], slow.user(items[-4:]))
    assert not found[[0, 6, 8, 9]].any()
    torch.testing.assert_close(build(dataset(held_out=[1, 22])).after_training_period(), found)
    other = build(dataset(training={**TRAINING, 1: [3, 4, 5, 6, 7, 9]})).after_training_period()
    assert (other[1] - found[1]).abs().max() > 1e-3
    torch.testing.assert_close(other[2:], found[2:])


def test_users_are_encoded_in_parts_and_without_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = build().after_training_period()
    monkeypatch.setattr(llm_esr, "USERS_AT_ONCE", 2)
    model = build(dropout_prob=0.5).train()
    found = model.after_training_period()
    torch.testing.assert_close(found, expected)
    assert model.training and not found.requires_grad


def test_teachers_are_those_of_the_start_of_the_epoch() -> None:
    model = build().train()
    model.begin_epoch(0)
    before = model.learnt
    train_step(model, batch())
    assert model.learnt is before
    weights = model.state_dict()
    model.begin_epoch(1)
    assert model.learnt is not None and before is not None and (model.learnt - before).abs().max() > 1e-3
    resumed = build().train()
    resumed.load_state_dict(weights)
    resumed.begin_epoch(1)
    for name, loss in resumed.losses(batch()).items():
        assert torch.equal(loss, model.losses(batch())[name])


def test_rows_without_a_teacher_or_a_history_are_left_out() -> None:
    model = build().train()
    torch.testing.assert_close(model.losses(batch([0, 2, 3]))["distillation"], model.losses(batch([0]))["distillation"])
    loss = model.losses(batch([2, 3]))["distillation"]  # no text, and no history
    assert loss == 0
    loss.backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())
    assert model.losses(batch([5]))["distillation"] > 0, "a user who cannot teach can be taught"


def test_nobody_teaches_where_nobody_has_a_text_or_one_alone_has() -> None:
    for texts in (torch.zeros(10, 6), torch.eye(6)[torch.tensor([0] * 10)] * (torch.arange(10) == 1).unsqueeze(1)):
        data = dataset()
        data.user_texts.vectors = texts
        assert build(data).train().losses(batch())["distillation"] == 0


def test_without_its_weight_nobody_is_encoded_and_no_text_of_a_user_is_read() -> None:
    data = dataset()
    del data.user_texts, data.split, data.log, data.history_reader
    model = build(data, distillation_weight=0.0).train()
    model.begin_epoch(0)
    assert model.losses(batch()).keys() == {"rec"}
    torch.testing.assert_close(model.losses(batch())["rec"], build().train().losses(batch())["rec"])


@pytest.mark.parametrize("at_once", [1, 30, 1 << 24])
def test_the_most_similar_users_are_found_in_parts(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm_esr, "SIMILARITIES_AT_ONCE", at_once)
    torch.manual_seed(1)
    texts = normalize(torch.randn(50, 4), dim=1)
    texts[[0, 7, 8]] = 0
    can_teach = torch.rand(50) < 0.6
    found = most_similar(texts, can_teach, 5)
    for user in range(50):
        others = [o for o in range(50) if can_teach[o] and o != user and texts[o].any()]
        expected = sorted(others, key=lambda o: float(texts[user] @ texts[o]), reverse=True)[:5]
        assert found[user].tolist() == (expected if texts[user].any() else [0] * 5)


def test_among_equal_texts_nobody_teaches_himself() -> None:
    texts = torch.tensor([[0.0, 0.0], *[[0.6, 0.8]] * 6])
    found = most_similar(texts, torch.ones(7, dtype=torch.bool), 5)
    assert [sorted(row) for row in found[1:].tolist()] == [[o for o in range(1, 7) if o != u] for u in range(1, 7)]
    few = most_similar(texts, torch.tensor([True, True, True, *[False] * 4]), 5)
    assert [sorted(row) for row in few.tolist()] == [[0, 0], [0, 2], [0, 1], *[[1, 2]] * 4]
    assert most_similar(texts, torch.zeros(7, dtype=torch.bool), 5).shape == (7, 0)


# --- the items ------------------------------------------------------------------------------------------------------


def test_collaborative_vectors_start_as_principal_components() -> None:
    torch.manual_seed(1)
    texts = normalize(torch.randn(40, 10) * torch.arange(1, 11) + 2, dim=1)
    texts[[0, 5, 6]] = 0
    known = texts.any(dim=1)
    found = first_vectors(texts, 6)
    expected = torch.from_numpy(PCA(6).fit_transform(texts[known].double().numpy())).float()
    torch.testing.assert_close(found[known].abs(), expected.abs(), atol=1e-5, rtol=1e-4)
    assert 0 < found[[5, 6]].abs().max() < 0.05 and not torch.equal(found[5], found[6])
    assert torch.equal(first_vectors(texts, 6)[known], found[known])


@pytest.mark.parametrize(("items", "width", "components"), [(20, 8, 4), (4, 8, 2), (20, 3, 3), (2, 8, 0), (1, 8, 0)])
def test_there_are_no_more_components_than_the_texts_have(items: int, width: int, components: int) -> None:
    torch.manual_seed(1)
    texts = torch.cat([torch.zeros(1, 4), normalize(torch.randn(items - 1, 4), dim=1)])
    found = first_vectors(texts, width)
    assert found.shape == (items, width) and found.isfinite().all()
    assert (found[:, components:].abs() < 0.05).all() and not found[0].any()
    assert (found[1:, :components].norm(dim=0) > 0.05).all()


def test_items_without_text_share_a_semantic_vector_and_padding_is_zero() -> None:
    vectors = build().items(torch.tensor([0, 4, 9, 5]))
    assert not vectors[0].any() and torch.equal(vectors[1, 8:], vectors[2, 8:])
    assert (vectors[1, 8:] - vectors[3, 8:]).abs().max() > 1e-3 and not torch.equal(vectors[1, :8], vectors[2, :8])


def test_what_stands_for_missing_texts_starts_at_zero_and_is_frozen_where_none_is_missing() -> None:
    data = dataset()
    assert not LLMESR(CONFIG, data).items.fallback.any() and LLMESR(CONFIG, data).items.fallback.requires_grad
    data.item_texts.vectors[1:29] = 1.0
    data.target_num = 29
    assert not LLMESR(CONFIG, data).items.fallback.requires_grad


def test_the_vectors_of_texts_are_neither_trained_nor_saved() -> None:
    model = build()
    names = {*model.state_dict(), *dict(model.named_parameters())}
    assert not any(name.endswith(("texts", "has_text")) for name in names)
    assert "items.texts" in dict(model.named_buffers())


# --- the rest -------------------------------------------------------------------------------------------------------


def test_a_state_knows_nothing_of_later_items(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build().eval()
    seen: list[Tensor] = []
    monkeypatch.setattr(llm_esr, "last_state", lambda states, mask: seen.append(states) or states[:, 0])
    model.after(histories([[3, 4, 5, 6], [3, 4, 9, 2]], 4))
    first, second = seen[0].unflatten(0, (2, 2)).unbind(dim=1)  # [2 views, L, d]
    torch.testing.assert_close(first[:, :2], second[:, :2])
    assert ((first - second)[:, 2:].abs().amax(dim=2) > 1e-3).all()


def test_the_dropout_reaches_every_part() -> None:
    model = build(dropout_prob=0.5)
    assert model.dropout.cut == 2**15
    assert all(layer.attention.dropout.cut == layer.dropout.cut == 2**15 for layer in model.encoder.layers)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"cross_heads": 3}, "cross_heads is 3, which must divide hidden_size, 8"),
        ({"n_heads": 3}, "n_heads is 3"),
        ({"similar_users": 0}, "similar_users is 0"),
        ({"distillation_weight": -0.1}, "distillation_weight is -0.1"),
        ({"dropout_prob": 1.0}, "dropout_prob is 1.0"),
    ],
)
def test_wrong_settings_are_refused(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        LLMESR({**CONFIG, **values}, dataset())


def test_without_teachers_every_parameter_is_trained(tmp_path: Path) -> None:
    losses_and_gradients_are_finite(ModelUnderTest(LLMESR, tmp_path, {"distillation_weight": 0.0}))
