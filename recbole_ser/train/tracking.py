"""Weights & Biases, and MLflow: the settings of a run, its losses and metrics by epoch, and its test metrics."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from recbole_ser.errors import UserError


class Tracker(Protocol):
    """A run that is logged."""

    def epoch(self, number: int, losses: Mapping[str, float], valid: Mapping[str, float]) -> None:
        """Log an evaluated epoch: its losses before they were weighted, and its validation metrics."""

    def finish(self, test: Mapping[str, float]) -> None:
        """Log the test metrics; the run is over, unless the caller has begun it."""


def start_tracking(config: Any, folder: Path) -> list[Tracker]:
    """Begin the runs that ``config`` asks for, named like ``folder``, or go on in those that the caller has begun.

    Raises:
        UserError: MLflow cannot store the run.
    """
    trackers: list[Tracker] = []
    if config["log_wandb"]:
        trackers.append(WandbRun(config, folder))
    if config["log_mlflow"]:
        trackers.append(MlflowRun(config, folder))
    return trackers


class WandbRun:
    """A run of Weights & Biases, to which RecBole itself logs the sum of the losses and the validation metrics."""

    def __init__(self, config: Any, folder: Path) -> None:
        import wandb

        self._wandb, self._begun_here = wandb, wandb.run is None
        if self._begun_here:
            wandb.init(project=config["wandb_project"], name=folder.name, dir=str(folder), config=config.resolved())

    def epoch(self, number: int, losses: Mapping[str, float], valid: Mapping[str, float]) -> None:
        self._wandb.log({**_named("train", losses), "train_step": number})

    def finish(self, test: Mapping[str, float]) -> None:
        self._wandb.run.summary.update(_named("test", test))
        if self._begun_here:
            self._wandb.finish()


class MlflowRun:
    """A run of MLflow, at the place that MLflow's own variables name; ``ndcg@10`` is ``ndcg_at_10`` there."""

    def __init__(self, config: Any, folder: Path) -> None:
        import mlflow
        from mlflow.entities import Metric, Param

        self._metric = Metric
        begun = mlflow.active_run()
        self._begun_here = begun is None
        try:
            self._client = mlflow.MlflowClient()
            run = begun or self._client.create_run(self._experiment(config["mlflow_experiment"]), run_name=folder.name)
            self._id = run.info.run_id
            settings = [Param(key, str(value)) for key, value in config.resolved().items()]
            self._client.log_batch(self._id, params=settings)
        except mlflow.MlflowException as error:
            raise UserError(f"log_mlflow: {mlflow.get_tracking_uri()}: {str(error).splitlines()[0]}") from error

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        return self._client.create_experiment(name) if found is None else found.experiment_id

    def epoch(self, number: int, losses: Mapping[str, float], valid: Mapping[str, float]) -> None:
        self._log({**_named("train", losses), **_named("valid", valid)}, number)

    def finish(self, test: Mapping[str, float]) -> None:
        self._log(_named("test", test))
        if self._begun_here:
            self._client.set_terminated(self._id)

    def _log(self, values: Mapping[str, float], step: int = 0) -> None:
        now = int(time.time() * 1000)
        metrics = [self._metric(key.replace("@", "_at_"), value, now, step) for key, value in values.items()]
        self._client.log_batch(self._id, metrics=metrics)


def _named(part: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f"{part}/{name}": value for name, value in values.items()}
