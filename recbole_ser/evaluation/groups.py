"""Which users gain: metrics and relative improvements by user group (GSERec, Fig. 1, 2 and 5).

The paper gives neither the bounds of its groups nor what it counts.  Here users are grouped by their number of
searches strictly before the test target, the first one if they have several: only these can a model have read for all
of them.  A user counts once, with the mean over the user's test targets: targets of one user are not independent, and a
test that took them for independent would find differences that are none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recbole_ser.errors import ConfigError
from recbole_ser.evaluation.averages import means_of_users
from recbole_ser.evaluation.metrics import Metric
from recbole_ser.evaluation.significance import paired_p_value

ALL = "all"
_CONFIDENCE = 0.95
_BLOCK = 1 << 22  # how many numbers are drawn together: 32 MiB


@dataclass(frozen=True)
class Groups:
    """Groups of users by ranges of counts that follow each other, from 0 on.

    Args:
        edges: rising counts; a group begins at each of them, and the first group at 0.
    """

    edges: tuple[int, ...]

    @property
    def labels(self) -> list[str]:
        """The counts of each group, such as ``0-4`` or ``0``; the last group is open: ``10+``."""
        starts = [0, *self.edges]
        closed = [str(a) if b - a == 1 else f"{a}-{b - 1}" for a, b in zip(starts, starts[1:])]
        return [*closed, f"{starts[-1]}+"]

    def of(self, counts: np.ndarray) -> np.ndarray:
        """The group of each of ``counts [n]``, numbered from 0: ``[n]``."""
        return np.searchsorted(self.edges, counts, side="right")

    def sizes(self, counts: np.ndarray) -> list[int]:
        """How many of ``counts [n]`` are in each group."""
        return np.bincount(self.of(counts), minlength=len(self.edges) + 1).tolist()


def quantile_groups(counts: np.ndarray, number: int) -> Groups:
    """At most ``number`` groups of about the same size.

    Users with equal counts stay together, so there are fewer groups where one count is very frequent.

    Raises:
        ConfigError: ``number`` is less than one.
    """
    if number < 1:
        raise ConfigError(f"{number} groups: at least one is needed")
    ordered = np.sort(counts)
    starts = np.unique(ordered[np.arange(1, number) * len(ordered) // number])
    return Groups(tuple(starts[starts > ordered[0]].tolist()))


def metric_values(ranks: np.ndarray, metric: str) -> np.ndarray:
    """The value of ``metric`` for each target, ``[n]``; their mean is the metric of a run.

    Args:
        ranks: ``[n]``, the rank of each target, from 1.
        metric: ``hit@k``, ``ndcg@k``, ``mrr@k`` or ``mrr``, in upper or lower case.

    Raises:
        ConfigError: the metric is another one.
    """
    if re.fullmatch(r"(hit|ndcg|mrr)@[1-9]\d*|mrr", metric.lower()) is None:
        raise ConfigError(f"metric '{metric}' is not known: use Hit@k, NDCG@k, MRR@k or MRR, with a number for k")
    return Metric.parse(metric).values(ranks)


@dataclass(frozen=True)
class Improvement:
    """How much better one run is than another for the same users; what cannot be computed is ``None``.

    Args:
        percent: relative improvement of the mean, in per cent.
        low, high: 95 % confidence interval of ``percent``: percentiles of a paired bootstrap over users.
        p: p-value of a two-sided paired t-test.
    """

    percent: float | None
    low: float | None = None
    high: float | None = None
    p: float | None = None


def improvement(base: np.ndarray, other: np.ndarray, resamples: int = 2000, seed: int = 0) -> Improvement:
    """The relative improvement of ``other [n]`` over ``base [n]``, the values of one metric for the same users.

    There is no confidence interval if the mean of ``base`` is zero in some resample: there are too few users for one.
    """
    if not base.any():
        return Improvement(None, p=paired_p_value(base, other))
    percent = 100.0 * (float(other.mean() / base.mean()) - 1.0)
    means = bootstrap_means(base, other, resamples, np.random.default_rng(seed))
    low = high = None
    if means[:, 0].all():
        tail = (1.0 - _CONFIDENCE) / 2.0
        changes = 100.0 * (means[:, 1] / means[:, 0] - 1.0)
        low, high = np.quantile(changes, [tail, 1.0 - tail]).tolist()
    return Improvement(percent, low, high, paired_p_value(base, other))


def bootstrap_means(base: np.ndarray, other: np.ndarray, resamples: int, generator: np.random.Generator) -> np.ndarray:
    """Means of both, ``[resamples, 2]``, over users drawn with replacement, the same users for both.

    A metric has few different values, and users with the same pair of values are interchangeable.  So instead of n
    users, each resample draws how often each of the K distinct pairs occurs among them, from a multinomial
    distribution; the counts times the pairs give the sums.
    """
    pairs, counts = np.unique(np.stack([base, other], axis=1), axis=0, return_counts=True)  # [K, 2], [K]
    shares = counts / counts.sum()
    rows = max(1, _BLOCK // len(pairs))
    means = [
        generator.multinomial(len(base), shares, min(rows, resamples - start)) @ pairs / len(base)
        for start in range(0, resamples, rows)
    ]
    return np.concatenate(means)


@dataclass(frozen=True)
class GroupMetric:
    """The value of one metric for one run in one group of users, or in ``all`` of them.

    Args:
        metric: name of the metric.
        group: label of the group, or ``all``.
        users: number of users in the group.
        run: name of the run.
        value: mean over the group's users of each one's mean over its targets; ``None`` if the group is empty.
        gain: improvement over the first run; ``None`` for the first run itself and for an empty group.
    """

    metric: str
    group: str
    users: int
    run: str
    value: float | None
    gain: Improvement | None


def compare(
    runs: Mapping[str, np.ndarray],
    counts: np.ndarray,
    groups: Groups,
    metrics: Sequence[str],
    seed: int = 0,
    users: np.ndarray | None = None,
) -> list[GroupMetric]:
    """Compare runs by every metric, in every group and in all of them together; later runs against the first.

    Args:
        runs: for each run, by its name, the ranks ``[n]`` of the same targets.
        counts: ``[users]``, the number of searches before each user's first target; users in rising order.
        groups: the groups of users.
        metrics: names of metrics, see `metric_values`.
        seed: seed of the bootstrap; a row gets the same resamples whatever else is compared.
        users: ``[n]``, the user of each target; ``None``: every user has one.
    """
    users = np.arange(len(counts)) if users is None else users
    group = groups.of(counts)[np.unique(users, return_inverse=True)[1]]
    values = {metric: {name: metric_values(ranks, metric) for name, ranks in runs.items()} for metric in metrics}
    return compare_groups(values, users, group, groups.labels, seed)


def compare_groups(
    values: Mapping[str, Mapping[str, np.ndarray]], users: np.ndarray, group: np.ndarray, labels: list[str], seed: int
) -> list[GroupMetric]:
    """Compare runs in groups of targets, and in all of them together; later runs against the first.

    A user counts once in each group that has targets of theirs, with the mean over these.

    Args:
        values: by metric and then by run, the value for each target ``[n]``.
        users: ``[n]``, the user of each target.
        group: ``[n]``, the group of each target, numbered as in ``labels``.
        labels: the names of the groups.
        seed: seed of the bootstrap; a row gets the same resamples whatever else is compared.
    """
    members = {label: group == number for number, label in enumerate(labels)}
    members[ALL] = np.ones(len(users), dtype=bool)
    rows = []
    for metric, of_runs in values.items():
        for label, inside in members.items():
            means = {name: means_of_users(value[inside], users[inside]) for name, value in of_runs.items()}
            first, base = next(iter(means.items()))
            for name, mine in means.items():
                compared = len(base) > 0 and name != first
                gain = improvement(base, mine, seed=seed) if compared else None
                rows.append(
                    GroupMetric(metric, label, len(base), name, float(mine.mean()) if len(base) else None, gain)
                )
    return rows
