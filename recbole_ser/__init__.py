"""Search-enhanced recommendation on RecBole: SESRec, GSERec and the models they are compared with.

The names here are public and will stay.  They are imported on first use, because RecBole and PyTorch take seconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

WITHOUT_RECBOLE = (
    "RecBole is missing: pip install --no-deps recbole==1.2.1 (without its dependencies, whose versions its own "
    "metadata pins too narrowly; what it imports has been installed with this package)"
)

if TYPE_CHECKING:
    from recbole_ser.config import SERConfig
    from recbole_ser.explanation.explain import Explanation, explain
    from recbole_ser.inference.recommender import Recommender, Retriever, recommend
    from recbole_ser.model.base import JointRecommender, SearchRecommender
    from recbole_ser.runner import build_trainer, claim_folder, prepare, resume, run
    from recbole_ser.study.study import run_study
    from recbole_ser.tuning.sweep import tune

_HOMES = {
    "run": "recbole_ser.runner",
    "resume": "recbole_ser.runner",
    "SERConfig": "recbole_ser.config",
    "claim_folder": "recbole_ser.runner",
    "prepare": "recbole_ser.runner",
    "build_trainer": "recbole_ser.runner",
    "tune": "recbole_ser.tuning.sweep",
    "run_study": "recbole_ser.study.study",
    "explain": "recbole_ser.explanation.explain",
    "Explanation": "recbole_ser.explanation.explain",
    "recommend": "recbole_ser.inference.recommender",
    "Recommender": "recbole_ser.inference.recommender",
    "Retriever": "recbole_ser.inference.recommender",
    "SearchRecommender": "recbole_ser.model.base",
    "JointRecommender": "recbole_ser.model.base",
}

__all__ = [
    "Explanation",
    "JointRecommender",
    "Recommender",
    "Retriever",
    "SERConfig",
    "SearchRecommender",
    "build_trainer",
    "claim_folder",
    "explain",
    "prepare",
    "recommend",
    "resume",
    "run",
    "run_study",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if error.name == "recbole":
            raise ImportError(WITHOUT_RECBOLE) from error
        raise


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
