"""``recbole-ser synthesize``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from recbole_ser.commands.arguments import Command
from recbole_ser.data.planted import generate
from recbole_ser.data.synthetic import PRESETS, write
from recbole_ser.errors import ConfigError
from recbole_ser.files import check_writable


@click.command(cls=Command, short_help="write a generated data set of any size")
@click.option("--preset", required=True, type=click.Choice(list(PRESETS)), help="which kind of logs")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="folder of the new data set, which is named after it",
)
@click.option("--seed", type=int, metavar="N", help="seed, for other logs of the same kind")
@click.option(
    "--scale",
    type=float,
    default=1.0,
    metavar="F",
    help="multiply all numbers of users, items and events by this (default: 1)",
)
def command(preset: str, out: Path, seed: int | None, scale: float) -> None:
    """Write a generated data set of any size.

    ser-sample is the bundled data set; kindle and kuaishou have the sizes of those in SESRec's paper (Table 1).
    """
    if not 0 < scale < float("inf"):
        raise ConfigError(f"--scale {scale} is not a positive number")
    spec = PRESETS[preset].scaled(scale)
    if seed is not None:
        if seed < 0:
            raise ConfigError(f"--seed {seed} is negative")
        spec = replace(spec, seed=seed)
    check_writable(out / f"{out.name}.inter")
    for path in write(generate(spec), out):
        print(f"{path}  {path.stat().st_size:,} bytes")
