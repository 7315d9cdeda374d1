"""LightGCN, SGL and SimGCL against a slow reference, and what their docstrings promise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from model_fakes import assert_equals_reference
from recbole.data.interaction import Interaction
from reference import graph_reference as slow
from torch import Tensor

from recbole_ser.config import SERConfig
from recbole_ser.errors import ConfigError
from recbole_ser.model.general import simgcl
from recbole_ser.model.general.lightgcn import LightGCN
from recbole_ser.model.general.sgl import SGL
from recbole_ser.model.general.simgcl import SimGCL
from recbole_ser.model.interaction_graph import GraphRecommender, InteractionGraph, Nodes, contrast_of_views
from recbole_ser.testing import ModelUnderTest

USERS, ITEMS, WIDTH = 8, 11, 5  # both with the padding id
PAIRS = [(1, 1), (1, 2), (1, 1), (2, 2), (2, 3), (2, 4), (3, 1), (3, 5), (4, 6), (5, 7), (5, 8), (5, 2), (6, 8)]
LAST = [(1, 9), (2, 10), (7, 3)]  # held out; user 7 has nothing else
ROWS = [(1, 1, [3, 5]), (2, 2, [1, 6]), (1, 2, [4, 4]), (3, 5, [2, 9]), (5, 2, [3, 10]), (6, 8, [1, 2])]
CONFIG: dict[str, Any] = {
    "USER_ID_FIELD": "user_id", "ITEM_ID_FIELD": "item_id", "LIST_SUFFIX": "_list", "NEG_PREFIX": "neg_",
    "ITEM_LIST_LENGTH_FIELD": "item_length", "MAX_ITEM_LIST_LENGTH": 5, "device": "cpu",
    "embedding_size": WIDTH, "n_layers": 3, "reg_weight": 0.3, "loss_type": "BPR",
    "drop_ratio": 0.3, "ssl_weight": 0.7, "ssl_tau": 0.4, "eps": 0.2,
}  # fmt: skip
MODELS = [LightGCN, SGL, SimGCL]
NAMES = [model.__name__ for model in MODELS]


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def fake_dataset() -> SimpleNamespace:
    users, items = torch.tensor([*PAIRS, *LAST], dtype=torch.int32).t()
    return SimpleNamespace(
        user_num=USERS, item_num=ITEMS, target_num=ITEMS, num={"user_id": USERS, "item_id": ITEMS}.__getitem__,
        log=SimpleNamespace(users=users, items=items),
        split=SimpleNamespace(training_interactions=torch.arange(len(PAIRS), dtype=torch.int32)),
    )  # fmt: skip


def build(model: type[GraphRecommender], **values: Any) -> Any:
    """A model with large weights, so that nothing in it is nearly linear."""
    torch.manual_seed(0)
    built = model({**CONFIG, **values}, fake_dataset())
    with torch.no_grad():
        for parameter in built.parameters():
            parameter[1:] += torch.randn_like(parameter[1:])
    return built


def batch(rows: list[tuple[int, int, list[int]]] = ROWS) -> Interaction:
    users, items, negatives = (torch.tensor(column) for column in zip(*rows))
    return Interaction({"user_id": users, "item_id": items, "neg_item_id": negatives})


def weights_of(model: GraphRecommender) -> dict[str, Tensor]:
    return {name: value.detach().clone().requires_grad_() for name, value in model.named_parameters()}


def layer_0(weights: dict[str, Tensor]) -> Tensor:
    return torch.cat([weights["user_embedding.weight"], weights["item_embedding.weight"]])


def edges_of(graph: InteractionGraph) -> list[tuple[int, int]]:
    return list(zip(graph.users.tolist(), graph.items.tolist()))


WHOLE = slow.adjacency(PAIRS, USERS, ITEMS)


def vectors(model: GraphRecommender, weights: dict[str, Tensor]) -> Tensor:
    """e of all nodes, users first."""
    return slow.mean(slow.layers(WHOLE, layer_0(weights), 3)[model.first_layer :])


def expected_losses(model: GraphRecommender, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The losses that all three models share."""
    start, found = layer_0(weights), vectors(model, weights)
    whole = model.loss_type == "CE"

    def score(user: int, item: int) -> Tensor:
        return sum(found[user][n] * found[USERS + item][n] for n in range(WIDTH))

    scores = [
        (score(user, item), [score(user, other) for other in (range(1, ITEMS) if whole else negatives)])
        for user, item, negatives in ROWS
    ]
    kept = [start[user] for user, _, _ in ROWS] + [start[USERS + item] for _, item, _ in ROWS]
    if not whole:
        kept += [start[USERS + other] for _, _, negatives in ROWS for other in negatives]
    rec = slow.softmax(scores) if whole else slow.bpr(scores)
    return {"rec": rec, "regularisation": 0.3 * slow.half_squares(kept, len(ROWS))}


def expected_contrast(left: Tensor, right: Tensor) -> Tensor:
    of_users = slow.contrast(left, right, [user for user, _, _ in ROWS], 0.4)
    of_items = slow.contrast(left, right, [USERS + item for _, item, _ in ROWS], 0.4)
    return 0.7 * (of_users + of_items)


# --- the reference --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model_class", MODELS, ids=NAMES)
def test_scores_equal_the_reference(model_class: type[GraphRecommender]) -> None:
    model = build(model_class).eval()
    found = vectors(model, weights_of(model)).detach()
    items = torch.arange(ITEMS).expand(USERS, -1)
    rows = Interaction({"user_id": torch.arange(USERS), "item_id": torch.ones(USERS, dtype=torch.int64)})
    torch.testing.assert_close(model.score(model.encode(rows), items), found[:USERS] @ found[USERS:].t())
    with torch.no_grad():
        torch.testing.assert_close(model.full_sort_predict(rows), found[:USERS] @ found[USERS:].t())


@pytest.mark.parametrize("loss_type", ["BPR", "CE"])
def test_lightgcn_losses_and_gradients_equal_the_reference(loss_type: str) -> None:
    model = build(LightGCN, loss_type=loss_type).train()
    weights = weights_of(model)
    assert_equals_reference(model, model.losses(batch()), expected_losses(model, weights), weights)


@pytest.mark.parametrize("loss_type", ["BPR", "CE"])
def test_sgl_losses_and_gradients_equal_the_reference(loss_type: str) -> None:
    model = build(SGL, loss_type=loss_type).train()
    weights = weights_of(model)
    views = [
        slow.mean(slow.layers(slow.adjacency(edges_of(graph), USERS, ITEMS), layer_0(weights), 3))
        for graph in model.views
    ]
    expected = {**expected_losses(model, weights), "contrast": expected_contrast(*views)}
    assert_equals_reference(model, model.losses(batch()), expected, weights)


@pytest.mark.parametrize("loss_type", ["BPR", "CE"])
def test_simgcl_losses_and_gradients_equal_the_reference(loss_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, drawn, draw = build(SimGCL, loss_type=loss_type).train(), [], simgcl.random_int16
    weights = weights_of(model)
    monkeypatch.setattr(simgcl, "random_int16", lambda *arguments: drawn.append(draw(*arguments)) or drawn[-1].clone())
    losses = model.losses(batch())
    assert [len(sides) for sides in drawn] == [USERS, ITEMS] * 6  # two views of three layers
    noise = [torch.cat(drawn[n : n + 2]).double() % 2**15 for n in range(0, 12, 2)]
    views = [
        slow.mean(slow.layers(WHOLE, layer_0(weights), 3, slow.noisy(part, 0.2))[1:])
        for part in (noise[:3], noise[3:])
    ]  # fmt: skip
    expected = {**expected_losses(model, weights), "contrast": expected_contrast(*views)}
    assert_equals_reference(model, losses, expected, weights)


# --- the graph ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("layers", "first"), [(1, 0), (1, 1), (2, 1), (4, 0)])
def test_the_propagation_and_its_gradient_are_those_of_the_dense_matrix(layers: int, first: int) -> None:
    graph = InteractionGraph.of_training(fake_dataset())
    users, items = torch.randn(USERS, 3, requires_grad=True), torch.randn(ITEMS, 3, requires_grad=True)
    found = graph(Nodes(users, items), layers, first)
    expected = slow.mean(slow.layers(WHOLE, torch.cat([users, items]), layers)[first:])
    torch.testing.assert_close(torch.cat(found), expected)
    incoming = torch.randn_like(expected)
    gradients = torch.autograd.grad(found, (users, items), incoming.split([USERS, ITEMS]))
    torch.testing.assert_close(gradients, torch.autograd.grad(expected, (users, items), incoming))


def test_the_graph_has_every_pair_of_the_training_period_once_and_nothing_else(tmp_path: Path) -> None:
    dataset = ModelUnderTest("LightGCN", tmp_path).dataset
    log, split = dataset.log, dataset.split
    pairs = [(int(user), int(item)) for user, item in zip(log.users, log.items)]
    training = {pairs[place] for place in split.training_interactions}
    held_out = {pairs[place] for place in torch.cat([split.valid, split.test])}
    edges = edges_of(InteractionGraph.of_training(dataset))
    assert set(edges) == training and len(edges) == len(training)
    assert held_out - training, "no held-out pair is new"


def test_a_graph_without_edges_propagates_nothing() -> None:
    graph = InteractionGraph.of_training(fake_dataset()).without_some_edges(1.0)
    found = graph(Nodes(torch.ones(USERS, 2), torch.ones(ITEMS, 2)), layers=3)
    assert len(graph.users) == 0 and all((side == 0.25).all() for side in found)


def test_half_of_the_edges_are_left_out_with_a_probability_of_a_half() -> None:
    torch.manual_seed(0)
    edges = torch.arange(10_000, dtype=torch.int32)
    users, items = edges // 100, edges % 100
    graph = InteractionGraph(users, items, 100, 100)
    kept = graph.without_some_edges(0.5)
    assert 4_800 < len(kept.users) < 5_200 and set(edges_of(kept)) < set(edges_of(graph))
    assert edges_of(kept) != edges_of(graph.without_some_edges(0.5))


# --- users and items that are not in the graph ----------------------------------------------------------------------


@pytest.mark.parametrize("model_class", MODELS, ids=NAMES)
def test_unknown_users_are_zero_and_those_without_edges_their_own_part_of_the_mean(
    model_class: type[GraphRecommender],
) -> None:
    model = build(model_class)
    found, start = model.propagated(), model.layer_0
    assert not found.users[0].any() and not found.items[0].any()
    share = 0.0 if model_class is SimGCL else 0.25
    torch.testing.assert_close(found.users[7], share * start.users[7])
    torch.testing.assert_close(found.items[9:], share * start.items[9:])
    assert found.users[1:7].any(dim=1).all() and found.items[1:9].any(dim=1).all()


# --- SGL's graphs ---------------------------------------------------------------------------------------------------


def test_the_views_change_with_the_epoch_and_not_within_one() -> None:
    model = build(SGL, drop_ratio=0.5).train()
    seen = []
    for epoch in (0, 1):
        torch.manual_seed(epoch)
        model.begin_epoch(epoch)
        before = [edges_of(graph) for graph in model.views]
        model.calculate_loss(batch()).backward()
        model.calculate_loss(batch()).backward()
        assert [edges_of(graph) for graph in model.views] == before and before[0] != before[1]
        seen.append(before)
    assert seen[0] != seen[1] and edges_of(model.graph) == sorted(set(PAIRS))


def test_a_resumed_run_has_the_views_of_the_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trainer seeds an epoch before the graphs are drawn, so that they depend on seed and epoch alone."""
    torch.set_default_dtype(torch.float32)
    from recbole_ser import resume, run

    drawn: list[Any] = []
    begin = SGL.begin_epoch

    def recorded(model: SGL, epoch: int) -> None:
        begin(model, epoch)
        drawn.append((epoch, [edges_of(graph) for graph in model.views]))

    def interrupt(epoch: int, valid: dict[str, float]) -> None:
        if epoch == 1:
            raise KeyboardInterrupt

    under_test = ModelUnderTest("SGL", tmp_path)
    assert under_test.dataset
    values = {"data_path": str(tmp_path), "epochs": 3, "embedding_size": 4, "eval_args": {"mode": "uni5"},
              "require_both_histories": False, "show_progress": False, "state": "WARNING"}  # fmt: skip
    monkeypatch.setattr(SGL, "begin_epoch", recorded)
    whole = run("SGL", "contract", config_dict={**values, "run_dir": str(tmp_path / "whole")})
    expected, drawn[:] = drawn[1:], []  # without that of the construction
    with pytest.raises(KeyboardInterrupt):
        run("SGL", "contract", config_dict={**values, "run_dir": str(tmp_path / "cut")}, callback=interrupt)
    drawn.clear()
    result = resume(tmp_path / "cut")
    assert drawn[1:] == expected[2:] and [epoch for epoch, _ in expected] == [0, 1, 2]
    assert result.test == whole.test and result.valid == whole.valid
    assert len({str(views) for _, views in expected}) == 3


# --- SimGCL's noise -------------------------------------------------------------------------------------------------


def test_the_noise_of_a_node_has_length_eps_and_keeps_the_signs() -> None:
    model = build(SimGCL)
    table = torch.randn(400, WIDTH)
    table[0] = 0
    noise = model.disturbed(table) - table
    torch.testing.assert_close(noise.norm(dim=1)[1:], torch.full((399,), 0.2))
    assert not noise[0].any() and (noise.sign()[1:] == table.sign()[1:]).all()
    assert (noise - (model.disturbed(table) - table))[1:].abs().sum(dim=1).min() > 1e-3, "the noise is not drawn anew"


def test_the_noise_has_the_directions_of_uniform_numbers() -> None:
    torch.manual_seed(0)
    noise = build(SimGCL, eps=1.0).disturbed(torch.full((20_000, 2), 1e-9))
    angles = torch.atan2(noise[:, 1], noise[:, 0])
    uniform = torch.rand(20_000, 2)
    expected = torch.atan2(uniform[:, 1], uniform[:, 0])
    torch.testing.assert_close(angles.quantile(torch.arange(0.1, 1, 0.1)), expected.quantile(torch.arange(0.1, 1, 0.1)),
                               atol=0.02, rtol=0)  # fmt: skip


def test_noise_of_one_layer_enters_the_next() -> None:
    """The mean of two layers differs from the undisturbed one by more than the layers' own noise could make."""
    model = build(SimGCL, n_layers=2)
    graph, start = model.graph, model.layer_0
    first = iter([True, True, False, False])  # both sides of the first layer are disturbed, the second is not

    def change(table: Tensor) -> Tensor:
        return table + 1 if next(first) else table

    found = graph.mean(start, 2, 1, change)
    clean = graph.mean(start, 2, 1)
    ones = Nodes(torch.ones(USERS, WIDTH), torch.ones(ITEMS, WIDTH))
    second = Nodes(graph.to_users(ones.items), graph.to_items(ones.users))
    for side in range(2):
        torch.testing.assert_close(found[side] - clean[side], (ones[side] + second[side]) / 2)


# --- the contrast, and the rest -------------------------------------------------------------------------------------


def test_the_contrast_does_not_depend_on_lengths_and_is_least_for_equal_orthogonal_views() -> None:
    views = Nodes(torch.eye(4), torch.eye(4)[:3])
    least = contrast_of_views(views, Nodes(views.users * 5, views.items * 7), 0.01)
    assert least.item() == pytest.approx(0, abs=1e-9)
    assert contrast_of_views(views, Nodes(views.users.flip(0), views.items), 0.01) > 50


@pytest.mark.parametrize("model_class", MODELS, ids=NAMES)
def test_a_step_propagates_once_and_an_evaluation_pass_too(
    model_class: type[GraphRecommender], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, calls = build(model_class).train(), []
    forward = InteractionGraph.forward
    monkeypatch.setattr(
        InteractionGraph, "forward", lambda graph, *a: calls.append(graph is model.graph) or forward(graph, *a)
    )
    model.losses(batch())
    assert calls.count(True) == 1 and calls.count(False) == (2 if model_class is SGL else 0)
    calls.clear()
    model.eval()
    with torch.no_grad():
        for _ in range(3):
            model.score(model.encode(batch()), batch()["neg_item_id"])
    assert len(calls) == 1


@pytest.mark.parametrize("model_class", [SGL, SimGCL])
def test_the_same_state_of_the_generator_gives_the_same_losses(model_class: type[GraphRecommender]) -> None:
    totals = []
    for seed in (3, 3, 4):
        model = build(model_class).train()
        torch.manual_seed(seed)
        model.begin_epoch(0)
        totals.append(model.calculate_loss(batch()).item())
    assert totals[0] == totals[1] != totals[2]


@pytest.mark.parametrize(
    ("model", "key", "value"),
    [
        ("LightGCN", "n_layers", 0),
        ("LightGCN", "reg_weight", -1.0),
        ("LightGCN", "embedding_size", 0),
        ("LightGCN", "hidden_size", 8),
        ("SGL", "drop_ratio", 1.0),
        ("SGL", "ssl_tau", 0.0),
        ("SimGCL", "eps", 0.0),
        ("SimGCL", "ssl_weight", -0.1),
        ("SimGCL", "drop_ratio", 0.1),
    ],
)
def test_invalid_settings_are_refused_in_one_line(model: str, key: str, value: Any) -> None:
    torch.set_default_dtype(torch.float32)
    with pytest.raises(ConfigError, match=key) as error:
        SERConfig(model, "ser-sample", None, {key: value})
    assert "\n" not in str(error.value)
