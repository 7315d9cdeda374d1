"""``recbole-ser compare``."""

from __future__ import annotations

from pathlib import Path

import click

from recbole_ser.commands.arguments import Command, trusted_model_option
from recbole_ser.commands.imports import lasting_imports
from recbole_ser.comparison.tables import FORMATS, METRICS, SUFFIXES
from recbole_ser.errors import ConfigError
from recbole_ser.files import atomic_write, check_writable

_ONE_EACH = ("csv", "json")  # formats whose files hold one comparison


@click.command(cls=Command, short_help="one table of finished runs, with tests of significance")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--metrics", default=METRICS, show_default=True, metavar="M,M,...", help="the columns, see above")
@click.option(
    "--proposed", metavar="NAME", help="the row that is compared with the others (default: the best in most columns)"
)
@click.option(
    "--test", default="t", show_default=True, metavar="T", help="paired test over users: t, sign-flip or wilcoxon"
)
@click.option("--alpha", type=float, default=0.05, show_default=True, metavar="P", help="level of significance")
@click.option("--by", metavar="T,T,...", help="also compare where targets differ: traits, see above")
@click.option(
    "--groups", type=int, default=4, show_default=True, metavar="N", help="groups of a trait that is a number"
)
@click.option(
    "--spontaneous", metavar="S,S,...", help="sources of searches that users typed of their own accord (search-kind)"
)
@click.option("--seed", type=int, default=0, show_default=True, help="seed of the bootstrap of --by")
@click.option("--beyond", type=int, metavar="K", help="also compare lists of the K best items of the whole catalogue")
@click.option("--format", "form", type=click.Choice(list(FORMATS)), help="(default: that of --out, or terminal)")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="file to write to: .md, .tex, .csv, .json or .txt"
)
@trusted_model_option
def command(
    runs: tuple[str, ...],
    metrics: str,
    proposed: str | None,
    test: str,
    alpha: float,
    by: str | None,
    groups: int,
    spontaneous: str | None,
    seed: int,
    beyond: int | None,
    form: str | None,
    out: Path | None,
    model: str | None,
) -> None:
    """Compare finished runs in one table, as papers print it: the best bold, the second underlined, a star.

    RUN is the folder of a finished run, of a sweep, whose chosen trial is taken, or one that holds several of these; of
    a study there is a table for each data set.  Runs that differ in nothing but the seed are one row, with mean and
    standard deviation.  All must have been tested on the same targets and candidates.  The star says that the best is
    significantly better than the second best; p is that of a paired test over users, averaged over seeds and their
    targets first, with Holm's correction for all the other models of a column.

    \b
      recbole-ser compare saved/cds
      recbole-ser compare saved/cds/SASRec-* saved/cds/SESRec-* --metrics=ndcg@10,mrr,auc --out=table2.tex
      recbole-ser compare saved/cds/SASRec-2023 saved/cds/SESRec-2023 --by=history,repeat

    \b
    Metrics: Hit@k, NDCG@k, MRR@k, MRR, Recall@k, Precision@k, MAP@k, AUC (the share of the other candidates that are
    ranked below the target). A target is one relevant item: Recall@k is Hit@k, Precision@k is Hit@k/k, MAP@k is MRR@k.
    Traits: searches and history (how many before the user's first test target), popularity (training interactions of
    the item), repeat (whether the user had interacted with the item before), cold (whether the item has training
    interactions), search-kind (source of the last search; with --spontaneous: spontaneous or passive).
    Beyond accuracy: coverage (share of the catalogue in some list), gini (0: all items equally often), novelty (mean
    of -log2 of an item's share of all training interactions), popularity (its training interactions), head, tail and
    middle (shares of the most popular items with 20 % of the training interactions, the least popular with 20 %, and
    the rest). Every run is loaded for this, and ranks the catalogue for each test target: as dear as a test in mode
    full.
    """
    if form is None and out is not None and out.suffix not in SUFFIXES:
        raise ConfigError(f"--out {out}: the name must end in {', '.join(SUFFIXES)}, or give --format")
    if out is not None:
        check_writable(out)

    with lasting_imports():
        from recbole_ser.comparison.report import Options, compare_runs
        from recbole_ser.comparison.rows import tables_in
        from recbole_ser.evaluation.metrics import parse_metrics

    options = Options(
        metrics=parse_metrics(metrics),
        proposed=proposed,
        test=test,
        alpha=alpha,
        by=list(dict.fromkeys(by.split(","))) if by is not None else [],
        groups=groups,
        spontaneous=[source for source in (spontaneous or "").split(",") if source],
        seed=seed,
        beyond=beyond,
        model=model,
    )
    form = form or (SUFFIXES[out.suffix] if out is not None else "terminal")
    tables = tables_in(runs)
    if len(tables) > 1 and form in _ONE_EACH:
        each = ", ".join(str(folder) for [folder] in tables)
        raise ConfigError(f"{form} holds one data set, and {runs[0]} has several: compare one of {each}")
    text = "\n\n".join(FORMATS[form](compare_runs(folders, options)) for folders in tables)
    if out is None:
        click.echo(text)
        return
    with atomic_write(out) as handle:
        handle.write(click.unstyle(text) + "\n")
    print(f"the comparison is in {out}")
