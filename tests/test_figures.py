"""The papers' figures: their numbers against slow references, and the files of each."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import command, load_dataset, write_lines, write_toy
from scipy.sparse import csr_matrix
from scipy.spatial.distance import jensenshannon
from torch import Tensor
from written_runs import write_run

from recbole_ser.atomic.ragged import Ragged
from recbole_ser.data.item_categories import item_categories
from recbole_ser.errors import ConfigError, UserError
from recbole_ser.figures import users as users_module
from recbole_ser.figures.alignment import clicked_pairs, cosines
from recbole_ser.figures.curves import curves_figure
from recbole_ser.figures.interests import at_level, category_shares, divergence, target_divergences
from recbole_ser.figures.weights import weights_figure
from recbole_ser.runner import run as train
from recbole_ser.runs.folder import RunFolder
from recbole_ser.runs.result import RunResult
from recbole_ser.runs.sweep_folder import FAILED, FINISHED, SweepFolder

TAGS = {"i1": "a", "i2": "a b", "i3": "b", "i4": "c a", "i5": "", "i6": "c"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Runs of the bundled sample, of one epoch each: SESRec with and without alignment, and RecBole's Pop."""
    folder = tmp_path_factory.mktemp("runs")
    given: dict[str, dict[str, Any]] = {"with": {"alpha": 0.1}, "without": {"alpha": 0.0}, "Pop": {}}
    for name, settings in given.items():
        model = "Pop" if name == "Pop" else "SESRec"
        train(model, "ser-sample", config_dict={"epochs": 1, "run_dir": str(folder / name), **settings})
    return [folder / name for name in given]


def check_files(folder: Path, name: str) -> pd.DataFrame:
    """The numbers of a figure, after a check of its pictures."""
    assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    pdf = (folder / f"{name}.pdf").read_bytes()
    assert pdf.startswith(b"%PDF") and b"/Type3" not in pdf and b"/CreationDate" not in pdf
    return pd.read_csv(folder / f"{name}.csv")


# --- interests (SESRec, Figure 3) -------------------------------------------------------------------------------------


def test_divergences_are_those_of_scipy() -> None:
    generator = np.random.default_rng(0)
    first, second = (generator.dirichlet(np.full(6, 0.3), 40) * (generator.random((40, 6)) < 0.7) for _ in range(2))
    first, second = (x / np.maximum(x.sum(axis=1, keepdims=True), 1e-12) for x in (first, second))
    first[0], second[0] = np.eye(6)[0], np.eye(6)[1]  # nothing in common
    first[1] = second[1] = np.full(6, 1 / 6)  # equal
    keep = (first.sum(axis=1) > 0) & (second.sum(axis=1) > 0)
    found = divergence(csr_matrix(first[keep]), csr_matrix(second[keep]))
    expected = [jensenshannon(p, q, base=2) ** 2 for p, q in zip(first[keep], second[keep])]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert found[0] == 1.0 and found[1] == pytest.approx(0.0, abs=1e-12)


def slow_divergence(first: list[str], second: list[str]) -> float:
    """The divergence of the categories of two lists of items, counted one by one; NaN where one has none."""
    weights = []
    for items in (first, second):
        counts: Counter[str] = Counter()
        for item in items:
            for tag in TAGS.get(item, "").split():
                counts[tag] += 1 / len(TAGS[item].split())
        weights.append([counts[tag] for tag in "abc"])
    return jensenshannon(*weights, base=2) ** 2 if all(map(sum, weights)) else float("nan")


def test_targets_have_the_divergences_of_their_sets(tmp_path: Path) -> None:
    """Planted sets: what is at an even position is similar."""
    base = write_toy(tmp_path)
    write_lines(base / "toy.item", "item_id:token\ttags:token_seq", *(f"{i}\t{tags}" for i, tags in TAGS.items()))
    dataset = load_dataset(tmp_path, "toy", require_both_histories=False)
    sets: list[list[list[str]]] = []

    def divide(batch: Any) -> tuple[Tensor, Tensor]:
        items, clicks = batch["item_id_list"], batch["search_click_list"]
        rec, search = (torch.arange(x.shape[1]).expand(x.shape[:2]) % 2 == 0 for x in (items, clicks))
        for row in range(len(items)):
            names = [
                [str(dataset.id2token("item_id", int(i))) for i in values[row][mask[row]].flatten() if i]
                for kind in (lambda m: m, lambda m: ~m)
                for values, mask in ((items, kind(rec)), (clicks, kind(search)))
            ]
            sets.append(names)
        return rec & (items != 0), search & (batch["search_query_list"] != 0)

    categories, tokens = item_categories(dataset, "tags")
    found = target_divergences(dataset, divide, category_shares(categories, len(tokens)), 2, "cpu")
    assert found["user_id"].tolist() == ["a", "b", "c"] and len(sets) == 3
    for (_, row), (p_rec, p_search, n_rec, n_search) in zip(found.iterrows(), sets):
        assert row["similar"] == pytest.approx(slow_divergence(p_rec, p_search), nan_ok=True)
        assert row["dissimilar"] == pytest.approx(slow_divergence(n_rec, n_search), nan_ok=True)
        with_tags = [sum(bool(TAGS.get(item)) for item in items) for items in (p_rec, p_search, n_rec, n_search)]
        columns = ["similar_rec", "similar_search", "dissimilar_rec", "dissimilar_search"]
        assert row[columns].tolist() == with_tags
    assert 0 < found["similar"][0] < 1 and np.isnan(found["similar"][2]), "c never searched"


def test_one_level_of_lists_of_categories() -> None:
    categories = Ragged(np.array([0, 1, 2, 0, 3, 4]), np.array([0, 3, 3, 4, 6]))
    assert at_level(categories, 1).values.tolist() == [0, 0, 3]
    second = at_level(categories, 2)
    assert second.values.tolist() == [1, 0, 4] and second.starts.tolist() == [0, 1, 1, 2, 3]
    assert at_level(categories, 3).values.tolist() == [2, 0, 4]
    with pytest.raises(ConfigError, match="--level 4: items have from 1 to 3 categories"):
        at_level(categories, 4)


def test_interests_of_a_run(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra plot)")
    assert command("figure", "interests", runs[0], "--out", tmp_path) == 0
    text = " ".join(capsys.readouterr().out.split())
    numbers = check_files(tmp_path, "interests")
    assert numbers[["similar", "dissimilar"]].stack().between(0, 1).all()
    assert f"{len(numbers):,} test targets" in text and "of the column 'category' of ser-sample.item" in text
    assert f"interests.png, .pdf, .csv and .txt are in {tmp_path}" in text
    assert f"{numbers['similar'].mean():.4f}" in text


# --- alignment (SESRec, Figure 4) -------------------------------------------------------------------------------------


def test_every_clicked_pair_counts_once(tmp_path: Path) -> None:
    write_toy(tmp_path, search=["a q1 20 i2", "a q2 5 i3,x", "a q1 40 i2", "b q1 3 i3", "b q3 20 "])
    dataset = load_dataset(tmp_path, "toy")
    queries, items = clicked_pairs(dataset)
    names = zip(dataset.id2token("query_id", queries.numpy()), dataset.id2token("item_id", items.numpy()))
    assert sorted(names) == [("q1", "i2"), ("q1", "i3"), ("q2", "i3"), ("q2", "x")]


def test_cosines_of_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    queries, items = torch.tensor([1, 4, 4, 2]), torch.tensor([3, 3, 1, 2])
    expected = [
        float(q @ i / (q.norm() * i.norm())) for q, i in zip(tables[0][queries], tables[1][items])
    ]  # fmt: skip
    monkeypatch.setattr("recbole_ser.figures.alignment._PAIRS_AT_ONCE", 3)
    found = cosines(lambda q, i: (tables[0][q], tables[1][i]), queries, items, "cpu")
    torch.testing.assert_close(found, torch.tensor(expected))


def test_alignment_of_runs(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra plot)")
    assert command("figure", "alignment", *runs[:2], "--out", tmp_path) == 0
    numbers = check_files(tmp_path, "alignment")
    assert numbers["run"].tolist() == ["SESRec (alpha=0.1)", "SESRec (alpha=0.0)"]
    assert (numbers[["low", "q1", "median", "q3", "high"]].diff(axis=1).iloc[:, 1:] >= 0).all(axis=None)
    assert "Every pair that is in the log counts once" in " ".join(capsys.readouterr().out.split())


def test_labels_name_the_runs(runs: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra plot)")
    command("figure", "alignment", *runs[:2], "--labels", "with alignment, without", "--out", tmp_path)
    assert pd.read_csv(tmp_path / "alignment.csv")["run"].tolist() == ["with alignment", "without"]
    with pytest.raises(ConfigError, match="give each of the 2 runs a name of its own"):
        command("figure", "alignment", *runs[:2], "--labels", "one", "--out", tmp_path)


@pytest.mark.parametrize("name", ["interests", "alignment", "users"])
def test_a_model_that_lacks_what_is_drawn_is_refused_in_one_line(name: str, runs: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra plot)")
    with pytest.raises(UserError, match="its model, Pop, does not") as error:
        command("figure", name, runs[2], "--out", tmp_path / "out")
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--category", "shape"], "has no column 'shape' of type token or token_seq: it has item_id, category, title"),
        (["--level", "2"], "--level 2: items have from 1 to 1 categories"),
    ],
)
def test_wrong_categories_are_refused(options: list[str], complaint: str, runs: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra plot)")
    with pytest.raises(ConfigError, match=complaint):
        command("figure", "interests", runs[0], *options, "--out", tmp_path)


def test_a_figure_needs_matplotlib_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match="plots need matplotlib"):
        command("figure", "interests", tmp_path / "nowhere", "--out", tmp_path)


# --- users (GSERec, Figure 6) -----------------------------------------------------------------------------------------


def test_users_are_drawn_from_the_vectors_of_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra plot)")
    users = [f"u{number:02d}" for number in range(60)]
    write_toy(tmp_path, inter=[f"{user} i{item} {item}" for user in users for item in range(3)], search=[])
    run = write_run(tmp_path, "SASRec", [1] * 60)
    tables = torch.randn(2, 61, 4, generator=torch.Generator().manual_seed(0))
    dataset = load_dataset(tmp_path, "toy", require_both_histories=False)
    network = SimpleNamespace(user_vectors=lambda ids: (tables[0][ids], tables[1][ids]))
    monkeypatch.setattr(users_module, "load_run", lambda *_: ({"device": "cpu"}, dataset, network))
    seen: list[np.ndarray] = []
    project = users_module.in_the_plane
    monkeypatch.setattr(users_module, "in_the_plane", lambda x, seed: seen.append(x) or project(x, seed))
    assert command("figure", "users", run, "--sample", 55, "--seed", 3, "--out", tmp_path / "out") == 0
    numbers = check_files(tmp_path / "out", "users")
    text = " ".join(capsys.readouterr().out.split())
    assert "(perplexity 30, seed 3) of the vectors of 55 users, drawn at random from the 60 of toy" in text
    search, rec = (numbers[numbers["side"] == side] for side in ("search", "recommendation"))
    assert search["user_id"].tolist() == rec["user_id"].tolist() and search["user_id"].is_unique and len(search) == 55
    ids = torch.from_numpy(dataset.token2id("user_id", search["user_id"].to_numpy()))
    np.testing.assert_array_equal(seen[0], tables[:, ids].numpy())
    own = torch.cosine_similarity(*tables[:, ids], dim=1).mean()
    assert f"{own:.4f}" in text
    again = project(seen[0], 3)
    np.testing.assert_allclose(search[["x", "y"]], again[0], rtol=1e-5)
    np.testing.assert_allclose(rec[["x", "y"]], again[1], rtol=1e-5)


def test_too_few_users_are_refused(tmp_path: Path, toy: Any) -> None:
    with pytest.raises(ConfigError, match="--sample 10: at least 50 users"):
        users_module.users_figure([tmp_path], sample=10)
    with pytest.raises(UserError, match="data set 'toy' has 3 users: at least 50"):
        users_module.sampled_users(toy(), 100, 0)


# --- weights (SESRec, Figure 5; GSERec, Figure 7) ---------------------------------------------------------------------

# (alpha, beta) and the NDCG@10 of each trial; the best is trial 4, and with its beta alpha 1 is trial 5.
TRIALS = [((0.1, 0), 0.2), ((0.1, 5), 0.1), ((0.5, 0), 0.3), ((0.5, 5), 0.25), ((1.0, 0), 0.4), ((1.0, 5), 0.35)]


def write_sweep(folder: Path, space: dict[str, Any] | None = None, tested: bool = True) -> Path:
    plan = {
        "name": "both", "fixed": {}, "search": "grid", "trials": 6, "scheduler": "none", "grace_period": 5,
        "reduction_factor": 3, "plot": [],
        "space": space or {"alpha": {"choice": [0.1, 0.5, 1.0]}, "beta": {"choice": [0, 5]}},
    }  # fmt: skip
    arguments = {"model": "SESRec", "dataset": "toy", "config_dict": {}}
    sweep = SweepFolder.start(folder, {"plan": plan, "arguments": arguments})
    for number, ((alpha, beta), score) in enumerate(TRIALS):
        trial = sweep.add_trial(number, {"alpha": alpha, "beta": beta})
        run = RunFolder(trial.path)
        run.write_config({"valid_metric": "NDCG@10"}, arguments)
        valid = {"ndcg@10": score, "mrr": 1 - score, "hit@5": score / 2}
        costs = {"learning_rate": 0.1, "seconds": 1.0, "cpu_seconds": 1.0}
        run.append_metrics({"epoch": 0, "losses": {}, "valid": valid, **costs})
        trial.end(FAILED if number == 1 else FINISHED)
    best = sweep.trial(4).read("ndcg@10")
    if tested:
        result = RunResult("SESRec", "toy", 1, "uni99", 0, 1, best.valid, {}, {}, "beef", 1, 1.0, 1.0, 1.0)
        sweep.write_result(best, result)
    return folder


def test_the_best_trial_over_the_other_keys_is_drawn_for_each_value(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra plot)")
    sweep = write_sweep(tmp_path / "sweep")
    assert command("figure", "weights", sweep, "--out", tmp_path / "out") == 0
    numbers = check_files(tmp_path / "out", "weights")
    assert list(zip(numbers["key"], numbers["value"], numbers["trial"])) == [
        ("alpha", 0.1, 0), ("alpha", 0.5, 2), ("alpha", 1.0, 4), ("beta", 0, 4), ("beta", 5, 5)
    ]  # fmt: skip
    assert numbers["ndcg@10"].tolist() == [0.2, 0.3, 0.4, 0.4, 0.35] and numbers["mrr"][0] == 0.8
    assert numbers["others"].unique().tolist() == [
        "the trial with the best NDCG@10, over beta", "the trial with the best NDCG@10, over alpha"
    ]  # fmt: skip
    text = " ".join(capsys.readouterr().out.split())
    assert "NDCG@10 and MRR in validation" in text and "over beta; beta: the trial with the best NDCG@10" in text


def test_other_keys_are_fixed_at_the_chosen_values(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "sweep")
    figure = weights_figure([sweep], keys=["beta"], metrics=["Hit@5"], others="fixed")
    assert figure.numbers["trial"].tolist() == [4, 5] and figure.numbers["hit@5"].tolist() == [0.2, 0.175]
    assert figure.numbers["other keys"].tolist() == ["alpha=1.0"] * 2
    assert "Hit@5 in validation" in figure.caption and "beta: fixed at alpha = 1" in figure.caption


def test_a_range_of_values_is_drawn_trial_by_trial(tmp_path: Path) -> None:
    space = {"alpha": {"loguniform": [0.01, 10.0]}, "beta": {"choice": [0, 5]}}
    figure = weights_figure([write_sweep(tmp_path / "sweep", space)], keys=["alpha"])
    assert "alpha: every trial is drawn, over beta" in figure.caption
    assert figure.numbers["trial"].tolist() == [0, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"keys": ["gamma"]}, "--keys gamma: not swept: use any of alpha, beta"),
        ({"metrics": ["NDCG@7"]}, "ndcg@7 was not computed: it has ndcg@10, mrr, hit@5"),
        ({"metrics": ["MRR", "Hit@5", "NDCG@10"]}, "one or two fit in a panel"),
        ({"others": "worst"}, "--others worst: use any of best, fixed"),
    ],
)
def test_wrong_wishes_are_refused(options: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=complaint):
        weights_figure([write_sweep(tmp_path / "sweep")], **options)


def test_an_unfinished_sweep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="this sweep is not finished: go on with"):
        weights_figure([write_sweep(tmp_path / "sweep", tested=False)])


# --- groups (GSERec, Figures 2 and 5) ---------------------------------------------------------------------------------


def test_groups_are_those_of_the_command_groups(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra plot)")
    command("groups", *runs[:2], "--metric", "MRR")
    table = capsys.readouterr().out
    command("figure", "groups", *runs[:2], "--metric", "MRR", "--out", tmp_path)
    assert capsys.readouterr().out.startswith(table.rstrip())
    written = sorted(path.name for path in tmp_path.iterdir())
    pictures = [f"{name}.{suffix}" for name in ("group_sizes", "mrr", "mrr_improvement") for suffix in ("pdf", "png")]
    tables = ["group_metrics.csv", "group_sizes.csv", "groups.json"]
    assert written == sorted([*pictures, *tables])


# --- learning curves ------------------------------------------------------------------------------------------------


def test_curves_are_what_the_runs_wrote(tmp_path: Path) -> None:
    lines = [(0, 3.0, 0.1, 60.0), (1, 2.0, 0.4, 30.0), (2, 1.0, 0.3, 30.0)]
    for name in ("a", "b"):
        folder = RunFolder(tmp_path / name)
        folder.write_config({"valid_metric": "NDCG@10"}, {"model": name, "dataset": "d", "config_dict": {}})
        for epoch, loss, value, cpu in lines if name == "a" else lines[:1]:
            folder.append_metrics(
                {"epoch": epoch, "losses": {"rec": loss, "more": 1.0}, "valid": {"ndcg@10": value, "mrr": 0.5 - value},
                 "learning_rate": 0.1, "seconds": cpu, "cpu_seconds": cpu}
            )  # fmt: skip
    paths = [tmp_path / "a", tmp_path / "b"]
    figure = curves_figure(paths, ["one", "two"], against="cpu")
    assert figure.numbers["ndcg@10"].tolist() == [0.1, 0.4, 0.3, 0.1]
    assert figure.numbers["cpu_minutes"].tolist() == [1.0, 1.5, 2.0, 1.0]
    assert figure.numbers["loss"].tolist() == [4.0, 3.0, 2.0, 4.0]
    assert figure.table[["run", "epoch", "epochs"]].values.tolist() == [["one", 1, 3], ["two", 0, 1]]
    assert curves_figure(paths, ["one", "two"], "mrr").table["epoch"].tolist() == [0, 0]
    figure.write(tmp_path)
    check_files(tmp_path, "curves")
    with pytest.raises(ConfigError, match=r"hit@5 was not computed: it has ndcg@10, mrr"):
        curves_figure(paths, ["one", "two"], "hit@5")
    with pytest.raises(ConfigError, match="--against time: use epoch or cpu"):
        curves_figure(paths, against="time")
    (tmp_path / "b" / "metrics.jsonl").unlink()
    with pytest.raises(UserError, match="no epoch of this run has been evaluated yet"):
        curves_figure(paths, ["one", "two"])
