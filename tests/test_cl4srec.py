"""CL4SRec against a slow reference, and what its docstring promises."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from model_fakes import SIZES, assert_equals_reference, fake_dataset
from recbole.data.interaction import Interaction
from reference.transformer_reference import TransformerReference, Weights, enlarged, histories, weights_of
from torch import Tensor

from recbole_ser.errors import ConfigError
from recbole_ser.model.sequential.cl4srec import CL4SRec
from recbole_ser.testing import CHECKS, ModelUnderTest, train_step

CONFIG: dict[str, Any] = {
    **SIZES, "crop_share": 0.6, "mask_share": 0.4, "reorder_share": 0.7, "contrast_weight": 0.25,
}  # fmt: skip
CROP, MASK, REORDER = range(3)
HISTORIES = [[3, 4, 5, 6, 7, 8], [10], [12, 13, 14], [], [19, 20, 21, 22], [3, 4]]
USERS = [1, 2, 3, 4, 5, 1]
CANDIDATES = [[9, 2, 3, 4], [11, 5, 6, 7], [15, 8, 9, 1], [18, 1, 3, 5], [23, 4, 8, 12], [26, 7, 8, 9]]


def batch(rows: range | list[int] = range(6), length: int = 6) -> Interaction:
    items = torch.tensor([CANDIDATES[row] for row in rows])
    return Interaction(
        {
            "user_id": torch.tensor([USERS[row] for row in rows]),
            "item_id_list": histories([HISTORIES[row] for row in rows], length),
            "item_id": items[:, 0],
            "neg_item_id": items[:, 1:],
        }
    )


def build(**values: Any) -> CL4SRec:
    torch.manual_seed(0)
    return enlarged(CL4SRec({**CONFIG, **values}, fake_dataset()))


class Reference(TransformerReference):
    def __init__(self, weights: Weights) -> None:
        super().__init__(weights, fake_dataset(), CONFIG["n_heads"], True, torch.relu)

    def user(self, items: list[int | None]) -> Tensor:
        """``None`` is the mask."""
        if not items:
            return torch.zeros(CONFIG["hidden_size"], dtype=torch.float64)
        vectors = [self.weights["mask"] if item is None else self.item(item) for item in items]
        inputs = [vector + self.weights["positions.weight"][place] for place, vector in enumerate(vectors)]
        return self.encoder(inputs, CONFIG["n_layers"], causal=True)[-1]

    def next_item(self, kind: str) -> Tensor:
        terms = []
        for history, candidates in zip(HISTORIES, CANDIDATES):
            user = self.user(history)
            own, *others = [user @ self.item(item) for item in candidates]
            if kind == "CE":
                everything = sum(torch.exp(user @ self.item(item)) for item in range(1, 30))
                terms.append(-torch.log(torch.exp(own) / everything))
            elif kind == "BPR":
                terms.append(sum(-torch.log(torch.sigmoid(own - other)) for other in others) / len(others))
            else:
                wrong = sum(-torch.log(1 - torch.sigmoid(other)) for other in others)
                terms.append((wrong - torch.log(torch.sigmoid(own))) / (1 + len(others)))
        return sum(terms) / len(terms)

    def contrast(self, pairs: list[tuple[int, list[int | None], list[int | None]]]) -> Tensor:
        """The contrast of users with two views each."""
        views = [(user, row, self.user(view)) for row, (user, *both) in enumerate(pairs) for view in both]
        terms = []
        for place, (user, row, view) in enumerate(views):
            (partner,) = [other for n, (_, r, other) in enumerate(views) if r == row and n != place]
            own = torch.exp(view @ partner)
            terms.append(-torch.log(own / (own + sum(torch.exp(view @ z) for u, _, z in views if u != user))))
        return sum(terms) / len(terms)


def lists(items: Tensor, masked: Tensor) -> list[list[int | None]]:
    return [[None if hide else i for i, hide in zip(*row) if i] for row in zip(items.tolist(), masked.tolist())]


# --- against the reference ------------------------------------------------------------------------------------------


def test_scores_equal_the_reference() -> None:
    model = build().eval()
    slow = Reference(weights_of(model))
    scores = model.score(model.encode(batch()), torch.tensor(CANDIDATES))
    for number, history in enumerate(HISTORIES):
        expected = [slow.user(history) @ slow.item(item) for item in CANDIDATES[number]]
        torch.testing.assert_close(scores[number], torch.stack(expected))
    assert (scores - scores[:, :1])[[0, 1, 2, 4, 5], 1:].abs().min() > 1e-3, "candidates score the same"
    assert (scores[3] == 0).all(), "without history all items score the same"


def expected_losses(model: CL4SRec, kind: str, seed: int) -> tuple[dict[str, Tensor], Weights]:
    """The losses of the reference with the views that the model draws after ``seed``."""
    weights = weights_of(model)
    rows = [row for row, history in enumerate(HISTORIES) if history]
    torch.manual_seed(seed)
    views = lists(*model.augment(histories([HISTORIES[row] for row in rows], 6)))
    pairs = [(USERS[row], views[n], views[n + len(rows)]) for n, row in enumerate(rows)]
    assert any(None in view for view in views)
    slow = Reference(weights)
    return {"rec": slow.next_item(kind), "contrast": 0.25 * slow.contrast(pairs)}, weights


@pytest.mark.parametrize("kind", ["BCE", "BPR", "CE"])
def test_losses_and_all_gradients_equal_the_reference(kind: str) -> None:
    model = build(loss_type=kind).train()
    expected, weights = expected_losses(model, kind, seed=3)
    torch.manual_seed(3)
    assert_equals_reference(model, model.losses(batch()), expected, weights)


def test_a_step_of_training_is_one_down_the_gradient_of_the_reference() -> None:
    model = build()
    expected, weights = expected_losses(model, "BCE", seed=3)
    sum(expected.values()).backward()
    torch.manual_seed(3)
    train_step(model, batch(), torch.optim.SGD(model.parameters(), lr=0.1))
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(
            parameter, weights[name] - 0.1 * weights[name].grad, msg=lambda m, n=name: f"{n}: {m}"
        )


# --- the views ------------------------------------------------------------------------------------------------------


def views_of(operator: int, history: list[int], monkeypatch: pytest.MonkeyPatch, **shares: float) -> list[Any]:
    """Many views of one history by one operator."""
    model = build(**shares)
    torch.manual_seed(1)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "randint", lambda high, size, **_: torch.full(size, operator))
        return lists(*model.augment(histories([history] * 1500, 7)))


def assert_equally_likely(found: list[Any], expected: list[list[Any]]) -> None:
    counts = Counter(map(tuple, found))
    assert counts.keys() == set(map(tuple, expected)), "other views than there can be"
    share = len(found) / len(expected)
    assert max(abs(count - share) for count in counts.values()) < 5 * math.sqrt(share)


@pytest.mark.parametrize(("share", "kept"), [(0.6, 3), (0.2, 1), (0.1, 1), (0.0, 1), (1.0, 5), (0.99, 4)])
def test_a_crop_keeps_any_stretch(share: float, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    history = [3, 4, 5, 6, 7]
    found = views_of(CROP, history, monkeypatch, crop_share=share)
    assert_equally_likely(found, [history[start : start + kept] for start in range(5 - kept + 1)])


@pytest.mark.parametrize(("share", "hidden"), [(0.4, 2), (0.19, 0), (0.0, 0), (1.0, 5), (0.61, 3)])
def test_a_mask_hides_any_positions(share: float, hidden: int, monkeypatch: pytest.MonkeyPatch) -> None:
    history = [3, 4, 5, 6, 7]
    found = views_of(MASK, history, monkeypatch, mask_share=share)
    expected = [
        [None if n in places else item for n, item in enumerate(history)] for places in combinations(range(5), hidden)
    ]
    assert_equally_likely(found, expected)


@pytest.mark.parametrize(("share", "length"), [(0.4, 2), (0.19, 0), (0.0, 0), (0.6, 3), (1.0, 5)])
def test_a_reordering_shuffles_any_stretch(share: float, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    history = [3, 4, 5, 6, 7]
    found = views_of(REORDER, history, monkeypatch, reorder_share=share)
    assert all(sorted(view) == history for view in found)
    moved = [[n for n in range(5) if view[n] != history[n]] for view in found]
    assert max((places[-1] - places[0] + 1 for places in moved if places), default=0) == (length if length > 1 else 0)
    if length == 2:  # each of four pairs, kept or swapped
        counts = Counter(tuple(places) for places in moved)
        assert counts.keys() == {(), (0, 1), (1, 2), (2, 3), (3, 4)} and 1350 < counts[()] < 1650
    if length == 5:
        first = Counter(view[0] for view in found)
        assert len(set(map(tuple, found))) == 120 and min(first.values()) > 500


def test_histories_of_one_item_have_views_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for operator in (CROP, MASK, REORDER):
        assert views_of(operator, [3], monkeypatch) == [[3]] * 3000
    assert views_of(MASK, [3], monkeypatch, mask_share=1.0) == [[None]] * 3000


def test_each_operator_is_as_likely_and_independent_of_the_other_views() -> None:
    model = build(crop_share=0.5, mask_share=0.5, reorder_share=1.0)
    torch.manual_seed(2)
    views = lists(*model.augment(histories([list(range(3, 10))] * 6000, 7)))
    first, second = views[:6000], views[6000:]

    def operator(view: list[int | None]) -> int:
        return CROP if len(view) < 7 else MASK if None in view else REORDER

    pairs = Counter((operator(one), operator(other)) for one, other in zip(first, second))
    assert len(pairs) == 9 and max(abs(count - 6000 / 9) for count in pairs.values()) < 5 * math.sqrt(6000 / 9)


def test_rows_of_different_lengths_are_altered_each_on_its_own() -> None:
    rows = [[3, 4, 5, 6, 7, 8], [10], [12, 13, 14], [19, 20]] * 200
    torch.manual_seed(2)
    for row, view in zip(rows, lists(*build().augment(histories(rows, 6)))):
        kept = [item for item in view if item is not None]
        assert set(kept) <= set(row) and len(set(kept)) == len(kept) and view
        assert len(view) in {len(row), max(1, math.floor(0.6 * len(row)))}
        assert view.count(None) in {0, math.floor(0.4 * len(row))}


# --- the contrast ---------------------------------------------------------------------------------------------------


def test_rows_of_the_same_user_are_no_negatives() -> None:
    model = build().train()
    assert model.losses(batch([0, 5]))["contrast"] == 0, "one user alone has nobody to differ from"
    assert model.losses(batch([0, 2]))["contrast"] > 0


def test_rows_without_history_take_no_part_in_the_contrast() -> None:
    model = build().train()
    losses = []
    for rows in ([0, 2], [3, 0, 3, 2]):
        torch.manual_seed(5)
        losses.append(model.losses(batch(rows))["contrast"])
    torch.testing.assert_close(*losses)
    assert model.losses(batch([3]))["contrast"] == 0
    model.losses(batch([3]))["contrast"].backward()


def test_the_contrast_stays_finite_where_its_powers_overflow() -> None:
    model = build().train()
    with torch.no_grad():
        model.encoder.norm.weight.fill_(100.0)
    losses = model.float().losses(batch())
    losses["contrast"].backward()
    assert losses["contrast"].isfinite() and all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_the_weight_scales_the_contrast_alone() -> None:
    losses = []
    for weight in (0.25, 1.0):
        torch.manual_seed(5)
        losses.append(build(contrast_weight=weight).losses(batch()))
    torch.testing.assert_close(4 * losses[0]["contrast"], losses[1]["contrast"])
    torch.testing.assert_close(losses[0]["rec"], losses[1]["rec"])
    assert build(contrast_weight=0.0).losses(batch()).keys() == {"rec"}


@pytest.mark.parametrize("values", [{"contrast_weight": 0.0}, {"mask_share": 0.0}], ids=str)
def test_the_mask_is_frozen_where_nothing_is_masked(values: dict[str, float]) -> None:
    assert {name for name, value in build(**values).named_parameters() if not value.requires_grad} == {"mask"}
    assert all(value.requires_grad for value in build().parameters())


# --- the rest -------------------------------------------------------------------------------------------------------


def test_a_state_knows_nothing_of_later_items() -> None:
    model = build().eval()
    items = histories([[3, 4, 5], [3, 4, 5, 6]], 6)
    short, long = model.last_state(items, model.items(items))
    vectors = model.items(items[1:]) + model.positions.weight
    states = model.encoder(vectors, torch.ones(1, 6, 6, dtype=torch.bool).tril())
    torch.testing.assert_close(states[0, 2], short)
    torch.testing.assert_close(states[0, 3], long)
    assert (short - long).abs().max() > 1e-3


def test_losses_do_not_depend_on_padding() -> None:
    model = build(MAX_ITEM_LIST_LENGTH=9, crop_share=1.0, mask_share=1.0, reorder_share=0.0).train()
    losses = []
    for length in (6, 9):
        torch.manual_seed(5)
        losses.append(model.losses(batch(length=length)))
    torch.testing.assert_close(*losses)


def test_the_dropout_reaches_every_part() -> None:
    model = build(dropout_prob=0.5)
    assert model.dropout.cut == 2**15
    assert all(layer.attention.dropout.cut == layer.dropout.cut == 2**15 for layer in model.encoder.layers)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"crop_share": 1.1}, "crop_share is 1.1"),
        ({"mask_share": -0.1}, "mask_share is -0.1"),
        ({"reorder_share": 2}, "reorder_share is 2"),
        ({"contrast_weight": -1.0}, "contrast_weight is -1"),
        ({"n_heads": 3}, "n_heads is 3"),
    ],
)
def test_wrong_settings_are_refused(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        CL4SRec({**CONFIG, **values}, fake_dataset())


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_contract_without_the_contrast(check: Callable[[ModelUnderTest], None], tmp_path: Path) -> None:
    check(ModelUnderTest(CL4SRec, tmp_path, {"contrast_weight": 0.0}))
