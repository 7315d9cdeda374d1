"""Files of a sweep's folder are damaged: what a resumed sweep reads is refused, or is what was written."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random
from typing import Any

from campaign import Attack
from campaign.run_folders import damage
from recbole_ser.errors import UserError
from recbole_ser.runs.folder import RunFolder
from recbole_ser.runs.result import RunResult
from recbole_ser.runs.sweep_folder import FINISHED, SweepFolder

RESULT = RunResult("SASRec", "toy", 1, "uni99", 2, 3, {"mrr": 0.5}, {"mrr": 0.25}, {"test": "c"}, "d", 9, 1.0, 1.0, 9.0)


def prepare(folder: Path) -> Attack:
    original = SweepFolder.start(folder / "original", {"plan": {"name": "joint", "trials": 4}, "arguments": {}})
    for number in range(4):
        trial = original.add_trial(number, {"alpha": number / 10})
        for epoch in range(3):
            costs = {"learning_rate": 0.001, "seconds": 1.5, "cpu_seconds": 2.0, "peak_memory_mib": 100.0}
            line = {"epoch": epoch, "losses": {"loss": 1.0}, "valid": {"mrr": number / 10 + epoch / 100}, **costs}
            RunFolder(trial.path).append_metrics(line)
        if number < 3:
            trial.end(FINISHED)
    original.write_result(original.trial(2).read("mrr"), RESULT)
    expected = read(original)

    def attack(random: Random) -> str:
        shutil.rmtree(folder / "copy", ignore_errors=True)
        shutil.copytree(original.path, folder / "copy")
        files = sorted(path for path in (folder / "copy").rglob("*") if path.is_file())
        path = random.choice([path for path in files if "003" not in path.parts or path.name != "metrics.jsonl"])
        if random.random() < 0.5:
            damage(path, random)
        else:
            content = bytearray(path.read_bytes())
            content[random.randrange(len(content))] ^= 1 << random.randrange(8)
            path.write_bytes(content)
        try:
            found = read(SweepFolder.load(folder / "copy"))
        except UserError as error:
            assert "\n" not in str(error)
            return "refused"
        if found == expected:
            return "unharmed"
        assert not path.is_file(), f"{path}: {found}"  # a trial that lost a file is trained again
        return "missing"

    return attack


def read(sweep: SweepFolder) -> tuple[Any, ...]:
    tested = sweep.result()
    return sweep.content(), sweep.read_trials("mrr"), tested and (tested[0], tested[1].as_dict())
