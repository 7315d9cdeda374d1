"""A quick model whose trials can be told to fail, die, or take their time, for the tests of sweeps."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recbole_ser.model.base import SearchRecommender
from recbole_ser.settings import Width, setting


class Fated(SearchRecommender):
    """The mean of the items seen, dotted with the candidate.

    ``fate`` is ``fine``; ``dies once`` or ``dies twice`` (the process is killed in the second epoch, the first times it
    gets there); ``nan`` (so is the loss there); or ``memory`` (there is not enough).  ``seconds`` are slept in every
    epoch; ``notes`` is a folder where each trial says where it is, and waits until ``together`` have said so.
    """

    class Settings(SearchRecommender.Settings):
        embedding_size: Width = setting("width", default=16)
        fate: str = setting("what becomes of a trial", default="fine")
        seconds: float = setting("slept in an epoch", default=0.0)
        notes: str | None = setting("folder of notes", default=None)
        together: int = setting("trials that wait for each other", default=0)

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.items = nn.Embedding(self.n_items, config["embedding_size"], padding_idx=0)
        self.fate, self.seconds, self.folder = config["fate"], config["seconds"], Path(config["run_dir"])
        self.epoch, self.notes, self.together = 0, config["notes"], config["together"]

    def begin_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        time.sleep(self.seconds)
        if self.notes and epoch == 0:
            self._meet(Path(self.notes))
        if epoch < 1 or self.fate in ("fine", "nan"):
            return
        if self.fate == "memory":
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        deaths = self.folder / "deaths"
        died = int(deaths.read_text()) if deaths.exists() else 0
        if died < {"dies once": 1, "dies twice": 2}[self.fate]:
            deaths.write_text(str(died + 1))
            os.kill(os.getpid(), signal.SIGKILL)

    def _meet(self, notes: Path) -> None:
        import ray

        note = {"node": ray.get_runtime_context().get_node_id(), "devices": os.environ["CUDA_VISIBLE_DEVICES"]}
        (notes / f"{self.folder.name}.json").write_text(json.dumps(note))
        for _ in range(1000):
            if len(list(notes.iterdir())) >= self.together:
                return
            time.sleep(0.1)
        raise RuntimeError("the others did not come")

    def encode(self, interaction: Any) -> Tensor:
        seen = interaction["item_id_list"]  # [B, L]
        state = self.items(seen).sum(1) / (seen != 0).sum(1, keepdim=True).clamp(min=1)  # [B, d]
        return state * float("nan") if self.fate == "nan" and self.epoch >= 1 and self.training else state

    def score(self, state: Tensor, items: Tensor) -> Tensor:
        return torch.einsum("bd,bcd->bc", state, self.items(items))  # [B, C]
