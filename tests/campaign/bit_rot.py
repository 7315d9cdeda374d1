"""One bit of one file of a run changes: resuming it, recommending and comparing must refuse it, or be as before."""

from __future__ import annotations

from pathlib import Path
from random import Random

from campaign import Attack
from campaign.small_runs import SmallRuns


def prepare(folder: Path) -> Attack:
    runs = SmallRuns(folder)

    def attack(random: Random) -> str:
        name = random.choice(["resume", "recommend", "compare", "groups"])
        run = runs.take(random.choice(["finished", "interrupted"]) if name == "resume" else "finished")
        files = [path for path in sorted(run.iterdir()) if path.is_file() and path.stat().st_size]
        path = random.choice([path for path in files if path.suffix == ".pt"] * 3 + files)
        content = bytearray(path.read_bytes())
        content[random.randrange(len(content))] ^= 1 << random.randrange(8)
        path.write_bytes(content)
        return runs.outcome(name)

    return attack
