"""SESRec against a slow reference, and what its docstring promises."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from model_fakes import ROWS, SIZES, assert_equals_reference, candidates, fake_dataset, interaction
from reference.sesrec_reference import Reference, Row, Search
from torch import Tensor, nn

from recbole_ser.errors import ConfigError
from recbole_ser.model.search_aware.sesrec import SESRec
from recbole_ser.train.optimization import build_adam

BASE = {"alpha": 0.0, "beta": 0.0, "multi_interest": False}
ABLATIONS = {
    "base": BASE,
    "alignment": {**BASE, "alpha": 0.1},
    "contrast": {**BASE, "alpha": 0.1, "beta": 0.001},
    "all": {},
    "extraction without contrast": {"beta": 0.0},
}
CONFIG: dict[str, Any] = {
    **SIZES, "alpha": 0.1, "beta": 0.5, "multi_interest": True, "alignment_negatives": 9, "temperature": 0.1,
    "margin": 1.0, "split_threshold": "mean",
}  # fmt: skip


def build(seed: int = 0, scale: float = 1.0, **values: Any) -> SESRec:
    """A model with weights so large that nothing in it is nearly linear or nearly zero."""
    torch.manual_seed(seed)
    model = SESRec({**CONFIG, **values}, fake_dataset())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name != "alignment.temperature.raw":
                spread = 0.2 if parameter.dim() == 1 else 0.6
                parameter.add_(torch.randn_like(parameter) * spread * scale)
                if name.startswith("co_attention"):
                    parameter.mul_(0.2)  # similarities that differ, but not so much that all but one are near zero
            if name.endswith(("ids.weight", "table.weight", "sources.weight")):
                parameter[0] = 0
    return model


def reference(model: SESRec, **values: Any) -> tuple[Reference, dict[str, Tensor]]:
    weights = {name: value.detach().clone().requires_grad_() for name, value in model.named_parameters()}
    return Reference(weights, fake_dataset(), {**CONFIG, **values}), weights


def losses_and_negatives(model: SESRec, rows: list[Row]) -> tuple[dict[str, Tensor], tuple[list[int], list[int]]]:
    losses = model.losses(interaction(rows))
    if not model.alpha:
        return losses, ([], [])
    negatives = model.alignment.drawn
    return losses, (negatives.items.tolist(), negatives.queries.tolist())


# --- against the reference ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", ["mean", "median", 0.2, 0.25])
def test_states_similarities_sets_interests_and_scores_equal_the_reference(threshold: Any) -> None:
    model = build(split_threshold=threshold).double()
    slow, _ = reference(model, split_threshold=threshold)
    state, items = model.encode(interaction(ROWS)), candidates(ROWS)
    targets = model.items(items)
    scores = model.score(state, items)
    proper_sets = 0
    for number, row in enumerate(ROWS):
        expected = slow.encode(row)
        torch.testing.assert_close(state.user[number], expected.user)
        for name, ours, theirs in (("rec", state.rec, expected.rec), ("search", state.search, expected.search)):
            length = len(theirs.states)
            torch.testing.assert_close(ours.states[number, :length], theirs.states)
            torch.testing.assert_close(ours.similarity[number, :length], theirs.similarity)
            sets = [view.nonzero().squeeze(1).tolist() for view in ours.views[number]]
            assert sets == [list(range(length)), theirs.similar, theirs.dissimilar]
            proper_sets += 0 < len(sets[1]) < length
            attention = getattr(model, f"{name}_interest")
            for column in range(items.shape[1]):
                interests = torch.stack([view[number, column] for view in attention(ours.states, ours.views, targets)])
                wanted = slow.interests(f"{name}_interest", theirs, slow.item(int(items[number, column])))
                torch.testing.assert_close(interests, torch.stack(wanted))
        torch.testing.assert_close(scores[number], torch.stack([slow.score(expected, c) for c in row.candidates]))
    assert (scores - scores[:, :1])[:, 1:].abs().min() > 1e-3, "candidates score the same"
    assert proper_sets, "the split is trivial in every row: the test would not notice a wrong one"


def test_similar_positions_are_the_sets_of_the_reference_and_may_be_empty() -> None:
    model = build().double()
    slow, _ = reference(model)
    found = [positions.tolist() for positions in model.similar_positions(interaction(ROWS))]
    for number, row in enumerate(ROWS):
        expected = slow.encode(row)
        for ours, theirs in zip(found, (expected.rec, expected.search)):
            threshold = 1 / max(len(theirs.similarity), 1)
            above = [place for place, value in enumerate(theirs.similarity.tolist()) if value > threshold]
            assert [place for place, is_similar in enumerate(ours[number]) if is_similar] == above
    assert found[0][1] == [False] * 6, "the only event of a history is as similar as the mean"
    assert build(**BASE).similar_positions(interaction(ROWS)) is None


@pytest.mark.parametrize(
    "values",
    [*ABLATIONS.values(), {"split_threshold": "median"}, {"split_threshold": 0.2}],
    ids=[*ABLATIONS, "median", "constant"],
)
def test_losses_and_all_gradients_equal_the_reference(values: dict[str, Any]) -> None:
    model = build(**values).double().train()
    losses, negatives = losses_and_negatives(model, ROWS)
    slow, weights = reference(model, **values)
    expected = slow.losses(ROWS, *negatives)
    assert_equals_reference(
        model, losses, expected, weights, every_gradient=False
    )  # the margin may cut the contrast off


def test_single_precision_is_within_1e_5() -> None:
    model = build(scale=0.5).train()
    losses, negatives = losses_and_negatives(model, ROWS)
    slow, weights = reference(build(scale=0.5).double())
    expected = slow.losses(ROWS, *negatives)
    torch.stack(list(losses.values())).sum().backward()
    torch.stack(list(expected.values())).sum().backward()
    for name, loss in losses.items():
        torch.testing.assert_close(loss.double(), expected[name], rtol=1e-5, atol=1e-6)
    for name, parameter in model.named_parameters():
        worst = (parameter.grad.double() - weights[name].grad).abs().max()
        assert worst < 1e-5 * max(1, weights[name].grad.abs().max()), name


# --- ablations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", ABLATIONS.values(), ids=ABLATIONS)
def test_every_parameter_is_trained_or_frozen(values: dict[str, Any]) -> None:
    model = build(**values).train()
    model.calculate_loss(interaction(ROWS)).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, f"{name} gets no gradient"
        else:
            assert name.startswith("co_attention.") and values == {"beta": 0.0}


def test_what_is_switched_off_does_not_exist() -> None:
    parameters = {key: {name for name, _ in build(**values).named_parameters()} for key, values in ABLATIONS.items()}
    alignment = {"alignment.weight", "alignment.temperature.raw"}
    co_attention = {"co_attention.affinity", "co_attention.left.weight", "co_attention.right.weight"}
    assert parameters["alignment"] - parameters["base"] == alignment
    assert parameters["contrast"] - parameters["alignment"] == co_attention
    assert parameters["all"] == parameters["contrast"]
    losses = {key: set(losses_and_negatives(build(**values), ROWS)[0]) for key, values in ABLATIONS.items()}
    assert losses == {
        "base": {"rec"}, "alignment": {"rec", "alignment"}, "contrast": {"rec", "alignment", "contrast"},
        "all": {"rec", "alignment", "contrast"}, "extraction without contrast": {"rec", "alignment"},
    }  # fmt: skip
    assert build().mlp.first.in_features - build(**ABLATIONS["contrast"]).mlp.first.in_features == 4 * 8


def test_without_searches_in_training_there_is_no_alignment() -> None:
    dataset = fake_dataset()
    dataset.training_search_queries = dataset.training_search_queries[:0]
    model = SESRec(CONFIG, dataset).train()
    losses = model.losses(interaction([row for row in ROWS if not row.searches]))
    assert set(losses) == {"rec", "contrast"} and losses["contrast"].item() == 0


def test_a_batch_without_clicks_has_no_alignment_loss() -> None:
    losses = build().losses(interaction([ROWS[2], ROWS[4]]))
    assert losses["alignment"].item() == 0
    torch.stack(list(losses.values())).sum().backward()


@pytest.mark.parametrize(
    "values", [{"split_threshold": "mode"}, {"split_threshold": 2.0}, {"n_heads": 3}, {"temperature": 0.01}]
)
def test_impossible_settings_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=str(next(iter(values.values()))).replace(".", r"\.")):
        SESRec({**CONFIG, **values}, fake_dataset())


# --- histories ------------------------------------------------------------------------------------------------------


def test_scores_do_not_depend_on_padding_order_batch_or_other_candidates() -> None:
    model = build(MAX_ITEM_LIST_LENGTH=9, max_search_length=8).eval()
    with torch.no_grad():
        scores = model.score(model.encode(interaction(ROWS)), candidates(ROWS))
        padded = model.encode(interaction(ROWS, length=9, searches=8, clicks=5))
        torch.testing.assert_close(model.score(padded, candidates(ROWS)), scores)
        backwards = model.score(model.encode(interaction(ROWS[::-1])), candidates(ROWS[::-1]))
        torch.testing.assert_close(backwards.flip(0), scores)
        for number, row in enumerate(ROWS):
            alone = model.score(model.encode(interaction([row])), candidates([row])[:, 1:3])
            torch.testing.assert_close(alone, scores[number : number + 1, 1:3])
    spread = (scores[0] - scores[5]).abs().min()
    assert spread > 1e-3, "all rows score the same: the test would not notice a mix-up"


def test_losses_do_not_depend_on_padding() -> None:
    model = build(MAX_ITEM_LIST_LENGTH=9, max_search_length=8).double()
    results = []
    for sizes in ((6, 5, 3), (9, 8, 5)):
        torch.manual_seed(2)
        model.zero_grad()
        losses = model.losses(interaction(ROWS, *sizes))
        torch.stack(list(losses.values())).sum().backward()
        results.append([*losses.values(), *(parameter.grad.clone() for parameter in model.parameters())])
    for first, second in zip(*results):
        torch.testing.assert_close(first, second)


def test_empty_histories_give_zero_interests_and_finite_gradients() -> None:
    model = build().train()
    rows = [ROWS[2], ROWS[3], ROWS[4]]
    state = model.encode(interaction(rows))
    targets = model.items(candidates(rows))
    assert all((view[1:] == 0).all() for view in model.rec_interest(state.rec.states, state.rec.views, targets))
    assert all(
        (view[[0, 2]] == 0).all() for view in model.search_interest(state.search.states, state.search.views, targets)
    )
    losses = model.losses(interaction(rows))
    assert losses["contrast"].item() == 0
    torch.stack(list(losses.values())).sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_the_order_of_a_history_matters() -> None:
    model = build().eval()
    swapped = Row(1, [4, 3, *ROWS[0].items[2:]], ROWS[0].searches, ROWS[0].candidates)
    scores = [model.score(model.encode(interaction([row])), candidates([row])) for row in (ROWS[0], swapped)]
    assert (scores[0] - scores[1]).abs().min() > 1e-4


# --- alignment ------------------------------------------------------------------------------------------------------


def test_negatives_are_fresh_items_of_the_catalogue_and_queries_of_the_training_searches() -> None:
    model = build(alignment_negatives=4000)
    torch.manual_seed(0)
    first, second = model.alignment.draw(model.items.count), model.alignment.draw(model.items.count)
    assert not torch.equal(first.items, second.items) and not torch.equal(first.queries, second.queries)
    assert first.items.unique().tolist() == list(range(1, 30))
    shares = first.queries.bincount(minlength=9) / 4000
    expected = torch.tensor([0, 2, 1, 3, 0, 1, 0, 0, 1]) / 8
    assert (shares - expected).abs().max() < 0.03


def test_the_temperature_stays_above_its_minimum() -> None:
    model = build(dropout_prob=0.1, beta=0.0, multi_interest=False).train()
    assert model.no_weight_decay() == {"alignment.temperature.raw"}
    assert math.isclose(model.alignment.temperature().item(), 0.1, rel_tol=1e-6)
    optimizer = build_adam(model, "adam", rate=0.1, weight_decay=0.1)
    lowest = 1.0
    for _ in range(120):
        optimizer.zero_grad()
        model.calculate_loss(interaction(ROWS)).backward()
        optimizer.step()
        with torch.no_grad():
            model.alignment.temperature.raw -= 0.01  # push it down, as an objective would that likes it cold
        lowest = min(lowest, model.alignment.temperature().item())
    assert 0.00999 < lowest < 0.02
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


# --- training -------------------------------------------------------------------------------------------------------


def test_one_step_is_adam_with_decay_of_everything_but_the_temperature() -> None:
    rate, decay = 0.01, 0.1
    model = build().train()
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    optimizer = build_adam(model, "adam", rate=rate, weight_decay=decay)
    model.calculate_loss(interaction(ROWS)).backward()
    gradients = {name: value.grad.clone() for name, value in model.named_parameters()}
    optimizer.step()
    for name, value in model.named_parameters():
        gradient = gradients[name] + (0 if name in model.no_weight_decay() else decay * before[name])
        expected = before[name] - rate * gradient / (gradient.abs() + 1e-8)  # the first step's moments are g and g^2
        torch.testing.assert_close(value.detach(), expected, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


def test_eight_users_are_learnt_by_heart() -> None:
    torch.manual_seed(0)
    model = SESRec({**CONFIG, "dropout_prob": 0.1, "mlp_hidden_size": [20, 10]}, fake_dataset())
    rows = [Row(u, [u, u + 8], [Search(u, [u + 1], 1)], [u + 16, *range(1, 9)]) for u in range(1, 9)]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(200):
        optimizer.zero_grad()
        model.train().calculate_loss(interaction(rows)).backward()
        optimizer.step()
    with torch.no_grad():
        scores = model.eval().score(model.encode(interaction(rows)), candidates(rows))
    assert (scores[:, :1] > scores[:, 1:]).all()


@pytest.mark.parametrize("change", ["training step", "loading weights", "in place"])
def test_tables_of_an_evaluation_pass_follow_the_weights(change: str) -> None:
    model = build().eval()

    def scores() -> Tensor:
        with torch.no_grad():
            return model.score(model.encode(interaction(ROWS)), candidates(ROWS))

    before = scores()
    if change == "training step":
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        model.train().calculate_loss(interaction(ROWS)).backward()
        optimizer.step()
        model.eval()
    elif change == "loading weights":
        model.load_state_dict(build(seed=3).state_dict())
    else:
        with torch.no_grad():
            model.items.ids.weight.mul_(2)
    fresh = SESRec(CONFIG, fake_dataset()).eval()
    fresh.load_state_dict(model.state_dict())
    with torch.no_grad():
        expected = fresh.score(fresh.encode(interaction(ROWS)), candidates(ROWS))
    after = scores()
    assert (after - before).abs().max() > 1e-3
    torch.testing.assert_close(after, expected)


def test_a_result_says_that_the_co_attention_has_become_zero() -> None:
    model = build()
    assert model.remarks() == []
    with torch.no_grad():
        model.co_attention.affinity.mul_(1e-9)
    assert "no event is similar" in model.remarks()[0]
    assert not any(part.any() for part in model.similar_positions(interaction(ROWS)))


def test_the_whole_catalogue_is_scored_like_candidates() -> None:
    model = build().eval()
    with torch.no_grad():
        everything = model.full_sort_predict(interaction(ROWS))  # [B, items]
        scores = model.score(model.encode(interaction(ROWS)), candidates(ROWS))
    torch.testing.assert_close(everything.gather(1, candidates(ROWS)), scores)


def test_mixed_precision_trains() -> None:
    model = build().train()
    torch.manual_seed(5)
    expected = model.calculate_loss(interaction(ROWS))
    torch.manual_seed(5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model.calculate_loss(interaction(ROWS))
    loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    torch.testing.assert_close(loss.float(), expected, rtol=0.1, atol=0.1)


def test_initial_weights_are_the_published_ones() -> None:
    torch.manual_seed(0)
    dataset = fake_dataset(items=4000)
    model = SESRec({**CONFIG, "hidden_size": 32, "embedding_size": 32, "mlp_hidden_size": [200, 80]}, dataset)
    spread = {
        model.items.ids.weight[1:]: math.sqrt(2 / (4000 + 32)),
        model.mlp.first.weight: math.sqrt(2 / (200 + model.mlp.first.in_features)),
        model.rec_interest.weight: math.sqrt(2 / (32 * 32 + 32)),
        model.alignment.weight: math.sqrt(2 / 64),
        model.rec_encoder.layers[0].attention.input.weight: math.sqrt(2 / (4 * 32)),
    }
    for weight, expected in spread.items():
        assert abs(weight.std().item() / expected - 1) < 0.1
    assert model.rec_encoder.layers[0].attention.input.weight.abs().max() <= math.sqrt(6 / (4 * 32))  # uniform
    for module in model.modules():
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            assert (module.weight[0] == 0).all()
        if isinstance(module, nn.Linear) and module.bias is not None:
            assert (module.bias == 0).all()
