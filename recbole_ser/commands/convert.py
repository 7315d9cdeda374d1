"""``recbole-ser convert``: a group of one command for each source."""

from __future__ import annotations

import click

from recbole_ser.commands.arguments import LazyGroup

SOURCES = ("table", "amazon", "kuaisar", "qilin", "trivago")


@click.group(
    cls=LazyGroup,
    short_help="turn raw logs into atomic files",
    modules={name: f"recbole_ser.commands.convert_{name}" for name in SOURCES},
)
def command() -> None:
    """Turn raw logs into atomic files."""
