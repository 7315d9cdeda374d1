"""SRJGraph against a slow reference, what its graph holds, and what is hidden from whom."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import load_dataset, write_toy
from recbole.data.interaction import Interaction
from reference.srjgraph_reference import ITEM, USER, Graph, Reference, Tree
from torch import Tensor

from recbole_ser.data.loader import JointBatch
from recbole_ser.data.relations import TrainingClicks
from recbole_ser.errors import ConfigError
from recbole_ser.model.search_aware.srjgraph import SRJGraph, Walk
from recbole_ser.testing import CHECKS, ModelUnderTest

CONFIG: dict[str, Any] = {
    "USER_ID_FIELD": "user_id", "ITEM_ID_FIELD": "item_id", "LIST_SUFFIX": "_list", "NEG_PREFIX": "neg_",
    "ITEM_LIST_LENGTH_FIELD": "item_length", "MAX_ITEM_LIST_LENGTH": 4, "device": "cpu",
    "embedding_size": 5, "item_attribute_size": 3, "query_embedding_size": 4, "term_embedding_size": 3,
    "user_embedding_size": 4, "user_attribute_size": 2, "hidden_size": 6, "fan_outs": [3, 2], "dropout_prob": 0.0,
    "mlp_hidden_size": [12, 8], "search_weight": 0.5,
}  # fmt: skip

USERS, ITEMS, QUERIES = 8, 12, 6  # counting the padding ids; user 7 and items 10 and 11 have no edges
EDGES = [  # (user, query, item); query 0 is an interaction
    (1, 0, 1), (1, 0, 2), (2, 0, 1), (2, 0, 3), (2, 0, 1), (3, 0, 4), (4, 0, 4), (4, 0, 5), (4, 0, 6), (4, 0, 7),
    (4, 0, 8), (5, 0, 2), (6, 0, 9), (1, 1, 2), (1, 2, 9), (2, 3, 3), (3, 1, 5), (5, 4, 2), (5, 5, 8), (4, 2, 1),
]  # fmt: skip


def fake_dataset(edges: list[tuple[int, int, int]] = EDGES) -> SimpleNamespace:
    generator = torch.Generator().manual_seed(1)
    bought = torch.tensor([(user, item) for user, query, item in edges if not query], dtype=torch.int32).view(-1, 2)
    clicked = torch.tensor([edge for edge in edges if edge[1]], dtype=torch.int64).view(-1, 3)
    attributes = {"kind": torch.randint(0, 5, (ITEMS,), generator=generator, dtype=torch.int32)}
    return SimpleNamespace(
        user_num=USERS, item_num=ITEMS, target_num=ITEMS, query_num=QUERIES, term_num=9,
        num={"item_id": ITEMS, "kind": 5}.__getitem__,
        query_terms=torch.randint(0, 9, (QUERIES, 3), generator=generator, dtype=torch.int32),
        item_attributes=attributes, user_attributes={}, item_numbers={}, user_numbers={},
        log=SimpleNamespace(users=bought[:, 0], items=bought[:, 1]),
        split=SimpleNamespace(training_interactions=torch.arange(len(bought), dtype=torch.int32)),
        training_clicks=TrainingClicks(clicked[:, 0], torch.arange(len(clicked)), clicked[:, 1], clicked[:, 2]),
    )  # fmt: skip


def graph_of(edges: list[tuple[int, int, int]] = EDGES) -> Graph:
    """With the edges of recommendation first, as the model has them."""
    return Graph([edge for edge in edges if not edge[1]] + [edge for edge in edges if edge[1]])


def build(edges: list[tuple[int, int, int]] = EDGES, **values: Any) -> SRJGraph:
    """A model with weights so large that nothing in it is nearly linear or nearly zero."""
    torch.manual_seed(0)
    model = SRJGraph({**CONFIG, **values}, fake_dataset(edges))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(torch.randn_like(parameter) * (0.2 if name.endswith("bias") else 0.5))
            if name.endswith(("ids.weight", "table.weight")):
                parameter[0] = 0
    return model


def batch_of(rows: list[tuple[int, int, list[int]]]) -> Interaction:
    """Rows of user, query and items, the positive first."""
    users, queries, items = (torch.tensor(column) for column in zip(*rows))
    columns = {"user_id": users, "query_id": queries, "item_id": items[:, 0], "neg_item_id": items[:, 1:]}
    return Interaction(columns)


# Positives are neighbours, as in training; so is a negative that was clicked (row 0: 9, row 4: 8).
ROWS = [(1, 1, [2, 9, 4, 10]), (2, 3, [1, 5, 6, 11]), (3, 1, [4, 7, 1, 2]), (4, 2, [1, 2, 3, 9]), (5, 4, [2, 8, 1, 4])]
OTHERS = [(6, 5, [9, 1, 10, 3]), (7, 1, [3, 10, 4, 11]), (1, 2, [9, 3, 5, 6])]
ALL = ROWS + OTHERS


def items_of(rows: list[tuple[int, int, list[int]]]) -> Tensor:
    return torch.tensor([items for _, _, items in rows])


def trees(walk: Walk, fan_outs: list[int]) -> list[Tree]:
    """The rows of a walk; 0 is nothing."""

    def children(row: int, hop: int, place: int) -> list[Tree]:
        if hop == len(fan_outs):
            return []
        places = range(place * fan_outs[hop], (place + 1) * fan_outs[hop])
        nodes, queries = walk.nodes[hop + 1][row].tolist(), walk.queries[hop][row].tolist()
        return [Tree(nodes[p], queries[p], children(row, hop + 1, p)) for p in places if nodes[p]]

    return [Tree(int(root), 0, children(row, 0, 0)) for row, root in enumerate(walk.nodes[0])]


def gradients(model: SRJGraph, values: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    values.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def assert_equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], msg=lambda text, n=name: f"{n}: {text}")


# --- against the reference ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fan_outs", [[3, 2], [2], [5, 4]])
@pytest.mark.parametrize("search", [False, True])
def test_evaluation_equals_the_reference(search: bool, fan_outs: list[int]) -> None:
    model, graph = build(fan_outs=fan_outs).double().eval(), graph_of()
    slow, batch, items = Reference(model), batch_of(ALL), items_of(ALL)

    def scores() -> Tensor:
        if search:
            return model.score_search(model.encode_search(batch), batch["query_id"], items)
        return model.score(model.encode(batch), items)

    expected = torch.stack(
        [
            slow.logit(
                graph.spaced(USER, user, 0, fan_outs), graph.spaced(ITEM, item, 0, fan_outs),
                query if search else 0, ({item}, {user}),
            )
            for user, query, candidates in ALL for item in candidates
        ]
    ).view(items.shape)  # fmt: skip
    torch.testing.assert_close(scores(), expected)
    with torch.no_grad():
        torch.testing.assert_close(scores(), expected)
    assert (expected[0] - expected[1]).abs().min() > 1e-3
    weights = torch.randn(items.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    assert_equal(gradients(model, (scores() * weights).sum()), gradients(model, (expected * weights).sum()))


@pytest.mark.parametrize("fan_outs", [[3, 2], [2]])
@pytest.mark.parametrize("search", [False, True])
def test_training_equals_the_reference_for_the_neighbours_drawn(search: bool, fan_outs: list[int]) -> None:
    model = build(fan_outs=fan_outs).double().train()
    slow, items = Reference(model), items_of(ROWS)
    torch.manual_seed(2)
    batch = model._walked(batch_of(ROWS))
    torch.manual_seed(4)
    others = model.neighbours(ITEM, items, 1)[0].squeeze(2)
    torch.manual_seed(4)
    loss = (model.search_losses(batch)["search"]) if search else model.rec_losses(batch)["rec"]

    users, item_trees = (trees(walk, fan_outs) for walk in batch.walks)
    pairs = []
    for row, (user, query, candidates) in enumerate(ROWS):
        for column, item in enumerate(candidates):
            hidden_user = user if column == 0 else int(others[row, column])
            tree = item_trees[row * len(candidates) + column]
            assert (users[row].node, tree.node) == (user, item)
            hidden = ({item, candidates[0]}, {user, hidden_user})
            logit = slow.logit(users[row], tree, query if search else 0, hidden)
            label = torch.tensor(float(column == 0), dtype=torch.float64)
            pairs.append(F.binary_cross_entropy_with_logits(logit, label))
    expected = torch.stack(pairs).mean()
    torch.testing.assert_close(loss, expected)
    assert_equal(gradients(model, loss), gradients(model, expected))


def test_embedding_everything_once_changes_no_loss_and_no_gradient() -> None:
    model = build().double().train()
    rows = batch_of(ROWS).interaction
    batch = JointBatch(rows, Interaction(rows))
    results = []
    for at_once in (True, False):
        torch.manual_seed(6)
        if at_once:
            losses = model.losses(batch)
        else:
            search = model._walked(batch.search)
            walked = model._walked(batch)
            losses = {**model.rec_losses(walked), "search": 0.5 * model.search_losses(search)["search"]}
        results.append((losses, gradients(model, torch.stack(list(losses.values())).sum())))
    assert list(results[0][0]) == ["rec", "search"]
    assert_equal(results[0][0], results[1][0])
    assert_equal(results[0][1], results[1][1])


def test_evaluation_is_deterministic_and_training_draws_anew() -> None:
    model = build().eval()
    batch, items = batch_of(ALL), items_of(ALL)
    with torch.no_grad():
        assert torch.equal(model.score(model.encode(batch), items), model.score(model.encode(batch), items))
        model.train()
        first, second = (model.losses(batch)["rec"] for _ in range(2))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("fan_outs", [[3, 2], [4]])
def test_a_walk_draws_as_many_neighbours_as_it_is_told(fan_outs: list[int]) -> None:
    model = build(fan_outs=fan_outs).train()
    walk = model.walk(USER, torch.tensor([1, 7]))
    sizes = [1, fan_outs[0], fan_outs[0] * fan_outs[1]] if len(fan_outs) == 2 else [1, fan_outs[0]]
    assert [nodes.shape[1] for nodes in walk.nodes] == sizes
    assert [queries.shape[1] for queries in walk.queries] == sizes[1:]
    assert not any(nodes[1].any() for nodes in walk.nodes[1:]), "user 7 has no edges"


# --- the graph ------------------------------------------------------------------------------------------------------


def test_the_graph_is_every_training_event_and_nothing_later(tmp_path: Path) -> None:
    """Validation targets are at 40; searches at that time and later, and clicks of late items, are planted."""
    inter = [f"u{user} i{user + number} {10 * number}" for user in range(4) for number in range(1, 4)]
    search = [f"u{user} q{number} {5 + 10 * number} i{number},c{user}" for user in range(4) for number in range(3)]
    late = [f"u{user} late{time} {time}" for user in range(4) for time in (40, 50)]
    secrets = [f"u{user} secret {time} late40,i1" for user in range(4) for time in (40, 45, 60)]
    write_toy(tmp_path, inter=[*inter, *late], search=[*search, *secrets])
    dataset = load_dataset(tmp_path, "toy", SRJGraph)
    users, items, queries = (dataset.field2id_token[field] for field in ("user_id", "item_id", "query_id"))
    expected: Counter = Counter((*row.split(" ")[:2], "[PAD]") for row in inter)
    for row in search:
        user, query, _, clicks = row.split(" ")
        expected.update((user, click, query) for click in clicks.split(","))
    assert len(dataset.split.valid) == 4 and expected.total() == 12 + 24
    of_users, of_items = SRJGraph(dataset.config, dataset).relations
    found: list[Counter] = []
    for relation, keys, values in ((of_users, users, items), (of_items, items, users)):
        owners = torch.repeat_interleave(torch.arange(len(keys)), relation.start.diff())
        found.append(
            Counter(
                (str(keys[owner]), str(values[value]), str(queries[query]))
                for owner, value, query in zip(owners, relation.values, relation.attribute)
            )
        )
    assert found[0] == expected
    assert found[1] == Counter({(item, user, query): n for (user, item, query), n in expected.items()})


# --- what is hidden -------------------------------------------------------------------------------------------------


def results(edges: list[tuple[int, int, int]], user: int, item: int, search: bool) -> list[Tensor]:
    """What depends on the pair: its score, and the loss of a row with it as the positive, over several draws."""
    model = build(edges).double()
    batch = batch_of([(user, 2, [item, 6, 7, 10])])
    found = []
    for mode in (True, False):
        model.train(mode)
        for seed in range(5):
            torch.manual_seed(seed)
            with torch.no_grad():
                if mode:
                    found.append(model.losses(JointBatch(batch.interaction, batch if search else None))["rec"])
                elif search:
                    state = model.encode_search(batch)
                    found.append(model.score_search(state, batch["query_id"], items_of([(user, 2, [item, 11])]))[0, 0])
                else:
                    found.append(model.score(model.encode(batch), torch.tensor([[item, 11]]))[0, 0])
    return found


@pytest.mark.parametrize("search", [False, True])
@pytest.mark.parametrize(("user", "item"), [(1, 2), (2, 1), (4, 1)])
def test_what_the_target_edge_says_changes_nothing(user: int, item: int, search: bool) -> None:
    """The edge is there twice, and drawn, but its queries are others."""
    rest = [edge for edge in EDGES if (edge[0], edge[2]) != (user, item)]
    one, other = ([*rest, (user, query, item), (user, query, item)] for query in (4, 5))
    for first, second in zip(results(one, user, item, search), results(other, user, item, search)):
        torch.testing.assert_close(first, second)


@pytest.mark.parametrize("search", [False, True])
def test_without_the_target_edge_everything_is_the_same(search: bool) -> None:
    """User 6 and item 9, with no other edge: what is drawn for the other nodes does not change with this one."""
    rest = [edge for edge in EDGES if edge[2] != 9 and edge[0] != 6]
    for with_edge in ([(6, 0, 9)], [(6, 0, 9), (6, 2, 9)], [(6, 3, 9)] * 3):
        both = results([*rest, *with_edge], 6, 9, search), results(rest, 6, 9, search)
        for first, second in zip(*both):
            torch.testing.assert_close(first, second)


def test_another_edge_of_the_same_nodes_does_change_the_score() -> None:
    rest = [edge for edge in EDGES if edge[2] != 9 and edge[0] != 6]
    scores = [results([*rest, *more], 6, 9, False)[-1] for more in ([], [(6, 0, 5)], [(5, 0, 9)])]
    assert (scores[0] - scores[1]).abs() > 1e-3 and (scores[0] - scores[2]).abs() > 1e-3


def item_vector(model: SRJGraph, user: int, item: int, target: int, seed: int = 0) -> Tensor:
    """h of ``item`` for ``user`` in training, where ``target`` is the positive."""
    torch.manual_seed(seed)
    state = model.encode(batch_of([(user, 0, [target, target])]))
    return model._items_of_rows(state, model.no_query.unsqueeze(0), torch.tensor([[item]]))[0, 0]


def test_each_negative_misses_a_neighbour_as_each_positive_does() -> None:
    """Item 1 has the users 1 and 2; one of them is hidden from it, and never both."""
    edges = [(1, 0, 1), (2, 1, 1), (3, 0, 2)]
    model = build(edges, fan_outs=[20]).double().train()
    with torch.no_grad():
        alone = {user: build([edge for edge in edges if edge[0] != user], fan_outs=[20]).double() for user in (1, 2)}
        without = {user: item_vector(one, 3, 1, target=1) for user, one in alone.items()}
        for user in (1, 2):
            torch.testing.assert_close(item_vector(model, user, 1, target=1), without[user])
        seen: Counter = Counter()
        for seed in range(40):
            vector = item_vector(model, 3, 1, target=2, seed=seed)
            matches = [user for user in (1, 2) if torch.allclose(vector, without[user])]
            assert len(matches) == 1
            seen.update(matches)
        assert min(seen[1], seen[2]) > 8, "either is hidden about half of the time"
        lonely = build([(1, 0, 1), (3, 0, 2)], fan_outs=[20]).double().train()
        nothing = build([(3, 0, 2)], fan_outs=[20]).double().train()
        torch.testing.assert_close(item_vector(lonely, 3, 1, target=2), item_vector(nothing, 3, 1, target=2))


def test_all_candidates_of_a_training_row_meet_the_same_user() -> None:
    """The positive is hidden from the user for the negatives too: what is drawn of it changes none of their scores."""
    users = []
    for query in (4, 5):
        edges = [(u, query if (u, i) == (1, 2) else q, i) for u, q, i in EDGES]
        model = build(edges).double().train()
        torch.manual_seed(1)
        with torch.no_grad():
            state = model.encode(batch_of([(1, 0, [2, 5, 6])]))
            assert 2 in state.near.nodes and (state.near.nodes != 2).any()
            torch.manual_seed(2)
            users.append(model.score(state, torch.tensor([[2, 5, 6]])))
    torch.testing.assert_close(*users)


def test_in_evaluation_the_positive_is_not_read() -> None:
    model = build().eval()
    first, second = batch_of(ROWS), batch_of([(user, query, [11, *rest]) for user, query, (_, *rest) in ROWS])
    with torch.no_grad():
        assert torch.equal(
            model.score(model.encode(first), items_of(ROWS)), model.score(model.encode(second), items_of(ROWS))
        )


# --- the whole model ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["rec", "search"])
def test_either_task_reaches_all_parameters(task: str) -> None:
    model = build().train()
    rows = batch_of(ALL)
    reached: set[str] = set()
    for seed in range(5):
        torch.manual_seed(seed)
        found = gradients(model, model.losses(JointBatch(rows.interaction, rows))[task])
        reached |= {name for name, gradient in found.items() if gradient.abs().sum() > 0}
    assert reached == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("values", [{"fan_outs": [3]}, {"search_weight": 0}], ids=["one hop", "no search task"])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_variants_keep_the_contract(
    check: Callable[[ModelUnderTest], None], values: dict[str, Any], tmp_path: Path
) -> None:
    check(ModelUnderTest(SRJGraph, tmp_path, values))


def test_a_data_set_without_clicks_trains(tmp_path: Path) -> None:
    dataset = load_dataset(
        write_toy(tmp_path, search=["a q1 5 "]).parent, "toy", SRJGraph, require_both_histories=False
    )
    model = SRJGraph(dataset.config, dataset).train()
    batch = batch_of([(1, 0, [1, 2, 3])])
    losses = model.losses(JointBatch(batch.interaction, None))
    assert list(losses) == ["rec"] and torch.isfinite(losses["rec"])


@pytest.mark.parametrize("fan_outs", [[], [3, 2, 2], [0], [2, -1], [2.5], "3", 3, [True]])
def test_impossible_fan_outs_are_refused(fan_outs: Any) -> None:
    with pytest.raises(ConfigError, match=r"fan_outs is .*: it must be a list of 1 to 2, each a whole number"):
        SRJGraph({**CONFIG, "fan_outs": fan_outs}, fake_dataset())
