"""Building the model of a run, and of a finished one again."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from recbole.utils import init_seed

from recbole_ser.errors import ConfigError
from recbole_ser.model.foreign import failing_in_a_line


def build_model(config: Any, dataset: Any) -> Any:
    """A new model on the run's device, which depends on the seed, the configuration and the data alone.

    Raises:
        UserError: one of RecBole's models cannot be built with these settings and data.
    """
    init_seed(config["seed"], config["reproducibility"])
    _refuse_missing_features(config, dataset)
    with failing_in_a_line(config.model_class):
        return config.model_class(config, dataset).to(config["device"])


@contextmanager
def random_states_kept(device: torch.device) -> Iterator[None]:
    """After this block random numbers go on as if there had been none in it.

    Some of RecBole's models keep random choices (SimpleX: which part of a long history it reads), so that a model is
    built again from the seed; whoever loads one meets no change.
    """
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def _refuse_missing_features(config: Any, dataset: Any) -> None:
    """RecBole's models with ``selected_features`` (SASRecF, GRU4RecF, FDSA) need these columns of the items."""
    if "selected_features" not in config.model_keys:
        return
    columns = [name for name in (dataset.item_feat or ()) if name != dataset.iid_field]
    missing = [name for name in config["selected_features"] if name not in columns]
    if missing:
        raise ConfigError(
            f"selected_features names '{missing[0]}', which is no column of X.item that load_col loads: "
            + (f"there are {', '.join(columns)}" if columns else "there is none")
        )
