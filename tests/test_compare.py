"""``recbole-ser compare``: rows, metrics, tests of significance, groups of targets, and the formats of its tables."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import command, load_dataset, write_lines, write_toy
from recbole.evaluator.metrics import GiniIndex, ItemCoverage
from scipy import stats
from written_runs import write_run

from recbole_ser.bundled import package_folder
from recbole_ser.comparison.beyond_accuracy import beyond_accuracy, top_lists
from recbole_ser.comparison.report import Comparison, Options, compare_runs
from recbole_ser.comparison.rows import find_runs, read_rows, tables_in
from recbole_ser.comparison.tables import FORMATS, tables_of
from recbole_ser.comparison.traits import TRAITS, TargetTraits
from recbole_ser.config import SERConfig
from recbole_ser.errors import ConfigError, UserError
from recbole_ser.evaluation.evaluator import RankEvaluator
from recbole_ser.evaluation.metrics import Metric, parse_metrics
from recbole_ser.evaluation.significance import holm, paired_p_value, sign_flip_p_value, wilcoxon_p_value
from recbole_ser.runner import protocol_name
from recbole_ser.runner import run as train
from recbole_ser.runs.folder import RunFolder
from recbole_ser.runs.result import RunResult

USERS = 12
INTERACTIONS = [f"u{k:02} i{(k + 2 * place) % 7} {10 * (place + 1)}" for k in range(USERS) for place in range(4)]
SEARCHES = [f"u{k:02} q{1 + k % 3} {time} i1" for k in range(1, USERS) for time in [*[5] * k, 30, 40]]
GOOD, FAIR, BAD = [1] * 9 + [2] * 3, [3, 4, 5] * 4, [20, 30, 60] * 4
RS = {"eval_args": {"split": {"RS": [1, 1, 2]}}}  # two test targets of each user


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_toy(tmp_path, inter=INTERACTIONS, search=SEARCHES)
    return tmp_path


def compare(paths: list[Path], metrics: str = "ndcg@10,hit@1", **options: Any) -> Comparison:
    return compare_runs(paths, Options(parse_metrics(metrics), **options))


# --- metrics ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("average_over", ["targets", "users"])
def test_metrics_are_those_of_the_evaluation(average_over: str, folder: Path) -> None:
    """Also where a user has several targets, and their number differs."""
    names = ["Hit", "NDCG", "MRR", "Recall", "Precision", "MAP"]
    values = {"data_path": str(folder), "metrics": names, "average_over": average_over, **RS}
    config = SERConfig("SASRec", "toy", None, values)
    write_toy(folder, inter=[*INTERACTIONS, *(f"u00 i{item} {99 + item}" for item in range(6))], search=SEARCHES)
    dataset = load_dataset(folder, "toy", require_both_histories=False, **RS)
    users = dataset.log.users[dataset.split.test.long()]
    ranks = torch.from_numpy(np.random.default_rng(0).integers(1, 16, len(users)))
    run = write_run(folder, "SASRec", ranks.tolist(), settings=values, protocol=protocol_name(config))
    expected = RankEvaluator(config).evaluate(ranks, users)
    found = compare([run], ",".join(expected)).models[0].means
    assert found == pytest.approx(expected, abs=1e-12)
    assert len(found) == 6 * 3 + 1 and len(set(np.bincount(users)[1:])) > 1


def test_auc_is_the_share_of_the_others_below_the_target() -> None:
    scores = np.random.default_rng(0).random((5, 20))
    ranks = 1 + (scores[:, 1:] > scores[:, :1]).sum(axis=1)
    expected = (scores[:, :1] > scores[:, 1:]).mean(axis=1)
    np.testing.assert_allclose(Metric.parse("AUC").values(ranks, 20), expected)


def test_auc_counts_the_candidates_of_the_protocol(folder: Path) -> None:
    drawn = write_run(folder, "SASRec", BAD, protocol="pop59, mean over users")
    assert compare([drawn], "auc").models[0].means["auc"] == pytest.approx(np.mean([40, 30, 0]) / 59)
    whole = write_run(folder, "SASRec", FAIR, protocol="full", candidates={})
    assert compare([whole], "auc").models[0].means["auc"] == pytest.approx(np.mean([4, 3, 2]) / 6)  # seven items


@pytest.mark.parametrize("metric", ["ndcg", "hit@0", "auc@5", "map", "mrr@", "hit@1.5", "f1@5", ""])
def test_unknown_metrics_are_refused(metric: str) -> None:
    with pytest.raises(ConfigError, match="is not known: use Hit@k, NDCG@k, MRR@k, Recall@k, Precision@k, MAP@k, MRR "):
        parse_metrics(f"mrr,{metric}")


# --- significance -----------------------------------------------------------------------------------------------------


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, None, 0.03, 0.005]) == pytest.approx([0.03, 0.06, None, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0] and holm([0.2]) == [0.2] and holm([]) == []


def test_sign_flips_are_those_of_scipy() -> None:
    generator = np.random.default_rng(3)
    base = generator.choice([0.0, 0.5, 1.0], 40)
    other = np.where(generator.random(40) < 0.3, 1.0, base)
    expected = stats.permutation_test(
        (other - base,), np.mean, permutation_type="samples", n_resamples=9999, random_state=0, vectorized=True, axis=0
    ).pvalue
    found = sign_flip_p_value(base, other)
    assert found == pytest.approx(expected, abs=0.01) and found == sign_flip_p_value(base, other)
    assert sign_flip_p_value(base, base) == 1.0 and sign_flip_p_value(base[:0], base[:0]) is None
    all_better = sign_flip_p_value(np.zeros(6), np.ones(6))  # two of 64 choices are as far from zero
    assert all_better == pytest.approx(2 / 64, abs=0.01)


def test_wilcoxon_by_hand_and_by_scipy() -> None:
    """Of the differences -1, 2, 3, 4 the rank sum of the negative is 1: so few have 2 of the 16 choices of signs."""
    base = np.zeros(6)
    other = np.array([-1.0, 0.0, 2.0, 3.0, 1e-16, 4.0])  # zeros do not count, whatever rounding made of them
    assert wilcoxon_p_value(base, other) == pytest.approx(2 * 2 / 16)
    generator = np.random.default_rng(3)
    base, other = generator.choice([0.0, 0.5, 1.0], 80), generator.choice([0.25, 0.5, 1.0], 80)
    assert wilcoxon_p_value(base, other) == pytest.approx(stats.wilcoxon(other, base, zero_method="wilcox").pvalue)
    assert wilcoxon_p_value(base, base) == 1.0 and wilcoxon_p_value(base[:0], base[:0]) is None


# --- rows -------------------------------------------------------------------------------------------------------------


def test_runs_that_differ_in_the_seed_are_one_row(folder: Path) -> None:
    for seed, ranks in [(2, FAIR), (1, GOOD)]:
        write_run(folder, "SASRec", ranks, seed=seed, settings={"epochs": 3, "show_progress": bool(seed - 1)})
    write_run(folder, "SASRec", BAD, settings={"epochs": 3, "loss_type": "BPR", "train_neg_sample_args.sample_num": 2})
    write_run(folder, "BPR", BAD)
    rows, users = read_rows(find_runs([folder / "saved"]))
    assert {row.name: row.seeds for row in rows} == {
        "BPR": [1], "SASRec": [1, 2], "SASRec (loss_type=BPR, train_neg_sample_args.sample_num=2)": [1],
    }  # fmt: skip
    sasrec = next(row for row in rows if row.name == "SASRec")
    assert sasrec.ranks.tolist() == [GOOD, FAIR] and users == [f"u{k:02}" for k in range(USERS)]
    found = {model.name: model for model in compare([folder / "saved"], "mrr").models}
    means = [np.mean(1 / np.array(ranks)) for ranks in (GOOD, FAIR)]
    assert found["SASRec"].means["mrr"] == pytest.approx(np.mean(means))
    assert found["SASRec"].spreads == {"mrr": pytest.approx(np.std(means, ddof=1))} and found["BPR"].spreads is None


def test_rows_can_be_named(folder: Path) -> None:
    for seed in (1, 2):
        write_run(folder, "SASRec", FAIR, seed=seed, settings={"n_layers": 1, "row_name": "one layer"})
    write_run(folder, "SASRec", GOOD, settings={"n_layers": 2})
    rows = read_rows(find_runs([folder / "saved"]))[0]
    assert {row.name: row.seeds for row in rows} == {"one layer": [1, 2], "SASRec": [1]}
    write_run(folder, "BPR", GOOD, settings={"row_name": "one layer"})
    with pytest.raises(UserError, match="two rows are named 'one layer'"):
        compare([folder / "saved"])


def test_a_study_has_a_table_for_each_data_set(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [write_run(folder, model, ranks) for model, ranks in [("SASRec", GOOD), ("BPR", FAIR)]]
    for number, run in enumerate(runs):
        (folder / f"study/data{number}/tuning").mkdir(parents=True)
        run.rename(folder / f"study/data{number}/{run.name}")
    (folder / "study/empty").mkdir()
    study = folder / "study"
    assert tables_in([study]) == [[study / "data0"], [study / "data1"]]
    assert tables_in([study / "data0"]) == [[study / "data0"]] and tables_in([study, "b"]) == [[study, "b"]]
    assert command("compare", study, "--metrics=mrr") == 0
    assert capsys.readouterr().out.count("toy, uni99: 12 users") == 2
    with pytest.raises(ConfigError, match=r"csv holds one data set, and .*study has several"):
        command("compare", study, "--format=csv")


@pytest.mark.parametrize(
    ("model", "key", "made"), [("GSERec", "codes_file", "codes"), ("KAR", "texts_folder", "texts")]
)
def test_codes_and_texts_count_by_their_content(folder: Path, model: str, key: str, made: str) -> None:
    places = [{key: str(folder / name)} for name in "ab"]
    hashes = ["1" * 64, "1" * 64, "2" * 64]
    for seed, (place, digest) in enumerate(zip([*places, places[0]], hashes)):
        write_run(folder, model, FAIR, seed=seed, settings=place, **{made: {"hash": digest, "vectors": "tfidf_svd"}})
    names = [row.name for row in read_rows(find_runs([folder / "saved"]))[0]]
    assert names == [f"{model} ({key}=111111111111)", f"{model} ({key}=222222222222)"]


def test_a_seed_counts_once(folder: Path) -> None:
    runs = [write_run(folder, "SASRec", ranks) for ranks in (GOOD, FAIR)]
    with pytest.raises(UserError, match=r"SASRec-0 and .*SASRec-1 are both SASRec with seed 1"):
        compare(runs)
    with pytest.raises(UserError, match="SASRec-0: this run is given twice"):
        compare([runs[0], folder / "saved"])


def test_unfinished_runs_in_a_folder_are_left_out(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    runs = [write_run(folder, model, FAIR) for model in ("SASRec", "BPR")]
    (runs[1] / "result.json").unlink()
    assert [run.path.name for run in find_runs([folder / "saved"])] == ["SASRec-0"]
    assert caplog.messages == [f"{folder / 'saved'}: left out, as they are not finished: BPR-1"]
    with pytest.raises(UserError, match=r"result\.json: file not found"):
        compare([runs[1]])
    (runs[0] / "result.json").unlink()
    with pytest.raises(UserError, match="none of the runs in this folder is finished"):
        compare([folder / "saved"])
    with pytest.raises(UserError, match="not the folder of a run"):
        compare([folder / "toy"])


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ({"fingerprint": "f" * 64}, "their data sets differ"),
        ({"candidates": {"test": "beef"}}, r"their test candidates differ \(c0ffee and beef\)"),
        ({"targets": {"test": "beef"}}, "their test targets differ"),
        ({"protocol": "full"}, r"their protocols differ \(uni99 and full\)"),
    ],
)
def test_runs_on_other_data_or_candidates_are_refused(data: dict[str, Any], complaint: str, folder: Path) -> None:
    write_run(folder, "BPR", FAIR)
    write_run(folder, "SASRec", FAIR, **data)
    with pytest.raises(UserError, match=complaint) as error:
        compare([folder / "saved"])
    assert "BPR-0" in str(error.value) and "SASRec-1" in str(error.value) and "\n" not in str(error.value)


# --- what is compared -------------------------------------------------------------------------------------------------


@pytest.fixture
def three(folder: Path) -> list[Path]:
    return [
        write_run(folder, "Pop", BAD),
        *(write_run(folder, "SASRec", ranks, seed=seed) for seed, ranks in enumerate([FAIR, FAIR[1:] + FAIR[:1]])),
        write_run(folder, "SESRec", GOOD),
    ]


def test_differences_by_hand(three: list[Path]) -> None:
    found = compare(three, "mrr")
    assert found.proposed == "SESRec" and found.best_other("mrr") == "SASRec"
    good, fair, bad = (1 / np.array(ranks) for ranks in (GOOD, FAIR, BAD))
    fair = (fair + np.roll(fair, -1)) / 2  # of each user, over the seeds
    assert found.models[2].means["mrr"] == pytest.approx(good.mean())
    difference = found.difference("mrr", "SASRec")
    assert difference.percent == pytest.approx(100 * (good.mean() / fair.mean() - 1))
    p_values = [stats.ttest_rel(good, other).pvalue for other in (fair, bad)]
    assert difference.p == pytest.approx(p_values[0]) == paired_p_value(fair, good)
    corrected = {"SASRec": max(p_values[0], 2 * p_values[1]), "Pop": 2 * p_values[1]}
    assert {row.baseline: row.p_holm for row in found.differences} == pytest.approx(corrected)
    assert found.is_starred("mrr") and not compare(three, "mrr", alpha=1e-9).is_starred("mrr")


def test_signed_ranks_can_be_tested(three: list[Path]) -> None:
    found = compare(three, test="wilcoxon")
    of_metric = [row for row in found.differences if row.metric == "ndcg@10"]
    assert [row.p_holm for row in of_metric] == holm([row.p for row in of_metric])
    assert "(Wilcoxon signed-rank test over users, p with Holm's correction)" in FORMATS["markdown"](found)


def test_the_proposed_model_can_be_named(three: list[Path]) -> None:
    found = compare(three, proposed="SASRec", test="sign-flip")
    assert found.best_other("ndcg@10") == "SESRec" and found.test == "sign-flip test"
    gain = found.difference("ndcg@10", "SESRec")
    assert gain.percent is not None and gain.percent < 0 and not found.is_starred("ndcg@10")
    cells = tables_of(found)[0].rows
    assert [(row[0].text, row[1].best, row[1].second, row[1].star) for row in cells] == [
        ("Pop", False, False, False), ("SASRec", False, True, False), ("SESRec", True, False, False),
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="there is no such row: use any of Pop, SASRec, SESRec"):
        compare(three, proposed="SASREC")


def test_equal_models_share_the_mark_and_nobody_gets_the_star(folder: Path) -> None:
    for model in ("Pop", "BPR", "SASRec"):
        write_run(folder, model, FAIR if model == "SASRec" else GOOD)
    found = compare([folder / "saved"], "mrr")
    marks = {row[0].text: (row[1].best, row[1].second, row[1].star) for row in tables_of(found)[0].rows}
    assert marks == {"BPR": (True, False, False), "Pop": (True, False, False), "SASRec": (False, True, False)}


def test_a_model_without_a_hit_has_no_improvement_over_it(folder: Path) -> None:
    runs = [write_run(folder, "Pop", BAD), write_run(folder, "SASRec", GOOD)]
    found = compare(runs, "hit@10")
    assert found.differences[0].percent is None and "- (p -)" in FORMATS["markdown"](found)


# --- where they differ ------------------------------------------------------------------------------------------------

TIES = ["a i1 1", "a i2 2", "a i1 3", "a i1 3", "b i3 1", "b i2 2", "b i4 3", "b i5 4", "c i2 1", "c i2 9"]
KINDS = ["a q1 1 typed", "a q2 2 shown", "b q1 2 shown", "b q1 4 typed", "c q1 2 "]


def test_traits_are_what_a_plain_loop_finds(tmp_path: Path) -> None:
    write_toy(tmp_path, inter=TIES, search=[])
    write_lines(
        tmp_path / "toy" / "toy.search",
        "user_id:token\tquery_id:token\ttimestamp:float\tclicked_items:token_seq\tsource:token",
        *("{}\t{}\t{}\t\t{}".format(*row.split(" ")) for row in KINDS),
    )
    dataset = load_dataset(tmp_path, "toy", require_both_histories=False, **RS)
    log, split = dataset.log, dataset.split
    events = [(int(user), int(item)) for user, item in zip(log.users, log.items)]
    trained = [events[place][1] for place in split.training_interactions]
    targets = split.test.tolist()
    assert [events[place][0] for place in targets] == [1, 1, 2, 2, 3]
    repeats = ["repeat" if events[place] in events[:place] else "new" for place in targets]
    colds = ["warm" if events[place][1] in trained else "cold" for place in targets]
    groups = {name: trait(TargetTraits(dataset, 3)) for name, trait in TRAITS.items()}
    labels = {name: [trait.labels[number] for number in trait.group] for name, trait in groups.items()}
    assert labels["repeat"] == repeats == ["repeat", "repeat", "new", "new", "repeat"]
    assert labels["cold"] == colds and set(colds) == {"warm", "cold"}
    assert labels["history"] == ["2+"] * 4 + ["0-1"]  # of the user's first target, for all of the user's targets
    assert labels["searches"] == ["0-1" if count < 2 else "2+" for count in (2, 2, 1, 1, 1)]
    assert labels["search-kind"] == ["shown", "shown", "shown", "shown", "no source"]
    named = TRAITS["search-kind"](TargetTraits(dataset, 2, ["typed"]))
    assert [named.labels[number] for number in named.group] == ["passive"] * 5
    with pytest.raises(ConfigError, match="no search has the source 'spoken': there are"):
        TRAITS["search-kind"](TargetTraits(dataset, 2, ["spoken"]))


def test_groups_are_those_of_the_command_groups(three: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    """The proposed model against the best other one, for each trait asked for."""
    found = compare([three[1], three[3]], "mrr,hit@1", by=["searches", "repeat"], groups=3)
    rows = [row for row in found.groups if (row.by, row.metric) == ("searches", "mrr")]
    assert [row.group for row in rows] == ["0-4", "5-8", "9+", "all"] and [row.users for row in rows] == [4, 4, 4, 12]
    assert command("groups", three[1], three[3], "--groups=3", "--metric=MRR") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["SASRec", *(f"{row.baseline_value:.4f}" for row in rows)] in lines
    assert ["SESRec", *(f"{row.value:.4f}" for row in rows)] in lines
    for row in rows:
        assert row.gain is not None and any(f"{row.gain.percent:+.1f}" in line for line in lines)
    repeat, new, everyone = (row for row in found.groups if (row.by, row.metric) == ("repeat", "hit@1"))
    assert (repeat.users, new.users, everyone.users) == (0, 12, 12) and repeat.gain is repeat.value is None
    assert "SESRec and the best other model by the searches before" in FORMATS["terminal"](found).replace("\n", " ")


def test_traits_of_data_that_lack_them_are_refused(three: list[Path]) -> None:
    with pytest.raises(ConfigError, match="--by search-kind: the searches of data set 'toy' have no source"):
        compare(three, by=["search-kind"])
    with pytest.raises(UserError, match="--by compares two models, and all runs are of SASRec"):
        compare(three[1:3], by=["searches"])


# --- beyond accuracy --------------------------------------------------------------------------------------------------


def test_coverage_and_gini_are_those_of_recbole() -> None:
    generator = np.random.default_rng(0)
    lists = np.stack([generator.choice(12, 3, replace=False) for _ in range(8)])
    found = beyond_accuracy(lists, generator.integers(0, 9, 15))
    config = {"metric_decimal_place": 4, "topk": [3]}
    assert found["coverage"] == pytest.approx(ItemCoverage(config).get_coverage(lists, 15))
    assert found["gini"] == pytest.approx(GiniIndex(config).get_gini(lists, 15))


def test_popularity_of_lists_by_hand() -> None:
    """The first item has a fifth of the interactions and is the head; the last two have less, and are the tail."""
    counts = np.array([20, 0, 30, 35, 15])
    found = beyond_accuracy(np.array([[3, 2], [3, 0], [1, 4]]), counts)
    assert found["popularity"] == pytest.approx(np.mean([35, 30, 35, 20, 0, 15]))
    assert (found["head"], found["middle"], found["tail"]) == (2 / 6, 2 / 6, 2 / 6)
    assert found["novelty"] == pytest.approx(np.mean([-math.log2(p) for p in (0.35, 0.3, 0.35, 0.2, 0.01, 0.15)]))
    everything = beyond_accuracy(np.array([[0, 1, 2, 3, 4]]), counts)
    assert everything["coverage"] == 1.0 and everything["gini"] == 0.0


# --- formats ----------------------------------------------------------------------------------------------------------


def test_markdown(three: list[Path]) -> None:
    found = replace(compare(three, "mrr"), dataset="my_data")
    lines = FORMATS["markdown"](found).splitlines()
    assert lines[0].startswith(r"my\_data, uni99: 12 users; mean ± standard deviation over 1-2 seeds. The best")
    assert lines[2:4] == [
        "| Model           |                    MRR |",
        "|:----------------|-----------------------:|",
    ]
    table = {line.split("|")[1].strip(): line.split("|")[2].strip() for line in lines[4:8]}
    mean = compare(three, "mrr").models[1].means["mrr"]
    assert table["SASRec"] == f"<u>{mean:.4f} ± 0.0000</u>" and table["SESRec"] == r"**0.8750**\*"
    assert table["Pop"] == "0.0333" and table["Improvement (%)"] == f"+{87.5 / mean - 100:.1f}"


def test_latex(three: list[Path], folder: Path, tmp_path: Path) -> None:
    write_run(folder, "SESRec", FAIR, settings={"learning_rate": 0.02})
    found = replace(compare([folder / "saved"], "ndcg@10", by=["searches"]), dataset="a_b {50%} & c^d ~ \\x #1 $")
    text = FORMATS["latex"](found)
    assert r"a\_b \{50\%\} \& c\textasciicircum{}d \textasciitilde{} \textbackslash{}x \#1 \$, uni99: 12 users" in text
    assert r"SESRec (learning\_rate=0.02) & " in text and r"Improvement (\%) & +" in text
    assert r"    SESRec & \textbf{0.9077}$^{*}$ \\" in text and r"\underline{" in text and r"$\pm$" in text
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 3
    for rule in ("toprule", "bottomrule"):
        assert text.count(f"\\{rule}") == 3
    assert text.count("{") == text.count("}")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles(folder: Path, tmp_path: Path) -> None:
    """With every character that LaTeX could take for something else, at the start of a row, too."""
    for name, ranks in [("[a] b", GOOD), ("*é", FAIR), ('50% & c^d ~ \\x #1 $ {_|<>"', BAD)]:
        write_run(folder, "SASRec", ranks, settings={"row_name": name})
    text = FORMATS["latex"](replace(compare([folder / "saved"], by=["searches"]), dataset="a_b %"))
    document = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n" + text + "\n\\end{document}\n"
    (tmp_path / "table.tex").write_text(document, encoding="utf-8")
    options = ["-interaction=nonstopmode", "-halt-on-error"]
    done = subprocess.run(["pdflatex", *options, "table.tex"], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]


def test_csv_and_json_have_everything(three: list[Path]) -> None:
    found = compare(three, "mrr", by=["history"])
    rows = list(csv.DictReader(FORMATS["csv"](found).splitlines()))
    assert [row["model"] for row in rows if not row["by"]] == ["Pop", "SASRec", "SESRec"]
    assert [row["model"] for row in rows if row["by"] == "history"] == ["SESRec", "SASRec"] * 2
    assert float(rows[1]["p_holm"]) == found.difference("mrr", "SASRec").p_holm and rows[2]["p"] == ""
    assert float(rows[1]["value"]) == found.models[1].means["mrr"] and rows[0]["spread"] == ""
    written = json.loads(FORMATS["json"](found))
    assert written["proposed"] == "SESRec" and written["candidates"] == "c0ffee" and len(written["targets"]) == 64
    assert written["models"][1]["seeds"] == [0, 1] and written["groups"][0]["gain"]["percent"] > 0


def test_the_command_writes_what_the_name_says(
    three: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, start in [
        ("t.md", "toy, uni99"),
        ("t.tex", "% needs"),
        ("t.csv", "by,"),
        ("t.json", "{"),
        ("t.txt", "toy"),
    ]:
        assert command("compare", *three, "--out", tmp_path / name) == 0
        assert capsys.readouterr().out == f"the comparison is in {tmp_path / name}\n"
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert text.startswith(start) and text.endswith("\n") and "\033" not in text
    assert command("compare", *three, "--metrics=Hit@1,NDCG@10", "--proposed=SASRec") == 0
    text = capsys.readouterr().out
    assert "Model" in text and "\033" not in text and "Improvement of SASRec over each other model" in text


def test_no_improvement_is_shown_as_minus_nothing(three: list[Path]) -> None:
    found = compare(three, "mrr")
    found = replace(found, differences=[replace(row, percent=-0.04) for row in found.differences])
    assert "+0.0" in FORMATS["markdown"](found) and "-0.0" not in FORMATS["markdown"](found)


def test_one_model_alone_has_its_metrics(three: list[Path]) -> None:
    found = compare(three[1:3], "mrr")
    assert len(tables_of(found)) == 1 and "best" not in FORMATS["terminal"](found) and found.differences == []
    for form in FORMATS.values():
        assert "SASRec" in form(found)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ("--by=age", "--by age: use any of searches, history, popularity, repeat, cold, search-kind"),
        ("--alpha=1", "--alpha 1.0 is not between 0 and 1"),
        ("--groups=0", "--groups 0: at least one"),
        ("--seed=-1", "--seed -1 is negative"),
        ("--beyond=0", "--beyond 0: a list has at least one item"),
        ("--test=z", "--test z: use any of t, sign-flip, wilcoxon"),
        ("--spontaneous=typed", "give that too"),
        ("--metrics=f1@3", "metric 'f1@3' is not known"),
        ("--proposed=Nobody", "use any of SASRec"),
        ("--out=table.doc", r"must end in \.txt, \.md, \.tex, \.csv, \.json, or give --format"),
    ],
)
def test_wrong_options_are_refused(options: str, complaint: str, folder: Path) -> None:
    run = write_run(folder, "SASRec", FAIR)
    with pytest.raises(ConfigError, match=complaint) as error:
        command("compare", run, options)
    assert "\n" not in str(error.value)


# --- real runs --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sample_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunResult]:
    """Runs of two models on the bundled sample that rank the whole catalogue, whose size AUC has to know."""
    saved = tmp_path_factory.mktemp("compared") / "saved" / "ser-sample"
    quick = {"epochs": 1, "show_progress": False, "state": "WARNING", "eval_args.mode": "full"}
    models = ("Pop", "BPR")
    return {name: train(name, "ser-sample", config_dict={**quick, "run_dir": str(saved / name)}) for name in models}


def test_metrics_are_those_of_the_runs(sample_runs: dict[str, RunResult]) -> None:
    folders = [Path(str(result.folder)) for result in sample_runs.values()]
    found = compare([folders[0].parent], ",".join([*sample_runs["BPR"].test, "auc"]), by=["search-kind"])
    for model in found.models:
        assert {**model.means, "auc": 0.0} == pytest.approx({**sample_runs[model.name].test, "auc": 0.0}, abs=1e-12)
        ranks = RunFolder.load(model.runs[0]).ranks()["rank"].to_numpy()
        assert model.means["auc"] == pytest.approx(1 - (ranks.mean() - 1) / 383)  # 384 items
    parts = [row for row in found.groups if row.metric == "mrr"]
    assert [row.group for row in parts] == ["s0", "s1", "s2", "all"]
    assert sum(row.users for row in parts[:-1]) == parts[-1].users == found.users


def test_lists_have_the_hits_of_the_runs(sample_runs: dict[str, RunResult]) -> None:
    lists, counts = top_lists(RunFolder.load(str(sample_runs["BPR"].folder)), 10, None)
    dataset = load_dataset(package_folder("dataset_atomic"), "ser-sample", "BPR")
    hits = lists == dataset.log.items[dataset.split.test.long()].numpy()[:, None] - 1
    assert hits.any(axis=1).mean() == pytest.approx(sample_runs["BPR"].test["hit@10"])
    popular, _ = top_lists(RunFolder.load(str(sample_runs["Pop"].folder)), 10, None)
    assert beyond_accuracy(popular, counts)["coverage"] == pytest.approx(10 / 384)
    assert counts[popular[0]].sum() == np.sort(counts)[-10:].sum()
    with pytest.raises(UserError, match="--beyond 385: the catalogue has only 384 items"):
        top_lists(RunFolder.load(str(sample_runs["Pop"].folder)), 385, None)


def test_the_examples_of_the_documentation_run(
    sample_runs: dict[str, RunResult], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parent.parent / "docs" / "compare.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```bash\n(recbole-ser compare.*?)```", page, re.DOTALL)
    monkeypatch.chdir(Path(str(sample_runs["Pop"].folder)).parents[2])
    for line in block.splitlines():
        assert command(*line.partition(" #")[0].split()[1:]) == 0
    printed = capsys.readouterr().out
    assert "Improvement (%)" in printed and "Coverage@10" in printed and "table2.tex" in printed
    assert r"\toprule" in Path("table2.tex").read_text()
