"""``recbole-ser groups``."""

from __future__ import annotations

import re
from pathlib import Path

import click
import numpy as np

from recbole_ser.commands.arguments import Command, given_options, trusted_model_option
from recbole_ser.commands.imports import lasting_imports
from recbole_ser.errors import ConfigError
from recbole_ser.files import check_writable


@click.command(cls=Command, short_help="compare runs by how much their users searched")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--groups", type=int, default=4, metavar="N", help="number of groups of about the same size (default: 4)")
@click.option("--edges", metavar="N,N,...", help="a group begins at each: 1,5,10 makes 0, 1-4, 5-9 and 10+")
@click.option("--metric", default="NDCG@10", show_default=True, metavar="M,M,...", help="Hit@k, NDCG@k, MRR@k, MRR")
@click.option("--seed", type=int, default=0, help="seed of the bootstrap (default: 0)")
@click.option("--out", type=click.Path(path_type=Path), metavar="FOLDER", help="folder to write tables and plots to")
@trusted_model_option
@click.pass_context
def command(
    ctx: click.Context,
    runs: tuple[str, ...],
    groups: int,
    edges: str | None,
    metric: str,
    seed: int,
    out: Path | None,
    model: str | None,
) -> None:
    """Compare finished runs by how much their users searched: who gains from a model?

    RUN is the folder of a finished run, or of a sweep, whose chosen trial is taken; later ones are compared with the
    first.

    \b
      recbole-ser groups saved/cds/SESRec-* saved/cds/GSERec-* --out=groups
    """
    with lasting_imports():
        from recbole_ser.evaluation.group_plots import write_plots
        from recbole_ser.evaluation.group_report import group_report, report_text, write_tables
        from recbole_ser.evaluation.groups import metric_values

    if edges is not None and "groups" in given_options(ctx):
        raise ConfigError("--groups and --edges both say where groups begin: leave one of them out")
    starts = None if edges is None else _edges(edges)
    metrics = list(dict.fromkeys(name.lower() for name in metric.split(",")))
    for name in metrics:
        metric_values(np.ones(0), name)  # a wrong name is an error before the data are read
    if seed < 0:
        raise ConfigError(f"--seed {seed} is negative")
    if out is not None:
        check_writable(out / "groups.json")
    report = group_report(runs, metrics, starts, groups, seed, model)
    print(report_text(report))
    if out is not None:
        write_tables(report, out)
        write_plots(report, out)
        print(f"\ntables and plots are in {out}")


def _edges(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise ConfigError(f"--edges {text}: write whole numbers like 1,5,10")
    edges = tuple(map(int, text.split(",")))
    if any(b <= a for a, b in zip((0, *edges), edges)):
        raise ConfigError(f"--edges {text}: every edge must be above the one before it, and the first above 0")
    return edges
