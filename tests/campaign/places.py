"""Every command that reads or writes is given impossible places: one line, and nothing is left behind."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from random import Random

from campaign import Attack, command
from campaign.small_runs import SmallRuns


def prepare(folder: Path) -> Attack:
    runs = SmallRuns(folder)
    run = runs.take("finished")
    (folder / "file").write_text("in the way")
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "dangling").symlink_to(folder / "nowhere" / "at-all")
    toy = ("--dataset=toy", f"--data_path={runs.values['data_path']}")
    new = folder / "new"
    settings = [f"--{key}={value}" for key, value in runs.values.items() if key not in ("run_dir", "data_path")]
    small = ("--require_both_histories=false", "--codes.rqvae.levels=1", "--codes.rqvae.epochs=1", "--state=ERROR")

    def attack(random: Random) -> str:
        place = random.choice([
            folder / "file", folder / "file" / "below", folder / "file" / "a" / "b", folder / "loop",
            folder / "dangling", folder / "loop" / "x", folder / ("x" * 300), folder / "data",
            folder / ("y" * 300) / "z", folder / "a\tb" / ("z" * 256), "/proc/nowhere/x", "/dev/null/x", "",
        ])  # fmt: skip
        table = f"{place}{random.choice(['', '.csv', '.jsonl', '.parquet'])}"
        asked = random.choice([
            ("run", "--model=GRU4Rec", *toy, *settings, f"--run_dir={place}"),
            ("run", "--model=Pop", "--dataset=toy", *settings[4:], f"--data_path={place}", f"--run_dir={new}"),
            ("run", "--model=GRU4Rec", *toy, *settings, f"--run_dir={new}", f"--config_files={place}"),
            ("run", f"--resume={place}"),
            ("tune", f"--resume={place}"),
            ("tune", "--model=GRU4Rec", *toy, f"--storage={place}", f"--space={place}.yaml"),
            ("codes", *toy, *small, f"--codes_file={place}"),
            ("recommend", place, "--all"),
            ("recommend", run, "--all", f"--out={table}"),
            ("recommend", run, f"--events={table}"),
            ("recommend", run, f"--users-file={place}"),
            ("recommend", run, "--all", f"--candidates={place}"),
            ("compare", run, place),
            ("compare", run, f"--out={place}", "--format=csv"),
            ("groups", run, place),
            ("groups", run, f"--out={place}"),
            ("describe", place),
            ("describe", folder / "data" / "toy", f"--json={place}"),
            ("describe", folder / "data" / "toy", f"--plot={place}.png"),
            ("validate", place),
            ("validate", folder / "data" / "toy", f"--json={place}"),
            ("synthesize", "--preset=ser-sample", "--scale=0.02", f"--out={place}"),
            ("convert", "table", f"--spec={place}", f"--out={new}"),
            ("convert", "table", "--interactions", place, "--user=u", "--item=i", "--time=t", f"--out={new}"),
        ])  # fmt: skip
        before = tree(folder)
        with contextlib.chdir(folder):
            status, _ = command(*asked)
        if status == 0:
            assert asked[0] != "run" or place == "", asked  # nothing is ~ in YAML: a folder below saved
            restore(folder, before)
            return "done"
        assert tree(folder) == before, (asked, sorted(tree(folder) ^ before))
        return "refused"

    return attack


def tree(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*")}


def restore(folder: Path, before: set[str]) -> None:
    for path in sorted(tree(folder) - before, reverse=True):
        Path(path).rmdir() if Path(path).is_dir() and not os.path.islink(path) else Path(path).unlink()
