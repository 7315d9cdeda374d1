"""GSERec's speed and memory against propagation over the whole graph, for growing numbers of users, on one thread.

    python benchmarks/gserec.py                  # some minutes and 3 GB of memory
    python benchmarks/gserec.py --users 75258    # one size

Random codes; 5,000 users, spread over all ids, have events like those of Amazon: each search is a purchase's category
path and clicks what was bought.  Width 64, batches of 1,024, 4 negatives, histories of 20, 100 candidates.  Both
variants train and rank the same, loading included; each is measured in processes of its own, and the best of several
counts.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from measure import cpu_seconds, in_own_process, machine, peak_memory_mib, print_table, reset_peak_memory
from plain_gserec import PlainGSERec
from recbole.utils import InputType, ModelType

from recbole_ser.atomic.ragged import Ragged
from recbole_ser.bundled import package_folder
from recbole_ser.data.codes import UserCodes
from recbole_ser.data.histories import EventLog, HistoryReader, Searches, build_event_log
from recbole_ser.data.instances import split_instances
from recbole_ser.data.loader import EvalLoader, TrainLoader
from recbole_ser.evaluation.ranking import rank_targets
from recbole_ser.model.search_aware.gserec import GSERec
from recbole_ser.train.optimization import build_adam
from recbole_ser.yaml_values import read_yaml

USERS, ACTIVE = (5_000, 75_258, 192_403), 5_000
ITEMS, QUERIES, WORDS = 62_960, 700, 726
LENGTH, BATCH, NEGATIVES, CANDIDATES = 20, 1_024, 4, 100
LEVELS, CODEBOOK, WIDTH = 4, 256, 64
STEPS, WARM_UP = 20, 3
MODELS = {"ours": GSERec, "plain": PlainGSERec}
PARTS = ("load", "forward", "backward", "optimiser")


class Config(dict[str, Any]):
    """The keys that model and loaders read."""

    model_class = GSERec

    def candidate_mode(self, phase: str) -> tuple[str, int]:
        return "uniform", CANDIDATES - 1


CONFIG = Config({
    **read_yaml(package_folder("properties") / "model" / "GSERec.yaml"),
    "USER_ID_FIELD": "user_id", "ITEM_ID_FIELD": "item_id", "LIST_SUFFIX": "_list", "NEG_PREFIX": "neg_",
    "ITEM_LIST_LENGTH_FIELD": "item_length", "MAX_ITEM_LIST_LENGTH": LENGTH, "max_search_length": LENGTH,
    "hidden_size": WIDTH, "embedding_size": WIDTH, "term_embedding_size": WIDTH,
    "train_batch_size": BATCH, "shuffle": True,
    "train_neg_sample_args": {"distribution": "uniform", "sample_num": NEGATIVES, "alpha": 1.0},
    "eval_batch_size": 256, "candidate_seed": 0, "device": "cpu", "seed": 0,
    "MODEL_TYPE": ModelType.SEQUENTIAL, "MODEL_INPUT_TYPE": InputType.LISTWISE,
})  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, nargs="+", default=USERS, help="numbers of users (%(default)s)")
    parser.add_argument("--processes", type=int, default=3, help="of each variant and size (%(default)s)")
    parser.add_argument("--part", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        torch.set_num_threads(1)
        name, users = arguments.part
        dataset = generated(int(users))
        print(json.dumps(difference(dataset) if name == "difference" else measured(MODELS[name], dataset)))
        return
    print(machine())
    for users in arguments.users:
        rounds = [{name: part(name, users) for name in MODELS} for _ in range(arguments.processes)]
        report(users, {name: best([results[name] for results in rounds]) for name in MODELS})
        of_losses, of_gradients = part("difference", users)
        print(
            f"same weights, double precision: losses differ by at most {of_losses:.1g}, gradients by {of_gradients:.1g}"
        )
        if max(of_losses, of_gradients) > 1e-8:
            raise SystemExit("the two variants do not compute the same")


def part(name: str, users: int) -> Any:
    return in_own_process(__file__, "--part", name, str(users))


# --- data -----------------------------------------------------------------------------------------------------------


def generated(users: int) -> SimpleNamespace:
    """What ``SERDataset`` would make of such logs."""
    generator = np.random.default_rng(0)
    log = event_log(users, generator)
    codes = [random_codes(users, generator) for _ in range(2)]
    return SimpleNamespace(
        log=log, split=split_instances(log, require_both_histories=True), target_num=ITEMS + 1, uid_field="user_id",
        iid_field="item_id", history_reader=lambda: HistoryReader(log, LENGTH, LENGTH, 1),
        num={"item_id": ITEMS + 1}.__getitem__, user_num=users + 1, item_num=ITEMS + 1, query_num=QUERIES + 1,
        term_num=WORDS + 1, query_terms=query_terms(generator), item_attributes={}, item_numbers={},
        config=SimpleNamespace(model_class=GSERec),
        user_codes=UserCodes(*codes, LEVELS * CODEBOOK + 1, LEVELS * CODEBOOK + 1, {}, ""),
    )  # fmt: skip


def event_log(users: int, generator: np.random.Generator) -> EventLog:
    """14.6 purchases of a user on average and at least 5, three quarters of them searched for at the same time."""
    active = np.linspace(1, users, ACTIVE).astype(np.int64)
    buyers = np.repeat(active, 4 + generator.geometric(1 / 10.6, ACTIVE))
    items = 1 + generator.permutation(ITEMS)[skewed(ITEMS, len(buyers), generator)]
    times = generator.integers(10_000, size=len(buyers))
    category = skewed(QUERIES, ITEMS + 1, generator) + 1
    searched = np.flatnonzero(generator.random(len(buyers)) < 0.774)
    clicks = Ragged(items[searched], np.arange(len(searched) + 1))
    queries = category[items[searched]]
    searches = Searches(buyers[searched], times[searched], queries, np.ones_like(queries), clicks)
    return build_event_log(buyers, times, items, searches, users + 1)


def skewed(count: int, size: int, generator: np.random.Generator) -> np.ndarray:
    """``size`` numbers below ``count``, the lower the more frequent."""
    weights = 1 / (np.arange(count) + 10.0) ** 0.8
    return generator.choice(count, size, p=weights / weights.sum())


def query_terms(generator: np.random.Generator) -> torch.Tensor:
    """int32 ``[QUERIES + 1, 9]``, right-padded with 0: three to nine words."""
    words = 1 + skewed(WORDS, (QUERIES + 1) * 9, generator).reshape(-1, 9)
    lengths = generator.integers(3, 10, size=(QUERIES + 1, 1))
    lengths[0] = 0
    return torch.from_numpy((words * (np.arange(9) < lengths)).astype(np.int32))


def random_codes(users: int, generator: np.random.Generator) -> torch.Tensor:
    """int64 ``[users + 1, LEVELS]``."""
    codes = 1 + generator.integers(CODEBOOK, size=(users + 1, LEVELS)) + CODEBOOK * np.arange(LEVELS)
    codes[0] = 0
    return torch.from_numpy(codes)


# --- measuring ------------------------------------------------------------------------------------------------------


def measured(model_class: type[GSERec], dataset: SimpleNamespace) -> dict[str, Any]:
    """CPU seconds of the median step's parts, of ranking a user and of making a model's two graphs; peak MiB."""
    torch.manual_seed(0)
    model = model_class(CONFIG, dataset)
    graph, codes = type(model.search_graph), dataset.user_codes
    sides = (codes.search, codes.search_num), (codes.rec, codes.rec_num)
    graphs = min(cpu_seconds(lambda: [graph(*side, WIDTH, CONFIG["graph_layers"]) for side in sides]) for _ in range(3))
    reset_peak_memory()
    optimizer = build_adam(model.train(), "adam", CONFIG["learning_rate"], CONFIG["weight_decay"])
    batches = iter(TrainLoader(CONFIG, dataset))
    steps = [timed_step(model, optimizer, batches) for _ in range(WARM_UP + STEPS)][WARM_UP:]
    loader = EvalLoader(CONFIG, dataset, "test")
    ranking = cpu_seconds(lambda: rank_targets(model.eval(), loader, "cpu", "GSERec")) / loader.rows
    return {
        "step": sorted(steps, key=sum)[STEPS // 2],
        "user": ranking,
        "graphs": graphs,
        "peak": peak_memory_mib(),
    }


def timed_step(model: GSERec, optimizer: torch.optim.Optimizer, batches: Iterator[Any]) -> list[float]:
    """CPU seconds of ``PARTS``."""
    times = [time.process_time()]
    batch = next(batches)
    times.append(time.process_time())
    loss = model.calculate_loss(batch)
    times.append(time.process_time())
    optimizer.zero_grad()
    loss.backward()
    times.append(time.process_time())
    optimizer.step()
    times.append(time.process_time())
    return np.diff(times).tolist()


def difference(dataset: SimpleNamespace) -> tuple[float, float]:
    """The largest differences of losses and of gradients on one batch, with the same weights and no dropout.

    In double precision: in single, rounding decides now and then on which side of a ReLU's kink a value falls.
    """
    torch.manual_seed(0)
    models = [model_class({**CONFIG, "dropout_prob": 0.0}, dataset).double() for model_class in MODELS.values()]
    models[1].load_state_dict(models[0].state_dict())
    batch = next(iter(TrainLoader(CONFIG, dataset)))
    losses = [model.losses(batch) for model in models]
    for values in losses:
        torch.stack(list(values.values())).sum().backward()
    gradients = [{name: value.grad for name, value in model.named_parameters()} for model in models]
    of_losses, of_gradients = (
        max((ours[name] - plain[name]).abs().max().item() for name in ours) for ours, plain in (losses, gradients)
    )
    return of_losses, of_gradients


def best(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The fastest of several processes, figure by figure."""
    return {
        "step": min((result["step"] for result in results), key=sum),
        **{name: min(result[name] for result in results) for name in ("user", "graphs", "peak")},
    }


def report(users: int, results: dict[str, dict[str, Any]]) -> None:
    print(f"\n{users:,} users")
    rows = []
    for name, figures in results.items():
        milliseconds = [seconds * 1000 for seconds in figures["step"]]
        speeds = BATCH / sum(figures["step"]), 1 / figures["user"]
        rows.append([name, *milliseconds, *speeds, figures["graphs"], figures["peak"]])
    ours, plain = rows
    ratios = [a / b for a, b in zip(plain[1:5], ours[1:5])] + [a / b for a, b in zip(ours[5:7], plain[5:7])]
    ratios += [a / b for a, b in zip(plain[7:], ours[7:])]
    header = [
        "", *(f"{name} ms" for name in PARTS), "positives per CPU s", "users ranked per CPU s", "graphs CPU s",
        "peak MiB",
    ]  # fmt: skip
    print_table(header, [plain, ours, ["times better", *ratios]])


if __name__ == "__main__":
    main()
