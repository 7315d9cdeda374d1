"""Every model on one data set: the same instances, candidates and rule, in one table.

    python benchmarks/comparison.py --dataset=cell --out=saved/comparison --epochs=20
    python benchmarks/comparison.py --dataset=ser-sample --out=/tmp/comparison --models SESRec SASRec --epochs=2

Trains each model with ``run_recbole_ser.py`` (one thread each, ``--jobs`` at a time), a folder per run below ``--out``;
runs that are finished there are not repeated, interrupted ones go on.  Then it measures each model's speed in a process
of its own, without anything else running, and prints a table in Markdown.  A run is named by its model, or
``Model:key=value`` for one with another setting; arguments it does not know go to every run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from measure import in_own_process, machine

METRICS = {
    "hit@1": "Hit@1",
    "hit@5": "Hit@5",
    "hit@10": "Hit@10",
    "ndcg@5": "NDCG@5",
    "ndcg@10": "NDCG@10",
    "mrr": "MRR",
}
WARM_UP, STEPS, USERS = 10, 60, 8_192
COMMAND = [sys.executable, str(Path(__file__).parent.parent / "run_recbole_ser.py")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--out", required=True, type=Path, help="folder of the runs")
    parser.add_argument("--models", nargs="+", help="default: every registered model")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time")
    parser.add_argument("--speed", action="store_true", help=argparse.SUPPRESS)
    arguments, settings = parser.parse_known_args()
    if arguments.speed:
        print(json.dumps(measure_speed(arguments.models[0], arguments.dataset, settings)))
        return
    models = arguments.models or registered()
    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(lambda name: train(name, arguments.dataset, arguments.out, settings), models))
    shared = ["--dataset", arguments.dataset, "--out", str(arguments.out), "--speed", *settings]
    speeds = {name: in_own_process(__file__, *shared, "--models", name) for name in models}
    print(f"\n{machine()}\n")
    print_results({name: json.loads((arguments.out / name / "result.json").read_text()) for name in models}, speeds)


def registered() -> list[str]:
    from recbole_ser.registry import MODELS

    return list(MODELS)


def settings_of(name: str) -> tuple[str, list[str]]:
    """``Model:key=value:key=value`` as the model and its arguments."""
    model, *values = name.split(":")
    return model, [f"--{value}" for value in values]


def train(name: str, dataset: str, out: Path, settings: list[str]) -> None:
    """Train one model to the end, unless that was done before; its output goes to ``out/name.txt``."""
    folder = out / name
    if (folder / "result.json").is_file():
        return
    model, own = settings_of(name)
    started = (folder / "config.yaml").is_file()
    new = [f"--model={model}", f"--dataset={dataset}", f"--run_dir={folder}", "--show_progress=false", *settings, *own]
    out.mkdir(parents=True, exist_ok=True)
    with open(out / f"{name}.txt", "a", encoding="utf-8") as output:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [*COMMAND, *([f"--resume={folder}"] if started else new)]
        done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
    if done.returncode:
        raise SystemExit(f"{name}: training failed, see {out / f'{name}.txt'}")
    print(f"{name}: done", flush=True)


def measure_speed(name: str, dataset: str, settings: list[str]) -> dict[str, float]:
    """Training positives and evaluated users per CPU second of an untrained model."""
    from recbole.utils import init_seed

    from recbole_ser.commands.arguments import parse_arguments
    from recbole_ser.config import SERConfig
    from recbole_ser.convert.prepare import ensure_dataset
    from recbole_ser.data.dataset import SERDataset
    from recbole_ser.evaluation.ranking import rank_targets
    from recbole_ser.model.foreign import candidate_scorer

    torch.set_num_threads(1)
    model_name, own = settings_of(name)
    config = SERConfig(model_name, dataset, None, parse_arguments([*settings, *own]))
    ensure_dataset(config["data_path"], config.final_config_dict)
    data = SERDataset(config)
    init_seed(config["seed"], True)
    model = config.model_class(config, data)
    positives = _training_speed(model, config, data)
    model.eval()
    loader = _first_users(config, data)
    start = time.process_time()
    rank_targets(candidate_scorer(model), loader, "cpu", model_name)
    users = loader.rows / (time.process_time() - start)
    return {"positives": positives, "users": users}


def _training_speed(model: Any, config: Any, data: Any) -> float:
    """Positives per CPU second: loading, forward and backward pass, and Adam."""
    from recbole_ser.data.loader import TrainLoader
    from recbole_ser.model.foreign import with_history
    from recbole_ser.train.optimization import build_adam

    optimizer = build_adam(model, "adam", config["learning_rate"], config["weight_decay"])
    model.train()
    rows, start = 0, time.process_time()
    for step, batch in enumerate(TrainLoader(config, data)):
        if step == WARM_UP:
            rows, start = 0, time.process_time()
        if step == WARM_UP + STEPS:
            break
        optimizer.zero_grad()
        loss = model.calculate_loss(with_history(model, batch))
        (sum(loss) if isinstance(loss, tuple) else loss).sum().backward()
        optimizer.step()
        rows += len(batch)
    return rows / (time.process_time() - start)


def _first_users(config: Any, data: Any) -> Any:
    from recbole_ser.data.candidates import CandidateTable
    from recbole_ser.data.loader import EvalLoader

    loader = EvalLoader(config, data, "test")
    loader.rows = min(USERS, loader.rows)
    loader.positions = loader.positions[: loader.rows]
    if loader.candidates is not None:
        items, column = loader.candidates.items[: loader.rows], loader.candidates.positive_column[: loader.rows]
        loader.candidates = CandidateTable(items, column)
    return loader


def print_results(results: dict[str, dict[str, Any]], speeds: dict[str, dict[str, float]]) -> None:
    """A table in Markdown, the best by NDCG@10 last."""
    header = ["model", *METRICS.values(), "NDCG@10 valid", "epochs (best)", "CPU min", "parameters"]
    header += ["positives per CPU s", "users per CPU s", "peak MiB"]
    print("| " + " | ".join(header) + " |")
    print("|---" + "|---:" * (len(header) - 1) + "|")
    for name, found in sorted(results.items(), key=lambda pair: pair[1]["test"]["ndcg@10"]):
        cells = [f"{found['test'][metric]:.4f}" for metric in METRICS]
        cells += [f"{found['valid']['ndcg@10']:.4f}", f"{found['epochs']} ({found['best_epoch']})"]
        cells += [f"{found['cpu_seconds'] / 60:.1f}", f"{found['parameters']:,}"]
        cells += [f"{speeds[name]['positives']:,.0f}", f"{speeds[name]['users']:,.0f}"]
        cells += [f"{found['peak_memory_mib']:,.0f}"]
        print("| " + " | ".join([name, *cells]) + " |")
    same = {(found["data"], *sorted(found["candidates"].items())) for found in results.values()}
    print(f"\nSame data and candidates in all rows: {'yes' if len(same) == 1 else 'NO'}")


if __name__ == "__main__":
    main()
