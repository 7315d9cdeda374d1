"""Both engines write the same bytes, count the same rows and refuse the same ones, with the same words."""

from __future__ import annotations

import gzip
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from test_convert_table import INTERACTIONS, SEARCHES, SHOWN, T, command, data_files, logs, write

from recbole_ser.convert.settings import Settings
from recbole_ser.convert.table import convert_table, parse_spec
from recbole_ser.errors import ConfigError, UserError

MALFORMED = ["x y", "", "[PAD]", 'a"b']


@pytest.fixture(scope="module")
def spark() -> Iterator[None]:
    """The active Spark that all tests of this file share; it compiles little, since their logs are short."""
    reason = "PySpark and SQLGlot are not installed (extra spark)"
    sql = pytest.importorskip("pyspark.sql", reason=reason)
    pytest.importorskip("sqlglot", reason=reason)
    if shutil.which("java") is None:
        pytest.skip("there is no Java, which Spark needs")
    settings = {
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.memory": "1g",
        "spark.sql.shuffle.partitions": "2",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }
    builder = sql.SparkSession.builder.master("local[2]")
    for name, value in settings.items():
        builder = builder.config(name, value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        session = builder.getOrCreate()
    yield
    session.stop()


def on(engine: Any, folder: Path, mapping: dict[str, Any], on_error: Any = "stop") -> dict[str, Any]:
    return convert_table(parse_spec(mapping, folder), folder / engine / "X", Settings(on_error), engine=engine)


def same_on_both(folder: Path, mapping: dict[str, Any], on_error: Any = "stop") -> dict[str, Any]:
    """Convert with both engines, and return the manifest."""
    manifests = [on(engine, folder, mapping, on_error) for engine in ("duckdb", "spark")]
    assert data_files(folder, "spark/X") == data_files(folder, "duckdb/X")
    versions = [manifest["options"].pop("versions") for manifest in manifests]
    assert {"pyspark", "sqlglot"} == versions[1].keys() - versions[0].keys()
    assert manifests[0] == manifests[1]
    return manifests[1]


def same_refusal(folder: Path, mapping: dict[str, Any]) -> str:
    """What both engines say of a mapping that they refuse."""
    messages = []
    for engine in ("duckdb", "spark"):
        with pytest.raises(UserError) as error:
            on(engine, folder, mapping)
        messages.append(str(error.value))
        assert not list((folder / engine / "X").glob("[!.]*"))
    assert messages[0] == messages[1]
    return messages[1]


def malformed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, and as many whose user is malformed."""
    wrong = [{**row, "uid": MALFORMED[n % len(MALFORMED)]} for n, row in enumerate(rows)]
    return [row for pair in zip(rows, wrong) for row in pair]


@pytest.mark.slow
@pytest.mark.usefixtures("spark")
@pytest.mark.parametrize("kind", ["parquet", "jsonl.gz"])
def test_lists_of_clicks_and_tables_of_items_and_users(tmp_path: Path, kind: str) -> None:
    interactions = [{**row, "rank": n % 2, "ts": T + n // 3 / 4} for n, row in enumerate(INTERACTIONS * 3)]
    mapping = logs(tmp_path, kind, interactions=interactions, searches=SEARCHES * 2)
    mapping["interactions"] |= {"position": "rank", "keep": {"column": "rating", "minimum": 2}}
    items = [{"id": "a", "title": "The shoe", "price": 1e-7}, {"id": "z", "title": "", "price": 1e20}]
    write(tmp_path / f"items.{kind}", [*items, {"id": "a", "title": "Another", "price": 3}, {"id": "b", "price": 2.5}])
    write(tmp_path / f"users.{kind}", [{"uid": "u2", "level": 2}, {"uid": "u9", "level": 1}])
    columns = {"title": "token_seq", "price": "float"}
    mapping["items"] = {"files": f"items.{kind}", "item": "id", "columns": columns}
    mapping["users"] = {"files": f"users.{kind}", "user": "uid", "columns": {"level": "token"}}
    mapping["deduplicate"] = twice = kind != "parquet"
    manifest = same_on_both(tmp_path, mapping)
    sizes = {"users": 2, "items": 3, "interactions": 12, "search_events": 3 if twice else 6, "queries": 2}
    assert manifest["sizes"] == sizes
    assert manifest["rows"]["items"]["rejected"] == {"another row describes the item": 1}


@pytest.mark.slow
@pytest.mark.usefixtures("spark")
def test_one_row_for_each_shown_item_with_malformed_rows(tmp_path: Path) -> None:
    differing = {**SHOWN[0], "kw": "blue shoes"}
    fine = {**SHOWN[0], "uid": "u3", "ts": f"{T}.000000123", "sid": "7"}
    searches = malformed([*SHOWN, differing, fine])
    mapping = logs(tmp_path, "tsv", True, interactions=malformed(INTERACTIONS), searches=searches)
    assert "log.tsv:3: column 'uid': user is not one word: 'x y'" in same_refusal(tmp_path, mapping)
    manifest = same_on_both(tmp_path, mapping, "skip")
    counts = manifest["rows"]["searches"]
    assert counts["rejected"]["user is missing"] == 2
    assert counts["rejected"]["rows of one search differ in query or source"] == 4
    assert manifest["rows"]["items shown under searches"]["rejected"] == {"no item": 1, "not clicked": 1}
    assert manifest["options"]["times"]["searches"]["written"] == "ns"


@pytest.mark.slow
@pytest.mark.usefixtures("spark")
def test_files_in_parts_know_their_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recbole_ser.convert.table.source._PART", 3)
    mapping = logs(tmp_path)
    for n in range(2):
        rows = [{"uid": f"u{k}", "vid": "a b" if n and k == 6 else "a", "ts": T + k} for k in range(8)]
        table = pq.read_table(tmp_path / "log.parquet").slice(0, 0).select(["uid", "vid", "ts"])
        pq.write_table(type(table).from_pylist(rows, table.schema), tmp_path / f"log{n}.parquet", row_group_size=2)
    mapping = {"interactions": {**mapping["interactions"], "files": "log?.parquet"}}
    assert "log1.parquet:7: column 'vid': item is not one word: 'a b'" in same_refusal(tmp_path, mapping)
    assert same_on_both(tmp_path, mapping, "skip")["sizes"]["interactions"] == 15


@pytest.mark.slow
@pytest.mark.usefixtures("spark")
def test_what_spark_cannot_read_is_said_in_one_line(tmp_path: Path) -> None:
    mapping = logs(tmp_path, "csv.gz")
    whole = (tmp_path / "log.csv.gz").read_bytes()
    (tmp_path / "log.csv.gz").write_bytes(whole[:-5])
    assert "log.csv.gz: damaged compressed file" in same_refusal(tmp_path, mapping)
    (tmp_path / "log.csv.gz").write_bytes(gzip.compress(b"uid,vid,ts\n"))
    assert "no row of 0 is left" in same_refusal(tmp_path, mapping)
    mapping = logs(tmp_path, "jsonl")
    mapping["searches"]["source"] = "sorce"
    assert "column 'sorce': no row has the key" in same_refusal(tmp_path, mapping)
    with pytest.raises(ConfigError, match=r"--master local\[7\]: a Spark on local\[2\] is active"):
        convert_table(parse_spec(mapping, tmp_path), tmp_path / "X", engine="spark", master="local[7]")


# --- without Spark ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--master", "local[2]"], "--master local[2] has no effect without --engine spark"),
        (["--engine", "spark", "--threads", "2"], "give --master 'local[2]' in its place"),
        (["--engine", "flink"], "'flink' is not one of 'duckdb', 'spark'"),
    ],
)
def test_options_of_the_other_engine_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], problem: str
) -> None:
    (tmp_path / "m.yaml").write_text(str(logs(tmp_path)))
    assert command("--spec", str(tmp_path / "m.yaml"), "--out", str(tmp_path / "X"), *options) == 2
    assert problem in capsys.readouterr().err


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "recbole_ser.convert.spark_engine", None)
    with pytest.raises(UserError, match=r'pip install "recbole_ser\[spark\]"'):
        on("spark", tmp_path, logs(tmp_path))


def test_a_missing_java_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyspark", reason="PySpark is not installed (extra spark)")
    pytest.importorskip("sqlglot", reason="SQLGlot is not installed (extra spark)")
    monkeypatch.setattr("pyspark.SparkContext._active_spark_context", None)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"Spark needs Java 17 or newer, and JAVA_HOME is .*: install it"):
        on("spark", tmp_path, logs(tmp_path))
