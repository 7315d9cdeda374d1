"""Vectors of items, queries and users from their ids, attributes and words, computed once per batch.

Shapes: B rows, S searches, C clicks of a search, d width, U distinct ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_ser.model.layers import masked_mean
from recbole_ser.settings.model import ItemWidths, QueryWidths, UserWidths

Value = TypeVar("Value")


class PassCache(nn.Module):
    """Keeps results that depend on the parameters alone during an evaluation pass."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pass_cache: dict[str, tuple[int, Any]] = {}

    def cached(self, name: str, compute: Callable[[], Value]) -> Value:
        """``compute()``, kept until a parameter changes or ``train()`` or ``eval()`` is called.

        In training, and whenever gradients are recorded, it is computed each time.
        """
        if self.training or torch.is_grad_enabled():
            return compute()
        version = sum(parameter._version for parameter in self.parameters())
        if name not in self._pass_cache or self._pass_cache[name][0] != version:
            self._pass_cache[name] = (version, compute())
        return self._pass_cache[name][1]

    def train(self, mode: bool = True) -> Any:
        self._pass_cache.clear()
        return super().train(mode)


class Mentions(NamedTuple):
    """Ids that are about to be embedded; they may repeat and include padding."""

    items: Tensor  # [any]
    queries: Tensor  # [any]


class Attribute(NamedTuple):
    """One attribute of all entities; each entity has one value or several."""

    values: Tensor  # [count] or [count, W], right-padded with 0
    vocabulary: int  # number of different values, the padding value 0 included
    width: int  # of the embedding of a value


class NumericAttribute(NamedTuple):
    """One numeric attribute of all entities: a number or a vector for each."""

    values: Tensor  # [count, W], 0 for padding
    width: int  # of the projection


def item_embedding(settings: ItemWidths, dataset: Any, activation: nn.Module | None = None) -> FeatureEmbedding:
    """Item vectors of width ``hidden_size``, from id (``embedding_size``) and attributes (``item_attribute_size``)."""
    attributes = attributes_of(dataset, "item", settings.item_attribute_size)
    return FeatureEmbedding(dataset.item_num, settings.embedding_size, attributes, settings.hidden_size, activation)


def query_embedding(settings: QueryWidths, dataset: Any, activation: nn.Module | None = None) -> FeatureEmbedding:
    """Query vectors of width ``hidden_size``, from the id (``query_embedding_size``) and the mean of the words."""
    terms = [Attribute(dataset.query_terms, dataset.term_num, settings.term_embedding_size)]
    return FeatureEmbedding(dataset.query_num, settings.query_embedding_size, terms, settings.hidden_size, activation)


def user_embedding(settings: UserWidths, dataset: Any) -> FeatureEmbedding:
    """User vectors: the id (``user_embedding_size``) and attributes (``user_attribute_size`` each), not projected."""
    attributes = attributes_of(dataset, "user", settings.user_attribute_size)
    return FeatureEmbedding(dataset.user_num, settings.user_embedding_size, attributes)


def clicked_queries(items: FeatureEmbedding, queries: FeatureEmbedding, interaction: Any) -> Tensor:
    """``[B, S, d]``: each query of a search history plus the mean of its clicked items (zero without clicks)."""
    clicks = interaction["search_click_list"]  # [B, S, C]
    return queries(interaction["search_query_list"]) + masked_mean(items(clicks), clicks != 0)


def attributes_of(dataset: Any, side: Literal["item", "user"], width: int) -> list[Attribute | NumericAttribute]:
    """The attributes of the items or users of ``dataset``, those with tokens first, each for ``width`` dimensions."""
    tokens: dict[str, Tensor] = getattr(dataset, f"{side}_attributes")
    numbers: dict[str, Tensor] = getattr(dataset, f"{side}_numbers")
    return [
        *(Attribute(values, dataset.num(name), width) for name, values in tokens.items()),
        *(NumericAttribute(values, width) for values in numbers.values()),
    ]


class AttributeEmbedding(nn.Module):
    """The mean of the embeddings of an entity's values of one attribute; zeros for an entity without values."""

    values: Tensor  # [count, W]

    def __init__(self, attribute: Attribute) -> None:
        super().__init__()
        self.table = nn.Embedding(attribute.vocabulary, attribute.width, padding_idx=0)
        values = attribute.values.reshape(len(attribute.values), -1)
        self.register_buffer("values", values, persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """``[U, width]`` for the entities ``ids [U]``."""
        values = self.values[ids].long()  # [U, W]
        return masked_mean(lookup(self.table.weight, values), values != 0)


class NumericEmbedding(nn.Module):
    """A linear projection of an entity's numbers, without bias: what is 0, padding and the mean, stays 0."""

    values: Tensor  # [count, W]

    def __init__(self, attribute: NumericAttribute) -> None:
        super().__init__()
        self.projection = nn.Linear(attribute.values.shape[1], attribute.width, bias=False)
        self.register_buffer("values", attribute.values, persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """``[U, width]`` for the entities ``ids [U]``."""
        return self.projection(self.values[ids])


class EntityEmbedding(PassCache):
    """Vectors of entities by id; a class derived from this one says how they are made, in ``_embed``.

    Args:
        count: number of ids, the padding id 0 included.
        width: width of the vectors.
    """

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.count, self.width = count, width
        self._shared: tuple[Tensor, Tensor] | None = None

    def _embed(self, ids: Tensor) -> Tensor:
        """``[U, width]`` for the entities ``ids [U]``."""
        raise NotImplementedError

    def forward(self, ids: Tensor) -> Tensor:
        """Vectors ``[..., width]`` of ``ids [...]``."""
        if self._shared is not None:
            vectors, places = self._shared
            return lookup(vectors, places[ids])
        if self.training or torch.is_grad_enabled():
            return self._embed(ids.reshape(-1)).view(*ids.shape, self.width)
        everything = torch.arange(self.count, device=ids.device)
        return lookup(self.cached("table", lambda: self._embed(everything)), ids)

    @contextmanager
    def shared(self, *ids: Tensor) -> Iterator[None]:
        """Inside this block each distinct id in ``ids`` is embedded once, and calls gather from the result.

        A single lookup has a single dense gradient of the table, instead of one for every call.
        """
        values, places = distinct(torch.cat([some.reshape(-1) for some in ids]), self.count)
        self._shared = self._embed(values), places
        try:
            yield
        finally:
            self._shared = None

    def as_now(self) -> Callable[[], AbstractContextManager[None]]:
        """A context in which the vectors are shared as they are now, for computing something again later."""
        shared = self._shared

        @contextmanager
        def again() -> Iterator[None]:
            before, self._shared = self._shared, shared
            try:
                yield
            finally:
                self._shared = before

        return again


class FeatureEmbedding(EntityEmbedding):
    """An entity's vector: its id and attribute embeddings, concatenated, and projected if ``width`` is given.

    Id 0 is padding, whose id embedding is zero.

    Args:
        count: number of ids, the padding id included.
        id_width: width of the id embedding.
        attributes: the attributes of the entities.
        width: width of the projection (with bias); ``None``: the concatenation is not projected.
        activation: activation after the projection; ``None``: there is none.
    """

    def __init__(
        self,
        count: int,
        id_width: int,
        attributes: Sequence[Attribute | NumericAttribute],
        width: int | None = None,
        activation: nn.Module | None = None,
    ) -> None:
        concatenated = id_width + sum(attribute.width for attribute in attributes)
        super().__init__(count, width or concatenated)
        self.ids = nn.Embedding(count, id_width, padding_idx=0)
        self.attributes = nn.ModuleList(
            AttributeEmbedding(each) if isinstance(each, Attribute) else NumericEmbedding(each) for each in attributes
        )
        self.projection = nn.Identity() if width is None else nn.Linear(concatenated, width)
        self.activation = activation or nn.Identity()

    def _embed(self, ids: Tensor) -> Tensor:
        own = lookup(self.ids.weight, ids) * (ids != 0).unsqueeze(1)  # [U, id_width]
        parts = [own, *(attribute(ids) for attribute in self.attributes)]
        return self.activation(self.projection(torch.cat(parts, dim=1)))  # [U, width]


def lookup(table: Tensor, ids: Tensor) -> Tensor:
    """``table[ids]``: ``[..., d]`` from ``table [n, d]`` and ``ids [...]``.

    On the CPU ``index_select`` has a much cheaper backward pass than ``F.embedding``; on a GPU it is not deterministic.
    """
    if table.device.type != "cpu":
        return F.embedding(ids, table)
    return table.index_select(0, ids.reshape(-1)).view(*ids.shape, table.shape[1])


def distinct(ids: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The distinct values ``[U]`` of ``ids``, ascending, and for each of ``count`` ids its place among them, or -1."""
    present = torch.zeros(count, dtype=torch.bool, device=ids.device)
    present[ids] = True
    values = present.nonzero().squeeze(1)  # [U]
    places = torch.full((count,), -1, device=ids.device)
    places[values] = torch.arange(len(values), device=ids.device)
    return values, places
