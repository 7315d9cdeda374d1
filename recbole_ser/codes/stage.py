"""GSERec's first stage: the training histories of users are turned into texts, these into vectors, these into codes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recbole_ser.codes.rqvae import fit_codes
from recbole_ser.config import SERConfig
from recbole_ser.data.codes import UserCodes, manifest_path, read_manifest, write_codes
from recbole_ser.data.dataset import SERDataset
from recbole_ser.files import check_writable
from recbole_ser.settings.checking import check
from recbole_ser.settings.codes import CodesSettings
from recbole_ser.text.stages import backend_options, refuse_other_settings
from recbole_ser.text.summaries import create_summariser
from recbole_ser.text.user_histories import training_histories
from recbole_ser.text.vectors import create_encoder, encode_sides

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
    cache = Path(path).parent / CACHE_FOLDER
    summariser = create_summariser(cache_folder=cache, **backend_options(wanted.summaries, "codes.summaries"))
    encoder = create_encoder(cache_folder=cache, **backend_options(wanted.vectors, "codes.vectors"))
    histories = training_histories(dataset, wanted.max_records, wanted.max_clicks)
    _log.info(f"codes of {len(histories):,} users: summaries")
    search, rec = (summariser.summarise(histories, side, progress) for side in ("search", "rec"))
    if wanted.missing_side == "copy":  # published code
        search, rec = _copied(search, rec), _copied(rec, search)
    _log.info("codes: vectors")
    vectors = encode_sides(encoder, search, rec, progress)
    _log.info("codes: RQ-VAE")
    codes = fit_codes(*vectors, wanted.rqvae, progress)
    origin = {
        "settings": dict(settings),
        "summaries": summariser.describe(),
        "vectors": encoder.describe(),
        "rqvae": wanted.rqvae.model_dump(),
        "report": {"summaries": summariser.report, "rqvae": codes.report},
    }
    return write_codes(path, dataset, _where(search, codes.search), _where(rec, codes.rec), origin)


def _copied(texts: Sequence[str], other: Sequence[str]) -> list[str]:
    return [text or spare for text, spare in zip(texts, other)]


def _where(texts: Sequence[str], codes: np.ndarray) -> np.ndarray:
    """``codes [n, L]`` with -1 for users who have no text to make codes from."""
    return np.where(np.array([not text for text in texts])[:, None], -1, codes)
