"""Whole runs on generated data: results, resuming after a kill, seeds, and what the planted structure must show."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from recbole_ser.bundled import package_folder
from recbole_ser.data.planted import generate, shuffle_searches_between_users
from recbole_ser.data.synthetic import PRESETS, write
from recbole_ser.registry import MODELS
from recbole_ser.runner import resume, run
from recbole_ser.runs.folder import RunFolder
from recbole_ser.runs.result import RunResult
from recbole_ser.yaml_values import read_yaml

ROOT = Path(__file__).parent.parent
QUICK = {"epochs": 2, "show_progress": False, "state": "WARNING", "num_threads": 1}


def run_in(folder: Path, model: str = "SESRec", dataset: str = "ser-sample", **values: Any) -> RunResult:
    return run(model, dataset, config_dict={**QUICK, "run_dir": str(folder), **values})


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of SESRec on the bundled sample, three epochs."""
    folder = tmp_path_factory.mktemp("runs") / "reference"
    run_in(folder, epochs=3)
    return folder


def outcome(folder: Path) -> dict[str, Any]:
    """What must not depend on how a run came about: metrics, ranks and weights."""
    loaded = RunFolder.load(folder)
    result, best = loaded.result(), torch.load(loaded.best, weights_only=True)
    return {
        "test": result.test,
        "valid": result.valid,
        "epochs": [(line["epoch"], line["losses"], line["valid"]) for line in loaded.metrics()],
        "ranks": loaded.ranks()["rank"].tolist(),
        "weights": {name: value.numpy().tobytes() for name, value in best["state_dict"].items()},
    }


def test_a_run_leaves_a_complete_folder(reference: Path) -> None:
    files = {path.name for path in reference.iterdir()}
    assert {"config.yaml", "environment.json", "data.json", "metrics.jsonl", "result.json", "ranks.csv"} <= files
    assert {"best.pt", "last.pt", "log.txt"} <= files
    result = json.loads((reference / "result.json").read_text())
    assert set(result["test"]) >= {"hit@1", "hit@5", "hit@10", "ndcg@5", "ndcg@10", "mrr"}
    assert result["candidates"].keys() == {"valid", "test"} and len(result["data"]) == 64
    ranks = RunFolder.load(reference).ranks()
    assert result["test"]["hit@10"] == pytest.approx((ranks["rank"] <= 10).mean())
    assert result["test"]["mrr"] == pytest.approx((1 / ranks["rank"]).mean())
    assert len((reference / "metrics.jsonl").read_text().splitlines()) == 3


def test_the_same_seed_gives_the_same_run_and_another_seed_another(reference: Path, tmp_path: Path) -> None:
    run_in(tmp_path / "again", epochs=3)
    assert outcome(tmp_path / "again") == outcome(reference)
    run_in(tmp_path / "other", epochs=3, seed=1)
    assert outcome(tmp_path / "other")["weights"] != outcome(reference)["weights"]
    assert RunFolder.load(tmp_path / "other").result().candidates == RunFolder.load(reference).result().candidates


@pytest.mark.slow
@pytest.mark.parametrize("epochs_before", [0, 1])
def test_a_killed_run_resumes_to_the_same_result(reference: Path, tmp_path: Path, epochs_before: int) -> None:
    folder = tmp_path / "killed"
    values = {**QUICK, "epochs": 3, "run_dir": str(folder)}
    arguments = [f"--{key}={str(value).lower()}" for key, value in values.items() if key not in ("state", "run_dir")]
    command = [sys.executable, str(ROOT / "run_recbole_ser.py"), "--model=SESRec", "--dataset=ser-sample"]
    process = subprocess.Popen(
        [*command, *arguments, "--state=WARNING", f"--run_dir={folder}"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    metrics = folder / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        written = metrics.read_text().count("\n") if metrics.exists() else 0
        if (folder / "data.json").exists() and written >= epochs_before:
            break
        time.sleep(0.01)
    time.sleep(0.3)  # into the epoch
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "result.json").exists(), "the run was killed before its end"
    resume(folder)
    assert outcome(folder) == outcome(reference)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["DIN", "LLMESR", "SRJGraph", "UnifiedSSR"])
def test_a_model_with_a_state_of_its_own_resumes_to_the_same_result(model: str, tmp_path: Path) -> None:
    """The states: batch statistics, teachers of an epoch, sampled neighbours, and two phases."""
    values = {"texts_folder": str(tmp_path / "x.texts"), **({"pretrain_epochs": 1} if model == "UnifiedSSR" else {})}

    def interrupt(epoch: int, valid: dict[str, float]) -> None:
        raise KeyboardInterrupt

    run_in(tmp_path / "whole", model, **values)
    folder = tmp_path / "interrupted"
    with pytest.raises(KeyboardInterrupt):
        run(model, "ser-sample", config_dict={**QUICK, "run_dir": str(folder), **values}, callback=interrupt)
    resume(folder)
    assert outcome(folder) == outcome(tmp_path / "whole")


def test_resuming_a_finished_run_scores_it_again(reference: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(reference, copy)
    (copy / "result.json").unlink()
    resume(copy)
    assert outcome(copy) == outcome(reference)


@pytest.mark.parametrize("model", sorted(MODELS.keys() - {"SESRec"}))
def test_every_model_runs_on_the_same_candidates(model: str, reference: Path, tmp_path: Path) -> None:
    few = {"epochs": 2, "levels": 2, "hidden": [16]}
    made = {"codes_file": str(tmp_path / "x.codes"), "texts_folder": str(tmp_path / "x.texts")}
    result = run_in(tmp_path / model, model, epochs=1, codes={"rqvae": few}, **made)
    assert result.candidates == RunFolder.load(reference).result().candidates
    assert result.data == RunFolder.load(reference).result().data
    assert 0 < result.test["hit@10"] < 1


def test_full_ranking_and_mixed_precision_run(tmp_path: Path) -> None:
    plateau = {"factor": 0.5, "patience": 0, "min_lr": 1e-4}
    result = run_in(tmp_path / "full", eval_args={"mode": "full"}, enable_amp=True, lr_plateau=plateau)
    assert result.candidates == {} and result.protocol == "full"
    assert 0 < result.test["mrr"] < 1


def test_without_the_protocol_users_without_searches_are_ranked_too(tmp_path: Path) -> None:
    result = run_in(tmp_path / "all", require_both_histories=False, epochs=1)
    data = RunFolder.load(tmp_path / "all").data()
    assert data["counts"]["test"] == data["counts"]["users"]
    assert all(value == value for value in result.test.values())


@pytest.mark.slow
def test_search_decides_on_the_planted_data(tmp_path: Path) -> None:
    """SESRec beats SASRec clearly on the sample; dealing the searches out anew between users takes the lead away."""
    logs = shuffle_searches_between_users(generate(PRESETS["ser-sample"]), seed=1)
    write(logs, tmp_path / "data" / "shuffled")
    settings = read_yaml(package_folder("properties") / "dataset" / "ser-sample.yaml")
    del settings["models"]  # entries for other models, which only a data set's file can have
    shuffled = {**settings, "dataset": "shuffled", "data_path": str(tmp_path / "data")}
    epochs = {"epochs": 12}
    sesrec = run_in(tmp_path / "SESRec", **epochs).test["ndcg@10"]
    sasrec = run_in(tmp_path / "SASRec", "SASRec", **epochs).test["ndcg@10"]
    without = run_in(tmp_path / "without", **epochs, **shuffled).test["ndcg@10"]
    assert sesrec > 1.4 * sasrec
    assert without < sasrec


def test_the_bundled_sample_needs_no_download() -> None:
    sample = package_folder("dataset_atomic") / "ser-sample"
    assert sum(path.stat().st_size for path in sample.iterdir()) < 1_000_000
