"""Users ranked per CPU second: each history encoded once, against (user, candidate) pairs and RecBole's ``uni99``.

    python benchmarks/evaluation.py            # about ten minutes
    python benchmarks/evaluation.py --quick    # a tenth of the size
    python benchmarks/evaluation.py --full     # full ranking alone

Generated logs of Kindle's size, 100 candidates or the whole catalogue, untrained models with one seed.  Full ranking is
measured in two ways, in turns: each candidate against a history that was encoded once (``score``), and
``score_catalogue``, which knows that the items are the same for all rows.  In two stages, a dot-product model chooses
1,000 items for each row, which SESRec ranks.  Each part runs in a process of its own, one thread.  The slow sides are
measured on fewer users; the figures are per CPU second.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from measure import in_own_process, machine, peak_memory_mib, print_table
from recbole.data.interaction import Interaction
from torch import Tensor
from training_step import copy_weights, plain_batch, plain_model, plain_sizes

ROWS = {"plain": 512, "pairs": 1_024}
FULL_ROWS, ROUNDS = 32, 4
LENGTHS = {"MAX_ITEM_LIST_LENGTH": 15, "max_search_length": 15, "max_clicks_per_search": 1}
SIZES = {"embedding_size": 32, "hidden_size": 32}
TITLES = {
    "recbole": "SASRec, RecBole's own uni99",
    "sasrec": "SASRec, ours",
    "plain": "SESRec, plain, pair by pair",
    "pairs": "SESRec, ours, pair by pair",
    "sesrec": "SESRec, ours",
}
FULL = ("SESRec", "UniSAR", "SASRecAll", "DIN")
TWO_STAGES, RETRIEVED = "SASRecAll, then SESRec", 1_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a data set of a tenth of the size")
    parser.add_argument("--full", action="store_true", help="full ranking alone")
    parser.add_argument("--data", type=Path, help="folder for the generated data set (default: a temporary one)")
    parser.add_argument("--part", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        torch.set_num_threads(1)
        name, folder = arguments.part
        measures = {"recbole": measure_recbole, TWO_STAGES: measure_two_stages, **dict.fromkeys(FULL, measure_full)}
        measure = measures.get(name, measure_ours)
        print(json.dumps(measure(name, Path(folder))))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = _generated(arguments.data or Path(temporary), arguments.quick)
        names = (*(() if arguments.full else TITLES), *FULL, TWO_STAGES)
        results = {name: in_own_process(__file__, "--part", name, str(folder)) for name in names}
    print(machine())
    if not arguments.full:
        _print({name: results[name] for name in TITLES})
    _print_full({name: results[name] for name in (*FULL, TWO_STAGES)})


def measure_ours(name: str, folder: Path) -> dict[str, float]:
    """Users per CPU second and peak memory of one of our ways to rank."""
    from recbole_ser.evaluation.ranking import rank_targets
    from recbole_ser.model.foreign import candidate_scorer

    model, sizes = ("SASRec", {"hidden_size": SIZES["hidden_size"]}) if name == "sasrec" else ("SESRec", SIZES)
    model, dataset, loader = _untrained(model, folder, sizes, "uni99", ROWS.get(name, 20_000))
    rows = loader.rows
    difference = 0.0
    start = time.process_time()
    if name in ("plain", "pairs"):
        difference = _rank_pairs(model, loader, _plain_scorer(model, dataset) if name == "plain" else model.predict)
    else:
        rank_targets(candidate_scorer(model), loader, "cpu", name)
    users = rows / (time.process_time() - start)
    return {"users": users, "peak": peak_memory_mib(), "rows": rows, "difference": difference}


@torch.no_grad()
def measure_full(name: str, folder: Path) -> dict[str, float]:
    """Users scored against the whole catalogue per CPU second in both ways, which take turns."""
    from recbole_ser.model.catalogue import catalogue_scores

    sizes = {"hidden_size": 32} if name == "SASRecAll" else SIZES
    model, _, loader = _untrained(name, folder, sizes, "full", FULL_ROWS * ROUNDS)
    scorers = {"candidates": SimpleNamespace(encode=model.encode, score=model.score), "catalogue": model}
    if not hasattr(model, "score_catalogue"):
        del scorers["candidates"]
    interaction, _, _ = next(iter(loader))
    seconds, scores = dict.fromkeys(scorers, 0.0), {}
    for start in range(0, FULL_ROWS * ROUNDS, FULL_ROWS):
        for way, scorer in scorers.items():
            begun = time.process_time()
            scores[way] = catalogue_scores(scorer, interaction[start : start + FULL_ROWS], loader.catalogue)
            seconds[way] += time.process_time() - begun
    return {
        **{way: FULL_ROWS * ROUNDS / spent for way, spent in seconds.items()}, "items": len(loader.catalogue),
        "peak": peak_memory_mib(), "difference": (scores["catalogue"] - scores.get("candidates", 0)).abs().max().item(),
    }  # fmt: skip


@torch.no_grad()
def measure_two_stages(name: str, folder: Path) -> dict[str, float]:
    """Users per CPU second if SASRecAll chooses the items that SESRec ranks."""
    from recbole_ser.inference.scores import top_k
    from recbole_ser.model.catalogue import catalogue_scores, scores_of

    first, _, _ = _untrained("SASRecAll", folder, {"hidden_size": 32}, "full", FULL_ROWS * ROUNDS)
    second, _, loader = _untrained("SESRec", folder, SIZES, "full", FULL_ROWS * ROUNDS)
    interaction, _, _ = next(iter(loader))
    start = time.process_time()
    for row in range(0, FULL_ROWS * ROUNDS, FULL_ROWS):
        rows = interaction[row : row + FULL_ROWS]
        _, columns = top_k(catalogue_scores(first, rows, loader.catalogue), RETRIEVED)
        scores_of(second, rows, loader.catalogue[columns])
    users = FULL_ROWS * ROUNDS / (time.process_time() - start)
    return {"catalogue": users, "items": len(loader.catalogue), "peak": peak_memory_mib(), "difference": 0.0}


def _untrained(model: str, folder: Path, sizes: dict[str, int], mode: str, rows: int) -> tuple[Any, Any, Any]:
    """A model, its data set, and a loader of the first ``rows`` targets of the test split."""
    from recbole.utils import init_seed

    from recbole_ser.config import SERConfig
    from recbole_ser.data.candidates import CandidateTable
    from recbole_ser.data.dataset import SERDataset
    from recbole_ser.data.loader import EvalLoader

    values = {"data_path": str(folder.parent), "num_threads": 1, "eval_args": {"mode": mode}, **LENGTHS}
    config = SERConfig(model, folder.name, None, {**values, **sizes})
    dataset = SERDataset(config)
    init_seed(0, True)
    network = config.model_class(config, dataset).eval()
    loader = EvalLoader(config, dataset, "test")
    rows = min(rows, loader.rows)
    loader.positions, loader.rows = loader.positions[:rows], rows
    if loader.candidates is not None:
        loader.candidates = CandidateTable(loader.candidates.items[:rows], loader.candidates.positive_column[:rows])
    return network, dataset, loader


@torch.no_grad()
def _rank_pairs(model: Any, loader: Any, score_pairs: Callable[[Interaction], Tensor]) -> float:
    """Score each (user, candidate) pair with its own copy of the histories, 4,000 pairs at a time.

    Returns:
        The largest difference from our scores among the first pairs of each batch.
    """
    worst = 0.0
    for batch, items, _ in loader:
        for row in range(0, len(items), 40):
            few, chosen = batch[row : row + 40], items[row : row + 40]
            copies = {key: value.repeat_interleave(items.shape[1], 0) for key, value in few.interaction.items()}
            scores = score_pairs(Interaction({**copies, model.ITEM_ID: chosen.flatten()})).view(chosen.shape)
            if row == 0:
                worst = max(worst, (scores - model.score(model.encode(few), chosen)).abs().max().item())
    return worst


def _plain_scorer(model: Any, dataset: Any) -> Callable[[Interaction], Tensor]:
    """Logits of the plain implementation with the weights of ``model``."""
    plain = plain_model(plain_sizes(dataset), 0.0).eval()
    copy_weights(model, plain)
    terms = dataset.query_terms.long()
    none = SimpleNamespace(items=None, queries=torch.zeros(0, dtype=torch.int64))

    def score_pairs(pairs: Interaction) -> Tensor:
        pairs = Interaction({**pairs.interaction, "neg_item_id": torch.zeros(len(pairs), 0, dtype=torch.int64)})
        return plain.score_pairs(plain_batch(pairs, none, terms)).logit()

    return score_pairs


def measure_recbole(name: str, folder: Path) -> dict[str, float]:
    """RecBole's own loader, ``Trainer`` and collector, on the first batches of its test split."""
    from recbole.config import Config
    from recbole.data import data_preparation
    from recbole.data.dataset import SequentialDataset
    from recbole.trainer import Trainer

    from recbole_ser.compat import tensorboard_in
    from recbole_ser.registry import find_model

    sys.argv = sys.argv[:1]
    values = {
        "data_path": str(folder.parent), "load_col": {"inter": ["user_id", "item_id", "timestamp"]}, "state": "ERROR",
        "loss_type": "BPR", "train_neg_sample_args": {"distribution": "uniform", "sample_num": 1}, "topk": [1, 5, 10],
        "metrics": ["Hit", "NDCG", "MRR"], "valid_metric": "NDCG@10", "checkpoint_dir": str(folder),
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "uni99"}, **LENGTHS, **SIZES,
    }  # fmt: skip
    config = Config(find_model("SASRec"), folder.name, config_dict=values)
    train, _, test = data_preparation(config, SequentialDataset(config))
    model = config.model_class(config, train.dataset).eval()
    with tensorboard_in(folder):
        trainer = Trainer(config, model)
    trainer.eval_collector.data_collect(train)
    trainer.tot_item_num = test.dataset.item_num
    users, start = 0, time.process_time()
    with torch.no_grad():
        for number, batch in enumerate(test):
            interaction, scores, positive_u, positive_i = trainer._neg_sample_batch_eval(batch)
            trainer.eval_collector.eval_batch_collect(scores, interaction, positive_u, positive_i)
            users += len(positive_u)
            if number == 19:
                break
    return {"users": users / (time.process_time() - start), "peak": peak_memory_mib(), "rows": users}


def _generated(data: Path, quick: bool) -> Path:
    from recbole_ser.data.planted import generate
    from recbole_ser.data.synthetic import PRESETS, write

    folder = data / ("kindle-tenth" if quick else "kindle")
    if not (folder / f"{folder.name}.inter").is_file():
        write(generate(PRESETS["kindle"].scaled(0.1) if quick else PRESETS["kindle"]), folder)
    return folder


def _print(results: dict[str, dict[str, float]]) -> None:
    rows = [[TITLES[name], f["users"], f["peak"], f["rows"]] for name, f in results.items()]
    print_table(["", "users per CPU s", "peak MiB", "users measured"], rows)
    users = {name: figures["users"] for name, figures in results.items()}
    worst = max(results[name]["difference"] for name in ("plain", "pairs"))
    print(f"\nSASRec: {users['sasrec'] / users['recbole']:.0f} times RecBole's uni99")
    print(
        f"SESRec: {users['sesrec'] / users['plain']:.1f} times the plain implementation pair by pair, "
        f"{users['sesrec'] / users['pairs']:.1f} times ours pair by pair; scores differ by at most {worst:.1g}"
    )


def _print_full(results: dict[str, dict[str, float]]) -> None:
    print(f"\nfull ranking, {results['SESRec']['items']:,.0f} items; users per CPU second")
    rows = []
    for name, found in results.items():
        if "candidates" in found:
            row = [found["candidates"], found["catalogue"], found["catalogue"] / found["candidates"]]
            rows.append([name, *row, found["peak"], f"{found['difference']:.1g}"])
        else:
            rows.append([name, found["catalogue"], "", "", found["peak"], ""])
    print_table(["", "score", "score_catalogue", "times", "peak MiB", "scores differ by"], rows)


if __name__ == "__main__":
    main()
