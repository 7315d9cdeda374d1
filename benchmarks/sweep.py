"""A sweep against as many separate runs: wall time, CPU time and peak memory, with as many at a time.

    python benchmarks/sweep.py --dataset=cell --data_path=dataset_atomic

Both sides train the same configurations of SESRec for the same epochs.  Memory is sampled and counted in proportional
shares: what several processes share counts once.

    python benchmarks/sweep.py --sharing --dataset=kuaishou-like --data_path=dataset_atomic

trains nothing: what does loading such data cost, and what does a further trial that reads them cost?
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
from measure import machine, peak_memory_mib, print_table

RATES = (0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.006, 0.01)


class Watch(threading.Thread):
    """CPU seconds and memory of all processes below this one, sampled while ``with`` lasts."""

    def __init__(self, pause: float = 1.0) -> None:
        super().__init__(daemon=True)
        self.pause, self.over = pause, threading.Event()
        self.peak_mib, self.cpu = 0.0, {}

    def run(self) -> None:
        while not self.over.wait(self.pause):
            shares = [self._look(process) for process in psutil.Process().children(recursive=True)]
            self.peak_mib = max(self.peak_mib, sum(shares) / 2**20)

    def _look(self, process: psutil.Process) -> float:
        try:
            times, share = process.cpu_times(), process.memory_full_info().pss
        except psutil.Error:  # it has just ended
            return 0.0
        self.cpu[process.pid] = times.user + times.system
        return share

    def __enter__(self) -> Watch:
        self.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self.over.set()
        self.join()


def measured(work: Callable[[], None]) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds, peak MiB of the processes that ``work`` starts."""
    began = time.perf_counter()
    with Watch() as watch:
        work()
    return time.perf_counter() - began, sum(watch.cpu.values()), watch.peak_mib


def command(name: str, *arguments: str) -> None:
    line = [sys.executable, "-W", "ignore", "-m", "recbole_ser.cli", name, "--model=SESRec", *arguments]
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})


def valid(folder: Path) -> list[dict[str, float]]:
    """The validation metrics of every epoch of a run."""
    return [json.loads(line)["valid"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def sharing(dataset: str, data_path: str) -> None:
    """Print CPU seconds and memory of loading the data, and of a trial's process that is given them."""
    from recbole_ser.config import SERConfig
    from recbole_ser.runner import prepare
    from recbole_ser.tuning import ray_versions
    from recbole_ser.tuning.resources import Resources
    from recbole_ser.tuning.trial import Shared, without_config

    ray_versions.import_ray(loopback=True)
    import ray

    from recbole_ser.tuning import engine

    def resident() -> float:
        return psutil.Process().memory_full_info().uss / 2**20

    @ray.remote
    def read(references: list[Any]) -> tuple[float, float]:
        config = SERConfig("SESRec", dataset, None, {"data_path": data_path})
        before, began = resident(), time.process_time()
        prepared = engine.fetch(references[0]).under(config, {})
        next(iter(prepared.targets("valid")))
        return time.process_time() - began, resident() - before

    config = SERConfig("SESRec", dataset, None, {"data_path": data_path, "state": "WARNING"})
    before, began = resident(), time.process_time()
    shared = Shared(without_config(prepare(config)), {})
    rows = [("loading and candidates", time.process_time() - began, resident() - before, peak_memory_mib())]
    with engine.cluster(Resources()):
        began = time.process_time()
        reference = engine.share(shared)
        rows.append(("putting them into shared memory", time.process_time() - began, "", ""))
        rows += [
            ("a process that reads them", *cost, "") for cost in ray.get([read.remote([reference]) for _ in range(2)])
        ]
    print(machine())
    print_table(["", "CPU s", "private MiB more", "peak MiB"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="cell")
    parser.add_argument("--data_path", default="dataset_atomic")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--concurrent", type=int, default=2)
    parser.add_argument("--sharing", action="store_true", help="measure what is shared instead")
    options = parser.parse_args()
    if options.sharing:
        sharing(options.dataset, options.data_path)
        return
    given = [f"--dataset={options.dataset}", f"--data_path={options.data_path}", f"--epochs={options.epochs}",
             "--show_progress=false", "--state=WARNING"]  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def separate() -> None:
            def one(place: int) -> None:
                command("run", *given, f"--learning_rate={RATES[place]}", f"--run_dir={folder / f'run-{place}'}")

            with ThreadPoolExecutor(options.concurrent) as pool:
                list(pool.map(one, range(len(RATES))))

        def together() -> None:
            space = {"learning_rate": {"choice": list(RATES)}}
            plan = [f"--space={json.dumps(space)}", "--search=grid", "--scheduler=none"]
            command("tune", *given, *plan, f"--concurrent={options.concurrent}", f"--storage={folder / 'sweep'}")

        rows = [("separate runs", *measured(separate)), ("one sweep", *measured(together))]
        for place in range(len(RATES)):
            assert valid(folder / f"run-{place}") == valid(folder / "sweep" / "trials" / f"{place:03d}"), "not the same"
    print(machine())
    print(f"{len(RATES)} x SESRec on {options.dataset}, {options.epochs} epochs, {options.concurrent} at a time;"
          f" load {os.getloadavg()[0]:.1f}")  # fmt: skip
    print_table(["", "seconds", "CPU s", "peak MiB"], rows)
    (_, *before), (_, *after) = rows
    print("separate / sweep: " + ", ".join(f"{a / b:.2f}" for a, b in zip(before, after)))


if __name__ == "__main__":
    main()
