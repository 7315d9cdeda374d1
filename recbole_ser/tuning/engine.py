"""Running trials on Ray Tune.  Import this module after calling ``ray_versions.import_ray``, which sets Ray up."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from recbole_ser.errors import ConfigError, UserError, one_line
from recbole_ser.runs.sweep_folder import FINISHED, KEPT, KILLED, RUNNING, STOPPED, SweepFolder, best_trial
from recbole_ser.tuning import ray_versions
from recbole_ser.tuning.live import LiveTable
from recbole_ser.tuning.plan import Plan
from recbole_ser.tuning.resources import Resources
from recbole_ser.tuning.search import Search
from recbole_ser.tuning.trial import Shared, Task

_log = logging.getLogger()


@contextmanager
def cluster(resources: Resources, show_output: bool = False) -> Iterator[None]:
    """Connect to Ray for this block: the cluster in use already, the one at ``resources.address``, or a new local one.

    Args:
        show_output: whether what processes of the cluster print is printed here, too.

    Raises:
        UserError: Ray does not start, or there is no cluster at that address.
    """
    if ray.is_initialized():
        yield
        return
    quiet: dict[str, Any] = {"log_to_driver": show_output, "logging_level": "ERROR"}
    try:
        if resources.address:
            ray.init(address=resources.address, **quiet)
        else:
            ray.init(address="local", include_dashboard=False, **quiet)
            if ray.util.get_node_ip_address() != "127.0.0.1":
                _log.warning("Ray was imported before this sweep: it listens on all interfaces, not on loopback only")
    except Exception as error:  # Ray raises just that when a busy machine does not start it in time
        where = resources.address or "local"
        raise UserError(f"Ray does not start or is not there ({where}): {one_line(str(error))}") from error
    try:
        yield
    finally:
        _fetched.clear()  # its memory goes with the cluster
        ray.shutdown()


def has_gpus() -> bool:
    """Whether the cluster has any GPU."""
    return ray.cluster_resources().get("GPU", 0) > 0


def share(shared: Shared) -> Any:
    """Put ``shared`` where every trial can read it without a copy, and return a reference to it."""
    return ray_versions.put_tensors_once(ray, shared)


def fetch(reference: Any) -> Shared:
    """What ``share`` put there, unpacked once per process."""
    if reference not in _fetched:
        _fetched.clear()
        _fetched[reference] = ray.get(reference)
    return _fetched[reference]


_fetched: dict[Any, Shared] = {}


def per_trial(resources: Resources) -> dict[str, float]:
    """The numbers of CPUs and GPUs of a trial: by default one CPU, and one GPU if there are any.

    Raises:
        ConfigError: this machine has fewer.  For a cluster, which may still grow, there is a warning instead.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    most = {kind: max((node.get(kind, 0.0) for node in nodes), default=0.0) for kind in ("CPU", "GPU")}
    gpus = float(most["GPU"] > 0) if resources.gpus_per_trial is None else resources.gpus_per_trial
    wanted = {"CPU": resources.cpus_per_trial, "GPU": gpus}
    for kind, amount in wanted.items():
        if amount > most[kind]:
            problem = f"{kind.lower()}s_per_trial: {amount:g} are wanted, and no machine has more than {most[kind]:g}"
            if not resources.address:
                raise ConfigError(problem)
            _log.warning(f"{problem} yet: trials wait until one has")
    return {kind.lower(): amount for kind, amount in wanted.items() if amount}


@dataclass
class Trials:
    """Proposes the trials of a sweep, from its start or resumption on, and records how each of them ended.

    Args:
        plan: the plan of the sweep.
        search: proposes configurations.
        folder: the folder of the sweep.
        metric: the validation metric that chooses.
        live: the table in the terminal.
        epochs: the largest number of epochs of a trial.
        proposed: number of trials that were proposed so far.
    """

    plan: Plan
    search: Search
    folder: SweepFolder
    metric: str
    live: LiveTable
    epochs: int
    proposed: int = 0

    def propose(self) -> int | None:
        """The number of the next trial, whose folder then exists; ``None`` when all trials have been proposed."""
        if self.proposed == self.plan.trials:
            return None
        number = self.proposed
        self.proposed += 1
        trial = self.folder.trial(number)
        if not (trial.path / "trial.json").exists():
            self.folder.add_trial(number, self.search.propose(number))
        elif trial.outcome.get("status") not in KEPT:
            trial.reopen()
        self.live.show(trial.read(self.metric))
        return number

    def reported(self, number: int) -> None:
        self.live.show(self.folder.trial(number).read(self.metric), RUNNING)

    def ended(self, number: int, died: bool) -> None:
        """Record the end of trial ``number``; one that wrote no outcome itself was stopped, or its process died."""
        folder = self.folder.trial(number)
        if not folder.outcome:
            if died:
                folder.end(KILLED, "its process died twice")
            else:
                folder.end(FINISHED if folder.read(self.metric).epochs >= self.epochs else STOPPED)
        trial = folder.read(self.metric)
        if trial.status in KEPT:
            self._drop_weights()
        if trial.score is not None and trial.status in KEPT:
            self.search.observe(trial.values, trial.score)
        self.live.show(trial)

    def _drop_weights(self) -> None:
        """Delete the weights of all trials that have ended, except the best one's."""
        trials = [t for t in self.folder.read_trials(self.metric) if t.status in KEPT]
        best = best_trial(trials)
        for trial in trials:
            self.folder.trial(trial.number).drop_weights(best=best is None or trial.number != best.number)


class _Uncopied:
    """Tune copies and pickles its arguments to restore them; a sweep is resumed from its own folder instead."""

    def __deepcopy__(self, memo: Any) -> Any:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Proposals(_Uncopied, Searcher):
    def __init__(self, trials: Trials) -> None:
        super().__init__(metric="score", mode="max")
        self.trials = trials

    def suggest(self, trial_id: str) -> Any:
        number = self.trials.propose()
        return Searcher.FINISHED if number is None else {"number": number}

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Nothing to do: ``_Events`` handles it."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: a sweep is resumed from its own folder."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: a sweep is resumed from its own folder."""


class _Events(_Uncopied, tune.Callback):
    def __init__(self, trials: Trials) -> None:
        self.trials = trials

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self.trials.live.refresh()

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        self.trials.reported(trial.config["number"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.trials.ended(trial.config["number"], died=False)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.trials.ended(trial.config["number"], died=True)


def run_trials(task: Task, shared: Any, trials: Trials, wanted: dict[str, float], concurrent: int | None) -> None:
    """Run all trials that have not ended.  A trial whose process dies is started once more from its checkpoint.

    Args:
        task: trains the trials.
        shared: the reference that ``share`` returned.
        trials: proposes the trials and records their ends.
        wanted: the CPUs and GPUs of a trial, see ``per_trial``.
        concurrent: the largest number of trials at the same time; ``None``: no limit but CPUs and GPUs.
    """
    scratch = trials.folder.path / ".ray"  # files that Tune writes and nobody reads
    shutil.rmtree(scratch, ignore_errors=True)
    trainable = tune.with_parameters(_train, task=task, shared=[shared])
    tuner = tune.Tuner(
        tune.with_resources(trainable, wanted),
        tune_config=tune.TuneConfig(
            search_alg=_Proposals(trials),
            scheduler=_scheduler(trials.plan, trials.epochs),
            num_samples=trials.plan.trials,
            max_concurrent_trials=concurrent,
            reuse_actors=True,  # a process that has loaded PyTorch and the data trains more than one trial
        ),
        run_config=ray_versions.run_config(
            name="tune",
            storage_path=str(scratch),
            callbacks=[_Events(trials)],
            failure_config=ray_versions.failure_config(max_failures=1),
            verbose=0,
        ),
    )
    done = False
    try:
        tuner.fit()
        done = True
    finally:
        trials.live.close(erase=done)
        shutil.rmtree(scratch, ignore_errors=True)


def _scheduler(plan: Plan, epochs: int) -> TrialScheduler:
    if plan.scheduler == "none":
        return FIFOScheduler()
    return ASHAScheduler(
        time_attr="epochs",
        metric="score",
        mode="max",
        max_t=max(epochs, plan.grace_period) + 1,  # Tune would stop a trial at max_t before it records its outcome
        grace_period=plan.grace_period,
        reduction_factor=plan.reduction_factor,
    )


def _train(config: dict[str, Any], task: Task, shared: list[Any]) -> None:
    """Tune calls this in a process of the cluster, for each trial."""
    task.run(config["number"], lambda: fetch(shared[0]), ray_versions.report)
