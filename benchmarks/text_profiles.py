"""What vectors of item texts are worth without any training: each user's candidates ranked by their texts alone.

    python benchmarks/text_profiles.py --dataset=toys --data_path=dataset_atomic tfidf_svd minilm
    python benchmarks/text_profiles.py --wordllama=FOLDER tfidf_svd      # where wordllama 0.4.0.post1 is unpacked

A user is the mean of the vectors of the latest 20 items of the training period, and a candidate is scored by its cosine
with this mean.  Prints the metrics of the test split and the CPU seconds of encoding the texts.  WordLlama's vectors,
means of static vectors of tokens, are read without its code.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from measure import machine, print_table

from recbole_ser.config import SERConfig
from recbole_ser.data.candidates import CandidateTable
from recbole_ser.data.dataset import SERDataset
from recbole_ser.evaluation.metrics import parse_metrics
from recbole_ser.evaluation.ranking import rank_of_column
from recbole_ser.runner import prepare
from recbole_ser.text.item_texts import item_texts, query_texts
from recbole_ser.text.means import mean_vectors
from recbole_ser.text.user_histories import training_events
from recbole_ser.text.vectors import create_encoder
from recbole_ser.text.vectors.distinct import unit_rows

METRICS = parse_metrics("hit@10,ndcg@10,mrr")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoders", nargs="+", help="names of the back-ends")
    parser.add_argument("--dataset", default="toys")
    parser.add_argument("--data_path", default="dataset_atomic")
    parser.add_argument("--wordllama", type=Path, help="compare with WordLlama's vectors from this folder")
    arguments = parser.parse_args()
    where = {"data_path": arguments.data_path, "show_progress": False}
    prepared = prepare(SERConfig("SASRec", arguments.dataset, None, where))
    dataset, candidates = prepared.dataset, prepared.candidates["test"]
    texts = item_texts(dataset, query_texts(dataset))[1:]
    print(machine())
    print(f"{len(texts):,} item texts, {len(candidates.items):,} test targets, {candidates.items.shape[1]} candidates")
    rows = []
    with tempfile.TemporaryDirectory() as cache:
        ways: dict[str, Callable[[], np.ndarray]] = {
            name: lambda name=name: create_encoder(name, cache).encode(texts) for name in arguments.encoders
        }
        if arguments.wordllama:
            ways["wordllama"] = lambda: wordllama(arguments.wordllama, texts)
        for name, encode in ways.items():
            start = time.process_time()
            vectors = encode()
            seconds = time.process_time() - start
            ranks = ranks_of(dataset, candidates, vectors)
            rows.append([name, vectors.shape[1], *(metric.values(ranks).mean() for metric in METRICS), seconds])
    print_table(["vectors", "width", *(metric.title for metric in METRICS), "CPU s"], rows)


def ranks_of(dataset: SERDataset, candidates: CandidateTable, items: np.ndarray) -> np.ndarray:
    """The rank of each test target among its candidates; ``items [item_num - 1, d]`` has rows of length 1."""
    users = mean_vectors(training_events(dataset), "rec", items, items[:0])  # [user_num - 1, d]
    targets = dataset.log.users[dataset.split.test].numpy() - 1
    parts = []
    for rows in np.array_split(np.arange(len(targets)), 32):  # a part's candidates fit into memory
        scores = np.einsum("bd,bcd->bc", users[targets[rows]], items[candidates.items[rows].numpy() - 1])
        parts.append(rank_of_column(torch.from_numpy(scores), candidates.positive_column[rows]))
    return torch.cat(parts).numpy()


def wordllama(folder: Path, texts: list[str]) -> np.ndarray:
    """The mean of the vectors of each text's tokens, scaled to length 1."""
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "wordllama/tokenizers/l2_supercat_tokenizer_config.json"))
    (table,) = load_file(folder / "wordllama/weights/l2_supercat_256.safetensors").values()
    tokens = tokenizer.encode_batch(texts, add_special_tokens=False)
    return unit_rows(np.stack([table[each.ids].astype(np.float32).mean(axis=0) for each in tokens]))


if __name__ == "__main__":
    main()
