"""Metrics computed from ranks by RecBole's own metric classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from recbole.evaluator import Evaluator
from recbole.evaluator.base_metric import TopkMetric
from recbole.evaluator.collector import DataStruct
from recbole.evaluator.register import metrics_dict
from torch import Tensor

from recbole_ser.errors import ConfigError
from recbole_ser.evaluation.averages import means_of_users

_SUPPORTED = {name: metric for name, metric in metrics_dict.items() if metric.metric_need == ["rec.topk"]}


class RankEvaluator(Evaluator):
    """RecBole's ``Evaluator``, on ranks instead of scores.

    Results are Python floats in full precision (RecBole rounds them to ``metric_decimal_place``).  Besides the
    configured ``metrics`` at the configured ``topk`` there is always ``mrr``, the mean reciprocal rank over the whole
    list, which RecBole's ``mrr@k`` cuts off at k.

    Metrics are means over targets or, with ``average_over: users``, means over users of the mean over each one's
    targets.

    Raises:
        ConfigError: a metric needs more than the positive's rank, or ``valid_metric`` is not among those computed.
    """

    def __init__(self, config: Any) -> None:
        _check(config)
        super().__init__(config)
        self.metric_class = {name: _per_target(metrics_dict[name])(config) for name in self.metrics}
        self.topk, self.cutoff = config["topk"], max(config["topk"])
        self.by_user = config["average_over"] == "users"

    def evaluate(self, ranks: Tensor, users: Tensor | None = None) -> dict[str, float]:
        """The metrics of ``ranks [n]`` (from 1) by name: ``hit@1``, ``ndcg@10``, ... and ``mrr``.

        Args:
            users: ``[n]``, the user of each target; ``None``: each is another user's.
        """
        hits = DataStruct()
        hits.set("rec.topk", _hit_matrix(ranks, self.cutoff))
        reciprocal = ranks.double().reciprocal()
        values = super().evaluate(hits)  # by metric: [n, cutoff]
        if self.by_user and users is not None:
            values = {name: means_of_users(value, users.numpy()) for name, value in values.items()}
            reciprocal = torch.from_numpy(means_of_users(reciprocal.numpy(), users.numpy()))
        means = {name: value.mean(axis=0) for name, value in values.items()}
        result = {f"{name}@{k}": float(mean[k - 1]) for name, mean in means.items() for k in self.topk}
        return {**result, "mrr": reciprocal.mean().item()}


def _hit_matrix(ranks: Tensor, cutoff: int) -> Tensor:
    """RecBole's ``rec.topk``, ``[n, cutoff + 1]``: 1 in the positive's column; the last column counts positives (1)."""
    hit = ranks.unsqueeze(1) == torch.arange(1, cutoff + 1)
    return torch.cat([hit.int(), torch.ones(len(ranks), 1, dtype=torch.int)], dim=1)


class _PerTarget(TopkMetric):
    def topk_result(self, metric: str, value: np.ndarray) -> dict[str, np.ndarray]:
        """The values themselves, ``[n, cutoff]``: those at k in column k - 1; RecBole would average and round."""
        return {metric: value}


def _per_target(metric: type[TopkMetric]) -> type[TopkMetric]:
    return type(metric.__name__, (_PerTarget, metric), {})


def _check(config: Any) -> None:
    names = [metric.lower() for metric in config["metrics"]]
    for metric, name in zip(config["metrics"], names):
        if name not in _SUPPORTED:
            known = ", ".join(cls.__name__ for cls in _SUPPORTED.values())
            raise ConfigError(f"metrics: '{metric}' is not computed from the rank of one target: use any of {known}")
    available = [f"{name}@{k}" for name in names for k in config["topk"]] + ["mrr"]
    if config["valid_metric"].lower() not in available:
        raise ConfigError(
            f"valid_metric: '{config['valid_metric']}' is not computed with these metrics and topk: "
            f"use any of {', '.join(available)}"
        )
