"""Doing the runs of a study on a Ray cluster.  Import this module after calling ``ray_versions.import_ray``."""

from __future__ import annotations

import os

import ray

from recbole_ser.study.jobs import Job, do_there
from recbole_ser.tuning.engine import has_gpus, per_trial
from recbole_ser.tuning.resources import Resources

_UNTIL_STOPPED = 30  # seconds that a process is waited for


class ClusterProcess:
    """A job that was handed to the cluster in use, which starts it where the CPUs and GPUs that it needs are free.

    It has as many CPUs as ``num_threads`` says, and a GPU if there are any and ``use_gpu`` is set.  The machine that
    does it must have this package, and see the working folder, the data and the study's folder under the same paths.
    """

    def __init__(self, job: Job, address: str) -> None:
        self.job = job
        (cell,) = job.cells
        config = cell.config()
        gpus = None if config["use_gpu"] else 0.0
        wanted = per_trial(Resources(address, None, float(config["num_threads"] or 1), gpus))
        task = ray.remote(do_there).options(num_cpus=wanted["cpu"], num_gpus=wanted.get("gpu", 0), max_retries=0)
        self._answer = task.remote(job.kind, job.arguments, str(job.log), os.getcwd())

    def is_over(self) -> bool:
        return bool(ray.wait([self._answer], timeout=0)[0])

    def error(self) -> str:
        try:
            return str(ray.get(self._answer))
        except ray.exceptions.RayError as error:
            return f"its process or its machine was lost ({type(error).__name__}), see {self.job.log}"

    def stop(self) -> None:
        ray.cancel(self._answer)
        ray.wait([self._answer], timeout=_UNTIL_STOPPED)


def runs_at_once() -> int:
    """How many runs the cluster in use can do at once, if each has one CPU and, where there are any, one GPU."""
    resources = ray.cluster_resources()
    return max(1, int(min(resources.get("CPU", 1), resources["GPU"] if has_gpus() else float("inf"))))
