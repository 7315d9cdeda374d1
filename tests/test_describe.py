"""``recbole-ser describe``: its numbers by hand and against slow counts, its table, its plots."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import command, load_dataset, write_lines, write_toy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recbole_ser.atomic.location import find_dataset
from recbole_ser.atomic.time_unit import DAY, unit_of
from recbole_ser.errors import ConfigError, UserError
from recbole_ser.statistics import interests
from recbole_ser.statistics.counts import Distribution, Statistics, describe, load_described
from recbole_ser.statistics.interests import SearchKind
from recbole_ser.statistics.tables import text_of

START = 1_650_000_000
SEARCH = "user_id:token\tquery_id:token\ttimestamp:float\tclicked_items:token_seq\tsource:token"


def described(base: Path, **options: Any) -> Statistics:
    return describe(load_described(base), **options)


# --- by hand ----------------------------------------------------------------------------------------------------------


def test_counts_of_the_toy_data_set(tmp_path: Path) -> None:
    base = write_toy(tmp_path)
    found = described(base)
    assert found.counts == {
        "users": 3, "items": 8, "queries": 3, "searches": 5, "interactions": 14, "clicks": 6,
        "items with an interaction": 7, "items only clicked": 1, "words": 6,
    }  # fmt: skip
    assert found.sparsity == pytest.approx(1 - 14 / (3 * 7))
    assert list(found.instances) == ["LS", "RS [0.8, 0.1, 0.1]", "TS [0.8, 0.9]"]
    assert found.instances["LS"] == {
        "both_histories": {"train": 6, "valid": 1, "test": 1, "test_users": 1},
        "all_interactions": {"train": 8, "valid": 3, "test": 3, "test_users": 3},
    }
    assert found.users_by_searches == {
        "0": 1, "1": 1, "2": 0, "3-4": 1, "5-9": 0, "10-19": 0, "20-49": 0, "50-99": 0, "100+": 0,
    }  # fmt: skip
    for both, parts in ((True, "both_histories"), (False, "all_interactions")):
        summary = load_dataset(tmp_path, "toy", require_both_histories=both).summary()
        assert {part: summary[part] for part in ("train", "valid", "test")} | {
            "test_users": summary["test"]
        } == found.instances["LS"][parts]
    assert found.data == load_dataset(tmp_path, "toy").data_hash


def test_ties_and_clicks_of_the_toy_data_set(tmp_path: Path) -> None:
    found = described(write_toy(tmp_path))
    assert found.ties == {
        "interactions, within their log": 2 / 14,  # a at 20
        "searches, within their log": 0,
        "interactions, with a search": 3 / 14,  # a at 20 twice and at 40
        "searches, with an interaction": 2 / 5,  # a at 20 and at 40
        "users with any tie": 1 / 3,
    }
    assert found.clicks == {
        "searches without click": 1 / 5,
        "clicked searches, all clicks are interactions": 2 / 4,  # a's i2 and i6
        "clicked searches, some click is one": 3 / 4,  # and i3 of three clicks
        "clicked searches, some click is one at the search's time": 1 / 4,  # a's i2 at 20
    }


def test_lengths_of_the_toy_data_set(tmp_path: Path) -> None:
    numbers = described(write_toy(tmp_path)).distributions
    assert numbers["interactions of a user"] == Distribution(
        pytest.approx(14 / 3), 3, {"25%": 3, "50%": 4, "75%": 7, "90%": 7, "99%": 7}, 7, [3, 4, 7], [1, 1, 1]
    )
    assert (numbers["searches of a user"].values, numbers["searches of a user"].counts) == ([0, 1, 4], [1, 1, 1])
    assert (numbers["interactions of an item"].values, numbers["interactions of an item"].counts) == ([2], [7])
    assert numbers["clicks of a search"].maximum == 3, "not cut to what models read"
    assert numbers["words of a query"].maximum == 4, "likewise"
    assert numbers["interactions before a test"].values == [6] and numbers["searches before a test"].values == [4]


def test_quantiles_are_values_that_occur() -> None:
    numbers = Distribution.of(np.arange(1, 1001))
    assert numbers.quantiles == {"25%": 250, "50%": 500, "75%": 750, "90%": 900, "99%": 990} and numbers.mean == 500.5
    assert Distribution.of(np.zeros(0)).maximum is None


def interests_toy(folder: Path, times: list[str], day: int = DAY) -> Path:
    """User a takes an item of category c1 at the start; their searches click items of several categories."""
    write_lines(
        folder / "toy" / "toy.inter", "user_id:token\titem_id:token\ttimestamp:float",
        f"a\ti1\t{START * (day // DAY)}", f"a\ti3\t{START * (day // DAY) - 30 * day}", f"b\ti2\t{START * (day // DAY)}",
    )  # fmt: skip
    write_lines(folder / "toy" / "toy.search", SEARCH, *times)
    write_lines(
        folder / "toy" / "toy.item", "item_id:token\tcolour:token\tcategories:token_seq",
        "i2\tred\tc2", "i1\tblue\tc1 c3", "i4\tred\tc1", "i5\tred\t", "unknown\tgreen\tc9",
    )  # fmt: skip
    return folder / "toy"


def test_searches_like_recent_interests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = interests_toy(
        tmp_path,
        [
            f"a\tq\t{START + 7 * DAY}\ti4\ttyped",  # c1 was taken seven days ago: similar
            f"a\tq\t{START + 7 * DAY + 1}\ti4\ttyped",  # too long ago
            f"a\tq\t{START}\ti4\ttyped",  # not before the search
            f"a\tq\t{START + 1}\ti4 i1\tsuggested",  # c1 and c3: similar
            f"a\tq\t{START + 1}\ti4 i2\tsuggested",  # c2 was taken by b alone
            f"a\tq\t{START + 1}\ti4 i5 new\tsuggested",  # those without a category do not count: similar
            f"a\tq\t{START + 1}\ti5\ttyped",  # not judged
            f"b\tq\t{START + 1}\t\t",  # not judged
        ],
    )
    found = described(base, spontaneous=("typed",)).interests
    assert found is not None and found.category == "categories"
    assert found.rows == [
        SearchKind("spontaneous", 4, 3, 1),
        SearchKind("passive", 4, 3, 2),
        SearchKind("all", 8, 6, 3),
    ]
    monkeypatch.setattr(interests, "_EVENTS_AT_A_TIME", 1)
    assert described(base, spontaneous=("typed",)).interests == found, "read in parts or whole"
    found = described(base, category="colour").interests
    assert found is not None and found.category == "colour"
    # i1 is blue, all others are red, i3 has no colour: only the fourth search could be, and i4 is red.
    assert found.rows == [SearchKind("typed", 4, 4, 0), SearchKind("suggested", 3, 3, 0), SearchKind("all", 8, 7, 0)]


@pytest.mark.parametrize("unit", [1, 1000, 10**6])
def test_days_follow_the_unit_of_times(tmp_path: Path, unit: int) -> None:
    at = (START + 6 * DAY) * unit
    found = described(interests_toy(tmp_path, [f"a\tq\t{at}\ti4\ts"], DAY * unit)).interests
    assert found is not None and found.rows[-1] == SearchKind("all", 1, 1, 1)


def test_what_interests_need(tmp_path: Path) -> None:
    base = write_toy(tmp_path)
    assert described(base).interests is None, "times like 10 and 20 have no known unit, and there is no X.item"
    assert "times is not known" in text_of(described(base))
    assert "no column of X.item" in text_of(described(base, unit="s"))
    base = interests_toy(tmp_path, [f"a\tq\t{START}\ti4\ttyped"])
    with pytest.raises(ConfigError, match="no column 'shape' of type token"):
        described(base, category="shape")
    with pytest.raises(ConfigError, match="no search has the source 'spoken': there are typed"):
        described(base, spontaneous=("spoken",))


def test_units_are_told_by_size() -> None:
    times = {
        1.4e9: "s",
        1.4e12: "ms",
        1.4e15: "us",
        1.4e18: "ns",
        1e8: "s",
        9.9e7: None,
        1e10: None,
        1e11: None,
        1e12: "ms",
        5: None,
    }
    assert {time: unit_of(time) for time in times} == times


# --- against slow counts ----------------------------------------------------------------------------------------------

events = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 6), st.integers(0, 9)), min_size=1, max_size=25)
searched = st.lists(
    st.tuples(st.sampled_from("abcz"), st.lists(st.integers(0, 8), max_size=3), st.integers(0, 9)), max_size=12
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(inter=events, search=searched, kinds=st.lists(st.sets(st.integers(0, 3), max_size=2), min_size=9, max_size=9))
def test_shares_equal_slow_counts(
    tmp_path: Path, inter: list[tuple], search: list[tuple], kinds: list[set[int]]
) -> None:
    base = write_toy(
        tmp_path,
        inter=[f"{user} i{item} {START + time * DAY}" for user, item, time in inter],
        search=[f"{user} q {START + time * DAY} {','.join(f'i{c}' for c in clicks)}" for user, clicks, time in search],
    )
    lists = [f"i{item}\t{' '.join(f'c{k}' for k in sorted(kind))}" for item, kind in enumerate(kinds)]
    write_lines(base / "toy.item", "item_id:token\tcategory:token_seq", *lists)
    found = described(base)
    search = [row for row in search if row[0] in {row[0] for row in inter}]
    at, search_at = Counter((u, t) for u, _, t in inter), Counter((u, t) for u, _, t in search)
    assert found.ties["interactions, within their log"] == share([at[u, t] > 1 for u, _, t in inter])
    assert found.ties["searches, within their log"] == share([search_at[u, t] > 1 for u, _, t in search])
    assert found.ties["interactions, with a search"] == share([(u, t) in search_at for u, _, t in inter])
    assert found.ties["searches, with an interaction"] == share([(u, t) in at for u, _, t in search])
    tied = {u for (u, t), n in at.items() if n > 1 or (u, t) in search_at} | {
        u for (u, _), n in search_at.items() if n > 1
    }
    assert found.ties["users with any tie"] == len(tied) / len({u for u, _, _ in inter})

    pairs, clicked = {(u, i) for u, i, _ in inter}, [row for row in search if row[1]]
    names = iter(found.clicks)
    assert found.clicks[next(names)] == share([not row[1] for row in search])
    assert found.clicks[next(names)] == share([all((u, c) in pairs for c in cs) for u, cs, _ in clicked])
    assert found.clicks[next(names)] == share([any((u, c) in pairs for c in cs) for u, cs, _ in clicked])
    assert found.clicks[next(names)] == share([any((u, c, t) in inter for c in cs) for u, cs, t in clicked])

    judged = similar = 0
    for user, clicks, time in search:
        wanted = set().union(*(kinds[c] for c in clicks))
        recent = set().union(*(kinds[i] for u, i, t in inter if u == user and time - 7 <= t < time))
        judged, similar = judged + bool(wanted), similar + (bool(wanted) and wanted <= recent)
    assert found.interests is not None and found.interests.rows[-1] == SearchKind("all", len(search), judged, similar)


def share(marks: list[bool]) -> float | None:
    return pytest.approx(sum(marks) / len(marks)) if marks else None


# --- the command ------------------------------------------------------------------------------------------------------


def run(*arguments: object) -> int:
    return command("describe", *arguments)


def test_the_table_and_the_numbers_of_the_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("ser-sample", "--data_path", str(tmp_path), "--json", str(tmp_path / "out.json")) == 0
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines()]
    assert ["users", "items", "queries", "actions", "S", "actions", "R"] in lines
    assert ["1,000", "384", "160", "7,000", "13,000"] in lines
    assert all(len(line) <= 80 for line in out.splitlines())
    saved = json.loads((tmp_path / "out.json").read_text())
    assert saved["counts"]["searches"] == sum(saved["course"]["searches"]) == 7000
    assert sum(saved["course"]["interactions"]) == 13000 and saved["course"]["unit"] == "s"
    assert sum(saved["users_by_searches"].values()) == 1000
    assert [row["kind"] for row in saved["interests"]["rows"]][-1] == "all"


def test_filters_of_a_run_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_toy(tmp_path)
    (tmp_path / "mine.yaml").write_text('user_inter_num_interval: "[4,inf)"\n')
    assert run("toy", "--data_path", str(tmp_path), "--config_files", str(tmp_path / "mine.yaml")) == 0
    assert ["2", "8", "3", "4", "11"] in [line.split() for line in capsys.readouterr().out.splitlines()]


def test_a_data_set_without_searches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = write_toy(tmp_path)
    (base / "toy.search").unlink()
    (base / "toy.query").unlink()
    assert run(str(base), "--unit", "s") == 0
    assert ["3", "7", "0", "0", "14"] in [line.split() for line in capsys.readouterr().out.splitlines()]
    assert described(base).ties["searches, with an interaction"] is None


def test_the_split_of_a_file_of_settings_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = write_toy(tmp_path)
    (tmp_path / "mine.yaml").write_text("eval_args: {split: {RS: [0.5, 0.25, 0.25]}}\n")
    assert run(str(base), "--config_files", str(tmp_path / "mine.yaml")) == 0
    text = capsys.readouterr().out
    assert "RS [0.5, 0.25, 0.25]" in text and "LS" not in text


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_a_page_of_plots_is_the_same_every_time(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    base = write_toy(tmp_path)
    interests_toy(tmp_path / "more", [f"a\tq\t{START}\ti4\ttyped"])
    for number, folder in enumerate((base, base, tmp_path / "more" / "toy")):
        assert run(str(folder), "--plot", str(tmp_path / f"{number}{suffix}")) == 0
    pages = [(tmp_path / f"{number}{suffix}").read_bytes() for number in range(3)]
    assert pages[0] == pages[1] != pages[2] and len(pages[0]) > 10_000


def test_what_the_command_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = write_toy(tmp_path)
    with pytest.raises(ConfigError, match=r"must end in \.png"):
        run(str(base), "--plot", str(tmp_path / "page.gif"))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"recbole_ser\[plot\]"):
        run(str(base), "--plot", str(tmp_path / "page.png"))
    with pytest.raises(UserError, match=r"no data set 'tou'.*there are toy"):
        run("tou", "--data_path", str(tmp_path))
    with pytest.raises(UserError, match="there are none"):
        find_dataset("toy", tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "ser-sample").mkdir(parents=True)
    assert (find_dataset("ser-sample", tmp_path / "elsewhere") / "ser-sample.inter").is_file(), "the bundled one"
