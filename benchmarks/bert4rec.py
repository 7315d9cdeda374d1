"""An epoch of BERT4Rec against one of RecBole's BERT4Rec, on one thread, at sizes as in Amazon Cell Phones.

    python benchmarks/bert4rec.py

Both sides learn, with a softmax over all items, from the same generated users, who have 2 to 8 interactions before
their last two, five on average.  RecBole has a row for each interaction but the first, with the history before it; ours
has a row for each user.  So besides the seconds of an epoch, the guesses (masked positions) per second are given.
Steps of both sides take turns in one process; a step includes drawing the masks, as RecBole does in its data loader,
and the optimiser.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from measure import machine, print_table
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_ser import compat
from recbole_ser.bundled import package_folder
from recbole_ser.model.sequential.bert4rec import BERT4Rec
from recbole_ser.yaml_values import read_yaml

BATCH, LENGTH, WIDTH = 256, 15, 32
USERS, ITEMS = 27_879, 10_429
SHORTEST, LONGEST = 2, 8  # interactions of a user before the last two
ROUNDS, WARM_UP = 30, 3
CONFIG = {
    **read_yaml(package_folder("properties") / "model" / "BERT4Rec.yaml"),
    "USER_ID_FIELD": "user_id", "ITEM_ID_FIELD": "item_id", "LIST_SUFFIX": "_list", "NEG_PREFIX": "neg_",
    "ITEM_LIST_LENGTH_FIELD": "item_length", "MAX_ITEM_LIST_LENGTH": LENGTH, "device": "cpu",
    "embedding_size": WIDTH, "hidden_size": WIDTH,
    # RecBole's names of the same
    "inner_size": 4 * WIDTH, "hidden_dropout_prob": 0.2, "attn_dropout_prob": 0.2, "hidden_act": "gelu",
    "layer_norm_eps": 1e-8, "initializer_range": 0.02, "mask_ratio": 0.4,
}  # fmt: skip


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(machine())
    lengths = torch.randint(SHORTEST, LONGEST + 1, (USERS,))
    users = torch.randint(1, ITEMS + 1, (USERS, LONGEST)) * (torch.arange(LONGEST) < lengths.unsqueeze(1))
    rows = prefixes(users, lengths)
    print(f"{USERS:,} users with {int(lengths.sum()):,} interactions; {len(rows):,} rows of RecBole's\n")
    sides = {"ours": (our_step(users), len(users)), "RecBole's": (recbole_step(rows), len(rows))}
    seconds, guesses = in_turns({name: step for name, (step, _) in sides.items()})
    epochs = {name: seconds[name] / BATCH * count for name, (_, count) in sides.items()}
    table = [
        [name, 1000 * seconds[name], guesses[name] / seconds[name], epochs[name], epochs[name] / epochs["ours"]]
        for name in sides
    ]
    print_table(["", "CPU ms per step", "guesses per CPU s", "CPU s per epoch", "times ours"], table)


def prefixes(users: Tensor, lengths: Tensor) -> Tensor:
    """RecBole's histories ``[rows, LENGTH]`` of ``users [U, T]``: for each but the first item, those before it."""
    padded = torch.nn.functional.pad(users, (0, LENGTH - users.shape[1]))  # [U, LENGTH]
    counts = lengths - 1
    owner = torch.arange(len(users)).repeat_interleave(counts)  # [rows]
    number = torch.arange(len(owner)) - (counts.cumsum(0) - counts)[owner]  # [rows], from 0
    return padded[owner] * (torch.arange(LENGTH) <= number.unsqueeze(1))


def our_step(users: Tensor) -> Callable[[], int]:
    model = BERT4Rec(CONFIG, dataset())
    optimizer = torch.optim.Adam(model.train().parameters())
    guessed: list[int] = []
    draw = model.cloze

    def counted(exists: Tensor) -> Tensor:
        masked = draw(exists)
        guessed.append(int(masked.sum()))
        return masked

    model.cloze = counted  # type: ignore[method-assign]

    def step() -> int:
        histories = users[torch.randint(len(users), (BATCH,))]
        rows = torch.nn.functional.pad(histories, (0, LENGTH + 1 - users.shape[1]))  # as the loader pads them
        batch = Interaction({"item_id_list": rows})
        take(optimizer, model.calculate_loss(batch))
        return guessed[-1]

    return step


def recbole_step(rows: Tensor) -> Callable[[], int]:
    compat.set_numpy_aliases()
    with compat.keep_anomaly_mode():
        from recbole.data.transform import MaskItemSequence
        from recbole.model.sequential_recommender.bert4rec import BERT4Rec as RecBoleBERT4Rec
    config = {**CONFIG, "MASK_ITEM_SEQ": None}
    mask = MaskItemSequence(config)  # which completes the configuration
    model = RecBoleBERT4Rec(config, dataset())
    optimizer = torch.optim.Adam(model.train().parameters())

    def step() -> int:
        histories = rows[torch.randint(len(rows), (BATCH,))]
        batch = Interaction({"item_id_list": histories, "item_length": (histories != 0).sum(dim=1)})
        masked = mask(dataset(), batch)
        take(optimizer, model.calculate_loss(masked))
        return int((masked["Mask_item_id_list"] == model.mask_token).sum())

    return step


def take(optimizer: torch.optim.Optimizer, loss: Any) -> None:
    optimizer.zero_grad()
    (sum(loss) if isinstance(loss, tuple) else loss).backward()
    optimizer.step()


def dataset() -> SimpleNamespace:
    """What both sides read of a data set without attributes."""
    counts = {"user_id": USERS + 1, "item_id": ITEMS + 1}
    return SimpleNamespace(
        user_num=USERS + 1, item_num=ITEMS + 1, target_num=ITEMS + 1, num=counts.__getitem__,
        item_attributes={}, item_numbers={}, user_attributes={}, user_numbers={}, config=CONFIG,
    )  # fmt: skip


def in_turns(steps: dict[str, Callable[[], int]]) -> tuple[dict[str, float], dict[str, float]]:
    """The typical CPU seconds of a step of each side, and its mean number of guesses; the first ones do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    guesses: dict[str, list[int]] = {name: [] for name in steps}
    for number in range(WARM_UP + ROUNDS):
        for name, step in steps.items():
            start = time.process_time()
            guessed = step()
            if number >= WARM_UP:
                seconds[name].append(time.process_time() - start)
                guesses[name].append(guessed)
    return (
        {name: float(np.median(values)) for name, values in seconds.items()},
        {name: float(np.mean(values)) for name, values in guesses.items()},
    )


if __name__ == "__main__":
    main()
