"""The base classes of this package's models, which encode the user side once per row and then score candidates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Literal

import torch
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType
from torch import Tensor

from recbole_ser.errors import ConfigError
from recbole_ser.model.catalogue import PAIRWISE, PRODUCT, catalogue_scores, score_catalogue
from recbole_ser.model.embeddings import EntityEmbedding, Mentions, PassCache
from recbole_ser.model.losses import (
    Temperature,
    inner_product_softmax,
    positive_first_loss,
    sampled_loss,
    softmax_loss,
)
from recbole_ser.settings.declaration import setting
from recbole_ser.settings.model import ModelSettings
from recbole_ser.settings.types import LossType, Weight

PAIRS_AT_ONCE = 1 << 14  # (row, item) pairs of a softmax over all items that are scored together


class SearchRecommender(PassCache, SequentialRecommender):
    """Base class of the search-aware models.

    A model implements ``encode`` and ``score``, and ``auxiliary_losses`` if it has any.  From these come
    RecBole's ``calculate_loss``, ``predict`` and ``full_sort_predict``.  A model that scores items faster if they are
    the same for every row also has ``score_catalogue(state, items [n]) -> [B, n]``.  Tables that depend on the
    parameters alone (a propagated graph, projected items) can be kept with ``cached`` during evaluation.

    The interaction holds these fields, right-padded with 0 and oldest first (L: ``MAX_ITEM_LIST_LENGTH``, S:
    ``max_search_length``, C: ``max_clicks_per_search``, N: ``train_neg_sample_args.sample_num``):
    ``user_id [B]``, ``item_id [B]``, ``item_id_list [B, L]``, ``item_length [B]``, ``search_query_list [B, S]``,
    ``search_click_list [B, S, C]``, ``search_source_list [B, S]``, ``search_length [B]``, and in training
    ``neg_item_id [B, N]``.  ``search_place_list [B, S]`` orders the two histories: it is the number of items of
    ``item_id_list`` that come before the search.  With ``session_gap`` there are ``item_session_list [B, L]`` and
    ``search_session_list [B, S]``: how many sessions before the target's session each event was.
    """

    class Settings(ModelSettings):
        """The model's own settings; a model with settings derives its ``Settings`` from this class."""

        loss_type: LossType = setting(
            "how the next item is learnt: BCE or BPR against the row's negatives, or CE, the softmax over all items",
            default="BCE",
        )

    n_items: int  # padding id included
    device: torch.device
    trains_on: Literal["targets", "interactions", "users"] = "targets"  # what a row of training is, see TrainLoader
    input_type = InputType.LISTWISE  # one positive beside a list of negatives
    catalogue_block: tuple[int, int] = PAIRWISE  # rows and items that are scored together in full ranking
    reads_codes = False  # whether the model reads ``dataset.user_codes``, see ``data/codes.py``
    reads_texts = False  # whether it reads ``dataset.item_texts`` or ``user_texts``, see ``data/text_vectors.py``
    decays_biases = True  # whether weight decay changes biases, too
    search_task = False  # whether training batches bring search instances, see JointRecommender
    pretrain_epochs = 0  # number of first epochs that early stopping does not count

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.loss_type: LossType = SearchRecommender.Settings.of(config).loss_type
        self.target_num: int = dataset.target_num  # items from this id on were only ever clicked

    def encode(self, interaction: Any) -> Any:
        """Encode the user side once per row of ``interaction``; the result is passed to ``score`` as it is."""
        raise NotImplementedError

    def score(self, state: Any, items: Tensor) -> Tensor:
        """Logits ``[B, C]`` of the candidates ``items [B, C]`` of each row."""
        raise NotImplementedError

    def auxiliary_losses(self, interaction: Any, state: Any) -> dict[str, Tensor]:
        """Named scalar losses that are added to the main one, each multiplied by what ``loss_weights`` says."""
        return {}

    def loss_weights(self) -> dict[str, float]:
        """What losses are multiplied by, by name; a loss that is not named here counts as it is."""
        return {}

    def weight_of_loss(self, name: str) -> float:
        """What the loss ``name`` is multiplied by in the sum that is minimised."""
        return self.loss_weights().get(name, 1.0)

    def weighted(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        """``losses``, multiplied by ``loss_weights``."""
        weights = self.loss_weights()
        return {name: weights[name] * loss if name in weights else loss for name, loss in losses.items()}

    def similar_positions(self, interaction: Any) -> tuple[Tensor, Tensor] | None:
        """Which interactions, bool ``[B, R]``, and searches, ``[B, S]``, are similar to the user's other history.

        The other valid positions are dissimilar.  ``None``, as by default: the model does not tell them apart.
        """
        return None

    def remarks(self) -> list[str]:
        """What somebody who reads a result has to know about the weights that were tested, a line each.

        It is part of the result, and shown with it.
        """
        return []

    def undividable(self) -> str | None:
        """Why the rows of a batch cannot be divided among several workers; ``None``: they can.

        They can if every loss is a mean over rows, or passes what it compares or counts through ``gather_rows``, see
        ``workers.rows``.
        """
        return None

    def begin_epoch(self, epoch: int) -> None:
        """Called before each training epoch, counted from 0, also when a run is resumed."""

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that weight decay must not change: temperatures and, where so published, biases."""
        temperatures = {f"{name}.raw" for name, module in self.named_modules() if isinstance(module, Temperature)}
        biases = {name for name, _ in self.named_parameters() if name.endswith(".bias") and not self.decays_biases}
        return temperatures | biases

    def losses(self, interaction: Any) -> dict[str, Tensor]:
        """The main loss, ``rec``, and the auxiliary ones, weighted, by name; their sum is what is minimised."""
        with self.embedded_once(self.mentions(interaction), *self.draw_mentions(interaction)):
            return self.weighted(self.rec_losses(interaction))

    def rec_losses(self, interaction: Any) -> dict[str, Tensor]:
        """The losses of the recommendation task, not yet weighted."""
        state = self.encode(interaction)
        return {"rec": self.main_loss(interaction, state), **self.auxiliary_losses(interaction, state)}

    def main_loss(self, interaction: Any, state: Any) -> Tensor:
        """The loss of the next item, as ``loss_type`` says."""
        if self.loss_type == "CE":
            return self.softmax_loss(state, interaction[self.POS_ITEM_ID])
        return sampled_loss(self.loss_type, self.score(state, self.training_items(interaction)))

    def softmax_loss(self, state: Any, targets: Tensor) -> Tensor:
        """Mean cross entropy of ``targets [B]`` in the softmax over all items that can be targets."""
        as_now = self.contexts_of_step()

        def logits_of(items: Tensor) -> Tensor:
            with ExitStack() as stack:  # the backward pass, which computes them again, comes after ``embedded_once``
                for context in as_now:
                    stack.enter_context(context())
                return score_catalogue(self, state, items, len(targets))

        own = self.score(state, targets.unsqueeze(1)).squeeze(1)  # [B]
        return softmax_loss(own, self.possible_targets(targets), logits_of, PAIRS_AT_ONCE)

    def contexts_of_step(self) -> list[Callable[[], AbstractContextManager[None]]]:
        """What a training step keeps while it lasts, as contexts in which that is there again."""
        return [embedding.as_now() for embedding in self._embeddings().values()]

    def possible_targets(self, like: Tensor) -> Tensor:
        """The ids, on the device of ``like``, of all items that can be targets."""
        return torch.arange(1, self.target_num, device=like.device)

    def training_items(self, interaction: Any) -> Tensor:
        """``[B, 1 + N]``: the positive and its negatives."""
        return torch.cat([interaction[self.POS_ITEM_ID].unsqueeze(1), interaction[self.NEG_ITEM_ID]], dim=1)

    def mentions(self, interaction: Any) -> Mentions:
        """All item and query ids that a training step on ``interaction`` embeds; a model that embeds more adds them.

        A model that does not embed queries is taken to read no searches, and so no clicks of searches either.
        """
        items, queries = [str(self.ITEM_SEQ), str(self.POS_ITEM_ID), str(self.NEG_ITEM_ID)], []
        if "queries" in self._embeddings():
            items.append("search_click_list")
            queries = ["search_query_list", "query_id"]
        return Mentions(_flat(interaction, items), _flat(interaction, queries))

    def draw_mentions(self, interaction: Any) -> list[Mentions]:
        """Ids embedded in a training step besides its batch; called once per step, so negatives may be drawn here."""
        return []

    @contextmanager
    def embedded_once(self, *mentioned: Mentions) -> Iterator[None]:
        """Inside this block every item and query mentioned is embedded once, and embedding it again is a lookup.

        For the softmax over all items, all items that can be targets are mentioned.

        This applies to the attributes ``items`` and ``queries`` of the model, where they are an ``EntityEmbedding``.
        """
        if self.loss_type == "CE":
            items, queries = mentioned[0]
            mentioned = (*mentioned, Mentions(self.possible_targets(items), queries[:0]))
        with ExitStack() as stack:
            for name, embedding in self._embeddings().items():
                stack.enter_context(embedding.shared(*(getattr(ids, name) for ids in mentioned)))
            yield

    def _embeddings(self) -> dict[str, EntityEmbedding]:
        embeddings: dict[str, Any] = {name: getattr(self, name, None) for name in ("items", "queries")}
        return {name: module for name, module in embeddings.items() if isinstance(module, EntityEmbedding)}

    def query_item_vectors(self, queries: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """The vectors ``[n, d]`` of ``queries [n]`` and of ``items [n]``, which the model embeds in one space.

        Raises:
            ConfigError: the model does not embed both, or not in vectors of one width.
        """
        embeddings = self._embeddings()
        if len(embeddings) < 2 or embeddings["queries"].width != embeddings["items"].width:
            raise ConfigError(f"{type(self).__name__} does not embed queries and items in one space")
        return embeddings["queries"](queries), embeddings["items"](items)

    def calculate_loss(self, interaction: Any) -> Tensor:
        return torch.stack(list(self.losses(interaction).values())).sum()

    def predict(self, interaction: Any) -> Tensor:
        """Logits ``[B]`` of ``item_id``."""
        return self.score(self.encode(interaction), interaction[self.ITEM_ID].unsqueeze(1)).squeeze(1)

    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Logits ``[B, n_items]`` of the whole catalogue, the padding item included (RecBole masks it)."""
        return catalogue_scores(self, interaction, torch.arange(self.n_items, device=self.device))


class JointRecommender(SearchRecommender):
    """A model that learns search and recommendation together, with shared representations.

    Its training batches have an attribute ``search``: an interaction of search instances with the fields of
    ``SearchRecommender`` and ``query_id [B']``, where ``item_id`` is the clicked item, the histories are what came
    before the search, and ``neg_item_id`` are items the user neither interacted with nor clicked.  It is ``None`` if
    no search instances are left for the batch.  An epoch goes through all search instances once.

    The losses of the search task are named ``search``, ``search_...``, and multiplied by ``search_weight`` besides what
    ``loss_weights`` says.
    """

    class Settings(SearchRecommender.Settings):
        search_weight: Weight = setting("weight of the search task's losses; 0: recommendation alone")

    search_task = True

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.search_weight: float = config["search_weight"]

    def encode_search(self, interaction: Any) -> Any:
        """Encode the user side of search instances; by default as for recommendation."""
        return self.encode(interaction)

    def score_search(self, state: Any, queries: Tensor, items: Tensor) -> Tensor:
        """Logits ``[B, C]`` of the candidates ``items [B, C]`` under ``queries [B]``."""
        raise NotImplementedError

    def losses(self, interaction: Any) -> dict[str, Tensor]:
        search = getattr(interaction, "search", None)
        if search is None:
            return super().losses(interaction)
        mentioned = self.mentions(interaction), self.mentions(search), *self.draw_mentions(interaction)
        with self.embedded_once(*mentioned):
            losses = self.weighted(self.rec_losses(interaction))
            found = self.weighted(self.search_losses(search))
        return {**losses, **{name: self.search_weight * loss for name, loss in found.items()}}

    def weight_of_loss(self, name: str) -> float:
        of_search = name == "search" or name.startswith("search_")
        return super().weight_of_loss(name) * (self.search_weight if of_search else 1.0)

    def search_losses(self, interaction: Any) -> dict[str, Tensor]:
        """The losses of the search task, by name, not yet weighted; by default the cross entropy of ``main_loss``."""
        state = self.encode_search(interaction)
        logits = self.score_search(state, interaction["query_id"], self.training_items(interaction))
        return {"search": positive_first_loss(logits)}


class DotProductRecommender(SearchRecommender):
    """A model whose state is one vector per row; the logit of an item is its vector's inner product with the state."""

    items: EntityEmbedding
    catalogue_block = PRODUCT

    def item_vectors(self, items: Tensor) -> Tensor:
        """``[..., d]`` of ``items [...]``; by default those of the attribute ``items``."""
        return self.items(items)

    def score(self, state: Tensor, items: Tensor) -> Tensor:
        return (self.item_vectors(items) @ state.unsqueeze(2)).squeeze(2)  # [B, C]

    def score_catalogue(self, state: Tensor, items: Tensor) -> Tensor:
        return state @ self.item_vectors(items).t()  # [B, n]

    def softmax_loss(self, state: Tensor, targets: Tensor) -> Tensor:
        return inner_product_softmax(state, self.item_vectors(self.possible_targets(targets)), targets - 1)


def _flat(interaction: Any, fields: Iterable[Any]) -> Tensor:
    """``[any]``: all ids in those of ``fields`` that ``interaction`` has."""
    ids = [interaction[field].reshape(-1) for field in fields if field in interaction]
    return torch.cat(ids) if ids else torch.zeros(0, dtype=torch.int64)
