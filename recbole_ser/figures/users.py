"""Users' vectors on both sides, search and recommendation, in two dimensions (GSERec, Figure 6)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.manifold import TSNE

from recbole_ser.comparison.rows import model_of
from recbole_ser.data.dataset import SERDataset
from recbole_ser.errors import ConfigError, UserError
from recbole_ser.figures.paper import PaperFigure, comparable_runs, of_model, wrapped
from recbole_ser.plotting import COLOURS, legend_above
from recbole_ser.runs.loading import load_run

PERPLEXITY = 30
_LEAST = 50  # users, so that the neighbourhoods of t-SNE are parts of all vectors
_SIDES = ("search", "recommendation")


def users_figure(
    runs: Sequence[str | Path],
    labels: Sequence[str] = (),
    sample: int = 500,
    seed: int = 0,
    model: str | None = None,
) -> PaperFigure:
    """The figure of the finished runs in the folders ``runs``: a panel for each, with the same users.

    Args:
        labels: a name for each run; by default as comparisons name them.
        sample: number of users, drawn from all; all of them if there are fewer.
        seed: seed of the sample and of t-SNE.
        model: a model of some runs, if no installed package registers it, see ``load_run``.

    Raises:
        UserError: see ``load_run``; the runs are of different data; a model has no users' vectors of both sides; or
            there are too few users.
    """
    if sample < _LEAST:
        raise ConfigError(f"--sample {sample}: at least {_LEAST} users make a picture")
    places, rows = [], []
    for name, folder in comparable_runs(runs, labels):
        config, dataset, network = load_run(folder, SERDataset, model_of(folder, model))
        vectors_of = of_model(network, folder, "user_vectors", "give users a vector for search and recommendation each")
        users = sampled_users(dataset, sample, seed)
        with torch.no_grad():
            vectors = np.stack([side.cpu().numpy() for side in vectors_of(users.to(config["device"]))])  # [2, n, d]
        rows.append({"run": name, **_cosines(vectors)})
        tokens = dataset.id2token(dataset.uid_field, users.numpy())
        places += [
            pd.DataFrame({"run": name, "side": side, "user_id": tokens, "x": plane[:, 0], "y": plane[:, 1]})
            for side, plane in zip(_SIDES, in_the_plane(vectors, seed))
        ]
    numbers = pd.concat(places, ignore_index=True)
    caption = (
        f"t-SNE (perplexity {PERPLEXITY}, seed {seed}) of the vectors of {len(users):,} users, drawn at "
        f"random from the {dataset.user_num - 1:,} of {dataset.dataset_name}, on the sides of search and of "
        "recommendation. Each panel is a projection of its own: places in one say nothing about places in another. "
        "The table has mean cosines of the vectors themselves: of a user's two, and of different users' across sides."
    )
    size = (2.6 * len(rows), 3.1)
    return PaperFigure("users", caption, pd.DataFrame(rows), numbers, size, lambda figure: _draw(figure, numbers))


def sampled_users(dataset: SERDataset, sample: int, seed: int) -> torch.Tensor:
    """The ids of ``sample`` different users, or of all, rising: int64 ``[n]``."""
    everybody = dataset.user_num - 1
    if everybody < _LEAST:
        raise UserError(f"data set '{dataset.dataset_name}' has {everybody} users: at least {_LEAST} make a picture")
    chosen = np.random.default_rng(seed).choice(everybody, min(sample, everybody), replace=False)
    return torch.from_numpy(np.sort(chosen) + 1)


def in_the_plane(vectors: np.ndarray, seed: int) -> np.ndarray:
    """The vectors ``[2, n, d]`` of n users on both sides, projected together: ``[2, n, 2]``."""
    flat = vectors.reshape(-1, vectors.shape[2]).astype(np.float64)
    projection = TSNE(n_components=2, perplexity=PERPLEXITY, init="pca", learning_rate="auto", random_state=seed)
    return projection.fit_transform(flat).reshape(2, -1, 2)


def _cosines(vectors: np.ndarray) -> dict[str, float]:
    """The mean cosine of a user's two vectors, and of one user's with every other's of the other side."""
    search, rec = vectors / np.maximum(np.linalg.norm(vectors, axis=2, keepdims=True), 1e-12)
    cosines = search @ rec.T  # [n, n]
    count = len(cosines)
    own = np.trace(cosines) / count
    others = (cosines.sum() - np.trace(cosines)) / (count * (count - 1))
    return {"cosine, own": float(own), "cosine, others": float(others)}


def _draw(figure: Any, numbers: pd.DataFrame) -> None:
    """A panel for each run; circles and crosses differ in grey, too."""
    names = numbers["run"].unique()
    styles = ({"marker": "o", "facecolors": "none", "linewidths": 0.5}, {"marker": "x", "linewidths": 0.6})
    for name, axes in zip(names, np.atleast_1d(figure.subplots(1, len(names)))):
        for side, colour, style in zip(_SIDES, (COLOURS[0], COLOURS[5]), styles):
            points = numbers[(numbers["run"] == name) & (numbers["side"] == side)]
            edge = {"edgecolors": colour} if side == _SIDES[0] else {"color": colour}
            axes.scatter(points["x"], points["y"], s=7, label=f"users, {side}", **edge, **style)
        axes.set(xticks=[], yticks=[], xlabel=wrapped(name, 40))
        axes.set_box_aspect(1)
        axes.spines[:].set(visible=True, color="0.6")
    legend_above(figure, columns=2)
