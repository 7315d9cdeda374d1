"""Candidate lists and training negatives: distinct, unseen, fixed, and from the right distribution."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_ser.atomic.ragged import Ragged
from recbole_ser.data.candidates import build_candidates
from recbole_ser.data.dataset import SERDataset
from recbole_ser.data.histories import EventLog, Searches, build_event_log
from recbole_ser.data.negatives import NegativeSampler


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


def test_a_user_who_knows_nearly_everything_costs_a_bounded_number_of_rounds(
    toy: Callable[..., SERDataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    inter = [f"a i{k} {k}" for k in range(600)] + [f"b i{k} {k}" for k in range(500, 603)]
    dataset = toy(inter=inter, require_both_histories=False)
    sampler = NegativeSampler(dataset.log, dataset.split, dataset.target_num, "uniform")
    rounds = []
    once = sampler._draw
    monkeypatch.setattr(sampler, "_draw", lambda *given: rounds.append(given[0]) or once(*given))
    user = dataset.token2id("user_id", "a")
    drawn = sampler.draw(torch.full((512,), user), 1, torch.Generator().manual_seed(0))
    assert len(rounds) == 21
    known = dataset.log.items[dataset.split.training_interactions][
        dataset.log.users[dataset.split.training_interactions] == user
    ]
    assert not np.isin(drawn, known).any() and len(drawn.unique()) == dataset.target_num - 1 - len(known.unique())
