"""``recbole-ser describe``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from recbole_ser.atomic.time_unit import UNITS
from recbole_ser.commands.arguments import Command, dataset_argument, paths_in, split_option
from recbole_ser.commands.imports import lasting_imports
from recbole_ser.errors import ConfigError

_FILE = click.Path(path_type=Path)


@click.command(cls=Command, short_help="print the statistics of a data set")
@dataset_argument
@click.option("-c", "--config_files", multiple=True, metavar="FILE ...", help="YAML files with settings, as for a run")
@click.option(
    "--category", metavar="COLUMN", help="column of X.item with categories (default: the first whose name says so)"
)
@click.option(
    "--spontaneous", default="", metavar="S,S,...", help="sources of searches that users typed of their own accord"
)
@click.option("--unit", type=click.Choice(list(UNITS)), help="unit of times (default: inferred from their size)")
@split_option
@click.option("--json", "json_file", type=_FILE, metavar="FILE", help="file to write all numbers to")
@click.option("--plot", type=_FILE, metavar="FILE", help="file to draw a page of plots to: .png, .pdf or .svg")
def command(
    dataset: str | None,
    data_path: str,
    config_files: tuple[str, ...],
    category: str | None,
    spontaneous: str,
    unit: str | None,
    split: Any,
    json_file: Path | None,
    plot: Path | None,
) -> None:
    """Print the statistics of a data set that papers print.

    DATASET is the name of a data set, or its folder.
    """
    # Imported here: RecBole takes seconds, and other commands must run where it does not.
    with lasting_imports():
        from recbole_ser.atomic.location import find_dataset
        from recbole_ser.files import check_writable, write_json
        from recbole_ser.statistics.counts import describe, load_described
        from recbole_ser.statistics.page import write_page
        from recbole_ser.statistics.tables import text_of

    if dataset is None:
        raise ConfigError("name a data set: recbole-ser describe ser-sample")
    for path in (json_file, plot):
        if path is not None:
            check_writable(path)
    described = load_described(find_dataset(dataset, data_path), paths_in(config_files))
    sources = tuple(source for source in spontaneous.split(",") if source)
    statistics = describe(described, category, sources, unit, split)
    print(text_of(statistics))
    if json_file is not None:
        write_json(json_file, statistics.as_dict())
    if plot is not None:
        write_page(statistics, plot)
