"""Propagation over the user-code graphs against a plain LightGCN over the whole graph."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from recbole_ser.errors import ConfigError
from recbole_ser.model.losses import ViewContrast
from recbole_ser.model.propagation import UserCodeGraph, edge_weights

COUNT, WIDTH = 9, 3  # code ids, the padding id included; d
# User 0 is padding; user 3 has no codes, others lack some; nobody has codes 6 and 8.
CODES = torch.tensor(
    [[0, 0, 0], [1, 3, 5], [1, 0, 5], [0, 0, 0], [2, 3, 7], [0, 0, 7], [1, 4, 0], [0, 3, 0], [2, 3, 5], [7, 5, 1]]
)
# The entries of R are kept in single precision.
CLOSE = {"rtol": 1e-6, "atol": 1e-6}


def adjacency(codes: Tensor, count: int = COUNT) -> Tensor:
    """R ``[U, C]`` by Eq. 7, edge by edge."""
    edges = [(user, code) for user, row in enumerate(codes.tolist()) for code in row if code]
    matrix = torch.zeros(len(codes), count, dtype=torch.float64)
    for user, code in edges:
        of_user = sum(other == user for other, _ in edges)
        of_code = sum(other == code for _, other in edges)
        matrix[user, code] = 1 / math.sqrt(of_user * of_code)
    return matrix


def light_gcn(matrix: Tensor, users: Tensor, codes: Tensor, layers: int) -> tuple[Tensor, Tensor]:
    """Eq. 7 and 8 over users and codes as nodes of one graph."""
    nodes = torch.cat([users, codes])  # [U + C, d]
    everything = torch.zeros(len(nodes), len(nodes), dtype=torch.float64)
    everything[: len(users), len(users) :] = matrix
    everything[len(users) :, : len(users)] = matrix.T
    states = [nodes]
    for _ in range(layers):
        states.append(everything @ states[-1])
    mean = torch.stack(states).mean(dim=0)
    return mean[: len(users)], mean[len(users) :]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_equals_light_gcn(codes: Tensor, layers: int, batch: Tensor, count: int = COUNT) -> None:
    """Values and gradients of a batch's users and of their codes."""
    graph = UserCodeGraph(codes, count, WIDTH, layers).double()
    users = draw(len(codes), WIDTH, seed=1).requires_grad_()
    with torch.no_grad():
        graph.table.weight.copy_(draw(count, WIDTH, seed=2))
    propagated = graph(users)
    found = graph.users(batch, users[batch], propagated), *graph.codes(batch, propagated)
    all_users, all_codes = light_gcn(adjacency(codes, count), users, graph.table.weight, layers)
    expected = all_users[batch], all_codes[codes[batch]], codes[batch] != 0
    torch.testing.assert_close(found[2], expected[2])
    gradients = []
    for user, code, exists in (found, expected):
        code = code * exists.unsqueeze(2)
        loss = (user * draw(*user.shape, seed=3)).sum() + (code.square() * draw(*code.shape, seed=4)).sum()
        gradients.append([user, code, *torch.autograd.grad(loss, (users, graph.table.weight))])
    for ours, theirs in zip(*gradients):
        torch.testing.assert_close(ours, theirs, **CLOSE)


# --- the graph ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", range(5))
def test_propagation_equals_light_gcn_over_the_whole_graph(layers: int) -> None:
    assert_equals_light_gcn(CODES, layers, torch.arange(len(CODES)))
    assert_equals_light_gcn(CODES, layers, torch.tensor([4, 1, 4, 3, 8, 1]))


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.data(), st.integers(0, 4))
def test_propagation_equals_light_gcn_on_random_graphs(data: st.DataObject, layers: int) -> None:
    width = data.draw(st.integers(1, 4))
    orders = data.draw(st.lists(st.permutations(range(1, COUNT)), min_size=1, max_size=7))
    rows = [[code * data.draw(st.booleans()) for code in order[:width]] for order in orders]
    codes = torch.tensor([[0] * width, *rows])
    batch = data.draw(st.lists(st.integers(0, len(rows)), min_size=1, max_size=5))
    assert_equals_light_gcn(codes, layers, torch.tensor(batch))


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_without_any_code_users_stay_where_they_are(layers: int) -> None:
    assert_equals_light_gcn(torch.zeros(4, 2, dtype=torch.int64), layers, torch.tensor([1, 3]), count=1)


def test_users_with_the_same_codes_get_the_same_messages() -> None:
    codes = torch.tensor([[0, 0], [1, 2], [1, 2], [1, 3]])
    graph, users = UserCodeGraph(codes, 4, WIDTH, 2).double(), draw(4, WIDTH)
    states = graph.users(torch.tensor([1, 2, 3]), users[1:], graph(users)) - users[1:] / 3
    torch.testing.assert_close(states[0], states[1])
    assert (states[0] - states[2]).abs().min() > 1e-3


def test_nothing_is_remembered_between_calls_or_saved() -> None:
    graph, batch = UserCodeGraph(CODES, COUNT, WIDTH, 3).double(), torch.arange(1, 5)
    tables = [draw(len(CODES), WIDTH, seed=seed) for seed in (1, 2)]

    def states(users: Tensor) -> Tensor:
        with torch.no_grad():
            return graph.users(batch, users[batch], graph(users))

    first, second = (states(users) for users in tables)
    assert (first - second).abs().min() > 1e-4
    assert torch.equal(states(tables[0]), first)
    with torch.no_grad():
        graph.table.weight.mul_(2)
    assert (states(tables[0]) - first).abs().max() > 1e-3
    assert list(graph.state_dict()) == ["table.weight"]


def test_gradients_add_up_over_several_calls() -> None:
    graph, users = UserCodeGraph(CODES, COUNT, WIDTH, 2).double(), draw(len(CODES), WIDTH).requires_grad_()
    (once,) = torch.autograd.grad(graph(users).codes.square().sum(), users)
    (twice,) = torch.autograd.grad(sum(graph(users).codes.square().sum() for _ in range(2)), users)
    torch.testing.assert_close(twice, 2 * once)


# --- its matrices ---------------------------------------------------------------------------------------------------


def test_edge_weights_are_those_of_equation_7() -> None:
    matrix, weights = adjacency(CODES), edge_weights(CODES, COUNT)
    assert weights.dtype == torch.float32
    for user, row in enumerate(CODES.tolist()):
        for place, code in enumerate(row):
            expected = matrix[user, code].item() if code else 0
            assert weights[user, place].item() == pytest.approx(expected, rel=1e-6)


def test_the_gram_is_that_of_the_adjacency() -> None:
    graph, matrix = UserCodeGraph(CODES, COUNT, WIDTH, 2), adjacency(CODES)
    torch.testing.assert_close(graph.gram.double(), matrix.T @ matrix, **CLOSE)
    assert not graph.gram[0].any() and not graph.gram[:, 0].any()


def test_what_takes_all_users_has_the_right_gradient() -> None:
    graph, matrix = UserCodeGraph(CODES, COUNT, WIDTH, 1).double(), adjacency(CODES)
    users = draw(len(CODES), WIDTH).requires_grad_()

    def to_codes(users: Tensor) -> Tensor:
        return 2 * graph(users).codes - graph.table.weight

    torch.testing.assert_close(to_codes(users), matrix.T @ users, **CLOSE)
    assert torch.autograd.gradcheck(to_codes, (users,))
    transposed = draw(WIDTH, COUNT).T
    for gradient in (transposed, torch.ones(1, 1, dtype=torch.float64).expand(COUNT, WIDTH)):
        (found,) = torch.autograd.grad(to_codes(users), users, gradient)
        torch.testing.assert_close(found, matrix @ gradient, **CLOSE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_propagation_is_in_the_precision_of_the_vectors(dtype: torch.dtype) -> None:
    graph = UserCodeGraph(CODES, COUNT, WIDTH, 3).to(dtype)
    users = torch.ones(len(CODES), WIDTH, dtype=dtype, requires_grad=True)
    propagated = graph(users)
    propagated.codes.sum().backward()
    assert propagated.codes.dtype == propagated.below.dtype == users.grad.dtype == dtype


# --- contrast of views ----------------------------------------------------------------------------------------------


def contrast(module: ViewContrast, left: Tensor, right: Tensor, users: Tensor) -> Tensor:
    """InfoNCE one row and one direction at a time."""

    def logit(first: int, second: int) -> Tensor:
        if module.weight is None:
            similarity = left[first] @ right[second] / left[first].norm() / right[second].norm()
        else:
            similarity = torch.tanh(left[first] @ module.weight @ right[second])
        return similarity / module.temperature()

    losses = []
    for row in range(len(users)):
        others = [other for other in range(len(users)) if users[other] != users[row]]
        for pairs in ([(row, other) for other in others], [(other, row) for other in others]):
            logits = torch.stack([logit(row, row), *(logit(*pair) for pair in pairs)])
            losses.append(torch.logsumexp(logits, dim=0) - logits[0])
    return torch.stack(losses).mean()


@pytest.mark.parametrize("similarity", ["bilinear", "cosine"])
@pytest.mark.parametrize("users", [[1, 2, 3, 4, 5], [3, 1, 3, 2, 3], [7, 7, 7], [5]], ids=str)
def test_views_are_told_from_those_of_other_users(similarity: str, users: list[int]) -> None:
    module = ViewContrast(4, similarity, 0.3).double()
    views = [draw(len(users), 4, seed=seed).mul_(0.6).requires_grad_() for seed in (1, 2)]
    learnt = [*views, *module.parameters()]
    results = []
    for function in (module, lambda *views: contrast(module, *views)):
        loss = function(*views, torch.tensor(users))
        results.append([loss, *torch.autograd.grad(loss, learnt)])
    torch.testing.assert_close(*results)
    assert (results[0][0] > 0.1) == (len(set(users)) > 1), "one user alone has nothing to be told from"


@pytest.mark.parametrize("similarity", ["bilinear", "cosine"])
def test_the_contrast_of_no_rows_is_nothing(similarity: str) -> None:
    module = ViewContrast(4, similarity, 0.3)
    views = [torch.zeros(0, 4, requires_grad=True) for _ in range(2)]
    loss = module(*views, torch.zeros(0, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0 and loss.shape == ()
    assert all(torch.isfinite(parameter.grad).all() for parameter in module.parameters())


def test_similarities_of_the_contrast() -> None:
    bilinear, cosine = ViewContrast(4, "bilinear", 0.3), ViewContrast(4, "cosine", 0.3)
    assert isinstance(bilinear.weight, nn.Parameter) and bilinear.weight.shape == (4, 4) and cosine.weight is None
    left, right, users = draw(5, 4, seed=1), draw(5, 4, seed=2), torch.arange(5)
    scaled = cosine.double()(3 * left, right / 2, users)
    torch.testing.assert_close(scaled, cosine(left, right, users))
    with pytest.raises(ConfigError, match="contrast_similarity must be bilinear or cosine, not dot"):
        ViewContrast(4, "dot", 0.3)
