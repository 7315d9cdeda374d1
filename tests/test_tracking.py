"""What reaches Weights & Biases, offline, and MLflow, in a file; skipped where they are not installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import SIZES, write_toy

from recbole_ser.errors import UserError
from recbole_ser.runner import run
from recbole_ser.runs.folder import RunFolder
from recbole_ser.runs.result import RunResult, unweighted

INTERACTIONS = [f"u{k} i{(k + 2 * place) % 11} {10 * (place + 1)}" for k in range(6) for place in range(5)]
SEARCHES = [f"u{k} q{k % 3} {time} i1" for k in range(6) for time in (5, 30)]


@pytest.fixture
def train(tmp_path: Path) -> Any:
    """A function that trains SESRec in the folder ``run`` with the given settings."""
    write_toy(tmp_path / "data", inter=INTERACTIONS, search=SEARCHES)
    values = {"data_path": str(tmp_path / "data"), "run_dir": str(tmp_path / "run"), "epochs": 2, "alpha": 0.1,
              "eval_args.mode": "uni2", "show_progress": False, **SIZES}  # fmt: skip
    return lambda **more: run("SESRec", "toy", config_dict={**values, **more})


def losses_of(result: RunResult) -> dict[str, float]:
    assert result.folder is not None
    line = RunFolder(result.folder).metrics()[-1]
    return unweighted(line["losses"], line["weights"])


def test_wandb_gets_losses_and_test_metrics(train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    train(log_wandb=True, run_dir=str(tmp_path / "first"))
    assert wandb.run is None, "the run is over"
    (log,) = tmp_path.glob("first/wandb/offline-run-*/run-*.wandb")
    assert b"test/ndcg@10" in log.read_bytes()

    with wandb.init(project="mine", mode="offline") as begun:
        result = train(log_wandb=True)
        assert wandb.run is begun, "the caller ends it"
        found = dict(begun.summary)
    assert {name: found[f"test/{name}"] for name in result.test} == pytest.approx(result.test)
    losses = losses_of(result)
    assert {name: found[f"train/{name}"] for name in losses} == pytest.approx(losses) and "alignment" in losses


def test_mlflow_gets_losses_metrics_and_settings(train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    result = train(log_mlflow=True, mlflow_experiment="mine")
    client = mlflow.MlflowClient()
    (found,) = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    metrics = found.data.metrics
    assert found.info.status == "FINISHED" and found.info.run_name == "run" and found.data.params["alpha"] == "0.1"
    assert {name: metrics[f"test/{name.replace('@', '_at_')}"] for name in result.test} == pytest.approx(result.test)
    losses = losses_of(result)
    assert {name: metrics[f"train/{name}"] for name in losses} == pytest.approx(losses)
    assert [point.step for point in client.get_metric_history(found.info.run_id, "valid/ndcg_at_10")] == [0, 1]

    with mlflow.start_run() as begun:
        train(log_mlflow=True, run_dir=str(tmp_path / "second"))
        assert mlflow.active_run() is not None, "the caller ends it"
    assert "test/mrr" in client.get_run(begun.info.run_id).data.metrics

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nothing://here")
    with pytest.raises(UserError, match=r"^log_mlflow: nothing://here: "):
        train(log_mlflow=True, run_dir=str(tmp_path / "third"))
