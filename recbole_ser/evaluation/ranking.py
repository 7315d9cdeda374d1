"""The rank of every target among its candidates, or in the whole catalogue."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from recbole.data.interaction import Interaction
from torch import Tensor
from tqdm import tqdm

from recbole_ser.errors import UserError
from recbole_ser.model.catalogue import catalogue_scores

SCORES_AT_ONCE = 1 << 26  # scores held in memory together: 256 MiB in single precision


class Scorer(Protocol):
    """What gives the scores: a model of this package, or ``model.foreign.candidate_scorer`` of another one.

    Three more attributes are used if a scorer has them: ``score_catalogue(state, items [n]) -> [B, n]``, which scores
    the same items for every row faster; ``catalogue_block``, how many rows and items it scores together, see
    ``model.catalogue``; and ``scores_per_row``, how many scores ``encode`` holds for each row.
    """

    def encode(self, interaction: Interaction) -> Any: ...

    def score(self, state: Any, items: Tensor) -> Tensor: ...


@torch.no_grad()
def rank_targets(
    scorer: Scorer, loader: Any, device: torch.device | str, model_name: str, show_progress: bool = False
) -> Tensor:
    """The rank, from 1, of the positive in every row of ``loader``: int64 ``[rows]`` on the CPU, in the loader's order.

    Each row's history is encoded once.  Of equal scores, the one in the earlier column of the candidates ranks higher,
    in the whole catalogue the one of the lower item id.  The padding item is never ranked; the items of a user's own
    history are ranked like any other.

    Raises:
        UserError: a score is NaN or infinite, a target is not in the catalogue, or there are no rows.
    """
    if not loader.rows:
        raise UserError("there is nothing to evaluate: no user has a target in this split")
    catalogue = None if loader.candidates is not None else _ranked_items(loader.catalogue.to(device))
    ranks, done = [], 0
    quiet = None if show_progress else True  # None: quiet unless on a terminal
    for batch in tqdm(loader, desc="Evaluate", leave=False, dynamic_ncols=True, disable=quiet):
        for interaction, items, positive in _blocks(scorer, catalogue, *_on_device(batch, device)):
            if catalogue is None:
                scores, column = scorer.score(scorer.encode(interaction), items), positive
            else:
                scores = catalogue_scores(scorer, interaction, catalogue)  # [b, n]
                column = _column_of(positive, catalogue, done)
            _refuse_non_finite(scores, loader, done, model_name)
            ranks.append(rank_of_column(scores, column).cpu())
            done += len(positive)
    return torch.cat(ranks)


def rank_of_column(scores: Tensor, column: Tensor) -> Tensor:
    """1 + the number of ``scores [B, C]`` that are above the one in ``column [B]``, or equal in an earlier column."""
    target = scores.gather(1, column.unsqueeze(1))  # [B, 1]
    earlier = torch.arange(scores.shape[1], device=scores.device) < column.unsqueeze(1)  # [B, C]
    return 1 + ((scores > target) | ((scores == target) & earlier)).sum(dim=1)


def _on_device(batch: tuple[Interaction, Tensor | None, Tensor], device: torch.device | str) -> tuple[Any, Any, Tensor]:
    interaction, items, positive = batch
    return interaction.to(device), None if items is None else items.to(device), positive.to(device)


def _blocks(
    scorer: Scorer, catalogue: Tensor | None, interaction: Interaction, items: Tensor | None, positive: Tensor
) -> Iterator[tuple[Interaction, Any, Tensor]]:
    """Split a batch into blocks of rows that need at most ``SCORES_AT_ONCE`` scores each."""
    per_row = len(catalogue) if catalogue is not None else getattr(scorer, "scores_per_row", 1)
    rows = max(1, SCORES_AT_ONCE // per_row)
    for start in range(0, len(positive), rows):
        block = slice(start, start + rows)
        yield interaction[block], None if items is None else items[block], positive[block]


def _ranked_items(catalogue: Tensor) -> Tensor:
    items = catalogue.unique()  # ascending, so that the earlier column of a tie is the lower item id
    return items[items != 0]


def _column_of(positive: Tensor, catalogue: Tensor, first_row: int) -> Tensor:
    column = torch.searchsorted(catalogue, positive).clamp(max=len(catalogue) - 1)
    missing = (catalogue[column] != positive).nonzero()
    if len(missing):
        row = int(missing[0])
        raise UserError(
            f"row {first_row + row}: the target (item id {int(positive[row])}) is not in the catalogue that is ranked"
        )
    return column


def _refuse_non_finite(scores: Tensor, loader: Any, first_row: int, model_name: str) -> None:
    finite = torch.isfinite(scores)
    if finite.all():
        return
    row, column = (~finite).nonzero()[0].tolist()
    user = loader.user_tokens()[first_row + row]
    raise UserError(
        f"{model_name} gives the score {scores[row, column].item()} in row {first_row + row} (user '{user}'): "
        "scores must be finite; if training diverged, lower learning_rate or set clip_grad_norm"
    )
