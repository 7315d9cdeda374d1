"""GSERec's first stage: the training histories of users are turned into texts, these into vectors, these into codes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from recbole_ser.codes.rqvae import fit_codes
from recbole_ser.config import SERConfig
from recbole_ser.data.codes import UserCodes, manifest_path, read_manifest, write_codes
from recbole_ser.data.dataset import SERDataset
from recbole_ser.errors import ConfigError
from recbole_ser.files import check_writable
from recbole_ser.settings.checking import check
from recbole_ser.settings.codes import CodesSettings
from recbole_ser.text.item_texts import item_texts, query_texts
from recbole_ser.text.means import mean_vectors, queries_read
from recbole_ser.text.stages import MEAN, chosen_backend, refuse_other_settings
from recbole_ser.text.summaries import SUMMARISERS, Summariser, create_summariser
from recbole_ser.text.user_histories import TrainingEvents, UserHistory, as_texts, training_events
from recbole_ser.text.vectors import ENCODERS, TextEncoder, create_encoder, encode_sides

CACHE_FOLDER = "codes_cache"  # folder beside the codes, for the answers of models

_log = logging.getLogger(__name__)


def ensure_codes(config: SERConfig, dataset: SERDataset) -> dict[str, str]:
    """Make sure that the file ``codes_file`` exists: if it does not, make it as the block ``codes`` says.

    Returns:
        The ``hash`` of the file and the back-ends of its ``summaries`` and ``vectors``.

    Raises:
        ConfigError: the file was made with other settings than the user asks for in this run, or ``build_codes`` raises
            it.
        DataError: the file is damaged, or was made from other training data.
    """
    path = Path(config["codes_file"])
    if not path.exists():
        _log.info(f"{path} does not exist: making the codes, once for all runs on this data set")
        build_codes(dataset, config["codes"], path, config["show_progress"])
    else:
        asked = config.external_config_dict.get("codes") or {}
        wanted = {key: config["codes"][key] for key in asked}
        refuse_other_settings(path, read_manifest(path)["settings"], wanted, "codes_file", "codes")
    made_by = describe_codes(dataset.user_codes)
    _log.info(f"codes: {path}, from summaries by {made_by['summaries']} and vectors by {made_by['vectors']}")
    return made_by


def describe_codes(codes: UserCodes) -> dict[str, str]:
    """What a result records about its codes: the ``hash`` of their file, and the back-ends that made them."""
    return {"hash": codes.hash, **{name: codes.origin[name]["backend"] for name in ("summaries", "vectors")}}


def build_codes(
    dataset: SERDataset, settings: Mapping[str, Any], path: str | Path, progress: bool = False
) -> dict[str, Any]:
    """Make codes, and write ``X.codes`` to ``path`` and its manifest beside it.

    The answers of models are kept in a folder beside the file, so a second call is cheap.

    Args:
        settings: the block ``codes`` of the configuration, see ``CodesSettings``.
        progress: whether to show progress bars.

    Returns:
        The manifest.

    Raises:
        ConfigError: a setting is unknown or wrong.
        UserError: a back-end failed, or a file cannot be written, which is found out first.
    """
    wanted = check(CodesSettings, settings, lambda key: "codes")
    for file in (path, manifest_path(path)):
        check_writable(file)
    summariser, encoder = _back_ends(wanted, cache=Path(path).parent / CACHE_FOLDER)
    queries = query_texts(dataset)
    items = item_texts(dataset, queries)
    events = training_events(dataset, wanted.max_records, wanted.max_clicks, wanted.until)
    _log.info(f"codes of {dataset.user_num - 1:,} users: vectors")
    copies = wanted.missing_side == "copy"  # as published
    if summariser is None:
        sides = _means(encoder, events, items, queries, copies, progress)
    else:
        sides = _summaries(summariser, encoder, as_texts(events, items, queries), copies, progress)
    _log.info("codes: RQ-VAE")
    codes = fit_codes(sides.search, sides.rec, wanted.rqvae, progress)
    origin = {
        "settings": dict(settings),
        "summaries": {"backend": MEAN} if summariser is None else summariser.describe(),
        "vectors": encoder.describe(),
        "rqvae": wanted.rqvae.model_dump(),
        "report": {"summaries": {} if summariser is None else summariser.report, "rqvae": codes.report},
    }
    search, rec = np.where(sides.has_search, codes.search, -1), np.where(sides.has_rec, codes.rec, -1)
    return write_codes(path, dataset, search, rec, origin)


class _Sides(NamedTuple):
    """The vectors ``[n, d]`` of both sides of n users, and which users have one ``[n, 1]``."""

    search: np.ndarray
    rec: np.ndarray
    has_search: np.ndarray
    has_rec: np.ndarray


def _back_ends(wanted: CodesSettings, cache: Path) -> tuple[Summariser | None, TextEncoder]:
    """What summarises histories, ``None`` if vectors are means, and what makes vectors."""
    summaries = chosen_backend(wanted.summaries, "codes.summaries", (*SUMMARISERS, MEAN), (MEAN,))
    vectors = chosen_backend(wanted.vectors, "codes.vectors", ENCODERS, ())
    encoder = create_encoder(cache_folder=cache, **vectors)
    if summaries["name"] != MEAN:
        return create_summariser(cache_folder=cache, **summaries), encoder
    if vectors["name"] == "precomputed":
        raise ConfigError("codes.summaries: precomputed vectors are those of users: there is nothing to take means of")
    return None, encoder


def _summaries(
    summariser: Summariser, encoder: TextEncoder, histories: list[UserHistory], copies: bool, progress: bool
) -> _Sides:
    """Both sides as vectors of their summaries; with ``copies``, the other side's summary stands for one without."""
    search, rec = (summariser.summarise(histories, side, progress) for side in ("search", "rec"))
    if copies:
        search, rec = _copied(search, rec), _copied(rec, search)
    has_search, has_rec = (np.array([[bool(text)] for text in texts]) for texts in (search, rec))
    return _Sides(*encode_sides(encoder, search, rec, progress), has_search, has_rec)


def _copied(texts: Sequence[str], other: Sequence[str]) -> list[str]:
    return [text or spare for text, spare in zip(texts, other)]


def _means(
    encoder: TextEncoder, events: TrainingEvents, items: list[str], queries: list[str], copies: bool, progress: bool
) -> _Sides:
    """Both sides as means of the vectors of what is in them; ``copies`` as in ``_summaries``."""
    read = queries_read(events, "search")
    vectors = encoder.encode([*items[1:], *(queries[query] for query in read.tolist())], progress)
    of_items, of_queries = vectors[: len(items) - 1], vectors[len(items) - 1 :]
    search, rec = (mean_vectors(events, side, of_items, of_queries) for side in ("search", "rec"))
    has_search, has_rec = (np.any(side, axis=1, keepdims=True) for side in (search, rec))
    if not copies:
        return _Sides(search, rec, has_search, has_rec)
    either = has_search | has_rec
    return _Sides(np.where(has_search, search, rec), np.where(has_rec, rec, search), either, either)
