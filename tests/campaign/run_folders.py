"""Files of a run's folder are cut, emptied, replaced or removed: each command refuses the folder, or is as before."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from random import Random
from typing import Any

from campaign import Attack
from campaign.small_runs import SmallRuns

WORDS = (None, True, 0, -1, 10**400, 1e308, "", "x", "os:system", "../../etc", [], {}, [[]], {"a": None})


def prepare(folder: Path) -> Attack:
    runs = SmallRuns(folder)

    def attack(random: Random) -> str:
        name = random.choice(["resume", "recommend", "compare", "groups"])
        run = runs.take(random.choice(["finished", "interrupted"]) if name == "resume" else "finished")
        for path in random.sample([path for path in sorted(run.iterdir()) if path.is_file()], random.choice([1, 1, 2])):
            damage(path, random)
        try:
            return runs.outcome(name)
        finally:
            shutil.rmtree(run, ignore_errors=True)

    return attack


def damage(path: Path, random: Random) -> None:
    content = path.read_bytes()
    kind = random.choice(["gone", "empty", "half", "garbage", "folder", "deep", "word", "swapped", "lines"])
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "word" and path.suffix == ".json":
        path.write_text(json.dumps(altered(json.loads(content), random)))
    elif kind == "lines":
        lines = content.splitlines(keepends=True)
        path.write_bytes(b"".join(random.sample(lines, random.randint(0, len(lines)))))
    elif kind != "gone":
        start = random.randrange(len(content) + 1)
        path.write_bytes({
            "empty": b"",
            "half": content[:start],
            "garbage": random.randbytes(random.randint(1, 300)),
            "deep": b"[" * 100_000,
            "word": json.dumps(random.choice(WORDS)).encode(),
            "swapped": content[start:] + content[:start],
        }[kind])  # fmt: skip


def altered(value: Any, random: Random) -> Any:
    """``value`` with another value somewhere in it."""
    if isinstance(value, dict) and value and random.random() < 0.8:
        key = random.choice(sorted(value))
        return {**value, key: altered(value[key], random)}
    if isinstance(value, list) and value and random.random() < 0.8:
        place = random.randrange(len(value))
        return [altered(item, random) if n == place else item for n, item in enumerate(value)]
    return random.choice(WORDS)
