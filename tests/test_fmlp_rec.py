"""FMLP-Rec against a slow reference: one user, one place, one frequency at a time, in sines and cosines."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from model_fakes import ROWS, SIZES, assert_equals_reference, candidates, fake_dataset, interaction
from reference.dien_reference import sigmoid
from reference.sesrec_reference import Reference, Row
from torch import Tensor

from recbole_ser.errors import ConfigError
from recbole_ser.model.sequential.fmlp_rec import FilterBlock, FMLPRec, latest

CONFIG: dict[str, Any] = {**SIZES, "dropout_prob": 0.0}
LENGTHS = pytest.mark.parametrize("length", [6, 5, 1], ids=["even", "odd", "one"])


def build(**values: Any) -> FMLPRec:
    """A model with weights so large that nothing in it is nearly linear or nearly zero."""
    torch.manual_seed(0)
    model = FMLPRec({**CONFIG, **values}, fake_dataset())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(torch.randn_like(parameter) * 0.4)
            if name.endswith(("ids.weight", "table.weight")):
                parameter[0] = 0
    return model.double()


def scores(model: FMLPRec, rows: list[Row], width: int = 6) -> Tensor:
    return model.score(model.encode(interaction(rows, width)), candidates(rows))


# --- the reference --------------------------------------------------------------------------------------------------


class FMLPReference(Reference):
    """Args: weights by name; the fake data set; the values of the configuration."""

    def user(self, row: Row) -> Tensor:
        length = self.config["MAX_ITEM_LIST_LENGTH"]
        seen = row.items[-length:]
        window = [None] * (length - len(seen)) + seen
        states = []
        for place, number in enumerate(window):
            vector = self.weights["positions.weight"][place]
            states.append(self.layer_norm("norm", vector if number is None else self.item(number) + vector))
        for block in range(self.config["n_layers"]):
            name = f"blocks.{block}"
            filtered = self.filtered(self.weights[f"{name}.filter"], states)
            for place in range(length):
                middle = self.layer_norm(f"{name}.filter_norm", states[place] + filtered[place])
                inner = self.linear(f"{name}.network.0", middle)
                inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
                states[place] = self.layer_norm(
                    f"{name}.network_norm", middle + self.linear(f"{name}.network.2", inner)
                )
        return states[-1]

    def filtered(self, weight: Tensor, states: list[Tensor]) -> list[Tensor]:
        """The discrete Fourier transform of real states, the filter's product with it, and the way back."""
        length = len(states)
        outputs = [torch.zeros(self.width, dtype=self.dtype) for _ in states]
        for frequency in range(length // 2 + 1):
            angles = [2 * math.pi * frequency * place / length for place in range(length)]
            real = sum(state * math.cos(angle) for state, angle in zip(states, angles)) / math.sqrt(length)
            imaginary = -sum(state * math.sin(angle) for state, angle in zip(states, angles)) / math.sqrt(length)
            w_real, w_imaginary = weight[frequency].unbind(dim=1)
            product = real * w_real - imaginary * w_imaginary, real * w_imaginary + imaginary * w_real
            # Every frequency but 0 and half the length stands for its negative too, which is its conjugate.
            share = 1 if frequency == 0 or 2 * frequency == length else 2
            for place, angle in enumerate(angles):
                wave = product[0] * math.cos(angle)
                if share == 2:
                    wave = wave - product[1] * math.sin(angle)
                outputs[place] = outputs[place] + share * wave / math.sqrt(length)
        return outputs

    def layer_norm(self, name: str, vector: Tensor) -> Tensor:
        centred = vector - vector.mean()
        scaled = centred / (centred.square().mean() + 1e-12).sqrt()
        return scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def scores(self, row: Row, items: list[int] | None = None) -> list[Tensor]:
        user = self.user(row)
        return [user @ self.item(number) for number in items or row.candidates]

    def loss(self, rows: list[Row], loss_type: str) -> Tensor:
        losses = []
        for row in rows:
            positive, *negatives = self.scores(row)
            if loss_type == "BCE":
                losses += [-sigmoid(positive).log(), *((1 - sigmoid(each)).log().neg() for each in negatives)]
            elif loss_type == "BPR":
                losses += [-sigmoid(positive - each).log() for each in negatives]
            else:
                everything = self.scores(row, list(range(1, self.dataset.target_num)))
                losses.append(torch.stack(everything).logsumexp(0) - positive)
        return sum(losses) / len(losses)


def reference(model: FMLPRec, **values: Any) -> tuple[FMLPReference, dict[str, Tensor]]:
    weights = {name: value.detach().clone().requires_grad_() for name, value in model.named_parameters()}
    return FMLPReference(weights, fake_dataset(), {**CONFIG, **values}), weights


# --- tests ----------------------------------------------------------------------------------------------------------


@LENGTHS
def test_scores_equal_the_reference(length: int) -> None:
    model = build(MAX_ITEM_LIST_LENGTH=length).eval()
    slow, _ = reference(model, MAX_ITEM_LIST_LENGTH=length)
    found = scores(model, ROWS)
    torch.testing.assert_close(found, torch.stack([torch.stack(slow.scores(row)) for row in ROWS]))
    assert (found - found[:, :1])[:, 1:].abs().min() > 1e-4, "candidates score the same"
    torch.testing.assert_close(scores(model, ROWS, width=9), found)
    torch.testing.assert_close(scores(model, ROWS[1:3], width=3), found[1:3])


@LENGTHS
@pytest.mark.parametrize("loss_type", ["BCE", "BPR", "CE"])
def test_losses_and_all_gradients_equal_the_reference(loss_type: str, length: int) -> None:
    values = {"loss_type": loss_type, "MAX_ITEM_LIST_LENGTH": length}
    model = build(**values).train()
    slow, weights = reference(model, **values)
    expected = {"rec": slow.loss(ROWS, loss_type)}
    assert_equals_reference(model, model.losses(interaction(ROWS)), expected, weights)


@pytest.mark.parametrize("length", [6, 5])
def test_the_filter_is_a_circular_convolution_over_the_window(length: int) -> None:
    torch.manual_seed(0)
    block = FilterBlock(length, 3, 0.0).double()
    block.filter_norm = block.network_norm = torch.nn.Identity()
    torch.nn.init.zeros_(block.network[2].weight)
    torch.nn.init.zeros_(block.network[2].bias)
    states = torch.randn(1, length, 3, dtype=torch.float64)
    first = torch.zeros_like(states)
    first[0, 0] = 1
    kernel = (block(first, last_place_only=False) - first)[0]  # [L, d], the response to an impulse at place 0
    found = (block(states, last_place_only=False) - states)[0]
    for place in range(length):
        expected = sum(kernel[(place - other) % length] * states[0, other] for other in range(length))
        torch.testing.assert_close(found[place], expected)
    torch.testing.assert_close(block(states, last_place_only=True)[0, 0] - states[0, -1], found[-1])


def test_the_window_is_the_last_items_behind_padding() -> None:
    items = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 0, 0, 0], [0, 0, 0, 0, 0]])
    lengths = torch.tensor([5, 2, 0])
    assert latest(items, lengths, 3).tolist() == [[3, 4, 5], [0, 6, 7], [0, 0, 0]]
    assert latest(items, lengths, 7).tolist() == [[0, 0, 1, 2, 3, 4, 5], [0, 0, 0, 0, 0, 6, 7], [0] * 7]
    assert latest(items[1:, :2], lengths[1:], 3).tolist() == [[0, 6, 7], [0, 0, 0]]


def test_padding_takes_part_with_the_vectors_of_its_places() -> None:
    model = build().train()
    model.calculate_loss(interaction([ROWS[1]])).backward()  # one item, five places of padding
    assert (model.positions.weight.grad.abs().sum(dim=1) > 1e-6).all()


def test_users_without_history_are_all_the_same_padding() -> None:
    model = build().eval()
    rows = [Row(1, [], [], [4, 5]), Row(2, [], [], [4, 5]), Row(3, [6], [], [4, 5])]
    found = scores(model, rows)
    torch.testing.assert_close(found[0], found[1])
    assert (found[0] - found[2]).abs().min() > 1e-4


def test_initial_weights_are_the_published_ones() -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "embedding_size": 64, "item_attribute_size": 64, "MAX_ITEM_LIST_LENGTH": 50}
    dataset = fake_dataset(items=500)
    dataset.item_attributes = {}
    model = FMLPRec({**CONFIG, **sizes}, dataset)
    spreads = {name: parameter.std().item() for name, parameter in model.named_parameters() if parameter.dim() > 1}
    assert spreads.pop("items.projection.weight") == pytest.approx(1 / 8, rel=0.05)
    assert all(spread == pytest.approx(0.02, rel=0.05) for spread in spreads.values()), spreads
    assert model.items(torch.arange(1, 500)).std().item() == pytest.approx(0.02, rel=0.05)
    assert all((block.filter_norm.weight == 1).all() and block.filter_norm.eps == 1e-12 for block in model.blocks)
    assert all((value == 0).all() for name, value in model.named_parameters() if name.endswith("bias"))


def test_dropout_is_behind_the_first_norm_the_filter_and_the_network() -> None:
    model = build(dropout_prob=0.5, n_layers=1).train()
    (block,) = model.blocks
    parts = {"input": model.dropout, "block": block.dropout}
    for kept in parts:
        for name, dropout in parts.items():
            dropout.cut = 2**15 * (name == kept)
        assert not torch.equal(scores(model, ROWS), scores(model, ROWS)), kept
    model.dropout.cut = 0
    filtering, output = block.filter.detach().clone(), block.network[2]
    with torch.no_grad():
        block.filter.zero_()
        assert not torch.equal(scores(model, ROWS), scores(model, ROWS))  # the network's output alone
        output.weight.zero_()
        output.bias.zero_()
        assert torch.equal(scores(model, ROWS), scores(model, ROWS))  # neither
        block.filter.copy_(filtering)
        assert not torch.equal(scores(model, ROWS), scores(model, ROWS))  # the filter's output alone


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"n_layers": 0}, "n_layers is 0: it must be a whole number from 1 to 64"),
        ({"dropout_prob": 1.0}, "dropout_prob is 1.0: it must be a number from 0 to below 1"),
        ({"loss_type": "hinge"}, "loss_type is 'hinge': it must be BCE, BPR or CE"),
    ],
)
def test_settings_out_of_range_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        FMLPRec({**CONFIG, **values}, fake_dataset())
