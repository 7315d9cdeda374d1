"""``recbole-ser run``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from recbole_ser.commands.arguments import (
    ConfiguredCommand,
    configuration_options,
    given_options,
    parse_arguments,
    paths_in,
    required_keys,
)
from recbole_ser.commands.imports import lasting_imports
from recbole_ser.errors import ConfigError
from recbole_ser.registry import available_models


class _Run(ConfiguredCommand):
    """Its help lists the models; beside ``--model`` it lists the settings of that model, and of every run."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta["arguments"] = list(args)
        return super().parse_args(ctx, args)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        given = self.make_parser(ctx).parse_args(list(ctx.meta["arguments"]))[0]
        if given.get("model") is None:
            formatter.write("\n" + model_list() + "\n")
            return
        for title, rows in settings_lists(given["model"], given.get("dataset")).items():
            with formatter.section(title):
                formatter.write_dl(rows)


@click.command(cls=_Run, short_help="train and test a model")
@configuration_options
@click.option(
    "--resume",
    metavar="FOLDER",
    help="go on with the interrupted run in this folder (give --model=module:Class too if that is your own code)",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=1,
    metavar="N",
    help="processes that share each batch, on this machine or the cluster at --address; torchrun can start them, too",
)
@click.option("--address", metavar="HOST:PORT", help="address of a Ray cluster that the workers run on")
@click.pass_context
def command(
    ctx: click.Context,
    model: str | None,
    dataset: str | None,
    config_files: tuple[str, ...],
    resume: str | None,
    workers: int,
    address: str | None,
) -> int | None:
    """Train a model on a data set, choose the best epoch on the validation split, and score the test split once.

    \b
      recbole-ser run --model=SESRec --dataset=ser-sample
      recbole-ser run -m SASRec -d kindle --loss_type=BPR --learning_rate=1e-3
      recbole-ser run --model=SESRec --dataset=mine --config_files="common.yaml mine.yaml"
      recbole-ser run --resume=saved/kindle/SESRec-20260101-120000-2023

    Every key of properties/overall.yaml, of the model's and of the data set's YAML file can be given as --key=value.
    Values are YAML: {mode: full}, [1, 5], 1e-3, ~.  A dot leads into a mapping: --eval_args.mode=full.
    With --model=NAME this help says what each key means and may be.
    """
    values = parse_arguments(ctx.args)
    if resume is None:
        required_keys(model=model, dataset=dataset)
    else:
        for name in [*values, *given_options(ctx, ["resume", "model", "workers", "address"])]:
            raise ConfigError(f"--resume takes the run's own configuration; leave out --{name}")
    if workers > 1 and address is None:
        from recbole_ser.workers.launch import launch  # slow to import

        return launch(workers, ["run", *_without_workers(ctx.meta["arguments"])])
    asked: dict[str, Any] = {"path": resume, "model": model}
    if resume is None:
        asked = {"model": model, "dataset": dataset, "config_files": paths_in(config_files), "config_dict": values}
    if address is not None:
        from recbole_ser.tuning.workers import launch_on_cluster  # slow to import

        launch_on_cluster(workers, address, asked, values.get("use_gpu", True))
        return None
    with lasting_imports():
        from recbole_ser import runner
        from recbole_ser.workers import group

    result = (runner.run if resume is None else runner.resume)(**asked)
    if group.is_first() and result.folder is not None:
        click.echo(_next_commands(result.folder), err=True)
    return None


def _next_commands(folder: Path) -> str:
    path = shlex.quote(str(folder))
    return (
        f"next        recbole-ser recommend {path} --all -k 10 --out=top10.csv\n"
        f"            recbole-ser compare {shlex.quote(str(folder.parent))}"
    )


def _without_workers(arguments: list[str]) -> list[str]:
    """The arguments of one of the workers."""
    rest, result = list(arguments), []
    while rest:
        argument = rest.pop(0)
        if argument.partition("=")[0] != "--workers":
            result.append(argument)
        elif "=" not in argument:
            rest.pop(0)  # its value
    return result


def settings_lists(model: str, dataset: str | None) -> dict[str, list[tuple[str, str]]]:
    """For each group of settings its title and, for each key, its default for ``model`` (on ``dataset``) and meaning.

    Raises:
        ConfigError: there is no such model.
    """
    with lasting_imports():
        from recbole_ser.config import SERConfig
        from recbole_ser.settings.checking import group_in
        from recbole_ser.settings.of_class import declared_defaults
        from recbole_ser.settings.run import GROUPS
        from recbole_ser.settings.wording import allowed, shown

    def rows(group: Any, values: Any, prefix: str = "") -> list[tuple[str, str]]:
        listed = []
        own_first = [key for base in group.__mro__ for key in vars(base).get("__annotations__", ())]
        for key in dict.fromkeys(key for key in own_first if key in group.model_fields):
            field = group.model_fields[key]
            if isinstance(values[key], dict) and (parts := group_in(field.annotation)):
                listed += rows(parts, {**declared_defaults(parts), **values[key]}, f"{prefix}{key}.")
            else:
                meaning = f"{field.description or ''} [{allowed(field)}]".strip()
                listed.append((f"{prefix}{key}={shown(values[key])}", meaning))
        return listed

    config = SERConfig(model, dataset or "your-data")
    own = {f"Settings of {config['model']}": config.model_settings} if config.model_keys else {}
    values = {**config.final_config_dict, "data_path": str(Path(config["data_path"]).parent)}
    return {title: rows(group, values) for title, group in {**own, **GROUPS}.items()}


def model_list() -> str:
    """A list of all models, with their papers and what they read besides clicks."""
    specs = sorted(available_models().values(), key=lambda spec: spec.name.lower())
    wide = [max(map(len, column)) + 2 for column in zip(*((spec.name, spec.paper) for spec in specs))]
    lines = [
        f"  {spec.name:<{wide[0]}}{spec.paper:<{wide[1]}}{'reads ' + ', '.join(spec.reads) if spec.reads else ''}"
        for spec in specs
    ]
    return "\n".join(["Models:", *(line.rstrip() for line in lines)])
