"""No file can grow beyond a size, as on a full disk: one line, and what was there before is whole.

A run that was stopped by it is resumed without the limit, and ends with the result of an undisturbed one.
"""

from __future__ import annotations

import contextlib
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random

from campaign import Attack, command
from campaign.small_runs import SmallRuns


def prepare(folder: Path) -> Attack:
    runs = SmallRuns(folder)
    asked = ["run", "--model=GRU4Rec", "--dataset=toy", *(f"--{key}={value}" for key, value in runs.values.items())]

    def attack(random: Random) -> str:
        name = random.choice(["run", "resume", "recommend", "compare", "groups"])
        if name == "run":
            shutil.rmtree(runs.run, ignore_errors=True)
        else:
            runs.take("interrupted" if name == "resume" else "finished")
        table = folder / "table.csv"
        table.write_text("before")
        with limited_files(random.randint(1, random.choice([1_000, 20_000, 200_000]))):
            status, _ = command(*{
                "run": asked,
                "resume": ("run", f"--resume={runs.run}"),
                "recommend": ("recommend", runs.run, "--all", f"--out={table}"),
                "compare": ("compare", runs.run, f"--out={table}"),
                "groups": ("groups", runs.run, f"--out={folder / 'groups'}"),
            }[name])  # fmt: skip
        assert status == 0 or table.read_text() == "before"
        if name in ("run", "resume"):
            if (runs.run / "config.yaml").exists():
                assert runs.outcome("resume") == "unharmed"
            else:
                shutil.rmtree(runs.run, ignore_errors=True)
                assert command(*asked)[0] == 0
        assert not list(runs.run.glob(".*.tmp"))
        return "refused" if status else "done"

    return attack


@contextlib.contextmanager
def limited_files(size: int) -> Iterator[None]:
    """Inside this block no file of this process can grow beyond ``size`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
