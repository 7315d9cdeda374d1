"""Training: one step by hand, equal seeds, schedules, stopping, diverging losses, RecBole's models."""

from __future__ import annotations

import copy
import logging
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from recbole.model.general_recommender import BPR
from recbole.model.sequential_recommender import GRU4Rec, SASRec
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from training_fakes import FakeConfig, FakeEvalLoader, FakeTrainLoader, Toy, fake_dataset, toy_trainer

from recbole_ser.errors import ConfigError, UserError
from recbole_ser.logs import log_to
from recbole_ser.model.general.pop import Pop
from recbole_ser.runs.result import epoch_line
from recbole_ser.train.loss_means import LossMeans
from recbole_ser.train.optimization import Plateau, build_adam
from recbole_ser.train.trainer import SERTrainer


class NoDropout(Toy):
    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.dropout = nn.Identity()


def first_batch(loader: FakeTrainLoader, epoch: int = 0) -> Any:
    loader.set_epoch(epoch)
    return next(iter(loader))


def trained(run_dir: Path, model: type[Toy] = Toy, **values: Any) -> SERTrainer:
    trainer = toy_trainer(run_dir, model, **values)
    trainer.fit(FakeTrainLoader(), FakeEvalLoader(), verbose=False)
    return trainer


def weights(trainer: SERTrainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def assert_equal_weights(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_one_step_is_adam_with_coupled_weight_decay_on_all_but_the_spared(tmp_path: Path) -> None:
    rate, decay, eps = 0.01, 0.1, 1e-8
    trainer = toy_trainer(tmp_path, NoDropout, learning_rate=rate, weight_decay=decay)
    before = weights(trainer)
    batch = first_batch(FakeTrainLoader())
    gradients = torch.autograd.grad(trainer.model.calculate_loss(batch), list(trainer.model.parameters()))
    trainer.model.train()
    trainer._step(trainer._losses(batch))
    for (name, after), gradient in zip(trainer.model.named_parameters(), gradients):
        total = gradient + (0.0 if name == "temperature" else decay) * before[name]
        step = rate * total / (total.abs() + eps)  # the first step of Adam: both moments are corrected to the gradient
        torch.testing.assert_close(after.detach(), before[name] - step, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("learner", "original"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_optimisers_compute_what_pytorchs_own_do(learner: str, original: type[torch.optim.Optimizer]) -> None:
    ours = nn.Linear(3, 2)
    theirs = copy.deepcopy(ours)
    optimizers = [
        build_adam(ours, learner, rate=0.1, weight_decay=0.01),
        original(theirs.parameters(), lr=0.1, weight_decay=0.01, fused=True),  # type: ignore[call-arg]
    ]
    for step in range(3):
        for layer, optimizer in zip((ours, theirs), optimizers):
            optimizer.zero_grad()
            layer(torch.ones(4, 3) * step).square().sum().backward()
            optimizer.step()
    assert_equal_weights(ours.state_dict(), theirs.state_dict())
    states = [optimizer.state_dict()["state"] for optimizer in optimizers]
    assert states[0].keys() == states[1].keys() != set()
    assert all(torch.equal(states[0][key]["exp_avg_sq"], states[1][key]["exp_avg_sq"]) for key in states[0])


@pytest.mark.parametrize("learner", ["adam", "adamw", "sgd"])
def test_a_spared_parameter_does_not_decay(tmp_path: Path, learner: str) -> None:
    trainer = toy_trainer(tmp_path, learner=learner, weight_decay=0.5)
    before = weights(trainer)
    for parameter in trainer.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    trainer.optimizer.step()
    after = weights(trainer)
    assert {name for name in before if torch.equal(before[name], after[name])} == {"temperature"}


def test_a_spared_parameter_that_does_not_exist_is_an_error() -> None:
    model = nn.Linear(2, 2)
    model.no_weight_decay = lambda: {"biass"}
    with pytest.raises(ValueError, match="biass"):
        build_adam(model, "adam", 0.1, 0.1)


def test_the_same_seed_gives_bitwise_the_same_run_and_another_seed_another(tmp_path: Path) -> None:
    first, second = trained(tmp_path / "1"), trained(tmp_path / "2")
    torch.rand(5)
    assert_equal_weights(weights(first), weights(second))
    assert [line["valid"] for line in first.run_folder.metrics()] == [
        line["valid"] for line in second.run_folder.metrics()
    ]
    model = toy_trainer(tmp_path / "3")
    other = toy_trainer(tmp_path / "4", seed=8)
    other.model.load_state_dict(model.model.state_dict())
    for trainer in (model, other):
        trainer._train_epoch(FakeTrainLoader(), 0)
    assert not torch.equal(model.model.next.weight, other.model.next.weight)


def test_an_epoch_depends_on_its_number_and_not_on_what_was_drawn_before(tmp_path: Path) -> None:
    results = []
    for draws in (0, 100):
        trainer = toy_trainer(tmp_path)
        torch.rand(draws)
        trainer._train_epoch(FakeTrainLoader(), 5)
        results.append(weights(trainer))
    assert_equal_weights(*results)


def test_it_learns_and_reports_every_epoch(tmp_path: Path) -> None:
    seen: list[tuple[int, dict[str, float]]] = []
    trainer, loader = toy_trainer(tmp_path, epochs=30, learning_rate=0.03), FakeTrainLoader()
    score, best = trainer.fit(loader, FakeEvalLoader(), verbose=False, callback_fn=lambda *line: seen.append(line))
    lines = trainer.run_folder.metrics()
    assert score == best["mrr"] == max(line["valid"]["mrr"] for line in lines) > 0.9
    assert lines[-1]["losses"]["rec"] < 0.5 * lines[0]["losses"]["rec"]
    assert loader.epochs_seen == list(range(30)) == [epoch for epoch, _ in seen]
    assert [result for _, result in seen] == [line["valid"] for line in lines]
    assert set(lines[0]) >= {"epoch", "losses", "valid", "learning_rate", "seconds", "cpu_seconds", "peak_memory_mib"}
    assert set(lines[0]["losses"]) == {"rec", "size"}


def test_the_best_weights_are_tested_and_not_the_last(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, epochs=4)
    snapshots: list[dict[str, torch.Tensor]] = []
    scores = iter([0.1, 0.4, 0.3, 0.2])
    trainer.evaluate = lambda *args, **kwargs: {"mrr": next(scores)}
    trainer.fit(FakeTrainLoader(), FakeEvalLoader(), False, callback_fn=lambda *_: snapshots.append(weights(trainer)))
    trainer.rank(FakeEvalLoader())
    assert trainer.best_epoch == 1
    assert_equal_weights(weights(trainer), snapshots[1])
    trainer.model.next.weight.data.zero_()
    trainer.rank(FakeEvalLoader(), load_best_model=False)
    assert not trainer.model.next.weight.any()


def test_test_writes_result_and_ranks(tmp_path: Path) -> None:
    trainer = trained(tmp_path)
    trainer.run_folder.write_data("da7a", "uni4", {"valid": "c0", "test": "c1"}, {"users": 29})
    result = trainer.test(FakeEvalLoader(seed=3))
    assert trainer.run_folder.result() == result
    ranks = trainer.run_folder.ranks()
    assert ranks["user_id"].tolist() == FakeEvalLoader().user_tokens().tolist()
    assert result.test["mrr"] == pytest.approx((1 / ranks["rank"]).mean())
    assert result.valid == trainer.run_folder.metrics()[result.best_epoch]["valid"]
    assert result.parameters == sum(parameter.numel() for parameter in trainer.model.parameters())
    assert (result.epochs, result.data, result.candidates["test"]) == (3, "da7a", "c1")


def epochs_until_it_stops(trainer: Any, scores: list[float]) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl when the validation scores are ``scores``."""
    left = iter(scores)
    trainer.evaluate = lambda *args, **kwargs: {"mrr": next(left)}
    trainer.fit(FakeTrainLoader(), FakeEvalLoader(), verbose=False)
    return trainer.run_folder.metrics()


def test_early_stopping_counts_evaluations_without_a_better_score(tmp_path: Path) -> None:
    scores = [0.1, 0.3, 0.2, 0.2, 0.4, 0.3, 0.3, 0.3, 0.9]
    lines = epochs_until_it_stops(toy_trainer(tmp_path, epochs=9, stopping_step=2), scores)
    assert len(lines) == 8


PLATEAU = {"factor": 0.1, "patience": 5, "min_lr": 1e-5}


def test_on_a_plateau_the_rate_falls_and_stopping_counts_from_its_lowest(tmp_path: Path) -> None:
    scores = [0.1 + 0.01 * min(epoch, 8) for epoch in range(60)]  # the best is epoch 8, and 60 is never reached
    scores[9:] = [0.1] * 51
    trainer = toy_trainer(tmp_path, epochs=60, stopping_step=5, learning_rate=1e-3, lr_plateau=PLATEAU)
    rates = [line["learning_rate"] for line in epochs_until_it_stops(trainer, scores)]
    assert len(rates) - 1 == 26
    assert rates == pytest.approx([1e-3] * 15 + [1e-4] * 6 + [1e-5] * 6)


def test_a_better_score_at_the_lowest_rate_starts_the_count_again(tmp_path: Path) -> None:
    plateau = {"factor": 0.1, "patience": 0, "min_lr": 1e-3}
    trainer = toy_trainer(tmp_path, epochs=60, stopping_step=2, learning_rate=1e-2, lr_plateau=plateau)
    lines = epochs_until_it_stops(trainer, [0.5, 0.4, 0.4, 0.6, 0.1, 0.1, 0.1, 0.9])
    assert len(lines) == 7  # lowest after epoch 1, one worse, better at 3, then three worse


def test_without_a_plateau_the_rate_stays(tmp_path: Path) -> None:
    lines = epochs_until_it_stops(toy_trainer(tmp_path, epochs=4), [0.4, 0.3, 0.2, 0.1])
    assert {line["learning_rate"] for line in lines} == {0.01}


@pytest.mark.parametrize(
    ("rate", "lowest", "falls"),
    [(1e-3, 1e-5, True), (1e-3 * 0.1 * 0.1, 1e-5, False), (1e-5, 0.0, True), (1e-8, 0.0, False)],
)
def test_a_rate_that_the_scheduler_no_longer_lowers_is_the_lowest(rate: float, lowest: float, falls: bool) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=rate)
    plateau = Plateau(optimizer, {"factor": 0.1, "patience": 0, "min_lr": lowest}, bigger=True)
    assert plateau.can_fall == falls
    for _ in range(3):
        plateau.step(0.0)
    assert (optimizer.param_groups[0]["lr"] < rate) == falls


class Diverging(Toy):
    """Its second loss is not a number in the third batch of every epoch but the first."""

    steps = 0

    def auxiliary_losses(self, interaction: Any, state: torch.Tensor) -> dict[str, torch.Tensor]:
        self.steps += 1
        return {"align": state.square().mean() * (math.nan if self.steps == 8 else 1.0)}


def test_a_loss_that_is_nan_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="loss 'align' is nan in epoch 1, batch 2"):
        trained(tmp_path, Diverging)


def test_a_nan_is_found_when_losses_are_read_in_blocks() -> None:
    means = LossMeans(epoch=4, read_every=32)
    for step in range(5):
        assert not means.add({"rec": torch.tensor(1.0), "align": torch.tensor(math.inf if step == 3 else 2.0)})
    with pytest.raises(UserError, match="loss 'align' is inf in epoch 4, batch 3"):
        means.read()


@pytest.mark.parametrize("read_every", [1, 3, 100])
def test_loss_means(read_every: int) -> None:
    means = LossMeans(epoch=0, read_every=read_every)
    read = [means.add({"rec": torch.tensor(float(step)), "b": torch.tensor(1.0)}) for step in range(7)]
    assert means.read() == {"rec": 3.0, "b": 1.0}
    assert sum(read) == 7 // read_every
    assert str(means) == "rec 3.0000, b 1.0000"


def test_losses_are_shown_before_their_weights_and_saved_behind_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = toy_trainer(tmp_path, epochs=1)
    with caplog.at_level(logging.INFO):
        trainer.fit(FakeTrainLoader(), FakeEvalLoader())
    line = trainer.run_folder.metrics()[0]
    assert line["weights"] == {"size": 0.01}
    size = line["losses"]["size"] / 0.01
    assert f"rec {line['losses']['rec']:.4f}, size {size:.4f} x 0.01; valid" in caplog.text
    events = EventAccumulator(str(next((tmp_path / "tensorboard").glob("**/events*")).parent)).Reload()
    written = {tag: events.Scalars(tag)[0].value for tag in ("Loss/Train", "Loss/rec", "Loss/size")}
    total = line["losses"]["rec"] + line["losses"]["size"]
    assert written == pytest.approx({"Loss/Train": total, "Loss/rec": line["losses"]["rec"], "Loss/size": size})


def test_a_weight_for_a_loss_that_does_not_exist_is_told_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Slip(Toy):
        def loss_weights(self) -> dict[str, float]:
            return {"sise": 0.01, "absent": 0.0}

    told = "Slip has a weight for a loss that no batch had: sise; the losses were rec, size"
    with caplog.at_level(logging.WARNING):
        trained(tmp_path / "slip", Slip, epochs=2)
        trained(tmp_path / "right", Toy, epochs=2)
    assert [record.message for record in caplog.records if "weight for" in record.message] == [told]


def test_a_line_without_weights_is_shown_as_it_was_saved() -> None:
    line = {"epoch": 2, "losses": {"rec": 0.5, "contrast": 2e-05}, "valid": {"mrr": 0.25}, "seconds": 1.0}
    assert epoch_line(line, "mrr") == "epoch 2: rec 0.5000, contrast 2.0e-05; valid mrr 0.2500; 1.0 s"
    assert "off" not in epoch_line({**line, "losses": {"rec": 0.5, "off": 0.0}, "weights": {"off": 0.0}}, "mrr")


def test_gradients_are_clipped(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, learner="sgd", learning_rate=1.0, clip_grad_norm={"max_norm": 1e-3})
    before = weights(trainer)
    trainer._step(trainer._losses(first_batch(FakeTrainLoader())))
    moved = torch.cat([(value - before[name]).flatten() for name, value in weights(trainer).items()])
    assert moved.norm().item() == pytest.approx(1e-3, rel=1e-3)


class Watching(Toy):
    def score(self, state: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        self.state_dtype = state.dtype
        return super().score(state, items)


@pytest.mark.parametrize(("enabled", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_mixed_precision_is_used_in_training_only(tmp_path: Path, enabled: bool, dtype: torch.dtype) -> None:
    trainer = toy_trainer(tmp_path, Watching, enable_amp=enabled)
    trainer._train_epoch(FakeTrainLoader(), 0)
    assert trainer.model.state_dtype == dtype
    assert trainer.model.next.weight.dtype == torch.float32
    trainer.rank(FakeEvalLoader(), load_best_model=False)
    assert trainer.model.state_dtype == torch.float32


MODELS: list[tuple[type[Any], dict[str, Any]]] = [
    (BPR, {}),
    (GRU4Rec, {"hidden_size": 8, "num_layers": 1, "dropout_prob": 0.1, "loss_type": "BPR"}),
    (
        SASRec,
        {"n_layers": 1, "n_heads": 2, "hidden_size": 8, "inner_size": 8, "hidden_act": "gelu", "layer_norm_eps": 1e-12,
         "hidden_dropout_prob": 0.1, "attn_dropout_prob": 0.1, "initializer_range": 0.02, "loss_type": "CE"},
    ),
]  # fmt: skip


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("model_class", "values"), MODELS, ids=lambda value: getattr(value, "__name__", ""))
def test_recbole_models_train_on_empty_histories_too(
    tmp_path: Path, model_class: type[Any], values: dict[str, Any], full: bool
) -> None:
    config = FakeConfig(tmp_path, epochs=8, **values)
    train, valid = FakeTrainLoader(negatives=None), FakeEvalLoader(full=full)
    for loader in (train, valid):
        loader.columns["item_length"][0] = 0
        loader.columns["item_id_list"][0] = 0
    trainer = SERTrainer(config, model_class(config, fake_dataset()))
    trainer.fit(train, valid, verbose=False)
    losses = [line["losses"]["loss"] for line in trainer.run_folder.metrics()]
    assert losses[-1] < losses[0]
    assert trainer.evaluate(valid) == trainer.best_valid_result


def test_pop_trains_for_one_epoch_and_survives_its_checkpoint(tmp_path: Path) -> None:
    config = FakeConfig(tmp_path, epochs=50, eval_step=5)
    trainer = SERTrainer(config, Pop(config, fake_dataset()))
    trainer.fit(FakeTrainLoader(negatives=None), FakeEvalLoader(), verbose=False)
    assert [line["epoch"] for line in trainer.run_folder.metrics()] == [0]
    again = SERTrainer(config, Pop(config, fake_dataset()))
    assert again.evaluate(FakeEvalLoader()) == trainer.best_valid_result
    assert again.model.item_cnt.sum() == FakeTrainLoader.rows


def test_evaluation_every_second_epoch(tmp_path: Path) -> None:
    trainer = trained(tmp_path, epochs=5, eval_step=2)
    assert [line["epoch"] for line in trainer.run_folder.metrics()] == [1, 3]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"valid_metric": "NDCG@7"}, "valid_metric"),
        ({"metrics": ["AUC"]}, "'AUC'"),
    ],
)
def test_settings_that_cannot_be_trained_with(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        toy_trainer(tmp_path, **values)


def test_a_log_file_that_is_made_late_has_everything(tmp_path: Path) -> None:
    with log_to(None) as also_log_to:
        logging.getLogger().info("before")
        also_log_to(tmp_path / "log.txt")
        logging.getLogger().info("after")
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert [line.rpartition(" ")[2] for line in lines] == ["before", "after"]


def test_the_log_names_losses_and_holds_no_colours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = logging.getLogger().handlers[:]
    with log_to(tmp_path / "log.txt"):
        toy_trainer(tmp_path).fit(FakeTrainLoader(), FakeEvalLoader())
        logging.getLogger().info("\x1b[1;34mblue\x1b[0m")
    text = (tmp_path / "log.txt").read_text()
    assert logging.getLogger().handlers == before
    assert "epoch 2: rec 0." in text and "size 0." in text and "valid mrr 0." in text and "the best so far" in text
    assert "blue" in text and "\x1b" not in text
    assert "epoch 2: rec" in capsys.readouterr().err
    assert not Path("log_tensorboard").exists()


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_shown_on_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    toy_trainer(tmp_path, epochs=1).fit(FakeTrainLoader(), FakeEvalLoader(), verbose=False, show_progress=True)
    shown = capsys.readouterr().err
    assert ("Train 0" in shown and "Evaluate" in shown) == terminal
