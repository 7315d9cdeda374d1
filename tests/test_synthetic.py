"""Synthetic logs: exact sizes, the same bytes every time, and a signal that is planted in the searches alone."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import command

from recbole_ser.atomic.ragged import Ragged
from recbole_ser.atomic.reading import read_atomic, read_header
from recbole_ser.data.planted import SyntheticLogs, SyntheticSpec, generate, shuffle_searches_between_users
from recbole_ser.data.synthetic import PRESETS, write
from recbole_ser.errors import ConfigError

SAMPLE = Path(__file__).parents[1] / "dataset_atomic" / "ser-sample"
SPEC = PRESETS["ser-sample"]
SMALL = [PRESETS["kindle"].scaled(0.02), PRESETS["kuaishou"].scaled(0.01), SPEC]
LOGS = generate(SPEC)


def arrays(logs: SyntheticLogs) -> list[np.ndarray]:
    values = [getattr(logs, field.name) for field in fields(logs)]
    return [
        array for value in values for array in ([value.values, value.starts] if isinstance(value, Ragged) else [value])
    ]


def read_all(folder: Path) -> dict[str, pd.DataFrame]:
    """Every file of a data set, with no value missing but clicks."""
    tables = {}
    for suffix in ("inter", "search", "query", "item", "user"):
        path = folder / f"{folder.name}.{suffix}"
        columns = read_header(path)
        filled = [column.name for column in columns if column.name != "clicked_items"]
        tables[suffix] = read_atomic(path, columns, required=filled)
    return tables


def test_bundled_sample_is_what_the_generator_writes(tmp_path: Path) -> None:
    written = write(LOGS, tmp_path / "ser-sample")
    assert sorted(path.name for path in written) == sorted(path.name for path in SAMPLE.iterdir())
    for path in written:
        assert path.read_bytes() == (SAMPLE / path.name).read_bytes(), path.name


def test_files_do_not_depend_on_how_many_rows_are_written_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recbole_ser.data.synthetic.ROWS_AT_A_TIME", 999)
    for path in write(LOGS, tmp_path / "ser-sample"):
        assert path.read_bytes() == (SAMPLE / path.name).read_bytes(), path.name


def test_bundled_sample_is_small_and_leaves_99_candidates() -> None:
    assert sum(path.stat().st_size for path in SAMPLE.iterdir()) < 1_000_000
    assert SPEC.items - np.bincount(LOGS.user).max() >= 99


def test_presets_have_the_published_sizes() -> None:
    def sizes(spec: SyntheticSpec) -> tuple[int, ...]:
        return spec.users, spec.items, spec.queries, spec.interactions, spec.searches

    assert sizes(PRESETS["kindle"]) == (68_223, 61_934, 4_298, 982_619, 934_664)
    assert sizes(PRESETS["kuaishou"]) == (35_721, 822_832, 398_924, 11_381_172, 922_531)


@pytest.mark.parametrize("spec", SMALL, ids=["kindle", "kuaishou", "sample"])
def test_files_are_valid_and_counts_exact(spec: SyntheticSpec, tmp_path: Path) -> None:
    write(generate(spec), tmp_path / "logs")
    tables = read_all(tmp_path / "logs")
    inter, search = tables["inter"], tables["search"]
    assert (len(inter), len(search)) == (spec.interactions, spec.searches)
    assert inter.user_id.nunique() == len(tables["user"]) == spec.users
    assert inter.item_id.nunique() == len(tables["item"]) == spec.items
    assert search.query_id.nunique() == len(tables["query"]) == spec.queries
    assert set(search.user_id) <= set(inter.user_id)
    assert inter.user_id.value_counts().min() >= 5
    assert not inter.duplicated(["user_id", "item_id"]).any()
    clicks = search.clicked_items.astype(object).dropna().str.split(" ")
    assert clicks.str.len().max() == spec.max_clicks
    assert set(clicks.explode()) <= set(inter.item_id)
    terms = tables["query"].terms.astype(str)
    assert terms.is_unique and terms.str.split(" ").str.len().max() <= spec.max_terms
    for table in (inter, search):
        times = table.timestamp.to_numpy()
        assert times.dtype == np.int64 and (np.diff(times) >= 0).all()
        assert times[0] >= spec.start and times[-1] < spec.start + spec.span
        assert not ((times - spec.start) % spec.granularity).any()


@pytest.mark.parametrize("spec", SMALL, ids=["kindle", "kuaishou", "sample"])
def test_lengths_and_popularity_are_skewed(spec: SyntheticSpec) -> None:
    logs = generate(spec)
    for uses in (np.bincount(logs.user), np.bincount(logs.item)):
        assert np.quantile(uses, 0.99) > 2 * np.median(uses)


def test_same_seed_same_logs_and_another_seed_other_logs() -> None:
    assert all(np.array_equal(a, b) for a, b in zip(arrays(LOGS), arrays(generate(SPEC))))
    other = generate(replace(SPEC, seed=SPEC.seed + 1))
    assert not np.array_equal(LOGS.item, other.item) and not np.array_equal(LOGS.search_query, other.search_query)


def test_users_search_often_seldom_or_never() -> None:
    rate = np.bincount(LOGS.search_user, minlength=SPEC.users) / np.bincount(LOGS.user)
    rich, sparse, none = (rate[LOGS.user_level == level] for level in range(3))
    assert min(len(rich), len(sparse), len(none)) >= 50
    assert rich.mean() > 3 * sparse.mean() > 0
    assert not none.any()


def test_events_tie_within_and_between_the_logs() -> None:
    interactions = pd.MultiIndex.from_arrays([LOGS.user, LOGS.time])
    searches = pd.MultiIndex.from_arrays([LOGS.search_user, LOGS.search_time])
    assert 0.02 < interactions.duplicated().mean() < 0.1
    assert 0.02 < searches.isin(interactions).mean() < 0.1


def test_words_and_clicks_tell_the_topic_of_a_query() -> None:
    topic = np.arange(SPEC.queries) % SPEC.topics
    own_words = LOGS.query_terms.padded(2)  # [queries, 2]
    topics_of_word = (
        pd.DataFrame({"topic": np.repeat(topic, 2), "word": own_words.ravel()}).groupby("word").topic.nunique()
    )
    assert (topics_of_word == 1).all() and (own_words[:, 0] != own_words[:, 1]).all()
    assert len(np.setdiff1d(LOGS.query_terms.values, own_words)) > 0, "common words"
    words_of_topic = {number: set(own_words[topic == number].ravel()) for number in range(SPEC.topics)}
    for item, words in enumerate(LOGS.item_terms.padded(2).tolist()):
        assert set(words) & words_of_topic[item % SPEC.topics], "so does the title of an item"
    search = np.repeat(np.arange(SPEC.searches), np.diff(LOGS.search_clicks.starts))
    clicks = LOGS.search_clicks.values
    assert (clicks % SPEC.topics == LOGS.search_query[search] % SPEC.topics).all()
    assert not pd.MultiIndex.from_arrays([search, clicks]).duplicated().any()
    assert set(np.diff(LOGS.search_clicks.starts)) == set(range(SPEC.max_clicks + 1))


def test_mirrored_searches_are_the_events_of_interactions() -> None:
    spec = SMALL[0]
    logs = generate(spec)
    assert (np.diff(logs.search_clicks.starts) == 1).all()
    interactions = pd.MultiIndex.from_arrays([logs.user, logs.item, logs.time])
    searches = pd.MultiIndex.from_arrays([logs.search_user, logs.search_clicks.values, logs.search_time])
    assert searches.is_unique and searches.isin(interactions).all()
    query_of_item = pd.DataFrame({"item": logs.search_clicks.values, "query": logs.search_query}).groupby("item")[
        "query"
    ]
    assert (query_of_item.nunique() == 1).all()


@dataclass
class Targets:
    """Interactions with a user's event before them in either log, which is what the papers evaluate on."""

    user: np.ndarray
    item: np.ndarray
    previous: np.ndarray  # the item before
    query: np.ndarray  # the latest query strictly before
    source: np.ndarray  # of that query
    clicks: Ragged  # under that query
    is_recent: np.ndarray  # whether that query is not from before the previous interaction
    is_test: np.ndarray  # the user's last
    is_training: np.ndarray  # neither the user's last nor second last


def targets(logs: SyntheticLogs) -> Targets:
    order = np.lexsort([logs.time, logs.user])
    user, item, time = logs.user[order], logs.item[order], logs.time[order]
    search_order = np.lexsort([logs.search_time, logs.search_user])
    search_user = logs.search_user[search_order]
    span = 1 + max(logs.time.max(), logs.search_time.max())
    moments = search_user * span + logs.search_time[search_order]
    latest = np.searchsorted(moments, user * span + time, side="left") - 1
    recent = moments[latest] >= np.append(-1, (user * span + time)[:-1])
    kept = np.flatnonzero((np.diff(user, prepend=-1) == 0) & (latest >= 0) & (search_user[latest] == user))
    search = search_order[latest[kept]]
    from_last = pd.Series(user[kept]).groupby(user[kept]).cumcount(ascending=False).to_numpy()
    return Targets(
        user[kept], item[kept], item[kept - 1], logs.search_query[search], logs.search_source[search],
        logs.search_clicks.take(search), recent[kept], from_last == 0, from_last >= 2,
    )  # fmt: skip


def ndcg(scores: np.ndarray, logs: SyntheticLogs, test: Targets) -> float:
    """NDCG@10 of each test target, by ``scores`` ``[targets, items]``, among 99 items that its user never had."""
    rows = np.flatnonzero(test.is_test)
    random = np.random.default_rng(0)
    draw = random.random((len(rows), scores.shape[1]))
    seen = np.zeros((len(logs.user_level), scores.shape[1]), dtype=bool)
    seen[logs.user, logs.item] = True
    draw[seen[test.user[rows]]] = 2  # [test targets, items]
    negatives = np.argsort(draw, axis=1)[:, :99]
    scores = scores[rows] + 1e-9 * random.random((len(rows), scores.shape[1]))
    positive = np.take_along_axis(scores, test.item[rows, None], axis=1)
    rank = (np.take_along_axis(scores, negatives, axis=1) > positive).sum(axis=1)
    return float(np.where(rank < 10, 1 / np.log2(rank + 2), 0).mean())


def rank_by_counting(logs: SyntheticLogs, spec: SyntheticSpec) -> dict[str, float]:
    """NDCG@10 of what one can count in the training targets: popularity, item after item, item after query."""
    every = targets(logs)
    item = every.item[every.is_training]
    popularity = np.bincount(item, minlength=spec.items) / len(item)
    after_item, after_query = np.zeros((spec.items, spec.items)), np.zeros((spec.queries, spec.items))
    np.add.at(after_item, (every.previous[every.is_training], item), 1)
    np.add.at(after_query, (every.query[every.is_training], item), 1)
    scores = {
        "popularity": np.broadcast_to(popularity, (len(every.item), spec.items)),
        "item": after_item[every.previous] + popularity,
        "query": after_query[every.query] + popularity,
    }
    return {name: ndcg(score, logs, every) for name, score in scores.items()}


def test_searches_decide_the_next_item() -> None:
    found = rank_by_counting(LOGS, SPEC)
    assert found["query"] > 1.7 * found["item"] > 3 * found["popularity"]


def test_shuffled_searches_decide_nothing() -> None:
    found = rank_by_counting(shuffle_searches_between_users(LOGS, 1), SPEC)
    assert found["query"] < 1.2 * found["popularity"]


def test_searches_that_nobody_follows_decide_nothing() -> None:
    spec = replace(SPEC, follow=0.0, communities=0)
    found = rank_by_counting(generate(spec), spec)
    assert found["query"] < 1.2 * found["popularity"]
    assert found["item"] > 2 * found["popularity"], "the sequels remain"


def test_noise_comes_mostly_from_the_last_source_and_is_not_followed() -> None:
    every = targets(LOGS)
    follows = every.item % SPEC.topics == every.query % SPEC.topics
    last = every.source == SPEC.sources - 1
    assert follows[every.is_recent & ~last].mean() > 0.8
    assert follows[every.is_recent & last].mean() < follows[every.is_recent & ~last].mean() - 0.1


def test_a_search_decides_the_very_next_item_only() -> None:
    logs = generate(replace(SPEC, communities=0, stay=0.0))
    every = targets(logs)
    follows = every.item % SPEC.topics == every.query % SPEC.topics
    assert follows[every.is_recent].mean() > 0.8 and follows[~every.is_recent].mean() < 0.1


@pytest.mark.parametrize("level", [0, 1, 2], ids=["rich", "sparse", "none"])
def test_a_community_has_one_taste_however_often_its_users_search(level: int) -> None:
    logs = generate(replace(SPEC, stay=0.0, follow=0.0))
    likes = logs.item % SPEC.topics % SPEC.communities == logs.user_community[logs.user]
    by_chance = 1 / SPEC.communities
    expected = SPEC.taste + (1 - SPEC.taste) * by_chance
    assert likes[logs.user_level[logs.user] == level].mean() == pytest.approx(expected, abs=0.05)
    searched = logs.search_query % SPEC.topics % SPEC.communities == logs.user_community[logs.search_user]
    assert searched.mean() == pytest.approx(expected, abs=0.05)


def test_a_search_at_the_very_time_comes_too_late() -> None:
    logs = generate(replace(SPEC, communities=0))
    pairs = pd.merge(
        pd.DataFrame({"user": logs.user, "time": logs.time, "item": logs.item}),
        pd.DataFrame({"user": logs.search_user, "time": logs.search_time, "query": logs.search_query}),
        on=["user", "time"],
    )
    assert len(pairs) > 200
    assert (pairs["item"] % SPEC.topics == pairs["query"] % SPEC.topics).mean() < 0.1


def test_clicks_seldom_give_the_next_item_away() -> None:
    every = targets(LOGS)
    search = np.repeat(np.arange(len(every.item)), np.diff(every.clicks.starts))
    given = every.clicks.values == every.item[search]
    same_topic = every.clicks.values % SPEC.topics == every.item[search] % SPEC.topics
    assert given.sum() < 0.05 * same_topic.sum()


def test_shuffling_moves_whole_searches_and_keeps_who_and_when() -> None:
    def contents(logs: SyntheticLogs) -> list[tuple[int, ...]]:
        clicks = logs.search_clicks.padded(SPEC.max_clicks)
        return sorted(map(tuple, np.column_stack([logs.search_query, logs.search_source, clicks]).tolist()))

    shuffled = shuffle_searches_between_users(LOGS, 1)
    for name in ("user", "item", "time", "search_user", "search_time"):
        assert np.array_equal(getattr(shuffled, name), getattr(LOGS, name))
    assert contents(shuffled) == contents(LOGS)
    assert (shuffled.search_query == LOGS.search_query).mean() < 0.05
    assert not np.array_equal(shuffled.search_query, shuffle_searches_between_users(LOGS, 2).search_query)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"interactions": 4_999}, "fewer than 5 interactions per user"),
        ({"queries": 31}, "fewer queries than topics"),
        ({"searches": 13_001}, "more searches than interactions"),
        ({"max_clicks": 12}, "too few items per topic"),
        ({"terms": 40}, "too few terms"),
        ({"searches": 12_999}, "users who search"),
        ({"items": 128, "interactions": 70_000}, "of 128 items"),
    ],
)
def test_impossible_logs_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        generate(replace(SPEC, **change))


def test_command_writes_the_files_and_names_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "mine"
    assert command("synthesize", "--preset", "kindle", "--scale", "0.005", "--seed", "7", "--out", str(out)) == 0
    printed = capsys.readouterr().out
    assert all(str(path) in printed for path in out.iterdir())
    assert len(read_all(out)["inter"]) == round(982_619 * 0.005)


@pytest.mark.parametrize("words", [["--scale", "0"], ["--scale", "nan"], ["--scale", "1e-6"], ["--seed", "-1"]])
def test_command_refuses_nonsense(words: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        command("synthesize", "--preset", "kuaishou", "--out", str(tmp_path / "logs"), *words)
    assert not (tmp_path / "logs").exists()
