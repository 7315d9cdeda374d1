"""What else the lists of a model are like than accurate: how many items they show, and how popular these are."""

from __future__ import annotations

import numpy as np
import torch
from recbole.data.interaction import Interaction

from recbole_ser.data.dataset import SERDataset
from recbole_ser.data.loader import instances
from recbole_ser.errors import UserError
from recbole_ser.inference.scores import rows_at_once, top_k
from recbole_ser.model.catalogue import catalogue_scores
from recbole_ser.model.foreign import candidate_scorer
from recbole_ser.runs.folder import RunFolder
from recbole_ser.runs.loading import load_run

_HEAD, _TAIL = 0.2, 0.8  # shares of the interactions, from the most popular item on


@torch.no_grad()
def top_lists(folder: RunFolder, k: int, model: str | None) -> tuple[np.ndarray, np.ndarray]:
    """The lists of the k best items of the whole catalogue for each test target of a run, whatever its protocol.

    As in the evaluation, the items of a user's own history are ranked like any other.

    Args:
        model: the run's model, if no installed package registers it, see ``load_run``.

    Returns:
        The lists ``[n, k]`` and the number of training interactions ``[items]`` of every item of the catalogue; items
        are numbered from 0.

    Raises:
        UserError: see ``load_run``; the catalogue has fewer than k items, or a score is not finite.
    """
    config, dataset, network = load_run(folder, SERDataset, model)
    items = torch.arange(1, dataset.target_num, device=config["device"])
    if k > len(items):
        raise UserError(f"--beyond {k}: the catalogue has only {len(items)} items")
    scorer, reader, lists = candidate_scorer(network), dataset.history_reader(), []
    for positions in dataset.split.test.split(rows_at_once(scorer, len(items), config["eval_batch_size"])):
        batch = Interaction(instances(dataset, positions, reader)).to(config["device"])
        scores = catalogue_scores(scorer, batch, items)  # [b, items]
        if not torch.isfinite(scores).all():
            raise UserError(f"{folder.path}: {folder.model_name()} gives scores that are not finite: train it anew")
        lists.append(top_k(scores, k)[1].cpu())
    trained = dataset.log.items[dataset.split.training_interactions]
    counts = torch.bincount(trained, minlength=dataset.target_num)[1 : dataset.target_num]
    return torch.cat(lists).numpy(), counts.numpy()


def beyond_accuracy(lists: np.ndarray, counts: np.ndarray) -> dict[str, float]:
    """Metrics of the lists; a popular item has many training interactions.

    - ``coverage``: the share of the catalogue that is in some list.
    - ``gini``: the Gini index of how often each item is in a list, 0 if all are equally often.
    - ``novelty``: the mean self-information of the items (Zhou et al., PNAS 2010), -log2 of an item's share of all
      training interactions; an item without any counts as if it had one.
    - ``popularity``: the mean number of training interactions of the items.
    - ``head``, ``middle``, ``tail``: the shares of the most popular items that together have a fifth of the training
      interactions, of the least popular that together have a fifth, and of the rest (Abdollahpouri et al., UMAP 2021).

    Args:
        lists: ``[n, k]``, the items of each list, numbered from 0.
        counts: ``[items]``, the number of training interactions of every item of the catalogue.
    """
    shown = np.bincount(lists.ravel(), minlength=len(counts))  # how often each item is in a list
    ranks = np.arange(1, len(counts) + 1)
    gini = (2 * ranks - len(counts) - 1) @ np.sort(shown) / (len(counts) * shown.sum())
    share = np.maximum(counts, 1) / counts.sum()
    part = _parts(counts)[lists]
    return {
        "coverage": float((shown > 0).mean()),
        "gini": float(gini),
        "novelty": float(-np.log2(share)[lists].mean()),
        "popularity": float(counts[lists].mean()),
        "head": float((part == 0).mean()),
        "middle": float((part == 1).mean()),
        "tail": float((part == 2).mean()),
    }


def _parts(counts: np.ndarray) -> np.ndarray:
    """The part of each item ``[items]``: 0 for the head, 1 for the middle, 2 for the tail."""
    order = np.argsort(-counts, kind="stable")
    before = (np.cumsum(counts[order]) - counts[order]) / counts.sum()  # share of the more popular items
    parts = np.empty(len(counts), dtype=np.int64)
    parts[order] = (before >= _HEAD).astype(np.int64) + (before >= _TAIL)
    return parts
