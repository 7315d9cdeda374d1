"""``recbole-ser validate``: everything that is wrong with a data set's files, by file and line."""

from __future__ import annotations

import argparse
from pathlib import Path

from recbole_ser.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``recbole-ser validate``."""
    parser.add_argument("dataset", nargs="?", metavar="DATASET", help="name of the data set, or its folder")
    parser.add_argument("--data_path", default="dataset_atomic", metavar="FOLDER", help="(default: dataset_atomic)")
    parser.add_argument("-n", type=int, default=20, metavar="N", dest="number", help="findings shown (default: 20)")
    parser.add_argument("--strict", action="store_true", help="warnings fail too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found there")
    parser.add_argument("--rules", action="store_true", help="print all rules and exit")


def run(arguments: argparse.Namespace) -> int:
    """Print what was found.  Returns 0 for a clean data set, else 2.

    Raises:
        ConfigError: an option that cannot be, or no data set.
        UserError: there is no such data set.
    """
    # Imported here: the configuration brings RecBole along, which takes seconds.
    from recbole_ser.data.location import find_dataset
    from recbole_ser.files import write_json
    from recbole_ser.validation.report import rules_table, validate

    if arguments.rules:
        print(rules_table())
        return 0
    if arguments.dataset is None:
        raise ConfigError("name a data set: recbole-ser validate ser-sample")
    if arguments.number < 0:
        raise ConfigError(f"-n {arguments.number} is negative")
    report = validate(find_dataset(arguments.dataset, arguments.data_path), arguments.number)
    print(report)
    if arguments.json is not None:
        write_json(arguments.json, report.as_dict())
    return 0 if report.clean(arguments.strict) else 2
