"""The shared layers against PyTorch's own and against plain formulas."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_ser.errors import ConfigError
from recbole_ser.model.embeddings import Attribute, FeatureEmbedding, PassCache, distinct, lookup
from recbole_ser.model.layers import (
    ActivationUnit,
    AdditiveAttention,
    CoAttention,
    Dice,
    Dropout,
    ExpertGates,
    PairMLP,
    TargetAttention,
    TransformerEncoder,
    TransformerLayer,
    causal,
    initialise,
    masked_mean,
    masked_softmax,
    merged_places,
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


def copy_layer(ours: TransformerLayer, theirs: Any) -> None:
    """Give PyTorch's layer the weights of ours, after making its normalisations differ from the identity."""
    attentions = [(ours.attention, theirs.self_attn)]
    norms = [(ours.attention_norm, theirs.norm1), (ours.network_norm, theirs.norm3 if ours.cross else theirs.norm2)]
    if ours.cross is not None:
        attentions.append((ours.cross, theirs.multihead_attn))
        norms.append((ours.cross_norm, theirs.norm2))
    with torch.no_grad():
        for source, target in attentions:
            nn.init.normal_(source.input.bias)
            target.in_proj_weight.copy_(source.input.weight)
            target.in_proj_bias.copy_(source.input.bias)
            target.out_proj.load_state_dict(source.output.state_dict())
        for source, target in norms:
            nn.init.normal_(source.weight)
            nn.init.normal_(source.bias)
            target.load_state_dict(source.state_dict())
        theirs.linear1.load_state_dict(ours.network[0].state_dict())
        theirs.linear2.load_state_dict(ours.network[2].state_dict())


@pytest.mark.parametrize("pre_norm", [False, True])
def test_the_encoder_is_pytorchs_transformer_layer(pre_norm: bool) -> None:
    encoder = TransformerEncoder(8, 2, 2, 0.0, inner=12, activation=nn.ReLU, pre_norm=pre_norm)
    states, mask = histories(9, 6, 8)
    expected = states
    for layer in encoder.layers:
        theirs = nn.TransformerEncoderLayer(8, 2, 12, 0.0, F.relu, 1e-8, batch_first=True, norm_first=pre_norm)
        copy_layer(layer, theirs)
        expected = theirs(expected, src_key_padding_mask=~mask)
    expected = encoder.norm(expected)
    torch.testing.assert_close(encoder(states, mask)[mask], expected[mask], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pre_norm", [False, True])
def test_a_layer_with_a_memory_is_pytorchs_decoder_layer(pre_norm: bool) -> None:
    layer = TransformerLayer(8, 2, 0.0, cross=True, pre_norm=pre_norm)
    theirs = nn.TransformerDecoderLayer(8, 2, 8, 0.0, F.leaky_relu, 1e-8, batch_first=True, norm_first=pre_norm)
    copy_layer(layer, theirs)
    (states, mask), (memory, memory_mask) = histories(9, 6, 8), histories(9, 4, 8)
    expected = theirs(states, memory, tgt_key_padding_mask=~mask, memory_key_padding_mask=~memory_mask)
    ours = layer(states, mask, memory, memory_mask)
    torch.testing.assert_close(ours[mask], expected[mask], rtol=1e-5, atol=1e-5)


def test_dropout_of_attention_weights_is_another_than_that_of_the_parts() -> None:
    states, mask = histories(50, 6, 8)
    for options in ({"dropout": 0.5}, {"dropout": 0.0, "attention_dropout": 0.5}):
        layer = TransformerLayer(8, 2, **options)
        assert not torch.equal(layer(states, mask), layer(states, mask))
        assert torch.equal(layer.eval()(states, mask), layer(states, mask))


def test_under_a_causal_mask_later_positions_change_nothing() -> None:
    encoder = TransformerEncoder(8, 2, 2, 0.0)
    states, mask = histories(9, 6, 8)
    assert causal(torch.tensor([[True, True, False]])).tolist() == [[[1, 0, 0], [1, 1, 0], [1, 1, 0]]]
    encoded = encoder(states, causal(mask))
    states[:, 3:] += 1
    altered = encoder(states, causal(mask))
    torch.testing.assert_close(altered[:, :3], encoded[:, :3])
    assert not torch.isclose(altered[:, 3:], encoded[:, 3:]).all()


def test_the_width_must_be_a_multiple_of_the_heads() -> None:
    with pytest.raises(ConfigError, match="multiple of n_heads"):
        TransformerEncoder(8, 1, 3, 0.0)


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


def test_the_pair_mlp_with_dice_normalises_over_all_pairs() -> None:
    mlp = PairMLP(2, 3, [6], dropout=0.0, dice=True)
    row, pair = torch.randn(5, 2), torch.randn(5, 7, 3)
    joined = torch.cat([row.unsqueeze(1).expand(-1, 7, -1), pair], dim=2).flatten(0, 1)
    expected = mlp.others[0](plain_dice(mlp.activations[0], mlp.first(joined)))
    torch.testing.assert_close(mlp(row, pair).flatten(), expected.squeeze(1))


# --- DIN ------------------------------------------------------------------------------------------------------------


def plain_dice(dice: Dice, values: Tensor) -> Tensor:
    """On rows ``[n, width]``, in training."""
    normed = (values - values.mean(0)) / (values.var(0, unbiased=False) + 1e-8).sqrt()
    gate = 1 / (1 + torch.exp(-normed))
    return gate * values + (1 - gate) * dice.slope * values


def test_dice_gates_by_the_statistics_of_the_batch_and_in_evaluation_by_the_running_ones() -> None:
    dice = Dice(3)
    nn.init.normal_(dice.slope)
    values = torch.randn(50, 3) * torch.tensor([1.0, 5.0, 0.2]) + 2
    torch.testing.assert_close(dice(values.view(5, 10, 3)).flatten(0, 1), plain_dice(dice, values))
    mean, variance = 0.1 * values.mean(0), 0.9 + 0.1 * values.var(0)
    torch.testing.assert_close(dice.norm.running_mean, mean)
    torch.testing.assert_close(dice.norm.running_var, variance)
    gate = torch.sigmoid((values - mean) / (variance + 1e-8).sqrt())
    torch.testing.assert_close(dice.eval()(values), gate * values + (1 - gate) * dice.slope * values)


@pytest.mark.parametrize("rows", [0, 1])
def test_dice_of_too_few_rows_for_a_variance_is_finite(rows: int) -> None:
    dice = Dice(3)
    values = torch.randn(rows, 3, requires_grad=True)
    dice(values).sum().backward()
    assert torch.isfinite(dice(values)).all() and torch.isfinite(values.grad).all()


def test_the_activation_unit_weighs_each_state_by_an_mlp_of_it_and_the_candidate() -> None:
    unit = ActivationUnit(3, [6, 4])
    for parameter in unit.parameters():
        nn.init.normal_(parameter)
    (states, mask), targets = histories(4, 5, 3), torch.randn(4, 2, 3)
    mask[2] = False  # an empty history
    pairs = [(row, place) for row in range(4) for place in range(5) if mask[row, place]]
    inputs = torch.stack(
        [
            torch.cat([target, states[row, place], target - states[row, place], target * states[row, place]])
            for row, place in pairs
            for target in targets[row]
        ]
    )
    hidden = plain_dice(unit.activations[0], unit.first(inputs))
    weights = unit.others[1](plain_dice(unit.activations[1], unit.others[0](hidden))).view(len(pairs), 2)
    expected = torch.zeros(4, 2, 3)
    for (row, place), weight in zip(pairs, weights):
        expected[row] += weight.unsqueeze(1) * states[row, place]
    torch.testing.assert_close(unit(states, mask, targets), expected, rtol=1e-4, atol=1e-5)
    unit.eval()
    padded = F.pad(states, (0, 0, 0, 2), value=9.0), F.pad(mask, (0, 2))
    torch.testing.assert_close(unit(*padded, targets), unit(states, mask, targets))


# --- sets and tasks -------------------------------------------------------------------------------------------------


def test_additive_attention_is_a_softmax_over_what_is_valid() -> None:
    attention = AdditiveAttention(4, 6)
    states, mask = histories(5, 3, 4)
    mask[1] = False
    pooled = attention(states, mask)
    assert (pooled[1] == 0).all()
    for row in (0, 2, 3, 4):
        valid = states[row][mask[row]]
        scores = torch.stack([attention.vote.weight[0] @ torch.tanh(attention.inner(state)) for state in valid])
        torch.testing.assert_close(pooled[row], torch.softmax(scores, 0) @ valid)
    torch.testing.assert_close(attention(states.view(5, 1, 3, 4), mask.view(5, 1, 3)).squeeze(1), pooled)


def test_experts_are_shared_or_a_tasks_own_and_mixed_by_its_gate() -> None:
    layer = ExpertGates(tasks=2, width=4, output=3, shared=2, own=1, dropout=0.0)
    nn.init.normal_(layer.shared.bias)
    row, pair = torch.randn(5, 1), torch.randn(5, 7, 3)
    values = torch.cat([pair, row.unsqueeze(1).expand(-1, 7, -1)], dim=2)
    for task in range(2):
        experts = [
            F.relu(F.linear(values, weight, bias))
            for linear in (layer.shared, layer.own[task])
            for weight, bias in zip(linear.weight.split(3), linear.bias.split(3))
        ]
        gates = torch.softmax(layer.gates[task](values), 2)
        expected = sum(gates[:, :, [number]] * expert for number, expert in enumerate(experts))
        torch.testing.assert_close(layer(row, pair, task), expected)
    layer(row, pair, 0).sum().backward()
    assert layer.own[1].weight.grad is None and layer.shared.weight.grad is not None


def test_both_histories_have_places_in_one_order_of_time() -> None:
    place, mask = torch.tensor([[0, 2, 2], [1, 0, 0]]), torch.tensor([[1, 1, 1], [1, 0, 0]]).bool()
    items, searches = merged_places(place, mask, 3)
    assert items.tolist() == [[1, 2, 5], [0, 2, 3]]
    assert searches.tolist()[0] == [0, 3, 4] and searches[1, 0] == 1
