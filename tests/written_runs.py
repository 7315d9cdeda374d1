"""Folders of finished runs that were never trained, for the tests of what compares them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from conftest import SIZES

from recbole_ser.config import SERConfig
from recbole_ser.data.dataset import SERDataset
from recbole_ser.runs.folder import RunFolder
from recbole_ser.runs.result import RunResult


def write_run(
    folder: Path,
    model: str,
    ranks: list[int],
    *,
    seed: int = 1,
    settings: Mapping[str, Any] | None = None,
    **data: Any,
) -> Path:
    """A finished run of ``model`` on the data set ``toy`` in ``folder``.

    Args:
        settings: what the run was given besides.
        data: what ``data.json`` says, where that differs from what is true.
    """
    values = {"data_path": str(folder), "require_both_histories": False, "seed": seed, **SIZES, **(settings or {})}
    config = SERConfig(model, "toy", None, values)
    dataset = SERDataset(config)
    run = RunFolder(folder / "saved" / f"{model}-{len(list(folder.glob('saved/*')))}")
    run.write_config({"model": model}, config.arguments())
    facts = {"fingerprint": dataset.data_hash, "protocol": "uni99", "candidates": {"test": "c0ffee"}, **data}
    facts = {"counts": dataset.summary(), "targets": {"test": dataset.target_hash("test")}, **facts}
    run.write_data(**facts)
    tested = dataset.id2token("user_id", dataset.log.users[dataset.split.test.long()].numpy())
    hashes = {"candidates": facts["candidates"], "data": facts["fingerprint"], "targets": facts["targets"]}
    costs = {"best_epoch": 0, "epochs": 1, "parameters": 1, "seconds": 1.0, "cpu_seconds": 1.0, "peak_memory_mib": 1.0}
    names = {"model": model, "dataset": "toy", "seed": seed, "protocol": facts["protocol"], "valid": {}, "test": {}}
    run.write_result(RunResult(**names, **costs, **hashes, ranks=run.write_ranks(tested, torch.tensor(ranks))))
    return run.path
