"""The settings and the report that all converters on DuckDB have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recbole_ser.convert.conversion import OnError, format_manifest

DEFAULT_MEMORY = "4GiB"


@dataclass(frozen=True)
class Settings:
    """How to convert.  Only ``on_error`` can change the files that are written.

    Args:
        on_error: what to do at a malformed row: ``stop``, or ``skip`` it and count it.
        memory: how much memory the engine may use; what exceeds it goes into the folder of the data set.
        threads: number of threads of DuckDB; ``None``: one for each core.
    """

    on_error: OnError = "stop"
    memory: str = DEFAULT_MEMORY
    threads: int | None = None


def report(manifest: Mapping[str, Any]) -> str:
    """The report of a conversion: what became of the rows, and how the times were read."""
    lines = [format_manifest(manifest)]
    for log, times in manifest["options"]["times"].items():
        unit = {"s": "seconds", "ns": "nanoseconds"}[times["written"]]
        told = " (told from the values)" if times["inferred"] else ""
        lines.append(f"times of {log}: {times['unit']}{told}, {times['first']} to {times['last']}; written in {unit}")
    return "\n".join(lines)
