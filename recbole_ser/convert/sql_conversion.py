"""Conversions that are done in SQL, which an engine runs: DuckDB in bounded memory, unless told otherwise."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from recbole_ser.atomic.schema import Column
from recbole_ser.convert.conversion import Conversion
from recbole_ser.convert.duckdb_engine import DuckDBEngine
from recbole_ser.convert.engine import Engine, literal
from recbole_ser.convert.raw_files import Files
from recbole_ser.convert.settings import Settings

_WORK = "work"

StartEngine = Callable[[Path], Engine]


class SQLConversion(Conversion):
    """A conversion whose steps run SQL on an engine and record what the manifest needs.

    Args:
        out: folder of the data set.
        settings: how to convert.
        start: starts the engine, given a folder for what it leaves on disk; ``None``: DuckDB with the settings.

    Attributes:
        engine: the engine that runs the SQL.
        sizes: numbers of users, items and so on, by name.
        times: what the steps found out about the times of each log.
        in_seconds: whether 64-bit floats keep all times as seconds.  If not, both logs are written in nanoseconds.
    """

    def __init__(self, out: str | Path, settings: Settings, start: StartEngine | None = None) -> None:
        super().__init__(out, settings.on_error)
        self._start = start or partial(DuckDBEngine, memory=settings.memory, threads=settings.threads)
        self.sizes: dict[str, int] = {}
        self.times: dict[str, Any] = {}
        self.in_seconds = True
        self._logs: list[tuple[dict[Column, str], str, str, Path]] = []

    def __enter__(self) -> SQLConversion:
        super().__enter__()
        try:
            self.engine = self._start(self.staging / _WORK)
        except BaseException as error:
            super().__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(self, *raised: Any) -> None:
        self.engine.close()
        super().__exit__(*raised)

    def add_inputs(self, paths: Sequence[Path]) -> None:
        """Add files to the inputs in the manifest, each once; files made by `stage` are no inputs."""
        work = self.staging / _WORK
        self._inputs += [path for path in paths if path not in self._inputs and path.parent != work]

    def path(self, suffix: str) -> Path:
        """The path at which to write ``X.<suffix>``."""
        return self.staging / f"{self.name}.{suffix}"

    def write_later(self, suffix: str, columns: dict[Column, str], relation: str, order: str) -> None:
        """Write ``X.<suffix>`` at the end, when the unit of times is known; ``time_text`` gives nanoseconds in it.

        The other arguments are those of `Engine.write`.
        """
        self._logs.append((columns, relation, order, self.path(suffix)))

    def stage(self, name: str, select: str) -> Files:
        """Write the rows of ``select`` to a temporary Parquet file, which is removed at the end."""
        path = self.staging / _WORK / f"{name}.parquet"
        self.engine.run(f"COPY ({select})\nTO {literal(str(path))} (FORMAT parquet)")
        return Files((path,), "parquet")

    def finish(self, converter: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Write both logs and publish all files, with versions and times in the manifest; see `Conversion.publish`."""
        unit, text = ("s", "seconds_text(time)") if self.in_seconds else ("ns", "CAST(time AS VARCHAR)")
        self.engine.define_macro(f"CREATE MACRO time_text(time) AS {text}")
        for log in self._logs:
            self.engine.write(*log)
        for times in self.times.values():
            times["written"] = unit
        self.engine.close()
        shutil.rmtree(self.staging / _WORK)
        versions = self.engine.versions
        return self.publish(converter, {**options, "times": self.times, "versions": versions}, self.sizes)


def convert_with_sql(
    converter: str,
    out: str | Path,
    settings: Settings | None,
    options: Mapping[str, Any],
    steps: Callable[[SQLConversion], None],
    start: StartEngine | None = None,
) -> dict[str, Any]:
    """Publish the atomic files that ``steps`` write into ``out``.

    Args:
        converter: name of the converter.
        out: folder of the data set.
        settings: how to convert; ``None``: the defaults.
        options: everything besides the raw files that decides the output.
        steps: writes the files.
        start: starts another engine than DuckDB, see `SQLConversion`.

    Returns:
        The manifest.
    """
    with SQLConversion(out, settings or Settings(), start) as conversion:
        steps(conversion)
        return conversion.finish(converter, options)
