"""``recbole-ser convert table`` on a generated Parquet log against a plain pandas script that does the same.

    python benchmarks/convert_table.py                       # 5 and 50 million interactions, 10 GB of disk
    python benchmarks/convert_table.py --rows 200000
    python benchmarks/convert_table.py --rows 50000000 --only ours --memory 4GiB

There is a search for every four interactions.  Each part runs in a process of its own, so that peak memory is its
own; both read the same files and must write the same events.  Wall time is with as many threads as ``--threads``
says, CPU time is of all of them.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from measure import in_own_process, machine, peak_memory_mib, print_table, reset_peak_memory

ROWS = (5_000_000, 50_000_000)
PARTS = {"ours": "ours", "pandas": "plain pandas"}
BLOCK = 1_000_000
START_MS = 1_690_000_000_000
MAPPING: dict[str, Any] = {
    "interactions": {
        "files": "interactions-*.parquet", "user": "user", "item": "item", "time": {"column": "ts", "unit": "ms"},
        "keep": {"column": "label", "values": [1]},
    },
    "searches": {
        "files": "searches-*.parquet", "user": "user", "time": {"column": "ts", "unit": "ms"}, "query": "text",
        "clicks": "clicked", "source": "source",
    },
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS, help="interactions")
    parser.add_argument("--only", choices=PARTS, help="leave the other part out")
    parser.add_argument("--memory", default="4GiB", help="what DuckDB may hold (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of ours; pandas has one (%(default)s)")
    parser.add_argument("--data", type=Path, help="folder for the logs, which stay there (default: a temporary one)")
    parser.add_argument("--part", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        part, folder, memory, threads = arguments.part
        print(json.dumps(measure(part, Path(folder), memory, int(threads))))
        return
    print(machine())
    with tempfile.TemporaryDirectory() as temporary:
        for rows in arguments.rows:
            folder = (arguments.data or Path(temporary)) / f"rows-{rows}"
            if not (folder / "done").exists():
                in_own_process(__file__, "--part", "generate", str(folder), str(rows), "1")
            _compare(folder, rows, arguments)


def measure(part: str, folder: Path, memory: str, threads: int) -> dict[str, Any]:
    """Seconds, CPU seconds and the peak memory of one part, and the hash of each file that it wrote."""
    if part == "generate":
        generate(folder, int(memory))
        return {}
    for module in ("duckdb", "pandas", "pyarrow.parquet", "recbole_ser.text.words"):
        importlib.import_module(module)  # before the clock starts

    reset_peak_memory()
    start, cpu = time.perf_counter(), time.process_time()
    out = folder / part / "X"
    if part == "ours":
        ours(folder, out, memory, threads)
    else:
        plain_pandas(folder, out)
    figures = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu, "peak": peak_memory_mib()}
    hashes = {suffix: _events_hash(out / f"X.{suffix}") for suffix in ("inter", "search", "query")}
    shutil.rmtree(folder / part)
    return {**figures, "hashes": hashes}


def ours(folder: Path, out: Path, memory: str, threads: int) -> None:
    from recbole_ser.convert.settings import Settings
    from recbole_ser.convert.table import convert_table, parse_spec

    convert_table(parse_spec(MAPPING, folder), out, Settings(memory=memory, threads=threads))


def plain_pandas(folder: Path, out: Path) -> None:
    """What one writes in a notebook: everything in memory, no checks, the same words and the same order."""
    import pandas as pd

    from recbole_ser.text.words import normalised, query_terms

    out.mkdir(parents=True)
    log = pd.concat([pd.read_parquet(path) for path in sorted(folder.glob("interactions-*.parquet"))])
    log = log[log.label == 1].drop(columns="label").sort_values(["user", "ts", "item"])
    log["ts"] /= 1000
    log.columns = ["user_id:token", "item_id:token", "timestamp:float"]
    log.to_csv(out / "X.inter", sep="\t", index=False)
    del log
    log = pd.concat([pd.read_parquet(path) for path in sorted(folder.glob("searches-*.parquet"))])
    texts = pd.DataFrame({"text": log.text.unique()})
    texts["query_id"] = [hashlib.md5(normalised(text).encode()).hexdigest()[:20] for text in texts.text]
    texts["terms"] = [" ".join(query_terms(text)) for text in texts.text]
    log["clicked"] = log.clicked.map(" ".join)
    log = log.merge(texts, on="text").sort_values(["user", "ts", "query_id", "clicked", "source"])
    log["ts"] /= 1000
    log = log[["user", "query_id", "ts", "clicked", "source"]]
    log.columns = ["user_id:token", "query_id:token", "timestamp:float", "clicked_items:token_seq", "source:token"]
    log.to_csv(out / "X.search", sep="\t", index=False)
    queries = texts[["query_id", "terms"]].drop_duplicates("query_id").sort_values("query_id")
    queries.columns = ["query_id:token", "terms:token_seq"]
    queries.to_csv(out / "X.query", sep="\t", index=False)


def generate(folder: Path, rows: int) -> None:
    """Write logs as services do: unsorted ids as text, times in ms, a label, searches with lists of clicked items."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    users, items, texts = max(rows // 100, 10), max(rows // 25, 10), max(rows // 200, 10)
    user_ids, item_ids = _ids("u", users), _ids("i", items)
    words = [f"word{n}" for n in range(5000)]
    draw = np.random.default_rng(0)
    numbers = draw.integers(len(words), size=(texts, 3))
    queries = pa.array([" ".join(words[n].title() for n in row) for row in numbers])
    for part, first in enumerate(range(0, rows, BLOCK)):
        size = min(BLOCK, rows - first)
        popular = (items * draw.random(size) ** 3).astype(np.int64)
        table = pa.table({
            "user": user_ids.take(draw.integers(users, size=size)),
            "item": item_ids.take(popular),
            "ts": START_MS + draw.integers(10**10, size=size),
            "label": (draw.random(size) < 0.9).astype(np.int8),
        })  # fmt: skip
        pq.write_table(table, folder / f"interactions-{part:04}.parquet")
        size = max(size // 4, 1)
        clicks = draw.integers(4, size=size)
        starts = np.concatenate([[0], np.cumsum(clicks)]).astype(np.int32)
        table = pa.table({
            "user": user_ids.take(draw.integers(users, size=size)),
            "text": queries.take((texts * draw.random(size) ** 2).astype(np.int64)),
            "ts": START_MS + draw.integers(10**10, size=size),
            "clicked": pa.ListArray.from_arrays(starts, item_ids.take(draw.integers(items, size=int(starts[-1])))),
            "source": pa.array(["home", "related", "history"]).take(draw.integers(3, size=size)),
        })  # fmt: skip
        pq.write_table(table, folder / f"searches-{part:04}.parquet")
    (folder / "done").touch()


def _ids(prefix: str, number: int) -> Any:
    import pyarrow as pa

    return pa.array([f"{prefix}{n * 2654435761 % 2**32:08x}{n:x}" for n in range(number)])


def _events_hash(path: Path) -> str:
    """Of the lines with times as numbers: 1690000000.0 is 1690000000."""
    digest = hashlib.sha256()
    with path.open() as handle:
        for line in handle:
            digest.update(line.replace(".0\t", "\t").replace(".0\n", "\n").encode())
    return digest.hexdigest()


def _compare(folder: Path, rows: int, arguments: argparse.Namespace) -> None:
    parts = [arguments.only] if arguments.only else list(PARTS)
    threads = str(arguments.threads)
    figures = {}
    for part in parts:
        try:
            figures[part] = in_own_process(__file__, "--part", part, str(folder), arguments.memory, threads)
        except subprocess.CalledProcessError as error:  # the system ends what needs more memory than there is
            print(f"{PARTS[part]} did not finish: exit status {error.returncode}")
    print(f"\n{rows:,} interactions, {rows // 4:,} searches; {threads} threads, DuckDB may hold {arguments.memory}")
    table = [
        [PARTS[part], f["seconds"], f["cpu"], f["peak"], rows * 1.25 / f["seconds"]] for part, f in figures.items()
    ]
    print_table(["", "seconds", "CPU s", "peak MiB", "rows per second"], table)
    if len(figures) == 2:
        same = figures["ours"]["hashes"] == figures["pandas"]["hashes"]
        ratios = [figures["pandas"][key] / figures["ours"][key] for key in ("seconds", "cpu", "peak")]
        print("time {:.1f} times, CPU time {:.1f} times, memory {:.1f} times less".format(*ratios), end="; ")
        print("the files are the same" if same else "THE FILES DIFFER")


if __name__ == "__main__":
    main()
