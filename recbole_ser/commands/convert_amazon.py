"""``recbole-ser convert amazon``."""

from __future__ import annotations

import click

from recbole_ser.commands.arguments import Command
from recbole_ser.commands.conversion import on_error_option, out_option
from recbole_ser.convert.amazon import DEFAULT_SEED, RECIPES, convert
from recbole_ser.convert.conversion import OnError, format_manifest


@click.command(cls=Command, short_help="Amazon's reviews and product-search queries")
@click.option("--reviews", required=True, metavar="FILE", help="review file: JSON lines, gzip or not")
@click.option("--queries", required=True, metavar="FOLDER", help="folder of query_text.txt, train.qrels and test.qrels")
@click.option("--metadata", metavar="FILE", help="metadata file, for the items' texts and categories")
@click.option("--recipe", required=True, type=click.Choice(RECIPES), help="one query per item, or per user and item")
@click.option(
    "--seed",
    type=int,
    default=DEFAULT_SEED,
    metavar="N",
    help=f"seed of the draws of queries (default: {DEFAULT_SEED})",
)
@out_option
@on_error_option
def command(
    reviews: str, queries: str, metadata: str | None, recipe: str, seed: int, out: str, on_error: OnError
) -> None:
    """Convert Amazon reviews and product-search queries."""
    manifest = convert(reviews, queries, out, recipe, metadata=metadata, seed=seed, on_error=on_error)
    print(format_manifest(manifest))
