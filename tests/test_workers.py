"""Training on several processes: losses, gradients and metrics of one process, and no hang when one of them dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gathering_workers
import psutil
import pytest
import torch
import torch.multiprocessing as mp
from several_workers import built, steps, train, work

from recbole_ser.cli import main
from recbole_ser.data.loader import TrainLoader
from recbole_ser.errors import ConfigError
from recbole_ser.registry import MODELS
from recbole_ser.testing import ModelUnderTest
from recbole_ser.train.division import refuse_undividable
from recbole_ser.workers import group
from recbole_ser.workers.rows import drawn_alike, draws_seeded

SMALL: dict[str, Any] = {
    "MAX_ITEM_LIST_LENGTH": 8, "max_search_length": 6, "max_clicks_per_search": 3, "max_terms_per_query": 4,
    "require_both_histories": False, "train_batch_size": 50, "seed": 11, "eval_args": {"mode": "uni19"},
    "load_col": {"inter": "*", "search": "*", "query": "*", "item": "*", "user": "*"},
}  # fmt: skip
JOBS: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    **{name: (name, SMALL, (0, -1)) for name in MODELS if name not in ("Pop", "SRJGraph", "QuerySeqRec")},
    "QuerySeqRec": ("QuerySeqRec", {**SMALL, "augmentation_prob": 0.0}, (0, -1)),
    "SESRec-CE": ("SESRec", {**SMALL, "loss_type": "CE"}, (0,)),
    "SASRec-BPR": ("SASRec", {**SMALL, "loss_type": "BPR", "train_neg_sample_args": {"sample_num": 2}}, (0, -1)),
    "UniSAR-tiny": ("UniSAR", {**SMALL, "train_batch_size": 2}, (0, 3)),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds a small data set, with codes and texts."""
    folder = tmp_path_factory.mktemp("workers")
    for model in ("GSERec", "LLMESR"):
        _ = ModelUnderTest(model, folder).dataset
    return folder


def assert_same(jobs: dict[str, Any], folder: Path, workers: int) -> None:
    mp.spawn(work, (workers, folder, jobs), nprocs=workers)
    found = torch.load(folder / f"{workers}.pt")
    for name, job in jobs.items():
        for several, alone in zip(found[name], steps(job[0], folder, *job[1:]), strict=True):
            for values, expected in zip(several, alone):  # losses, then gradients
                assert values.keys() == expected.keys(), name
                for key, value in values.items():
                    near = 1e-4 * float(expected[key].abs().max()) + 2e-7
                    torch.testing.assert_close(
                        value, expected[key], rtol=1e-4, atol=near, msg=lambda text, at=(name, key): f"{at}: {text}"
                    )


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 3])
def test_several_workers_have_the_losses_and_gradients_of_one_process(workers: int, folder: Path) -> None:
    assert_same(JOBS, folder, workers)


def test_two_workers_gather_rows_with_their_gradient_and_draw_what_one_process_draws(tmp_path: Path) -> None:
    mp.spawn(gathering_workers.work, (tmp_path,), nprocs=2)
    (gradient, first, alike, everybody, seen), others = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    rows = (0.1 * gathering_workers.ROWS).requires_grad_()
    gathering_workers.weighted(rows).backward()
    torch.testing.assert_close(torch.cat([gradient, others[0]]), rows.grad)
    with draws_seeded(3, 4):
        assert torch.equal(torch.cat([first, others[1]]), gathering_workers.draw())
        with drawn_alike():
            expected = torch.rand(2)
        assert torch.equal(everybody, gathering_workers.draw()) and torch.equal(everybody, others[3])
    assert torch.equal(alike, expected) and torch.equal(others[2], expected)
    assert seen == others[4] == "from 0"


@pytest.mark.parametrize("model", ["UniSAR", "BERT4Rec", "BPR"])
def test_the_parts_of_a_batch_are_the_batch_of_one_process(
    model: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {**SMALL, "loss_type": "BCE"} if model == "BERT4Rec" else SMALL
    dataset = built(model, folder, values)[1]

    def batches() -> list[Any]:
        return list(TrainLoader(dataset.config, dataset))

    whole, parts = batches(), []
    monkeypatch.setattr(group, "count", lambda: 3)
    for rank in range(3):
        monkeypatch.setattr(group, "rank", lambda rank=rank: rank)
        parts.append(batches())
    loader = TrainLoader(dataset.config, dataset)
    assert all(loader.is_divided(number) for number in range(len(loader)))
    for batch, *own in zip(whole, *parts, strict=True):
        for name, values in batch.interaction.items():
            assert torch.equal(values, torch.cat([part[name] for part in own])), name
        if model == "UniSAR":
            for name, values in batch.search.interaction.items():
                assert torch.equal(values, torch.cat([part.search[name] for part in own])), name


@pytest.mark.parametrize(
    ("model", "values", "problem"),
    [
        ("Pop", {}, "does not learn by gradients"),
        ("SRJGraph", {}, "walks of a batch"),
        ("QuerySeqRec", {}, "unless augmentation_prob is 0"),
        ("recbole.model.sequential_recommender:FOSSIL", {}, "not known to be a mean over rows"),
        ("SASRec", {"learner": "sparse_adam"}, "sparse_adam"),
    ],
)
def test_models_that_need_whole_batches_are_refused(
    model: str, values: dict[str, Any], problem: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, dataset = built(model, folder, {**SMALL, **values})
    refuse_undividable(dataset.config, network)  # alone, everything is possible
    monkeypatch.setattr(group, "count", lambda: 2)
    with pytest.raises(ConfigError, match=problem):
        refuse_undividable(dataset.config, network)


def test_foreign_batch_normalisation_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, dataset = built("SASRec", folder, SMALL)
    monkeypatch.setattr(group, "count", lambda: 2)
    refuse_undividable(dataset.config, network)
    network.norm = torch.nn.BatchNorm1d(3)
    with pytest.raises(ConfigError, match="batch normalisation"):
        refuse_undividable(dataset.config, network)


def test_what_several_workers_cannot_do_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert main(["tune", "--model=SESRec", "--dataset=ser-sample"]) == 2
    assert "start this without torchrun" in capsys.readouterr().err
    assert main(["run", "--model=SESRec", "--dataset=ser-sample", "--workers=2"]) == 2
    assert "torchrun has started some already" in capsys.readouterr().err
    assert main(["run", "--model=SESRec", "--dataset=ser-sample", "--workers=0"]) == 2


@pytest.mark.slow
def test_a_run_has_the_same_metrics_with_any_number_of_workers(folder: Path) -> None:
    """In double precision: in single precision Adam makes steps of rounding errors where a gradient is zero."""
    results = []
    for workers in (1, 2, 3):
        mp.spawn(train, (workers, folder, {**SMALL, "epochs": 3, "dropout_prob": 0.0}), nprocs=workers)
        lines = (folder / str(workers) / "metrics.jsonl").read_text().splitlines()
        result = json.loads((folder / str(workers) / "result.json").read_text())
        results.append(([json.loads(line) for line in lines], result))
    (alone, result), *shared = results
    for lines, other in shared:
        for line, expected in zip(lines, alone, strict=True):
            assert line["losses"] == pytest.approx(expected["losses"], rel=1e-9)
            assert line["valid"] == expected["valid"]
        assert other["test"] == result["test"] and other["ranks"] == result["ranks"]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "recbole_ser.cli", "run", *arguments]


@pytest.mark.slow
def test_a_killed_worker_ends_the_run_and_others_go_on_with_it(tmp_path: Path) -> None:
    """Two workers train until one is killed, and three go on after the last whole epoch."""
    values = {"epochs": 4, "dropout_prob": 0.0, "data_path": str(Path("dataset_atomic").absolute())}
    folder = tmp_path / "shared"
    arguments = [f"--{key}={value}" for key, value in {**values, "run_dir": folder}.items()]
    process = subprocess.Popen(
        command("--model=SESRec", "--dataset=ser-sample", "--workers=2", *arguments), stderr=subprocess.PIPE, text=True
    )
    metrics = folder / "metrics.jsonl"
    while not (folder / "last.pt").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    os.kill(next(worker for worker in workers_of(process.pid) if worker[1] == "1")[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert errors.strip().splitlines()[-1].startswith("error: worker 1 was killed (SIGKILL; out of memory?)")
    assert not (folder / "result.json").exists()
    assert json.loads((folder / "environment.json").read_text())["workers"] == 2

    whole = len(metrics.read_text().splitlines())
    resumed = subprocess.run(command(f"--resume={folder}", "--workers=3"), stderr=subprocess.PIPE, text=True)
    assert resumed.returncode == 0 and "Resuming after epoch" in resumed.stderr
    assert (folder / "result.json").exists() and len(metrics.read_text().splitlines()) == 4 > whole
    assert json.loads((folder / "environment.json").read_text())["workers"] == 3


def workers_of(launcher: int) -> list[tuple[int, str]]:
    """The processes that ``launcher`` started, and their numbers as workers."""
    found = []
    for child in psutil.Process(launcher).children(recursive=True):
        rank = child.environ().get("RANK")
        if rank is not None and "run" in child.cmdline():
            found.append((child.pid, rank))
    return found


@pytest.mark.slow
def test_ray_train_starts_workers_too(tmp_path: Path) -> None:
    """On a cluster that Ray starts for this; a worker's error is one line."""
    folder = tmp_path / "run"
    places = ["--dataset=ser-sample", f"--data_path={Path('dataset_atomic').absolute()}", "--address=local"]
    arguments = [*places, "--workers=2", "--epochs=1", f"--run_dir={folder}"]
    assert subprocess.run(command("--model=SESRec", *arguments)).returncode == 0
    assert (folder / "result.json").exists()
    assert json.loads((folder / "environment.json").read_text())["workers"] == 2
    refused = subprocess.run(command("--model=Pop", *places, "--workers=2"), stderr=subprocess.PIPE, text=True)
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].startswith("error: Pop cannot be trained by several workers")
