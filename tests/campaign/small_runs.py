"""Small runs that several classes of attacks damage, and what can be asked of them."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

from conftest import write_toy

from campaign import command
from recbole_ser import runner

MEASURED = ("seconds", "cpu_seconds", "peak_memory_mib")  # differ between equal runs


class SmallRuns:
    """A finished run and one that was interrupted after its second epoch, with the answers of their commands.

    Args:
        folder: an empty folder; a copy of one of the runs is made in ``folder/run`` for each case.
    """

    def __init__(self, folder: Path) -> None:
        rows = [f"u{n} i{(3 * n + 5 * place) % 17} {10 * place + n % 3}" for n in range(12) for place in range(9)]
        write_toy(folder / "data", inter=rows, search=[f"u{n} q{1 + n % 3} 5 i{n},i2" for n in range(12)])
        self.run = folder / "run"
        self.originals = {name: folder / name for name in ("finished", "interrupted")}
        self.values = {
            "data_path": str(folder / "data"), "run_dir": str(self.run), "epochs": 3, "state": "WARNING",
            "embedding_size": 8, "hidden_size": 8, "num_layers": 1, "require_both_histories": False,
            "eval_args.mode": "uni5", "show_progress": False, "train_batch_size": 32,
        }  # fmt: skip
        with contextlib.redirect_stdout(None):
            runner.run("GRU4Rec", "toy", config_dict=self.values)
        self.expected = {name: self.answer(name) for name in ("resume", "recommend", "compare", "groups")}
        self.run.rename(self.originals["finished"])
        self._interrupt()
        self.run.rename(self.originals["interrupted"])

    def _interrupt(self) -> None:
        def stop(epoch: int, valid: dict[str, float]) -> None:
            if epoch == 1:
                raise KeyboardInterrupt

        with contextlib.suppress(KeyboardInterrupt):
            runner.run("GRU4Rec", "toy", config_dict=self.values, callback=stop)

    def take(self, name: str) -> Path:
        """A fresh copy of the run ``name``, in ``folder/run``."""
        shutil.rmtree(self.run, ignore_errors=True)
        shutil.copytree(self.originals[name], self.run)
        return self.run

    def answer(self, name: str) -> str | None:
        """What the command ``name`` makes of the run; ``None`` if it refuses the run in one line."""
        asked = {
            "resume": ("run", f"--resume={self.run}"),
            "recommend": ("recommend", self.run, "--all", "-k", 3),
            "compare": ("compare", self.run, "--beyond=3"),
            "groups": ("groups", self.run),
        }[name]
        status, output = command(*asked)
        if status == 2:
            return None
        if name != "resume":
            return output
        result = json.loads((self.run / "result.json").read_text())
        facts = {key: value for key, value in result.items() if key not in (*MEASURED, "checksum")}
        return json.dumps(facts) + (self.run / "ranks.csv").read_text()

    def outcome(self, name: str) -> str:
        """``refused`` or ``unharmed``; AssertionError if the command's answer is a wrong one."""
        answer = self.answer(name)
        assert answer in (None, self.expected[name]), f"{name}: another result, without a word:\n{answer}"
        return "refused" if answer is None else "unharmed"
