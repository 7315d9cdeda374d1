"""How near queries are to the items clicked under them (SESRec, Figure 4)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from recbole_ser.comparison.rows import model_of
from recbole_ser.data.dataset import SERDataset
from recbole_ser.data.keys import distinct
from recbole_ser.errors import UserError
from recbole_ser.figures.paper import PaperFigure, comparable_runs, of_model, wrapped
from recbole_ser.plotting import COLOURS
from recbole_ser.runs.loading import load_run

_PAIRS_AT_ONCE = 1 << 16


def alignment_figure(runs: Sequence[str | Path], labels: Sequence[str] = (), model: str | None = None) -> PaperFigure:
    """The figure of the finished runs in the folders ``runs``: a box for each, with its mean as a square.

    Args:
        labels: a name for each run; by default as comparisons name them.
        model: a model of some runs, if no installed package registers it, see ``load_run``.

    Raises:
        UserError: see ``load_run``; the runs are of different data; a model does not embed queries and items in one
            space; or no search has a clicked item.
    """
    named = comparable_runs(runs, labels)
    boxes = []
    for name, folder in named:
        config, dataset, network = load_run(folder, SERDataset, model_of(folder, model))
        vectors = of_model(network, folder, "query_item_vectors", "embed queries and items in one space")
        queries, items = clicked_pairs(dataset)
        if not len(queries):
            raise UserError(f"{folder.path}: no search of data set '{dataset.dataset_name}' has a clicked item")
        boxes.append({"run": name, **_box(cosines(vectors, queries, items, config["device"]).numpy())})
    numbers = pd.DataFrame(boxes)
    caption = (
        f"Cosine of the vectors of a query and of an item clicked under it, on {dataset.dataset_name}. Every pair that "
        "is in the log counts once. Boxes are the quartiles, whiskers reach to the farthest value within 1.5 "
        "interquartile ranges of the box, squares are means; values beyond the whiskers are not drawn."
    )
    table = numbers[["run", "pairs", "mean", "q1", "median", "q3"]]
    return PaperFigure("alignment", caption, table, numbers, (3.4, 2.6), lambda figure: _draw(figure, numbers))


def clicked_pairs(dataset: SERDataset) -> tuple[Tensor, Tensor]:
    """The distinct pairs of a query and an item clicked under it, in the whole log: two int64 tensors ``[n]``.

    Clicks beyond ``max_clicks_per_search`` are not in the log.
    """
    log = dataset.log
    searches = log.searches_of_clicks(torch.arange(len(log.clicks)))
    pairs = distinct((log.queries[searches].long() * dataset.item_num + log.clicks.long()).numpy())
    return torch.from_numpy(pairs // dataset.item_num), torch.from_numpy(pairs % dataset.item_num)


@torch.no_grad()
def cosines(vectors: Any, queries: Tensor, items: Tensor, device: Any) -> Tensor:
    """``[n]``: the cosine of the vectors of ``queries [n]`` and ``items [n]``.

    Args:
        vectors: gives both, as ``SearchRecommender.query_item_vectors`` does.
    """
    found = []
    for some_queries, some_items in zip(queries.split(_PAIRS_AT_ONCE), items.split(_PAIRS_AT_ONCE)):
        first, second = vectors(some_queries.to(device), some_items.to(device))
        found.append(F.cosine_similarity(first, second, dim=1).cpu())
    return torch.cat(found)


def _box(values: np.ndarray) -> dict[str, float]:
    """What a box plot draws of ``values [n]``."""
    from matplotlib.cbook import boxplot_stats

    stats = boxplot_stats(values)[0]
    names = {"low": "whislo", "q1": "q1", "median": "med", "q3": "q3", "high": "whishi", "mean": "mean"}
    return {"pairs": len(values), **{name: float(stats[key]) for name, key in names.items()}}


def _draw(figure: Any, numbers: pd.DataFrame) -> None:
    axes = figure.add_subplot()
    keys = {"low": "whislo", "median": "med", "high": "whishi", "run": "label"}
    stats = numbers.rename(columns=keys).assign(label=[wrapped(name, 60 // len(numbers)) for name in numbers["run"]])
    axes.bxp(
        stats.to_dict("records"), widths=0.45, showfliers=False, showmeans=True, patch_artist=True,
        boxprops={"facecolor": COLOURS[4], "alpha": 0.6}, medianprops={"color": "black", "linewidth": 1.4},
        meanprops={"marker": "s", "markerfacecolor": "white", "markeredgecolor": "black", "markersize": 5},
    )  # fmt: skip
    axes.set_ylabel("cosine of query and clicked item")
    axes.grid(axis="y", color="0.9")
    axes.set_axisbelow(True)
