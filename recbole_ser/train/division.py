"""Which models can be trained by several workers, with the losses and gradients that a process alone would have."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from recbole.model.abstract_recommender import AbstractRecommender
from recbole.utils import ModelType
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from recbole_ser.errors import ConfigError
from recbole_ser.model.base import SearchRecommender
from recbole_ser.model.foreign import means_over_rows
from recbole_ser.model.scoring import Dice
from recbole_ser.workers import group


def refuse_undividable(config: Any, model: AbstractRecommender) -> None:
    """Refuse several workers for a model whose batches cannot be divided among them.

    Raises:
        ConfigError: says what of the model is in the way.
    """
    if group.count() == 1:
        return
    name = type(model).__name__
    for problem in _problems(config, model):
        raise ConfigError(f"{name} cannot be trained by several workers: {problem}: leave out --workers, or torchrun")
    if not isinstance(model, SearchRecommender) and not type(model).__module__.startswith("recbole."):
        logging.getLogger().warning(f"{name}: its loss is taken to be a mean over the rows of a batch")


def _problems(config: Any, model: AbstractRecommender) -> Iterator[str]:
    if model.type == ModelType.TRADITIONAL:
        yield "it does not learn by gradients"
    if config["learner"] == "sparse_adam":
        yield "gradients are added up as dense ones, and learner is sparse_adam"
    if isinstance(model, SearchRecommender):
        if (reason := model.undividable()) is not None:
            yield reason
    elif type(model).__module__.startswith("recbole.") and not means_over_rows(type(model)):
        yield "its loss, RecBole's, is not known to be a mean over rows"
    owners = (module for module in model.modules() if not isinstance(module, Dice))
    if any(isinstance(child, _BatchNorm) for owner in owners for child in nn.Module.children(owner)):
        yield "it has batch normalisation, whose statistics would be those of a worker's rows"
