"""From atomic files to batches: ours against RecBole's ``SequentialDataset``, and ours alone at Kuaishou's size.

    python benchmarks/loading.py            # about five minutes and 2.5 GB of memory
    python benchmarks/loading.py --quick    # a tenth of the size

Each part runs in a process of its own, one thread, so that peak memory is its own; the same generated files serve
both.  RecBole reads interactions only, ours searches as well.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from measure import in_own_process, machine, peak_memory_mib, print_table

BATCHES = 300
PARTS = {
    "RecBole, Kindle's size": ("recbole", "kindle", {"MAX_ITEM_LIST_LENGTH": 15}),
    "ours, Kindle's size": ("ours", "kindle", {"MAX_ITEM_LIST_LENGTH": 15, "max_search_length": 15}),
    "ours, Kuaishou's size": ("ours", "kuaishou", {"MAX_ITEM_LIST_LENGTH": 150, "max_search_length": 25}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="data sets of a tenth of the size")
    parser.add_argument("--data", type=Path, help="folder for the generated data sets (default: a temporary one)")
    parser.add_argument("--part", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        side, folder, lengths = arguments.part
        print(json.dumps({"recbole": measure_recbole, "ours": measure_ours}[side](Path(folder), json.loads(lengths))))
        return
    with tempfile.TemporaryDirectory() as temporary:
        data = arguments.data or Path(temporary)
        results = {name: _measure(part, data, arguments.quick) for name, part in PARTS.items()}
    _print(results)


def measure_ours(folder: Path, lengths: dict[str, int]) -> dict[str, float]:
    """CPU seconds to be ready to train SESRec, batches per CPU second, and the share of a training step."""
    from recbole.utils import init_seed

    from recbole_ser.config import SERConfig
    from recbole_ser.data.dataset import SERDataset
    from recbole_ser.data.loader import TrainLoader
    from recbole_ser.model.search_aware.sesrec import SESRec

    start = time.process_time()
    values = {"data_path": str(folder.parent), "num_threads": 1, "max_clicks_per_search": 1, **lengths}
    if "kuaishou" in folder.name:
        values["max_clicks_per_search"] = 5
    config = SERConfig("SESRec", folder.name, None, values)
    dataset = SERDataset(config)
    loader = TrainLoader(config, dataset)
    figures = {"ready": time.process_time() - start, "peak": peak_memory_mib(), "histories": dataset.log.nbytes / 1e6}
    figures |= {"batches": _batches_per_second(loader), "rows": loader.rows}

    init_seed(0, True)
    model = SESRec(config, dataset)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    steps, start = 0, time.process_time()
    for batch in loader:
        optimizer.zero_grad()
        model.calculate_loss(batch).backward()
        optimizer.step()
        if (steps := steps + 1) == 25:
            break
    figures["step"] = (time.process_time() - start) / steps
    return figures


def measure_recbole(folder: Path, lengths: dict[str, int]) -> dict[str, float]:
    """The same for RecBole's own classes; its training step is not measured here."""
    from recbole.config import Config
    from recbole.data import data_preparation
    from recbole.data.dataset import SequentialDataset

    sys.argv = sys.argv[:1]
    start = time.process_time()
    values = {
        "data_path": str(folder.parent), "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "train_neg_sample_args": {"distribution": "uniform", "sample_num": 1},
        "train_batch_size": 512, "loss_type": "BPR",
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "uni99"}, "state": "ERROR", **lengths,
    }  # fmt: skip
    config = Config("SASRec", folder.name, config_dict=values)
    loader, _, _ = data_preparation(config, SequentialDataset(config))
    figures = {"ready": time.process_time() - start, "peak": peak_memory_mib()}
    return figures | {"batches": _batches_per_second(loader), "rows": len(loader.dataset)}


def _batches_per_second(loader: Any) -> float:
    """Batches of 256 positives (RecBole counts positives and negatives: 512)."""
    batches = iter(loader)
    next(batches)
    count, start = 0, time.process_time()
    for _ in batches:
        if (count := count + 1) == BATCHES:
            break
    return count / (time.process_time() - start)


def _measure(part: tuple[str, str, dict[str, int]], data: Path, quick: bool) -> dict[str, float]:
    from recbole_ser.data.planted import generate
    from recbole_ser.data.synthetic import PRESETS, write

    side, preset, lengths = part
    folder = data / (f"{preset}-tenth" if quick else preset)
    if not (folder / f"{folder.name}.inter").is_file():
        write(generate(PRESETS[preset].scaled(0.1) if quick else PRESETS[preset]), folder)
    return in_own_process(__file__, "--part", side, str(folder), json.dumps(lengths))


def _print(results: dict[str, dict[str, float]]) -> None:
    print(machine())
    rows = [[name, f["ready"], f["peak"], f["batches"], f["rows"]] for name, f in results.items()]
    print_table(["", "CPU s to be ready", "peak MiB", "batches per CPU s", "training rows"], rows)
    theirs, ours, large = results.values()
    print(
        f"\nat Kindle's size: ready {theirs['ready'] / ours['ready']:.1f} times as fast, "
        f"batches {ours['batches'] / theirs['batches']:.2f} times as fast, "
        f"peak memory {theirs['peak'] / ours['peak']:.2f} times smaller"
    )
    for size, figures in [("Kindle", ours), ("Kuaishou", large)]:
        share = 1 / figures["batches"] / figures["step"]
        step = f"a SESRec training step ({figures['step'] * 1000:.0f} ms CPU)"
        print(f"{size}: histories {figures['histories']:.0f} MB; fetching a batch is {share:.1%} of {step}")


if __name__ == "__main__":
    main()
