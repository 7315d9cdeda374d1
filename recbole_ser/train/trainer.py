"""RecBole's ``Trainer``, changed to have resumable epochs, safe checkpoints, and ranking on fixed candidates."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.trainer import Trainer
from recbole.utils import ModelType, init_seed
from torch import Tensor, optim
from torch.nn.utils import clip_grad_norm_
from tqdm import tqdm

from recbole_ser.compat import tensorboard_in
from recbole_ser.errors import UserError
from recbole_ser.evaluation.evaluator import RankEvaluator
from recbole_ser.evaluation.ranking import rank_targets
from recbole_ser.model.base import SearchRecommender
from recbole_ser.model.foreign import candidate_scorer, failing_in_a_line, with_history
from recbole_ser.runs.checkpoint import WEIGHTS, load_checkpoint, other_parameters, save_checkpoint
from recbole_ser.runs.folder import RunFolder
from recbole_ser.runs.result import RunResult, duration, epoch_line, unweighted
from recbole_ser.train.costs import Stopwatch, peak_memory_mib
from recbole_ser.train.loss_means import LossMeans
from recbole_ser.train.optimization import FUSED, Plateau, build_adam, parameter_groups
from recbole_ser.train.synchrony import share_of_batch, start_alike, sum_gradients, summed_losses
from recbole_ser.train.tracking import start_tracking
from recbole_ser.workers import group
from recbole_ser.workers.rows import draws_seeded, gather_rows, own_part

# Attributes of the trainer that last.pt holds, besides weights, optimiser, scaler and scheduler.
_PROGRESS = ("cur_step", "stopping_step", "best_epoch", "best_valid_score", "best_valid_result")

# Settings that may differ when a run is resumed: they do not change what an epoch computes.
_FREE = frozenset(
    ["epochs", "run_dir", "checkpoint_dir", "data_path", "codes_file", "codes", "texts_folder", "texts", "gpu_id"]
    + ["data_cache", "show_progress", "state", "log_wandb", "wandb_project", "log_mlflow", "mlflow_experiment"]
)


class SERTrainer(Trainer):
    """Trains one model in the run folder ``config["run_dir"]``.

    Every epoch starts from random states made of (``seed``, epoch), so an epoch that was interrupted is simply
    trained again, with the same result.  Each evaluated epoch adds a line to ``metrics.jsonl`` and replaces
    ``last.pt``; the best one so far is in ``best.pt``.

    With ``lr_plateau: {factor, patience, min_lr}`` the learning rate is multiplied by ``factor`` after more than
    ``patience`` evaluations without a better validation score; early stopping then only counts evaluations from the
    one after which the rate can fall no further (the schedule that SESRec was published with).  Neither counts the
    epochs in which a model is pre-trained.

    Raises:
        ConfigError: training is not possible with these settings.
    """

    device: torch.device
    stopping_step: float

    def __init__(self, config: Any, model: AbstractRecommender) -> None:
        evaluator = RankEvaluator(config)
        self.run_folder = RunFolder(config["run_dir"])
        self._trackers = start_tracking(config, self.run_folder.path)
        with tensorboard_in(self.run_folder.path / "tensorboard" if group.is_first() else None):
            super().__init__(config, model)
        self.evaluator = evaluator
        self.scorer = candidate_scorer(model)
        self.saved_model_file = str(self.run_folder.best)
        self.device = torch.device(self.device)
        if model.type == ModelType.TRADITIONAL:
            self.epochs = self.eval_step = 1
        self.scaler = torch.amp.GradScaler("cuda", enabled=self.enable_amp and self.device.type == "cuda")
        self.scheduler = None
        if config["lr_plateau"]:
            self.scheduler = Plateau(self.optimizer, config["lr_plateau"], self.valid_metric_bigger)
        self.pretrain_epochs = getattr(model, "pretrain_epochs", 0)
        self._limit_patience(epochs_done=0)
        self.best_epoch = -1
        self.epoch_losses: dict[str, float] = {}
        self.epoch_weights: dict[str, float] = {}
        self.valid_result: dict[str, float] = {}
        self._on_evaluation: Callable[[int, dict[str, float]], None] | None = None
        self._verbose = True
        self._stopwatch = Stopwatch()

    # --- training ---------------------------------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Whether all epochs are done or early stopping has ended them."""
        return self.start_epoch >= self.epochs or self.cur_step > self.stopping_step

    def fit(
        self,
        train_data: Any,
        valid_data: Any,
        verbose: bool = True,
        show_progress: bool = False,
        callback_fn: Callable[[int, dict[str, float]], None] | None = None,
    ) -> tuple[float, dict[str, float]]:
        """Train as RecBole's ``fit`` does; a run that was resumed after its last epoch is not trained further.

        Args:
            callback_fn: called after each evaluated epoch with the epoch (from 0) and its validation metrics.

        Returns:
            The best validation score and all metrics of that epoch.
        """
        self._on_evaluation, self._verbose = callback_fn, verbose
        self._stopwatch.lap()
        if not self.finished:
            super().fit(
                train_data,
                valid_data,
                verbose=False,  # RecBole's lines do not name the losses; _after_evaluation writes ours
                show_progress=show_progress,
                callback_fn=self._after_evaluation,
            )
        self.tensorboard.close()
        return self.best_valid_score, self.best_valid_result

    def _train_epoch(self, train_data: Any, epoch_idx: int, show_progress: bool = False) -> float:
        """Train one epoch; returns the mean of what was minimised, the sum of the losses."""
        self._seed_epoch(epoch_idx)
        with draws_seeded(self.config["seed"], epoch_idx):
            return self._train_batches(train_data, epoch_idx, show_progress)

    def _train_batches(self, train_data: Any, epoch_idx: int, show_progress: bool) -> float:
        train_data.set_epoch(epoch_idx)
        start_alike(self.model)
        self.model.train()
        if isinstance(self.model, SearchRecommender):
            self.model.begin_epoch(epoch_idx)
        means = self._loss_means(epoch_idx)
        with tqdm(
            train_data, f"Train {epoch_idx}", leave=False, dynamic_ncols=True, disable=None if show_progress else True
        ) as batches:
            for number, interaction in enumerate(batches):
                with share_of_batch(train_data, number) as share:
                    losses = self._losses(interaction.to(self.device))
                losses = {name: share * loss for name, loss in losses.items()}
                if means.add(summed_losses(losses)):
                    batches.set_postfix_str(str(means), refresh=False)
                self._step(losses)
        self.epoch_losses, self.epoch_weights = means.read(), means.weights()
        if epoch_idx == self.start_epoch and isinstance(self.model, SearchRecommender):
            self._warn_of_unknown_weights(self.model)
        return sum(self.epoch_losses.values())

    def _warn_of_unknown_weights(self, model: SearchRecommender) -> None:
        """A slip in a name would otherwise let the loss that was meant count with a weight of 1."""
        in_use = [name for name in model.loss_weights() if model.weight_of_loss(name)]
        unknown = [name for name in in_use if name not in self.epoch_losses]
        if unknown:
            self.logger.warning(
                f"{type(model).__name__} has a weight for a loss that no batch had: {', '.join(unknown)}; "
                f"the losses were {', '.join(self.epoch_losses)}"
            )

    def _loss_means(self, epoch: int) -> LossMeans:
        read_every = 1 if self.device.type == "cpu" else 32
        if isinstance(self.model, SearchRecommender):
            return LossMeans(epoch, read_every, self.model.weight_of_loss)
        return LossMeans(epoch, read_every)

    def _add_train_loss_to_tensorboard(self, epoch_idx: int, losses: float, tag: str = "Loss/Train") -> None:
        """Their sum, and each loss by name and before it was weighted; RecBole numbers them instead."""
        super()._add_train_loss_to_tensorboard(epoch_idx, losses, tag)
        for name, value in unweighted(self.epoch_losses, self.epoch_weights).items():
            self.tensorboard.add_scalar(f"Loss/{name}", value, epoch_idx)

    def _seed_epoch(self, epoch: int) -> None:
        """Make the random states a function of (seed, epoch), so that no checkpoint has to hold them.

        They differ between workers, and so do their masks of dropout; see ``draws_seeded`` for what must not differ.
        """
        states = np.random.SeedSequence([self.config["seed"], epoch]).generate_state(group.count())
        init_seed(int(states[group.rank()]), self.config["reproducibility"])

    def _losses(self, interaction: Any) -> dict[str, Tensor]:
        """The named losses of one batch; what is minimised is their sum."""
        half = torch.bfloat16 if self.device.type == "cpu" else torch.float16
        with torch.autocast(self.device.type, dtype=half, enabled=self.enable_amp):
            if isinstance(self.model, SearchRecommender):
                return self.model.losses(interaction)
            with failing_in_a_line(type(self.model)):
                loss = self.model.calculate_loss(with_history(self.model, interaction))
        parts = {f"loss_{n}": part for n, part in enumerate(loss, 1)} if isinstance(loss, tuple) else {"loss": loss}
        return {name: part.sum() for name, part in parts.items()}  # RecBole's regularisers have shape [1]

    def _step(self, losses: dict[str, Tensor]) -> None:
        self.optimizer.zero_grad()
        self.scaler.scale(torch.stack(list(losses.values())).sum()).backward()
        sum_gradients(self.model.parameters())
        if self.clip_grad_norm:
            self.scaler.unscale_(self.optimizer)
            clip_grad_norm_(self.model.parameters(), **self.clip_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _build_optimizer(self, **kwargs: Any) -> optim.Optimizer:
        """Build the optimiser that ``learner`` names, as RecBole does.

        Adam's weight decay is coupled, as in the published models: an L2 term of the gradient.
        """
        learner = self.learner.lower()
        if learner in FUSED:
            return build_adam(self.model, learner, self.learning_rate, self.weight_decay)
        return super()._build_optimizer(params=parameter_groups(self.model), **kwargs)

    def _limit_patience(self, epochs_done: int) -> None:
        """Set early stopping's limit: none in pre-training and while the rate can fall, then ``stopping_step`` more."""
        if epochs_done < self.pretrain_epochs or (self.scheduler is not None and self.scheduler.can_fall):
            self.stopping_step = math.inf
        elif self.stopping_step == math.inf or self.cur_step == 0:
            self.stopping_step = self.cur_step + self.config["stopping_step"]

    # --- evaluation -------------------------------------------------------------------------------------------------

    def rank(self, eval_data: Any, load_best_model: bool = True, show_progress: bool = False) -> Tensor:
        """The rank of every target of ``eval_data``, int64 ``[rows]``, under the best weights or the current ones.

        Each worker ranks its part of the targets, and gets the ranks of all.
        """
        if load_best_model:
            self._load_best()
        self.model.eval()
        if group.count() > 1:
            eval_data = eval_data.part(own_part(eval_data.rows))
            if not eval_data.rows:  # fewer targets than workers
                return gather_rows(torch.zeros(0, dtype=torch.int64))
        with failing_in_a_line(type(self.model)):
            ranks = rank_targets(self.scorer, eval_data, self.device, type(self.model).__name__, show_progress)
        return gather_rows(ranks)

    def evaluate(
        self,
        eval_data: Any,
        load_best_model: bool = True,
        model_file: str | Path | None = None,
        show_progress: bool = False,
    ) -> dict[str, float]:
        """The metrics of ``eval_data`` under the weights in ``model_file``, the best ones, or the current ones."""
        if model_file is not None:
            self._load_weights(model_file, self._read(model_file))
        ranks = self.rank(eval_data, load_best_model and model_file is None, show_progress)
        return self.evaluator.evaluate(ranks, eval_data.users)

    def test(self, test_data: Any, show_progress: bool = False) -> RunResult:
        """Score the test targets with the best weights, and write ``ranks.csv`` and ``result.json``."""
        self._seed_epoch(self.best_epoch + 1)  # ADMMSLIM and Random of RecBole add random numbers to their scores
        ranks = self.rank(test_data, show_progress=show_progress)
        return group.from_first(lambda: self._write_result(test_data, ranks))

    def _write_result(self, test_data: Any, ranks: Tensor) -> RunResult:
        checksum = self.run_folder.write_ranks(test_data.user_tokens(), ranks)
        data, totals = self.run_folder.data(), self.run_folder.totals()
        result = RunResult(
            model=self.config["model"],
            dataset=self.config["dataset"],
            seed=self.config["seed"],
            protocol=data["protocol"],
            best_epoch=self.best_epoch,
            valid=self.best_valid_result,
            test=self.evaluator.evaluate(ranks, test_data.users),
            candidates=data["candidates"],
            data=data["hash"],
            codes=data.get("codes"),
            texts=data.get("texts"),
            remarks=self.model.remarks() if isinstance(self.model, SearchRecommender) else [],
            targets=data["targets"],
            ranks=checksum,
            parameters=sum(value.numel() for value in self.model.parameters() if value.requires_grad),
            folder=self.run_folder.path,
            **totals,
        )
        self.run_folder.write_result(result)
        for tracker in self._trackers:
            tracker.finish(result.test)
        return result

    def _valid_epoch(self, valid_data: Any, show_progress: bool = False) -> tuple[float, dict[str, float]]:
        score, self.valid_result = super()._valid_epoch(valid_data, show_progress)
        return score, self.valid_result

    def _after_evaluation(self, epoch: int, score: float) -> None:
        """RecBole's ``fit`` calls this when an epoch has been evaluated and early stopping has counted it."""
        costs = self._stopwatch.lap()
        costs["cpu_seconds"] = round(float(group.summed(torch.tensor(costs["cpu_seconds"], dtype=torch.float64))), 3)
        line = {
            "epoch": epoch,
            "losses": self.epoch_losses,
            "weights": self.epoch_weights,
            "valid": self.valid_result,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            **costs,
            **peak_memory_mib(),
        }
        if self.scheduler is not None and epoch >= self.pretrain_epochs:
            self.scheduler.step(score)
        self._limit_patience(epochs_done=epoch + 1)
        if not group.is_first():
            return
        self.run_folder.append_metrics(line)  # before last.pt: resuming drops a line too many, but cannot restore one
        self._save_last(epoch)
        for tracker in self._trackers:
            tracker.epoch(epoch, unweighted(self.epoch_losses, self.epoch_weights), self.valid_result)
        if self._verbose:
            self.logger.info(f"{epoch_line(line, self.valid_metric)}; {self._outlook(epoch, line['seconds'])}")
        if self._on_evaluation is not None:
            self._on_evaluation(epoch, self.valid_result)

    def _outlook(self, epoch: int, seconds: float) -> str:
        """What an evaluation that took ``seconds``, with the epochs before it, says of those to come."""
        best = self.cur_step == 0
        parts = ["the best so far" if best else f"best {self.best_valid_score:.4f} in epoch {self.best_epoch}"]
        if self.cur_step > self.stopping_step:
            return f"{parts[0]}, no patience left"
        if not best and self.stopping_step < math.inf:
            parts.append(f"patience {self.stopping_step - self.cur_step:.0f}")
        if (left := self.epochs - epoch - 1) > 0:
            parts.append(f"{left} to go, at most {duration(left * seconds / self.eval_step)}")
        return ", ".join(parts)

    # --- checkpoints ------------------------------------------------------------------------------------------------

    def _weights(self, epoch: int) -> dict[str, Any]:
        return {
            "settings": self.config.resolved(),
            "epoch": epoch,
            "state_dict": self.model.state_dict(),
            "other_parameter": other_parameters(self.model),
        }

    def _load_best(self) -> None:
        checkpoint = self._read(self.run_folder.best, ("epoch", "state_dict", "other_parameter"))
        if self.best_epoch >= 0 and checkpoint["epoch"] != self.best_epoch:
            raise UserError(
                f"{self.run_folder.best}: holds the weights of epoch {checkpoint['epoch']}, and the best epoch was "
                f"{self.best_epoch}: restore it from a copy, or start a new run"
            )
        self._load_weights(self.run_folder.best, checkpoint)

    def _load_weights(self, path: str | Path, checkpoint: dict[str, Any]) -> None:
        try:
            self.model.load_state_dict(checkpoint["state_dict"])
        except RuntimeError as error:  # other names or shapes
            raise UserError(f"{path}: holds the weights of another model or data set: {error}") from error
        self.model.load_other_parameter(checkpoint["other_parameter"])

    def _save_checkpoint(self, epoch: int, verbose: bool = True, **kwargs: Any) -> None:
        """RecBole's ``fit`` calls this when an epoch is the best so far."""
        self.best_epoch = epoch
        if group.is_first():
            save_checkpoint(self.run_folder.best, self._weights(epoch))

    def _read(self, path: str | Path, keys: tuple[str, ...] = WEIGHTS) -> dict[str, Any]:
        """The checkpoint at ``path`` with at least ``keys``, which the first worker reads for all."""
        device = self.device if group.count() == 1 else "cpu"
        return group.from_first(lambda: load_checkpoint(path, device, keys))

    def _save_last(self, epoch: int) -> None:
        progress = {name: getattr(self, name) for name in _PROGRESS}
        stateful = {name: getattr(self, name).state_dict() for name in self._stateful()}
        metrics = self.run_folder.metrics_checksum()
        content = {**self._weights(epoch), "progress": progress, "metrics": metrics, **stateful}
        save_checkpoint(self.run_folder.last, content)

    def _stateful(self) -> list[str]:
        return ["optimizer", "scaler"] + ([] if self.scheduler is None else ["scheduler"])

    def resume_checkpoint(self, resume_file: str | Path | None = None) -> None:
        """Go on from ``resume_file``, by default ``last.pt``; from the start if that has not been written yet.

        Raises:
            UserError: the file is damaged, or was written under other settings (those in ``_FREE`` may differ).
        """
        if resume_file is None and not group.from_first(self.run_folder.last.exists):
            group.from_first(lambda: self.run_folder.drop_metrics_after(-1))
            return
        path = resume_file or self.run_folder.last
        needed = (*self._weights(0), "progress", "metrics", *self._stateful())
        checkpoint = self._read(path, needed)
        self._refuse_other_settings(path, checkpoint["settings"])
        self._load_weights(path, checkpoint)
        for name in self._stateful():
            getattr(self, name).load_state_dict(checkpoint[name])
        for name in _PROGRESS:
            setattr(self, name, checkpoint["progress"][name])
        self.start_epoch = checkpoint["epoch"] + 1
        group.from_first(lambda: self._cut_metrics(checkpoint))
        self.logger.info(f"Resuming after epoch {checkpoint['epoch']}")

    def _cut_metrics(self, checkpoint: dict[str, Any]) -> None:
        self.run_folder.drop_metrics_after(checkpoint["epoch"])
        if self.run_folder.metrics_checksum() != checkpoint["metrics"]:
            raise UserError(
                f"{self.run_folder.path / 'metrics.jsonl'}: not the file that this run wrote up to epoch "
                f"{checkpoint['epoch']}: restore it from a copy, or start a new run"
            )

    def _refuse_other_settings(self, path: str | Path, before: dict[str, Any]) -> None:
        now = self.config.resolved()
        differing = sorted(key for key in {*before, *now} - _FREE if before.get(key) != now.get(key))
        if differing:
            changes = ", ".join(f"{key}: {before.get(key)} -> {now.get(key)}" for key in differing)
            raise UserError(f"{path}: this run was started with other settings ({changes}): start a new run for these")
