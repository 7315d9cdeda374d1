"""``recbole-ser run``."""

from __future__ import annotations

import click

from recbole_ser.commands.arguments import (
    ConfiguredCommand,
    configuration_options,
    given_options,
    parse_arguments,
    paths_in,
    required_keys,
)
from recbole_ser.errors import ConfigError
from recbole_ser.registry import available_models


class _Run(ConfiguredCommand):
    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write("\n" + model_list() + "\n")


@click.command(cls=_Run, short_help="train and test a model")
@configuration_options
@click.option("--resume", metavar="FOLDER", help="go on with the interrupted run in this folder")
@click.pass_context
def command(
    ctx: click.Context, model: str | None, dataset: str | None, config_files: tuple[str, ...], resume: str | None
) -> None:
    """Train a model on a data set, choose the best epoch on the validation split, and score the test split once.

    \b
      recbole-ser run --model=SESRec --dataset=ser-sample
      recbole-ser run -m SASRec -d kindle --loss_type=BPR --learning_rate=1e-3
      recbole-ser run --model=SESRec --dataset=mine --config_files="common.yaml mine.yaml"
      recbole-ser run --resume=saved/kindle/SESRec-20260101-120000-2023

    Every key of properties/overall.yaml, of the model's and of the data set's YAML file can be given as --key=value.
    Values are YAML: {mode: full}, [1, 5], 1e-3, ~.  A dot leads into a mapping: --eval_args.mode=full.
    """
    from recbole_ser import runner  # slow to import

    values = parse_arguments(ctx.args)
    if resume is not None:
        for name in [*values, *given_options(ctx, ["resume"])]:
            raise ConfigError(f"--resume takes the run's own configuration; leave out --{name}")
        runner.resume(resume)
        return
    required_keys(model=model, dataset=dataset)
    assert model is not None and dataset is not None
    runner.run(model, dataset, config_files=paths_in(config_files), config_dict=values)


def model_list() -> str:
    """A list of all models, with their papers and what they read besides clicks."""
    specs = sorted(available_models().values(), key=lambda spec: spec.name.lower())
    wide = [max(map(len, column)) + 2 for column in zip(*((spec.name, spec.paper) for spec in specs))]
    lines = [
        f"  {spec.name:<{wide[0]}}{spec.paper:<{wide[1]}}{'reads ' + ', '.join(spec.reads) if spec.reads else ''}"
        for spec in specs
    ]
    return "\n".join(["Models:", *(line.rstrip() for line in lines)])
