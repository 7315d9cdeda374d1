"""``recbole-ser convert table`` on DuckDB, with less and less memory, and on a local Spark.

    python benchmarks/engines.py                                   # 10 million interactions, 3 GB of disk
    python benchmarks/engines.py --rows 50000000 --memory 4GiB 2GiB 1GiB
    python benchmarks/engines.py --engines duckdb

The logs are those of ``convert_table.py``.  Each conversion runs in a process of its own; CPU time and memory are of
this process and all that it starts (pages that Python workers share are counted for each), disk is what lies in the
folder of the data set at most.  All must write the same bytes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from convert_table import MAPPING, generate
from measure import in_own_process, machine, print_table

ENGINES = ("duckdb", "spark")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000, help="interactions (%(default)s)")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument("--memory", nargs="+", default=["4GiB", "1GiB"], help="of DuckDB, or of the JVM")
    parser.add_argument("--cores", type=int, default=1, help="(%(default)s)")
    parser.add_argument("--part", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        engine, folder, memory, cores = arguments.part
        print(json.dumps(measure(engine, Path(folder), memory, int(cores))))
        return
    print(machine())
    with tempfile.TemporaryDirectory() as temporary:
        generate(Path(temporary), arguments.rows)
        _compare(temporary, arguments)


def measure(engine: str, folder: Path, memory: str, cores: int) -> dict[str, Any]:
    """Seconds, CPU seconds, peak MiB of memory and of disk, and the hash of each file."""
    from recbole_ser.convert.settings import Settings
    from recbole_ser.convert.table import convert_table, parse_spec

    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        out = Path(temporary) / "X"
        peaks = {"cpu": 0.0, "memory": 0.0, "disk": 0.0}
        ended = threading.Event()
        watch = threading.Thread(target=_watch, args=(out, peaks, ended))
        start = time.perf_counter()
        watch.start()
        try:
            settings = Settings(memory=memory, threads=cores if engine == "duckdb" else None)
            master = f"local[{cores}]" if engine == "spark" else None
            manifest = convert_table(parse_spec(MAPPING, folder), out, settings, engine=engine, master=master)  # type: ignore[arg-type]
        finally:
            seconds = time.perf_counter() - start
            ended.set()
            watch.join()
    return {**peaks, "seconds": seconds, "hashes": {file["file"]: file["sha256"] for file in manifest["outputs"]}}


def _watch(folder: Path, peaks: dict[str, float], ended: threading.Event) -> None:
    """Raise ``peaks`` to what this process, its children and the folder use, until ``ended``."""
    this = psutil.Process()
    while not ended.wait(0.5):
        now = {"cpu": 0.0, "memory": 0.0, "disk": 0.0}
        for process in [this, *this.children(recursive=True)]:
            try:
                now["cpu"] += sum(process.cpu_times()[:4])  # also of children that have ended
                now["memory"] += process.memory_info().rss / 2**20
            except psutil.Error:
                continue
        for path in folder.rglob("*"):
            try:
                now["disk"] += path.stat().st_size / 2**20
            except OSError:
                continue
        peaks |= {name: max(peaks[name], value) for name, value in now.items()}


def _compare(folder: str, arguments: argparse.Namespace) -> None:
    rows, hashes = [], []
    for engine in arguments.engines:
        for memory in arguments.memory:
            try:
                found = in_own_process(__file__, "--part", engine, folder, memory, str(arguments.cores))
            except subprocess.CalledProcessError as error:
                print(f"{engine} with {memory} did not finish: exit status {error.returncode}")
                continue
            rows.append([engine, memory, *(found[name] for name in ("seconds", "cpu", "memory", "disk"))])
            hashes.append(found["hashes"])
            print_table(["", "allowed", "seconds", "CPU s", "peak MiB", "disk MiB"], rows[-1:])
    print(f"\n{arguments.rows:,} interactions, {arguments.rows // 4:,} searches; {arguments.cores} cores")
    print_table(["", "allowed", "seconds", "CPU s", "peak MiB", "disk MiB"], rows)
    print("the files are the same" if all(found == hashes[0] for found in hashes) else "THE FILES DIFFER")


if __name__ == "__main__":
    main()
