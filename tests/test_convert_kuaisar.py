"""KuaiSAR's layout with its oddities: ids as floats, lists as text, many rows with one time."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from conftest import command, load_dataset

from recbole_ser.config import SERConfig
from recbole_ser.convert import prepare
from recbole_ser.convert.layouts import kuaisar
from recbole_ser.convert.settings import Settings
from recbole_ser.errors import ConfigError, DataError, UserError
from recbole_ser.validation.report import validate

T = 1684713600  # 2023-05-22

REC = ["user_id,item_id,playing_time,duration_ms,time,timestamp,click,forward,like,follow,search,search_item_related"]
REC += [
    f"2,30,9000,8000,2023-05-22 00:00:01.234,{T + 1}234.0,1,0,0,0,0,",
    f"1.0,20.0,9000,8000,2023-05-22 00:00:01,{T + 1}000.0,1,0,0,0,1,0",
    f"1,10,9000,8000,2023-05-22 00:00:01,{T + 1}000.0,1,0,1,0,0,",
    f"1,11,0,8000,2023-05-22 00:00:01,{T + 1}000.0,0,0,0,0,0,",
    f"1,30,9000,8000,2023-05-22 00:00:00,{T}999.0,1.0,0,0,0,0,",
]
SRC = [
    "user_id,search_session_id,search_session_time,search_session_timestamp,keyword,search_source,item_id,click_cnt,item_type"
]


def shown(
    user: str,
    session: str,
    time: int,
    keyword: str,
    item: str,
    clicks: str,
    kind: str = "VIDEO",
    source: str = "USER_INPUT",
) -> str:
    return f'{user},{session},2023-05-22 00:00:00,{time}000.0,"{keyword}",{source},{item},{clicks},{kind}'


SRC += [
    shown("1", "7", T + 9, "[5, 6]", "31", "0"),
    shown("1", "7", T + 9, "[5, 6]", "20", "2"),
    shown("1.0", "7.0", T + 9, "[5.0, 6]", "10.0", "1.0", "IMAGE_ATLAS"),
    shown("1", "7", T + 9, "[5, 6]", "99", "1", "LIVE"),
    shown("2", "7", T + 8, "[6]", "98", "0", "USER", "QUERY SUG"),
    shown("2", "7", T + 8, "[6]", "30", "0", source="QUERY SUG"),
    shown("2", "7", T + 8, "[6]", "31", "0", source="QUERY SUG"),
    shown("2", "8", T + 7, "[5, 6]", "97", "1", "LIVE"),
    shown("2", "9", T + 6, "[5, 6]", "", "0", ""),
]
USERS = [
    "user_id,search_active_level,rec_active_level,onehot_feat1,onehot_feat2",
    "1,2.0,1,0,7",
    "2.0,0,,1,3",
    "3,0,0,0,0",
]
ITEMS = [
    "item_id,caption,author_id,item_type,upload_time,upload_type,"
    + ",".join(
        f"{n}_level_category_id,{n}_level_category_name,{n}_level_category_name_en" for n in ("first", "second")
    ),
    '10.0,"[5, 7]",400.0,NORMAL,2023-05-01,LongImport,3,高新数码,Digital,16,"摄影, 技术",Photo',
    "20,[],401,AD,2023-05-01,LongImport,3.0,高新数码,Digital,,,",
    '77,"[5]",401,AD,2023-05-01,LongImport,3,高新数码,Digital,16,摄影,Photo',
]
TABLES = {"rec_inter": REC, "src_inter": SRC, "user_features": USERS, "item_features": ITEMS}


def write_raw(folder: Path, **tables: list[str] | None) -> Path:
    """Write the tables, some of them replaced or (``None``) left out."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in {**TABLES, **tables}.items():
        if lines is not None:
            (folder / f"{name}.csv").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return folder


def convert(
    tmp_path: Path, on_error: Any = "stop", first_shown: bool = False, **tables: list[str] | None
) -> dict[str, Any]:
    raw = write_raw(tmp_path / "raw", **tables)
    return kuaisar.convert(raw, tmp_path / "k", first_shown=first_shown, settings=Settings(on_error, threads=1))


def rows_of(tmp_path: Path, suffix: str) -> list[str]:
    return (tmp_path / "k" / f"k.{suffix}").read_text(encoding="utf-8").replace("\t", "|").splitlines()[1:]


def query_id(tmp_path: Path, terms: str) -> str:
    return {row.split("|")[1]: row.split("|")[0] for row in rows_of(tmp_path, "query")}[terms]


def test_the_files_by_hand(tmp_path: Path) -> None:
    manifest = convert(tmp_path)
    assert rows_of(tmp_path, "inter") == [
        f"1|30|{T}.999",
        f"1|20|{T + 1}",  # as in the file, whatever the ids
        f"1|10|{T + 1}",
        f"2|30|{T + 1}.234",
    ]
    assert sorted(row.split("|")[1] for row in rows_of(tmp_path, "query")) == ["5 6", "6"]
    both, six = query_id(tmp_path, "5 6"), query_id(tmp_path, "6")
    assert rows_of(tmp_path, "search") == [
        f"1|{both}|{T + 9}|20 10|USER_INPUT",
        f"2|{both}|{T + 6}||USER_INPUT",
        f"2|{both}|{T + 7}||USER_INPUT",
        f"2|{six}|{T + 8}||QUERY SUG",
    ]
    assert rows_of(tmp_path, "user") == ["1|2|1|0|7", "2|0||1|3"]
    assert rows_of(tmp_path, "item") == ["10|400|NORMAL|3|16|5 7", "20|401|AD|3||"]
    header = (
        "item_id:token|author_id:token|item_type:token|first_level_category_id:token|second_level_category_id:token"
    )
    assert (tmp_path / "k" / "k.item").read_text().replace("\t", "|").startswith(f"{header}|caption:token_seq\n")
    assert manifest["sizes"] == {"users": 2, "items": 3, "interactions": 4, "search_events": 4, "queries": 2}
    assert manifest["rows"]["rec_inter"] == {"in": 5, "out": 4, "rejected": {"click is not one to keep": 1}}
    assert manifest["rows"]["src_inter"] == {"in": 9, "out": 9, "rejected": {}}
    assert manifest["rows"]["clicked rows of src_inter"] == {
        "in": 4, "out": 2, "rejected": {"item_type is not VIDEO or IMAGE_ATLAS": 2},
    }  # fmt: skip
    assert manifest["rows"]["items shown under searches"]["out"] == 2
    assert manifest["options"]["first_shown"] is False
    assert [entry["file"] for entry in manifest["inputs"]] == [f"{name}.csv" for name in (
        "rec_inter", "src_inter", "item_features", "user_features")]  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "k").glob("[!.]*")) == [
        "k.inter", "k.item", "k.query", "k.search", "k.user", "manifest.json",
    ]  # fmt: skip


def test_the_first_shown_item_is_one_that_can_be_recommended(tmp_path: Path) -> None:
    manifest = convert(tmp_path, first_shown=True)
    clicks = {tuple(row.split("|")[:3:2]): row.split("|")[3] for row in rows_of(tmp_path, "search")}
    assert clicks == {
        ("1", str(T + 9)): "20 10",
        ("2", str(T + 8)): "30",
        ("2", str(T + 7)): "",
        ("2", str(T + 6)): "",
    }
    assert manifest["options"]["first_shown"] is True


def test_the_result_is_clean_and_loads(tmp_path: Path) -> None:
    convert(tmp_path)
    found = validate(tmp_path / "k")
    assert found.clean(), str(found)
    counts = load_dataset(tmp_path, "k", require_both_histories=False).summary()
    assert (counts["users"], counts["items"], counts["interactions"], counts["searches"]) == (2, 3, 4, 4)


def test_equal_bytes_and_without_features(tmp_path: Path) -> None:
    convert(tmp_path)
    first = {path.name: path.read_bytes() for path in (tmp_path / "k").iterdir()}
    convert(tmp_path)
    assert {path.name: path.read_bytes() for path in (tmp_path / "k").iterdir()} == first
    for name in ("user_features", "item_features"):
        (tmp_path / "raw" / f"{name}.csv").unlink()
    convert(tmp_path, user_features=None, item_features=None)
    assert not list((tmp_path / "k").glob("*.item")) + list((tmp_path / "k").glob("*.user"))
    for name in ("k.inter", "k.search", "k.query"):
        assert (tmp_path / "k" / name).read_bytes() == first[name]


@pytest.mark.parametrize(
    ("table", "line", "column", "reason"),
    [
        ("rec_inter", f",10,1,1,x,{T}000,1,0,0,0,0,", "user_id", "user is missing"),
        ("rec_inter", f"1,1 0,1,1,x,{T}000,1,0,0,0,0,", "item_id", "item is not one word"),
        ("rec_inter", "1,10,1,1,x,,1,0,0,0,0,", "timestamp", "time is missing"),
        ("rec_inter", f"1,10,1,1,x,{T},1,0,0,0,0", None, "the row has not as many columns as the header"),
        ("rec_inter", f"1,10,1,1,x,{T}000000000,1,0,0,0,0,", "timestamp", "time is not between 1970 and 2200 in ms"),
        ("rec_inter", f"1,10,1,1,x,{T}000,yes,0,0,0,0,", "click", "click is not a number"),
        ("src_inter", shown("1", "", T, "[5]", "10", "1"), "search_session_id", "session is missing"),
        ("src_inter", shown("1", "5", T, "", "10", "1"), "keyword", "query is missing"),
        ("src_inter", shown("1", "5", T, "[]", "10", "1"), "keyword", "query is missing"),
        ("src_inter", shown("1", "5", T, "5 6", "10", "1"), "keyword", "query is not a list"),
        ("src_inter", shown("1", "5", T, "[5]", "10", "many"), "click_cnt", "click_cnt is not a number"),
        ("src_inter", shown("1", "7", T, "[6, 5]", "10", "1"), None, "rows of one search differ in query or source"),
        (
            "src_inter", shown("1", "7", T, "[5, 6]", "10", "1", source="X"), None,
            "rows of one search differ in query or source",
        ),
        ("item_features", '10,"5, 7",4,N,x,y,3,a,b,16,c,d', "caption", "caption is not a list"),
        ("user_features", ",2,1,0,7", "user_id", "user is missing"),
    ],
)  # fmt: skip
def test_a_malformed_row(tmp_path: Path, table: str, line: str, column: str | None, reason: str) -> None:
    lines = [*TABLES[table], line]
    with pytest.raises(DataError) as stopped:
        convert(tmp_path, **{table: lines})
    assert (stopped.value.line, stopped.value.column) == (len(lines), column)
    assert reason in str(stopped.value) and f"{table}.csv" in str(stopped.value) and "\n" not in str(stopped.value)
    assert not list((tmp_path / "k").glob("[!.]*"))
    whole = convert(tmp_path / "whole")
    manifest = convert(tmp_path, "skip", **{table: lines})
    counts, before = manifest["rows"][table], whole["rows"][table]
    assert (counts["in"], counts["out"]) == (before["in"] + 1, before["out"])
    assert counts["rejected"] == {**before["rejected"], reason: 1}
    assert counts["examples"][reason][0].startswith(f"{table}.csv:{len(lines)}: ")
    assert manifest["sizes"] == whole["sizes"]


def test_a_search_has_the_query_of_its_first_good_row(tmp_path: Path) -> None:
    lines = [shown("3", "1", T, keyword, item, "1") for keyword, item in [("", "10"), ("[5]", "20"), ("[6]", "30")]]
    manifest = convert(tmp_path, "skip", src_inter=[*SRC, *lines])
    reasons = {"query is missing": 1, "rows of one search differ in query or source": 1}
    assert manifest["rows"]["src_inter"]["rejected"] == reasons
    assert rows_of(tmp_path, "search")[-1] == f"3|{query_id(tmp_path, '5')}|{T}|20|USER_INPUT"


def test_a_missing_file_or_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"raw holds no src_inter\.csv"):
        convert(tmp_path, src_inter=None)
    with pytest.raises(DataError, match=r"src_inter\.csv:1: column 'keyword': the column is missing"):
        convert(tmp_path, src_inter=[SRC[0].replace("keyword", "keyw")])
    write_raw(tmp_path / "raw")
    (tmp_path / "raw" / "rec_inter.csv.gz").write_bytes(b"")
    with pytest.raises(UserError, match=r"holds rec_inter\.csv and rec_inter\.csv\.gz: keep one"):
        kuaisar.convert(tmp_path / "raw", tmp_path / "k")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_raw(tmp_path / "raw")
    arguments = ["--logs", str(tmp_path / "raw"), "--out", str(tmp_path / "k"), "--first-shown", "--threads", "1"]
    assert command("convert", "kuaisar", *[*arguments, "--on-error", "skip"]) == 0
    printed = capsys.readouterr().out
    assert "k: 2 users, 3 items, 4 interactions, 4 search events, 2 queries" in printed
    assert "times of searches: ms, 2023-05-22T00:00:06Z to 2023-05-22T00:00:09Z; written in seconds" in printed
    assert f"2|{query_id(tmp_path, '6')}|{T + 8}|30|QUERY SUG" in rows_of(tmp_path, "search")


def prepared(tmp_path: Path, role: str, name: str, **options: Any) -> Path:
    source = {"role": role, "base": "http://localhost:9/", "files": [name]}
    raw = {"sources": [source], "convert": {"converter": "kuaisar", **options}}
    prepare.ensure_dataset(tmp_path / "k", {"raw": raw})
    return tmp_path / "k"


def test_an_archive_is_taken_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = write_raw(tmp_path / "tables")
    (tmp_path / "k" / "raw").mkdir(parents=True)
    archive = tmp_path / "k" / "raw" / "KuaiSAR.zip"
    with zipfile.ZipFile(archive, "w") as handle:
        for path in tables.iterdir():
            handle.write(path, f"KuaiSAR_v2/{path.name}")
        handle.writestr("__MACOSX/KuaiSAR_v2/rec_inter.csv", "")
        handle.writestr("../social_network.csv", "user_id,friend_list")
    for _ in range(2):
        prepared(tmp_path, "archive", "KuaiSAR.zip", first_shown=False)
    assert len(rows_of(tmp_path, "inter")) == 4
    assert sorted(path.name for path in archive.parent.iterdir()) == ["KuaiSAR.zip", "checksums.json"]
    assert not json.loads((tmp_path / "k" / "manifest.json").read_text())["options"]["first_shown"]
    with pytest.raises(ConfigError, match="converted with first_shown False, not True"):
        prepared(tmp_path, "archive", "KuaiSAR.zip", first_shown=True)


def test_a_wrong_archive(tmp_path: Path) -> None:
    archive = tmp_path / "KuaiSAR.zip"
    archive.write_bytes(b"an error page")
    with pytest.raises(DataError, match=r"KuaiSAR\.zip: a damaged archive: .* \(get it again\)"):
        kuaisar.from_raw({"archive": [archive]}, tmp_path / "k", {})
    with zipfile.ZipFile(archive, "w") as handle:
        handle.writestr("a/rec_inter.csv", "")
        handle.writestr("b/rec_inter.csv", "")
    with pytest.raises(DataError, match=r"it holds several files rec_inter\.csv"):
        kuaisar.from_raw({"archive": [archive]}, tmp_path / "k", {})
    with pytest.raises(ConfigError, match=r"takes first_shown \(bool\); found first: True"):
        kuaisar.from_raw({"archive": [archive]}, tmp_path / "k", {"first": True})
    with pytest.raises(ConfigError, match="found first_shown: 1"):
        kuaisar.from_raw({"archive": [archive]}, tmp_path / "k", {"first_shown": 1})
    with pytest.raises(ConfigError, match="kuaisar takes one file of the role archive, or some of logs; found"):
        kuaisar.from_raw({"log": [archive]}, tmp_path / "k", {})
    write_raw(tmp_path / "raw")
    files = {"logs": [tmp_path / "raw" / f"{name}.csv" for name in TABLES]}
    assert kuaisar.from_raw(files, tmp_path / "k", {})["sizes"]["interactions"] == 4


def test_the_papers_settings() -> None:
    config = SERConfig("SESRec", "kuaisar")
    assert (config["embedding_size"], config["hidden_size"], config["n_heads"]) == (48, 48, 2)
    assert (config["MAX_ITEM_LIST_LENGTH"], config["max_search_length"], config["weight_decay"]) == (150, 25, 1e-6)
    assert config.candidate_mode("test") == ("uniform", 99)
    assert SERConfig("UniSAR", "kuaisar")["alignment_temperature"] == 0.5
