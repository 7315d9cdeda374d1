"""How alike the similar, and the dissimilar, interests of both histories are (SESRec, Figure 3).

For each test target the model divides the events of both histories into similar ones, P, and dissimilar ones, N
(Eq. 11-12).  The figure compares the categories of the items in P of the recommendation history with those of the items
clicked in P of the search history, by the Jensen-Shannon divergence of the two distributions, and likewise for N.

The paper gives neither the base of the logarithm nor what becomes of empty sets.  Here the base is 2, so that a
divergence is between 0 (equal) and 1 (no category in common), and a target counts only if all four sets have a
category.  An item with several categories gives each an equal share of its weight.

Shapes: n targets, I items, K categories.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from recbole.data.interaction import Interaction
from scipy.sparse import csr_matrix, vstack
from torch import Tensor

from recbole_ser.atomic.ragged import Ragged
from recbole_ser.data.dataset import SERDataset
from recbole_ser.data.item_categories import category_column, item_categories
from recbole_ser.data.loader import instances
from recbole_ser.errors import ConfigError, UserError
from recbole_ser.figures.paper import PaperFigure, of_model
from recbole_ser.plotting import COLOURS, legend_above
from recbole_ser.runs.loading import finished_run, load_run

_BINS = np.linspace(0.0, 1.0, 21)
_NEED = "tell similar from dissimilar interests"
_KINDS = ("similar", "dissimilar")
SETS = tuple(f"{kind}_{side}" for kind in _KINDS for side in ("rec", "search"))


def interests_figure(
    run: str | Path, category: str | None = None, level: int | None = None, model: str | None = None
) -> PaperFigure:
    """The figure of the finished run in the folder ``run``.

    Args:
        category: the column of ``X.item`` with the categories; ``None``: the first with "categor" in its name.
        level: the place, from 1, of the one category that counts where an item has a list of them, from the general to
            the special; an item with a shorter list has its last one.  ``None``: all count.
        model: the run's model, if no installed package registers it, see ``load_run``.

    Raises:
        UserError: see ``load_run``; the model does not divide interests; there are no categories; or no target has a
            category in all four sets.
    """
    folder = finished_run(run)
    config, dataset, network = load_run(folder, SERDataset, model)
    divide = of_model(network, folder, "similar_positions", _NEED)
    column = category or category_column(dataset)
    if column is None:
        raise ConfigError(f"{dataset.dataset_name}.item has no column of categories: name one by --category")
    categories, names = item_categories(dataset, column)
    if level is not None:
        categories = at_level(categories, level)
    shares = category_shares(categories, len(names))
    every = target_divergences(dataset, divide, shares, config["eval_batch_size"], config["device"])
    numbers = every.dropna(ignore_index=True)
    if numbers.empty:
        have = ", ".join(f"{name.replace('_', ' ')}: {(every[name] > 0).sum():,}" for name in SETS)
        raise UserError(
            f"{folder.path}: no test target has items with categories in all four sets (of {len(every):,} targets have "
            f"some {have}): there is nothing to compare"
        )
    which = "all values" if level is None else f"value {level}"
    caption = (
        f"Jensen-Shannon divergence (base 2) between the category distributions of the items in both histories, for "
        f"similar and for dissimilar interests as {folder.model_name()} separates them on {dataset.dataset_name}; "
        f"categories: {which} of the column '{column}' of {dataset.dataset_name}.item. {len(numbers):,} test targets; "
        f"{len(every) - len(numbers):,} are left out because a set is empty or has no category. Lines are "
        "the means (dashed: similar, dotted: dissimilar). Sets of few items differ more by chance alone, so mind the "
        "mean numbers of items in the table."
    )
    return PaperFigure(
        "interests", caption, _table(numbers), numbers, (3.4, 2.5), lambda figure: _draw(figure, numbers)
    )


def at_level(categories: Ragged, level: int) -> Ragged:
    """The category at place ``level`` (from 1) of each list, the last of a shorter one.

    Raises:
        ConfigError: no list is that long.
    """
    lengths = np.diff(categories.starts)
    if not 1 <= level <= lengths.max(initial=0):
        raise ConfigError(f"--level {level}: items have from 1 to {lengths.max(initial=0)} categories")
    some = lengths > 0
    places = categories.starts[:-1][some] + np.minimum(level, lengths[some]) - 1
    return Ragged(categories.values[places], np.concatenate([[0], np.cumsum(some)]))


def category_shares(categories: Ragged, count: int) -> csr_matrix:
    """``[I, K]``: the weight of an item in each of its categories; together 1, or 0 without any."""
    lengths = np.diff(categories.starts)
    weights = np.repeat(1.0 / np.maximum(lengths, 1), lengths)
    return csr_matrix((weights, categories.values, categories.starts), shape=(len(lengths), count))


@torch.no_grad()
def target_divergences(
    dataset: SERDataset, divide: Any, shares: csr_matrix, batch_size: int, device: Any
) -> pd.DataFrame:
    """A row for each test target, in their order.

    The columns are ``user_id``, the divergences ``similar`` and ``dissimilar`` (NaN without categories in both sets),
    and how many items with categories are in each of `SETS`.

    Args:
        divide: gives the similar positions of both histories of a batch, see ``SearchRecommender.similar_positions``.
        shares: ``[I, K]``, see `category_shares`.
    """
    sets: dict[str, list[csr_matrix]] = {name: [] for name in SETS}
    reader, positions = dataset.history_reader(), dataset.split.test
    for rows in positions.split(batch_size):
        batch = Interaction(instances(dataset, rows, reader)).to(device)
        similar = divide(batch)
        if similar is None:
            raise UserError(f"the model of this run does not {_NEED}: choose a run of another, or other settings")
        for name, items in _sets(batch, reader.item_list, *similar):
            sets[name].append(_items_of_rows(items, dataset.item_num) @ shares)
    frame = {"user_id": dataset.id2token(dataset.uid_field, dataset.log.users[positions.long()].numpy())}
    sums = {name: vstack(parts, format="csr") for name, parts in sets.items()}
    counts = {name: np.asarray(total.sum(axis=1)).ravel() for name, total in sums.items()}
    for kind in _KINDS:
        pair = [_divided(sums[f"{kind}_{side}"], counts[f"{kind}_{side}"]) for side in ("rec", "search")]
        both = (counts[f"{kind}_rec"] > 0) & (counts[f"{kind}_search"] > 0)
        frame[kind] = np.where(both, divergence(*pair), np.nan)
    whole = {name: np.rint(count).astype(np.int64) for name, count in counts.items()}
    return pd.DataFrame({**frame, **whole})


def _sets(batch: Interaction, item_list: str, rec: Tensor, search: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The items of each set, ``[B, ...]`` with 0 where there is none."""
    items, clicks = batch[item_list], batch["search_click_list"]  # [B, R], [B, S, C]
    for kind, chosen_rec, chosen_search in zip(_KINDS, (rec, ~rec), (search, ~search)):
        yield f"{kind}_rec", items * chosen_rec
        yield f"{kind}_search", (clicks * chosen_search.unsqueeze(2)).flatten(1)


def _items_of_rows(items: Tensor, count: int) -> csr_matrix:
    """``[B, I]``: how often each item is in each row of ``items [B, ...]``, where 0 is padding."""
    rows, columns = items.nonzero(as_tuple=True)
    ids = items[rows, columns].cpu().numpy()
    return csr_matrix((np.ones(len(ids)), (rows.cpu().numpy(), ids)), shape=(len(items), count))


def _divided(sums: csr_matrix, totals: np.ndarray) -> csr_matrix:
    """Each row of ``sums [n, K]`` divided by its total, so that it is a distribution; rows of zeros stay."""
    divided = sums.copy()
    divided.data /= np.repeat(totals, np.diff(sums.indptr))
    return divided


def divergence(first: csr_matrix, second: csr_matrix) -> np.ndarray:
    """The Jensen-Shannon divergence, base 2, of the distributions in the rows of ``first`` and ``second``: ``[n]``.

    It is the entropy of the mean of two distributions minus the mean of their entropies.
    """
    found = _entropy((first + second) / 2) - (_entropy(first) + _entropy(second)) / 2
    return np.clip(found, 0.0, 1.0)  # against rounding


def _entropy(shares: csr_matrix) -> np.ndarray:
    terms = shares.copy()
    terms.data = -terms.data * np.log2(terms.data)
    return np.asarray(terms.sum(axis=1)).ravel()


def _table(numbers: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for kind in _KINDS:
        low, median, high = numbers[kind].quantile([0.25, 0.5, 0.75])
        items = {f"items, {side}": numbers[f"{kind}_{side}"].mean() for side in ("rec", "search")}
        quarters = {"first quartile": low, "median": median, "third quartile": high}
        rows.append({"interests": kind, "mean": numbers[kind].mean(), **quarters, **items})
    return pd.DataFrame(rows)


def _draw(figure: Any, numbers: pd.DataFrame) -> None:
    """Both histograms over each other: one filled, the other hatched, so that they differ in grey, too."""
    axes = figure.add_subplot()
    similar, dissimilar = (numbers[kind] for kind in _KINDS)
    axes.hist(similar, _BINS, histtype="stepfilled", color=COLOURS[4], alpha=0.9, label="similar interests")
    axes.hist(
        dissimilar, _BINS, histtype="step", color=COLOURS[5], hatch="/////", linewidth=1.2, label="dissimilar interests"
    )
    for values, colour, style in ((similar, COLOURS[0], "--"), (dissimilar, COLOURS[5], ":")):
        axes.axvline(values.mean(), color=colour, linewidth=1.4, linestyle=style)
    counted = "users" if numbers["user_id"].is_unique else "test targets"
    axes.set(xlabel="Jensen-Shannon divergence of categories", ylabel=f"number of {counted}", xlim=(0, 1))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    legend_above(figure, columns=2)
