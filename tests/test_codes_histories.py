"""Histories as text: by hand, and with unique words planted in everything that is held out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import load_dataset, training_histories, write_lines, write_toy

from recbole_ser.data.dataset import SERDataset
from recbole_ser.errors import DataError
from recbole_ser.text.user_histories import SearchRecord, UserHistory


def by_user(dataset: SERDataset, histories: list[UserHistory]) -> dict[str, UserHistory]:
    names = dataset.id2token("user_id", list(range(1, dataset.user_num)))
    assert len(histories) == len(names)
    return dict(zip(names, histories))


def texts(histories: list[UserHistory]) -> Iterator[str]:
    for history in histories:
        yield from history.items
        for record in history.searches:
            yield from (record.query, *record.items)


def write_items(
    folder: Path, *rows: str, header: str = "item_id:token\ttitle:token_seq\tprice:float\ttype:token"
) -> None:
    write_lines(folder / "toy" / "toy.item", header, *(row.replace("|", "\t") for row in rows))


def test_by_hand(toy: Callable[..., SERDataset], tmp_path: Path) -> None:
    write_items(tmp_path, "i1|Red  Shoes|9.5|shoe", "i3||1|hat", "i4|Plain||", "i6|||")
    dataset = toy()
    histories = by_user(dataset, training_histories(dataset, max_clicks=3))
    red, blue, hat = "red shoe", "blue", "red hat big wool"
    assert histories["a"] == UserHistory(
        # The validation target is i6 at 50; x and i6 have no text, but queries led to them; i2 was found by q1.
        searches=(
            SearchRecord(blue, ("hat", "blue")),
            SearchRecord(red, (red,)),
            SearchRecord(red, ()),
            SearchRecord(hat, (hat,)),
        ),
        items=("Red Shoes. shoe", red, "hat", "Plain", "item i5"),
    )
    assert histories["b"] == UserHistory((SearchRecord(blue, ("blue",)),), (red, "Red Shoes. shoe", "hat"))
    assert histories["c"] == UserHistory((), ("Plain", "item i5", hat, "item i7"))


def test_a_search_keeps_the_clicks_it_may(toy: Callable[..., SERDataset]) -> None:
    dataset = toy(max_clicks_per_search=5)
    for width, expected in [(1, ("blue",)), (3, ("blue", "blue", "blue"))]:
        history = by_user(dataset, training_histories(dataset, max_clicks=width))["a"]
        assert history.searches[0].items == expected


@pytest.mark.parametrize("width", [1, 2, 3])
def test_the_latest_records_are_kept(toy: Callable[..., SERDataset], width: int) -> None:
    dataset = toy()
    for short, whole in zip(training_histories(dataset, max_records=width), training_histories(dataset)):
        assert short == UserHistory(whole.searches[-width:], whole.items[-width:])


@pytest.mark.parametrize("width", [1, 20])
@pytest.mark.parametrize("until", [0.3, 0.5, 0.8])
def test_only_the_first_part_of_each_history_is_looked_at(
    toy: Callable[..., SERDataset], until: float, width: int
) -> None:
    dataset = toy()
    for short, whole in zip(training_histories(dataset, width, until=until), training_histories(dataset)):
        searches, items = (math.ceil(until * len(part)) for part in (whole.searches, whole.items))
        assert short == UserHistory(whole.searches[:searches][-width:], whole.items[:items][-width:])


def test_the_words_of_the_most_frequent_query_come_first(toy: Callable[..., SERDataset]) -> None:
    search = ["a q1 1 i2", "a q3 2 i2", "b q3 3 i2", "c q3 1 i2", "c q2 1 i2", "b q2 3 i2"]
    dataset = toy(search=search, require_both_histories=False)
    assert by_user(dataset, training_histories(dataset))["a"].items[1] == "red hat big wool blue shoe"


def test_without_words_the_raw_ids_are_taken(toy: Callable[..., SERDataset], tmp_path: Path) -> None:
    toy()
    (tmp_path / "toy" / "toy.query").unlink()
    dataset = load_dataset(tmp_path, "toy")
    assert by_user(dataset, training_histories(dataset))["b"] == UserHistory(
        (SearchRecord("q2", ("q2",)),), ("q1", "item i1", "q2")
    )


def test_a_query_is_whole_whatever_a_model_reads(toy: Callable[..., SERDataset]) -> None:
    dataset = toy(max_terms_per_query=1)
    assert "red hat big wool" in set(texts(training_histories(dataset)))


def test_without_searches(toy: Callable[..., SERDataset], tmp_path: Path) -> None:
    toy()
    (tmp_path / "toy" / "toy.search").unlink()
    (tmp_path / "toy" / "toy.query").unlink()
    dataset = load_dataset(tmp_path, "toy", require_both_histories=False)
    histories = training_histories(dataset)
    assert all(not history.searches and history.items for history in histories)
    assert by_user(dataset, histories)["b"].items == ("item i2",)


@pytest.mark.parametrize("described", [True, False], ids=["with item texts", "from queries"])
@pytest.mark.parametrize("require_both_histories", [True, False])
def test_no_held_out_event_is_in_any_text(tmp_path: Path, described: bool, require_both_histories: bool) -> None:
    """Users buy at 0, 10, ... 60: targets at 50 and 60 are held out, and with them every search from 50 on."""
    inter, search, queries, items = [], [], [], []
    for user in "abcdef":
        for number in range(7):
            word = f"late{user}{number}" if number >= 5 else f"early{user}{number}"
            item, query = f"i-{word}", f"q-{word}"
            inter.append(f"{user} {item} {10 * number}")
            # Two searches: one leads to the item itself, one to an item that every user has in training.
            search += [f"{user} {query} {10 * number} {item}", f"{user} {query}x {10 * number + 1} i-common"]
            queries += [f"{query}\tfind{word} thing", f"{query}x\tfind{word}x"]
            items.append(f"i-{word}|Title{word} thing|1|kind{word}")
        inter.append(f"{user} i-common -5")
    write_toy(tmp_path, inter=inter, search=search)
    write_lines(tmp_path / "toy" / "toy.query", "query_id:token\tterms:token_seq", *queries)
    if described:
        write_items(tmp_path, *items)
    dataset = load_dataset(tmp_path, "toy", require_both_histories=require_both_histories)
    histories = training_histories(dataset, max_records=100, max_clicks=5)
    assert len(dataset.split.valid) == len(histories) == 6
    found = " ".join(texts(histories))
    assert "late" not in found
    for user in "abcdef":  # and what precedes the target is there, up to its very edge
        assert f"findearly{user}4x" in found
        assert (f"Titleearly{user}4 thing. kindearly{user}4" if described else f"findearly{user}4 thing") in found
    assert all(len(history.items) == 6 and len(history.searches) == 10 for history in histories)


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        (["i1|a|1|b", "i1|c|1|d"], None, r"toy\.item:3: item 'i1' is listed twice"),
        (["a"], "title:token", r"toy\.item:1: column 'item_id': the column is missing"),
        (["i1|a|1|b", "|c|1|d"], None, r"toy\.item:3: column 'item_id': the entry is empty"),
        (["i1|a"], None, r"toy\.item:2: '2 columns, not 4': not as many columns"),
    ],
)
def test_a_wrong_item_file_is_refused(
    toy: Callable[..., SERDataset], tmp_path: Path, rows: list[str], header: str | None, message: str
) -> None:
    dataset = toy()
    write_items(tmp_path, *rows, **({"header": header} if header else {}))
    with pytest.raises(DataError, match=message):
        training_histories(dataset)
