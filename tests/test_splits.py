"""Splits by last targets, by shares and by time: against a slow reference, without leaks, and through whole runs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import command, load_dataset, write_toy
from recbole.data.dataset import Dataset
from test_click_times import Interaction, Search, write

from recbole_ser import testing
from recbole_ser.atomic.time_unit import unit_of
from recbole_ser.convert.amazon import convert
from recbole_ser.convert.layouts import trivago
from recbole_ser.data.codes import training_hash
from recbole_ser.data.dataset import SERDataset
from recbole_ser.data.loader import EvalLoader, TrainLoader
from recbole_ser.data.negatives import NegativeSampler
from recbole_ser.data.planted import SyntheticLogs, generate
from recbole_ser.data.splits import COMMON_SPLITS, held_out_counts, points_in_time, split_name
from recbole_ser.data.synthetic import write as write_logs
from recbole_ser.data.timed_dataset import TimedDataset
from recbole_ser.errors import ConfigError, DataError, UserError
from recbole_ser.evaluation.group_report import group_report
from recbole_ser.evaluation.groups import metric_values
from recbole_ser.inference import recommend
from recbole_ser.runner import run
from recbole_ser.runs.folder import RunFolder
from recbole_ser.runs.result import RunResult
from recbole_ser.testing import SMALL, ModelUnderTest
from recbole_ser.validation.report import validate

LS, RS, TS = COMMON_SPLITS
SPLITS = [LS, RS, {"RS": [2, 3, 1]}, {"TS": [0.5, 0.75]}, TS]
DAY = 24 * 60 * 60


def load(folder: Path, split: Any, both: bool = False, model: str = "SASRec", **values: Any) -> SERDataset:
    eval_args = {"mode": "uni3", "split": split}
    return load_dataset(folder, "toy", model, require_both_histories=both, eval_args=eval_args, **values)


# --- against a slow reference -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shares", [[0.8, 0.1, 0.1], [0.7, 0.2, 0.1], [2, 3, 1], [8, 1, 1], [1, 1, 1], [0.9, 0.05, 0.05]]
)
def test_shares_are_counted_as_recbole_does(shares: list[float]) -> None:
    counts = torch.arange(500)
    valid, test = held_out_counts({"RS": shares}, counts)
    normalised = [share / sum(shares) for share in shares]
    for count in counts.tolist():
        first, second = Dataset._calcu_split_ids(None, count, normalised)
        assert (second - first, count - second) == (valid[count], test[count])


def random_logs(seed: int, time: Callable[[int], float]) -> tuple[list[Interaction], list[Search]]:
    """Logs with many ties, also between the logs; some users do next to nothing, and one only searches."""
    draw = np.random.default_rng(seed)
    user = [0, 0, 1, 1, 1, 2, 2, 3, 4, 5, 5, 5, 5, 6]
    inter = [(f"u{draw.choice(user)}", f"i{draw.integers(25)}", time(int(draw.integers(25)))) for _ in range(110)]
    inter += [("u7", "i3", time(3)), ("u8", "i24", time(24)), ("u9", "i1", time(5)), ("u9", "i2", time(5))]
    searches = []
    for _ in range(70):
        at = int(draw.integers(25))
        clicks = [(f"i{draw.integers(25)}", time(at + int(draw.integers(6)))) for _ in range(draw.integers(4))]
        searches.append((f"u{draw.integers(11)}", f"q{draw.integers(9)}", time(at), clicks))
    return inter, searches


def reference(
    inter: list[Interaction], searches: list[Search], split: Any, both: bool, click_times: bool
) -> dict[str, list[Any]]:
    """What each split and the training period hold, by docs/protocol.md: targets as (user, place in time)."""
    ((kind, value),) = split.items()
    everyone = sorted(time for _, _, time in inter)
    found: dict[str, list[Any]] = {
        name: [] for name in ("train", "valid", "test", "interactions", "searches", "clicks", "search_train")
    }
    for user in sorted({user for user, _, _ in inter}):
        mine = sorted((row for row in inter if row[0] == user), key=lambda row: row[2])
        asked = sorted((row for row in searches if row[0] == user), key=lambda row: row[2])
        kept = [
            place for place, (_, _, time) in enumerate(mine)
            if not both or (place > 0 and any(search[2] < time for search in asked))
        ]  # fmt: skip
        if kind == "TS":
            first, second = (everyone[int(point * len(everyone))] for point in value)
            parts = [
                [place for place in kept if mine[place][2] < first],
                [place for place in kept if first <= mine[place][2] < second],
                [place for place in kept if second <= mine[place][2]],
            ]
            past = [place for place, row in enumerate(mine) if row[2] < first]
            end = first
        else:
            cuts = [len(kept) - 2, len(kept) - 1] if len(kept) >= 3 else [len(kept), len(kept)]
            if kind == "RS":
                cuts = Dataset._calcu_split_ids(None, len(kept), [share / sum(value) for share in value])
            parts = [kept[: cuts[0]], kept[cuts[0] : cuts[1]], kept[cuts[1] :]]
            held_out = parts[1] + parts[2]
            past = list(range(held_out[0] if held_out else len(mine)))
            end = mine[held_out[0]][2] if held_out else math.inf
        for name, places in zip(("train", "valid", "test", "interactions"), [*parts, past]):
            found[name] += [(user, place) for place in places]
        for number, (_, query, time, clicks) in enumerate(asked):
            if time < end:
                found["searches"].append((user, query))
                clicked = sorted(clicks, key=lambda click: click[1])[:2] if click_times else clicks[:2]
                for item, at in clicked:
                    if not click_times or at < end:
                        found["clicks"].append((user, query, item))
                        if not both or (number > 0 and any(row[2] < time for row in mine)):
                            found["search_train"].append((user, query, item))
    return found


def as_found(dataset: SERDataset) -> dict[str, list[Any]]:
    log, split = dataset.log, dataset.split
    users, queries, items = (dataset.field2id_token[field] for field in ("user_id", "query_id", "item_id"))

    def clicked(clicks: torch.Tensor) -> list[Any]:
        searches = log.searches_of_clicks(clicks)
        columns = (log.search_users(searches), log.queries[searches], log.clicks[clicks])
        return [(users[u], queries[q], items[i]) for u, q, i in zip(*columns)]

    targets = [split.train, split.valid, split.test, split.training_interactions]
    found: dict[str, list[Any]] = {
        name: [(users[log.users[at]], int(at - log.user_start[log.users[at]])) for at in positions.tolist()]
        for name, positions in zip(("train", "valid", "test", "interactions"), targets)
    }
    searches = split.training_searches
    found["searches"] = [(users[u], queries[q]) for u, q in zip(log.search_users(searches), log.queries[searches])]
    return {**found, "clicks": clicked(split.training_clicks), "search_train": clicked(split.search_train)}


TIMES: list[Callable[[int], float]] = [
    lambda number: number,
    lambda number: 1_700_000_000_123_456_789 + number,  # no float tells these apart
    lambda number: number / 4,
    lambda number: 1_700_000_000.125 + number,  # single precision does not tell these apart
]


@pytest.mark.parametrize("click_times", [False, True], ids=["searches", "clicks"])
@pytest.mark.parametrize("both", [True, False], ids=["both", "all"])
@pytest.mark.parametrize("split", SPLITS, ids=split_name)
def test_splits_equal_a_slow_reference(tmp_path: Path, split: Any, both: bool, click_times: bool) -> None:
    for seed, time in enumerate(TIMES):
        inter, searches = random_logs(seed, time)
        write(tmp_path / str(seed), inter, searches, click_times)
        dataset = load(tmp_path / str(seed), split, both)
        expected, found = reference(inter, searches, split, both, click_times), as_found(dataset)
        for name, rows in expected.items():
            order = {user: number for number, user in enumerate(dataset.field2id_token["user_id"])}
            assert found[name] == sorted(rows, key=lambda row: order[row[0]]) and rows, (seed, name)
        known = {dataset.field2id_token["item_id"][i] for i in dataset.log.items[dataset.split.training_interactions]}
        items = dataset.split.known_items
        assert (items is not None) == ("TS" in split)
        if items is not None:
            assert sorted(known) == sorted(dataset.field2id_token["item_id"][items])


def test_users_without_training_events_are_evaluated(tmp_path: Path) -> None:
    inter = [(user, f"{user}{n}", n) for user in "abc" for n in range(8)] + [("late", "a1", 6), ("late", "a2", 7)]
    write(tmp_path, inter, [("late", "q", 5, [("i1", 5)])])
    dataset = load(tmp_path, {"TS": [4, 6]})
    late = dataset.token2id("user_id", "late")
    assert (dataset.log.users[dataset.split.test] == late).sum() == 2
    assert not (dataset.log.users[dataset.split.training_interactions] == late).any()
    assert not len(dataset.split.training_searches)
    batch = next(iter(EvalLoader(dataset.config, dataset, "test")))[0]
    assert batch["search_length"][batch["user_id"] == late].tolist() == [1, 1], "what came since is in the history"


# --- points in time ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", [1, 1000], ids=["seconds", "milliseconds"])
@pytest.mark.parametrize(
    ("dates", "days"),
    [
        (["2014-05-03", "2014-05-05"], [2, 4]),
        (["2014-05-03T12:00:00+00:00", "2014-05-05T12:00:00"], [2.5, 4.5]),
        (["2014-05-03T14:00:00+02:00", "2014-05-05T12:00:00Z"], [2.5, 4.5]),
        (["2014-05-03", 1_399_248_000], [2, 4]),
    ],
)
def test_dates_are_times_in_the_unit_of_the_data(
    tmp_path: Path, unit: int, dates: list[Any], days: list[float]
) -> None:
    start = 1_398_902_400 * unit  # 2014-05-01
    inter = [(f"u{n % 3}", f"i{n}", start + n * DAY * unit // 2) for n in range(12)]
    write(tmp_path, inter, [])
    times = [int(start + day * DAY * unit) for day in days]
    dates = [date * unit if isinstance(date, int) else date for date in dates]
    first, second = load(tmp_path, {"TS": dates}), load(tmp_path, {"TS": times})
    assert points_in_time(dates, np.array([row[2] for row in inter])) == tuple(times)
    for part in ("train", "valid", "test", "training_interactions"):
        assert torch.equal(getattr(first.split, part), getattr(second.split, part)) and len(first.split.train)


def test_a_time_between_two_whole_numbers() -> None:
    times = np.arange(1_398_902_400, 1_398_902_410)
    assert points_in_time(["2014-05-01T00:00:02.500", 1_398_902_405], times) == (1_398_902_402.5, 1_398_902_405)


def test_dates_written_as_numbers_have_no_unit() -> None:
    assert [unit_of(time) for time in (202311142213, 1.7e12, 9.5e8, 1.7e18)] == [None, "ms", "s", "ns"]


def test_at_most_the_share_is_strictly_earlier() -> None:
    times = np.array([5, 1, 2, 2, 2, 3, 9, 9, 9, 9])
    assert points_in_time([0.2, 0.5], times) == (2, 5)
    assert points_in_time([0.01, 0.99], times) == (1, 9)


@pytest.mark.parametrize(
    ("split", "complaint"),
    [
        ({"TS": [0.5, 0.4]}, "TS: validation begins before test, so its first number is the smaller one"),
        (
            {"TS": [0.5, 0.501]},
            r"begins validation at time \d+ and test at \d+: choose a second point",
        ),
        ({"TS": ["2014-05-01", "2014-06-01"]}, "does not tell their unit"),
        ({"TS": ["2014-05-01T00:00:00.123456789", "2014-06-01"]}, "'2014-05-01T00:00:00.123456789' is no date"),
        ({"TS": ["soon", "later"]}, "'soon' is no date: write it like 2014-05-01"),
        ({"TS": [1, 50]}, r"no training target is left under eval_args.split TS \[1, 50\]"),
        ({"TS": [41, 42]}, "no validation target is left under eval_args.split"),
        ({"TS": [41, 99]}, "no test target is left under eval_args.split"),
        ({"RS": [0.8, 0.2]}, r"eval_args.split.RS is \[0.8, 0.2\]: it must be a list of 3"),
        ({"LS": "test_only"}, "eval_args.split.LS is 'test_only': it must be valid_and_test"),
    ],
)
def test_what_does_not_fit_the_data_is_refused(tmp_path: Path, split: Any, complaint: str) -> None:
    write_toy(tmp_path)
    with pytest.raises(UserError, match=complaint) as error:
        load(tmp_path, split)
    assert "\n" not in str(error.value)


# --- nothing of the future reaches training ---------------------------------------------------------------------------


START = SMALL.start + int(0.7 * SMALL.span)
POINTS = {"TS": [START, SMALL.start + int(0.85 * SMALL.span)]}


def with_events_from(logs: SyntheticLogs, time: int) -> SyntheticLogs:
    """The same logs with more events of every user at ``time`` and later, of items and queries that are known."""
    draw = np.random.default_rng(3)
    users = np.arange(SMALL.users)
    events = [np.concatenate([users, users]), draw.integers(SMALL.items, size=2 * SMALL.users)]
    searches = [np.concatenate([users, users]), draw.integers(SMALL.queries, size=2 * SMALL.users)]
    times = np.repeat([time, time + 10], SMALL.users)
    clicks = replace(
        logs.search_clicks,
        values=np.concatenate([logs.search_clicks.values, events[1]]),
        starts=np.concatenate([logs.search_clicks.starts, logs.search_clicks.starts[-1] + 1 + np.arange(len(times))]),
    )
    join = np.concatenate
    return replace(
        logs,
        user=join([logs.user, events[0]]), item=join([logs.item, events[1]]), time=join([logs.time, times]),
        search_user=join([logs.search_user, searches[0]]), search_query=join([logs.search_query, searches[1]]),
        search_time=join([logs.search_time, times]), search_clicks=clicks,
        search_source=join([logs.search_source, np.zeros(len(times), logs.search_source.dtype)]),
    )  # fmt: skip


def epoch_of(dataset: SERDataset) -> Iterator[dict[str, torch.Tensor]]:
    for batch in TrainLoader(dataset.config, dataset):
        yield batch.interaction
        if getattr(batch, "search", None) is not None:
            yield batch.search.interaction


@pytest.mark.parametrize(
    "model",
    ["SESRec", "UniSAR", "UnifiedSSR", "SRJGraph", "QuerySeqRec", "IV4REC", "JSR", "NRHUB", "USER", "SGL", "BPR"],
)
def test_later_events_of_anybody_change_nothing_in_training(tmp_path: Path, model: str) -> None:
    """Under TS all users get more events from the first point on; batches, losses and gradients stay the same."""
    logs = generate(SMALL)
    datasets, results = [], []
    for name, events in (("before", logs), ("after", with_events_from(logs, START))):
        write_logs(events, tmp_path / name)
        values = {"session_gap": 1000, "train_batch_size": 64, "num_threads": 1, "seed": 3}
        dataset = load_dataset(
            tmp_path, name, model, require_both_histories=False, eval_args={"mode": "uni3", "split": POINTS}, **values
        )
        torch.manual_seed(1)
        network = dataset.config.model_class(dataset.config, dataset)
        loss = torch.zeros(())
        for number, batch in enumerate(TrainLoader(dataset.config, dataset)):
            torch.manual_seed(number)
            part = network.calculate_loss(batch)
            loss = loss + (sum(part) if isinstance(part, tuple) else part).sum()
        loss.backward()
        datasets.append(dataset)
        results.append([loss.detach(), *(p.grad for p in network.parameters() if p.grad is not None)])
    assert len(datasets[1].log.items) > len(datasets[0].log.items)
    assert len(datasets[1].split.valid) > len(datasets[0].split.valid)
    batches = list(zip(epoch_of(datasets[0]), epoch_of(datasets[1]), strict=True))
    for before, after in batches:
        assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert len(results[0]) == len(results[1]) > 1
    assert all(torch.equal(before, after) for before, after in zip(*results)) and len(batches) > 3
    assert training_hash(datasets[0]) == training_hash(datasets[1])


@pytest.mark.parametrize("split", [RS, POINTS], ids=split_name)
@pytest.mark.parametrize("model", ["SESRec", "UnifiedSSR"])
def test_other_held_out_events_change_nothing_in_training(tmp_path: Path, model: str, split: Any) -> None:
    values = {"eval_args": {"mode": "uni19", "split": split}}
    testing.held_out_events_do_not_reach_training(ModelUnderTest(model, tmp_path, values))


def test_codes_belong_to_the_split_that_they_were_made_under(tmp_path: Path) -> None:
    write(tmp_path, *random_logs(1, int))
    hashes = [training_hash(load(tmp_path, split)) for split in SPLITS]
    assert len(set(hashes)) == len(SPLITS)


# --- candidates and negatives -----------------------------------------------------------------------------------------


def test_candidates_of_every_split(tmp_path: Path) -> None:
    write_logs(generate(SMALL), tmp_path / "toy")
    hashes = set()
    for split in SPLITS:
        dataset = load(tmp_path, split)
        log = dataset.log
        for phase in ("valid", "test"):
            loader = EvalLoader(dataset.config, dataset, phase)
            assert loader.candidates is not None
            hashes.add(loader.candidates.hash)
            assert len(loader.candidates.items) == len(getattr(dataset.split, phase)) == loader.rows
            assert torch.equal(loader.users, log.users[loader.positions])
            for target, items in zip(loader.positions.tolist(), loader.candidates.items.tolist()):
                user = int(log.users[target])
                met = set(log.items[log.user_start[user] : log.user_start[user + 1]].tolist())
                assert len(set(items)) == 4 and set(items) & met == {int(log.items[target])}
    assert len(hashes) == 2 * len(SPLITS)


@pytest.mark.parametrize("distribution", ["uniform", "popularity"])
def test_negatives_under_ts_are_items_that_training_knows(tmp_path: Path, distribution: str) -> None:
    inter = [(f"u{n % 4}", f"i{n % 4}{n % 3}", n) for n in range(40)] + [
        (f"u{n % 4}", f"new{n}", 50 + n) for n in range(30)
    ]
    write(tmp_path, inter, [])
    drawn = {}
    for name, split in (("TS", {"TS": [41, 60]}), ("LS", LS)):
        dataset = load(tmp_path, split)
        sampler = NegativeSampler(dataset.log, dataset.split, dataset.target_num, distribution)
        users = torch.full((300,), dataset.token2id("user_id", "u1"))
        ids = sampler.draw(users, 3, torch.Generator().manual_seed(0)).unique()
        drawn[name] = set(dataset.field2id_token["item_id"][ids])
    assert any(item.startswith("new") for item in drawn["LS"])
    assert drawn["TS"] and not any(item.startswith("new") for item in drawn["TS"])


def test_a_user_who_knows_all_that_training_knows_is_an_error(tmp_path: Path) -> None:
    inter = [("a", f"i{n}", n) for n in range(4)] + [("a", f"new{n}", 9 + n) for n in range(9)]
    write(tmp_path, inter, [])
    dataset = load(tmp_path, {"TS": [9, 12]})
    with pytest.raises(DataError, match="knows every item"):
        NegativeSampler(dataset.log, dataset.split, dataset.target_num, "uniform")


# --- whole runs -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunResult]:
    folder = tmp_path_factory.mktemp("splits")
    write_logs(generate(SMALL), folder / "data" / "small")
    found = {}
    for name, model, split, average in (
        ("rs", "SESRec", RS, "users"), ("rs-pop", "Pop", RS, "users"), ("rs-targets", "Pop", RS, "targets"),
        ("ts", "SESRec", TS, "users"), ("ts-pop", "Pop", TS, "users"), ("ls", "Pop", LS, "targets"),
        ("ls-users", "Pop", LS, "users"),
    ):  # fmt: skip
        values: dict[str, Any] = {
            "data_path": str(folder / "data"), "run_dir": str(folder / name), "epochs": 1, "show_progress": False,
            "state": "WARNING", "require_both_histories": False, "average_over": average,
            "eval_args": {"mode": "uni19", "split": split}, **({} if model == "Pop" else {"hidden_size": 8}),
        }  # fmt: skip
        found[name] = run(model, "small", config_dict=values)
    return found


@pytest.mark.parametrize("name", ["rs", "rs-targets", "ts", "ls", "ls-users"])
def test_metrics_are_those_of_the_ranks(runs: dict[str, RunResult], name: str) -> None:
    result = runs[name]
    assert result.folder is not None
    ranks = pd.read_csv(result.folder / "ranks.csv", dtype={"user_id": str})
    assert (ranks["user_id"].duplicated().any()) == (not name.startswith("ls"))
    assert len(ranks) == RunFolder.load(result.folder).data()["counts"]["test"]
    for metric, value in result.test.items():
        ranks["value"] = metric_values(ranks["rank"].to_numpy(), metric)
        over_users = ranks.groupby("user_id")["value"].mean().mean()
        assert value == pytest.approx(ranks["value"].mean() if name in ("rs-targets", "ls") else over_users, abs=1e-12)


def test_with_one_target_of_each_user_both_averages_are_the_same(runs: dict[str, RunResult]) -> None:
    assert runs["ls"].test == runs["ls-users"].test
    assert runs["rs-pop"].test != runs["rs-targets"].test


def test_results_name_the_split_and_the_average(runs: dict[str, RunResult]) -> None:
    assert {name: result.protocol for name, result in runs.items()} == {
        "rs": "uni19, RS [0.8, 0.1, 0.1], mean over users", "rs-pop": "uni19, RS [0.8, 0.1, 0.1], mean over users",
        "rs-targets": "uni19, RS [0.8, 0.1, 0.1]", "ts": "uni19, TS [0.8, 0.9], mean over users",
        "ts-pop": "uni19, TS [0.8, 0.9], mean over users", "ls": "uni19", "ls-users": "uni19, mean over users",
    }  # fmt: skip
    assert len({result.candidates["test"] for result in runs.values()}) == 3


@pytest.mark.parametrize("split", ["rs", "ts"])
def test_groups_count_a_user_once(runs: dict[str, RunResult], split: str, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [str(runs[name].folder) for name in (f"{split}-pop", split)]
    report = group_report(folders, ["ndcg@10", "mrr"], number=3)
    ranks = RunFolder.load(folders[0]).ranks()
    assert sum(report.users) == ranks["user_id"].nunique() < report.targets == len(ranks)
    for metric in report.metrics:
        for name in (f"{split}-pop", split):
            row = report.row(metric, "all", runs[name].model)
            assert row.value == pytest.approx(runs[name].test[metric], abs=1e-12) and row.users == sum(report.users)
    assert command("groups", *folders, "--edges", "1,4") == 0
    text = capsys.readouterr().out
    assert f"{report.targets:,} test targets: a value is the mean over users" in text
    assert "before the test target, the first of them" in text


def test_groups_are_by_the_searches_before_the_first_test_target(runs: dict[str, RunResult]) -> None:
    folder = RunFolder.load(str(runs["rs"].folder))
    dataset = load_dataset(
        folder.path.parent / "data", "small", require_both_histories=False, eval_args={"mode": "uni19", "split": RS}
    )
    lengths: dict[int, int] = {}
    for user, length in zip(dataset.log.users[dataset.split.test], dataset.log.search_length[dataset.split.test]):
        lengths.setdefault(int(user), int(length))
    report = group_report([folder.path], ["mrr"], edges=(1, 3))
    counts = np.array(list(lengths.values()))
    assert report.users == [(counts < 1).sum(), ((counts >= 1) & (counts < 3)).sum(), (counts >= 3).sum()]


@pytest.mark.parametrize(("first", "second"), [("ls", "rs-targets"), ("rs-pop", "ts-pop"), ("rs-pop", "rs-targets")])
def test_runs_with_different_splits_are_not_compared(runs: dict[str, RunResult], first: str, second: str) -> None:
    protocols = f"({runs[first].protocol} and {runs[second].protocol})"
    with pytest.raises(UserError, match="their protocols differ") as error:
        group_report([str(runs[first].folder), str(runs[second].folder)], ["mrr"])
    assert protocols in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["rs", "ts"])
def test_recommendations_of_such_runs(runs: dict[str, RunResult], name: str) -> None:
    found = recommend(str(runs[name].folder), ["u1", "u2"], k=3)
    assert found["user_id"].tolist() == ["u1"] * 3 + ["u2"] * 3 and np.isfinite(found["score"]).all()


def test_an_unknown_average_is_refused(tmp_path: Path) -> None:
    write_toy(tmp_path)
    values = {
        "data_path": str(tmp_path),
        "run_dir": str(tmp_path / "run"),
        "average_over": "items",
        "eval_args.mode": "full",
    }
    with pytest.raises(ConfigError, match="average_over is 'items': it must be targets or users"):
        run("Pop", "toy", config_dict=values)


# --- what the commands say --------------------------------------------------------------------------------------------


def test_commands_count_what_a_run_loads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, *random_logs(2, int))
    command("describe", tmp_path / "toy", "--json", tmp_path / "described.json")
    command("validate", tmp_path / "toy", "--json", tmp_path / "validated.json")
    described = json.loads((tmp_path / "described.json").read_text())["instances"]
    assert described == json.loads((tmp_path / "validated.json").read_text())["targets"]
    assert list(described) == ["LS", "RS [0.8, 0.1, 0.1]", "TS [0.8, 0.9]"]
    for split in COMMON_SPLITS:
        for both, protocol in ((True, "both_histories"), (False, "all_interactions")):
            dataset = load(tmp_path, split, both)
            numbers = {part: len(getattr(dataset.split, part)) for part in ("train", "valid", "test")}
            users = len(dataset.log.users[dataset.split.test].unique())
            assert described[split_name(split)][protocol] == {**numbers, "test_users": users}
    out = capsys.readouterr().out
    assert "targets with both histories" in out and "its targets, with both histories:" in out


def test_the_commands_count_one_split_that_they_are_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, *random_logs(2, int))
    dataset = load(tmp_path, {"TS": [9, 15]})
    for name, key in (("describe", "instances"), ("validate", "targets")):
        command(name, tmp_path / "toy", "--split", "{TS: [9, 15]}", "--json", tmp_path / "out.json")
        numbers = json.loads((tmp_path / "out.json").read_text())[key]
        assert list(numbers) == ["TS [9, 15]"]
        assert numbers["TS [9, 15]"]["all_interactions"]["test"] == len(dataset.split.test)
        assert "TS [9, 15]" in capsys.readouterr().out
        with pytest.raises(ConfigError, match="split is 'TS': it must be a mapping with LS, RS, TS"):
            command(name, tmp_path / "toy", "--split", "TS")
        with pytest.raises(ConfigError, match="validation begins before test"):
            command(name, tmp_path / "toy", "--split", "{TS: [0.8, 0.1]}")


def test_logs_without_two_points_in_time_are_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, [(f"u{n % 2}", f"i{n}", 5) for n in range(9)], [])
    assert validate(tmp_path / "toy").targets["TS [0.8, 0.9]"] is None
    command("validate", tmp_path / "toy")
    assert "  TS [0.8, 0.9]: none: both points in time are the same" in capsys.readouterr().out
    command("describe", tmp_path / "toy")
    assert f"  {'TS [0.8, 0.9]':<26}" + f"{'-':>13}" * 4 in capsys.readouterr().out


# --- real logs --------------------------------------------------------------------------------------------------------


def test_real_logs(real_data: Path, tmp_path: Path) -> None:
    """On Amazon's days many events share a time: nothing of the first day of validation is in training."""
    raw, folder = real_data / "amazon_cell", tmp_path / "toy"
    convert(raw / "reviews_Cell_Phones_and_Accessories_5.json.gz", raw, folder, "sesrec")
    dataset = TimedDataset(load(tmp_path, TS).config)
    log, split, times = dataset.log, dataset.split, dataset.item_times
    first, second = points_in_time(TS["TS"], times)
    everything = torch.arange(len(log.items))
    assert torch.equal(split.training_interactions.long(), everything[torch.from_numpy(times < first)])
    assert torch.equal(split.train, split.training_interactions)
    assert torch.equal(split.test.long(), everything[torch.from_numpy(times >= second)])
    assert len(split.train) + len(split.valid) + len(split.test) == len(times)
    assert len(split.training_searches) == (dataset.search_times < first).sum()
    assert dataset.search_times[split.training_searches.numpy()].max() < first
    assert 0.75 < len(split.train) / len(times) <= 0.8


def test_dates_of_a_real_log(real_data: Path, tmp_path: Path) -> None:
    trivago.convert([str(real_data / "trivago" / "trivago_val_100k.parquet")], tmp_path / "toy")
    dataset = TimedDataset(load(tmp_path, {"TS": ["2018-11-08", "2018-11-08T12:00:00+00:00"]}).config)
    days = pd.to_datetime(dataset.item_times, unit="s")
    assert (days[dataset.split.train.numpy()] < "2018-11-08").all() and (
        days[dataset.split.test.numpy()] >= "2018-11-08 12:00"
    ).all()
    assert days[dataset.split.valid.numpy()].min() == days[days >= "2018-11-08"].min()
    searched = pd.to_datetime(dataset.search_times[dataset.split.training_searches.numpy()], unit="s")
    assert searched.max() < pd.Timestamp("2018-11-08")
