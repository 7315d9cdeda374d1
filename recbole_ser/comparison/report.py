"""The comparison of finished runs: the metrics of every model, and which differences are significant."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from recbole_ser.comparison.beyond_accuracy import beyond_accuracy, top_lists
from recbole_ser.comparison.rows import Row, find_runs, model_of, read_rows
from recbole_ser.comparison.traits import TRAITS, TargetTraits
from recbole_ser.data.dataset import SERDataset
from recbole_ser.errors import ConfigError, UserError
from recbole_ser.evaluation.averages import means_of_users
from recbole_ser.evaluation.groups import Improvement, compare_groups
from recbole_ser.evaluation.metrics import Metric
from recbole_ser.evaluation.significance import TESTS, holm
from recbole_ser.evaluation.tested_runs import tested_dataset
from recbole_ser.runs.folder import RunFolder

# What the name of a protocol says, which is made in `recbole_ser.runner.protocol_name`.
_DRAWN = re.compile(r"(?:uni|pop)(\d+)")  # so many candidates besides the target
_BY_USER = "mean over users"


@dataclass(frozen=True)
class Options:
    """What is compared, and how.

    Args:
        metrics: the columns of the table.
        proposed: name of the row that is compared with all others; ``None``: the one that is best in most columns.
        test: the test of significance, one of ``TESTS``.
        alpha: the level of significance.
        by: traits by which targets are divided, of ``TRAITS``.
        groups: number of groups, of about the same size, of a trait that is a number.
        spontaneous: see ``TargetTraits``.
        seed: seed of the bootstrap.
        beyond: length of the lists that metrics beyond accuracy look at; ``None``: there are no such metrics.
        model: a model of some runs, if no installed package registers it, see ``run_config``.

    Raises:
        ConfigError: a value is out of range, or there is no such trait or test.
    """

    metrics: Sequence[Metric]
    proposed: str | None = None
    test: str = "t"
    alpha: float = 0.05
    by: Sequence[str] = ()
    groups: int = 4
    spontaneous: Sequence[str] = ()
    seed: int = 0
    beyond: int | None = None
    model: str | None = None

    def __post_init__(self) -> None:
        for name in self.by:
            if name not in TRAITS:
                raise ConfigError(f"--by {name}: use any of {', '.join(TRAITS)}")
        if self.test not in TESTS:
            raise ConfigError(f"--test {self.test}: use any of {', '.join(TESTS)}")
        if not 0.0 < self.alpha < 1.0:
            raise ConfigError(f"--alpha {self.alpha} is not between 0 and 1")
        if self.groups < 1:
            raise ConfigError(f"--groups {self.groups}: at least one is needed")
        if self.seed < 0:
            raise ConfigError(f"--seed {self.seed} is negative")
        if self.beyond is not None and self.beyond < 1:
            raise ConfigError(f"--beyond {self.beyond}: a list has at least one item")
        if self.spontaneous and "search-kind" not in self.by:
            raise ConfigError("--spontaneous says what --by search-kind divides by: give that too")

    def model_of(self, folder: RunFolder) -> str | None:
        """The user's ``model``, if it is that of the run in ``folder``."""
        return model_of(folder, self.model)


@dataclass(frozen=True)
class Model:
    """A row of the table.

    Args:
        name: the model, with the settings by which it differs from other rows of the same model.
        seeds: the seed of each run.
        runs: the folder of each run.
        means: the mean of each metric over the runs.
        spreads: the standard deviation of each metric over the runs (of a sample, divided by one less than their
            number); ``None`` for a single run.
    """

    name: str
    seeds: list[int]
    runs: list[str]
    means: dict[str, float]
    spreads: dict[str, float] | None


@dataclass(frozen=True)
class Difference:
    """How much better the proposed model is than another by one metric.

    Args:
        metric, baseline: the metric, and the name of the other model.
        percent: relative improvement of the mean, in per cent; ``None`` if the other's mean is zero.
        p: p-value of the test over users; ``None`` where it cannot be told.
        p_holm: the same after Holm's correction for the comparisons by this metric with all other models.
    """

    metric: str
    baseline: str
    percent: float | None
    p: float | None
    p_holm: float | None


@dataclass(frozen=True)
class GroupDifference:
    """How much better the proposed model is than the best other one in one group of targets.

    Args:
        by, title: the trait by which the targets are divided, and what it is in words.
        group: label of the group, or ``all``.
        metric, baseline: the metric, and the name of the best other model by it.
        users: number of users with targets in the group; each counts once, with the mean over these.
        baseline_value, value: mean over the users, of the other and of the proposed model; ``None`` without users.
        gain: the improvement with its interval, and p of a paired t-test that is not corrected; ``None`` without users.
    """

    by: str
    title: str
    group: str
    metric: str
    baseline: str
    users: int
    baseline_value: float | None
    value: float | None
    gain: Improvement | None


@dataclass(frozen=True)
class Comparison:
    """The result of ``recbole-ser compare``.

    Args:
        dataset, protocol: names of the data set and the protocol that the runs were tested on.
        data, targets, candidates: hashes of the data set, the test targets and the test candidates; no candidates
            (``None``) if the whole catalogue was ranked.
        users, test_targets: numbers of tested users and of their test targets.
        metrics: the columns: titles of metrics such as ``NDCG@10`` by the names in everything else here, ``ndcg@10``.
        models: the rows.
        proposed: the row that is compared with all others.
        test, alpha: the name of the test, and the level of significance.
        differences: the proposed model against each other one, by every metric.
        groups: the proposed model against the best other one, in groups of targets.
        beyond: the rows with metrics beyond accuracy, such as ``coverage@10``; empty if they were not asked for.
    """

    dataset: str
    protocol: str
    data: str
    targets: str | None
    candidates: str | None
    users: int
    test_targets: int
    metrics: dict[str, str]
    models: list[Model]
    proposed: str
    test: str
    alpha: float
    differences: list[Difference]
    groups: list[GroupDifference]
    beyond: list[Model]

    def order(self, metric: str) -> list[Model]:
        """The rows, the best by ``metric`` first; of equals, the earlier row."""
        return sorted(self.models, key=lambda model: -model.means[metric])

    def best_other(self, metric: str) -> str | None:
        """The name of the best row but the proposed one."""
        return next((model.name for model in self.order(metric) if model.name != self.proposed), None)

    def difference(self, metric: str, baseline: str) -> Difference:
        return next(row for row in self.differences if (row.metric, row.baseline) == (metric, baseline))

    def is_starred(self, metric: str) -> bool:
        """Whether the proposed model is the best by ``metric``, significantly better than the second best."""
        second = self.best_other(metric)
        if second is None or self.order(metric)[0].name != self.proposed:
            return False
        p = self.difference(metric, second).p_holm
        return p is not None and p < self.alpha


def compare_runs(paths: Sequence[str | Path], options: Options) -> Comparison:
    """Compare the finished runs at ``paths``, see ``find_runs``; those that differ in nothing but the seed are one row.

    The mean of a metric is that of the runs' own results.  In tests of significance a user counts once, with the mean
    over seeds and over the user's targets.

    Raises:
        UserError: see ``find_runs`` and ``read_rows``; there is no row of the proposed name; or the data files, where
            they are needed, have changed.
    """
    folders = find_runs(paths)
    rows, users = read_rows(folders)
    if options.by and len(rows) == 1:
        raise UserError(f"--by compares two models, and all runs are of {rows[0].name}")
    data = folders[0].data()
    dataset = _dataset_if_needed(folders[0], users, options)
    numbers = np.unique(users, return_inverse=True)[1]
    values = _values(rows, options.metrics, _listed(data["protocol"], dataset))
    by_user = data["protocol"].endswith(_BY_USER)
    models = [_model(row, {metric: of[row.name] for metric, of in values.items()}, numbers, by_user) for row in rows]
    over_seeds = {metric: {name: value.mean(axis=0) for name, value in of.items()} for metric, of in values.items()}
    proposed = _proposed(models, options.proposed)
    comparison = Comparison(
        dataset=folders[0].arguments()["dataset"],
        protocol=data["protocol"],
        data=data["hash"],
        targets=data["targets"].get("test"),
        candidates=data["candidates"].get("test"),
        users=len(np.unique(numbers)),
        test_targets=len(numbers),
        metrics={metric.key: metric.title for metric in options.metrics},
        models=models,
        proposed=proposed.name,
        test=TESTS[options.test][0],
        alpha=options.alpha,
        differences=_differences(proposed, models, over_seeds, numbers, options.test),
        groups=[],
        beyond=[] if options.beyond is None else [_beyond_accuracy(row, options.beyond, options) for row in rows],
    )
    if dataset is None:
        return comparison
    traits = TargetTraits(dataset, options.groups, options.spontaneous)
    found = [row for name in options.by for row in _in_groups(comparison, over_seeds, numbers, name, traits, options)]
    return replace(comparison, groups=found)


def _dataset_if_needed(folder: RunFolder, users: list[str], options: Options) -> SERDataset | None:
    """The data set, for groups of targets and for the size of the catalogue in AUC; it takes seconds to load."""
    has_auc = any(metric.name == "auc" for metric in options.metrics)
    if options.by or (has_auc and _DRAWN.match(folder.data()["protocol"]) is None):
        return tested_dataset(folder, users, options.model_of(folder))
    return None


def _listed(protocol: str, dataset: SERDataset | None) -> int | None:
    """How many items are ranked for each target; ``None``: the whole catalogue, whose size nobody asks for."""
    if drawn := _DRAWN.match(protocol):
        return int(drawn[1]) + 1
    return None if dataset is None else dataset.target_num - 1


def _values(rows: Sequence[Row], metrics: Sequence[Metric], listed: int | None) -> dict[str, dict[str, np.ndarray]]:
    """By metric and then by row, the value of each target in each run: ``[runs, n]``."""
    return {metric.key: {row.name: metric.values(row.ranks, listed) for row in rows} for metric in metrics}


def _model(row: Row, values: Mapping[str, np.ndarray], users: np.ndarray, by_user: bool) -> Model:
    """A row of the table, from the value of each target in each run by metric, ``[runs, n]``."""
    of_runs = {
        metric: (means_of_users(value.T, users).mean(axis=0) if by_user else value.mean(axis=1))
        for metric, value in values.items()
    }
    return _over_runs(row, of_runs)


def _beyond_accuracy(row: Row, k: int, options: Options) -> Model:
    found = [beyond_accuracy(*top_lists(folder, k, options.model_of(folder))) for folder in row.folders]
    return _over_runs(row, {f"{name}@{k}": np.array([run[name] for run in found]) for name in found[0]})


def _over_runs(row: Row, of_runs: Mapping[str, np.ndarray]) -> Model:
    """A row of the table, from the value of each run by metric, ``[runs]``."""
    means = {metric: float(value.mean()) for metric, value in of_runs.items()}
    spreads = {metric: float(value.std(ddof=1)) for metric, value in of_runs.items()} if len(row.seeds) > 1 else None
    return Model(row.name, row.seeds, [str(folder.path) for folder in row.folders], means, spreads)


def _proposed(models: Sequence[Model], name: str | None) -> Model:
    """The row called ``name``, or else the one that is best by the most metrics, the earliest of equals."""
    for model in models:
        if model.name == name:
            return model
    if name is not None:
        raise ConfigError(f"--proposed '{name}': there is no such row: use any of {', '.join(m.name for m in models)}")
    best = {metric: max(model.means[metric] for model in models) for metric in models[0].means}
    return max(models, key=lambda model: sum(model.means[metric] == value for metric, value in best.items()))


def _differences(
    proposed: Model,
    models: Sequence[Model],
    values: Mapping[str, Mapping[str, np.ndarray]],
    users: np.ndarray,
    test: str,
) -> list[Difference]:
    """The proposed model against each other one, by the metrics of ``values``: by metric and row, ``[n]``."""
    differences = []
    for metric, of_rows in values.items():
        of_users = {name: means_of_users(value, users) for name, value in of_rows.items()}
        others = [model for model in models if model.name != proposed.name]
        p_values = [TESTS[test][1](of_users[other.name], of_users[proposed.name]) for other in others]
        for other, p, corrected in zip(others, p_values, holm(p_values)):
            base = other.means[metric]
            percent = 100.0 * (proposed.means[metric] / base - 1.0) if base else None
            differences.append(Difference(metric, other.name, percent, p, corrected))
    return differences


def _in_groups(
    comparison: Comparison,
    values: Mapping[str, Mapping[str, np.ndarray]],
    users: np.ndarray,
    name: str,
    traits: TargetTraits,
    options: Options,
) -> list[GroupDifference]:
    """The proposed model against the best other one in the groups by the trait ``name``."""
    trait, differences = TRAITS[name](traits), []
    for metric, of_rows in values.items():
        other = comparison.best_other(metric)
        assert other is not None
        pair = {metric: {key: of_rows[key] for key in (other, comparison.proposed)}}
        rows = compare_groups(pair, users, trait.group, trait.labels, options.seed)
        for base, mine in zip(rows[::2], rows[1::2]):
            numbers = (mine.users, base.value, mine.value, mine.gain)
            differences.append(GroupDifference(name, trait.title, mine.group, metric, other, *numbers))
    return differences
