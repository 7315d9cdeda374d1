"""The report of ``recbole-ser groups``, which turns the folders of runs into tables."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recbole_ser.errors import UserError
from recbole_ser.evaluation.groups import ALL, GroupMetric, Groups, compare, quantile_groups
from recbole_ser.evaluation.tested_runs import refuse_other_targets, refuse_other_users, tested_dataset
from recbole_ser.files import atomic_write, write_json
from recbole_ser.runs.folder import RunFolder
from recbole_ser.runs.loading import finished_run


@dataclass(frozen=True)
class GroupReport:
    """The result of ``recbole-ser groups`` (``groups.json``).

    Args:
        dataset, protocol: names of the data set and the protocol that the runs were tested on.
        data, candidates: hashes of the data set and of the test candidates; no candidates (``None``) if the whole
            catalogue was ranked.
        edges, groups: the counts at which groups begin, and the groups' labels.
        by_quantiles: whether the edges are quantiles of the data.
        users: number of tested users in each group, by their searches before the test target, the first one of a user
            with several.
        targets: number of test targets of all these users together.
        all_users: number of all users of the data set in each group, by all their searches (Figure 1).
        runs: folder of each run by its name; the others are compared with the first.
        seed: seed of the bootstrap.
        rows: the value of every metric for every run and group.
    """

    dataset: str
    protocol: str
    data: str
    candidates: str | None
    edges: list[int]
    by_quantiles: bool
    groups: list[str]
    users: list[int]
    targets: int
    all_users: list[int]
    runs: dict[str, str]
    seed: int
    rows: list[GroupMetric]

    @property
    def metrics(self) -> list[str]:
        return list(dict.fromkeys(row.metric for row in self.rows))

    def row(self, metric: str, group: str, run: str) -> GroupMetric:
        return next(row for row in self.rows if (row.metric, row.group, row.run) == (metric, group, run))


def group_report(
    paths: Sequence[str | Path],
    metrics: Sequence[str],
    edges: tuple[int, ...] | None = None,
    number: int = 4,
    seed: int = 0,
    model: str | None = None,
) -> GroupReport:
    """Compare the finished runs in the folders ``paths`` by user group; a sweep's folder stands for its chosen trial.

    Args:
        metrics: names of metrics, see ``metric_values``.
        edges: the counts at which groups begin; ``None``: ``number`` quantiles of the tested users.
        number: number of groups if no edges are given.
        seed: seed of the bootstrap.
        model: the first run's model, if no installed package registers it, see ``run_config``.

    Raises:
        UserError: a folder holds no finished run, the runs have different data or candidates, or the data files have
            changed.
    """
    folders = [finished_run(path) for path in paths]
    for other in folders[1:]:
        refuse_other_targets(folders[0], other)
    ranks = {name: folder.ranks() for name, folder in zip(_names(folders), folders)}
    users = [frame["user_id"].tolist() for frame in ranks.values()]
    refuse_other_users(folders, users)
    dataset = tested_dataset(folders[0], users[0], model)
    test = dataset.split.test.long()
    tested = dataset.log.users[test].numpy()
    first = np.unique(tested, return_index=True)[1]  # the row of each user's first target: rows rise with time
    counts = dataset.log.search_length[test[first]].numpy()
    totals = dataset.log.search_start.diff()[1:].numpy()  # of every user but padding
    groups = quantile_groups(counts, number) if edges is None else Groups(edges)
    data = folders[0].data()
    return GroupReport(
        dataset=dataset.dataset_name,
        protocol=data["protocol"],
        data=data["hash"],
        candidates=data["candidates"].get("test"),
        edges=list(groups.edges),
        by_quantiles=edges is None,
        groups=groups.labels,
        users=groups.sizes(counts),
        targets=len(test),
        all_users=groups.sizes(totals),
        runs={name: str(folder.path) for name, folder in zip(ranks, folders)},
        seed=seed,
        rows=compare(
            {name: frame["rank"].to_numpy() for name, frame in ranks.items()},
            counts,
            groups,
            metrics,
            seed,
            tested,
        ),
    )


def _names(folders: Sequence[RunFolder]) -> list[str]:
    """A name for each run: its model, or the folder where several runs have the same model."""
    models = [folder.model_name() for folder in folders]
    names = [folder.path.name if Counter(models)[model] > 1 else model for model, folder in zip(models, folders)]
    names = names if len(set(names)) == len(names) else [str(folder.path) for folder in folders]
    for name, count in Counter(names).items():
        if count > 1:
            raise UserError(f"{name}: this run is given twice")
    return names


# --- tables ---------------------------------------------------------------------------------------------------------


def report_text(report: GroupReport) -> str:
    """The report as tables for a terminal, 80 to 100 columns wide for up to six groups."""
    how = "quantiles" if report.by_quantiles else "as given"
    edges = ", ".join(map(str, report.edges)) or "none"
    sizes = zip([*report.groups, ALL], _with_sum(report.users), _with_sum(report.all_users))
    users = sum(report.users)
    several = [f"{report.targets:,} test targets: a value is the mean over users of the mean over each one's targets"]
    lines = [
        f"{report.dataset}, {report.protocol}: {users:,} users by their searches before the test target"
        + ", the first of them" * (report.targets > users),
        *several * (report.targets > users),
        f"edges: {edges} ({how})",
        "",
        f"{'searches':<12}{'users':>12}{'all users, by all their searches':>40}",
        *(f"{label:<12}{users:>12,}{everyone:>40,}" for label, users, everyone in sizes),
    ]
    for metric in report.metrics:
        lines += ["", *_values(report, metric)]
        if len(report.runs) > 1:
            lines += ["", *_gains(report, metric)]
    return "\n".join(lines)


def _with_sum(numbers: list[int]) -> list[int]:
    return [*numbers, sum(numbers)]


def _values(report: GroupReport, metric: str) -> list[str]:
    labels = [*report.groups, ALL]
    width = max(len(name) for name in [metric, *report.runs]) + 2
    lines = [f"{metric:<{width}}" + "".join(f"{label:>10}" for label in labels)]
    for name in report.runs:
        values = [report.row(metric, label, name).value for label in labels]
        lines.append(f"{name:<{width}}" + "".join(f"{_number(value, '.4f'):>10}" for value in values))
    return lines


def _gains(report: GroupReport, metric: str) -> list[str]:
    first, *later = report.runs
    width = max(map(len, later)) + 2
    lines = [
        f"{metric}: improvement over {first} in per cent, 95 % interval (bootstrap), p (paired t-test)",
        f"{'':<{width}}{'searches':<12}{'users':>10}{'improvement':>14}{'interval':>24}{'p':>10}",
    ]
    for name in later:
        for label in [*report.groups, ALL]:
            row = report.row(metric, label, name)
            start = f"{name if label == report.groups[0] else '':<{width}}{label:<12}{row.users:>10,}"
            lines.append(start + _gain_text(row))
    return lines


def _gain_text(row: GroupMetric) -> str:
    if row.gain is None:
        return f"{'-':>14}{'-':>24}{'-':>10}"
    gain = row.gain
    interval = "-" if gain.low is None else f"[{_percent(gain.low)}, {_percent(gain.high)}]"
    p = "<0.001" if gain.p is not None and gain.p < 0.001 else _number(gain.p, ".3f")
    return f"{_percent(gain.percent):>14}{interval:>24}{p:>10}"


def _percent(value: float | None) -> str:
    return _number(None if value is None else round(value, 1) + 0.0, "+.1f")  # + 0.0, as -0.0 says nothing


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def write_tables(report: GroupReport, folder: Path) -> None:
    """Write ``groups.json`` with everything, ``group_sizes.csv`` and ``group_metrics.csv``, in full precision."""
    write_json(folder / "groups.json", asdict(report))
    sizes = zip(report.groups, report.users, report.all_users)
    _write_csv(folder / "group_sizes.csv", ["searches", "users", "all_users"], sizes)
    header = ["metric", "searches", "users", "run", "value", "improvement_percent", "low", "high", "p"]
    rows = (
        [row.metric, row.group, row.users, row.run, row.value, *(asdict(row.gain).values() if row.gain else [None] * 4)]
        for row in report.rows
    )
    _write_csv(folder / "group_metrics.csv", header, rows)


def _write_csv(path: Path, header: list[str], rows: Iterable[Iterable[Any]]) -> None:
    with atomic_write(path) as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
