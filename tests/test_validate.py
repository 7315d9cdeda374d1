"""Every rule of ``recbole-ser validate`` by an example, its report, and its command."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from conftest import command, load_dataset, write_toy

from recbole_ser.atomic import inspection as reading
from recbole_ser.atomic.rules import RULES, Findings
from recbole_ser.data.synthetic import PRESETS
from recbole_ser.errors import ConfigError, DataError, UserError
from recbole_ser.validation.report import Report, rules_table, validate

Change = Callable[[Path], None]

INTER = "user_id:token\titem_id:token\ttimestamp:float\n"
TIMED = "user_id:token\tquery_id:token\ttimestamp:float\tclicked_items:token_seq\tclick_times:float_seq\n"
VECTORS = "item_id:token\tv:float_seq\n"
SEARCH = "user_id:token\tquery_id:token\ttimestamp:float\tclicked_items:token_seq\n"


def replace(suffix: str, old: str | bytes, new: str | bytes) -> Change:
    def change(base: Path) -> None:
        path = base / f"toy.{suffix}"
        before, after = (text if isinstance(text, bytes) else text.encode() for text in (old, new))
        content = path.read_bytes()
        assert before in content
        path.write_bytes(content.replace(before, after, 1))

    return change


def add(suffix: str, text: str) -> Change:
    def change(base: Path) -> None:
        with (base / f"toy.{suffix}").open("a", encoding="utf-8", newline="") as handle:
            handle.write(text)

    return change


def write(suffix: str, text: str | bytes) -> Change:
    def change(base: Path) -> None:
        (base / f"toy.{suffix}").write_bytes(text if isinstance(text, bytes) else text.encode())

    return change


def both(first: Change, second: Change) -> Change:
    def change(base: Path) -> None:
        first(base)
        second(base)

    return change


def remove(suffix: str) -> Change:
    return lambda base: (base / f"toy.{suffix}").unlink()


def instead(suffix: str, make: Change) -> Change:
    """Make something of this name that is no file."""

    def change(base: Path) -> None:
        path = base / f"toy.{suffix}"
        path.unlink(missing_ok=True)
        make(path)

    return change


# rule, what is done to the toy data set, where it is found, its column and its value
NS, LATE = "1700000000", "1700000000.1234567891"
CASES: list[tuple[str, Change, str, str | None, str | None]] = [
    ("file-missing", remove("inter"), "toy.inter", None, None),
    ("header-missing", write("inter", ""), "toy.inter:1", None, None),
    ("header-missing", write("search", "\n" + SEARCH), "toy.search:1", None, None),
    ("header-entry", replace("inter", "timestamp:float", "timestamp: float"), "toy.inter:1", None, "timestamp: float"),
    ("header-entry", replace("inter", "user_id:token", ":token"), "toy.inter:1", None, ":token"),
    ("header-entry", replace("inter", ":float\n", ":float\t\n"), "toy.inter:1", None, ""),
    ("column-twice", replace("inter", "item_id", "user_id"), "toy.inter:1", "user_id", None),
    ("column-missing", replace("search", "query_id", "query"), "toy.search:1", "query_id", "query"),
    ("column-missing", write("item", "name:token\nx\n"), "toy.item:1", "item_id", None),
    ("column-type", replace("inter", "stamp:float", "stamp:token"), "toy.inter:1", "timestamp", "token, not float"),
    ("column-type", replace("query", "terms:token_seq", "terms:token"), "toy.query:1", "terms", "token, not token_seq"),
    ("column-shared", replace("query", "terms:", "timestamp:"), "toy.query:1", "timestamp", "also in toy.inter"),
    ("column-shared", replace("query", "terms:", "clicked_items:"), "toy.query:1", "clicked_items", None),
    ("broken-utf8", replace("query", "hat", b"h\xfft"), "toy.query:4", None, "\\xfft big w"),
    ("broken-utf8", replace("inter", "user_id", b"us\xff"), "toy.inter:1", None, None),
    ("nul", replace("inter", "a\ti3", "a\ti\0"), "toy.inter:4", None, None),
    ("nul", replace("inter", "user_id", "user\0id"), "toy.inter:1", None, None),
    ("carriage-return", replace("inter", "a\ti3", "a\ti\r3"), "toy.inter:4", None, "a\ti\r3\t20"),
    ("carriage-return", replace("inter", "a\ti3\t20\n", "a\ti3\t20\ra\ti3\t20\n"), "toy.inter:4", None, None),
    ("carriage-return", replace("inter", "float\na", "float\ra"), "toy.inter:1", None, None),
    ("blank-line", replace("inter", "a\ti3", "\na\ti3"), "toy.inter:4", None, None),
    ("blank-line", replace("search", "\na\t", "\n\r\na\t"), "toy.search:2", None, None),
    ("blank-line", replace("inter", "\na\ti3", "\r\n\r\na\ti3"), "toy.inter:4", None, None),
    ("row-width", replace("query", "red shoe", "red\tshoe"), "toy.query:2", None, "3 columns, not 2"),
    ("row-width", replace("inter", "i3\t20", "i3"), "toy.inter:4", None, "2 columns, not 3"),
    ("cut-off", replace("inter", "i7\t14\n", "i7\t1"), "toy.inter:15", None, None),
    ("cut-off", write("search", SEARCH[:-1]), "toy.search:1", None, None),
    ("no-rows", write("inter", INTER), "toy.inter:1", None, None),
    ("not-a-number", replace("inter", "i3\t20", "i3\tsoon"), "toy.inter:4", "timestamp", "soon"),
    ("not-a-number", replace("inter", "i3\t20", "i3\t0x20"), "toy.inter:4", "timestamp", "0x20"),
    ("not-a-number", replace("inter", "i3\t20", "i3\t٢"), "toy.inter:4", "timestamp", "٢"),
    ("not-a-number", write("item", "item_id:token\tp:float\ni1\t\ni2\tnan\ni3\t1,5\n"), "toy.item:4", "p", "1,5"),
    ("not-finite", replace("search", "\t45\t", "\tNaN\t"), "toy.search:5", "timestamp", "NaN"),
    ("not-finite", replace("search", "\t45\t", "\t1e999\t"), "toy.search:5", "timestamp", "1e999"),
    ("not-finite", write("item", "item_id:token\tp:float\ni1\tnan\ni2\t-inf\n"), "toy.item:3", "p", "-inf"),
    ("not-a-number", write("item", VECTORS + "i1\t1 2\ni2\t1 x\n"), "toy.item:3", "v", "x"),
    ("not-finite", write("user", "user_id:token\tv:float_seq\na\t1 nan\n"), "toy.user:2", "v", "nan"),
    ("vector-length", write("item", VECTORS + "i1\t\ni2\t1 2\ni3\t1 2\ni4\t1\n"), "toy.item:5", "v", "1, not 2"),
    ("inexact-time", replace("search", "\t45\t", f"\t{NS}.123456789\t"), "toy.search:5", "timestamp", None),
    ("inexact-time", replace("search", "\t45\t", f"\t{NS}{NS}\t"), "toy.search:5", "timestamp", NS + NS),
    ("inexact-time", write("search", TIMED + f"a\tq1\t5\ti3 i1\t{LATE} 6\n"), "toy.search:2", "click_times", None),
    ("empty-entry", replace("inter", "a\ti3", "\ti3"), "toy.inter:4", "user_id", None),
    ("empty-entry", replace("search", "\t45\t", "\t\t"), "toy.search:5", "timestamp", None),
    ("reserved-id", replace("inter", "a\ti3", "a\t[PAD]"), "toy.inter:4", "item_id", "[PAD]"),
    ("reserved-id", replace("search", "i3 i1", "i3 [PAD]"), "toy.search:3", "clicked_items", "i3 [PAD]"),
    ("click-without-id", replace("search", "i3 i1", "i3  i1"), "toy.search:3", "clicked_items", "i3  i1"),
    ("click-without-id", replace("search", "i6", "i6 "), "toy.search:5", "clicked_items", "i6 "),
    ("click-without-id", replace("search", "i6", " i6"), "toy.search:5", "clicked_items", " i6"),
    ("click-times", write("search", TIMED + "a\tq1\t5\ti3 i1\t6\n"), "toy.search:2", "click_times", "6"),
    ("click-times", write("search", TIMED + "a\tq1\t5\ti3\t6\na\tq1\t5\ti3\t\n"), "toy.search:3", "click_times", None),
    ("click-times", write("search", TIMED + "a\tq1\t5\t\t6\n"), "toy.search:2", "click_times", "6"),
    ("not-a-number", write("search", TIMED + "a\tq1\t5\ti3 i1\t6 x\n"), "toy.search:2", "click_times", "6 x"),
    ("not-finite", write("search", TIMED + "a\tq1\t5\ti3 i1\t6 1e999\n"), "toy.search:2", "click_times", None),
    ("not-finite", write("search", TIMED + "a\tq1\t5\ti3 i1\t6 nan\n"), "toy.search:2", "click_times", "6 nan"),
    ("column-missing", write("search", TIMED.replace("clicked_", "")), "toy.search:1", "clicked_items", None),
    ("column-type", write("search", TIMED.replace("float_seq", "token_seq")), "toy.search:1", "click_times", None),
    ("listed-twice", add("query", "q2\tgreen\n"), "toy.query:5", "query_id", "q2"),
    ("listed-twice", write("item", "item_id:token\ni1\ni2\ni1\n"), "toy.item:4", "item_id", "i1"),
    ("listed-twice", write("user", "user_id:token\na\na\n"), "toy.user:3", "user_id", "a"),
    ("byte-order-mark", replace("inter", "user_id", "\ufeffuser_id"), "toy.inter:1", None, None),
    ("windows-line-ends", replace("inter", "a\ti2\t20\n", "a\ti2\t20\r\n"), "toy.inter:3", None, None),
    ("windows-line-ends", replace("inter", "float\n", "float\r\n"), "toy.inter:1", None, None),
    ("no-file", instead("inter", Path.mkdir), "toy.inter", None, None),
    ("no-file", instead("item", Path.mkdir), "toy.item", None, None),
    ("no-file", instead("query", lambda path: path.symlink_to("nowhere")), "toy.query", None, None),
    ("file-absent", remove("search"), "toy.search", None, None),
    ("file-absent", remove("query"), "toy.query", None, None),
    ("no-searches", write("search", SEARCH), "toy.search:1", None, None),
    ("column-absent", replace("search", "clicked_items", "clicks"), "toy.search:1", "clicked_items", "clicks"),
    ("column-not-loadable", write("item", "item_id:token\tterms:token_seq\n"), "toy.query:1", "terms", None),
    ("column-not-loadable", replace("query", "terms:token_seq", "mean:float_seq"), "toy.query:1", "mean", None),
    ("space-in-id", replace("inter", "a\ti3", "a\ti 3"), "toy.inter:4", "item_id", "i 3"),
    ("unknown-query", add("search", "a\tq9\t20\t\n"), "toy.search:7", "query_id", "q9"),
    ("unknown-user", add("search", "z\tq1\t20\t\n"), "toy.search:7", "user_id", "z"),
    ("clicked-only", replace("search", "i6", "i6 y"), "toy.search:5", "clicked_items", "i6 y"),
    ("unlisted", write("item", "item_id:token\ni1\ni3\ni2\ni4\ni5\ni7\n"), "toy.inter:7", "item_id", "i6"),
    ("unlisted", write("user", "user_id:token\na\nb\n"), "toy.inter:12", "user_id", "c"),
    ("duplicate-event", add("inter", "b\ti2\t15\n"), "toy.inter:16", None, None),
    ("duplicate-event", add("search", "a\tq1\t20\ti2\n"), "toy.search:7", None, None),
    ("time-unit", write("search", SEARCH + "a\tq1\t20000\t\na\tq2\t30000\t\n"), "toy.search:2", "timestamp", None),
    ("time-unit", write("search", SEARCH + "a\tq1\t1\t\na\tq2\t2\t\n"), "toy.search:2", "timestamp", None),
    ("time-out-of-range", add("inter", "b\ti2\t20000\n"), "toy.inter:16", "timestamp", "20000"),
    ("time-out-of-range", add("search", "a\tq2\t3\t\n" * 9 + "b\tq2\t-9000\t\n"), "toy.search:16", "timestamp", None),
]  # fmt: skip


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    """The toy data set without the item that was only clicked: nothing at all is found."""
    base = write_toy(tmp_path)
    path = base / "toy.search"
    path.write_text(path.read_text().replace("i3 x i1", "i3 i1").replace("20\tx", "20\ti1"))
    return base


def test_nothing_is_found_in_a_clean_data_set(clean: Path) -> None:
    report = validate(clean)
    assert report.clean(strict=True) and not report.findings.counts, str(report)
    assert_as_loaded(report, clean)


@pytest.mark.parametrize(("rule", "change", "where", "column", "value"), CASES)
def test_each_rule(clean: Path, rule: str, change: Change, where: str, column: str | None, value: str | None) -> None:
    change(clean)
    report = validate(clean)
    severity = RULES[rule].severity
    found = [finding for finding in report.first(severity) if finding.rule == rule]
    assert len(found) == report.findings.counts[rule] >= 1, str(report)
    finding = found[0]
    assert str(finding).startswith(f"{where}: ") and finding.column == column
    assert value is None or finding.value == value
    assert report.clean() == (severity == "warning")
    assert f"[{rule}] ({RULES[rule].hint})" in str(report)


@pytest.mark.parametrize(
    ("change", "problem"),
    [(change, where) for rule, change, where, *_ in CASES if rule in ("no-file", "reserved-id")]
    + [
        (both(replace("search", "clicked", "click"), replace("query", "terms:", "clicked_items:")), None),
        (replace("query", "terms:", "clicked_items:"), "toy.query:1: column 'clicked_items': another file has"),
        (replace("search", "clicked_items:", "terms:"), None),
    ],
)
def test_the_loader_agrees(clean: Path, change: Change, problem: str | None) -> None:
    change(clean)
    assert validate(clean).clean() == (problem is None)
    with nullcontext() if problem is None else pytest.raises(DataError, match=re.escape(f"{clean / problem}")):
        load_dataset(clean.parent, "toy", require_both_histories=False)


def test_every_rule_has_an_example() -> None:
    assert {case[0] for case in CASES} | {"long-line", "click-ahead"} == set(RULES)
    assert all(name in rules_table() for name in RULES)


def test_lines_are_right_behind_lines_that_were_skipped(clean: Path) -> None:
    path = clean / "toy.inter"
    rows = [f"u{k}\ti{k}\t{k}" for k in range(2000)]
    rows[3] = rows[700] = "short"
    rows[1500] = ""
    rows[4], rows[999], rows[1999] = "\ti\t1", "u\ti\tx", "u\t[PAD]\t1"
    path.write_text(INTER + "".join(row + "\n" for row in rows))
    wrong = [(f.line, f.rule) for f in validate(clean).first("error")]
    assert wrong == [
        (5, "row-width"), (6, "empty-entry"), (702, "row-width"), (1001, "not-a-number"), (1502, "blank-line"),
        (2001, "reserved-id"),
    ]  # fmt: skip


@pytest.mark.parametrize("block", [100, 150, 1000])
def test_blocks_make_no_difference(clean: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    for change in (
        replace("inter", "i3\t20", "i3\t20.5"),
        replace("inter", "i4\t30", "i4"),
        replace("inter", "i7\t60", "i7\t"),
        replace("inter", "i4\t11\n", "i4\t11\r\n"),
        add("inter", "c\ti7\t14\r\nc\ti7\t14"),
    ):
        change(clean)
    whole = validate(clean).as_dict()
    monkeypatch.setattr(reading, "BLOCK", block)
    assert validate(clean).as_dict() == whole
    assert whole["errors"]["by_rule"] == {"row-width": 1, "cut-off": 1, "empty-entry": 1}
    assert whole["warnings"]["by_rule"]["duplicate-event"] == 2


def test_a_line_without_end_is_not_read_into_memory(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BLOCK", 100)
    add("inter", f"a\t{'i' * 60}\t1\na\t{'i' * 120}\t1\nb\ti1\t3\na\t{'i' * 1000}\t1\n")(clean)
    report = validate(clean)
    assert [(f.rule, f.line) for f in report.first("error")] == [("long-line", 17), ("long-line", 19)]


def test_times_since_1970_of_another_unit_are_found(clean: Path) -> None:
    start = 1_650_000_000
    times = [start + 40_000_000 * k for k in range(20)]
    times[7], times[9] = start * 1000, 0
    rows = [*enumerate(times), (20, "soon"), (21, "1e999")]
    write("inter", INTER + "".join(f"a\ti{k}\t{time}\n" for k, time in rows))(clean)
    write("search", SEARCH + f"a\tq1\t{start}000\t\na\tq2\t{start}500\t\n")(clean)
    found = [(f.rule, f.file, f.line) for f in validate(clean).first("warning") if f.rule.startswith("time")]
    assert found == [
        ("time-out-of-range", "toy.inter", 9), ("time-out-of-range", "toy.inter", 11), ("time-unit", "toy.search", 2),
    ]  # fmt: skip


def test_findings_are_counted_beyond_those_shown(clean: Path) -> None:
    add("inter", "a\ti1\tsoon\n" * 30 + "a\n")(clean)
    report = validate(clean, 5)
    text = str(report)
    assert [f.line for f in report.first("error")] == [16, 17, 18, 19, 20]
    assert "31 errors, of which the first 5:" in text and report.counts is None
    assert "row-width                        1  first: toy.inter:46" in text
    assert "not-a-number                    30  first: toy.inter:16" in text
    none = validate(clean, 0)
    assert none.first("error") == [] and "31 errors, of which the first 0:" in str(none)


def test_few_findings_are_kept() -> None:
    findings = Findings(2)
    for line in range(5):
        findings.add("nul", "x.inter", line)
    findings.add_rows("nul", "x.inter", np.arange(5, 9))
    findings.add_rows("empty-entry", "x.inter", np.arange(5, 9), "user_id")
    assert [f.line for f in findings.first("error", 100)] == [0, 1, 5, 6] and findings.count("error") == 13


def test_values_are_shown_short(clean: Path) -> None:
    replace("inter", "i3\t20", "i3\t" + "x" * 1000)(clean)
    (finding,) = validate(clean).first("error")
    assert finding.value == "x" * 57 + "..."


@pytest.mark.parametrize(
    ("change", "rules"),
    [
        (replace("query", "red shoe", "red\tshoe"), {"row-width": 1}),  # q1 is not unknown
        (
            both(replace("inter", "a\ti6", "a\ti1"), replace("inter", "i6\t13", "i6")),
            {"row-width": 1},
        ),  # i6 is not clicked alone
        (write("inter", INTER + "a\n"), {"row-width": 1, "no-rows": 1}),  # users and clicked items are not unknown
        (add("query", "\tx\n\ty\n"), {"empty-entry": 2}),  # not listed twice
        (replace("search", "b\tq2", "\tq2"), {"empty-entry": 1}),  # not an unknown user
        (add("search", "a\tq1\t20\ti1\na\tq1\t21\ti2\na\tq2\t20\ti2\nb\tq1\t20\ti2\n"), {}),  # no duplicates
        (
            write("item", "item_id:token\ttimestamp:float\n" + "".join(f"i{k}\t\n" for k in range(9))),
            {"column-not-loadable": 1},
        ),
    ],
)
def test_one_fault_is_not_found_twice(clean: Path, change: Change, rules: dict[str, int]) -> None:
    change(clean)
    assert validate(clean).findings.counts == rules


def test_a_column_of_three_files_is_an_error_where_two_of_them_are_loaded(clean: Path) -> None:
    write("inter", INTER.replace("\n", "\tsource:token\n") + "a\ti1\t1\t\n")(clean)
    for suffix, header in (("search", SEARCH), ("query", "query_id:token\n")):
        write(suffix, header.replace("\n", "\tsource:token\n"))(clean)
    assert validate(clean).findings.by_rule("error") == {"column-shared": 1}


def test_searches_of_unknown_users_bring_no_items_and_no_queries(clean: Path) -> None:
    add("search", "z\tq9\t20\tnew1 new2\na\tq8\t20\tnew3\n")(clean)
    report = validate(clean)
    assert_as_loaded(report, clean)
    assert report.counts is not None and report.counts["items"] == 8 and report.counts["queries"] == 4
    assert report.findings.counts["clicked-only"] == 1


def assert_as_loaded(report: Report, folder: Path) -> None:
    """The report has the numbers of what a run loads, under either protocol."""
    assert report.counts is not None and report.targets is not None
    for protocol, both in (("both_histories", True), ("all_interactions", False)):
        loaded = load_dataset(folder.parent, folder.name, require_both_histories=both).summary()
        numbers = report.targets["LS"]
        assert numbers is not None
        assert {**report.counts, **numbers[protocol]} == {**loaded, "test_users": loaded["test"]}


# --- the command ------------------------------------------------------------------------------------------------------


def run(*arguments: object) -> int:
    return command("validate", *arguments)


def test_the_command_by_folder_and_by_name(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(clean)) == run("toy", "--data_path", str(clean.parent), "--strict") == 0
    out = capsys.readouterr().out
    assert "toy: no errors\na run loads 3 users, 7 items, 3 queries, 14 interactions, 5 searches" in out
    replace("search", "i6", "new")(clean)
    assert run(str(clean)) == 0 and run(str(clean), "--strict") == 2
    replace("search", "\t45\t", "\t\t")(clean)
    assert run(str(clean)) == 2
    assert "toy: not fit for a run" in capsys.readouterr().out


@pytest.mark.parametrize(("searches", "later", "found"), [(19, 19, False), (20, 11, True), (20, 10, False)])
@pytest.mark.parametrize("times", [False, True])
def test_clicks_that_are_taken_up_later_are_noticed(
    tmp_path: Path, searches: int, later: int, found: bool, times: bool
) -> None:
    base = write_toy(
        tmp_path,
        inter=[f"u{n} i{n} {20 if n < later else 10}" for n in range(searches)] + ["u0 i9 5", "u0 i0 30", "u1 i9 9"],
        search=[f"u{n} q1 10 i{n}" for n in range(searches)],
    )
    if times:
        header, *rows = (base / "toy.search").read_text().splitlines()
        (base / "toy.search").write_text(
            "\n".join([header + "\tclick_times:float_seq"] + [row + "\t11" for row in rows]) + "\n"
        )
    report = validate(base)
    assert report.findings.counts["click-ahead"] == (found and not times)
    if found and not times:
        assert f"toy.search:1: column 'clicked_items': '{later} of {searches}'" in str(report)


def test_the_sample_is_clean(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run("ser-sample", "--data_path", str(tmp_path), "--strict") == 0
    sample = PRESETS["ser-sample"]
    assert f"{sample.interactions:,} interactions, {sample.searches:,} searches" in capsys.readouterr().out


def test_findings_as_json(clean: Path, tmp_path: Path) -> None:
    replace("inter", "i3\t20", "i3\tsoon")(clean)
    assert run(str(clean), "--json", str(tmp_path / "out.json"), "-n", "1") == 2
    saved = json.loads((tmp_path / "out.json").read_text())
    assert saved["clean"] is False and saved["counts"] is None and saved["warnings"]["count"] == 0
    assert saved["errors"] == {
        "count": 1,
        "by_rule": {"not-a-number": 1},
        "first": [
            {
                "rule": "not-a-number", "file": "toy.inter", "line": 4, "column": "timestamp", "value": "soon",
                "hint": RULES["not-a-number"].hint,
            }
        ],
    }  # fmt: skip


def test_what_the_command_refuses(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"no data set 'tou'.*there are toy"):
        run("tou", "--data_path", str(clean.parent))
    with pytest.raises(ConfigError, match="name a data set"):
        run()
    with pytest.raises(ConfigError, match="-n -1 is negative"):
        run("toy", "-n", "-1")
    (clean / "toy.inter").unlink()
    assert run("toy", "--data_path", str(clean.parent)) == 2
    assert "toy.inter: file not found [file-missing]" in capsys.readouterr().out
    assert run("--rules") == 0
    assert "listed-twice" in capsys.readouterr().out


def test_counts_of_many_rows(clean: Path) -> None:
    rng = np.random.default_rng(0)
    users, items = rng.integers(0, 900, 100_000), rng.integers(0, 5000, 100_000)
    rows = "".join(f"u{user}\ti{item}\t{time}\n" for time, (user, item) in enumerate(zip(users, items)))
    write("inter", INTER + rows)(clean)
    write("search", SEARCH + "u1\tq1\t50000\ti1\n")(clean)
    report = validate(clean)
    assert report.clean(strict=True)
    assert_as_loaded(report, clean)
