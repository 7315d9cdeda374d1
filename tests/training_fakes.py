"""A tiny learnable problem for the tests of training: item ``h + 1`` follows item ``h`` (ids wrap around)."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from recbole.utils import EvaluatorType
from torch import Tensor, nn

from recbole_ser.compat import set_numpy_aliases
from recbole_ser.model.base import SearchRecommender
from recbole_ser.train.trainer import SERTrainer

set_numpy_aliases()  # SERConfig does it in a real run

ITEMS, USERS, LENGTH = 12, 30, 3  # counting the padding id


class FakeConfig(dict):
    """What a trainer reads of a configuration; a missing key is ``None``, as RecBole's."""

    parameters: dict[str, list[str]] = {}
    log_wandb = False

    def __init__(self, run_dir: Path | str, **values: Any) -> None:
        super().__init__(
            model="Toy", dataset="fake", single_spec=True, learner="adam", learning_rate=0.01, epochs=3, eval_step=1,
            stopping_step=10, valid_metric="MRR", valid_metric_bigger=True, eval_batch_size=7, use_gpu=False,
            device=torch.device("cpu"), checkpoint_dir=str(run_dir), run_dir=str(run_dir), enable_amp=False,
            weight_decay=0.0, eval_type=EvaluatorType.RANKING, eval_args={"mode": "uni4"},
            metrics=["Hit", "NDCG", "MRR"], topk=[1, 3], metric_decimal_place=4, seed=7, reproducibility=True,
            train_neg_sample_args={}, USER_ID_FIELD="user_id", ITEM_ID_FIELD="item_id", LIST_SUFFIX="_list",
            NEG_PREFIX="neg_", ITEM_LIST_LENGTH_FIELD="item_length", MAX_ITEM_LIST_LENGTH=LENGTH, embedding_size=8,
            train_batch_size=8, average_over="targets",
        )  # fmt: skip
        self.update(values)

    def __missing__(self, key: str) -> None:
        return None

    @property
    def final_config_dict(self) -> dict[str, Any]:
        return self

    def resolved(self) -> dict[str, Any]:
        return {key: str(value) for key, value in self.items()}


def fake_dataset() -> SimpleNamespace:
    sizes = {"user_id": USERS, "item_id": ITEMS}
    return SimpleNamespace(user_num=USERS, item_num=ITEMS, target_num=ITEMS, num=sizes.__getitem__)


def histories(rows: int, seed: int) -> tuple[dict[str, Tensor], np.random.Generator]:
    rng = np.random.default_rng(seed)
    last = rng.integers(1, ITEMS, rows)
    length = rng.integers(1, LENGTH + 1, rows)
    items = rng.integers(1, ITEMS, (rows, LENGTH)) * (np.arange(LENGTH) < length[:, None])
    items[np.arange(rows), length - 1] = last
    columns = {"user_id": rng.permutation(np.arange(rows) % (USERS - 1)) + 1, "item_id": last % (ITEMS - 1) + 1}
    columns |= {"item_id_list": items, "item_length": length}
    return {name: torch.from_numpy(np.asarray(column, dtype=np.int64)) for name, column in columns.items()}, rng


class FakeTrainLoader:
    """40 rows with two negatives each (or one, as RecBole's models read them), drawn anew from (seed, epoch)."""

    rows = 40

    def __init__(self, negatives: int | None = 2, batch_size: int = 8) -> None:
        self.negatives, self.batch_size = negatives, batch_size
        self.columns, _ = histories(self.rows, seed=1)
        self.epochs_seen: list[int] = []

    def __len__(self) -> int:
        return -(-self.rows // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        self.epochs_seen.append(epoch)
        self.generator = torch.Generator().manual_seed(100 + epoch)

    def __iter__(self) -> Any:
        shape = (self.rows,) if self.negatives is None else (self.rows, self.negatives)
        negatives = torch.randint(1, ITEMS, shape, generator=self.generator)
        for rows in torch.randperm(self.rows, generator=self.generator).split(self.batch_size):
            columns = {name: column[rows] for name, column in self.columns.items()}
            yield Interaction({**columns, "neg_item_id": negatives[rows]})


class FakeEvalLoader:
    """23 rows with 5 candidates each, or the whole catalogue (``full=True``)."""

    rows = 23

    def __init__(self, seed: int = 2, full: bool = False) -> None:
        self.columns, rng = histories(self.rows, seed)
        self.positive = self.columns["item_id"].clone()
        self.users = torch.arange(self.rows)
        self.catalogue = torch.arange(1, ITEMS)
        others = np.stack([rng.permutation(np.delete(np.arange(1, ITEMS), item - 1))[:5] for item in self.positive])
        self.column = torch.from_numpy(rng.integers(0, 5, self.rows))
        self.items = torch.from_numpy(others).scatter(1, self.column[:, None], self.positive[:, None])
        self.candidates = None if full else SimpleNamespace(hash="c0ffee")

    def __len__(self) -> int:
        return -(-self.rows // 7)

    def __iter__(self) -> Any:
        for start in range(0, self.rows, 7):
            rows = slice(start, start + 7)
            batch = Interaction({name: column[rows] for name, column in self.columns.items()})
            full = self.candidates is None
            yield batch, None if full else self.items[rows], (self.positive if full else self.column)[rows]

    def user_tokens(self) -> np.ndarray:
        return np.array([f"u{row}" for row in range(self.rows)])


class Toy(SearchRecommender):
    """Scores of the next item by the last one; dropout, so that random states matter, and a second named loss."""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.item_embedding = nn.Embedding(self.n_items, config["embedding_size"], padding_idx=0)
        self.next = nn.Linear(config["embedding_size"], config["embedding_size"])
        self.dropout = nn.Dropout(0.2)
        self.temperature = nn.Parameter(torch.tensor(1.0))

    def no_weight_decay(self) -> set[str]:
        return {"temperature"}

    def encode(self, interaction: Any) -> Tensor:
        last = interaction[self.ITEM_SEQ].gather(1, interaction[self.ITEM_SEQ_LEN].clamp(min=1).unsqueeze(1) - 1)
        return self.next(self.dropout(self.item_embedding(last.squeeze(1)))) * self.temperature

    def score(self, state: Tensor, items: Tensor) -> Tensor:
        return torch.einsum("bd,bcd->bc", state, self.item_embedding(items))

    def auxiliary_losses(self, interaction: Any, state: Tensor) -> dict[str, Tensor]:
        return {"size": state.square().mean()}

    def loss_weights(self) -> dict[str, float]:
        return {"size": 0.01}


def toy_trainer(run_dir: Path | str, model: type[Toy] = Toy, **values: Any) -> SERTrainer:
    config = FakeConfig(run_dir, **values)
    torch.manual_seed(config["seed"])
    return SERTrainer(config, model(config, fake_dataset()))
