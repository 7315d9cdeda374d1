"""Running RecBole's own models on the histories and the candidates of this package.

Which of them are run is decided in ``recbole_models``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import AbstractRecommender, SequentialRecommender
from torch import Tensor

from recbole_ser.errors import UserError
from recbole_ser.model.base import SearchRecommender
from recbole_ser.model.catalogue import PRODUCT

_RECBOLE = "recbole.model.sequential_recommender"
_GENERAL = "recbole.model.general_recommender"
_HISTORY = ("ITEM_SEQ", "ITEM_SEQ_LEN")

# Models whose score is forward(...) . item_embedding(item), with the fields that their forward takes, in order.  They
# are named by the path of their class, since importing RecBole's package of models takes seconds.
DOT_PRODUCT: dict[str, tuple[str, ...]] = {
    f"{_RECBOLE}.sasrec.SASRec": _HISTORY,
    f"{_RECBOLE}.gru4rec.GRU4Rec": _HISTORY,
    f"{_RECBOLE}.stamp.STAMP": _HISTORY,
    f"{_RECBOLE}.narm.NARM": _HISTORY,
    f"{_RECBOLE}.lightsans.LightSANs": _HISTORY,
    f"{_RECBOLE}.srgnn.SRGNN": _HISTORY,
    f"{_RECBOLE}.gcsan.GCSAN": _HISTORY,
    f"{_RECBOLE}.sine.SINE": _HISTORY,
    f"{_RECBOLE}.caser.Caser": ("USER_ID", "ITEM_SEQ"),
    f"{_RECBOLE}.nextitnet.NextItNet": ("ITEM_SEQ",),
    f"{_RECBOLE}.fossil.FOSSIL": (*_HISTORY, "USER_ID"),
    f"{_RECBOLE}.hrm.HRM": ("ITEM_SEQ", "USER_ID", "ITEM_SEQ_LEN"),
}

# Models whose predict gives a sigmoid, which rounds to 1 from a logit of 17 on; their forward gives the logits.
LOGITS: dict[str, tuple[str, ...]] = {
    f"{_RECBOLE}.din.DIN": ("USER_ID", *_HISTORY, "ITEM_ID"),
    f"{_GENERAL}.neumf.NeuMF": ("USER_ID", "ITEM_ID"),
    f"{_GENERAL}.nncf.NNCF": ("USER_ID", "ITEM_ID"),
}

# Models with a loss that is a mean over the rows of a batch, apart from terms of the parameters alone.
_MEANS_OVER_ROWS = {*DOT_PRODUCT, f"{_RECBOLE}.core.CORE", f"{_GENERAL}.bpr.BPR"} - {f"{_RECBOLE}.fossil.FOSSIL"}

# What changes in training and is neither a parameter, a buffer, a number, nor named in ``other_parameter_name``.
_CHANGED_IN_TRAINING: dict[str, tuple[str, ...]] = {
    f"{_GENERAL}.line.LINE": ("random_list",),
    f"{_GENERAL}.diffrec.DiffRec": ("Lt_history", "Lt_count"),
}

PAIRS_AT_ONCE = 4096  # (row, item) pairs per call of ``predict``


def candidate_scorer(model: AbstractRecommender) -> Any:
    """A scorer (``evaluation.ranking.Scorer``) for any model, which scores as the model itself does.

    Models of this package are their own scorers.  Of RecBole's models, those listed in ``DOT_PRODUCT`` encode a history
    once and multiply; others with ``full_sort_predict`` score the catalogue once per row; the rest (DIN, NeuMF, ...)
    score pairs.  If RecBole's ``predict`` and ``full_sort_predict`` disagree (CORE normalises items in the second
    only), the second counts.
    """
    if isinstance(model, SearchRecommender):
        return model
    path = _path(type(model))
    if path in DOT_PRODUCT:
        return _DotProduct(model, DOT_PRODUCT[path])
    if type(model).full_sort_predict is not AbstractRecommender.full_sort_predict:
        return _FullSort(model)
    return _Pairs(model, LOGITS.get(path))


def with_history(model: AbstractRecommender, interaction: Interaction) -> Interaction:
    """``interaction`` in a form that ``model`` can read, in training and evaluation.

    RecBole's sequential models gather their state at position ``item_length`` - 1, so an empty history becomes one
    padding item; our own models take it as it is.  A model with a field ``INVERSE_ITEM_SEQ`` (SHAN) gets the history
    there once more, with the padding in front.
    """
    if isinstance(model, SearchRecommender) or not isinstance(model, SequentialRecommender):
        return interaction
    length = interaction[model.ITEM_SEQ_LEN].clamp(min=1)
    fields = {**interaction.interaction, model.ITEM_SEQ_LEN: length}
    if hasattr(model, "INVERSE_ITEM_SEQ"):
        fields[model.INVERSE_ITEM_SEQ] = _padded_in_front(interaction[model.ITEM_SEQ], length)
    return Interaction(fields)


def training_state(model: AbstractRecommender) -> dict[str, Any]:
    """What a model of RecBole's changes in training and does not name: with it, a run is resumed where it was left.

    These are its numbers, of which some are counters (MultiVAE anneals by one), and for some models tensors and lists.
    """
    if isinstance(model, SearchRecommender):
        return {}
    numbers = {name: value for name, value in vars(model).items() if type(value) in (int, float)}
    names = [name for base in type(model).__mro__ for name in _CHANGED_IN_TRAINING.get(_path(base), ())]
    return {**numbers, **{name: getattr(model, name) for name in names}}


def means_over_rows(model: type[AbstractRecommender]) -> bool:
    """Whether the loss of one of RecBole's models is known to be a mean over the rows of a batch."""
    return _path(model) in _MEANS_OVER_ROWS


@contextmanager
def failing_in_a_line(model: type[AbstractRecommender]) -> Iterator[None]:
    """Inside this block an error in the code of one of RecBole's models is one line, which names the model.

    Raises:
        UserError: instead of whatever error RecBole's code meets, for example with sizes that do not fit together.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not model.__module__.startswith("recbole.model."):
            raise
        lines = str(error).strip().splitlines() or ["no details"]
        raise UserError(
            f"RecBole's {model.__name__} fails with these settings and data: {type(error).__name__}: {lines[0]}"
        ) from error


def _path(model: type) -> str:
    return f"{model.__module__}.{model.__qualname__}"


def _padded_in_front(items: Tensor, length: Tensor) -> Tensor:
    """``[B, L]``: the first ``length [B]`` of ``items [B, L]`` at the end of each row, and zeros before them."""
    place = torch.arange(items.shape[1], device=items.device) - (items.shape[1] - length).unsqueeze(1)  # [B, L]
    return items.gather(1, place.clamp(min=0)).masked_fill(place < 0, 0)


def _forward(model: Any, interaction: Interaction, fields: tuple[str, ...]) -> Tensor:
    return model(*(interaction[getattr(model, field)] for field in fields))


class _DotProduct:
    catalogue_block = PRODUCT

    def __init__(self, model: Any, fields: tuple[str, ...]) -> None:
        self.model, self.fields = model, fields

    def encode(self, interaction: Interaction) -> Tensor:
        return _forward(self.model, with_history(self.model, interaction), self.fields)  # [B, d]

    def score(self, state: Tensor, items: Tensor) -> Tensor:
        return torch.bmm(self.model.item_embedding(items), state.unsqueeze(2)).squeeze(2)  # [B, C]

    def score_catalogue(self, state: Tensor, items: Tensor) -> Tensor:
        return state @ self.model.item_embedding(items).t()  # [B, n]


class _FullSort:
    catalogue_block = PRODUCT

    def __init__(self, model: Any) -> None:
        self.model = model
        self.scores_per_row = model.n_items

    def encode(self, interaction: Interaction) -> Tensor:
        scores = self.model.full_sort_predict(with_history(self.model, interaction))
        device = next(iter(interaction.interaction.values())).device  # EASE always scores on the CPU
        return scores.to(device).reshape(len(interaction), -1)  # [B, n_items]

    def score(self, state: Tensor, items: Tensor) -> Tensor:
        return state.gather(1, items)

    def score_catalogue(self, state: Tensor, items: Tensor) -> Tensor:
        return state[:, items]


class _Pairs:
    def __init__(self, model: Any, logit_fields: tuple[str, ...] | None) -> None:
        self.model, self.logit_fields = model, logit_fields

    def encode(self, interaction: Interaction) -> Interaction:
        return with_history(self.model, interaction)

    def score(self, state: Interaction, items: Tensor) -> Tensor:
        rows = torch.arange(len(items), device=items.device).repeat_interleave(items.shape[1])  # [B C]
        pairs = zip(rows.split(PAIRS_AT_ONCE), items.flatten().split(PAIRS_AT_ONCE))
        return torch.cat([self._score_pairs(state, row, item) for row, item in pairs]).view(items.shape)

    def _score_pairs(self, state: Interaction, rows: Tensor, items: Tensor) -> Tensor:
        columns = {name: column[rows] for name, column in state.interaction.items()}
        pairs = Interaction({**columns, self.model.ITEM_ID: items})
        scores = _forward(self.model, pairs, self.logit_fields) if self.logit_fields else self.model.predict(pairs)
        return scores.view(-1)
