"""The log of the RecSys Challenge 2019: sessions whose clickouts belong to the search before them."""

from __future__ import annotations

import csv
import hashlib
import random
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import command, load_dataset, write_lines

from recbole_ser.convert.layouts import trivago
from recbole_ser.convert.settings import Settings
from recbole_ser.errors import ConfigError, DataError, UserError
from recbole_ser.validation.report import validate

T = 1541000000
COLUMNS = (
    "user_id", "session_id", "timestamp", "step", "action_type", "reference", "platform", "city", "device",
    "current_filters", "impressions", "prices",
)  # fmt: skip
LOOKS = [f"interaction item {kind}" for kind in ("image", "info", "rating", "deals")]
# user, session, seconds, step, action, reference
LOG = [
    ("u1", "s1", 0, 1, "clickout item", "5"),
    ("u1", "s1", 5, 2, "search for destination", "Niagara Falls, Canada"),
    ("u1", "s1", 6, 3, "interaction item image", "9"),
    ("u1", "s1", 6, 4, "interaction item image", "9"),
    ("u1", "s1", 6, 5, "filter selection", "5 Star"),
    ("u1", "s1", 6, 6, "clickout item", "9"),
    ("u1", "s1", 7, 7, "clickout item", "9"),
    ("u1", "s1", 7, 8, "interaction item deals", "3"),
    ("u1", "s1", 7, 9, "clickout item", "10"),
    ("u1", "s1", 8, 10, "clickout item", "9"),
    ("u1", "s1", 9, 11, "search for item", "77"),
    ("u1", "s1", 9, 12, "change of sort order", "price only"),
    ("u1", "s1", 10, 13, "interaction item info", "77"),
    ("u1", "s2", 20, 1, "interaction item rating", "77"),
    ("u1", "s2", 21, 2, "interaction item image", "unknown"),
    ("u1", "s2", 22, 3, "interaction item image", "77"),
    ("u1", "s2", 23, 4, "clickout item", "78"),
    ("u2", "s3", 30, 1, "search for poi", "Kyoto  Station"),
    ("u2", "s3", 31, 2, "clickout item", "5"),
    ("u2", "s3", 32, 3, "clickout item", ""),
    ("u2", "s3", 33, 4, "search for poi", " "),
    ("u2", "s3", 90, 1, "search for poi", "kyoto station"),  # taken up later, and counted anew
    ("u2", "s3", 91, 2, "clickout item", "5"),
    ("u2", "s3", 92, 3, "interaction item image", "6"),
]


def write_log(path: Path, rows: list[tuple[Any, ...]] = LOG) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(
        [[u, s, T + t if isinstance(t, int) else t, *rest] + [None] * 6 for u, s, t, *rest in rows], columns=COLUMNS
    )
    table.to_csv(path, index=False, lineterminator="\n", quoting=csv.QUOTE_MINIMAL)
    return path


def convert(
    tmp_path: Path, rows: list[tuple[Any, ...]] = LOG, on_error: Any = "stop", **options: Any
) -> dict[str, Any]:
    log = write_log(tmp_path / "log.csv", rows)
    return trivago.convert([log], tmp_path / "x", settings=Settings(on_error, threads=1), **options)


def rows_of(tmp_path: Path, suffix: str) -> list[str]:
    return (tmp_path / "x" / f"x.{suffix}").read_text(encoding="utf-8").replace("\t", "|").splitlines()[1:]


def query_id(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()[:20]


NIAGARA, HOTEL, KYOTO = query_id("niagara falls, canada"), query_id("77"), query_id("kyoto station")


def test_the_files_by_hand(tmp_path: Path) -> None:
    manifest = convert(tmp_path)
    assert rows_of(tmp_path, "inter") == [
        f"u1|5|{T}",
        f"u1|9|{T + 6}",
        f"u1|3|{T + 7}",  # of one second, but in the order of the steps
        f"u1|10|{T + 7}",
        f"u1|9|{T + 8}",
        f"u1|77|{T + 10}",  # looked at in the next session as well, which does not count
        f"u1|78|{T + 23}",
        f"u2|5|{T + 31}",
        f"u2|6|{T + 92}",
    ]
    assert rows_of(tmp_path, "search") == [
        f"u1|{NIAGARA}|{T + 5}|9 10 9|{T + 6} {T + 7} {T + 8}|destination",
        f"u1|{HOTEL}|{T + 9}|||item",  # the next session's clickout is not its click
        f"u2|{KYOTO}|{T + 30}|5|{T + 31}|poi",
        f"u2|{KYOTO}|{T + 90}|5|{T + 91}|poi",  # though that was the last search's click
    ]
    terms = {NIAGARA: "niagara falls canada", HOTEL: "77", KYOTO: "kyoto station"}
    assert rows_of(tmp_path, "query") == sorted(f"{query}|{text}" for query, text in terms.items())
    rows = manifest["rows"]
    assert rows["log"] == {
        "in": 24, "out": 19,
        "rejected": {"action_type is not one to keep": 2, "no reference": 2, "the item is unknown": 1},
    }  # fmt: skip
    assert rows["interactions"] == {"in": 15, "out": 9, "rejected": {"the same item as before": 6}}
    assert rows["clickouts"] == {
        "in": 8, "out": 5, "rejected": {"no search before it in its session": 2, "the same item as before": 1},
    }  # fmt: skip
    assert manifest["sizes"] == {"users": 2, "items": 7, "interactions": 9, "search_events": 4, "queries": 3}
    assert [entry["file"] for entry in manifest["inputs"]] == ["log.csv"]


def test_repeats_can_be_kept(tmp_path: Path) -> None:
    manifest = convert(tmp_path, keep_repeats=True)
    assert [row.split("|")[1] for row in rows_of(tmp_path, "inter")] == [
        "5", "9", "9", "9", "9", "3", "10", "9", "77", "77", "77", "78", "5", "5", "6",
    ]  # fmt: skip
    assert (
        rows_of(tmp_path, "search")[0] == f"u1|{NIAGARA}|{T + 5}|9 9 10 9|{T + 6} {T + 7} {T + 7} {T + 8}|destination"
    )
    assert manifest["rows"]["interactions"] == {"in": 15, "out": 15, "rejected": {}}
    assert manifest["rows"]["clickouts"]["out"] == 6 and manifest["options"]["keep_repeats"] is True


def test_the_result_is_clean_and_loads(tmp_path: Path) -> None:
    convert(tmp_path)
    found = validate(tmp_path / "x")
    assert found.clean(strict=True), str(found)
    counts = load_dataset(tmp_path, "x", require_both_histories=False).summary()
    assert (counts["users"], counts["items"], counts["interactions"], counts["searches"]) == (2, 7, 9, 4)


def test_the_order_of_the_rows_does_not_matter(tmp_path: Path) -> None:
    def written() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (tmp_path / "x").glob("x.*")}

    convert(tmp_path)
    first = written()
    convert(tmp_path, random.Random(1).sample(LOG, len(LOG)))
    assert written() == first
    parts = [write_log(tmp_path / "b.csv", LOG[:9]), write_log(tmp_path / "a.csv", LOG[9:])]
    trivago.convert(parts, tmp_path / "x")
    assert written() == first
    table = pd.DataFrame([[u, s, T + t, *rest] for u, s, t, *rest in LOG], columns=COLUMNS[:6])
    table.to_parquet(tmp_path / "log.parquet")
    trivago.convert([tmp_path / "log.parquet"], tmp_path / "x")
    assert written() == first


@pytest.mark.parametrize(
    ("row", "column", "reason"),
    [
        ((None, "s9", 5, 1, "clickout item", "5"), "user_id", "user is missing"),
        (("u1", None, 5, 1, "clickout item", "5"), "session_id", "session is missing"),
        (("u1", "s9", "soon", 1, "clickout item", "5"), "timestamp", "time is not a number"),
        (("u1", "s9", 5, "x", "clickout item", "5"), "step", "step is not a number"),
        (("u1", "s9", 5, None, "clickout item", "5"), "step", "step is missing"),
        (("u1", "s9", 5, 1, "clickout item", "Kyoto"), "reference", "reference is not an item"),
    ],
)
def test_a_malformed_row(tmp_path: Path, row: tuple[Any, ...], column: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason) as stopped:
        convert(tmp_path, [*LOG[:9], row, *LOG[9:]])
    assert (stopped.value.line, stopped.value.column) == (11, column)
    assert not list((tmp_path / "x").glob("[!.]*"))
    manifest = convert(tmp_path, [*LOG[:9], row, *LOG[9:]], "skip")
    assert manifest["rows"]["log"]["rejected"][reason] == 1
    assert manifest["rows"]["log"]["in"] == 25 and manifest["sizes"]["interactions"] == 9


def test_wrong_input_has_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"log\.csv: there is no search in the log"):
        convert(tmp_path, [row for row in LOG if not row[4].startswith("search")])
    with pytest.raises(DataError, match=r"log\.csv: there is no interaction in the log"):
        convert(tmp_path, [row for row in LOG if row[4].startswith("search")])
    with pytest.raises(DataError, match=r"log\.csv: no row of 2 is left"):
        convert(tmp_path, [LOG[4], LOG[11]])
    with pytest.raises(UserError, match=r"none\.csv: there is no such file"):
        trivago.convert([tmp_path / "none.csv"], tmp_path / "x")
    write_log(tmp_path / "log.parquet")
    with pytest.raises(DataError, match="not a Parquet file, or a damaged one"):
        trivago.convert([tmp_path / "log.parquet"], tmp_path / "x")
    with pytest.raises(ConfigError, match="CSV files or Parquet files, and not both"):
        trivago.convert([tmp_path / "log.parquet", tmp_path / "log.csv"], tmp_path / "x")
    with pytest.raises(ConfigError, match=r"raw.sources: trivago takes files of the role log; found \['logs'\]"):
        trivago.from_raw({"logs": []}, tmp_path / "x", {})
    with pytest.raises(ConfigError, match=r"trivago takes keep_repeats \(bool\); found repeats: 1"):
        trivago.from_raw({"log": [tmp_path / "log.csv"]}, tmp_path / "x", {"repeats": 1})


def test_the_command_and_the_raw_files_of_a_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = write_log(tmp_path / "log.csv")
    arguments = ["--log", str(log), "--out", str(tmp_path / "x"), "--keep-repeats", "--memory", "1GiB"]
    assert command("convert", "trivago", *arguments) == 0
    printed = capsys.readouterr().out
    assert "x: 2 users, 7 items, 15 interactions, 4 search events, 3 queries" in printed
    assert "times of interactions: s, 2018-10-31T15:33:20Z to 2018-10-31T15:34:52Z; written in seconds" in printed
    kept = (tmp_path / "x" / "x.inter").read_bytes()
    trivago.from_raw({"log": [log]}, tmp_path / "x", {"keep_repeats": True})
    assert (tmp_path / "x" / "x.inter").read_bytes() == kept


def test_the_real_log_against_pandas(real_data: Path, tmp_path: Path) -> None:
    path = real_data / "trivago" / "trivago_val_100k.parquet"
    manifest = trivago.convert([path], tmp_path / "trivago", settings=Settings(threads=1))
    log = pd.read_parquet(path, columns=list(COLUMNS[:6]))
    items = log[log.action_type.isin(["clickout item", *LOOKS]) & (log.reference != "unknown")]
    items = items.sort_values(["user_id", "timestamp", "session_id", "step"], kind="stable")
    once = items[items.reference != items.groupby("user_id").reference.shift()]
    inter = pd.read_csv(tmp_path / "trivago" / "trivago.inter", sep="\t", dtype={"item_id:token": str})
    inter.columns = ["user_id", "reference", "timestamp"]
    assert inter.equals(once[["user_id", "reference", "timestamp"]].reset_index(drop=True))

    log = log.sort_values(["session_id", "timestamp", "step"], kind="stable")
    log["search"] = log.action_type.str.startswith("search").groupby(log.session_id).cumsum()
    searches = log[log.action_type.str.startswith("search")].set_index(["session_id", "search"])
    clickouts = log[(log.action_type == "clickout item") & (log.search > 0) & (log.reference != "unknown")]
    groups = clickouts.groupby(["session_id", "search"])
    clicks = clickouts[clickouts.reference != groups.reference.shift()]
    by_search = clicks.groupby(["session_id", "search"])
    expected = searches.assign(
        clicks=by_search.reference.agg(" ".join),
        click_times=by_search.timestamp.agg(lambda times: " ".join(map(str, times))),
    ).fillna("")
    found = pd.read_csv(tmp_path / "trivago" / "trivago.search", sep="\t", keep_default_na=False)
    columns = ["user_id:token", "timestamp:float", "clicked_items:token_seq", "click_times:float_seq", "source:token"]
    expected["source"] = expected.action_type.str.removeprefix("search for ")
    assert sorted(map(tuple, found[columns].values)) == sorted(
        map(tuple, expected[["user_id", "timestamp", "clicks", "click_times", "source"]].values)
    )
    assert len(found) == 5184 and found["query_id:token"].nunique() == manifest["sizes"]["queries"]
    assert manifest["rows"]["log"]["in"] == 100_003 and manifest["sizes"]["users"] == once.user_id.nunique()
    report = validate(tmp_path / "trivago")
    assert report.clean(), str(report)
    dataset = load_dataset(tmp_path, "trivago")
    counts = dataset.summary()
    assert (counts["users"], counts["interactions"]) == (6593, len(inter))
    assert share_of_targets_among_clicks(dataset) == 0
    path = tmp_path / "trivago" / "trivago.search"
    header, *rows = (line.split("\t") for line in path.read_text().splitlines())
    times = header.index("click_times:float_seq")
    write_lines(path, *("\t".join(row[:times] + row[times + 1 :]) for row in [header, *rows]))
    assert share_of_targets_among_clicks(load_dataset(tmp_path, "trivago")) > 0.4
    assert validate(tmp_path / "trivago").findings.counts["click-ahead"] == 1


def share_of_targets_among_clicks(dataset: Any) -> float:
    """Of the targets that are new to their user and follow a search, how many were already clicked in their history."""
    log = dataset.log
    batch = dataset.history_reader().read(torch.arange(len(log.items)))
    pairs = pd.DataFrame({"user": log.users, "item": log.items})
    asked = torch.tensor(~pairs.duplicated().to_numpy()) & (batch["search_length"] > 0)
    clicked = (batch["search_click_list"] == log.items.long().view(-1, 1, 1)).flatten(1).any(1)
    return float(clicked[asked].float().mean())
