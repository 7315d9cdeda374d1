"""A whole study, from its declaration to its tables."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_ser.comparison.report import Comparison, Options, compare_runs
from recbole_ser.comparison.rows import write_names_of_study
from recbole_ser.comparison.tables import METRICS
from recbole_ser.errors import ConfigError, UserError
from recbole_ser.evaluation.metrics import parse_metrics
from recbole_ser.files import exclusive
from recbole_ser.study.cells import (
    FAILED,
    FINISHED,
    PREPARING,
    RUNNING,
    TUNING,
    WAITING,
    Cell,
    Group,
    groups_of,
    inputs_to_make,
)
from recbole_ser.study.declaration import Study, read_study
from recbole_ser.study.estimate import Planned, planned
from recbole_ser.study.jobs import Job, Running, do_all
from recbole_ser.study.progress import Progress
from recbole_ser.tuning import ray_versions
from recbole_ser.tuning.resources import Resources

_STATUS_OF = {"tune": TUNING, "prepare": PREPARING, "run": RUNNING}


@dataclass(frozen=True)
class StudyResult:
    """What came of a study.

    Args:
        folder: the study's folder; ``recbole-ser compare`` reads it.
        cells: all runs, finished or failed.
        comparisons: the table of each data set on which a run was finished.
        problems: why the finished runs on a data set cannot be compared, by the data set.
    """

    folder: Path
    cells: list[Cell]
    comparisons: dict[str, Comparison]
    problems: dict[str, str]

    @property
    def failed(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.status == FAILED]


def run_study(
    source: str | Path,
    *,
    datasets: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    folder: str | Path | None = None,
    jobs: int | None = None,
    address: str | None = None,
) -> StudyResult:
    """Run every model of a study on every data set with every seed, and compare them.

    All settings are checked before anything runs.  Rows that are to be tuned are; then what several runs read (data
    sets, codes, vectors of texts) is made; then the runs are done, several at a time.  A run that fails is reported,
    and the others go on.  Called again, the study goes on: what is finished is kept, and what was interrupted or failed
    is resumed.

    Args:
        source, datasets, settings, folder: see ``read_study``.
        jobs: number of runs, or of trials of a sweep, at the same time; by default that of the CPUs, in a cluster with
            GPUs that of the GPUs.
        address: address of a Ray cluster that does the runs and the trials; by default the environment variable
            RAY_ADDRESS or, if that is not set, this machine does.  What runs read is always made on this machine.

    Raises:
        UserError: the declaration or a setting is wrong, the folder holds other runs, or another process is running
            this study, or there is no cluster at the address.
        KeyboardInterrupt: the user pressed Ctrl-C.
    """
    runs_at_once(jobs)  # refuses a wrong number by its name here
    resources = Resources(address, jobs)
    study, groups = _checked(source, datasets, settings, folder)
    cells = [Cell(group, seed) for group in groups for seed in study.seeds]
    study.folder.mkdir(parents=True, exist_ok=True)
    with exclusive(study.folder / ".lock", f"{study.folder}: another process is running this study"):
        for dataset in study.datasets:
            names = [cell.path.name for cell in cells if cell.group.dataset == dataset]
            write_names_of_study(study.folder / dataset, names)
        progress = Progress(cells)
        done = False
        try:
            shown = _shown_by(progress)
            do_all(_sweeps(cells, resources), 1, *shown)
            do_all(_inputs(cells), 1, *shown)
            if left := _runs(cells):
                with _machines(resources) as (at_once, start):
                    do_all(left, at_once, *shown, start)
            done = True
        finally:
            progress.close(erase=done)
    return _result(study, cells)


def plan_study(
    source: str | Path,
    *,
    datasets: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    folder: str | Path | None = None,
) -> Iterator[Planned]:
    """What ``run_study`` would do, row by row, and what it costs at most; some steps of each model are measured.

    Raises:
        UserError: the declaration or a setting is wrong, or the folder holds other runs.
    """
    study, groups = _checked(source, datasets, settings, folder)
    for group in groups:
        yield planned(study, group)


def _checked(
    source: str | Path, datasets: Sequence[str], settings: Mapping[str, Any] | None, folder: str | Path | None
) -> tuple[Study, list[Group]]:
    study = read_study(source, datasets, settings, folder)
    groups = groups_of(study)
    for group in groups:
        group.check()
    return study, groups


def runs_at_once(jobs: int | None) -> int:
    """The number of runs at the same time: ``jobs``, or that of the CPUs.

    Raises:
        ConfigError: it is not a whole number from 1 on.
    """
    if jobs is not None and (type(jobs) is not int or jobs < 1):
        raise ConfigError(f"jobs is a whole number from 1 on, not {jobs}")
    return jobs or os.cpu_count() or 1


@contextmanager
def _machines(resources: Resources) -> Iterator[tuple[int, Callable[[Job], Running] | None]]:
    """How many runs there are at the same time, and what starts one: this machine, or the cluster."""
    if not resources.address:
        yield runs_at_once(resources.concurrent), None
        return
    address = resources.address
    ray_versions.import_ray(loopback=False)
    from recbole_ser.study import cluster
    from recbole_ser.tuning import engine

    with engine.cluster(resources):
        yield resources.concurrent or cluster.runs_at_once(), lambda job: cluster.ClusterProcess(job, address)


def _shown_by(progress: Progress) -> tuple[Any, Any, Any]:
    """What follows from a job's beginning and its end, see ``do_all``."""

    def began(job: Job) -> None:
        for cell in job.cells:
            cell.status = _STATUS_OF[job.kind]
        progress.say(f"{_STATUS_OF[job.kind]}: {_titles(job.cells)}")

    def ended(job: Job, error: str) -> None:
        for cell in job.cells:
            cell.status = FAILED if error else FINISHED if job.kind == "run" else WAITING
            cell.error = error
        if error or job.kind == "run":
            progress.say(f"{FAILED if error else FINISHED}: {_titles(job.cells)}{error and f': {error}'}")

    return began, ended, progress.refresh


def _titles(cells: Sequence[Cell]) -> str:
    more = f" and {len(cells) - 1} more" if len(cells) > 1 else ""
    return f"{cells[0].title}{more}"


def _sweeps(cells: Sequence[Cell], resources: Resources) -> list[Job]:
    """The sweeps that are to be done, each with as many trials at once as there may be runs."""
    at_once = resources.concurrent if resources.address else runs_at_once(resources.concurrent)
    where = {"address": resources.address, "at_once": at_once}
    jobs = []
    for _, of_one in itertools.groupby(cells, key=lambda cell: id(cell.group)):
        several = list(of_one)
        group = several[0].group
        tuning = group.row.tuning
        if tuning is not None and group.tuned_values() is None:
            how = {**tuning.options(), **where, "storage": str(group.sweep)}
            log = group.sweep.with_name(f"{group.sweep.name}.log")
            jobs.append(Job("tune", {**group.sweep_config(tuning).arguments(), **how}, log, several))
    return jobs


def _inputs(cells: Sequence[Cell]) -> list[Job]:
    """Making the data sets, codes and texts that are missing, each once."""
    needing: dict[tuple[str, ...], list[Cell]] = {}
    for cell in _left(cells):
        if missing := inputs_to_make(cell.config()):
            needing.setdefault(missing, []).append(cell)
    return [
        Job("prepare", several[0].config().arguments(), several[0].group.folder / "inputs.log", several)
        for several in needing.values()
    ]


def _runs(cells: Sequence[Cell]) -> list[Job]:
    """The runs that are to be done."""
    jobs = []
    for cell in _left(cells):
        arguments = cell.config().arguments()
        values = {**arguments["config_dict"], "run_dir": str(cell.path)}
        log = cell.path.with_name(f"{cell.path.name}.log")
        jobs.append(Job("run", {**arguments, "config_dict": values}, log, [cell]))
    return jobs


def _left(cells: Sequence[Cell]) -> list[Cell]:
    """The runs that have neither failed nor been finished, as which the others are marked."""
    for cell in cells:
        if cell.status != FAILED and cell.is_finished():
            cell.status = FINISHED
    return [cell for cell in cells if cell.status == WAITING]


def _result(study: Study, cells: list[Cell]) -> StudyResult:
    comparisons, problems = {}, {}
    for dataset in study.datasets:
        paths = [cell.path for cell in cells if cell.group.dataset == dataset and cell.status == FINISHED]
        if paths:
            try:
                comparisons[dataset] = compare_runs(paths, Options(parse_metrics(METRICS)))
            except UserError as error:  # their targets differ, say
                problems[dataset] = str(error)
    return StudyResult(study.folder, cells, comparisons, problems)
