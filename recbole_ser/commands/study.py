"""``recbole-ser study``."""

from __future__ import annotations

from pathlib import Path

import click

from recbole_ser.bundled import package_folder
from recbole_ser.commands.arguments import ConfiguredCommand, parse_arguments
from recbole_ser.commands.imports import lasting_imports


class _Study(ConfiguredCommand):
    """Its help lists the studies that come with the package."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        paths = sorted((package_folder("properties") / "study").glob("*.yaml"))
        with formatter.section("Studies that come with the package"):
            formatter.write_dl([(path.stem, _first_comment(path)) for path in paths])


@click.command(cls=_Study, short_help="run models on data sets with several seeds, and compare them")
@click.argument("study", metavar="FILE.yaml|NAME")
@click.option("-d", "--dataset", "datasets", multiple=True, metavar="NAME ...", help="data sets instead of the file's")
@click.option(
    "--jobs",
    type=int,
    metavar="N",
    help="runs, or trials of a sweep, at once (default: one per CPU, or GPU of a cluster)",
)
@click.option(
    "--folder", type=click.Path(path_type=Path), metavar="FOLDER", help="(default: saved/studies/<name of the file>)"
)
@click.option(
    "--address", metavar="HOST:PORT", help="Ray cluster that does the runs and trials (default: RAY_ADDRESS, if set)"
)
@click.option("--dry-run", is_flag=True, help="run nothing; say what would be run and, from a few steps, at what cost")
@click.pass_context
def command(
    ctx: click.Context,
    study: str,
    datasets: tuple[str, ...],
    jobs: int | None,
    folder: Path | None,
    address: str | None,
    dry_run: bool,
) -> int:
    """Run every model of a study on every data set with every seed, several at a time, and compare the results.

    \b
      recbole-ser study mine.yaml --dry-run
      recbole-ser study mine.yaml
      recbole-ser study sesrec-table2 --dataset=cell --epochs=20
      recbole-ser compare saved/studies/mine --by=history          # once it is finished

    \b
    A study is a YAML file:
      datasets: [cell, kindle]
      seeds: [2023, 2024, 2025]
      settings: {epochs: 20}                                       # of all runs
      models:
        - SASRec
        - {model: SESRec, name: w/o alignment, alpha: 0}           # a row with settings of its own
      tune: {trials: 10, epochs: 5}                                # if models are to be tuned first; ~ if not

    Other keys of `recbole-ser run` are given as --key=value for all runs; a row's own settings win over them.

    Every run has a folder, saved/studies/NAME/<data set>/<row>-<seed>, and a log beside it.  After Ctrl-C or a crash
    the same command goes on: what is finished is kept.  A run that fails is reported, the others go on, and the exit
    status is 1.
    """
    values = parse_arguments(ctx.args)

    with lasting_imports():
        from recbole_ser.comparison.tables import FORMATS
        from recbole_ser.study.estimate import plan_table
        from recbole_ser.study.study import plan_study, run_study, runs_at_once

    if dry_run:
        at_once = jobs if address else runs_at_once(jobs)
        click.echo(plan_table(list(plan_study(study, datasets=datasets, settings=values, folder=folder)), at_once))
        return 0
    result = run_study(study, datasets=datasets, settings=values, folder=folder, jobs=jobs, address=address)
    for comparison in result.comparisons.values():
        click.echo(f"{FORMATS['terminal'](comparison)}\n")
    for dataset, problem in result.problems.items():
        click.echo(f"no table of {dataset}: {problem}\n")
    for cell in result.failed:
        click.echo(f"failed: {cell.title}: {cell.error}")
    click.echo(f"{'study':<12}{result.folder}")
    return int(bool(result.failed))


def _first_comment(path: Path) -> str:
    return path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
