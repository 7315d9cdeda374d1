"""The RQ-VAE against a slow one, its training and the codes that come out of it."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from reference import rqvae_reference as reference
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from recbole_ser.codes import quantiser as quantiser_module
from recbole_ser.codes import rqvae as rqvae_module
from recbole_ser.codes.autoencoder import RQVAE, Side, alignment_loss
from recbole_ser.codes.quantiser import (
    ResidualQuantiser,
    collision_rate,
    distinct_rows,
    kmeans,
    repair_collisions,
    sinkhorn,
    squared_distances,
)
from recbole_ser.codes.rqvae import fit_codes
from recbole_ser.errors import ConfigError, UserError
from recbole_ser.settings.checking import check
from recbole_ser.settings.codes import RQVAESpec
from recbole_ser.train.optimization import build_adam

SMALL = RQVAESpec(levels=3, codebook_size=6, width=4, hidden=(10, 8), epochs=12, batch_size=32, users_per_code=4)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def quantiser(levels: int = 3, size: int = 6, width: int = 4) -> ResidualQuantiser:
    made = ResidualQuantiser(levels, size, width, commitment=0.25, epsilon=0.01, iterations=20).double()
    made.codebooks.data.normal_()
    return made


def changed(spec: RQVAESpec, **values: Any) -> RQVAESpec:
    return spec.model_copy(update=values)


def small_model(spec: RQVAESpec = SMALL) -> RQVAE:
    model = RQVAE((7, 5), (6, 4), spec).double()
    for side in model.sides:
        side.quantiser.codebooks.data.normal_(std=0.5)
    return model


def vectors(users: int, width: int, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=(users, width)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def clustered(users: int, clusters: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors around as many centres, and which centre each is of."""
    generator = np.random.default_rng(seed)
    label = np.arange(users) % clusters
    drawn = generator.normal(size=(clusters, width))[label] + 0.15 * generator.normal(size=(users, width))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32), label


# The quantiser


def test_codes_are_the_nearest_of_what_is_left_level_by_level(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantiser_module, "_ROWS", 7)
    made, rows = quantiser(), torch.randn(40, 4, dtype=torch.float64)
    codes, residuals = made.codes(rows)
    for row, found, left in zip(rows, codes.tolist(), residuals):
        for level, code in enumerate(found):
            assert code == reference.nearest(row, made.codebooks[level])
            if level == 2:
                torch.testing.assert_close(left, row)
            row = row - made.codebooks[level, code]


def test_the_quantisation_loss_and_its_gradients_are_those_of_equation_5() -> None:
    made = quantiser()
    rows = torch.randn(9, 4, dtype=torch.float64, requires_grad=True)
    codes = reference.training_codes(rows, made.codebooks, 0.01, 20)
    loss, by_row, by_code, sums = reference.quantisation(rows, made.codebooks, codes, 0.25)
    quantised = made(rows)
    assert quantised.loss.item() == pytest.approx(loss, rel=1e-12)
    torch.testing.assert_close(quantised.values.detach(), sums)
    found = torch.autograd.grad(quantised.loss, (rows, made.codebooks))
    torch.testing.assert_close(found, (by_row, by_code))
    assert torch.equal(quantised.nearest, made.codes(rows.detach())[0])
    assert quantised.nearest[:, 2].tolist() != [code[-1] for code in codes]  # or Sinkhorn is not tested


def test_the_gradient_of_the_values_goes_straight_to_the_rows() -> None:
    made = quantiser()
    rows = torch.randn(9, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(9, 4, dtype=torch.float64)
    values = made(rows).values
    by_row, by_code = torch.autograd.grad((values * weight).sum(), (rows, made.codebooks), allow_unused=True)
    assert torch.equal(by_row, weight) and by_code is None


def test_residual_quantisation_equals_that_of_a_library() -> None:
    library = pytest.importorskip("vector_quantize_pytorch")
    made, rows = quantiser(4, 16, 8).float(), torch.randn(200, 8)
    other = library.ResidualVQ(dim=8, num_quantizers=4, codebook_size=16)
    with torch.no_grad():
        for layer, codebook in zip(other.layers, made.codebooks):
            layer._codebook.embed.copy_(codebook.unsqueeze(0))
            layer._codebook.initted.fill_(True)
        values, codes, _ = other.eval()(rows.unsqueeze(0))
    ours, residuals = made.codes(rows)
    assert torch.equal(codes.squeeze(0), ours)
    torch.testing.assert_close(values.squeeze(0), rows - residuals + made.codebooks[3][ours[:, 3]].detach())


def test_codebooks_start_at_the_k_means_centres_of_the_residuals() -> None:
    made, rows = quantiser(3, 8, 4), torch.randn(200, 4, dtype=torch.float64)
    made.start(rows, seed=0)
    for codebook in made.codebooks.detach():
        nearest = squared_distances(rows, codebook).argmin(dim=1)
        for code in range(8):
            torch.testing.assert_close(rows[nearest == code].mean(dim=0), codebook[code], atol=1e-3, rtol=0)
        before, rows = rows, rows - codebook[nearest]
        assert rows.square().sum() < 0.6 * before.square().sum()


def test_k_means_of_fewer_distinct_rows_than_codes_repeats_centres() -> None:
    rows = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    centres = kmeans(rows, 5, seed=0)
    assert len(centres) == 5 and {tuple(centre) for centre in centres.tolist()} == {(0.0, 0.0), (1.0, 0.0)}


def test_idle_codes_move_onto_residuals_and_the_others_stay() -> None:
    made, rows = quantiser(2, 4, 3), torch.randn(10, 3, dtype=torch.float64)
    before = made.codebooks.detach().clone()
    used = torch.tensor([[True, False, True, False], [True, True, True, False]])
    made.revive(used, rows)
    after = made.codebooks.detach()
    assert torch.equal(after[used], before[used])
    assert all((rows == code).all(dim=1).any() for code in after[0, [1, 3]])
    residuals = rows - after[0][squared_distances(rows, after[0]).argmin(dim=1)]
    assert (residuals == after[1, 3]).all(dim=1).any()
    assert not torch.equal(after[0, 1], after[0, 3])


def test_more_idle_codes_than_rows_are_no_error() -> None:
    made = quantiser(2, 6, 3)
    rows = torch.randn(2, 3, dtype=torch.float64)
    made.revive(torch.zeros(2, 6, dtype=torch.bool), rows)
    assert sorted(made.codebooks[0, :2].tolist()) == sorted(rows.tolist())


# Sinkhorn and the repair


@pytest.mark.parametrize(("rows", "columns"), [(12, 5), (5, 12), (1, 4), (4, 1)])
def test_sinkhorn_equals_the_plain_one_and_has_its_marginals(rows: int, columns: int) -> None:
    distances = torch.rand(rows, columns, dtype=torch.float64)
    if columns == 1:
        distances[0] += 1
    plan = sinkhorn(distances, 0.05, 200)
    torch.testing.assert_close(plan, torch.tensor(reference.plain_sinkhorn(distances, 0.05, 200)).double())
    torch.testing.assert_close(plan.sum(dim=0), torch.full((columns,), 1 / columns).double())
    torch.testing.assert_close(plan.sum(dim=1), torch.full((rows,), 1 / rows).double(), atol=1e-3, rtol=0)


def test_sinkhorn_is_finite_at_the_smallest_epsilon_whatever_the_scale() -> None:
    distances = torch.rand(64, 16) ** 8
    distances[:, 3] = 1.0  # a code far from all
    plan = sinkhorn(distances, 0.003, 50)
    assert plan.dtype == torch.float64 and torch.isfinite(plan).all()
    torch.testing.assert_close(plan.sum(dim=0), torch.full((16,), 1 / 16).double())
    torch.testing.assert_close(sinkhorn(distances * 2**-30, 0.003, 50), plan)
    assert torch.isfinite(sinkhorn(torch.ones(3, 4), 0.003, 50)).all()


@pytest.mark.parametrize("size", [16, 3])  # room for all rows, and not
def test_repair_equals_the_plain_one(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(quantiser_module, "_ROWS", 3)
    codes = torch.randint(3, (40, 3))
    residuals, codebook = torch.randn(40, 2).double(), torch.randn(size, 2).double()
    expected, rounds = reference.repaired([tuple(code) for code in codes.tolist()], residuals, codebook)
    found = repair_collisions(codes, residuals, codebook)
    assert [tuple(code) for code in found[0].tolist()] == expected
    assert found[1] == rounds >= 1


def test_repair_tells_all_rows_apart_that_there_are_codes_for() -> None:
    codes, residuals, codebook = torch.randint(2, (300, 3)), torch.randn(300, 4), torch.randn(100, 4)
    repaired, _ = repair_collisions(codes, residuals, codebook)
    assert collision_rate(codes) > 0.9 and collision_rate(repaired) == 0.0
    assert torch.equal(repaired[:, :2], codes[:, :2])
    assert repair_collisions(repaired, residuals, codebook)[1] == 0
    kept, rounds = repair_collisions(codes * 0, residuals, codebook[:1])
    assert torch.equal(kept, codes * 0) and rounds == 0


def test_repair_of_a_single_level() -> None:
    repaired, _ = repair_collisions(torch.zeros(6, 1, dtype=torch.int64), torch.randn(6, 2), torch.randn(6, 2))
    assert sorted(repaired.squeeze(1).tolist()) == list(range(6))


def test_distinct_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantiser_module, "_ROWS", 4)
    table = torch.randint(3, (50, 2)).float()
    rows, kinds = distinct_rows(table)
    assert torch.equal(table[rows][kinds], table)
    assert len(rows) == len(table.unique(dim=0)) == len(table[rows].unique(dim=0))
    assert all(row == (table == table[row]).all(dim=1).nonzero()[0] for row in rows)


# The model


def test_the_contrast_and_its_gradients_are_those_of_equation_1() -> None:
    search, rec = (torch.randn(6, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    tau = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    found, expected = (
        [value, *torch.autograd.grad(value, (search, rec, tau))]
        for value in (alignment_loss(search, rec, tau), reference.contrast(search, rec, tau))
    )
    torch.testing.assert_close(found, expected)
    assert alignment_loss(search[:1], rec[:1], tau).item() == pytest.approx(0.0)
    alike = torch.ones(6, 4, dtype=torch.float64)  # all rows are as likely, in both directions
    assert alignment_loss(alike, alike, tau).item() == pytest.approx(math.log(6))


def expected_gradients(model: RQVAE, inputs: tuple[Tensor, Tensor]) -> tuple[float, dict[str, Tensor]]:
    """Eq. 6 and its gradients, the quantisers' part of which is written out by hand."""
    spec = model.spec
    total, latents = torch.zeros((), dtype=torch.float64), []
    by_hand: dict[str, Tensor] = {}
    for name, side, rows in zip(("search", "rec"), model.sides, inputs):
        latent = torch.stack([reference.network(side.encoder, row) for row in rows])
        books = side.quantiser.codebooks
        codes = reference.training_codes(latent, books, spec.sinkhorn_epsilon, spec.sinkhorn_iterations)
        loss, by_row, by_code, sums = reference.quantisation(latent, books, codes, spec.commitment)
        share = spec.lambda_rq / 2
        by_hand[f"{name}.quantiser.codebooks"] = share * by_code
        through = latent + (sums - latent).detach()
        decoded = torch.stack([reference.network(side.decoder, row) for row in through])
        total = total + (decoded - rows).square().sum() / rows.numel()
        surrogate = share * (by_row * latent).sum()  # has the gradient by_row with respect to the latents
        total = total + surrogate - surrogate.detach() + share * loss
        latents.append(latent)
    total = total + spec.lambda_rq_cl * reference.contrast(*latents, model.temperature())
    names, parameters = zip(*model.named_parameters())
    gradients = dict(zip(names, torch.autograd.grad(total, parameters, allow_unused=True)))
    return total.item(), gradients | by_hand


def test_the_total_loss_and_all_gradients_are_those_of_equation_6() -> None:
    model = small_model(changed(SMALL, lambda_rq=0.7, lambda_rq_cl=0.3))
    inputs = (torch.randn(8, 7, dtype=torch.float64), torch.randn(8, 5, dtype=torch.float64))
    total, gradients = expected_gradients(model, inputs)
    losses = model(*inputs)
    losses.total.backward()
    assert losses.total.item() == pytest.approx(total, rel=1e-10)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], msg=lambda text, name=name: f"{name}: {text}")


def test_a_step_of_training_is_a_clipped_one_of_adamw() -> None:
    model = small_model(changed(SMALL, lambda_rq_cl=0.3, weight_decay=0.1, gradient_norm=0.05))
    inputs = (torch.randn(8, 7, dtype=torch.float64), torch.randn(8, 5, dtype=torch.float64))
    _, gradients = expected_gradients(model, inputs)
    norm = torch.cat([gradient.flatten() for gradient in gradients.values()]).norm()
    assert norm > 0.05
    expected = {}
    for name, value in model.named_parameters():
        decay = 0.0 if name == "temperature.raw" else 0.1
        expected[name] = reference.adamw_step(value.detach(), gradients[name] * 0.05 / (norm + 1e-6), 1e-3, decay)
    optimizer = build_adam(model, "adamw", 1e-3, 0.1)
    rqvae_module._train_epoch(model, inputs, 1, optimizer, LambdaLR(optimizer, lambda step: 1.0))
    for name, value in model.named_parameters():
        torch.testing.assert_close(value.detach(), expected[name], msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_the_sides_meet_in_the_contrast_only(weight: float) -> None:
    model = small_model(changed(SMALL, lambda_rq_cl=weight))
    search, rec, other = torch.randn(8, 7).double(), torch.randn(8, 5).double(), torch.randn(8, 5).double()
    parameters = list(model.search.parameters())
    first, second = (torch.autograd.grad(model(search, side).total, parameters) for side in (rec, other))
    assert all(torch.equal(*pair) for pair in zip(first, second)) == (weight == 0.0)
    assert (model(search, rec).contrast.item() == 0.0) == (weight == 0.0)


def test_an_empty_text_takes_no_part_in_the_contrast() -> None:
    model = small_model(changed(SMALL, lambda_rq_cl=1.0))
    search, rec = torch.randn(8, 7).double(), torch.randn(8, 5).double()
    search[2], rec[5] = 0.0, 0.0
    losses = model(search, rec)
    rest = [0, 1, 3, 4, 6, 7]
    assert losses.contrast.item() == pytest.approx(model(search[rest], rec[rest]).contrast.item())
    losses.total.backward()
    assert all(parameter.grad.abs().max() < 100 for parameter in model.parameters() if parameter.grad is not None)
    assert model(search * 0, rec).contrast.item() == 0.0


@pytest.mark.parametrize(
    ("inputs", "hidden"), [(1024, [512, 256, 128, 64]), (128, [256, 128, 64]), (40, [64]), (3, [64])]
)
def test_hidden_layers_much_wider_than_the_input_are_left_out(inputs: int, hidden: list[int]) -> None:
    side = Side(inputs, 4, RQVAESpec())
    widths = [inputs, *hidden, 32]
    for network, expected in ((side.encoder, widths), (side.decoder, widths[::-1])):
        shapes = [tuple(layer.weight.shape) for layer in network if isinstance(layer, torch.nn.Linear)]
        assert shapes == [(after, before) for before, after in zip(expected, expected[1:])]
        assert not isinstance(network[-1], torch.nn.ReLU)


# Training and the codes of users


def test_the_learning_rate_rises_and_then_falls_to_zero() -> None:
    rates = [rqvae_module._learning_rate(step, warm_up=4, steps=12) for step in range(13)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0] and rates[8] == 0.5 and rates[12] == 0.0
    assert rqvae_module._learning_rate(0, warm_up=1, steps=1) == 1.0


def test_training_has_converged_once_neither_figure_gets_better() -> None:
    def curve(losses: list[float], collisions: list[float]) -> list[rqvae_module._Epoch]:
        return [rqvae_module._Epoch([loss, 0.0], 0.0, [rate, 0.0]) for loss, rate in zip(losses, collisions)]

    flat, falling = [1.0, 0.5, 0.499, 0.4985, 0.5], [1.0, 0.5, 0.4, 0.3, 0.2]
    assert rqvae_module._has_converged(curve(flat, flat), 2, 0.01)
    assert rqvae_module._has_converged(curve(flat, [0.0] * 5), 2, 0.01)
    assert not rqvae_module._has_converged(curve(flat, falling), 2, 0.01)
    assert not rqvae_module._has_converged(curve(falling, flat), 2, 0.01)
    assert not rqvae_module._has_converged(curve(flat[-4:], flat[-4:]), 2, 0.01)


def test_the_same_seed_gives_the_same_codes_and_touches_nothing_else() -> None:
    inputs = vectors(100, 12), vectors(100, 9, seed=1)
    inputs[0].flags.writeable = False
    copies = [side.copy() for side in inputs]
    state = torch.random.get_rng_state()
    first, second = fit_codes(*inputs, SMALL), fit_codes(*inputs, SMALL)
    assert np.array_equal(first.search, second.search) and np.array_equal(first.rec, second.rec)
    assert first.report == second.report
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(np.array_equal(*pair) for pair in zip(inputs, copies))
    other = fit_codes(*inputs, changed(SMALL, seed=1))
    assert not np.array_equal(first.search, other.search)


def test_users_with_the_same_vector_share_codes_and_others_do_not() -> None:
    search, rec = vectors(120, 12), vectors(120, 9, seed=1)
    search[60:] = search[:60]
    rec[100:] = 0.0
    codes = fit_codes(search, rec, changed(SMALL, codebook_size=15))
    assert np.array_equal(codes.search[60:], codes.search[:60])
    assert len(np.unique(codes.search, axis=0)) == 60
    assert (codes.rec[100:] == codes.rec[100]).all()
    assert len(np.unique(codes.rec, axis=0)) == 101
    assert codes.report["search"]["distinct"] == 60 and codes.report["rec"]["distinct"] == 101
    assert codes.report["search"]["collision_rate"]["after"] == 0.0


def test_planted_clusters_share_their_first_codes() -> None:
    search, label = clustered(400, 8, 24, seed=0)
    rec, _ = clustered(400, 8, 24, seed=1)
    codes = fit_codes(search, rec, RQVAESpec(codebook_size=16, epochs=60, batch_size=200, users_per_code=4))
    for side in (codes.search, codes.rec):
        first = side[:, 0]
        majority = sum(np.bincount(label[first == code]).max() for code in np.unique(first))
        assert majority >= 0.98 * len(label)  # a first code belongs to one cluster
        assert len(np.unique(first)) >= 8
        together = [np.bincount(first[label == cluster]).max() / 50 for cluster in range(8)]
        assert np.mean(together) > 0.4  # 1 / 16 by chance


def test_training_lowers_the_reconstruction_loss_and_aligns_the_sides() -> None:
    search, rec = clustered(300, 10, 24, seed=0)[0], clustered(300, 10, 24, seed=1)[0]
    spec = RQVAESpec(codebook_size=32, epochs=60, batch_size=100, users_per_code=4, lambda_rq_cl=1e-2)
    report = fit_codes(search, rec, spec).report
    for side in ("search", "rec"):
        losses = report[side]["reconstruction"]
        assert losses[-1] < 0.3 * losses[0]
    assert report["contrast"][-1] < 0.7 * report["contrast"][0]
    without = fit_codes(search, rec, changed(spec, lambda_rq_cl=0.0)).report
    assert set(without["contrast"]) == {0.0} and without["temperature"] == pytest.approx(0.1)


def test_training_starts_from_codes_that_tell_users_apart() -> None:
    spec = changed(SMALL, codebook_size=16, batch_size=100)
    report = fit_codes(vectors(100, 12), vectors(100, 9, seed=1), spec).report
    assert report["search"]["collisions"][0] < 0.3 and report["rec"]["collisions"][0] < 0.3


def test_codes_that_fall_idle_in_training_come_back() -> None:
    search, rec = clustered(400, 40, 24, seed=0)[0], clustered(400, 40, 24, seed=1)[0]
    report = fit_codes(
        search, rec, RQVAESpec(levels=2, codebook_size=64, epochs=40, batch_size=200, users_per_code=4)
    ).report
    assert all(level["use"] > 0.95 for side in ("search", "rec") for level in report[side]["levels"])


@pytest.mark.parametrize(("users", "size"), [(1, 1), (3, 1), (50, 12), (24, 6)])
def test_a_codebook_has_no_code_for_fewer_users_than_asked(users: int, size: int) -> None:
    spec = changed(SMALL, codebook_size=16)
    codes = fit_codes(vectors(users, 6), vectors(users, 6, seed=1), changed(spec, epochs=2))
    assert codes.report["search"]["codebook_size"] == size
    for side in (codes.search, codes.rec):
        assert side.shape == (users, 3) and side.dtype == np.int64
        assert side.min() >= 0 and side.max() < size


def test_the_report_is_of_the_codes() -> None:
    codes = fit_codes(vectors(100, 12), vectors(100, 9, seed=1), SMALL)
    report = json.loads(json.dumps(codes.report, allow_nan=False))
    assert report == codes.report
    assert 1 <= report["epochs"] <= 12 and report["stopped"] in ("converged", "budget")
    assert report["steps"] == 4 * report["epochs"] and len(report["contrast"]) == report["epochs"]
    for side in ("search", "rec"):
        of_side = report[side]
        assert len(of_side["reconstruction"]) == len(of_side["collisions"]) == report["epochs"]
        assert len(of_side["levels"]) == 3
        for column, level in zip(getattr(codes, side).T, of_side["levels"]):
            counts = np.unique(column, return_counts=True)[1] / 100
            assert level["use"] == pytest.approx(len(counts) / 6)
            assert level["perplexity"] == pytest.approx(np.prod(counts**-counts))
        tuples = len(np.unique(getattr(codes, side), axis=0))
        assert of_side["collision_rate"]["after"] == pytest.approx(1 - tuples / 100)
        assert of_side["collision_rate"]["before"] >= of_side["collision_rate"]["after"]


def test_the_budget_is_the_epochs_or_the_steps() -> None:
    inputs = vectors(100, 12), vectors(100, 9, seed=1)
    assert fit_codes(*inputs, changed(SMALL, epochs=3)).report["epochs"] == 3
    assert fit_codes(*inputs, changed(SMALL, max_steps=7)).report["steps"] == 8


@pytest.mark.parametrize(
    ("search", "rec", "message"),
    [
        (np.ones((3, 2)), np.ones((4, 2)), "3 users have a search vector, 4 a recommendation vector"),
        (np.ones(3), np.ones((3, 2)), r"search vectors: .* shape \(3,\)"),
        (np.ones((3, 2)), np.ones((3, 0)), r"recommendation vectors: .* shape \(3, 0\)"),
        (np.ones((3, 2)), np.array([[1, 2], [3, np.nan], [1, 2]]), "recommendation vectors: row 1 is not finite"),
    ],
)
def test_vectors_that_cannot_be_used_are_refused(search: np.ndarray, rec: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        fit_codes(search, rec, SMALL)


@pytest.mark.parametrize(
    ("name", "value"),
    [("levels", 0), ("lambda_rq", -1.0), ("learning_rate", 0.0), ("hidden", (8, 0)), ("sinkhorn_epsilon", 0.001)],
)
def test_settings_that_make_no_sense_are_refused(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"^{name} is .*: it must be"):
        check(RQVAESpec, {name: value})
