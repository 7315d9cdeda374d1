"""Attacks on the atomic files of a data set: what ``validate`` passes loads, and what is not loaded it has reported."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from campaign import Attack
from campaign.damage import damaged, displace, emptied

SUFFIXES = ("inter", "search", "query", "item", "user")
LABELS = [
    "user_id:token", "item_id:token", "query_id:token", "timestamp:float", "terms:token_seq", "clicked_items:token_seq",
    "click_times:float_seq", "source:token", "category:token_seq", "v:float_seq", "age:token", "x:float", "X:token",
    "", ":", "x:int", "x", "timestamp:float_seq", "clicked_items:token", "click_times:token_seq", "source:float",
    "terms:float", "source:token_seq", "label:float", "click_times:float", "item_id_list:token_seq", "rating:float",
    "neg_item_id:token",
]  # fmt: skip
ENTRIES = [
    "", " ", "[PAD]", "i1", "i1 i2", " i1", "i1  i2", "[PAD] i1", "u", "a", "q1", "q9", "0", "-1", "1.5", "1e9",
    "1e400", "nan", "NaN", "inf", "1,5", "9" * 30, "1700000000.1234567891", "9007199254740993", "9223372036854775807",
    "9223372036854775808", "-9223372036854775808", "0x10", "1_0", "é", "\u2028", "\x85", "\x0b", '"', "1 2", "1 x",
    "20 20", "1.0000000000000001", "4.5 9007199254740993",
]  # fmt: skip
EVERYTHING: dict[str, Any] = {"load_col": None, "filter_inter_by_user_or_item": False}
NOTHING_TO_TRAIN = "no training target is left"


def prepare(folder: Path) -> Attack:
    from conftest import write_lines, write_toy

    base = write_toy(folder / "base")
    header, *rows = (base / "toy.search").read_text().splitlines()
    times = [" ".join(str(20 + n) for n in range(len(row.split("\t")[3].split()))) for row in rows]
    columns = zip(rows, times, ["home", "", "page", "home", "page"])
    write_lines(base / "toy.search", f"{header}\tclick_times:float_seq\tsource:token", *("\t".join(c) for c in columns))
    write_lines(
        base / "toy.item", "item_id:token\tcategory:token_seq\tprice:float\tv:float_seq",
        "i1\tc1 c2\t1.5\t1 2", "i2\t\t\t", "x\tc1\t2\t3 4.5",
    )  # fmt: skip
    write_lines(base / "toy.user", "user_id:token\tage:token", "a\told", "b\t", "z\tyoung")
    contents = {suffix: (base / f"toy.{suffix}").read_bytes() for suffix in SUFFIXES}

    def attack(random: Random) -> str:
        place = emptied(folder / "data") / "toy"
        place.mkdir()
        for suffix, content in contents.items():
            (place / f"toy.{suffix}").write_bytes(content)
        for _ in range(random.choice([1, 1, 2, 3])):
            _change(random, place / f"toy.{random.choice(SUFFIXES)}")
        return _compare(place)

    return attack


def _change(random: Random, path: Path) -> None:
    if path.is_symlink() or not path.is_file():
        return
    kind = random.randrange(8)
    if kind == 0:
        displace(random, path)
    elif kind == 1:
        path.unlink()
    elif kind < 4:
        path.write_bytes(damaged(random, path.read_bytes()))
    else:
        change = random.choice([_relabelled, _relabelled, _with_column, _with_entry, _with_entry, _without_column])
        lines = [line.split("\t") for line in path.read_text(errors="surrogateescape").split("\n")]
        change(random, lines)
        path.write_text("\n".join("\t".join(line) for line in lines), errors="surrogateescape")


def _relabelled(random: Random, lines: list[list[str]]) -> None:
    lines[0][random.randrange(len(lines[0]))] = random.choice(LABELS)


def _with_column(random: Random, lines: list[list[str]]) -> None:
    place, entry = random.randint(0, len(lines[0])), random.choice(ENTRIES)
    for n, line in enumerate(lines):
        if line != [""]:
            line.insert(place, entry if n else random.choice(LABELS))


def _without_column(random: Random, lines: list[list[str]]) -> None:
    place = random.randrange(len(lines[0]))
    for line in lines:
        del line[place : place + 1]


def _with_entry(random: Random, lines: list[list[str]]) -> None:
    place, entry = random.randrange(len(lines[0])), random.choice(ENTRIES)
    chosen = lines[1:] if random.random() < 0.2 else [random.choice(lines)]
    for line in chosen:
        if place < len(line) and line != [""]:
            line[place] = entry


def _compare(place: Path) -> str:
    """The outcome of ``validate`` and of the loader, with the default columns and with all of them."""
    from recbole_ser.errors import UserError
    from recbole_ser.validation.report import validate

    try:
        report = validate(place)
    except UserError as error:
        assert "\n" not in str(error)
        assert _refusal(place) or _refusal(place, **EVERYTHING), "the loader reads what validate cannot"
        return "unreadable"
    json.dumps(report.as_dict(), allow_nan=False)
    errors = [str(finding) for finding in report.first("error")]
    assert all("\n" not in line for line in errors), errors
    refusals = [_refusal(place)]
    if "column-not-loadable" not in report.findings.counts:
        refusals.append(_refusal(place, **EVERYTHING))
    for refusal in filter(None, refusals):
        assert "\n" not in refusal, refusal
        if NOTHING_TO_TRAIN not in refusal:
            assert errors, f"validate passes, but: {refusal}"
    if errors:
        return "reported" if any(refusals) else "reported, though it loads"
    return "nothing to train on" if any(refusals) else "loaded"


def _refusal(place: Path, **values: Any) -> str | None:
    from conftest import load_dataset

    from recbole_ser.errors import UserError

    load: Callable[..., Any] = load_dataset
    try:
        load(place.parent, "toy", require_both_histories=False, **values)
    except UserError as error:
        return str(error)
    return None
