"""GSERec's second stage against a slow reference, and what its docstring promises."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from model_fakes import (
    ROWS,
    SIZES,
    assert_dropout_inside,
    assert_equals_reference,
    candidates,
    fake_dataset,
    interaction,
)
from reference.gserec_reference import GSERecReference
from reference.sesrec_reference import Row, Search
from torch import Tensor, nn

from recbole_ser.data.codes import UserCodes
from recbole_ser.errors import ConfigError
from recbole_ser.model.search_aware.gserec import GSERec
from recbole_ser.train.optimization import build_adam

CONFIG: dict[str, Any] = {
    **SIZES, "graph_layers": 2, "user_contrast_weight": 0.4, "history_contrast_weight": 0.3, "cross_attention": True,
    "contrast_similarity": "bilinear", "user_temperature": 0.5, "history_temperature": 0.3,
}  # fmt: skip
VARIANTS: dict[str, dict[str, Any]] = {
    "all": {},
    "without graph": {"graph_layers": 0},
    "one layer": {"graph_layers": 1},
    "three layers": {"graph_layers": 3},
    "without U-CL": {"user_contrast_weight": 0},
    "without His-CL": {"history_contrast_weight": 0},
    "without MCA": {"cross_attention": False},
    "cosine": {"contrast_similarity": "cosine"},
}
USERS = 16
# Every edge's weight is 1, 1/2 or 1/4, which single precision holds exactly; user 1 is twice in ``ROWS``.
SEARCH_CODES = {
    1: [1, 2, 3, 4], 2: [0, 2], 3: [13, 0, 14], 6: [1, 2, 5, 6], 7: [1, 3, 7, 8], 8: [1, 3, 9, 10],
    9: [2, 3, 11, 12], 10: [13, 15], 11: [0, 15, 14], 12: [16],
}  # fmt: skip
REC_CODES = {1: [1, 2], 3: [1, 3], 4: [0, 4, 2], 6: [3, 0, 4], 7: [0, 0, 5], 8: [5], 9: [5], 10: [5], 13: [6]}
WITHOUT_SEARCH_CODES, WITHOUT_REC_CODES, WITHOUT_CODES = 4, 2, 5


def table(codes: dict[int, list[int]], width: int) -> Tensor:
    rows = [codes.get(user, []) for user in range(USERS)]
    return torch.tensor([row + [0] * (width - len(row)) for row in rows])


def dataset(search: Tensor | None = None, rec: Tensor | None = None) -> SimpleNamespace:
    made = fake_dataset()
    made.user_num = USERS
    search = table(SEARCH_CODES, 4) if search is None else search
    rec = table(REC_CODES, 3) if rec is None else rec
    made.user_codes = UserCodes(search, rec, 18, 8, {}, "")
    return made


def random_codes(count: int, width: int) -> Tensor:
    """As many codes per user as it happens, all of them different."""
    generator = torch.Generator().manual_seed(4)
    drawn = torch.stack([torch.randperm(count - 1, generator=generator)[:width] + 1 for _ in range(USERS)])
    return drawn * (torch.rand(USERS, width, generator=generator) < 0.7) * (torch.arange(USERS) > 0).unsqueeze(1)


def build(data: SimpleNamespace | None = None, scale: float = 1.0, seed: int = 0, **values: Any) -> GSERec:
    """A model with weights so large that nothing in it is nearly linear or nearly zero."""
    torch.manual_seed(seed)
    model = GSERec({**CONFIG, **values}, data or dataset())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.endswith("temperature.raw"):
                spread = 0.2 if parameter.dim() == 1 else 0.5
                parameter.add_(torch.randn_like(parameter) * spread * scale)
            if name.endswith(("ids.weight", "table.weight")):
                parameter[0] = 0
    return model


def reference(
    model: GSERec, data: SimpleNamespace | None = None, **values: Any
) -> tuple[GSERecReference, dict[str, Tensor]]:
    weights = {name: value.detach().clone().requires_grad_() for name, value in model.named_parameters()}
    return GSERecReference(weights, data or dataset(), {**CONFIG, **values}), weights


def scores(model: GSERec, rows: list[Row] = ROWS, *sizes: int) -> Tensor:
    with torch.no_grad():
        return model.score(model.encode(interaction(rows, *sizes)), candidates(rows))


# --- against the reference ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS)
def test_states_and_scores_equal_the_reference(values: dict[str, Any]) -> None:
    model = build(**values).double()
    slow, _ = reference(model, **values)
    state = model.encode(interaction(ROWS))
    found = model.score(state, candidates(ROWS))
    vectors = itertools.cycle(model.user_vectors(state.users))  # of search, of recommendation, and again
    for number, row in enumerate(ROWS):
        expected = slow.encode(row)
        for ours, theirs in ((state.search, expected.search), (state.rec, expected.rec)):
            torch.testing.assert_close(ours.user[number], theirs.user)
            torch.testing.assert_close(next(vectors)[number], theirs.user)
            codes = list(ours.codes[number][ours.codes_mask[number]])
            torch.testing.assert_close(codes, theirs.codes)
            length = int(ours.mask[number].sum())
            torch.testing.assert_close(list(ours.history[number, :length]), theirs.states)
            torch.testing.assert_close(list(ours.enriched[number, :length]), theirs.enriched)
        torch.testing.assert_close(found[number], torch.stack([slow.score(expected, c) for c in row.candidates]))
    assert (found - found[:, :1])[:, 1:].abs().min() > 1e-3, "candidates score the same"


@pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS)
def test_losses_and_all_gradients_equal_the_reference(values: dict[str, Any]) -> None:
    model = build(**values).double().train()
    slow, weights = reference(model, **values)
    assert_equals_reference(model, model.losses(interaction(ROWS)), slow.losses(ROWS), weights)


def test_single_precision_is_within_1e_5_on_graphs_of_any_degrees() -> None:
    data = dataset(random_codes(18, 4), random_codes(8, 3))
    model = build(data, scale=0.5).train()
    slow, weights = reference(build(data, scale=0.5).double(), data)
    losses, expected = model.losses(interaction(ROWS)), slow.losses(ROWS)
    torch.stack(list(losses.values())).sum().backward()
    torch.stack(list(expected.values())).sum().backward()
    for name, loss in losses.items():
        torch.testing.assert_close(loss.double(), expected[name], rtol=1e-5, atol=1e-6)
    for name, parameter in model.named_parameters():
        worst = (parameter.grad.double() - weights[name].grad).abs().max()
        assert worst < 1e-5 * max(1, weights[name].grad.abs().max()), name


# --- ablations ------------------------------------------------------------------------------------------------------


def test_what_is_switched_off_does_not_exist() -> None:
    parameters = {key: {name for name, _ in build(**values).named_parameters()} for key, values in VARIANTS.items()}
    gone = {key: parameters["all"] - names for key, names in parameters.items()}
    contrasts = {
        f"{side}_contrast": {f"{side}_contrast.weight", f"{side}_contrast.temperature.raw"}
        for side in ("user", "search", "rec")
    }
    cross = {name for name in parameters["all"] if ".cross" in name}
    assert len(cross) == 2 * 6 and all("_fusion.layers.0.cross" in name for name in cross)
    assert gone == {
        "all": set(), "without graph": set(), "one layer": set(), "three layers": set(),
        "without U-CL": contrasts["user_contrast"],
        "without His-CL": contrasts["search_contrast"] | contrasts["rec_contrast"],
        "without MCA": cross,
        "cosine": {f"{name}.weight" for name in contrasts},
    }  # fmt: skip
    assert all(names <= parameters["all"] for names in parameters.values())
    losses = {key: set(build(**values).losses(interaction(ROWS))) for key, values in VARIANTS.items()}
    everything = {"rec", "user_contrast", "history_contrast"}
    switched = {"without U-CL": {"user_contrast"}, "without His-CL": {"history_contrast"}}
    assert losses == {key: everything - switched.get(key, set()) for key in VARIANTS}


def test_a_weight_scales_its_contrast_alone() -> None:
    batch = interaction(ROWS)
    once, twice = (build(user_contrast_weight=u, history_contrast_weight=h).losses(batch) for u, h in ((1, 1), (2, 3)))
    for name, factor in (("rec", 1), ("user_contrast", 2), ("history_contrast", 3)):
        torch.testing.assert_close(twice[name], factor * once[name])


@pytest.mark.parametrize(
    ("layers", "from_user", "from_codes"),
    [(0, [6], []), (1, [6], [3, 4, 6]), (2, [1, 2, 6, 7, 8, 9], [3, 4, 6]), (3, [1, 2, 6, 7, 8, 9], [1, 3, 4, 6])],
)
def test_which_users_messages_come_from(layers: int, from_user: list[int], from_codes: list[int]) -> None:
    """User 6 shares search codes with users 1, 2, 7, 8 and 9, and one rec code each with 3 and 4, who share with 1."""
    model = build(graph_layers=layers)
    state = model.encode(interaction([ROWS[5]]))
    for vectors, expected in ((state.search.user, from_user), (state.rec.codes, from_codes)):
        (gradient,) = torch.autograd.grad(
            vectors.square().sum(), model.users.weight, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        assert gradient.abs().sum(dim=1).nonzero().squeeze(1).tolist() == expected


@pytest.mark.parametrize(
    "values",
    [
        {"contrast_similarity": "dot"}, {"user_temperature": 0.01}, {"history_temperature": 0.0}, {"n_heads": 3},
        {"graph_layers": -1},
    ],
    ids=str,
)  # fmt: skip
def test_impossible_settings_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=str(next(iter(values.values()))).replace(".", r"\.")):
        GSERec({**CONFIG, **values}, dataset())


# --- contrasts ------------------------------------------------------------------------------------------------------


def test_instances_of_one_user_are_not_told_from_each_other() -> None:
    model = build().double()
    of_one_user = [ROWS[0], ROWS[6]]
    losses = model.losses(interaction(of_one_user))
    assert losses["user_contrast"].item() == 0 and losses["history_contrast"].item() == 0
    torch.stack(list(losses.values())).sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters() if parameter.grad is not None)
    with torch.no_grad():
        pair = model.losses(interaction([ROWS[0], ROWS[5]]))["user_contrast"]
        thrice = model.losses(interaction([ROWS[0], ROWS[6], ROWS[0], ROWS[5]]))["user_contrast"]
        state = model.encode(interaction([ROWS[0], ROWS[5]]))
        logits = torch.tanh(state.search.user @ model.user_contrast.weight @ state.rec.user.T) / 0.5  # [2, 2]
    powers = logits.exp().tolist()
    (a, ab), (ba, b) = powers
    sums = (math.log(1 + ab / a) + math.log(1 + ba / a)) / 2, (math.log(1 + ba / b) + math.log(1 + ab / b)) / 2
    assert pair.item() == pytest.approx(0.4 * sum(sums) / 2)
    first = (math.log(1 + ab / a) + math.log(1 + ba / a)) / 2  # each of three, against one other user
    second = (math.log(1 + 3 * ba / b) + math.log(1 + 3 * ab / b)) / 2
    assert thrice.item() == pytest.approx(0.4 * (3 * first + second) / 4)


def test_sides_without_history_or_codes_take_no_part_in_the_contrast_of_histories() -> None:
    model = build().double()
    with torch.no_grad():
        state = model.encode(interaction(ROWS))
        # Rows 0, 1, 5 and 6 have searches and search codes, rows 0, 2, 5 and 6 have items and rec codes.
        search = model.encode(interaction([ROWS[0], ROWS[1], ROWS[5], ROWS[6]]))
        rec = model.encode(interaction([ROWS[0], ROWS[2], ROWS[5], ROWS[6]]))
        for module, everything, taking_part in (
            (model.search_contrast, state.search, search),
            (model.rec_contrast, state.rec, rec),
        ):
            side = taking_part.search if module is model.search_contrast else taking_part.rec
            expected = model.contrast(module, side, taking_part.users)
            torch.testing.assert_close(model.contrast(module, everything, state.users), expected)
            assert expected > 0.01


@pytest.mark.parametrize("similarity", ["bilinear", "cosine"])
def test_a_batch_without_any_history_or_codes_has_finite_losses_and_gradients(similarity: str) -> None:
    model = build(contrast_similarity=similarity).train()
    losses = model.losses(interaction([ROWS[4], Row(14, [], [], [3, 4, 5, 6])]))
    assert losses["history_contrast"].item() == 0
    torch.stack(list(losses.values())).sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_temperatures_stay_above_their_minimum() -> None:
    names = {f"{name}_contrast.temperature.raw" for name in ("user", "search", "rec")}
    model = build().train()
    assert math.isclose(model.user_contrast.temperature().item(), 0.5, rel_tol=1e-6)
    assert math.isclose(model.search_contrast.temperature().item(), 0.3, rel_tol=1e-6)
    assert math.isclose(model.rec_contrast.temperature().item(), 0.3, rel_tol=1e-6)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in names:
                parameter.fill_(-3.0)
    assert model.search_contrast.temperature().item() == pytest.approx(0.01)
    losses = model.losses(interaction(ROWS))
    torch.stack(list(losses.values())).sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


# --- users and histories --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [0, 1, 2, 3])
def test_a_user_without_codes_is_a_node_without_edges(layers: int) -> None:
    model = build(graph_layers=layers).eval()
    own = model.users.weight / (layers + 1)
    state = model.encode(interaction(ROWS))
    for row in (number for number, row in enumerate(ROWS) if row.user == WITHOUT_CODES):
        torch.testing.assert_close(state.search.user[row], own[WITHOUT_CODES])
        torch.testing.assert_close(state.rec.user[row], own[WITHOUT_CODES])
    assert ROWS[3].user == WITHOUT_SEARCH_CODES and ROWS[1].user == WITHOUT_REC_CODES
    torch.testing.assert_close(state.search.user[3], own[WITHOUT_SEARCH_CODES])
    torch.testing.assert_close(state.rec.user[1], own[WITHOUT_REC_CODES])
    assert layers == 0 or (state.rec.user[3] - own[WITHOUT_SEARCH_CODES]).abs().max() > 1e-3
    assert not state.search.codes_mask[3].any() and not state.rec.codes_mask[1].any()


def test_empty_histories_are_pooled_to_zero() -> None:
    model = build().eval()
    state, targets = model.encode(interaction(ROWS)), model.items(candidates(ROWS))
    (search,) = model.search_interest(state.search.enriched, state.search.mask.unsqueeze(1), targets)
    (rec,) = model.rec_interest(state.rec.enriched, state.rec.mask.unsqueeze(1), targets)
    assert [bool(row.any()) for row in search] == [bool(row.searches) for row in ROWS]
    assert [bool(row.any()) for row in rec] == [bool(row.items) for row in ROWS]


def test_padding_learns_nothing() -> None:
    model = build().train()
    model.calculate_loss(interaction(ROWS)).backward()
    for module in (model.items.ids, model.queries.ids, model.users, model.search_graph.table, model.rec_graph.table):
        assert not module.weight.grad[0].any() and module.weight.grad.any()
    nobody = model.search_graph.table.weight.grad[17].any() or model.rec_graph.table.weight.grad[7].any()
    assert not nobody, "codes that no user has"


def test_scores_do_not_depend_on_padding_order_batch_or_other_candidates() -> None:
    model = build(MAX_ITEM_LIST_LENGTH=9, max_search_length=8).eval()
    expected = scores(model)
    torch.testing.assert_close(scores(model, ROWS, 9, 8, 5), expected)
    torch.testing.assert_close(scores(model, ROWS[::-1]).flip(0), expected)
    for number, row in enumerate(ROWS):
        with torch.no_grad():
            alone = model.score(model.encode(interaction([row])), candidates([row])[:, 1:3])
        torch.testing.assert_close(alone, expected[number : number + 1, 1:3])
    assert (expected[0] - expected[5]).abs().min() > 1e-3, "rows score the same: a mix-up would not be noticed"


def test_losses_and_gradients_do_not_depend_on_padding_or_order() -> None:
    model = build(MAX_ITEM_LIST_LENGTH=9, max_search_length=8).double()
    results = []
    for rows, *sizes in ((ROWS, 6, 5, 3), (ROWS, 9, 8, 5), (ROWS[::-1], 6, 5, 3)):
        model.zero_grad()
        losses = model.losses(interaction(rows, *sizes))
        torch.stack(list(losses.values())).sum().backward()
        results.append([*losses.values(), *(parameter.grad.clone() for parameter in model.parameters())])
    for other in results[1:]:
        for first, second in zip(results[0], other):
            torch.testing.assert_close(first, second)


def test_the_order_of_a_history_matters() -> None:
    model = build().eval()
    swapped = Row(1, [4, 3, *ROWS[0].items[2:]], ROWS[0].searches, ROWS[0].candidates)
    assert (scores(model, [swapped]) - scores(model, ROWS[:1])).abs().min() > 1e-4
    swapped = Row(1, ROWS[0].items, [ROWS[0].searches[1], ROWS[0].searches[0], *ROWS[0].searches[2:]], [9, 2, 3, 4])
    assert (scores(model, [swapped]) - scores(model, ROWS[:1])).abs().min() > 1e-4


# --- training and evaluation ----------------------------------------------------------------------------------------


def test_one_step_is_adam_with_decay_of_everything_but_temperatures_and_biases() -> None:
    rate, decay = 0.01, 0.1
    model = build().double().train()
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    optimizer = build_adam(model, "adam", rate=rate, weight_decay=decay)
    model.calculate_loss(interaction(ROWS)).backward()
    gradients = {name: value.grad.clone() for name, value in model.named_parameters()}
    optimizer.step()
    for name, value in model.named_parameters():
        spared = name.endswith("_contrast.temperature.raw") or "bias" in name  # LayerNorm's weights are decayed
        gradient = gradients[name] + (0 if spared else decay * before[name])
        first = (1 - 0.9) * gradient / (1 - 0.9)
        second = (1 - 0.999) * gradient.square() / (1 - 0.999)
        expected = before[name] - rate * first / (second.sqrt() + 1e-8)
        torch.testing.assert_close(value.detach(), expected, msg=lambda m, n=name: f"{n}: {m}")
        assert (value.detach() - before[name]).abs().max() > rate / 2, f"{name} does not move"


def test_users_are_learnt_by_heart() -> None:
    torch.manual_seed(0)
    model = GSERec({**CONFIG, "dropout_prob": 0.1, "mlp_hidden_size": [20, 10]}, dataset())
    rows = [Row(u, [u, u + 8], [Search(u, [u + 1], 1)], [u + 16, *range(1, 9)]) for u in range(1, 9)]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(80):
        optimizer.zero_grad()
        model.train().calculate_loss(interaction(rows)).backward()
        optimizer.step()
    found = scores(model.eval(), rows)
    assert (found[:, :1] > found[:, 1:]).all()


def test_graphs_are_propagated_once_per_evaluation_pass_and_in_every_training_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, calls = build(), []
    propagate = model.propagate
    monkeypatch.setattr(model, "propagate", lambda: calls.append(1) or propagate())
    model.eval()
    for _ in range(3):
        scores(model)
    assert len(calls) == 1
    model.train()
    for _ in range(2):
        model.calculate_loss(interaction(ROWS))
    assert len(calls) == 3
    model.eval()
    scores(model)
    assert len(calls) == 4


@pytest.mark.parametrize("change", ["training step", "loading weights", "a user", "a code"])
def test_evaluation_follows_the_weights(change: str) -> None:
    model = build().eval()
    before = scores(model)
    if change == "training step":
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        model.train().calculate_loss(interaction(ROWS)).backward()
        optimizer.step()
        model.eval()
    elif change == "loading weights":
        model.load_state_dict(build(seed=3).state_dict())
    else:
        weight = model.users.weight if change == "a user" else model.search_graph.table.weight
        with torch.no_grad():
            weight[7].mul_(3)  # in no row of the batch
    fresh = GSERec(CONFIG, dataset()).eval()
    fresh.load_state_dict(model.state_dict())
    after = scores(model)
    assert (after - before).abs().max() > 1e-3
    torch.testing.assert_close(after, scores(fresh))


def test_the_whole_catalogue_and_single_items_are_scored_like_candidates() -> None:
    model = build().eval()
    with torch.no_grad():
        everything = model.full_sort_predict(interaction(ROWS))  # [B, items]
        single = model.predict(interaction(ROWS))
    torch.testing.assert_close(everything.gather(1, candidates(ROWS)), scores(model))
    torch.testing.assert_close(single, scores(model)[:, 0])


def test_mixed_precision_trains() -> None:
    model = build(scale=0.5).train()
    expected = model.calculate_loss(interaction(ROWS))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model.calculate_loss(interaction(ROWS))
    loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    torch.testing.assert_close(loss.float(), expected, rtol=0.1, atol=0.1)


def test_position_wise_networks_have_dropout_inside() -> None:
    assert_dropout_inside(build(dropout_prob=0.5))


def test_initial_weights_are_the_published_ones() -> None:
    torch.manual_seed(0)
    data = dataset()
    codes = torch.ones(3000, 1, dtype=torch.int64)
    data.user_num, data.user_codes = 3000, UserCodes(codes, codes, 900, 600, {}, "")
    model = GSERec({**CONFIG, "hidden_size": 32, "mlp_hidden_size": [200, 80]}, data)
    spread = {
        model.users.weight: math.sqrt(2 / (3000 + 32)),
        model.search_graph.table.weight[1:]: math.sqrt(2 / (900 + 600 - 1 + 32)),  # one table of both sides' codes
        model.rec_graph.table.weight[1:]: math.sqrt(2 / (900 + 600 - 1 + 32)),
        model.mlp.first.weight: math.sqrt(2 / (200 + 5 * 32)),
        model.search_interest.weight: math.sqrt(2 / (32 * 32 + 32)),
        model.rec_contrast.weight: math.sqrt(2 / 64),
    }
    for weight, expected in spread.items():
        assert abs(weight.std().item() / expected - 1) < 0.1
    assert model.mlp.first.in_features == 5 * 32
    assert not model.search_graph.table.weight[0].any() and not model.rec_graph.table.weight[0].any()
    for module in model.modules():
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            assert not module.weight[0].any()
        if isinstance(module, nn.Linear) and module.bias is not None:
            assert not module.bias.any()
