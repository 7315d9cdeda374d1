"""DIEN's training step against RecBole's own DIEN, on one thread, at sizes as in Amazon Cell Phones.

    python benchmarks/dien.py

Both sides get the same generated rows, ours as one positive beside its negatives, RecBole's as labelled rows with the
history and its negatives repeated; they take turns in one process.  RecBole has one list of widths for all three
networks: it is measured with ours of the last one, and with those of DIN's attention, the smallest of the three.
"""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from measure import machine, print_table
from recbole.data.interaction import Interaction
from recbole.utils import FeatureType
from torch import nn

from recbole_ser import compat
from recbole_ser.bundled import package_folder
from recbole_ser.model.sequential.dien import DIEN
from recbole_ser.yaml_values import read_yaml

BATCH, NEGATIVES, LENGTH, WIDTH = 256, 4, 15, 32
USERS, ITEMS = 27_879, 10_429
ROUNDS, STEPS, WARM_UP = 10, 5, 2
CONFIG = {
    **read_yaml(package_folder("properties") / "model" / "DIEN.yaml"),
    "USER_ID_FIELD": "user_id", "ITEM_ID_FIELD": "item_id", "LIST_SUFFIX": "_list", "NEG_PREFIX": "neg_",
    "ITEM_LIST_LENGTH_FIELD": "item_length", "LABEL_FIELD": "label", "MAX_ITEM_LIST_LENGTH": LENGTH, "device": "cpu",
    "embedding_size": WIDTH, "hidden_size": WIDTH,
    "alpha": 1.0, "gru_type": "AUGRU", "pooling_mode": "mean", "numerical_features": [],
}  # fmt: skip


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(machine())
    ours = batch()
    theirs = as_recbole(ours)
    print(f"{BATCH} positives, {NEGATIVES} negatives, {ours['item_length'].float().mean():.1f} items on average\n")
    sides: dict[str, tuple[nn.Module, Interaction]] = {"ours": (DIEN(CONFIG, dataset()), ours)}
    for widths in (CONFIG["mlp_hidden_size"], [80, 40]):
        sides[f"RecBole's {widths}"] = (recbole_dien(widths), theirs)
    seconds = in_turns(sides)
    typical = {name: float(np.median(values)) for name, values in seconds.items()}
    rows = [[name, 1000 * step, BATCH / step, step / typical["ours"]] for name, step in typical.items()]
    print_table(["", "CPU ms per step", "positives per CPU s", "times ours"], rows)


def dataset() -> SimpleNamespace:
    """What both models read of a data set without attributes."""
    counts = {"user_id": USERS + 1, "item_id": ITEMS + 1}
    features = {name: Interaction({name: torch.arange(count)}) for name, count in counts.items()}
    return SimpleNamespace(
        user_num=USERS + 1, item_num=ITEMS + 1, target_num=ITEMS + 1, num=counts.__getitem__,
        item_attributes={}, item_numbers={}, user_attributes={}, user_numbers={},
        get_user_feature=lambda: features["user_id"], get_item_feature=lambda: features["item_id"],
        field2type=dict.fromkeys(counts, FeatureType.TOKEN), config=CONFIG,
    )  # fmt: skip


def batch() -> Interaction:
    lengths = torch.randint(1, LENGTH + 1, (BATCH,))
    items = torch.randint(1, ITEMS + 1, (BATCH, LENGTH)) * (torch.arange(LENGTH) < lengths.unsqueeze(1))
    return Interaction(
        {
            "user_id": torch.randint(1, USERS + 1, (BATCH,)),
            "item_id": torch.randint(1, ITEMS + 1, (BATCH,)),
            "neg_item_id": torch.randint(1, ITEMS + 1, (BATCH, NEGATIVES)),
            "item_id_list": items,
            "item_length": lengths,
        }
    )


def as_recbole(ours: Interaction) -> Interaction:
    """Rows of positives, labelled 1, and behind them rows of negatives; negatives of the history are drawn once."""
    rows = ours.repeat(1 + NEGATIVES)
    history = rows["item_id_list"]
    rows.update(
        Interaction(
            {
                "item_id": torch.cat([ours["item_id"], ours["neg_item_id"].t().flatten()]),
                "label": (torch.arange(len(history)) < BATCH).float(),
                "neg_item_id_list": torch.randint_like(history, 1, ITEMS + 1) * (history != 0),
            }
        )
    )
    return rows


def recbole_dien(widths: list[int]) -> nn.Module:
    compat.set_numpy_aliases()
    with compat.keep_anomaly_mode():
        from recbole.model.sequential_recommender.dien import DIEN as RecBoleDIEN
    return RecBoleDIEN({**CONFIG, "mlp_hidden_size": widths}, dataset())


def in_turns(sides: dict[str, tuple[nn.Module, Any]]) -> dict[str, list[float]]:
    """CPU seconds of every step, optimiser included; the first rounds do not count."""
    optimizers = {name: torch.optim.Adam(model.train().parameters()) for name, (model, _) in sides.items()}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(WARM_UP + ROUNDS):
        for name, (model, rows) in sides.items():
            for _ in range(STEPS):
                start = time.process_time()
                optimizers[name].zero_grad()
                model.calculate_loss(rows).backward()
                optimizers[name].step()
                if number >= WARM_UP:
                    seconds[name].append(time.process_time() - start)
    return seconds


if __name__ == "__main__":
    main()
