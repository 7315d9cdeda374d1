"""A small training run, and the same run in a process that kills itself at a chosen moment."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import torch
from training_fakes import FakeEvalLoader, FakeTrainLoader, toy_trainer

from recbole_ser.runs.folder import RunFolder
from recbole_ser.train.trainer import SERTrainer

# A rate so high that the validation score goes up and down: it is lowered twice, and training stops early.
SETTINGS: dict[str, Any] = {
    "epochs": 10,
    "stopping_step": 1,
    "weight_decay": 0.01,
    "learning_rate": 0.4,
    "lr_plateau": {"factor": 0.5, "patience": 0, "min_lr": 0.1},
}


def train(folder: Path) -> None:
    """What a run does, from the start or from where it was left."""
    with RunFolder(folder).locked():
        trainer = toy_trainer(folder, **SETTINGS)
        trainer.run_folder.write_data("da7a", "uni4", {"test": "c1"}, {})
        trainer.resume_checkpoint()
        trainer.fit(FakeTrainLoader(), FakeEvalLoader(), verbose=False)
        trainer.test(FakeEvalLoader(seed=3))


def train_until_killed(folder: Path, moment: int) -> None:
    """The same, but at step number ``moment`` the process kills itself.

    Steps are: an optimiser step, and before and after every rename of a file and every line of metrics.jsonl; a line
    is also cut in half.
    """
    torch.set_num_threads(1)
    left = iter(range(moment, -1, -1))

    def killed(function: Any) -> Any:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            step(next(left))
            result = function(*args, **kwargs)
            step(next(left))
            return result

        return wrapped

    def step(remaining: int) -> None:
        if remaining == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def half_a_line(self: RunFolder, line: dict[str, Any]) -> None:
        with (self.path / "metrics.jsonl").open("a") as handle:
            handle.write('{"epoch": 1')
            handle.flush()
            remaining = next(left)
            step(remaining)
        path = self.path / "metrics.jsonl"
        path.write_text(path.read_text().removesuffix('{"epoch": 1'))
        whole_line(self, line)

    whole_line = RunFolder.append_metrics
    RunFolder.append_metrics = killed(half_a_line)
    SERTrainer._step = killed(SERTrainer._step)
    os.replace = killed(os.replace)
    train(folder)
