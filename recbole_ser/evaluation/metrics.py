"""Metrics of ranks: the value of each metric for every target.

A target is one relevant item in a list of its own.  So some metrics say the same: Recall@k is Hit@k, Precision@k is
Hit@k divided by k, and MAP@k, which is cut off at k, is MRR@k.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from recbole_ser.errors import ConfigError

TITLES = {
    "hit": "Hit",
    "ndcg": "NDCG",
    "mrr": "MRR",
    "recall": "Recall",
    "precision": "Precision",
    "map": "MAP",
    "auc": "AUC",
}
_WHOLE = ("mrr", "auc")  # metrics of the whole list
_UNCUT = ("auc",)  # metrics of nothing else


@dataclass(frozen=True)
class Metric:
    """A metric by its name in lower case, cut off at ``k``; ``None``: it is of the whole list."""

    name: str
    k: int | None = None

    @classmethod
    def parse(cls, text: str) -> Metric:
        """The metric that is written ``NDCG@10`` or ``mrr``, in upper or lower case.

        Raises:
            ConfigError: there is no such metric.
        """
        match = re.fullmatch(r"([a-z]+)(?:@([1-9]\d{0,8}))?", text.strip().lower())
        name, k = (match[1], match[2]) if match else ("", None)
        if name not in TITLES or (k is None and name not in _WHOLE) or (k is not None and name in _UNCUT):
            cut = ", ".join(f"{title}@k" for name, title in TITLES.items() if name not in _UNCUT)
            raise ConfigError(f"metric '{text}' is not known: use {cut}, MRR or AUC, with a number for k")
        return cls(name, None if k is None else int(k))

    @property
    def key(self) -> str:
        """The name in results, such as ``ndcg@10``."""
        return self.name if self.k is None else f"{self.name}@{self.k}"

    @property
    def title(self) -> str:
        """The name in tables, such as ``NDCG@10``."""
        return TITLES[self.name] + self.key[len(self.name) :]

    def values(self, ranks: np.ndarray, listed: int | None = None) -> np.ndarray:
        """The value for each target, of the shape of ``ranks``, which begin at 1.

        Args:
            listed: how many items are ranked for each target, with the target itself; only AUC needs it: the share of
                the others that are ranked below the target.
        """
        if self.name == "auc":
            assert listed is not None
            return (listed - ranks) / (listed - 1.0)
        gains = {
            "hit": np.ones(ranks.shape),
            "recall": np.ones(ranks.shape),
            "precision": np.full(ranks.shape, 1.0 / (self.k or 1)),
            "ndcg": 1.0 / np.log2(ranks + 1.0),
            "mrr": 1.0 / ranks,
            "map": 1.0 / ranks,
        }[self.name]
        return gains if self.k is None else np.where(ranks <= self.k, gains, 0.0)


def parse_metrics(text: str) -> list[Metric]:
    """The metrics in a list like ``ndcg@10,hit@5,mrr``, each once.

    Raises:
        ConfigError: there is no such metric.
    """
    return list(dict.fromkeys(map(Metric.parse, text.split(","))))
