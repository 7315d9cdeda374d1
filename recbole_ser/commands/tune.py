"""``recbole-ser tune``."""

from __future__ import annotations

from typing import Any

import click

from recbole_ser.commands.arguments import (
    ConfiguredCommand,
    Yaml,
    configuration_options,
    given_options,
    parse_arguments,
    paths_in,
    required_keys,
)
from recbole_ser.commands.imports import lasting_imports
from recbole_ser.errors import ConfigError

_RESOURCES = ("address", "concurrent", "cpus_per_trial", "gpus_per_trial")


@click.command(cls=ConfiguredCommand, short_help="try many configurations of a model, and test the best")
@configuration_options
@click.option(
    "--space",
    type=Yaml(),
    help="a sweep of properties/tune/<Model>.yaml, by default the first; or FILE.yaml, FILE.yaml:NAME, or the space "
    "itself: {key: {choice: [...]}}, {key: {uniform: [low, high]}}, {key: {loguniform: [low, high]}}, "
    "{key: {integer: [low, high]}}",
)
@click.option("--search", metavar="KIND", help="grid, random, or tpe (learns from the trials so far; needs Optuna)")
@click.option("--trials", type=int, help="number of configurations; a grid sets its own")
@click.option("--scheduler", metavar="KIND", help="asha gives up trials that are behind others; none does not")
@click.option("--grace_period", type=int, help="epochs before a trial may be given up")
@click.option("--reduction_factor", type=int, help="N: one trial in N goes on to N times as many epochs")
@click.option(
    "--concurrent", type=int, help="largest number of trials at the same time (default: one per CPU, or per GPU)"
)
@click.option("--cpus_per_trial", type=float, help="CPUs of each trial (default: 1)")
@click.option(
    "--gpus_per_trial",
    type=float,
    help="GPUs of each trial; with a fraction, trials share one (default: 1 where there is any)",
)
@click.option(
    "--address", help="address of a Ray cluster (or set RAY_ADDRESS); without one, trials run on this machine"
)
@click.option("--storage", metavar="FOLDER", help="the sweep's folder; on a cluster all machines must see it")
@click.option(
    "--resume",
    metavar="FOLDER",
    help="go on with the sweep in this folder (give --model=module:Class too if that is your own code)",
)
@click.pass_context
def command(
    ctx: click.Context,
    model: str | None,
    dataset: str | None,
    config_files: tuple[str, ...],
    resume: str | None,
    storage: str | None,
    **options: Any,
) -> None:
    """Try many configurations of a model, choose one by the validation metric, and score the test split with it, once.

    \b
      recbole-ser tune --model=SESRec --dataset=cell                              # the model's first sweep
      recbole-ser tune --model=SESRec --dataset=cell --space=alpha                # Figure 5(a) of its paper
      recbole-ser tune --model=SESRec --dataset=cell --trials=40 --search=tpe --epochs=20
      recbole-ser tune -m SASRec -d mine --space="{learning_rate: {loguniform: [1e-4, 1e-2]}}"
      recbole-ser tune --resume=saved/cell/tune-SESRec-joint-20260101-120000-2023

    Every other key of `recbole-ser run` can be given too, and holds for all trials: --epochs=N, say, is the most that
    a trial trains.

    The sweep's folder holds trials.csv, trials.jsonl, best.yaml (for `run --config_files`), result.json, plots/, and
    a run's folder for every trial.  After Ctrl-C or a crash --resume goes on: trials that are over are kept, the
    others continue from their checkpoints.
    """
    with lasting_imports():
        from recbole_ser.tuning.resources import Resources
        from recbole_ser.tuning.sweep import resume as resume_sweep
        from recbole_ser.tuning.sweep import tune

    values = parse_arguments(ctx.args)
    asked = {name: options.pop(name) for name in _RESOURCES}
    resources = Resources(**{name: value for name, value in asked.items() if value is not None})
    if resume is not None:
        for name in [*values, *given_options(ctx, ["resume", "model", "trials", *_RESOURCES])]:
            raise ConfigError(f"--resume takes the sweep's own configuration; leave out --{name}")
        resume_sweep(resume, model=model, trials=options["trials"], resources=resources)
        return
    required_keys(model=model, dataset=dataset)
    assert model is not None and dataset is not None
    files = paths_in(config_files)
    tune(model, dataset, storage=storage, resources=resources, config_files=files, config_dict=values, **options)
