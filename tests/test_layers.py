"""The shared layers against PyTorch's own and against plain formulas."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_ser.model.embeddings import Attribute, FeatureEmbedding, PassCache, distinct, lookup
from recbole_ser.model.layers import (
    CoAttention,
    Dropout,
    PairMLP,
    TargetAttention,
    TransformerEncoder,
    initialise,
    masked_mean,
    masked_softmax,
)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


MASK = torch.tensor([[1, 1, 1, 0], [1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]]).bool()


# --- masks ----------------------------------------------------------------------------------------------------------


def test_masked_softmax_is_the_softmax_of_what_is_valid() -> None:
    scores = torch.randn(4, 4) * 20
    weights = masked_softmax(scores, MASK)
    for row, mask in enumerate(MASK):
        torch.testing.assert_close(weights[row, mask], torch.softmax(scores[row, mask], 0))
        assert (weights[row, ~mask] == 0).all()


@pytest.mark.parametrize("huge", [1e4, 1e30])
def test_masked_softmax_ignores_the_size_of_what_is_masked(huge: float) -> None:
    scores = torch.randn(4, 4)
    expected = masked_softmax(scores, MASK)
    torch.testing.assert_close(masked_softmax(scores.masked_fill(~MASK, huge), MASK), expected, rtol=0, atol=0)


def test_masked_softmax_broadcasts_along_any_dimension_with_the_right_gradient() -> None:
    scores = torch.randn(4, 4, 1, 3, dtype=torch.float64, requires_grad=True)  # [B, T, 1, C]
    views = torch.stack([MASK, MASK.flip(0)], dim=2).unsqueeze(3)  # [B, T, V, 1]
    weights = masked_softmax(scores, views, dim=1)
    filled = scores.masked_fill(~views, -torch.inf).softmax(dim=1).nan_to_num(0)
    torch.testing.assert_close(weights, filled)
    assert torch.autograd.gradcheck(lambda s: masked_softmax(s, views, 1), (scores,))


def test_masked_mean_averages_what_is_valid() -> None:
    values = torch.randn(4, 4, 3)
    means = masked_mean(values, MASK)
    torch.testing.assert_close(means[0], values[0, :3].mean(0))
    torch.testing.assert_close(means[1], values[1, [0, 2]].mean(0))
    assert (means[2] == 0).all()


# --- embeddings -----------------------------------------------------------------------------------------------------


def test_distinct_ids_and_their_places() -> None:
    ids = torch.tensor([[5, 2, 5], [0, 2, 7]])
    values, places = distinct(ids.flatten(), 9)
    assert values.tolist() == [0, 2, 5, 7]
    assert places.tolist() == [0, -1, 1, -1, -1, 2, -1, 3, -1]
    assert torch.equal(values[places[ids]], ids)


def test_lookup_is_an_embedding_with_the_same_gradient() -> None:
    table, ids = torch.randn(6, 3), torch.tensor([[1, 4], [4, 0], [4, 4]])
    weights = torch.randn(3, 2, 3)
    results = []
    for function in (lambda t: lookup(t, ids), lambda t: F.embedding(ids, t)):
        leaf = table.clone().requires_grad_()
        (function(leaf) * weights).sum().backward()
        results.append((function(leaf), leaf.grad))
    torch.testing.assert_close(*results)


def features(width: int | None = 5) -> FeatureEmbedding:
    single = torch.tensor([0, 1, 2, 1, 0, 2], dtype=torch.int32)
    several = torch.tensor([[0, 0], [1, 3], [2, 0], [3, 3], [0, 0], [1, 2]], dtype=torch.int32)
    embedding = FeatureEmbedding(6, 4, [Attribute(single, 3, 2), Attribute(several, 4, 3)], width)
    return embedding.apply(initialise)


def plain_features(embedding: Any, ids: Tensor) -> Tensor:
    single, several = (attribute.table.weight for attribute in embedding.attributes)
    rows = []
    for number in ids.flatten().tolist():
        first, second = (attribute.values[number].tolist() for attribute in embedding.attributes)
        words = [several[value] for value in second if value]
        mean = torch.stack(words).mean(0) if words else torch.zeros(3)
        kind = single[first[0]] if first[0] else torch.zeros(2)
        rows.append(torch.cat([embedding.ids.weight[number] if number else torch.zeros(4), kind, mean]))
    return embedding.projection(torch.stack(rows)).view(*ids.shape, -1)


@pytest.mark.parametrize("width", [5, None])
def test_features_are_id_and_mean_attributes_projected(width: int | None) -> None:
    embedding, ids = features(width), torch.tensor([[1, 3, 5], [4, 0, 2]])
    assert embedding.width == (width or 9)
    torch.testing.assert_close(embedding(ids), plain_features(embedding, ids))


def test_a_shared_lookup_gives_the_same_vectors_and_gradients() -> None:
    embedding = features()
    first, second = torch.tensor([[1, 3, 3], [0, 1, 2]]), torch.tensor([3, 5])
    weights = torch.randn(2, 3, 5), torch.randn(2, 5)

    def run() -> list[Tensor]:
        embedding.zero_grad()
        vectors = embedding(first), embedding(second)
        sum((vector * weight).sum() for vector, weight in zip(vectors, weights)).backward()
        return [*vectors, *(parameter.grad.clone() for parameter in embedding.parameters())]

    separate = run()
    with embedding.shared(first, second):
        together = run()
    torch.testing.assert_close(together, separate)
    torch.testing.assert_close(run(), separate)


def test_a_shared_lookup_refuses_an_id_that_was_not_announced() -> None:
    embedding = features()
    with embedding.shared(torch.tensor([1, 2])), pytest.raises(IndexError):
        embedding(torch.tensor([3]))


def test_padding_has_no_embedding_and_gets_no_gradient() -> None:
    embedding = features(None)
    with torch.no_grad():
        embedding.ids.weight[0] = 7
    vectors = embedding(torch.tensor([0, 1]))
    assert (vectors[0] == 0).all()
    vectors.sum().backward()
    assert all((table.grad[0] == 0).all() for table in embedding.parameters())


def test_in_evaluation_the_whole_table_is_computed_once_until_the_weights_change() -> None:
    embedding = features().eval()
    calls = 0
    original = embedding._embed

    def counted(ids: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return original(ids)

    embedding._embed = counted
    ids = torch.tensor([[1, 3], [0, 5]])
    with torch.no_grad():
        torch.testing.assert_close(embedding(ids), plain_features(embedding, ids))
        embedding(ids)
        assert calls == 1
        embedding.projection.weight.add_(1)
        torch.testing.assert_close(embedding(ids), plain_features(embedding, ids))
        assert calls == 2
        embedding.train().eval()
        embedding(ids)
        assert calls == 3


def test_nothing_is_kept_where_gradients_are_recorded() -> None:
    class Table(PassCache):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2))

    table = Table().eval()
    for _ in range(2):
        table.cached("square", lambda: table.weight.square()).sum().backward()
    assert table.weight.grad.tolist() == [4.0, 4.0]


# --- dropout --------------------------------------------------------------------------------------------------------


def test_dropout_keeps_the_expected_share_and_the_mean() -> None:
    dropout = Dropout(0.1)
    values = torch.full((1001, 333), 2.0, requires_grad=True)
    dropped = dropout(values)
    assert (dropped == 0).float().mean().item() == pytest.approx(0.1, abs=0.002)
    assert dropped.mean().item() == pytest.approx(2.0, abs=0.005)
    assert len(dropped.unique()) == 2
    dropped.sum().backward()
    torch.testing.assert_close(values.grad, dropped.detach() / 2)
    columns = (dropped == 0).float().mean(0)
    assert columns.min() > 0.05 and columns.max() < 0.15, "some columns are dropped more often than others"


def test_dropout_follows_the_seed_and_is_off_in_evaluation() -> None:
    values = torch.randn(7, 5)
    results = []
    for _ in range(2):
        torch.manual_seed(4)
        dropout = Dropout(0.5)
        results.append((dropout(values), dropout(values)))
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])
    assert not torch.equal(*results[0])
    assert Dropout(0.5).eval()(values) is values and Dropout(0.0)(values) is values


# --- transformer ----------------------------------------------------------------------------------------------------


def histories(rows: int, length: int, width: int) -> tuple[Tensor, Tensor]:
    lengths = torch.randint(1, length + 1, (rows,))
    return torch.randn(rows, length, width), torch.arange(length) < lengths.unsqueeze(1)


def test_the_encoder_is_pytorchs_post_norm_transformer_layer() -> None:
    encoder = TransformerEncoder(8, layers=2, heads=2, dropout=0.0)
    states, mask = histories(9, 6, 8)
    expected = states
    for layer in encoder.layers:
        theirs = nn.TransformerEncoderLayer(8, 2, 8, 0.0, F.leaky_relu, 1e-8, batch_first=True)
        with torch.no_grad():
            theirs.self_attn.in_proj_weight.copy_(layer.attention.input.weight)
            theirs.self_attn.in_proj_bias.copy_(layer.attention.input.bias)
            theirs.self_attn.out_proj.load_state_dict(layer.attention.output.state_dict())
            theirs.linear1.load_state_dict(layer.network[0].state_dict())
            theirs.linear2.load_state_dict(layer.network[2].state_dict())
            layer.attention_norm.weight.normal_()
            layer.network_norm.bias.normal_()
            theirs.norm1.load_state_dict(layer.attention_norm.state_dict())
            theirs.norm2.load_state_dict(layer.network_norm.state_dict())
        expected = theirs(expected, src_key_padding_mask=~mask)
    torch.testing.assert_close(encoder(states, mask)[mask], expected[mask], rtol=1e-5, atol=1e-5)


def test_the_encoder_does_not_depend_on_padding_or_on_other_rows() -> None:
    encoder = TransformerEncoder(8, layers=1, heads=2, dropout=0.0)
    states, mask = histories(7, 6, 8)
    encoded = encoder(states, mask)
    longer = encoder(F.pad(states, (0, 0, 0, 3), value=5.0), F.pad(mask, (0, 3)))
    torch.testing.assert_close(longer[:, :6][mask], encoded[mask])
    for row in range(7):
        alone = encoder(states[row : row + 1], mask[row : row + 1])
        torch.testing.assert_close(alone[0][mask[row]], encoded[row][mask[row]])
    assert torch.isfinite(encoder(states, mask & False)).all()


# --- attention across histories -------------------------------------------------------------------------------------


def test_co_attention_leaves_padding_out() -> None:
    attention = CoAttention(4)
    search, rec = torch.randn(1, 3, 4), torch.randn(1, 2, 4)
    expected = attention(search, torch.ones(1, 3).bool(), rec, torch.ones(1, 2).bool())
    masks = torch.tensor([[True] * 3 + [False] * 2]), torch.tensor([[True] * 2 + [False] * 4])
    padded = F.pad(search, (0, 0, 0, 2), value=3.0), F.pad(rec, (0, 0, 0, 4), value=-2.0)
    ours = attention(padded[0], masks[0], padded[1], masks[1])
    torch.testing.assert_close((ours[0][:, :3], ours[1][:, :2]), expected)
    assert (ours[0][:, 3:] == 0).all() and (ours[1][:, 2:] == 0).all()


def test_against_an_empty_history_all_positions_weigh_the_same() -> None:
    search, rec = torch.randn(1, 3, 4), torch.randn(1, 2, 4)
    ours = CoAttention(4)(search, torch.ones(1, 3).bool(), rec, torch.zeros(1, 2).bool())
    assert ours[0].tolist() == [[pytest.approx(1 / 3)] * 3] and ours[1].tolist() == [[0, 0]]


def test_target_attention_pools_each_view_for_each_candidate() -> None:
    attention = TargetAttention(3)
    states, targets = torch.randn(2, 4, 3), torch.randn(2, 5, 3)
    views = torch.tensor([[[1, 1, 1, 0], [0, 1, 0, 0]], [[1, 1, 1, 1], [0, 0, 0, 0]]]).bool()
    pooled = attention(states, views, targets)
    assert len(pooled) == 2 and pooled[0].shape == (2, 5, 3)
    for row in range(2):
        for candidate in range(5):
            scores = states[row] @ attention.weight @ targets[row, candidate]
            for number, view in enumerate(views[row]):
                expected = torch.softmax(scores[view], 0) @ states[row][view]
                torch.testing.assert_close(pooled[number][row, candidate], expected)


def test_the_pair_mlp_is_an_mlp_on_row_and_pair_side_by_side() -> None:
    mlp = PairMLP(2, 3, [6, 4], dropout=0.0)
    row, pair = torch.randn(5, 2), torch.randn(5, 7, 3)
    joined = torch.cat([row.unsqueeze(1).expand(-1, 7, -1), pair], dim=2)
    expected = nn.Sequential(mlp.first, nn.ReLU(), mlp.others[0], nn.ReLU(), mlp.others[1])(joined).squeeze(2)
    torch.testing.assert_close(mlp(row, pair), expected)
