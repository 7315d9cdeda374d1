"""Which of RecBole's own models run here as RecBole trains them, and why the others do not.

What RecBole does differently for one model it finds by the model's name: a class ``<Model>Trainer`` or
``<Model>Dataset``, an entry in its table of data loaders, ``transform`` in the model's YAML file.  The same is looked
up here, so that a model which this package would train in another way is refused before anything is read.
"""

from __future__ import annotations

from typing import Any

from recbole.model.abstract_recommender import AbstractRecommender
from recbole.utils import ModelType

from recbole_ser.errors import ConfigError
from recbole_ser.registry import available_models
from recbole_ser.settings.of_class import yaml_files
from recbole_ser.yaml_values import read_yaml

# The transform that does not change what is learnt: SHAN's histories, with the padding in front.
PADDED_IN_FRONT = "inverse_itemseq"

_OF_TYPES = {
    ModelType.CONTEXT: "it scores features of interactions, and a row of training is here a user with an item",
    ModelType.KNOWLEDGE: "it learns from a knowledge graph, and this package loads none",
    ModelType.DECISIONTREE: "it is trained by another library",
}

# Reasons that nothing in RecBole tells, by the path of the class.
_OF_CLASSES = {
    "recbole.model.sequential_recommender.fearec.FEARec": (
        "it looks up histories of other training rows in RecBole's copies of them, and this package makes no copies"
    ),
}


def refuse_unfit(model: type[AbstractRecommender]) -> None:
    """Refuse a model that this package cannot train as RecBole does.

    A class that derives from a model of RecBole's is refused like it, unless it has a ``calculate_loss`` of its own.

    Raises:
        ConfigError: says what is missing and, if this package has a model of the same name, to use that.
    """
    reason = _reason(model)
    if reason is None:
        return
    theirs = model.__module__.startswith("recbole.model.")
    line = f"{model.__name__}, a model {'of' if theirs else 'made for'} RecBole, does not run here: {reason}"
    if theirs and model.__name__ in available_models():
        line += f"; this package has a {model.__name__} of its own: --model={model.__name__}"
    raise ConfigError(line)


def learns_from_users(model: type[AbstractRecommender]) -> bool:
    """Whether RecBole gives ``model`` users instead of interactions to learn from, as it does its autoencoders."""
    from recbole.data.dataloader import UserDataLoader
    from recbole.data.utils import get_dataloader

    name = _trained_as(model)
    if name is None:
        return False
    return get_dataloader({"model": name, "MODEL_TYPE": model.type}, "train") is UserDataLoader


def transform_of(model: type[AbstractRecommender]) -> str | None:
    """What ``model``'s YAML file says that RecBole does to each batch; ``None``: nothing."""
    transforms = [read_yaml(path).get("transform") for path in yaml_files(model)]
    return next((transform for transform in reversed(transforms) if transform is not None), None)


def _reason(model: type[AbstractRecommender]) -> str | None:
    import recbole.data.dataset as datasets  # slow, and loading the data imports them anyway
    import recbole.trainer as trainers

    if model.type in _OF_TYPES:
        return _OF_TYPES[model.type]
    if model.calculate_loss is AbstractRecommender.calculate_loss:
        return "it has no calculate_loss"
    if transform_of(model) not in (None, PADDED_IN_FRONT):
        return f"RecBole's transform '{transform_of(model)}' changes its batches at random"
    name = _trained_as(model)
    if name is None:
        return None
    if hasattr(trainers, f"{name}Trainer"):
        return f"it needs a trainer of its own, RecBole's {name}Trainer"
    if hasattr(datasets, f"{name}Dataset"):
        return f"it needs a data set of its own, RecBole's {name}Dataset"
    return next((_OF_CLASSES[path] for path in map(_path, model.__mro__) if path in _OF_CLASSES), None)


def _trained_as(model: type[Any]) -> str | None:
    """The name of the model of RecBole's whose ``calculate_loss`` trains ``model``; ``None`` if it is no such one."""
    owner = next((base for base in model.__mro__ if "calculate_loss" in vars(base)), object)
    return owner.__name__ if owner.__module__.startswith("recbole.model.") else None


def _path(model: type) -> str:
    return f"{model.__module__}.{model.__qualname__}"
