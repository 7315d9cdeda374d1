"""The graph models' training steps and evaluation against RecBole's classes, at Kindle's size, on one thread.

    python benchmarks/graph.py            # about five minutes and 4 GB of memory
    python benchmarks/graph.py --quick    # a tenth of the data set

Both sides train on the same generated interactions with one negative each, loading included, in turns in one process;
LightGCN's losses and gradients are compared on the same weights.  RecBole's LightGCN gets its adjacency from us, as its
own code needs an old SciPy.  RecBole's evaluation is its ``predict`` on batches of 4,096 pairs of users and candidates,
without the loading; ours is the whole ranking, with loading and propagation.  RecBole has no SimGCL.
"""

from __future__ import annotations

import argparse
import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from measure import cpu_seconds, in_own_process, machine, peak_memory_mib, print_table, reset_peak_memory
from recbole.data.interaction import Interaction
from recbole.model.general_recommender import SGL as RecBoleSGL
from recbole.model.general_recommender import LightGCN as RecBoleLightGCN
from recbole.utils import InputType, ModelType
from torch import Tensor
from training_step import PARTS, Side, endless, generated, in_turns, timed_step

from recbole_ser.bundled import package_folder
from recbole_ser.data.loader import EvalLoader, TrainLoader
from recbole_ser.evaluation.ranking import rank_targets
from recbole_ser.model.foreign import candidate_scorer
from recbole_ser.model.general.lightgcn import LightGCN
from recbole_ser.model.general.sgl import SGL
from recbole_ser.model.general.simgcl import SimGCL
from recbole_ser.train.optimization import build_adam
from recbole_ser.yaml_values import read_yaml

CANDIDATES, PAIRS_AT_ONCE = 100, 4096  # the latter is RecBole's default


class Config(dict[str, Any]):
    """The keys that a model and the loaders read."""

    def __init__(self, model_class: type, **values: Any) -> None:
        own = read_yaml(package_folder("properties") / "model" / f"{model_class.__name__}.yaml")
        ours = model_class in OURS.values()
        super().__init__(
            **own, USER_ID_FIELD="user_id", ITEM_ID_FIELD="item_id", LIST_SUFFIX="_list", NEG_PREFIX="neg_",
            ITEM_LIST_LENGTH_FIELD="item_length", MAX_ITEM_LIST_LENGTH=15, shuffle=True, device="cpu", seed=0,
            train_neg_sample_args={"distribution": "uniform", "sample_num": 1, "alpha": 1.0},
            eval_batch_size=128, candidate_seed=0, require_pow=True, type="ED",
            MODEL_TYPE=ModelType.SEQUENTIAL if ours else ModelType.GENERAL,
            MODEL_INPUT_TYPE=InputType.LISTWISE if ours else InputType.PAIRWISE,
        )  # fmt: skip
        self.model_class = model_class
        self.update(values)

    def candidate_mode(self, phase: str) -> tuple[str, int]:
        return "uniform", CANDIDATES - 1


class PatchedLightGCN(RecBoleLightGCN):
    """RecBole's class with the same adjacency, built in a way that every SciPy has."""

    def get_norm_adj_mat(self) -> Tensor:
        pairs = self.interaction_matrix
        above = sp.coo_matrix(
            (pairs.data, (pairs.row, pairs.col + self.n_users)), shape=(self.n_users + self.n_items,) * 2
        )
        both = (above + above.T).tocoo()
        root = np.power(np.asarray(both.sum(axis=1)).ravel() + 1e-7, -0.5)
        values = torch.from_numpy((root[both.row] * both.data * root[both.col]).astype(np.float32))
        return torch.sparse_coo_tensor(np.stack([both.row, both.col]), values, both.shape)


PatchedLightGCN.__name__ = "LightGCN"
OURS: dict[str, type] = {"LightGCN": LightGCN, "SGL": SGL, "SimGCL": SimGCL}
RECBOLE: dict[str, type] = {"LightGCN": PatchedLightGCN, "SGL": RecBoleSGL}
SIDES = [*((name, "RecBole") for name in RECBOLE), *((name, "ours") for name in OURS)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the data set")
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dataset = with_interactions(generated(arguments.quick))
    if arguments.memory:
        print(json.dumps(peak_of(*arguments.memory, dataset)))
        return
    print(machine())
    compare_values(dataset)
    quick = ["--quick"] if arguments.quick else []
    print()
    report_training(dataset, quick)
    print()
    report_evaluation(dataset)


# --- data and models ------------------------------------------------------------------------------------------------


def with_interactions(dataset: SimpleNamespace) -> SimpleNamespace:
    """``dataset`` with the distinct pairs of the training period in the forms that RecBole's models read."""
    positions = dataset.split.training_interactions
    pairs = np.unique(np.stack([dataset.log.users[positions], dataset.log.items[positions]]), axis=1)
    shape = dataset.user_num, dataset.item_num
    matrix = sp.coo_matrix((np.ones(pairs.shape[1], dtype=np.float32), tuple(pairs)), shape=shape)
    dataset.inter_matrix = lambda form: matrix
    dataset.inter_feat = {"user_id": pairs[0], "item_id": pairs[1]}
    dataset.num = {"user_id": shape[0], "item_id": shape[1]}.__getitem__
    print(f"{shape[0] - 1:,} users, {shape[1] - 1:,} items, {pairs.shape[1]:,} edges, {len(positions):,} training rows")
    return dataset


def build(name: str, kind: str, dataset: SimpleNamespace) -> tuple[Any, Config]:
    config = Config((OURS if kind == "ours" else RECBOLE)[name])
    torch.manual_seed(0)
    return config.model_class(config, dataset), config


def side(name: str, kind: str, dataset: SimpleNamespace) -> Side:
    model, config = build(name, kind, dataset)
    dataset.config = config
    loader = TrainLoader(config, dataset)
    model.train()  # RecBole's SGL draws its graphs here
    optimizer = build_adam(model, "adam", config["learning_rate"], 0.0)

    def loss(batch: Interaction) -> Tensor:
        return model.calculate_loss(batch).sum()

    return Side(lambda: endless(lambda: loader), loss, optimizer)


def compare_values(dataset: SimpleNamespace) -> None:
    """Print how far LightGCN's losses and gradients are apart on one batch, with the same weights."""
    (ours, config), (theirs, _) = build("LightGCN", "ours", dataset), build("LightGCN", "RecBole", dataset)
    theirs.load_state_dict(ours.state_dict())
    dataset.config = config
    batch = next(iter(TrainLoader(config, dataset)))
    pairs = Interaction({**batch.interaction, "neg_item_id": batch["neg_item_id"].squeeze(1)})
    losses = ours.calculate_loss(batch), theirs.calculate_loss(pairs).sum()
    for loss in losses:
        loss.backward()
    gradients = zip(ours.parameters(), theirs.parameters())
    of_gradients = max(((a.grad - b.grad).norm() / b.grad.norm()).item() for a, b in gradients)
    of_losses = abs(losses[0] - losses[1]).item()
    print(f"same weights: losses differ by {of_losses:.1g}, gradients by {of_gradients:.1g} of their size")
    if max(of_losses, of_gradients) > 1e-4:
        raise SystemExit("the two sides do not compute the same")


# --- measuring ------------------------------------------------------------------------------------------------------


def peak_of(name: str, kind: str, dataset: SimpleNamespace) -> float:
    built = side(name, kind, dataset)
    reset_peak_memory()
    running = built.batches()
    for _ in range(3):
        timed_step(built, running)
    return peak_memory_mib()


def report_training(dataset: SimpleNamespace, quick: list[str]) -> None:
    sides = {f"{name}, {kind}": side(name, kind, dataset) for name, kind in SIDES}
    seconds = in_turns(sides, rounds=3, steps=3)
    peaks = {f"{name}, {kind}": in_own_process(__file__, *quick, "--memory", name, kind) for name, kind in SIDES}
    rows = []
    for name, values in seconds.items():
        rows.append([name, *(values.mean(axis=0) * 1000), values.sum(axis=1).mean() * 1000, peaks[name]])
    print_table([f"CPU ms per step of {Config(LightGCN)['train_batch_size']:,}", *PARTS, "step", "peak MiB"], rows)
    steps = {row[0]: row[4] for row in rows}
    for name in RECBOLE:
        print(f"{name}: {steps[f'{name}, RecBole'] / steps[f'{name}, ours']:.1f} times as fast")


def report_evaluation(dataset: SimpleNamespace) -> None:
    (ours, config), (theirs, _) = build("LightGCN", "ours", dataset), build("LightGCN", "RecBole", dataset)
    theirs.load_state_dict(ours.state_dict())
    dataset.config = config
    loader = EvalLoader(config, dataset, "test")
    ours.eval()
    theirs.eval()
    users, items = next(pairs for pairs in recbole_batches(loader))
    found, expected = ours.score(ours.encode(Interaction({"user_id": users[:, 0]})), items), None
    with torch.no_grad():
        expected = theirs.predict(pairs_of(users, items)).view(items.shape)
    torch.testing.assert_close(found.detach(), expected, rtol=1e-4, atol=1e-5)

    rates = {}
    with torch.no_grad():
        batches = [pairs_of(*pairs) for _, pairs in zip(range(5), recbole_batches(loader))]
        seconds = min(cpu_seconds(lambda batch=batch: theirs.predict(batch)) for batch in batches)
    rates["RecBole, predict"] = len(users) / seconds
    rows = loader.rows
    rates["ours"] = rows / min(cpu_seconds(lambda: (ours.eval(), rank_targets(ours, loader, "cpu", "x"))) for _ in "12")
    loader.positions, loader.rows = loader.positions[:1024], min(rows, 1024)
    adapted = candidate_scorer(theirs)
    rates["RecBole, in this package"] = loader.rows / cpu_seconds(lambda: rank_targets(adapted, loader, "cpu", "x"))
    print_table(
        [f"{rows:,} targets, {CANDIDATES} candidates", "targets per CPU s", "times ours is faster"],
        [[name, rate, rates["ours"] / rate] for name, rate in rates.items()],
    )


def recbole_batches(loader: EvalLoader) -> Any:
    """Users and candidates, ``[b, CANDIDATES]`` both, of as many rows as fit into RecBole's batch."""
    rows = PAIRS_AT_ONCE // CANDIDATES
    assert loader.candidates is not None
    for start in range(0, loader.rows, rows):
        items = loader.candidates.items[start : start + rows].long()
        yield loader.users[start : start + rows].long().unsqueeze(1).expand_as(items), items


def pairs_of(users: Tensor, items: Tensor) -> Interaction:
    return Interaction({"user_id": users.reshape(-1), "item_id": items.reshape(-1)})


if __name__ == "__main__":
    main()
