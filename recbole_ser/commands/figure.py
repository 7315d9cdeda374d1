"""``recbole-ser figure``: a group of one command for each figure of the papers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from recbole_ser.commands import groups as groups_command
from recbole_ser.commands.arguments import Command, trusted_model_option
from recbole_ser.errors import ConfigError
from recbole_ser.files import check_writable

F = TypeVar("F", bound=Callable[..., Any])

_out = click.option(
    "--out", type=click.Path(path_type=Path), default="figures", show_default=True, metavar="FOLDER",
    help="folder to write to",
)  # fmt: skip
_labels = click.option("--labels", metavar="L,L,...", help="a name for each run (default: as compare names them)")
_runs = click.argument("runs", nargs=-1, required=True, metavar="RUN...")


@click.group(short_help="the papers' figures, from finished runs and sweeps")
def command() -> None:
    """Draw a figure of the papers from finished runs or sweeps.

    Each is written as PNG and PDF, in the size of a paper's column, with its numbers as CSV and its caption as text.
    A run is a folder of a finished run, or of a sweep, whose chosen trial is taken.
    """


@command.command(cls=Command, short_help="divergence of similar and dissimilar interests (SESRec, Figure 3)")
@click.argument("run", metavar="RUN")
@click.option(
    "--category",
    metavar="COLUMN",
    help="column of X.item with categories (default: the first with 'categor' in its name)",
)
@click.option(
    "--level", type=int, metavar="N", help="where items have a list, count the N-th category alone (default: all count)"
)
@_out
@trusted_model_option
def interests(run: str, category: str | None, level: int | None, out: Path, model: str | None) -> None:
    """Jensen-Shannon divergence between the categories in both histories, of similar and of dissimilar interests.

    \b
      recbole-ser figure interests saved/kuaisar/SESRec-* --category=first_level_category
    """
    _check(out, "interests")
    from recbole_ser.figures.interests import interests_figure

    _finish(interests_figure(run, category, level, model), out)


@command.command(cls=Command, short_help="cosine of queries and clicked items (SESRec, Figure 4)")
@_runs
@_labels
@_out
@trusted_model_option
def alignment(runs: tuple[str, ...], labels: str | None, out: Path, model: str | None) -> None:
    """Distribution of the cosine of a query and an item clicked under it, for runs with and without alignment.

    \b
      recbole-ser figure alignment saved/cds/SESRec-a saved/cds/SESRec-b --labels="with alignment,without"
    """
    _check(out, "alignment")
    from recbole_ser.figures.alignment import alignment_figure

    _finish(alignment_figure(runs, _listed(labels), model), out)


@command.command(cls=Command, short_help="metrics against swept weights (SESRec, Figure 5; GSERec, Figure 7)")
@click.argument("sweeps", nargs=-1, required=True, metavar="SWEEP...")
@click.option("--keys", metavar="K,K,...", help="the swept keys that get a panel (default: all)")
@click.option("--metrics", metavar="M,M", help="one or two metrics (default: those that the sweep plots)")
@click.option(
    "--others", default="best", show_default=True, metavar="HOW",
    help="other swept keys: best (the best trial over them) or fixed (at the values of the chosen trial)",
)  # fmt: skip
@_out
def weights(sweeps: tuple[str, ...], keys: str | None, metrics: str | None, others: str, out: Path) -> None:
    """Validation metrics against the weights of losses, or any other swept key: a panel for each key of each sweep.

    SWEEP is the folder of a finished sweep of `recbole-ser tune`.

    \b
      recbole-ser figure weights saved/cds/tune-SESRec-alpha-* saved/cds/tune-SESRec-beta-*
    """
    _check(out, "weights")
    from recbole_ser.figures.weights import weights_figure

    _finish(weights_figure(sweeps, _listed(keys), _listed(metrics), others), out)


@command.command(cls=Command, short_help="learning curves")
@_runs
@_labels
@click.option("--metric", metavar="M", help="a validation metric (default: the one that chooses the epoch)")
@click.option(
    "--against", default="epoch", show_default=True, metavar="WHAT", help="epoch, or cpu: CPU minutes of training"
)
@_out
def curves(runs: tuple[str, ...], labels: str | None, metric: str | None, against: str, out: Path) -> None:
    """A validation metric and the training loss after each epoch, of runs that are finished or not.

    \b
      recbole-ser figure curves saved/cds/SESRec-* saved/cds/UniSAR-* --against=cpu
    """
    _check(out, "curves")
    from recbole_ser.figures.curves import curves_figure

    _finish(curves_figure(runs, _listed(labels), metric, against), out)


@command.command(cls=Command, short_help="users' vectors in two dimensions (GSERec, Figure 6)")
@_runs
@_labels
@click.option("--sample", type=int, default=500, show_default=True, metavar="N", help="users, drawn at random")
@click.option("--seed", type=int, default=0, show_default=True, help="seed of the sample and of t-SNE")
@_out
@trusted_model_option
def users(runs: tuple[str, ...], labels: str | None, sample: int, seed: int, out: Path, model: str | None) -> None:
    """Users' vectors of search and of recommendation, by t-SNE, for runs with and without the contrast of users.

    \b
      recbole-ser figure users saved/cds/GSERec-a saved/cds/GSERec-b --labels="without U-CL,with U-CL"
    """
    if not 0 <= seed < 2**32:
        raise ConfigError(f"--seed {seed}: a seed is from 0 to {2**32 - 1}")
    _check(out, "users")
    from recbole_ser.figures.users import users_figure

    _finish(users_figure(runs, _listed(labels), sample, seed, model), out)


def _with_default_out(params: list[click.Parameter]) -> list[click.Parameter]:
    """The parameters with ``--out`` as all figures have it."""
    (out,) = [option for option in command.commands["users"].params if option.name == "out"]
    return [out if option.name == "out" else option for option in params]


# GSERec, Figures 1, 2 and 5: the command `recbole-ser groups`, which then always writes its files.
command.add_command(
    Command(
        "groups",
        callback=groups_command.command.callback,
        params=_with_default_out(groups_command.command.params),
        help=(groups_command.command.help or "").replace("recbole-ser groups", "recbole-ser figure groups"),
        short_help="metrics by number of searches (GSERec, Figures 1, 2 and 5)",
    )
)


def _check(out: Path, name: str) -> None:
    """Find out before the work whether the figure can be drawn and written."""
    from recbole_ser.plotting import need_matplotlib

    check_writable(out / f"{name}.csv")
    need_matplotlib()


def _listed(text: str | None) -> list[str]:
    """The parts of ``text`` between commas."""
    return [] if text is None else [part.strip() for part in text.split(",")]


def _finish(figure: Any, out: Path) -> None:
    figure.write(out)
    print(figure.text())
    print(f"\n{figure.name}.png, .pdf, .csv and .txt are in {out}")
