"""SESRec's training step against a plain implementation of the published recipe, at Kindle's size, on one thread.

    python benchmarks/training_step.py            # about five minutes and 3 GB of memory
    python benchmarks/training_step.py --quick    # a tenth of the data set

Both sides train on the same generated logs, loading included, in turns in one process, and use the same weights when
their losses and gradients are compared.  Peak memory is measured with each side in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from measure import in_own_process, machine, peak_memory_mib, print_table, reset_peak_memory
from plain_sesrec import Logs, PlainDataset, PlainSESRec, Sizes, batches
from recbole.data.interaction import Interaction
from recbole.utils import InputType, ModelType
from torch import Tensor

from recbole_ser.atomic.ragged import Ragged
from recbole_ser.bundled import package_folder
from recbole_ser.data.histories import EventLog, HistoryReader, Searches, build_event_log
from recbole_ser.data.instances import split_instances
from recbole_ser.data.loader import TrainLoader
from recbole_ser.data.negatives import training_pairs
from recbole_ser.data.planted import SyntheticLogs, generate
from recbole_ser.data.synthetic import PRESETS
from recbole_ser.model.search_aware.sesrec import SESRec
from recbole_ser.train.optimization import build_adam
from recbole_ser.yaml_values import read_yaml

BATCH, NEGATIVES, LENGTH = 256, 4, 15


class Config(dict[str, Any]):
    """The keys that model and loader read."""

    model_class = SESRec


CONFIG = Config({
    **read_yaml(package_folder("properties") / "model" / "SESRec.yaml"),
    "USER_ID_FIELD": "user_id", "ITEM_ID_FIELD": "item_id", "LIST_SUFFIX": "_list", "NEG_PREFIX": "neg_",
    "ITEM_LIST_LENGTH_FIELD": "item_length", "MAX_ITEM_LIST_LENGTH": LENGTH, "max_search_length": LENGTH,
    "train_batch_size": BATCH, "shuffle": True,
    "train_neg_sample_args": {"distribution": "uniform", "sample_num": NEGATIVES, "alpha": 1.0},
    "device": "cpu", "seed": 0, "MODEL_TYPE": ModelType.SEQUENTIAL, "MODEL_INPUT_TYPE": InputType.LISTWISE,
})  # fmt: skip
PARTS = ("load", "forward and backward", "optimiser")


@dataclass
class Side:
    """One implementation: ``batches()`` yields batches for ever, ``loss(batch)`` is what it minimises."""

    batches: Callable[[], Iterator[Any]]
    loss: Callable[[Any], Tensor]
    optimizer: torch.optim.Optimizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the data set and a quarter of the steps")
    parser.add_argument("--memory", choices=["plain", "ours"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dataset = generated(arguments.quick)
    if arguments.memory:
        print(json.dumps(peak_of(arguments.memory, dataset)))
        return
    print(machine())
    describe(dataset)
    compare_values(dataset)
    sides = {"plain": plain_side(dataset), "ours": our_side(dataset)}
    seconds = in_turns(sides, rounds=5 if arguments.quick else 20)
    quick = ["--quick"] if arguments.quick else []
    memory = {name: in_own_process(__file__, *quick, "--memory", name) for name in sides}
    report(seconds, memory)


# --- data -----------------------------------------------------------------------------------------------------------


def generated(quick: bool) -> SimpleNamespace:
    """Logs of Kindle's size as what ``SERDataset`` would make of their files."""
    spec = PRESETS["kindle"].scaled(0.1) if quick else PRESETS["kindle"]
    logs = generate(spec)
    log = event_log(logs)
    split = split_instances(log, require_both_histories=True)
    return SimpleNamespace(
        log=log, split=split, target_num=spec.items + 1, uid_field="user_id", iid_field="item_id",
        history_reader=lambda: HistoryReader(log, LENGTH, LENGTH, spec.max_clicks),
        user_num=spec.users + 1, item_num=spec.items + 1, query_num=spec.queries + 1, term_num=spec.terms + 1,
        source_num=2, query_terms=query_terms(logs, spec.max_terms), item_attributes={}, user_attributes={},
        item_numbers={}, user_numbers={},
        config=SimpleNamespace(model_class=SESRec), num={"item_id": spec.items + 1}.__getitem__,
        training_search_queries=log.queries[split.training_searches],
        training_pairs=training_pairs(log, split, spec.items + 1),
    )  # fmt: skip


def event_log(logs: SyntheticLogs) -> EventLog:
    clicks = Ragged(logs.search_clicks.values + 1, logs.search_clicks.starts)
    searches = Searches(
        logs.search_user + 1, logs.search_time, logs.search_query + 1, np.ones_like(logs.search_query), clicks
    )
    return build_event_log(logs.user + 1, logs.time, logs.item + 1, searches, len(logs.user_level) + 1)


def query_terms(logs: SyntheticLogs, width: int) -> Tensor:
    """int32 ``[queries + 1, width]``, right-padded with 0."""
    starts = logs.query_terms.starts
    lengths = np.diff(starts)
    table = np.zeros((len(lengths) + 1, width), dtype=np.int32)
    rows = np.repeat(np.arange(1, len(table)), lengths)
    table[rows, np.arange(len(rows)) - np.repeat(starts[:-1], lengths)] = logs.query_terms.values + 1
    return torch.from_numpy(table)


def describe(dataset: SimpleNamespace) -> None:
    searches = dataset.log.search_length[dataset.split.train].clamp(max=LENGTH).float().mean().item()
    print(
        f"{dataset.user_num - 1:,} users, {dataset.item_num - 1:,} items, {dataset.query_num - 1:,} queries, "
        f"{len(dataset.split.train):,} targets; {searches * BATCH:,.0f} (query, click) pairs in a batch of {BATCH}"
    )


# --- the two sides --------------------------------------------------------------------------------------------------


def our_side(dataset: SimpleNamespace) -> Side:
    loader = TrainLoader(CONFIG, dataset)
    torch.manual_seed(0)
    model = SESRec(CONFIG, dataset).train()
    optimizer = build_adam(model, "adam", CONFIG["learning_rate"], CONFIG["weight_decay"])
    return Side(lambda: endless(lambda: loader), model.calculate_loss, optimizer)


def plain_side(dataset: SimpleNamespace) -> Side:
    sizes = plain_sizes(dataset)
    rows = PlainDataset(plain_logs(dataset), sizes)
    model = plain_model(sizes, CONFIG["dropout_prob"]).train()
    copy_weights(SESRec(CONFIG, dataset), model)
    optimizer = torch.optim.Adam(model.parameters(), CONFIG["learning_rate"], weight_decay=CONFIG["weight_decay"])
    return Side(
        lambda: endless(lambda: batches(rows, BATCH)),
        lambda batch: torch.stack(list(model(batch).values())).sum(),
        optimizer,
    )


def endless(epoch: Callable[[], Any]) -> Iterator[Any]:
    while True:
        yield from epoch()


def plain_sizes(dataset: SimpleNamespace) -> Sizes:
    return Sizes(dataset.user_num, dataset.item_num, dataset.query_num, dataset.term_num, dataset.source_num)


def plain_model(sizes: Sizes, dropout: float) -> PlainSESRec:
    return PlainSESRec(sizes, dropout, CONFIG["alpha"], CONFIG["beta"], CONFIG["margin"])


def plain_logs(dataset: SimpleNamespace) -> Logs:
    random.seed(0)
    log, train = dataset.log, dataset.split.train
    users = log.users[train]
    histories = lists(log.items, log.user_start)
    clicks, queries, sources = lists(log.clicks, log.click_start), log.queries.tolist(), log.sources.tolist()
    searches = log.search_start.tolist()
    return Logs(
        histories=histories,
        searches=[list(range(start, end)) for start, end in zip(searches, searches[1:])],
        sessions=[{"query": q, "source": s, "clicks": c} for q, s, c in zip(queries, sources, clicks)],
        words=[[word for word in words if word] for words in dataset.query_terms.tolist()],
        targets=list(
            zip(
                users.tolist(),
                log.rec_length[train].tolist(),
                (log.searches_before[train] - log.search_start[users]).tolist(),
            )
        ),
        seen=[set(items) for items in histories],
    )


def lists(values: Tensor, starts: Tensor) -> list[list[int]]:
    flat, ends = values.tolist(), starts.tolist()
    return [flat[start:end] for start, end in zip(ends, ends[1:])]


# --- the same values ------------------------------------------------------------------------------------------------

PLAIN_NAMES = {
    "users.ids.": "user.", "items.ids.": "item.", "queries.ids.": "query.", "queries.attributes.0.table.": "term.",
    "sources.": "source.", "items.projection.": "item_projection.", "queries.projection.": "query_projection.",
    "rec_positions.": "rec_position.", "search_positions.": "search_position.", ".layers.0.": ".",
    "attention.input.": "attention.in_proj_", "attention.output.": "attention.out_proj.",
    "co_attention.left.weight": "search_vote", "co_attention.right.weight": "rec_vote",
    "co_attention.affinity": "affinity", "rec_interest.weight": "rec_target", "search_interest.weight": "search_target",
    "alignment.temperature.raw": "raw_temperature", "alignment.weight": "alignment",
    "mlp.first.": "mlp.0.", "mlp.others.0.": "mlp.3.", "mlp.others.1.": "mlp.6.",
}  # fmt: skip


def plain_name(name: str) -> str:
    for ours, plain in PLAIN_NAMES.items():
        name = name.replace(ours, plain)
    return name


def copy_weights(ours: SESRec, plain: PlainSESRec) -> None:
    plain.load_state_dict({plain_name(name): value for name, value in ours.named_parameters()})


def compare_values(dataset: SimpleNamespace) -> None:
    """Print how far losses and gradients are apart on one batch, with the same weights and no dropout."""
    torch.manual_seed(1)
    ours = SESRec({**CONFIG, "dropout_prob": 0.0}, dataset).train()
    plain = plain_model(plain_sizes(dataset), 0.0).train()
    copy_weights(ours, plain)
    batch = next(iter(TrainLoader(CONFIG, dataset)))
    losses = ours.losses(batch)
    expected = plain(plain_batch(batch, ours.alignment.drawn, dataset.query_terms.long()))
    torch.stack(list(losses.values())).sum().backward()
    torch.stack(list(expected.values())).sum().backward()
    of_losses = max((losses[name] - expected[name]).abs().item() for name in expected)
    gradients = {name: value.grad for name, value in plain.named_parameters()}
    of_gradients = {
        name: (value.grad - gradients[plain_name(name)]).abs().max().item() for name, value in ours.named_parameters()
    }
    worst = max(of_gradients, key=of_gradients.__getitem__)
    print(f"same weights: losses differ by at most {of_losses:.1g}, gradients by {of_gradients[worst]:.1g} ({worst})\n")
    if max(of_losses, of_gradients[worst]) > 1e-5:
        raise SystemExit("the two sides do not compute the same")


def plain_batch(batch: Interaction, negatives: Any, terms: Tensor) -> dict[str, Tensor]:
    return {
        "user": batch["user_id"],
        "items": torch.cat([batch["item_id"].unsqueeze(1), batch["neg_item_id"]], dim=1),
        "rec": batch["item_id_list"],
        "queries": batch["search_query_list"],
        "sources": batch["search_source_list"],
        "clicks": batch["search_click_list"],
        "words": terms[batch["search_query_list"]],
        "negative_items": negatives.items,
        "negative_queries": negatives.queries,
        "negative_words": terms[negatives.queries],
    }


# --- measuring ------------------------------------------------------------------------------------------------------


def in_turns(sides: dict[str, Side], rounds: int, steps: int = 5) -> dict[str, np.ndarray]:
    """CPU seconds ``[steps, 3]`` of the parts of a step; the sides take turns, the first round does not count."""
    running = {name: side.batches() for name, side in sides.items()}
    seconds: dict[str, list[list[float]]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            for _ in range(steps):
                step = timed_step(side, running[name])
                if number:
                    seconds[name].append(step)
    return {name: np.array(values) for name, values in seconds.items()}


def timed_step(side: Side, running: Iterator[Any]) -> list[float]:
    times = [time.process_time()]
    batch = next(running)
    times.append(time.process_time())
    side.optimizer.zero_grad()
    side.loss(batch).backward()
    times.append(time.process_time())
    side.optimizer.step()
    times.append(time.process_time())
    return np.diff(times).tolist()


def peak_of(name: str, dataset: SimpleNamespace) -> float:
    side = {"plain": plain_side, "ours": our_side}[name](dataset)
    reset_peak_memory()
    running = side.batches()
    for _ in range(10):
        timed_step(side, running)
    return peak_memory_mib()


def report(seconds: dict[str, np.ndarray], memory: dict[str, float]) -> None:
    rows = []
    for name, values in seconds.items():
        total = values.sum(axis=1).mean()
        rows.append([name, *(values.mean(axis=0) * 1000), total * 1000, BATCH / total, memory[name]])
    plain, ours = rows
    ratios = [*(a / b for a, b in zip(plain[1:5], ours[1:5])), ours[5] / plain[5], plain[6] / ours[6]]
    header = ["CPU ms per step", *PARTS, "step", "positives per CPU s", "peak MiB"]
    print_table(header, [plain, ours, ["times better", *ratios]])


if __name__ == "__main__":
    main()
