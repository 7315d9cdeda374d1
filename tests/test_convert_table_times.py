from __future__ import annotations

import datetime
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_ser.atomic.reading import read_atomic
from recbole_ser.atomic.schema import TIMESTAMP
from recbole_ser.convert.settings import Settings, report
from recbole_ser.convert.table import convert_table, parse_spec
from recbole_ser.errors import DataError

UTC = datetime.timezone.utc


def convert(folder: Path, values: pa.Array | list[str], unit: str | None = None, **options: Any) -> dict[str, Any]:
    """Convert interactions i0, i1, ... of one user at these times: of Parquet, or as text of a CSV file."""
    items = [f"i{n}" for n in range(len(values))]
    if isinstance(values, pa.Array):
        name = "log.parquet"
        pq.write_table(pa.table({"u": ["u"] * len(values), "i": items, "t": values}), folder / name)
    else:
        name = "log.csv"
        (folder / name).write_text("u,i,t\n" + "".join(f'u,{i},"{t}"\n' for i, t in zip(items, values)))
    time = {"column": "t", "unit": unit} if unit else "t"
    spec = parse_spec({"interactions": {"files": name, "user": "u", "item": "i", "time": time}}, folder)
    return convert_table(spec, folder / "X", Settings(threads=1, **options))


def times(folder: Path) -> list[str]:
    """The times that were written, in the order of the items."""
    rows = [line.split("\t") for line in (folder / "X" / "X.inter").read_text().splitlines()[1:]]
    return [row[2] for row in sorted(rows, key=lambda row: int(row[1][1:]))]


def found(manifest: dict[str, Any]) -> tuple[str, bool]:
    times = manifest["options"]["times"]["interactions"]
    return times["unit"], times["inferred"]


@pytest.mark.parametrize(
    ("unit", "given", "written"),
    [
        ("s", ["1700000000", "1700000000.25"], ["1700000000", "1700000000.25"]),
        ("ms", ["1700000000123", "1700000000120.5"], ["1700000000.123", "1700000000.1205"]),
        ("us", ["1700000000123456", "1700000000000000"], ["1700000000.123456", "1700000000"]),
        ("ns", ["1700000000123456789", "1700000000123456780"], ["1700000000123456789", "1700000000123456780"]),
    ],
)
@pytest.mark.parametrize("declared", [True, False])
def test_units_of_numbers(tmp_path: Path, unit: str, given: list[str], written: list[str], declared: bool) -> None:
    manifest = convert(tmp_path, given, unit if declared else None)
    assert found(manifest) == (unit, not declared)
    assert times(tmp_path) == written
    exact = unit in ("s", "ms")
    column = pa.array([float(t) for t in given] if exact else [int(t) for t in given])
    manifest = convert(tmp_path, column, unit if declared else None)
    assert found(manifest) == (unit, not declared)
    assert times(tmp_path) == written


@given(st.floats(0, 7_258_118_399, allow_nan=False, width=64), st.sampled_from(["s", "ms", "us", "ns"]))
@settings(max_examples=15, deadline=None)
def test_a_double_is_written_as_the_double_that_it_is(
    tmp_path_factory: pytest.TempPathFactory, seconds: float, unit: str
) -> None:
    folder = tmp_path_factory.mktemp("double")
    scale = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    value = seconds * scale
    manifest = convert(folder, pa.array([value, 0.0]), unit)
    shift = {"s": 0, "ns": -9}[manifest["options"]["times"]["interactions"]["written"]]
    exact = Decimal(value if value.is_integer() else repr(value)) / scale
    assert abs(Decimal(times(folder)[0]).scaleb(shift) - exact) <= Decimal("1e-9")
    if unit == "s" and seconds >= 1:
        assert float(Decimal(times(folder)[0]).scaleb(shift)) == pytest.approx(seconds, rel=1e-15, abs=5e-10)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("2023-11-14T22:13:20Z", "1700000000"),
        ("2023-11-14 22:13:20", "1700000000"),
        ("2023-11-14T23:13:20+01:00", "1700000000"),
        ("2023-11-14T16:43:20.5-0530", "1700000000.5"),
        ("2023-11-14T22:13:20.123456789Z", "1700000000123456789"),
        ("2023-11-14T22:13", "1699999980"),
        ("2023-11-14T22:13:20,120+00", "1700000000.12"),
        ("2023-11-14", "1699920000"),
        ("1970-01-01T00:00:00Z", "0"),
        ("2199-12-31T23:59:59.999999999Z", "7258118399999999999"),
        ("2199-12-31T23:59:59.999999Z", "7258118399.999999"),
    ],
)
@pytest.mark.parametrize("unit", [None, "iso"])
def test_iso_text(tmp_path: Path, text: str, written: str, unit: str | None) -> None:
    assert found(convert(tmp_path, [text, text], unit)) == ("iso", unit is None)
    assert times(tmp_path) == [written, written]


@pytest.mark.parametrize(
    "kind",
    [pa.timestamp("s"), pa.timestamp("ms"), pa.timestamp("us"), pa.timestamp("ns"), pa.timestamp("us", "Asia/Tokyo")],
)
def test_columns_of_timestamps_and_dates(tmp_path: Path, kind: pa.DataType) -> None:
    moment = datetime.datetime(2023, 11, 14, 22, 13, 20, 0 if kind == pa.timestamp("s") else 250_000, UTC)
    manifest = convert(tmp_path, pa.array([moment, moment], kind))
    assert found(manifest) == ("timestamp", False)
    assert times(tmp_path)[0] == ("1700000000" if kind == pa.timestamp("s") else "1700000000.25")
    convert(tmp_path, pa.array([datetime.date(2023, 11, 14)]))
    assert times(tmp_path) == ["1699920000"]


def test_nanoseconds_order_what_doubles_cannot_tell_apart(tmp_path: Path) -> None:
    convert(tmp_path, pa.array([1_700_000_000_000_000_001, 1_700_000_000_000_000_000]), "ns")
    rows = (tmp_path / "X" / "X.inter").read_text().splitlines()[1:]
    assert [row.split("\t")[1] for row in rows] == ["i1", "i0"]
    five = [1_700_000_000_000_000_000 + n for n in range(1, 6)]
    manifest = convert(tmp_path, pa.array(five), "ns")
    assert manifest["options"]["times"]["interactions"]["written"] == "ns"
    assert read_atomic(tmp_path / "X" / "X.inter", [TIMESTAMP])["timestamp"].tolist() == five


@pytest.mark.parametrize("kind", [pa.timestamp("ns"), pa.timestamp("ns", "UTC"), pa.timestamp("ns", "Asia/Tokyo")])
def test_timestamps_in_nanoseconds_are_exact(tmp_path: Path, kind: pa.DataType) -> None:
    given = [1_700_000_000_123_456_789, 1_700_000_000_123_456_790]
    convert(tmp_path, pa.array(given, kind))
    assert times(tmp_path) == list(map(str, given))
    convert(tmp_path, pa.array([t // 1000 * 1000 for t in given], kind))
    assert times(tmp_path) == ["1700000000.123456"] * 2


def test_nanoseconds_in_json_lines(tmp_path: Path) -> None:
    def convert_json(*written: str) -> list[str]:
        lines = [f'{{"u": "u", "i": "i{n}", "t": {time}}}\n' for n, time in enumerate(written)]
        (tmp_path / "log.jsonl").write_text("".join(lines))
        log = {"files": "log.jsonl", "user": "u", "item": "i", "time": "t"}
        convert_table(parse_spec({"interactions": log}, tmp_path), tmp_path / "X")
        return times(tmp_path)

    ns = "164000000000000000"
    assert convert_json(f"{ns}1", f'"{ns}2"', '"1.64e18"') == [f"{ns}1", f"{ns}2", f"{ns}0"]
    for wrong in (f"{ns}3.5", "1.64e18"):
        with pytest.raises(DataError, match=r"log\.jsonl:2: column 't': so long a number is exact in JSON only if"):
            convert_json(f"{ns}1", wrong)


def test_one_time_finer_than_a_float_makes_both_logs_nanoseconds(tmp_path: Path) -> None:
    rows = [("u", "s", "q", "1700000000.5", ""), ("u", "s", "q", "1700000000.500000001", "a")]
    (tmp_path / "s.csv").write_text("u,s,q,t,i\n" + "".join(",".join(row) + "\n" for row in rows))
    (tmp_path / "i.csv").write_text("u,i,t\nu,a,1700000000\n")
    spec: dict[str, Any] = {"interactions": {"files": "i.csv", "user": "u", "item": "i", "time": "t"}}
    clicks = {"item": "i", "search": "s"}
    spec["searches"] = {"files": "s.csv", "user": "u", "time": "t", "query": "q", "clicks": clicks}
    manifest = convert_table(parse_spec(spec, tmp_path), tmp_path / "X")
    assert [log["written"] for log in manifest["options"]["times"].values()] == ["ns", "ns"]
    assert "written in nanoseconds" in report(manifest)
    search = (tmp_path / "X" / "X.search").read_text().splitlines()[1].split("\t")
    assert search[2:] == ["1700000000500000000", "a", "1700000000500000001"]
    assert (tmp_path / "X" / "X.inter").read_text().splitlines()[1].split("\t")[2] == "1700000000000000000"


def test_a_float_that_python_wrote_stays_seconds(tmp_path: Path) -> None:
    given = ["1700000000.1234567", "1700000000.3839822"]
    assert [repr(float(text)) for text in given] == given
    convert(tmp_path, given, "s")
    assert times(tmp_path) == given


@pytest.mark.parametrize("decimals", [pa.decimal128(20, 3), pa.decimal128(13, 0)])
def test_decimals(tmp_path: Path, decimals: pa.DataType) -> None:
    convert(tmp_path, pa.array([Decimal("1700000000123")], decimals))
    assert times(tmp_path) == ["1700000000.123"]


MALFORMED = [
    (["1700000000", ""], None, "time is missing"),
    (["1700000000", "1700000001", "soon"], None, "time is not a number: 'soon'"),
    (["1700000000", "1700000001", "nan"], None, "time is not between March 1973 and 2200 in s, as most times are"),
    (["1700000000", "1700000001", "1700000000000"], None, "time is not between March 1973 and 2200 in s, as most"),
    (["1700000000000", "1700000001000", "1700000000"], None, "time is not between March 1973 and 2200 in ms"),
    (["1700000000", "-1"], "s", "time is not between 1970 and 2200 in s: '-1'"),
    (["1700000000", "7258118400"], "s", "time is not between 1970 and 2200 in s: '7258118400'"),
    (["1700000000", "1e300"], "s", "time is not between 1970 and 2200 in s: '1e300'"),
    (["1700000000", "1700000000000"], "s", "time is not between 1970 and 2200 in s"),
    (["2023-11-14", "1700000000"], "iso", "time is not ISO 8601 text: '1700000000'"),
    (["2023-11-14", "14.11.2023"], "iso", "time is not ISO 8601 text"),
    (["2023-11-14", "2023-02-29"], "iso", "time is not ISO 8601 text"),
    (["2023-11-14", "1969-12-31T23:59:59.5Z"], "iso", "time is not between 1970 and 2200: '1969-12-31T23:59:59.5Z'"),
    (["2023-11-14", "epoch"], "iso", "time is not ISO 8601 text: 'epoch'"),
    (["2023-11-14", "infinity"], "iso", "time is not ISO 8601 text: 'infinity'"),
    (["2023-11-14", "2023-11-14T02:30:00.5.5"], "iso", "time is not ISO 8601 text: '2023-11-14T02:30:00.5.5'"),
    (["2023-11-14", "2023-11-14T02:30:00+25:00"], "iso", "time is not ISO 8601 text: '2023-11-14T02:30:00+25:00'"),
    (["2023-11-14", "2023-07-14 02:30:00 PST"], "iso", "time is not ISO 8601 text: '2023-07-14 02:30:00 PST'"),
    (["2023-11-14", "2023-07-14 02:30:00 America/New_York"], "iso", "time is not ISO 8601 text"),
    (["2023-11-14", "2023-11-14 (BC)"], "iso", "time is not ISO 8601 text"),
    (["2023-11-14", "2023-11-14T22:13:20.1234567891Z"], "iso", "time is finer than a nanosecond"),
    (["1700000000123456789", "1700000000123456789.5"], "ns", "time is finer than a nanosecond"),
    (["1700000000", "1700000000.0000000001"], "s", "time is finer than a nanosecond"),
    (["2023-11-14", "2200-01-01"], "iso", "time is not between 1970 and 2200"),
    (["2023-11-14", "9999-12-31"], "iso", "time is not between 1970 and 2200"),
]


@pytest.mark.parametrize(("given", "unit", "problem"), MALFORMED)
def test_a_malformed_time_is_named(tmp_path: Path, given: list[str], unit: str | None, problem: str) -> None:
    with pytest.raises(DataError) as error:
        convert(tmp_path, given, unit)
    assert str(error.value).startswith(f"{tmp_path / 'log.csv'}:{len(given) + 1}: column 't': {problem}")
    manifest = convert(tmp_path, given, unit, on_error="skip")
    assert manifest["rows"]["interactions"]["out"] == len(given) - 1


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (pa.array([1.7e9, float("nan"), 1.7e9]), "time is missing"),
        (pa.array([1.7e9, float("inf"), 1.7e9]), "time is not between"),
        (pa.array([1700000000, None, 1700000000]), "time is missing"),
        (pa.array([1700000000, -5, 1700000000]), "time is not between"),
        (pa.array([datetime.datetime(2020, 1, 1), datetime.datetime(1960, 1, 1)]), "time is not between 1970 and 2200"),
        (pa.array([datetime.datetime(2020, 1, 1), datetime.datetime(9999, 1, 1)]), "time is not between 1970 and 2200"),
    ],
)
def test_a_malformed_time_of_parquet_is_named_by_its_row(tmp_path: Path, values: pa.Array, problem: str) -> None:
    with pytest.raises(DataError, match=rf"log\.parquet:2: column 't': {problem}"):
        convert(tmp_path, values)


@pytest.mark.parametrize(
    ("values", "unit", "problem"),
    [
        (pa.array([1, 2, 3]), None, "the unit of the times cannot be told"),
        (["1700000000", "1700000000000"], None, "the unit of the times cannot be told"),
        (["20231114221320", "20231114221321"], None, "the unit of the times cannot be told"),
        (["202311142213", "202311142214"], None, "the unit of the times cannot be told"),
        (pa.array([202311142213, 202311142214]), None, "the unit of the times cannot be told"),
        (["231114221320", "231114221321"], None, "the unit of the times cannot be told"),
        (pa.array([2023111422, 2023111423]), None, "the unit of the times cannot be told"),
        (["14.11.2023"], None, "the unit of the times cannot be told"),
        (pa.array([1.5], pa.float32()), "s", "32-bit floats step by 128 s"),
        (pa.array([datetime.datetime(2020, 1, 1)]), "s", "leave out the unit"),
    ],
)
def test_times_that_cannot_be_read_at_all(tmp_path: Path, values: Any, unit: str | None, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        convert(tmp_path, values, unit)


def test_a_counter_with_a_declared_unit_is_accepted(tmp_path: Path) -> None:
    manifest = convert(tmp_path, pa.array([0, 1, 2]), "s")
    assert times(tmp_path) == ["0", "1", "2"]
    assert manifest["options"]["times"]["interactions"] == {
        "unit": "s", "inferred": False, "first": "1970-01-01T00:00:00Z", "last": "1970-01-01T00:00:02Z",
        "written": "s",
    }  # fmt: skip


def test_the_two_logs_may_have_two_units(tmp_path: Path) -> None:
    (tmp_path / "i.csv").write_text("u,i,t\nu,a,1700000000\n")
    rows = [{"u": "u", "t": t, "q": "x"} for t in (1700000000500, "1700000000250")]
    (tmp_path / "s.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = {"interactions": {"files": "i.csv", "user": "u", "item": "i", "time": "t"}}
    spec["searches"] = {"files": "s.jsonl", "user": "u", "time": "t", "query": "q"}  # type: ignore[dict-item]
    manifest = convert_table(parse_spec(spec, tmp_path), tmp_path / "X")
    assert [log["unit"] for log in manifest["options"]["times"].values()] == ["s", "ms"]
    searches = (tmp_path / "X" / "X.search").read_text().splitlines()[1:]
    assert [row.split("\t")[2] for row in searches] == ["1700000000.25", "1700000000.5"]
