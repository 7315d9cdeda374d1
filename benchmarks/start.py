"""What commands cost before they begin to work: CPU seconds of each, and of importing PyTorch, which most of them need.

    python benchmarks/start.py

Every command is a process of its own, with the checkout that this file is in.  Of a run, what counts is the time to its
first batch.  Commands take turns for several rounds, and the least of each is shown: other processes only add to it.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from measure import machine, print_table

ROOT = Path(__file__).resolve().parent.parent
CLI = ["-m", "recbole_ser.cli"]
RUN = ["--dataset=ser-sample", "--epochs=1", "--show_progress=false", "--state=WARNING"]

# SESRec, but for that it ends the process, without cleaning up, where the loss of the first batch would be computed.
FIRST_BATCH = """
import os
from recbole_ser.model.search_aware.sesrec import SESRec

class FirstBatch(SESRec):
    def losses(self, interaction):
        os._exit(0)
"""

# The arguments of Python for each command.  RUN is the finished run saved/run.
COMMANDS = {
    "import torch": ["-c", "import torch"],
    "import recbole_ser": ["-c", "import recbole_ser"],
    "run --help": [*CLI, "run", "--help"],
    "run --model=SESRec --help": [*CLI, "run", "--model=SESRec", "--help"],
    "run ..., to the first batch": [*CLI, "run", "--model=first_batch:FirstBatch", *RUN],
    "run ..., one epoch and test": [*CLI, "run", "--model=SESRec", *RUN],
    "recommend RUN --all": [*CLI, "recommend", "saved/run", "--all", "--out=top.csv"],
    "compare RUN": [*CLI, "compare", "saved/run"],
    "validate ser-sample": [*CLI, "validate", "ser-sample"],
    "describe ser-sample": [*CLI, "describe", "ser-sample"],
}


def cost(arguments: list[str], folder: str) -> float:
    """CPU seconds of ``python arguments`` in ``folder``."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", *arguments]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, cwd=folder, env=environment, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "first_batch.py").write_text(FIRST_BATCH)
        cost([*CLI, "run", "--model=SESRec", *RUN, "--run_dir=saved/run"], folder)
        costs: dict[str, list[float]] = {name: [] for name in COMMANDS}
        for _ in range(rounds):
            for name, line in COMMANDS.items():
                costs[name].append(cost(line, folder))
    least = {name: min(seconds) for name, seconds in costs.items()}
    torch = least["import torch"]
    rows = [(name, seconds, torch if seconds > torch else "") for name, seconds in least.items()]
    print(machine())
    print_table(["", "CPU s", "of it PyTorch's import"], rows)


if __name__ == "__main__":
    main()
