"""``recbole-ser tune``."""

from __future__ import annotations

import inspect
from typing import Any

from recbole_ser.errors import ConfigError
from recbole_ser.tune.resources import Resources
from recbole_ser.tune.sweep import resume, tune

HELP = """\
Try many configurations of a model on a data set with Ray Tune, choose one by the validation metric, and score the
test split with it, once.

  recbole-ser tune --model=SESRec --dataset=cell                              # the model's first sweep
  recbole-ser tune --model=SESRec --dataset=cell --space=alpha                # Figure 5(a) of its paper
  recbole-ser tune --model=SESRec --dataset=cell --trials=40 --search=tpe --epochs=20
  recbole-ser tune --model=SASRec --dataset=mine --space="{learning_rate: {loguniform: [1e-4, 1e-2]}}"
  recbole-ser tune --resume=saved/cell/tune-SESRec-joint-20260101-120000-2023

What is tried:
  --space=NAME        a sweep of properties/tune/<Model>.yaml, by default the first; or FILE.yaml, FILE.yaml:NAME, or
                      the space itself: {key: {choice: [...]}}, {key: {uniform: [low, high]}}, {key: {loguniform:
                      [low, high]}}, {key: {integer: [low, high]}}
  --search=KIND       grid, random, or tpe (learns from the trials so far; needs Optuna)
  --trials=N          how many configurations, but for a grid, which has as many as it has
  --scheduler=KIND    asha gives up trials that are behind others at the same number of epochs; none does not
  --grace_period=N    epochs before that;  --reduction_factor=N: one in N goes on to N times as many epochs
  --epochs=N          that a trial has at most; and every other key of `recbole-ser run`, for all trials

Where it runs (also with --resume):
  --concurrent=N      trials at the same time at most; by default as many as there are CPUs, or GPUs
  --cpus_per_trial=1  --gpus_per_trial=0.5    fractions share
  --address=ADDRESS   of a Ray cluster (or the variable RAY_ADDRESS); without it this machine, on loopback only
  --storage=FOLDER    the sweep's folder; on a cluster it must be on storage that all machines see

The folder holds trials.csv, trials.jsonl, best.yaml (for `run --config_files`), result.json, plots/, and a run's folder
for every trial.  After Ctrl-C or a crash --resume goes on: trials that are over are kept, the others continue from
their checkpoints.
"""

_RESOURCES = tuple(Resources.__dataclass_fields__)
_OPTIONS = tuple(
    name for name, parameter in inspect.signature(tune).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY and name not in ("resources", "config_files", "config_dict")
)  # fmt: skip


def run_sweep(values: dict[str, Any], config_files: list[str] | None) -> None:
    """Start or resume the sweep that the arguments of the command line say.

    Raises:
        UserError: see ``tune``.
    """
    resources = Resources(**{key: values.pop(key) for key in _RESOURCES if key in values})
    folder = values.pop("resume", None)
    if folder is not None:
        trials = values.pop("trials", None)
        if values or config_files:
            other = next(iter(values), "config_files")
            raise ConfigError(f"--resume takes the sweep's own configuration; leave out --{other}")
        resume(str(folder), trials=trials, resources=resources)
        return
    for key in ("model", "dataset"):
        if key not in values:
            raise ConfigError(f"--{key} is missing: for example --model=SESRec --dataset=ser-sample")
    options = {key: values.pop(key) for key in _OPTIONS if key in values}
    model, dataset = str(values.pop("model")), str(values.pop("dataset"))
    tune(model, dataset, resources=resources, config_files=config_files, config_dict=values, **options)
