"""The shared losses against PyTorch's own and against finite differences."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_ser.errors import ConfigError
from recbole_ser.model import losses
from recbole_ser.model.losses import (
    Temperature,
    info_nce,
    inner_product_softmax,
    log_sum_exp_tanh,
    nt_xent,
    sampled_loss,
    triplet,
)


def plain(left: Tensor, right: Tensor, temperature: Tensor) -> Tensor:
    return torch.logsumexp(torch.tanh(left @ right.T) / temperature, dim=1)


def inputs(rows: int, columns: int, dtype: torch.dtype, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(count, 4, generator=generator, dtype=torch.float64) for count in (rows, columns))
    return (left * scale).to(dtype).requires_grad_(), right.to(dtype).requires_grad_()


@pytest.mark.parametrize("temperature", [0.01, 0.1, 2.0])
def test_log_sum_exp_of_tanh_has_the_right_gradient(temperature: float) -> None:
    left, right = inputs(5, 7, torch.float64, 0.3)
    tau = torch.tensor(temperature, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(log_sum_exp_tanh, (left, right, tau), eps=1e-7, atol=1e-4)


@pytest.mark.parametrize("temperature", [0.01, 0.1, 2.0])
def test_log_sum_exp_of_tanh_equals_the_plain_formula_to_1e_5(temperature: float) -> None:
    weights = torch.linspace(-1, 2, 300)
    results = []
    for function, dtype in ((log_sum_exp_tanh, torch.float32), (plain, torch.float64)):
        left, right = inputs(300, 200, dtype)
        tau = torch.tensor(temperature, dtype=dtype, requires_grad=True)
        value = function(left, right, tau)
        results.append([value, *torch.autograd.grad((value * weights.to(dtype)).sum(), (left, right, tau))])
    for ours, expected in zip(*results):
        assert (ours.double() - expected).abs().max() <= 1e-5 * max(1.0, expected.abs().max().item())


def test_counts_stand_for_repeated_columns() -> None:
    left, right = inputs(5, 4, torch.float64)
    tau, counts = torch.tensor(0.3, dtype=torch.float64, requires_grad=True), torch.tensor([3, 1, 1, 2])
    results = []
    for value in (
        log_sum_exp_tanh(left, right, tau, counts),
        plain(left, right.repeat_interleave(counts, dim=0), tau),
    ):
        results.append([value, *torch.autograd.grad(value.square().sum(), (left, right, tau))])
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("scale", [0.0, 1e4])
def test_log_sum_exp_of_tanh_is_finite_where_tanh_is_flat_or_saturated(scale: float) -> None:
    left, right = inputs(6, 8, torch.float32, scale)
    tau = torch.tensor(0.01, requires_grad=True)
    value = log_sum_exp_tanh(left, right, tau)
    torch.testing.assert_close(value, plain(left, right, tau))
    assert all(torch.isfinite(gradient).all() for gradient in torch.autograd.grad(value.sum(), (left, right, tau)))


def test_rows_all_of_whose_scores_are_as_low_as_can_be_do_not_underflow() -> None:
    left, right = torch.full((2, 4), -9.0, requires_grad=True), torch.full((3, 4), 9.0)
    value = log_sum_exp_tanh(left, right, torch.tensor(0.01))
    torch.testing.assert_close(value, torch.full((2,), math.log(3) - 100.0))


def test_half_precision_is_computed_in_single() -> None:
    left, right = inputs(6, 8, torch.float32)
    tau = torch.tensor(0.05)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = log_sum_exp_tanh(left, right, tau)
    torch.testing.assert_close(value, log_sum_exp_tanh(left, right, tau), rtol=0, atol=0)


def test_info_nce_is_the_cross_entropy_with_the_positive_among_the_classes() -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(20, 9, generator=generator, dtype=torch.float64) * 30
    expected = F.cross_entropy(logits, torch.zeros(20, dtype=torch.int64), reduction="none")
    torch.testing.assert_close(info_nce(logits[:, 0], torch.logsumexp(logits[:, 1:], dim=1)), expected)


def test_triplet_is_pytorchs_with_euclidean_distance_and_gradients() -> None:
    generator = torch.Generator().manual_seed(3)
    vectors = torch.randn(3, 10, 6, generator=generator, dtype=torch.float64)
    vectors[1, 0], vectors[2, 1] = vectors[0, 0], vectors[1, 1]  # a distance of zero, and equal distances
    results = []
    for function in (
        lambda *parts: triplet(*parts, margin=0.7),
        nn.TripletMarginWithDistanceLoss(margin=0.7, reduction="none"),
    ):
        parts = [vector.clone().requires_grad_() for vector in vectors]
        loss = function(*parts)
        results.append([loss, *torch.autograd.grad(loss.sum(), parts)])
    assert 0 < (results[0][0] > 0).sum() < 10, "the hinge must be on both sides of its corner"
    for ours, expected in zip(*results):
        torch.testing.assert_close(ours, expected)
        assert torch.isfinite(ours).all()


@pytest.mark.parametrize("initial", [0.011, 0.1, 5.0])
def test_a_temperature_starts_where_it_should(initial: float) -> None:
    torch.testing.assert_close(Temperature(initial)(), torch.tensor(initial), rtol=1e-5, atol=1e-7)


def test_a_temperature_never_falls_below_its_minimum() -> None:
    temperature = Temperature(0.1, minimum=0.02)
    for raw in (-1e6, -1.0, -0.01, 0.0, 1e6):
        with torch.no_grad():
            temperature.raw.fill_(raw)
        value = temperature()
        assert value.item() >= torch.tensor(0.02).item() and torch.isfinite(value)


def test_well_above_its_minimum_a_temperature_moves_like_a_plain_parameter() -> None:
    temperature = Temperature(0.1)
    temperature().backward()
    assert temperature.raw.grad.item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("initial", [0.01, 0.0, -1.0])
def test_a_temperature_must_start_above_its_minimum(initial: float) -> None:
    with pytest.raises(ConfigError, match="above"):
        Temperature(initial)


def test_nt_xent_tells_each_view_from_those_of_other_rows() -> None:
    left, right = inputs(4, 4, torch.float64)
    weight, tau = torch.randn(4, 4, dtype=torch.float64), torch.tensor(0.2, dtype=torch.float64)
    views = [*left, *right]

    def similarity(first: int, second: int) -> Tensor:
        return torch.exp(torch.tanh(views[first] @ weight @ views[second]) / tau)

    expected = 0.0
    for anchor in range(8):
        positive = (anchor + 4) % 8
        others = sum(similarity(anchor, other) for other in range(8) if other % 4 != anchor % 4)
        expected = expected - torch.log(similarity(anchor, positive) / (similarity(anchor, positive) + others)) / 8
    torch.testing.assert_close(nt_xent(left, right, weight, tau), expected)
    assert torch.autograd.gradcheck(nt_xent, (left, right, weight.requires_grad_(), tau.requires_grad_()))


def test_nt_xent_of_a_single_row_is_nothing() -> None:
    left, right = inputs(1, 1, torch.float32)
    loss = nt_xent(left, right, torch.ones(4, 4), torch.tensor(0.1))
    loss.backward()
    assert loss.item() == 0 and (left.grad == 0).all()


# --- the next item ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [1, 46, 1 << 18])
def test_the_softmax_in_parts_equals_the_whole(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "LOGITS_AT_ONCE", at_once)
    monkeypatch.setattr(losses, "FEWEST_ROWS", 1)
    states, vectors = (torch.randn(n, 6, dtype=torch.float64, requires_grad=True) for n in (5, 23))
    places = torch.tensor([0, 22, 7, 7, 1])
    torch.testing.assert_close(
        inner_product_softmax(states, vectors, places), F.cross_entropy(states @ vectors.t(), places)
    )
    assert torch.autograd.gradcheck(lambda a, b: inner_product_softmax(a, b, places), (states, vectors))


def test_of_a_large_softmax_only_a_part_is_kept() -> None:
    states, vectors = torch.randn(64, 8, requires_grad=True), torch.randn(60_000, 8, requires_grad=True)
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        inner_product_softmax(states, vectors, torch.zeros(64, dtype=torch.int64))
    assert sum(kept) < 9 * 60_000  # the gradients; the logits would be 64 * 60,000


@pytest.mark.parametrize("kind", ["BCE", "BPR"])
def test_sampled_losses(kind: Literal["BCE", "BPR"]) -> None:
    logits = torch.randn(4, 3, dtype=torch.float64) * 3
    total = 0.0
    for row in logits.tolist():
        for negative in row[1:]:
            if kind == "BPR":
                total -= math.log(1 / (1 + math.exp(negative - row[0]))) / 8
            else:
                total -= math.log(1 - 1 / (1 + math.exp(-negative))) / 12
        total -= math.log(1 / (1 + math.exp(-row[0]))) / 12 if kind == "BCE" else 0.0
    assert float(sampled_loss(kind, logits)) == pytest.approx(total)
