"""``recbole-ser explain``."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

import click

from recbole_ser.commands.arguments import Command, trusted_model_option
from recbole_ser.commands.imports import lasting_imports
from recbole_ser.errors import ConfigError
from recbole_ser.files import check_writable
from recbole_ser.plotting import FORMATS

_FILE = click.Path(path_type=Path)
_WIDTH = 100  # columns of output that does not go to a terminal
_SUFFIXES = (".csv", ".json")


@click.command(cls=Command, short_help="which clicks and searches made a score")
@click.argument("run", metavar="RUN")
@click.option("--user", required=True, metavar="U", help="raw id")
@click.option("--item", metavar="I", help="raw id (default: the item recommended first, or the target)")
@click.option(
    "--target", type=click.Choice(["valid", "test"]), help="explain the user's target as it was ranked (default: now)"
)
@click.option("-k", type=int, default=10, metavar="N", help="events in the table and the plot (default: 10)")
@click.option("--no-ranks", is_flag=True, help="leave out the item's ranks without each event: quicker")
@click.option("--out", type=_FILE, metavar="FILE", help="write all events to a .csv or .json file")
@click.option("--plot", type=_FILE, metavar="FILE", help="draw the largest effects to a .png, .pdf or .svg file")
@trusted_model_option
def command(
    run: str,
    user: str,
    item: str | None,
    target: Literal["valid", "test"] | None,
    k: int,
    no_ranks: bool,
    out: Path | None,
    plot: Path | None,
    model: str | None,
) -> None:
    """Which clicks and searches of a user made the score of an item, by leaving out each of them.

    RUN is the folder of a finished run, or of a sweep, whose chosen trial is taken.

    \b
      recbole-ser explain saved/shop/SESRec-... --user u1
      recbole-ser explain saved/shop/SESRec-... --user u1 --item i7 --plot=why.png
      recbole-ser explain saved/shop/SESRec-... --user u1 --target=test --out=why.json

    The histories are encoded again without each event, with the weights as they are.  Positive effects speak for the
    item.
    """
    if k < 1:
        raise ConfigError(f"-k must be at least 1, not {k}")
    for option, path, suffixes in (("--out", out, _SUFFIXES), ("--plot", plot, tuple(FORMATS))):
        if path is not None and path.suffix not in suffixes:
            raise ConfigError(f"{option} {path}: the name must end in {', '.join(suffixes)}")
        if path is not None:
            check_writable(path)

    with lasting_imports():
        from recbole_ser.explanation.explain import explain
        from recbole_ser.explanation.plot import write_plot
        from recbole_ser.explanation.tables import WRITERS, text_of
        from recbole_ser.inference.recommender import Recommender

    explanation = explain(Recommender.load(run, model), user, item, target, not no_ranks, show_progress=True)
    print(text_of(explanation, k, shutil.get_terminal_size((_WIDTH, 24)).columns))
    if out is not None:
        WRITERS[out.suffix](explanation, out)
    if plot is not None:
        write_plot(explanation, plot, k)
