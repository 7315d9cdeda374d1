from __future__ import annotations

import csv
import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import command, load_dataset, write_toy
from scipy import stats
from written_runs import write_run

from recbole_ser.config import SERConfig
from recbole_ser.errors import ConfigError, UserError
from recbole_ser.evaluation import groups as groups_module
from recbole_ser.evaluation.evaluator import RankEvaluator
from recbole_ser.evaluation.group_report import group_report, write_tables
from recbole_ser.evaluation.groups import (
    Groups,
    Improvement,
    bootstrap_means,
    compare,
    improvement,
    metric_values,
    paired_p_value,
    quantile_groups,
)
from recbole_ser.runner import run as train
from recbole_ser.runs.folder import RunFolder

SECOND = 1 / math.log2(3)  # NDCG of rank 2

# User k has k searches before the last interaction; those at its own time and later do not count.
INTERACTIONS = [f"u{k} i{item} {10 * (item + 1)}" for k in range(6) for item in range(3)]
SEARCHES = [f"u{k} q1 {time} i1" for k in range(1, 6) for time in [*[5] * k, 30, 40]]
RANKS = {"SASRec": [1, 2, 11, 1, 2, 4], "SESRec": [1, 1, 1, 2, 2, 2]}


# --- groups -----------------------------------------------------------------------------------------------------------


def test_groups_begin_at_their_edges() -> None:
    groups = Groups((1, 5, 10))
    assert groups.labels == ["0", "1-4", "5-9", "10+"]
    assert groups.of(np.array([0, 1, 4, 5, 9, 10, 99])).tolist() == [0, 1, 1, 2, 2, 3, 3]
    assert groups.sizes(np.array([0, 1, 1, 7])) == [1, 2, 1, 0]
    assert Groups(()).labels == ["0+"]


@pytest.mark.parametrize(
    ("counts", "number", "edges"),
    [
        ([8, 1, 2, 3, 4, 5, 6, 7], 4, (3, 5, 7)),
        ([1, 1, 1, 1, 1, 2, 3, 9], 4, (3,)),  # the lower quartiles are all 1
        ([0, 0, 0, 0], 4, ()),
        ([1, 2, 3], 1, ()),
        ([5, 3], 4, (5,)),
    ],
)
def test_quantiles_leave_equal_counts_together(counts: list[int], number: int, edges: tuple[int, ...]) -> None:
    assert quantile_groups(np.array(counts), number).edges == edges


def test_there_is_at_least_one_group() -> None:
    with pytest.raises(ConfigError, match="0 groups"):
        quantile_groups(np.array([1, 2]), 0)


# --- metrics and improvements -----------------------------------------------------------------------------------------


def test_metrics_are_those_of_the_evaluation(tmp_path: Path) -> None:
    write_toy(tmp_path)
    config = SERConfig("SASRec", "toy", None, {"data_path": str(tmp_path)})
    ranks = torch.tensor([1, 2, 3, 5, 6, 10, 11, 100])
    expected = RankEvaluator(config).evaluate(ranks)
    assert {"hit@5", "ndcg@10", "mrr@5", "mrr"} <= set(expected)
    for name, value in expected.items():
        assert metric_values(ranks.numpy(), name.upper()).mean() == pytest.approx(value, abs=1e-9), name


@pytest.mark.parametrize("metric", ["ndcg", "hit@0", "recall@5", "mrr@", "hit@1.5"])
def test_unknown_metrics_are_refused(metric: str) -> None:
    with pytest.raises(ConfigError, match="use Hit@k, NDCG@k"):
        metric_values(np.ones(2), metric)


def pairs(users: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    base = generator.integers(1, 15, users)
    better = np.maximum(base - generator.integers(0, 4, users), 1)
    return metric_values(base, "ndcg@10"), metric_values(better, "ndcg@10")


def test_bootstrap_means_are_those_of_the_drawn_users_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    base, other = pairs(30)
    distinct = sorted(set(zip(base.tolist(), other.tolist())))
    shares = [sum(pair == (a, b) for a, b in zip(base, other)) / 30 for pair in distinct]
    generator = np.random.default_rng(7)
    expected = []
    for _ in range(20):
        drawn = generator.multinomial(30, shares)
        users = [pair for pair, times in zip(distinct, drawn) for _ in range(times)]
        expected.append([sum(a for a, _ in users) / 30, sum(b for _, b in users) / 30])
    np.testing.assert_allclose(bootstrap_means(base, other, 20, np.random.default_rng(7)), expected, rtol=1e-12)
    monkeypatch.setattr(groups_module, "_BLOCK", 3 * len(distinct))  # three resamples at a time
    np.testing.assert_allclose(bootstrap_means(base, other, 20, np.random.default_rng(7)), expected, rtol=1e-12)


def test_the_interval_is_that_of_a_plain_bootstrap() -> None:
    base, other = pairs(80)
    generator = np.random.default_rng(1)
    changes = []
    for _ in range(4000):
        users = generator.integers(0, 80, 80)
        changes.append(100 * (other[users].mean() / base[users].mean() - 1))
    low, high = np.percentile(changes, [2.5, 97.5])
    found = improvement(base, other, resamples=4000)
    assert found.percent == pytest.approx(100 * (other.mean() / base.mean() - 1))
    assert found.low is not None and found.high is not None
    margin = 0.05 * (high - low)
    assert found.low == pytest.approx(low, abs=margin) and found.high == pytest.approx(high, abs=margin)
    assert improvement(base, other, seed=3) == improvement(base, other, seed=3) != improvement(base, other, seed=4)


def test_the_users_of_both_runs_are_the_same_in_each_resample() -> None:
    base, _ = pairs(50)
    found = improvement(base, 2 * base)
    assert found.percent == found.low == found.high == pytest.approx(100.0)


def test_what_cannot_be_said_is_none() -> None:
    nothing, hit = np.zeros(4), np.array([0.0, 0.0, 0.0, 1.0])
    assert improvement(nothing, hit) == Improvement(None, p=paired_p_value(nothing, hit))
    one_hit = improvement(hit, np.ones(4))  # a resample without the fourth user has no baseline
    assert one_hit.percent == pytest.approx(300.0) and one_hit.low is one_hit.high is None
    assert paired_p_value(np.ones(1), np.zeros(1)) is None
    assert paired_p_value(hit, hit) == 1.0


def test_p_is_that_of_a_paired_t_test() -> None:
    base, other = pairs(25)
    assert paired_p_value(base, other) == pytest.approx(stats.ttest_rel(other, base).pvalue, rel=1e-9)


def test_rows_by_hand() -> None:
    ranks = {name: np.array(values) for name, values in RANKS.items()}
    rows = compare(ranks, np.arange(6), Groups((3, 9)), ["hit@1", "ndcg@10"])
    found = {(row.metric, row.group, row.run): row for row in rows}
    assert len(rows) == len(found) == 2 * 4 * 2
    assert found["hit@1", "0-2", "SASRec"].value == pytest.approx(1 / 3)
    assert found["hit@1", "3-8", "SASRec"].value == pytest.approx(1 / 3)
    assert found["ndcg@10", "0-2", "SASRec"].value == pytest.approx((1 + SECOND) / 3)
    assert found["ndcg@10", "all", "SESRec"].value == pytest.approx((3 + 3 * SECOND) / 6)
    assert found["hit@1", "all", "SASRec"].gain is None
    gain = found["hit@1", "0-2", "SESRec"].gain
    assert gain is not None and gain.percent == pytest.approx(200.0)
    gain = found["hit@1", "all", "SESRec"].gain
    assert gain is not None and gain.percent == pytest.approx(50.0)
    assert gain.p == pytest.approx(stats.ttest_rel([1, 1, 1, 0, 0, 0], [1, 0, 0, 1, 0, 0]).pvalue)
    empty = found["ndcg@10", "9+", "SESRec"]
    assert (empty.users, empty.value, empty.gain) == (0, None, None)
    assert [row.users for row in rows if row.metric == "hit@1" and row.run == "SASRec"] == [3, 3, 0, 6]


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_toy(tmp_path, inter=INTERACTIONS, search=SEARCHES)
    return tmp_path


@pytest.fixture
def runs(folder: Path) -> list[Path]:
    return [write_run(folder, model, ranks) for model, ranks in RANKS.items()]


def test_tables_in_the_terminal(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert command("groups", *runs, "--groups", "2", "--metric", "Hit@1") == 0
    text = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[0] == "toy, uni99: 6 users by their searches before the test target"
    assert "edges: 3 (quantiles)" in lines
    assert lines[4:7] == ["0-2 3 1", "3+ 3 5", "all 6 6"]  # by all their searches the users have 0, 3, 4, 5, 6 and 7
    assert lines[8:11] == ["hit@1 0-2 3+ all", "SASRec 0.3333 0.3333 0.3333", "SESRec 1.0000 0.0000 0.5000"]
    assert lines[14].startswith("SESRec 0-2 3 +200.0 - 0.18")  # t = 2 with two degrees of freedom
    assert lines[15].startswith("3+ 3 -100.0 - 0.42")
    assert max(map(len, text.splitlines())) <= 100


def test_one_run_alone_has_no_improvement(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert command("groups", runs[0], "--edges", "1,4") == 0
    text = capsys.readouterr().out
    assert "edges: 1, 4 (as given)" in text and "ndcg@10" in text and "improvement" not in text


def test_files(runs: list[Path], tmp_path: Path) -> None:
    report = group_report(runs, ["hit@1", "mrr"], edges=(2, 4))
    write_tables(report, tmp_path / "out")
    written = json.loads((tmp_path / "out" / "groups.json").read_text())
    assert written["groups"] == ["0-1", "2-3", "4+"]
    assert written["users"] == [2, 2, 2] and written["all_users"] == [1, 1, 4]
    assert written["runs"] == {"SASRec": str(runs[0]), "SESRec": str(runs[1])}
    with (tmp_path / "out" / "group_metrics.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == 2 * 4 * 2
    row = next(r for r in rows if (r["metric"], r["searches"], r["run"]) == ("mrr", "0-1", "SESRec"))
    assert float(row["value"]) == 1.0 and float(row["improvement_percent"]) == pytest.approx(100 / 3)
    assert [r["low"] for r in rows if r["run"] == "SASRec"] == [""] * 8
    assert (tmp_path / "out" / "group_sizes.csv").read_text().splitlines()[1] == "0-1,2,1"


def test_plots(runs: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra plot)")
    assert command("groups", *runs, "--edges", "1,4,50", "--metric", "Hit@1,MRR", "--out", tmp_path / "out") == 0
    plots = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert plots == ["group_sizes.png", "hit@1.png", "hit@1_improvement.png", "mrr.png", "mrr_improvement.png"]
    for name in plots:
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_tables_are_there(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=r'pip install "recbole_ser\[plot\]"'):
        command("groups", *runs, "--out", tmp_path / "out")
    assert "SESRec" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "group_metrics.csv", "group_sizes.csv", "groups.json",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ({"fingerprint": "f" * 64}, r"their data sets differ \([0-9a-f]{12} and ffffffffffff\)"),
        ({"candidates": {"test": "beef"}}, r"their test candidates differ \(c0ffee and beef\)"),
        ({"candidates": {}}, r"their test candidates differ \(c0ffee and none\)"),
        ({"protocol": "full"}, r"their protocols differ \(uni99 and full\)"),
        ({"counts": {"users": 5}}, "their numbers of users, items or events differ"),
    ],
)
def test_runs_on_other_data_or_candidates_are_refused(data: dict[str, Any], complaint: str, folder: Path) -> None:
    first = write_run(folder, "SASRec", RANKS["SASRec"])
    other = write_run(folder, "SESRec", RANKS["SESRec"], **data)
    with pytest.raises(UserError, match=complaint) as error:
        command("groups", first, other)
    assert str(first) in str(error.value) and str(other) in str(error.value) and "\n" not in str(error.value)


def test_runs_with_other_targets_are_refused_where_the_whole_catalogue_is_ranked(folder: Path) -> None:
    """Also where their numbers agree: `targets` is a hash of the users and items."""
    full = {"protocol": "full", "candidates": {}}
    one = write_run(folder, "SASRec", RANKS["SASRec"], **full)
    other = write_run(folder, "SESRec", RANKS["SESRec"], **full, targets={"test": "beef"})
    with pytest.raises(UserError, match=r"cannot be compared: their test targets differ \(\w{12} and beef\)"):
        command("groups", one, other)
    hashes = [load_dataset(folder, "toy", require_both_histories=both).target_hash("test") for both in (True, False)]
    assert hashes[0] != hashes[1] and hashes[1] == RunFolder(one).data()["targets"]["test"]


def test_runs_whose_ranks_are_of_other_users_are_refused(runs: list[Path]) -> None:
    folder, ranks = RunFolder(runs[1]), RunFolder(runs[1]).ranks()
    names = ranks["user_id"].replace("u3", "u9").to_numpy()
    checksum = folder.write_ranks(names, torch.from_numpy(ranks["rank"].to_numpy()))
    folder.write_result(replace(folder.result(), ranks=checksum))
    with pytest.raises(UserError, match="has other users than that of"):
        command("groups", *runs)
    with pytest.raises(UserError, match="are not those of the test split"):
        command("groups", runs[1])


def test_data_that_have_changed_since_the_run_are_refused(runs: list[Path], folder: Path) -> None:
    write_toy(folder, inter=INTERACTIONS, search=SEARCHES[1:])
    with pytest.raises(UserError, match="the files of data set 'toy' have changed since this run"):
        command("groups", *runs)


def test_folders_without_a_finished_run_are_refused(runs: list[Path], folder: Path) -> None:
    (runs[0] / "ranks.csv").unlink()
    with pytest.raises(UserError, match=r"ranks\.csv: missing or damaged"):
        command("groups", *runs)
    with pytest.raises(UserError, match="not the folder of a run"):
        command("groups", folder / "nowhere")
    assert not (folder / "nowhere").exists()


def test_runs_of_the_same_model_go_by_their_folders(runs: list[Path], folder: Path) -> None:
    again = write_run(folder, "SASRec", RANKS["SESRec"])
    report = group_report([*runs, again], ["mrr"])
    assert list(report.runs) == ["SASRec-0", "SESRec", "SASRec-2"]
    with pytest.raises(UserError, match="given twice"):
        command("groups", runs[0], runs[0])


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--edges", "1;5"], "write whole numbers like 1,5,10"),
        (["--edges", "0,5"], "the first above 0"),
        (["--edges", "5,5"], "above the one before it"),
        (["--groups", "0"], "0 groups"),
        (["--metric", "recall@5"], "'recall@5' is not known"),
        (["--seed", "-1"], "--seed -1 is negative"),
    ],
)
def test_wrong_options_are_refused(options: list[str], complaint: str, runs: list[Path]) -> None:
    with pytest.raises(ConfigError, match=complaint):
        command("groups", runs[0], *options)


def test_a_real_run_of_the_bundled_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    results = [train(name, "ser-sample", config_dict={"epochs": 1, "run_dir": name}) for name in ("Pop", "BPR")]
    report = group_report(["Pop", "BPR"], list(results[0].test))
    assert len(report.groups) == 4 and sum(report.users) == RunFolder.load("Pop").data()["counts"]["test"]
    for metric in report.metrics:
        for result in results:
            assert report.row(metric, "all", result.model).value == pytest.approx(result.test[metric], abs=1e-9)
            inside = [report.row(metric, label, result.model) for label in report.groups]
            total = sum(row.users * row.value for row in inside if row.value is not None)
            assert total / sum(report.users) == pytest.approx(result.test[metric], abs=1e-9)
