"""Vectors of the texts of items and users: made once for all runs on a data set, for the models that read them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recbole_ser.config import SERConfig
from recbole_ser.data.dataset import SERDataset
from recbole_ser.data.text_vectors import (
    manifest_path,
    read_text_manifest,
    texts_hash,
    vector_paths,
    write_text_vectors,
)
from recbole_ser.errors import ConfigError
from recbole_ser.files import check_writable
from recbole_ser.settings.checking import check
from recbole_ser.settings.texts import TextsSettings
from recbole_ser.text.cache import key_of
from recbole_ser.text.item_texts import item_texts, query_texts
from recbole_ser.text.means import mean_vectors, queries_read
from recbole_ser.text.stages import MEAN, backend_options, chosen_backend, refuse_other_settings
from recbole_ser.text.summaries import LANGUAGE_MODELS, SUMMARISERS, Summariser, create_introducer, create_summariser
from recbole_ser.text.summaries.prompted import PromptedSummariser
from recbole_ser.text.user_histories import as_texts, training_events
from recbole_ser.text.vectors import ENCODERS, TextEncoder, create_encoder

CACHE_FOLDER = "texts_cache"  # folder beside the folder of the texts, for the answers of models
ATTRIBUTES = "attributes"  # what texts of items are without a back-end

_log = logging.getLogger(__name__)


def ensure_texts(config: SERConfig, dataset: SERDataset) -> dict[str, str]:
    """Make sure that the folder ``texts_folder`` is filled: if it is not, fill it as the block ``texts`` says.

    Returns:
        What ``describe_texts`` says.

    Raises:
        ConfigError: the folder was filled with other settings than the user asks for in this run, the user asks for
            factors and for no language model, or ``build_texts`` raises it.
        DataError: a file is damaged, or was made from other training data.
    """
    folder = Path(config["texts_folder"])
    refuse_unused_factors(config)
    if not manifest_path(folder).exists():
        _log.info(f"{folder} is not there: making the vectors of texts, once for all runs on this data set")
        build_texts(dataset, config["texts"], folder, config["show_progress"])
    else:
        wanted = {key: config["texts"][key] for key in config.external_config_dict.get("texts") or {}}
        refuse_other_settings(folder, read_text_manifest(folder)["settings"], wanted, "texts_folder", "texts")
    made_by = describe_texts(dataset.item_texts.origin)
    back_ends = ", ".join(f"{name} by {made_by[name]}" for name in ("items", "users", "vectors"))
    _log.info(f"texts: {folder}, {back_ends}")
    return made_by


def describe_texts(manifest: dict[str, Any]) -> dict[str, str]:
    """What a result records: the ``hash`` of the vectors, and the back-ends of ``items``, ``users`` and ``vectors``."""
    back_ends = {name: manifest[name]["backend"] for name in ("items", "users", "vectors")}
    return {"hash": texts_hash(manifest), **back_ends}


def refuse_unused_factors(config: SERConfig) -> None:
    """Refuse factors that the user gives, rather than the file of a data set, where no language model is asked.

    Raises:
        ConfigError: that is so.
    """
    given, settings = config.external_config_dict.get("texts") or {}, config["texts"]
    names = [backend_options(settings[key], f"texts.{key}")["name"] for key in ("items", "users")]
    if given.get("factors") and not any(name in LANGUAGE_MODELS for name in names):
        raise ConfigError(
            f"texts.factors is {given['factors']}: factors are named to language models, and none is asked: set "
            f"texts.items or texts.users to one of {', '.join(LANGUAGE_MODELS)}, or leave the factors out"
        )


def build_texts(
    dataset: SERDataset, settings: Mapping[str, Any], folder: str | Path, progress: bool = False
) -> dict[str, Any]:
    """Make the vectors of the texts of items and users, and write them and their manifest to ``folder``.

    Items and users are encoded together, so their vectors are in one space.  Of events, only those of the training
    period are read.  The answers of models are kept in a folder beside ``folder``, so a second call is cheap.

    Args:
        settings: the block ``texts`` of the configuration, see ``TextsSettings``.
        progress: whether to show progress bars.

    Returns:
        The manifest.

    Raises:
        ConfigError: a setting is unknown or wrong.
        UserError: a back-end failed, or a file cannot be written, which is found out first.
    """
    wanted = check(TextsSettings, settings, lambda key: "texts")
    for file in (*vector_paths(folder), manifest_path(folder)):
        check_writable(file)
    cache = Path(folder).parent / CACHE_FOLDER
    introducer, summariser, encoder = _back_ends(wanted, cache)
    queries = query_texts(dataset)
    catalogue = item_texts(dataset, queries)
    events = training_events(dataset, wanted.max_records, wanted.max_clicks, wanted.until)
    _log.info(f"texts of {len(catalogue) - 1:,} items and {dataset.user_num - 1:,} users")
    items = catalogue[1:] if introducer is None else introducer.introduce(catalogue[1:], progress)
    if summariser is None:
        others = [queries[query] for query in queries_read(events, wanted.side).tolist()]
    else:
        others = summariser.summarise(as_texts(events, catalogue, queries), wanted.side, progress)
    _log.info("texts: vectors")
    vectors = encoder.encode([*items, *others], progress)
    item_vectors, user_vectors = vectors[: len(items)], vectors[len(items) :]
    if summariser is None:
        user_vectors = mean_vectors(events, wanted.side, item_vectors, user_vectors)
    origin = {
        "settings": dict(settings),
        "items": {"backend": ATTRIBUTES} if introducer is None else introducer.describe(),
        "users": {"backend": MEAN} if summariser is None else summariser.describe(),
        "vectors": encoder.describe(),
        "texts_hash": key_of(items=items, others=others),
        "report": {
            "items": _counts(item_vectors),
            "users": _counts(user_vectors),
            "answers": {name: maker.report for name, maker in (("items", introducer), ("users", summariser)) if maker},
        },
    }
    return write_text_vectors(folder, dataset, item_vectors, user_vectors, origin)


def _back_ends(wanted: TextsSettings, cache: Path) -> tuple[PromptedSummariser | None, Summariser | None, TextEncoder]:
    """What introduces items, what summarises users, and what makes vectors; ``None`` where no back-end is needed."""
    items = _options(wanted.items, "items", (ATTRIBUTES, *LANGUAGE_MODELS), wanted.factors)
    users = _options(wanted.users, "users", (MEAN, *SUMMARISERS), wanted.factors)
    vectors = _options(wanted.vectors, "vectors", [name for name in ENCODERS if name != "precomputed"], [])
    return (
        None if items["name"] == ATTRIBUTES else create_introducer(cache_folder=cache, **items),
        None if users["name"] == MEAN else create_summariser(cache_folder=cache, **users),
        create_encoder(cache_folder=cache, **vectors),
    )


def _options(given: Any, key: str, known: Sequence[str], factors: Sequence[str]) -> dict[str, Any]:
    options = chosen_backend(given, f"texts.{key}", known, (ATTRIBUTES, MEAN))
    return {"factors": list(factors), **options} if factors and options["name"] in LANGUAGE_MODELS else options


def _counts(vectors: np.ndarray) -> dict[str, int]:
    """How many rows there are, how many of them are of something with a text, and how many of these are distinct."""
    filled = vectors[vectors.any(axis=1)]
    return {"all": len(vectors), "with_text": len(filled), "distinct": len({row.tobytes() for row in filled})}
