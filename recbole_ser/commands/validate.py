"""``recbole-ser validate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from recbole_ser.commands.arguments import Command, dataset_argument, split_option
from recbole_ser.commands.imports import lasting_imports
from recbole_ser.errors import ConfigError


@click.command(cls=Command, short_help="name everything that is wrong with a data set")
@dataset_argument
@click.option("-n", "number", type=int, default=20, metavar="N", help="number of findings to show (default: 20)")
@split_option
@click.option("--strict", is_flag=True, help="fail on warnings too")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), metavar="FILE", help="file to write all findings to"
)
@click.option("--rules", is_flag=True, help="print all rules and exit")
def command(
    dataset: str | None,
    data_path: str,
    number: int,
    split: Any,
    strict: bool,
    json_file: Path | None,
    rules: bool,
) -> int:
    """Name everything that is wrong with a data set's files, by file and line.

    DATASET is the name of a data set, or its folder.  The exit status is 2 if there are
    errors (with --strict: errors or warnings), else 0.
    """
    with lasting_imports():
        from recbole_ser.atomic.location import find_dataset
        from recbole_ser.files import check_writable, write_json
        from recbole_ser.validation.report import rules_table, validate

    if rules:
        print(rules_table())
        return 0
    if dataset is None:
        raise ConfigError("name a data set: recbole-ser validate ser-sample")
    if number < 0:
        raise ConfigError(f"-n {number} is negative")
    if json_file is not None:
        check_writable(json_file)
    report = validate(find_dataset(dataset, data_path), number, split)
    print(report)
    if json_file is not None:
        write_json(json_file, report.as_dict())
    return 0 if report.clean(strict) else 2
