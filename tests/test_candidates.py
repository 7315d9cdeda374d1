"""Candidate lists and training negatives: distinct, unseen, fixed, and from the right distribution."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import load_dataset, write_toy
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_ser.atomic.ragged import Ragged
from recbole_ser.data.candidates import build_candidates
from recbole_ser.data.dataset import SERDataset
from recbole_ser.data.histories import EventLog, Searches, build_event_log
from recbole_ser.data.instances import split_instances
from recbole_ser.data.loader import EvalLoader
from recbole_ser.data.negatives import NegativeSampler
from recbole_ser.errors import DataError


def random_log(users: int, items: int, events: int, seed: int) -> EventLog:
    rng = np.random.default_rng(seed)
    searches = max(events // 2, 1)
    clicks = Ragged(rng.integers(1, items, searches).astype(np.int32), np.arange(searches + 1))
    return build_event_log(
        rng.integers(1, users, events),
        rng.integers(0, 50, events),
        np.minimum(rng.zipf(1.5, events), items - 1).astype(np.int32),
        Searches(
            rng.integers(1, users, searches), rng.integers(0, 50, searches), np.ones(searches, np.int32),
            np.ones(searches, np.int32), clicks,
        ),
        users,
    )  # fmt: skip


def known_items(log: EventLog, user: int) -> set[int]:
    searches = range(int(log.search_start[user]), int(log.search_start[user + 1]))
    clicked = {int(i) for s in searches for i in log.clicks[log.click_start[s] : log.click_start[s + 1]]}
    return {int(i) for i in log.items[log.users == user]} | clicked


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["uniform", "popularity"]), st.integers(1, 25))
def test_candidates_are_distinct_unseen_and_hold_the_positive(seed: int, distribution: str, negatives: int) -> None:
    log = random_log(users=12, items=150, events=120, seed=seed)
    targets = torch.arange(0, 120, 7)
    table = build_candidates(log, targets, 150, negatives, distribution, seed)
    assert table.items.shape == (len(targets), negatives + 1)
    for row, target in enumerate(targets.tolist()):
        items = table.items[row].tolist()
        assert len(set(items)) == len(items)
        assert items[table.positive_column[row]] == log.items[target]
        others = set(items) - {int(log.items[target])}
        assert not others & known_items(log, int(log.users[target]))
        assert 0 not in items and max(items) < 150


def test_the_same_seed_gives_the_same_table_and_hash_and_another_does_not() -> None:
    log = random_log(users=40, items=300, events=400, seed=1)
    targets = torch.arange(0, 400, 5)
    first, again, other = (build_candidates(log, targets, 300, 20, "uniform", seed) for seed in (3, 3, 4))
    assert torch.equal(first.items, again.items) and first.hash == again.hash
    assert first.hash != other.hash
    moved = first.positive_column.clone()
    moved[0] = (moved[0] + 1) % 21
    assert type(first)(first.items, moved).hash != first.hash, "the hash covers the columns of the positives"


def test_the_positive_is_in_every_column_equally_often() -> None:
    log = random_log(users=300, items=400, events=6000, seed=2)
    columns = build_candidates(log, torch.arange(6000), 400, 9, "uniform", 5).positive_column
    counts = torch.bincount(columns, minlength=10)
    assert counts.min() > 500 and counts.max() < 700


def test_uniform_and_popularity_draw_from_their_distribution() -> None:
    log = random_log(users=3000, items=200, events=3000, seed=3)
    targets = torch.arange(3000)
    counts = np.bincount(log.items.numpy(), minlength=200).astype(float)
    for distribution, close_to in [("uniform", np.ones(200)), ("popularity", counts)]:
        table = build_candidates(log, targets, 200, 3, distribution, 1)
        others = torch.ones_like(table.items, dtype=torch.bool)
        others[torch.arange(3000), table.positive_column] = False
        drawn = np.bincount(table.items[others].numpy(), minlength=200) / 9000
        if distribution == "uniform":
            assert drawn[20:].max() < 0.009 and drawn[20:199].min() > 0.002  # popular items are known to many users
        else:
            rare = (close_to > 0) & (close_to < 100)  # popular items cannot repeat within a list
            assert np.corrcoef(drawn[rare], close_to[rare])[0, 1] > 0.9


def test_a_user_who_knows_nearly_everything_still_gets_a_full_list() -> None:
    items = np.arange(1, 200, dtype=np.int32)
    nothing = np.zeros(0, np.int64)
    searches = Searches(nothing, nothing, nothing, nothing, Ragged(nothing, np.zeros(1, np.int64)))
    users, times = np.ones(199, np.int64), np.arange(199)
    log = build_event_log(np.append(users, 2), np.append(times, 0), np.append(items, 205), searches, 3)
    table = build_candidates(log, torch.tensor([198]), 206, 6, "uniform", 0)
    assert set(table.items[0].tolist()) == {199, 200, 201, 202, 203, 204, 205}
    with pytest.raises(DataError, match="never met only 6 items"):
        build_candidates(log, torch.tensor([198]), 206, 7, "uniform", 0)


def test_every_model_gets_the_same_candidates(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    inter = [f"u{u} i{rng.integers(300)} {t}" for u in range(30) for t in range(10)]
    write_toy(tmp_path, inter=inter, search=["u1 q1 0 i1"])
    hashes = set()
    for model, seed in [("SASRec", 1), ("GRU4Rec", 2), ("Pop", 3)]:
        dataset = load_dataset(tmp_path, "toy", model, require_both_histories=False, seed=seed)
        hashes.add(EvalLoader(dataset.config, dataset, "test").candidates.hash)
    assert len(hashes) == 1


@pytest.mark.parametrize("distribution", ["uniform", "popularity"])
def test_negatives_are_never_training_items_but_may_be_held_out_ones(
    toy: Callable[..., SERDataset], distribution: str
) -> None:
    others = [f"d i{k} {t}" for t in range(2) for k in (6, 7, 8, 9, 6, 7)]
    dataset = toy(inter=[f"a i{k} {k}" for k in range(1, 8)] + others, require_both_histories=False)
    sampler = NegativeSampler(dataset.log, dataset.split, dataset.target_num, distribution)
    users = torch.full((200,), dataset.token2id("user_id", "a"))
    drawn = {int(i) for i in sampler.draw(users, 5, torch.Generator().manual_seed(0)).flatten()}
    by_token = dataset.field2token_id["item_id"]
    training = {by_token[f"i{k}"] for k in range(1, 6)}
    assert not drawn & training and 0 not in drawn and by_token["x"] not in drawn
    assert {by_token["i6"], by_token["i7"]} <= drawn, "a's validation and test items are not left out"


def test_popularity_negatives_follow_the_training_targets() -> None:
    log = random_log(users=2000, items=100, events=8000, seed=4)
    split = split_instances(log, require_both_histories=False)
    sampler = NegativeSampler(log, split, 100, "popularity")
    drawn = sampler.draw(log.users[split.train].long(), 2, torch.Generator().manual_seed(1)).flatten()
    expected = torch.bincount(log.items[split.train], minlength=100).double()
    got = torch.bincount(drawn, minlength=100).double()
    tail = expected < 400
    assert torch.corrcoef(torch.stack([got[tail], expected[tail]]))[0, 1] > 0.97


@pytest.mark.parametrize("alpha", [0.0, 0.5, 2.0])
def test_negatives_by_a_power_of_popularity(alpha: float, toy: Callable[..., SERDataset]) -> None:
    items = np.random.default_rng(0).geometric(0.15, 600)
    dataset = toy(inter=[f"u{n % 200} i{items[n]} {n}" for n in range(600)], require_both_histories=False)
    sampler = NegativeSampler(dataset.log, dataset.split, dataset.target_num, "popularity", alpha)
    sampler.seen = sampler.seen[:0].new_tensor([-1])  # nobody knows anything, so that the shares are the drawn ones
    drawn = sampler.draw(torch.ones(20_000, dtype=torch.int64), 2, torch.Generator().manual_seed(1)).flatten()
    shares = torch.bincount(drawn, minlength=dataset.target_num) / len(drawn)
    targets = torch.bincount(dataset.log.items[dataset.split.train], minlength=dataset.target_num).double()
    expected = torch.where(targets > 0, targets**alpha, 0)
    assert (shares - expected / expected.sum()).abs().max() < 0.01


def test_a_user_with_every_item_is_an_error() -> None:
    log = random_log(users=2, items=3, events=200, seed=5)
    for distribution in ("uniform", "popularity"):
        with pytest.raises(DataError, match="knows every item"):
            NegativeSampler(log, split_instances(log, False), int(log.items.max()) + 1, distribution)
