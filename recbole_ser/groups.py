"""``recbole-ser groups``: who gains from a model, by how much they searched before the item they chose."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np

from recbole_ser.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``recbole-ser groups``."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a finished run; later ones against the first")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--groups", type=int, default=4, metavar="N", help="this many of about the same size (default: 4)")
    how.add_argument("--edges", metavar="N,N,...", help="a group begins at each: 1,5,10 makes 0, 1-4, 5-9 and 10+")
    parser.add_argument("--metric", default="NDCG@10", metavar="M,M,...", help="Hit@k, NDCG@k, MRR@k, MRR")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: 0)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write the tables as CSV and JSON, and plots, there")


def run(arguments: argparse.Namespace) -> int:
    """Print the tables, and write them and the plots where ``--out`` says.

    Raises:
        ConfigError: an option that cannot be.
        UserError: runs that cannot be compared, or no matplotlib for the plots; the tables are there even then.
    """
    # Imported here: RecBole takes seconds, and other commands must run where it does not.
    from recbole_ser.evaluation.group_plots import write_plots
    from recbole_ser.evaluation.group_report import group_report, report_text, write_tables
    from recbole_ser.evaluation.groups import metric_values

    edges = None if arguments.edges is None else _edges(arguments.edges)
    metrics = list(dict.fromkeys(metric.lower() for metric in arguments.metric.split(",")))
    for metric in metrics:
        metric_values(np.ones(0), metric)  # a wrong name is an error before the data are read
    if arguments.seed < 0:
        raise ConfigError(f"--seed {arguments.seed} is negative")
    report = group_report(arguments.runs, metrics, edges, arguments.groups, arguments.seed)
    print(report_text(report))
    if arguments.out is not None:
        write_tables(report, arguments.out)
        write_plots(report, arguments.out)
        print(f"\ntables and plots are in {arguments.out}")
    return 0


def _edges(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise ConfigError(f"--edges {text}: write whole numbers like 1,5,10")
    edges = tuple(map(int, text.split(",")))
    if any(b <= a for a, b in zip((0, *edges), edges)):
        raise ConfigError(f"--edges {text}: every edge must be above the one before it, and the first above 0")
    return edges
