from __future__ import annotations

import gzip
import hashlib
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import command
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_ser.atomic import publishing
from recbole_ser.convert import amazon
from recbole_ser.convert.amazon_items import parse_metadata
from recbole_ser.convert.conversion import OnError
from recbole_ser.convert.raw_lines import BadRow
from recbole_ser.errors import DataError, UserError

REVIEWS = [("U2", "D", 300), ("U1", "B", 100), ("U1", "A", 100), ("U1", "C", 50), ("U2", "A", 200)]
QUERIES = ["alpha", "beta gamma", "delta epsilon zeta", "never used"]
TRAIN = ["U1_0 0 A 1", "U2_1 0 A 1", "U1_2 0 B 1", "U9_2 0 B 1", "U2_2 0 X 1", "U1_0 0 A 1"]
TEST = ["U1_2 0 C 1", "U1_1 0 A 1", "U2_2 0 D 0"]
METADATA = [
    {"asin": "A", "title": 'The "best" &amp; <b>newest</b>\tphone', "description": "a\n\nb", "price": 1.5},
    {"asin": "Z", "title": "nobody reviewed this"},
    {"asin": "B", "categories": [["Cell Phones & Accessories", "Cases"], ["Cell Phones & Accessories", "Basic Cases"]]},
]


def review_line(user: str, item: str, time: Any) -> str:
    return json.dumps({"reviewerID": user, "asin": item, "unixReviewTime": time, "reviewText": "much ado"})


def write_raw(folder: Path, *, compressed: bool = False, shuffle: int | None = None, **lines: list[str]) -> Path:
    """Write the small raw data set, with ``lines`` (by file: reviews, query_text, train, test, metadata) replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        "reviews": [review_line(*row) for row in REVIEWS],
        "query_text": QUERIES,
        "train": TRAIN,
        "test": TEST,
        "metadata": [repr(row) for row in METADATA],
    } | lines
    names = {"reviews": "reviews.json", "query_text": "query_text.txt", "metadata": "metadata.json"}
    for key, rows in contents.items():
        if shuffle is not None and key != "query_text":
            rows = random.Random(shuffle).sample(rows, len(rows))
        data = "".join(f"{row}\n" for row in rows).encode()
        name = names.get(key, f"{key}.qrels")
        if compressed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(data))
        else:
            (folder / name).write_bytes(data)
    return folder


def convert(raw: Path, out: Path, recipe: str = "sesrec", *, metadata: bool = False, **options: Any) -> dict[str, Any]:
    suffix = ".gz" if (raw / "reviews.json.gz").exists() else ""
    texts = raw / f"metadata.json{suffix}" if metadata else None
    return amazon.convert(raw / f"reviews.json{suffix}", raw, out, recipe, metadata=texts, **options)


def rows_of(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]


def data_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("X.*")}


def expected_draw(seed: int, name: str, lines: list[int]) -> str:
    digest = hashlib.blake2b(f"{seed}\t{name}".encode(), digest_size=8).digest()
    return str(lines[int.from_bytes(digest, "big") % len(lines)])


# --- the recipes, by hand ---------------------------------------------------------------------------------------------


def test_interactions_are_sorted_by_user_time_and_item(tmp_path: Path) -> None:
    convert(write_raw(tmp_path / "raw"), tmp_path / "X")
    assert rows_of(tmp_path / "X" / "X.inter") == [
        ["user_id:token", "item_id:token", "timestamp:float"],
        ["U1", "C", "50"],
        ["U1", "A", "100"],
        ["U1", "B", "100"],
        ["U2", "A", "200"],
        ["U2", "D", "300"],
    ]


def test_sesrec_gives_each_item_one_query(tmp_path: Path) -> None:
    manifest = convert(write_raw(tmp_path / "raw"), tmp_path / "X", "sesrec", seed=7)
    drawn = expected_draw(7, "A", [0, 1])
    assert rows_of(tmp_path / "X" / "X.search") == [
        ["user_id:token", "query_id:token", "timestamp:float", "clicked_items:token_seq"],
        ["U1", "2", "50", "C"],
        ["U1", drawn, "100", "A"],
        ["U1", "2", "100", "B"],
        ["U2", drawn, "200", "A"],
    ]
    assert rows_of(tmp_path / "X" / "X.query") == [
        ["query_id:token", "terms:token_seq"],
        [drawn, QUERIES[int(drawn)]],
        ["2", "delta epsilon zeta"],
    ]
    assert manifest["rows"] == {
        "reviews": {"in": 5, "out": 5, "rejected": {}},
        "query lines": {"in": 4, "out": 2, "rejected": {"the query was not drawn": 2}},
        "judgements": {"in": 9, "out": 7, "rejected": {"judged not relevant": 1, "no such interaction": 1}},
        "search events among interactions": {"in": 5, "out": 4, "rejected": {"the item has no query": 1}},
    }
    assert manifest["sizes"] == {"users": 2, "items": 4, "interactions": 5, "search_events": 4, "queries": 2}


def test_gserec_gives_each_pair_one_query(tmp_path: Path) -> None:
    manifest = convert(write_raw(tmp_path / "raw"), tmp_path / "X", "gserec", seed=7)
    assert rows_of(tmp_path / "X" / "X.search")[1:] == [
        ["U1", "2", "50", "C"],
        ["U1", expected_draw(7, "U1\tA", [0, 1]), "100", "A"],
        ["U1", "2", "100", "B"],
        ["U2", "1", "200", "A"],
    ]
    assert manifest["rows"]["judgements"]["rejected"] == {"judged not relevant": 1, "no such interaction": 2}


def test_gserec_makes_no_search_of_an_unjudged_pair(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", train=["U1_0 0 A 1"], test=["U2_1 0 B 1"])
    manifest = convert(raw, tmp_path / "X", "gserec")
    assert rows_of(tmp_path / "X" / "X.search")[1:] == [["U1", "0", "100", "A"]]
    assert manifest["rows"]["judgements"] == {"in": 2, "out": 1, "rejected": {"no such interaction": 1}}


def test_a_pair_that_occurs_twice_is_searched_twice(tmp_path: Path) -> None:
    reviews = [review_line(*row) for row in [*REVIEWS, ("U1", "A", 900)]]
    manifest = convert(write_raw(tmp_path / "raw", reviews=reviews), tmp_path / "X", "gserec")
    searches = [row for row in rows_of(tmp_path / "X" / "X.search") if row[0] == "U1" and row[3] == "A"]
    assert [row[2] for row in searches] == ["100", "900"]
    assert searches[0][1] == searches[1][1]
    assert manifest["sizes"]["interactions"] == 6


def test_draws_are_uniform_over_distinct_queries() -> None:
    owners = np.repeat(np.arange(3000), 4)
    lines = np.tile([5, 6, 6, 9], 3000)
    drawn = amazon.draw_queries(owners, lines, np.arange(3001), str, seed=1)
    assert drawn[3000] == -1
    counts = Counter(drawn[:3000].tolist())
    assert set(counts) == {5, 6, 9}
    assert all(abs(number - 1000) < 120 for number in counts.values())
    order = np.random.default_rng(0).permutation(len(owners))
    assert (drawn == amazon.draw_queries(owners[order], lines[order], np.arange(3001), str, seed=1)).all()
    assert (drawn != amazon.draw_queries(owners, lines, np.arange(3001), str, seed=2)).mean() > 0.5


def test_times_keep_64_bits(tmp_path: Path) -> None:
    times = [1_700_000_000_000_000_001, 1_700_000_000_000_000_000]
    reviews = [review_line("U1", item, time) for item, time in zip("AB", times)]
    convert(write_raw(tmp_path / "raw", reviews=reviews), tmp_path / "X")
    assert [row[1:] for row in rows_of(tmp_path / "X" / "X.inter")[1:]] == [["B", str(times[1])], ["A", str(times[0])]]


# --- metadata ---------------------------------------------------------------------------------------------------------


def test_metadata_gives_texts_and_categories(tmp_path: Path) -> None:
    manifest = convert(write_raw(tmp_path / "raw"), tmp_path / "X", metadata=True)
    assert rows_of(tmp_path / "X" / "X.item") == [
        ["item_id:token", "title:token_seq", "description:token_seq", "categories:token_seq"],
        ["A", "The best & newest phone", "a b", ""],
        ["B", "", "", "Cell_Phones_&_Accessories Cases Basic_Cases"],
    ]
    assert manifest["rows"]["metadata"] == {"in": 3, "out": 2, "rejected": {"item has no review": 1}}


@pytest.mark.parametrize("reverse", [False, True])
def test_of_repeated_metadata_the_same_row_is_taken(tmp_path: Path, reverse: bool) -> None:
    rows = [repr({"asin": item, "title": title}) for item, title in [("A", "one"), ("B", "x"), ("A", "a"), ("A", "z")]]
    raw = write_raw(tmp_path / "raw", metadata=rows[::-1] if reverse else rows)
    manifest = convert(raw, tmp_path / "X", metadata=True)
    assert [row[:2] for row in rows_of(tmp_path / "X" / "X.item")[1:]] == [["A", "a"], ["B", "x"]]
    assert manifest["rows"]["metadata"]["rejected"] == {"another row describes the item": 2}


@pytest.mark.parametrize(
    "line",
    [
        "{'asin': __import__('pathlib').Path('ran').touch()}",
        "{'asin': open('ran', 'w').name}",
        "__import__('os').mkdir('ran')",
        "{'asin': 'A', 'title': [c for c in 'x']}",
        "{[]: 1}",
        "(" * 20000,
        "{'asin': 'A', 'title': 3}",
        "{'asin': 'A', 'categories': 'Cases'}",
        "{'asin': 'A', 'categories': [[1]]}",
        "{'asin': 'a b'}",
        "['asin']",
        "{}",
    ],
)
def test_metadata_is_never_run(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadRow):
        parse_metadata(line.encode())
    assert not (tmp_path / "ran").exists()


# --- what the files do not depend on ----------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", amazon.RECIPES)
@pytest.mark.parametrize("change", [{"shuffle": 1}, {"shuffle": 2}, {"compressed": True}])
def test_order_and_compression_do_not_matter(tmp_path: Path, recipe: str, change: dict[str, Any]) -> None:
    convert(write_raw(tmp_path / "a"), tmp_path / "1" / "X", recipe, metadata=True)
    convert(write_raw(tmp_path / "b", **change), tmp_path / "2" / "X", recipe, metadata=True)
    assert data_files(tmp_path / "1" / "X") == data_files(tmp_path / "2" / "X")


def test_converting_again_gives_the_same_bytes_and_removes_what_is_gone(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw")
    first = convert(raw, tmp_path / "X", metadata=True)
    (tmp_path / "X" / "mine.txt").write_text("not the converter's")
    before = {path.name: path.read_bytes() for path in (tmp_path / "X").iterdir()}
    assert convert(raw, tmp_path / "X", metadata=True) == first
    assert {path.name: path.read_bytes() for path in (tmp_path / "X").iterdir()} == before
    convert(raw, tmp_path / "X")
    assert {path.name for path in (tmp_path / "X").glob("[!.]*")} == {
        "X.inter", "X.search", "X.query", "manifest.json", "mine.txt"
    }  # fmt: skip


def test_manifest_describes_inputs_and_outputs(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw")
    manifest = convert(raw, tmp_path / "X", "gserec", seed=5)
    assert manifest == json.loads((tmp_path / "X" / publishing.MANIFEST).read_text())
    assert (manifest["dataset"], manifest["converter"]) == ("X", "amazon")
    assert manifest["options"] == {"recipe": "gserec", "seed": 5}
    for folder, key in [(raw, "inputs"), (tmp_path / "X", "outputs")]:
        for file in manifest[key]:
            data = (folder / file["file"]).read_bytes()
            assert (file["bytes"], file["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert {file["file"] for file in manifest["inputs"]} == {
        "reviews.json", "query_text.txt", "train.qrels", "test.qrels"
    }  # fmt: skip
    assert {file["file"] for file in manifest["outputs"]} == {"X.inter", "X.search", "X.query"}
    assert str(tmp_path) not in json.dumps(manifest)


# --- malformed input --------------------------------------------------------------------------------------------------

BAD_LINES = [
    ("reviews", "{not json", "not valid JSON"),
    ("reviews", "", "not valid JSON"),
    ("reviews", "[" * 100_000, "not valid JSON"),
    ("reviews", '["U1", "A", 1]', "not a JSON object"),
    ("reviews", '{"asin": "A", "unixReviewTime": 1}', "no reviewerID"),
    ("reviews", '{"reviewerID": "U1", "unixReviewTime": 1}', "no asin"),
    ("reviews", '{"reviewerID": "U1", "asin": "A"}', "no unixReviewTime"),
    ("reviews", review_line("U1", "A", 1.5), "unixReviewTime is not a whole number of seconds"),
    ("reviews", review_line("U1", "A", "1"), "unixReviewTime is not a whole number of seconds"),
    ("reviews", review_line("U1", "A", True), "unixReviewTime is not a whole number of seconds"),
    ("reviews", review_line("U1", "A", 1 << 63), "unixReviewTime is not a whole number of seconds"),
    ("reviews", review_line("U1", "A\tB", 1), "asin is not one word"),
    ("reviews", review_line("U1", "A B", 1), "asin is not one word"),
    ("reviews", review_line("[PAD]", "A", 1), "reviewerID is the id of padding"),
    ("train", "U1_0 0 [PAD] 1", "asin is the id of padding"),
    ("reviews", review_line("", "A", 1), "reviewerID is not one word"),
    ("reviews", '{"reviewerID": "\\ud800", "asin": "A", "unixReviewTime": 1}', "reviewerID is not one word"),
    ("reviews", '{"reviewerID": ["U1"], "asin": "A", "unixReviewTime": 1}', "reviewerID is not one word"),
    ("train", "U1_0 0 A", "not four fields '<user>_<query line> 0 <asin> <label>'"),
    ("train", "U1 0 A 1", "the first field is not <user>_<query line>"),
    ("train", "U1_x 0 A 1", "the first field is not <user>_<query line>"),
    ("train", "_0 0 A 1", "user is not one word"),
    ("train", "U1_4 0 A 1", "no such line among the queries"),
    ("train", f"U1_{'9' * 5000} 0 A 1", "no such line among the queries"),
    ("test", "U1_0 0 A 1.0", "the label is neither 0 nor 1"),
    ("query_text", "", "the query has no words"),
    ("query_text", 'a "b" c', "query term is not one word"),
    ("metadata", "{'asin': f()}", "not a Python dictionary of literals"),
    ("metadata", "{'asin': " + "(" * 10_000, "not a Python dictionary of literals"),
    ("metadata", "{'asin': 0x" + "f" * 10_000 + "}", "asin is not one word"),
]


@pytest.mark.parametrize(("file", "line", "reason"), BAD_LINES)
def test_a_malformed_line_stops_with_its_number_or_is_counted(
    tmp_path: Path, file: str, line: str, reason: str
) -> None:
    raw = write_raw(tmp_path / "good")
    good = convert(raw, tmp_path / "good" / "X", metadata=True)
    name = {"reviews": "reviews.json", "query_text": "query_text.txt", "metadata": "metadata.json"}
    path = tmp_path / "bad" / name.get(file, f"{file}.qrels")
    lines = (raw / path.name).read_text().splitlines()
    number = len(lines) + 1 if file == "query_text" else 2
    lines.insert(number - 1, line)
    raw = write_raw(tmp_path / "bad", **{file: lines})
    with pytest.raises(DataError, match=rf"{path.name}:{number}: ") as error:
        convert(raw, tmp_path / "bad" / "X", metadata=True)
    assert reason in str(error.value)
    assert not list((tmp_path / "bad" / "X").glob("[!.]*"))
    skipped = convert(raw, tmp_path / "bad" / "X", metadata=True, on_error="skip")
    sources = {"reviews": "reviews", "query_text": "query lines", "metadata": "metadata"}
    counts = skipped["rows"][sources.get(file, "judgements")]
    assert counts["rejected"][reason] == 1
    assert counts["examples"][reason][0].startswith(f"{path.name}:{number}: {reason}")
    assert data_files(tmp_path / "bad" / "X") == data_files(tmp_path / "good" / "X")
    assert skipped["sizes"] == good["sizes"]


@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_damaged_gzip_files_are_refused(tmp_path: Path, on_error: OnError) -> None:
    raw = write_raw(tmp_path / "raw", compressed=True)
    path = raw / "reviews.json.gz"
    whole = path.read_bytes()
    for data in (whole[:-9], whole[:40], whole[:30] + bytes(20) + whole[50:], whole + b"more"):
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"reviews\.json\.gz:\d+: damaged gzip file"):
            convert(raw, tmp_path / "X", on_error=on_error)
        assert not (tmp_path / "X" / "X.inter").exists()
    for data in (b"", b"<html>"):
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"reviews\.json\.gz:1: not a gzip file"):
            convert(raw, tmp_path / "X", on_error=on_error)


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    other = [review_line("V1", "Q", 1)]
    with pytest.raises(DataError, match="no judgement is about a review"):
        convert(write_raw(tmp_path / "raw", reviews=other), tmp_path / "X")
    with pytest.raises(DataError, match=r"reviews\.json:1: there is no usable review"):
        convert(write_raw(tmp_path / "raw", reviews=[]), tmp_path / "X")


def test_missing_and_ambiguous_files_are_named(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw")
    (raw / "test.qrels.gz").write_bytes(b"")
    with pytest.raises(UserError, match=r"both test\.qrels\.gz and test\.qrels"):
        convert(raw, tmp_path / "X")
    (raw / "test.qrels.gz").unlink()
    (raw / "test.qrels").unlink()
    with pytest.raises(UserError, match=r"neither test\.qrels\.gz and test\.qrels"):
        convert(raw, tmp_path / "X")
    with pytest.raises(UserError, match=r"nowhere\.json: there is no such file"):
        amazon.convert(tmp_path / "nowhere.json", write_raw(tmp_path / "raw"), tmp_path / "X", "sesrec")
    with pytest.raises(UserError, match="no recipe 'both'"):
        convert(raw, tmp_path / "X", "both")


MUTATED = st.sampled_from(["reviews.json", "query_text.txt", "train.qrels", "test.qrels", "metadata.json"])
CUT = st.floats(0, 1)


@given(MUTATED, CUT, CUT, st.binary(max_size=6), st.booleans(), st.sampled_from(["stop", "skip"]))
@settings(max_examples=150, deadline=None)
def test_any_change_is_an_error_with_a_line_or_keeps_the_counts(
    tmp_path_factory: pytest.TempPathFactory, name: str, start: float, stop: float, inserted: bytes,
    compressed: bool, on_error: OnError,
) -> None:  # fmt: skip
    folder = tmp_path_factory.mktemp("mutated")
    raw = write_raw(folder, compressed=compressed)
    path = raw / (f"{name}.gz" if compressed else name)
    data = path.read_bytes()
    begin, end = sorted((round(start * len(data)), round(stop * len(data))))
    path.write_bytes(data[:begin] + inserted + data[end:])
    try:
        manifest = convert(raw, folder / "X", metadata=True, on_error=on_error)
    except DataError as error:
        assert error.line is not None or "no judgement is about a review" in str(error)
        assert not (folder / "X" / "X.inter").exists()
        return
    data = gzip.decompress(path.read_bytes()) if compressed else path.read_bytes()
    lines = data.count(b"\n") + bool(data) - data.endswith(b"\n")
    for counts in manifest["rows"].values():
        assert counts["in"] == counts["out"] + sum(counts["rejected"].values())
    assert len(rows_of(folder / "X" / "X.inter")) - 1 == manifest["rows"]["reviews"]["out"]
    assert len(rows_of(folder / "X" / "X.item")) - 1 == manifest["rows"]["metadata"]["out"]
    sources = {"reviews.json": "reviews", "query_text.txt": "query lines", "metadata.json": "metadata"}
    others = {"train.qrels": len(TEST), "test.qrels": len(TRAIN)}
    assert manifest["rows"][sources.get(name, "judgements")]["in"] == lines + others.get(name, 0)


# --- interruption -----------------------------------------------------------------------------------------------------


def test_an_interrupted_conversion_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(amazon, "_write_events", interrupt)
    with pytest.raises(KeyboardInterrupt):
        convert(write_raw(tmp_path / "raw"), tmp_path / "X")
    assert not list((tmp_path / "X").glob("[!.]*"))


# --- the command, and real logs ---------------------------------------------------------------------------------------


def test_the_command_prints_what_became_of_the_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = write_raw(tmp_path / "raw", train=[*TRAIN, "broken"])
    arguments = ["--reviews", str(raw / "reviews.json"), "--queries", str(raw), "--recipe", "gserec"]
    arguments += ["--out", str(tmp_path / "X"), "--seed", "3", "--on-error", "skip"]
    assert command("convert", "amazon", *arguments) == 0
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["judgements", "10", "6", "4"] in printed
    assert ["train.qrels:7:", "not", "four", "fields"] in [words[:4] for words in printed]
    assert json.loads((tmp_path / "X" / publishing.MANIFEST).read_text())["options"]["seed"] == 3


@pytest.mark.parametrize(("recipe", "searches"), [("sesrec", 194_434), ("gserec", 150_663)])
def test_real_logs(real_data: Path, tmp_path: Path, recipe: str, searches: int) -> None:
    raw = real_data / "amazon_cell"
    reviews = raw / "reviews_Cell_Phones_and_Accessories_5.json.gz"
    sizes = amazon.convert(reviews, raw, tmp_path / "cell", recipe)["sizes"]
    assert (sizes["users"], sizes["items"], sizes["interactions"]) == (27_879, 10_429, 194_439)
    assert sizes["search_events"] == searches == len(rows_of(tmp_path / "cell" / "cell.search")) - 1
