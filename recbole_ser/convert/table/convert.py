"""Converting interaction and search logs in CSV, TSV, JSON lines or Parquet to atomic files, according to a spec."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tqdm import tqdm

from recbole_ser.convert.settings import Settings
from recbole_ser.convert.table.spec import TableSpec
from recbole_ser.errors import ConfigError, UserError

if TYPE_CHECKING:
    from recbole_ser.convert.sql_conversion import SQLConversion, StartEngine

EngineName = Literal["duckdb", "spark"]


def convert_table(
    spec: TableSpec,
    out: str | Path,
    settings: Settings | None = None,
    statements: list[str] | None = None,
    engine: EngineName = "duckdb",
    master: str | None = None,
) -> dict[str, Any]:
    """Convert logs into the data set in ``out``, which is named after the folder.

    The files depend on the rows of the logs and on ``spec``, but not on the order of the rows, memory, threads or the
    engine.
    Times become seconds, with as many decimals as they need; but if 64-bit floats, which step by 0.24 us at today's
    seconds, would not keep one of them, both logs are in nanoseconds.  See `recbole_ser.text.words` for what becomes of
    queries.

    Args:
        spec: the files, and the meaning of their columns.
        out: folder of the data set.
        settings: how to convert; ``None``: the defaults.
        statements: a list to which the SQL that makes the files is added.
        engine: what does the work: ``duckdb``, or ``spark``, see `recbole_ser.convert.spark_engine`.
        master: where Spark runs, such as ``local[4]``; ``None``: on the active Spark, or on all cores of this machine.

    Returns:
        The manifest, which is also in the folder.

    Raises:
        DataError: a row is malformed (with ``stop``), a file is damaged, or a column is missing or has a wrong type.
        ConfigError: a setting has no effect on the engine.
        UserError: a file cannot be read, or memory or disk run out, or the engine is not installed.
    """
    # DuckDB and Arrow take a moment to load, and --help must not wait for them.
    from recbole_ser.convert.sql_conversion import convert_with_sql

    def steps(conversion: SQLConversion) -> None:
        _write(conversion, spec)
        if statements is not None:
            statements.extend(conversion.engine.statements)

    start = _start(engine, master, settings or Settings())
    return convert_with_sql("table", out, settings, {"mapping": spec.mapping()}, steps, start)


def _start(engine: EngineName, master: str | None, settings: Settings) -> StartEngine | None:
    """What starts the engine; ``None``: the default does."""
    if engine == "duckdb":
        if master is not None:
            raise ConfigError(f"--master {master} has no effect without --engine spark: give that as well")
        return None
    if settings.threads is not None:
        number = settings.threads
        raise ConfigError(f"--threads {number} is not for --engine spark: give --master 'local[{number}]' in its place")
    try:
        from recbole_ser.convert.spark_engine import SparkEngine
    except ImportError as error:
        raise UserError(f'--engine spark needs PySpark: pip install "recbole_ser[spark]" ({error})') from error
    return partial(SparkEngine, memory=settings.memory, master=master)


def _write(conversion: SQLConversion, spec: TableSpec) -> None:
    from recbole_ser.convert.table.attributes import convert_attributes
    from recbole_ser.convert.table.interactions import convert_interactions
    from recbole_ser.convert.table.searches import convert_searches

    tables = [spec.interactions, spec.searches, spec.items, spec.users]
    total = sum(table is not None for table in tables)
    with tqdm(total=total, desc="Converting", unit="log", disable=None, file=sys.stderr) as bar:
        convert_interactions(conversion, spec.interactions, spec.deduplicate)
        bar.update()
        if spec.searches is not None:
            convert_searches(conversion, spec.searches, spec.deduplicate)
            bar.update()
        for entity, table in [("item", spec.items), ("user", spec.users)]:
            if table is not None:
                convert_attributes(conversion, table, entity, spec.searches is not None)
                bar.update()
