"""Apache Spark in place of DuckDB, for logs that are too large for one machine or lie where Spark is at home.

The rules for values are run by DuckDB in Spark's Python workers.  Spark does what moves rows: it groups, joins, sorts
and counts, by SQL that SQLGlot translates.
"""

from __future__ import annotations

import atexit
import functools
import itertools
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import sqlglot
from py4j.protocol import Py4JError
from pyspark import SparkContext
from pyspark import __version__ as pyspark_version
from pyspark.errors import AnalysisException, ParseException, PySparkException
from pyspark.sql import DataFrame, Observation, SparkSession
from pyspark.sql.functions import count, lit
from pyspark.sql.pandas.types import from_arrow_schema

from recbole_ser.atomic.schema import SEPARATOR, Column
from recbole_ser.convert.duckdb_engine import DuckDBEngine
from recbole_ser.convert.engine import Engine, Source, TextFunction
from recbole_ser.errors import ConfigError, UserError, one_line

LOCAL = "local[*]"

_WORKER_MEMORY = "512MiB"  # of the DuckDB in each Python worker, which handles few rows at a time
_BATCH = 1 << 14  # rows that Spark and a Python worker exchange at once
_NO_LIMIT = 2**31 - 1
_UNITS = {"bytes": 2**-20, "KiB": 2**-10, "MiB": 1, "GiB": 2**10, "TiB": 2**20}
_LINE = "line"


class SparkEngine(Engine):
    """A session of Spark of its own, on an active Spark if there is one, else on one that is started here.

    Logs are read, and files are written, by the paths that they have here: on a cluster, all its machines need them
    under the same paths, and this package in their Python.

    Args:
        folder: folder for what Spark and DuckDB leave on disk; it is made here, and the caller has to remove it.
        memory: how much memory the process of a Spark that is started here may use, such as ``4GiB``: a local Spark has
            no other, apart from its Python workers, and executors of a cluster have what Spark's configuration says.
        master: where Spark runs; ``None``: on the active Spark, or on all cores of this machine.

    Raises:
        ConfigError: ``memory`` is wrong, or the active Spark runs elsewhere.
        UserError: Spark cannot be started.
    """

    def __init__(self, folder: Path, memory: str, master: str | None = None) -> None:
        self.statements = []
        self._folder = folder
        self._frames: list[DataFrame] = []
        self._parts: dict[str, Sequence[Source]] = {}
        self._macros: list[str] = []
        self._functions: list[TextFunction] = []
        # It has all relations, as views over no rows, and tells the types of columns.
        self._types = DuckDBEngine(folder / "types", memory, 1)
        try:
            with _named_errors():
                active = _active(master)
                self._own = None if active else _started(folder, _mebibytes(self._types), master or LOCAL)
                self._spark: Any = (active or self._own).newSession()  # type: ignore[union-attr]
        except BaseException:
            self._types.close()
            raise
        self._spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", _BATCH)
        # At any other limit Spark 4 sums up the bytes of the batch after each row: with lists, in quadratic time.
        self._spark.conf.set("spark.sql.execution.arrow.maxBytesPerBatch", _NO_LIMIT)
        self.versions = {**self._types.versions, "pyspark": pyspark_version, "sqlglot": sqlglot.__version__}

    def close(self) -> None:
        self._types.close()
        with suppress(Py4JError, ConnectionError):  # Java may have ended, which is then an error already
            while self._frames:
                self._frames.pop().unpersist()
            if self._own is not None:
                self._own.stop()
        self._own = None

    def define(self, name: str, function: Callable[[str], Any], result: str) -> None:
        self._types.define(name, function, result)
        self._functions.append((name, function, result))

    def define_macro(self, statement: str) -> None:
        self._types.define_macro(statement)
        self._macros.append(statement)

    def read(self, name: str, source: Source) -> None:
        self._types.read(name, source.without_rows())
        self._parts[name] = source.parts()
        self.statements.append(f"-- {name} now has the rows of its files")

    def types(self, name: str) -> dict[str, str]:
        return self._types.types(name)

    def rows(self, name: str, relation: str, select: str, *, stored: bool = False) -> None:
        self._types.rows(name, relation, select)
        self.statements.append(f"-- DuckDB, in Python workers\nCREATE VIEW {name} AS {select}")
        with _named_errors():
            frame = self._mapped(relation, select, self._types.schema(name))
            self._name(frame, name, stored)

    def run(self, statement: str) -> int:
        found = re.fullmatch(r"CREATE (?:TABLE|VIEW) (\w+) AS (.*)", statement, re.DOTALL)
        assert found is not None, statement
        name, select = found.groups()
        self._types.run(f"CREATE VIEW {name} AS {select}")
        translated = _translated(select)
        self.statements.append(f"CREATE TEMPORARY VIEW {name} AS {translated}")
        with _named_errors():
            self._name(self._spark.sql(translated), name, stored=True)
        return 0

    def ask(self, question: str) -> list[tuple[Any, ...]]:
        with _named_errors():
            return [tuple(row) for row in self._spark.sql(_translated(question)).collect()]

    def write(self, columns: Mapping[Column, str], relation: str, order: str, path: Path) -> int:
        lines = self._folder / f"{path.name}.lines"
        entries = ", ".join(f"coalesce(CAST({expression} AS VARCHAR), '')" for expression in columns.values())
        select = f"SELECT concat_ws(chr({ord(SEPARATOR)}), {entries}) AS {_LINE} FROM in_order"
        in_order = _translated(f"SELECT * FROM {relation} ORDER BY {order}")
        self.statements.append(f"{in_order}\n-- DuckDB, in Python workers, of these rows in order\n{select}")
        with _named_errors():
            self._name(self._spark.sql(in_order), "in_order", stored=False)
            mapped = self._mapped("in_order", select, pa.schema([(_LINE, pa.string())]))
            counted = Observation()
            mapped.observe(counted, count(lit(1)).alias("rows")).write.text(lines.absolute().as_uri())
            rows: int = counted.get["rows"]
        if _joined(SEPARATOR.join(column.label for column in columns), lines, path) != rows:
            raise UserError(f"{lines}: rows are missing there: all machines of Spark need this folder under this path")
        shutil.rmtree(lines)
        return rows

    def _mapped(self, relation: str, select: str, schema: pa.Schema) -> DataFrame:
        """The rows of a SELECT that makes each of its rows of a single row of ``relation``."""
        parts = self._parts.get(relation)
        function = _RowsOfDuckDB(relation, select, schema, tuple(self._macros), tuple(self._functions), parts)
        frame = self._spark.table(relation) if parts is None else self._spark.range(0, len(parts), 1, len(parts))
        mapped: DataFrame = frame.mapInArrow(function, from_arrow_schema(schema))
        return mapped

    def _name(self, frame: DataFrame, name: str, stored: bool) -> None:
        if stored:
            self._frames.append(frame.persist())
        frame.createOrReplaceTempView(name)


@dataclass(frozen=True)
class _RowsOfDuckDB:
    """What a Python worker of Spark does: it makes rows of rows, or of parts of the files of a log, with DuckDB.

    Args:
        relation: the relation that ``select`` reads.
        select: the statement.
        schema: the columns that it returns.
        macros: functions of SQL that it may call.
        functions: Python functions that it may call.
        parts: where the rows come from if they are those of files; Spark's rows are then their indices.
    """

    relation: str
    select: str
    schema: pa.Schema
    macros: tuple[str, ...]
    functions: tuple[TextFunction, ...]
    parts: Sequence[Source] | None = field(repr=False)

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        if self.parts is None:
            first = next(batches, None)
            if first is None:
                return  # and spare the start of a DuckDB: many partitions of few rows are empty
            with self._engine() as engine:
                for batch in itertools.chain([first], batches):
                    engine.name_batch(self.relation, batch)
                    yield from self._results(engine)
            return
        for number in (number for batch in batches for number in batch.column(0).to_pylist()):
            with self._engine() as engine:
                self.parts[number].load(engine, self.relation)
                yield from self._results(engine)

    @contextmanager
    def _engine(self) -> Iterator[DuckDBEngine]:
        with tempfile.TemporaryDirectory() as folder, closing(DuckDBEngine(Path(folder), _WORKER_MEMORY, 1)) as engine:
            for macro in self.macros:
                engine.define_macro(macro)
            for function in self.functions:
                engine.define(*function)
            yield engine

    def _results(self, engine: DuckDBEngine) -> Iterator[pa.RecordBatch]:
        for batch in engine.batches(self.select):
            yield from pa.Table.from_batches([batch]).cast(self.schema).to_batches()


def _mebibytes(engine: DuckDBEngine) -> int:
    """The memory that a DuckDB may use, whose notation Java does not read, in MiB."""
    number, unit = str(engine.ask("SELECT current_setting('memory_limit')")[0][0]).split()
    return max(int(float(number) * _UNITS[unit]), 1)


def _translated(select: str) -> str:
    """DuckDB's SQL in Spark's dialect."""
    unsupported = sqlglot.ErrorLevel.RAISE
    return sqlglot.transpile(select, read="duckdb", write="spark", identify=True, unsupported_level=unsupported)[0]


def _joined(header: str, lines: Path, path: Path) -> int:
    """Write the header and the lines in the files of the folder ``lines``, in the order of their names; count them."""
    rows = 0
    with path.open("wb") as handle:
        handle.write(f"{header}\n".encode())
        for part in sorted(lines.glob("part-*")):
            with part.open("rb") as source:
                while block := source.read(1 << 20):
                    rows += block.count(b"\n")
                    handle.write(block)
        handle.flush()
        os.fsync(handle.fileno())
    return rows


# --- starting Spark, and its errors -----------------------------------------------------------------------------------


def _active(master: str | None) -> SparkSession | None:
    """A session of the Spark that is active in this process, if there is one; it has to run on ``master``, if given."""
    if not SparkContext._active_spark_context:  # a session is active only in the thread that started it
        return None
    session = SparkSession.builder.getOrCreate()
    runs_on = session.sparkContext.master
    if master not in (None, runs_on):
        raise ConfigError(f"--master {master}: a Spark on {runs_on} is active: stop it, or leave --master out")
    return session


def _require_java() -> None:
    home = os.environ.get("JAVA_HOME")
    if shutil.which("java" if home is None else str(Path(home) / "bin" / "java")) is None:
        where = "there is none on the path" if home is None else f"JAVA_HOME is {home}, where there is none"
        raise UserError(f"Spark needs Java 17 or newer, and {where}: install it (a JRE without graphics is enough)")


def _started(folder: Path, memory: int, master: str) -> SparkSession:
    """Start Spark, whose messages go to the file `_log` from then on."""
    _require_java()
    builder: Any = SparkSession.builder
    builder = builder.master(master).appName("recbole-ser convert table")
    settings = {
        "spark.driver.memory": f"{memory}m",
        "spark.local.dir": str(folder.absolute()),
        "spark.sql.warehouse.dir": (folder / "warehouse").absolute().as_uri(),
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }
    if master.startswith("local"):
        settings |= {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
    for name, value in settings.items():
        builder = builder.config(name, value)
    with _messages_to(_log()):
        session: SparkSession = builder.getOrCreate()
        session.sparkContext.setLogLevel("WARN")
    if master.startswith("local"):
        session.sparkContext.pythonExec = sys.executable
    return session


@contextmanager
def _messages_to(path: Path) -> Iterator[None]:
    """Let processes that are started inside write their standard output and error to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    before = {number: os.dup(number) for number in (1, 2)}
    try:
        with path.open("ab") as handle:
            for number in before:
                os.dup2(handle.fileno(), number)
        yield
    finally:
        for number, copy in before.items():
            os.dup2(copy, number)
            os.close(copy)


@functools.cache
def _log() -> Path:
    """The file for the messages of the Spark that this process starts; it goes in the end if nothing fails."""
    handle, path = tempfile.mkstemp(prefix="recbole-ser-spark-", suffix=".log")
    os.close(handle)
    atexit.register(_remove_log)
    return Path(path)


def _remove_log() -> None:
    _log().unlink(missing_ok=True)


@contextmanager
def _named_errors() -> Iterator[None]:
    """Turn an error of Spark that is no fault of the SQL into one line.

    Raises:
        UserError: Spark failed; an error of this package in a Python worker is told as it is.
    """
    try:
        yield
    except (AnalysisException, ParseException):
        raise
    except (PySparkException, Py4JError, ConnectionError) as error:
        try:
            text = str(error)
        except (Py4JError, ConnectionError):  # Java is asked for the text, and may have ended
            text = "its process has ended"
        told = re.findall(r"recbole_ser\.errors\.\w+: (.+)", text)
        raise UserError(told[-1] if told else _reason(text)) from error


def _reason(text: str) -> str:
    """What an error of Java or Python says, without its traceback, and where to read it."""
    where = "Spark's log has the whole"
    if _log.cache_info().currsize:
        atexit.unregister(_remove_log)
        where = f"the whole is in {_log()}"
    if "OutOfMemoryError" in text:
        return f"Spark is out of memory; allow more: --memory 8GiB ({where})"
    causes = re.findall(r"^(?:Caused by)?: (.+)$", text, re.MULTILINE) or text.strip().splitlines() or ["it ended"]
    return f"the conversion on Spark stopped: {one_line(causes[-1])} ({where})"
