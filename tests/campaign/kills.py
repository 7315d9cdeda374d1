"""A run is killed at any moment, once or several times: resumed, it ends with the result of an undisturbed one."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from random import Random

from campaign import Attack
from campaign.small_runs import SmallRuns

COMMAND = [sys.executable, Path(__file__).parents[2] / "run_recbole_ser.py"]


def prepare(folder: Path) -> Attack:
    runs = SmallRuns(folder)
    start = ["--model=GRU4Rec", "--dataset=toy", *(f"--{key}={value}" for key, value in runs.values.items())]

    def attack(random: Random) -> str:
        shutil.rmtree(runs.run, ignore_errors=True)
        killed = 0
        for _ in range(random.randint(1, 2)):
            begun = (runs.run / "config.yaml").exists()
            arguments = [f"--resume={runs.run}"] if begun else start
            if not begun:
                shutil.rmtree(runs.run, ignore_errors=True)
            process = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while process.poll() is None and not (runs.run / ("environment.json" if begun else ".lock")).exists():
                time.sleep(0.002)
            time.sleep(random.random() * 0.5)
            process.kill()
            killed += process.wait() < 0
        if not (runs.run / "config.yaml").exists():
            return "killed before the run began"
        assert runs.outcome("resume") == "unharmed"
        return f"killed {killed} times"

    return attack
