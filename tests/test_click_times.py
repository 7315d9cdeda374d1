"""Clicks that are younger than their search: nobody knows them before they happen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import load_dataset, training_histories, write_lines

from recbole_ser.data.dataset import SERDataset
from recbole_ser.errors import DataError

Click = tuple[str, int]
Search = tuple[str, str, int, list[Click]]
Interaction = tuple[str, str, int]


def write(folder: Path, inter: list[Interaction], searches: list[Search], times: bool = True) -> Path:
    base = folder / "toy"
    write_lines(
        base / "toy.inter", "user_id:token\titem_id:token\ttimestamp:float", *("\t".join(map(str, r)) for r in inter)
    )
    header = (
        "user_id:token\tquery_id:token\ttimestamp:float\tclicked_items:token_seq" + "\tclick_times:float_seq" * times
    )
    rows = []
    for user, query, time, clicks in searches:
        row = [user, query, str(time), " ".join(item for item, _ in clicks)]
        rows.append("\t".join(row + [" ".join(str(t) for _, t in clicks)] * times))
    write_lines(base / "toy.search", header, *rows)
    return base


def random_logs(seed: int) -> tuple[list[Interaction], list[Search]]:
    draw = np.random.default_rng(seed)
    inter = [(f"u{draw.integers(5)}", f"i{draw.integers(30)}", int(draw.integers(60))) for _ in range(80)]
    searches: list[Search] = []
    for _ in range(40):
        time = int(draw.integers(60))
        clicks = [(f"i{draw.integers(30)}", time + int(draw.integers(12))) for _ in range(draw.integers(4))]
        searches.append((f"u{draw.integers(5)}", f"q{draw.integers(9)}", time, clicks))
    return inter, searches


def load(folder: Path, **values: Any) -> SERDataset:
    return load_dataset(folder, "toy", **{"require_both_histories": False, **values})


def known(searches: list[Search], user: str, time: int, width: int, first: int) -> list[tuple[str, list[str]]]:
    """Each search of the user before ``time``, and what they had clicked by then, ``first`` clicks at most."""
    mine = sorted((s for s in searches if s[0] == user and s[2] < time), key=lambda s: s[2])
    found = []
    for _, query, _, clicks in mine:
        in_time = sorted(clicks, key=lambda click: click[1])[:first]
        found.append((query, [item for item, at in in_time if at < time]))
    return found[-width:]


def read(dataset: SERDataset, batch: dict[str, torch.Tensor], row: int) -> list[tuple[str, list[str]]]:
    queries, items = dataset.field2id_token["query_id"], dataset.field2id_token["item_id"]
    found = []
    for query, clicks in zip(batch["search_query_list"][row].tolist(), batch["search_click_list"][row].tolist()):
        if query:
            assert sorted(clicks, key=bool, reverse=True) == clicks  # padding is behind
            found.append((queries[query], [items[item] for item in clicks if item]))
    return found


@pytest.mark.parametrize("seed", range(4))
def test_histories_equal_a_slow_reference(tmp_path: Path, seed: int) -> None:
    inter, searches = random_logs(seed)
    write(tmp_path, inter, searches)
    dataset = load(tmp_path)
    users = dataset.field2id_token["user_id"]
    batch = dataset.history_reader().read(torch.arange(len(inter)))
    for row, (user, _, time) in enumerate(sorted(inter, key=lambda r: (dataset.token2id("user_id", r[0]), r[2]))):
        assert users[dataset.log.users[row]] == user
        assert read(dataset, batch, row) == known(searches, user, time, width=3, first=2)


@pytest.mark.parametrize("seed", range(4))
def test_histories_of_searches_equal_a_slow_reference(tmp_path: Path, seed: int) -> None:
    inter, searches = random_logs(seed)
    moments = np.random.default_rng(seed).permutation(400)  # no two at one time: earlier by position is by time then
    searches = [
        (u, q, int(m), [(i, int(m) + at - t) for i, at in clicks]) for (u, q, t, clicks), m in zip(searches, moments)
    ]
    write(tmp_path, inter, searches)
    dataset = load(tmp_path)
    kept = [s for s in searches if s[0] in {user for user, _, _ in inter}]
    batch = dataset.history_reader().read_searches(torch.arange(len(kept)))
    for row, (user, _, time, _) in enumerate(sorted(kept, key=lambda s: (dataset.token2id("user_id", s[0]), s[2]))):
        assert read(dataset, batch, row) == known(searches, user, time, width=3, first=2)


@pytest.mark.parametrize("seed", range(4))
def test_training_clicks_happened_before_the_validation_target(tmp_path: Path, seed: int) -> None:
    inter, searches = random_logs(seed)
    write(tmp_path, inter, searches)
    dataset = load(tmp_path)
    log, split, users = dataset.log, dataset.split, dataset.field2id_token["user_id"]
    items = dataset.field2id_token["item_id"]
    expected = []
    for user in users[1:]:
        ordered = sorted((r for r in inter if r[0] == user), key=lambda r: r[2])
        end = ordered[-2][2] if len(ordered) >= 3 else np.inf
        for _, query, time, clicks in searches:
            if _ == user and time < end:
                first = sorted(clicks, key=lambda click: click[1])[:2]
                expected += [(user, query, item) for item, at in first if at < end]
    clicks = dataset.training_clicks
    queries = dataset.field2id_token["query_id"]
    found = [(users[u], queries[q], items[i]) for u, q, i in zip(clicks.users, clicks.queries, clicks.items)]
    assert sorted(found) == sorted(expected) and found
    assert torch.equal(split.search_train, split.training_clicks)
    assert [items[i] for i in log.clicks[split.training_clicks]] == [item for _, _, item in found]


def test_a_click_planted_in_the_future_changes_nothing(tmp_path: Path) -> None:
    inter = [("u", f"i{n}", 10 * n) for n in range(1, 7)]
    searches: list[Search] = [("u", "q", 15, [("i2", 20)]), ("u", "q", 31, [("i1", 33)])]
    write(tmp_path, inter, searches)
    before = load(tmp_path)
    searches = [("u", "q", 15, [("i5", 50), ("i2", 20)]), ("u", "q", 31, [("i1", 33), ("i6", 60)])]
    write(tmp_path, inter, searches)
    after = load(tmp_path)
    assert len(after.log.clicks) == 4
    for position in range(5):  # the last interaction is later than the planted click at 50
        a, b = (dataset.history_reader().read(torch.tensor([position])) for dataset in (before, after))
        assert read(before, a, 0) == read(after, b, 0)
    assert training_histories(before, max_clicks=9) == training_histories(after, max_clicks=9)
    assert before.training_clicks.items.tolist() == after.training_clicks.items.tolist()


def test_clicks_at_the_time_of_their_search_are_clicks_without_times(tmp_path: Path) -> None:
    inter, searches = random_logs(7)
    searches = [(user, query, time, [(item, time) for item, _ in clicks]) for user, query, time, clicks in searches]
    batches = []
    for times in (False, True):
        write(tmp_path, inter, searches, times)
        dataset = load(tmp_path)
        assert (dataset.log.interactions_until_click is not None) == times
        batches.append((dataset.history_reader().read(torch.arange(len(inter))), dataset.split))
    assert batches[0][0].keys() == batches[1][0].keys()
    assert all(torch.equal(batches[0][0][name], batches[1][0][name]) for name in batches[0][0])
    assert torch.equal(batches[0][1].search_train, batches[1][1].search_train)


def test_times_are_compared_in_64_bits(tmp_path: Path) -> None:
    base = 1_700_000_000_123_456_789
    inter = [("u", f"i{n}", base + n) for n in range(1, 5)]
    write(tmp_path, inter, [("u", "q", base, [("x", base + 2), ("y", base + 3)])])
    dataset = load(tmp_path)
    clicks = dataset.history_reader().read(torch.arange(4))["search_click_list"][:, 0]
    assert (clicks != 0).sum(1).tolist() == [0, 0, 1, 2]


def test_times_are_read_wherever_clicks_are(tmp_path: Path) -> None:
    inter, searches = random_logs(1)
    write(tmp_path, inter, searches)
    columns = {
        "inter": ["user_id", "item_id", "timestamp"],
        "search": ["user_id", "query_id", "timestamp", "clicked_items"],
    }
    assert load(tmp_path, load_col=columns).log.interactions_until_click is not None
    columns["search"].remove("clicked_items")
    assert load(tmp_path, load_col=columns).log.interactions_until_click is None


def test_another_separator_of_lists(tmp_path: Path) -> None:
    inter, searches = random_logs(3)
    base = write(tmp_path, inter, searches)
    batch = load(tmp_path).history_reader().read(torch.arange(len(inter)))
    path = base / "toy.search"
    path.write_text(path.read_text().replace(" ", ";"))
    other = load(tmp_path, seq_separator=";").history_reader().read(torch.arange(len(inter)))
    assert all(torch.equal(batch[name], other[name]) for name in batch)
    path.write_text(path.read_text().rstrip("\n") + "\nu1\tq\t3\ti1;i2\t5;x\n")
    with pytest.raises(DataError, match="'5;x': not a number"):
        load(tmp_path, seq_separator=";")


@pytest.mark.parametrize(
    ("clicks", "times", "problem"),
    [
        ("i1 i2", "5", "toy.search:2: column 'click_times': 1 times of 2 clicked items"),
        ("", "5", "toy.search:2: column 'click_times': 1 times of 0 clicked items"),
        ("i1", "", "toy.search:2: column 'click_times': 0 times of 1 clicked items"),
        ("i1 i2", "5 x", "toy.search:2: column 'click_times': '5 x': not a number"),
        ("i1 i2", "5 inf", "toy.search:2: column 'click_times': '5 inf': not a finite number"),
        ("i1 i2", "5 nan", "toy.search:2: column 'click_times': '5 nan': not a finite number"),
    ],
)
def test_wrong_times_are_refused(tmp_path: Path, clicks: str, times: str, problem: str) -> None:
    inter, searches = random_logs(1)
    base = write(tmp_path, inter, searches)
    header, _, *rest = (base / "toy.search").read_text().splitlines()
    write_lines(base / "toy.search", header, f"u1\tq\t3\t{clicks}\t{times}", *rest)
    with pytest.raises(DataError) as error:
        load(tmp_path)
    assert problem in str(error.value)
