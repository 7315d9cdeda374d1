"""What the converters that run on DuckDB have in common for their users: settings, arguments and the report."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from recbole_ser.convert.conversion import OnError, format_manifest

DEFAULT_MEMORY = "4GiB"


@dataclass(frozen=True)
class Settings:
    """How to convert; but for ``on_error`` nothing of it changes the files.

    Args:
        on_error: what a malformed row does: ``stop``, or ``skip`` it and count it.
        memory: how much DuckDB may hold; what is more goes into the folder of the data set.
        threads: of DuckDB; ``None``: one for each core.
    """

    on_error: OnError = "stop"
    memory: str = DEFAULT_MEMORY
    threads: int | None = None


def add_settings(parser: argparse.ArgumentParser) -> None:
    """The arguments that these converters share."""
    parser.add_argument("--out", required=True, help="folder of the data set, which is named after it")
    parser.add_argument(
        "--on-error", choices=get_args(OnError), default="stop", help="what a malformed row does (%(default)s)"
    )
    parser.add_argument(
        "--memory", metavar="SIZE", default=DEFAULT_MEMORY,
        help="that DuckDB may hold (%(default)s); more goes into --out's folder",
    )  # fmt: skip
    parser.add_argument("--threads", type=int, help="of DuckDB (default: one for each core)")


def settings_of(arguments: argparse.Namespace) -> Settings:
    return Settings(arguments.on_error, arguments.memory, arguments.threads)


def report(manifest: Mapping[str, Any]) -> str:
    """What became of the rows, and how the times were read."""
    lines = [format_manifest(manifest)]
    for log, times in manifest["options"]["times"].items():
        told = " (told from the values)" if times["inferred"] else ""
        lines.append(f"times of {log}: {times['unit']}{told}, {times['first']} to {times['last']}; written in seconds")
    return "\n".join(lines)
