"""From atomic files to ready for training, the first time and every later time, when what was made is mapped.

    python benchmarks/ready.py                # Kuaishou's size, 11.4 million interactions: a few minutes, 2 GB of disk
    python benchmarks/ready.py --scale=0.1    # a tenth of it, or any other size

Ready means: the data set is loaded, the candidates of validation and test are drawn, and the first training batch has
been made.  Each start is a process of its own on one thread.  The last two start together.  All give the same batch,
the same hashes of data, candidates and targets, which is checked.  Imports, which every process pays for, are given
apart.  Private memory is what a process does not share with others.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from measure import in_own_process, machine, peak_memory_mib, print_table

FOUND = ("data", "candidates", "targets", "batch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="kuaishou")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--data", type=Path, help="folder for the generated data set (default: a temporary one)")
    parser.add_argument("--part", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        print(json.dumps(start(arguments.part)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = _generated(arguments.preset, arguments.scale, arguments.data or Path(temporary))
        files = sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) / 2**20
        shutil.rmtree(folder / ".cache", ignore_errors=True)

        def part(_: int = 0) -> dict[str, Any]:
            return in_own_process(__file__, "--part", str(folder))

        results = {"first": part(), "second": part()}
        with ThreadPoolExecutor(2) as pool:
            both = list(pool.map(part, range(2)))
        results |= {"two at once": both[0], "": both[1]}
        kept = sum(path.stat().st_size for path in (folder / ".cache").rglob("*") if path.is_file()) / 2**20
    for found in FOUND:
        assert len({result[found] for result in results.values()}) == 1, f"the {found} differ"
    print(f"{machine()}\n{results['first']['summary']}\natomic files {files:,.0f} MiB, kept {kept:,.0f} MiB")
    columns = ["imports", "ready", "seconds", "peak", "private", "shared"]
    header = ["start", "CPU s to import", "CPU s to be ready", "seconds", "peak MiB", "private MiB", "shared MiB"]
    print_table(header, [[name, *(result[key] for key in columns)] for name, result in results.items()])
    print(f"the second start takes {results['first']['ready'] / results['second']['ready']:.0f} times less CPU time")


def start(folder: Path) -> dict[str, Any]:
    """What it costs to be ready to train SESRec, and hashes of what was found."""
    from recbole_ser.config import SERConfig
    from recbole_ser.runner import prepare

    imports, began, wall = time.process_time(), time.process_time(), time.perf_counter()
    lengths = {"MAX_ITEM_LIST_LENGTH": 150, "max_search_length": 25, "max_clicks_per_search": 5}
    values = {"data_path": str(folder.parent), "num_threads": 1, "state": "WARNING", **lengths}
    prepared = prepare(SERConfig("SESRec", folder.name, None, values))
    batch = next(iter(prepared.training()))
    figures = {"imports": imports, "ready": time.process_time() - began, "seconds": time.perf_counter() - wall}
    figures |= {"peak": peak_memory_mib()} | memory_mib()
    dataset = prepared.dataset
    digest = hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in batch.interaction.values()))
    candidates = " ".join(table.hash for table in prepared.candidates.values())
    targets = " ".join(dataset.target_hash(phase) for phase in ("valid", "test"))
    summary = ", ".join(f"{count:,} {name}" for name, count in dataset.summary().items())
    return {**figures, **dict(zip(FOUND, (dataset.data_hash, candidates, targets, digest.hexdigest()))),
            "summary": summary}  # fmt: skip


def memory_mib() -> dict[str, float]:
    """The memory of this process that it has for itself, and that of pages of files, which it can share (Linux)."""
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(lines[key].split()[0]) / 1024 for name, key in [("private", "RssAnon"), ("shared", "RssFile")]}


def _generated(preset: str, scale: float, data: Path) -> Path:
    from recbole_ser.data.planted import generate
    from recbole_ser.data.synthetic import PRESETS, write

    folder = data / (preset if scale == 1 else f"{preset}-{scale:g}")
    if not (folder / f"{folder.name}.inter").is_file():
        write(generate(PRESETS[preset].scaled(scale)), folder)
    return folder


if __name__ == "__main__":
    main()
