"""The settings of models: the base class of their declarations, and groups of settings that many of them share."""

from __future__ import annotations

from pydantic import model_validator
from typing_extensions import Self

from recbole_ser.settings.declaration import Settings, setting
from recbole_ser.settings.types import Layers, Probability, Width, Widths


class ModelSettings(Settings):
    """Base class of the settings of a model, ``class Settings(ModelSettings)`` in the model's class.

    The settings of a class are those of its base classes too.  A key of training, such as ``learning_rate``, may be
    declared again to give it another default for this model.
    """

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> Self:
        width, heads = getattr(self, "hidden_size", None), getattr(self, "n_heads", None)
        if width is not None and heads is not None and width % heads:
            raise ValueError(f"n_heads is {heads}, which must divide hidden_size, {width}")
        return self


class Projected(ModelSettings):
    """The width that all models of this package project to."""

    hidden_size: Width = setting("d, the width of items, queries and states")


class ItemWidths(Projected):
    """Widths of items before they are projected."""

    embedding_size: Width = setting("width of the embeddings of item ids")
    item_attribute_size: Width = setting("width of each attribute in X.item")


class QueryWidths(Projected):
    """Widths of queries before they are projected."""

    query_embedding_size: Width = setting("width of the embeddings of query ids")
    term_embedding_size: Width = setting("width of the embeddings of words of queries")


class UserWidths(ModelSettings):
    """Widths of users."""

    user_embedding_size: Width = setting("width of the embeddings of user ids")
    user_attribute_size: Width = setting("width of each attribute in X.user")


class TransformerSizes(ModelSettings):
    """Sizes of the encoders of histories."""

    n_layers: Layers = setting("layers of each encoder")
    n_heads: Layers = setting("heads of attention; they divide hidden_size")
    dropout_prob: Probability = setting("probability of dropout")


class MLPSizes(ModelSettings):
    """Sizes of the network that gives the score."""

    mlp_hidden_size: Widths = setting("widths of the hidden layers that give the score")
