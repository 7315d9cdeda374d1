"""What holds on real logs (Amazon cell phones): instances, no leakage through tied days, and popularity's level."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import load_dataset

from recbole_ser.convert.amazon import convert
from recbole_ser.runner import run


@pytest.fixture(scope="module")
def cell(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the converted data set."""
    raw, folder = real_data / "amazon_cell", tmp_path_factory.mktemp("real") / "cell"
    convert(raw / "reviews_Cell_Phones_and_Accessories_5.json.gz", raw, folder, "sesrec")
    return folder


def test_instances_of_the_protocol(cell: Path) -> None:
    counts = load_dataset(cell.parent, "cell").summary()
    assert (counts["users"], counts["items"], counts["interactions"]) == (27_879, 10_429, 194_439)
    assert (counts["searches"], counts["train"], counts["valid"], counts["test"]) == (194_434, 91_884, 22_851, 22_851)


def test_no_search_of_the_targets_own_day_is_seen(cell: Path) -> None:
    """In these logs the search is the purchase itself: one day's searches would give the target away."""
    dataset = load_dataset(cell.parent, "cell")
    log, test = dataset.log, dataset.split.test.long()
    inter = pd.read_csv(cell / "cell.inter", sep="\t")
    search = pd.read_csv(cell / "cell.search", sep="\t")
    earlier = search.merge(inter.groupby("user_id:token")["timestamp:float"].max().rename("last"), on="user_id:token")
    earlier = earlier[earlier["timestamp:float"] < earlier["last"]].groupby("user_id:token").size()
    users = dataset.id2token("user_id", log.users[test].numpy())
    assert log.search_length[test].tolist() == earlier.reindex(users).tolist()
    assert (log.search_length[test] <= log.rec_length[test]).all()
    assert torch.equal(log.items[test], log.items[log.user_start[log.users[test].long() + 1].long() - 1])


def test_popularity_is_at_its_known_level(cell: Path, tmp_path: Path) -> None:
    values = {"data_path": str(cell.parent), "run_dir": str(tmp_path / "pop"), "show_progress": False}
    test = run("Pop", "cell", config_dict=values).test
    assert 0.20 < test["ndcg@10"] < 0.23 and 0.35 < test["hit@10"] < 0.39


def test_removing_repeated_interactions_changes_nothing_where_none_is_repeated(cell: Path) -> None:
    """Here is none, but many interactions of a user have the same time and stand in the order of the file."""
    plain, again = (load_dataset(cell.parent, cell.name, rm_dup_inter=keep) for keep in (None, "first"))
    assert torch.equal(again.log.items, plain.log.items) and torch.equal(again.split.test, plain.split.test)
