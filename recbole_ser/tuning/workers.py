"""Starting the workers of one run on a Ray cluster, by Ray Train."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from recbole_ser.errors import UserError
from recbole_ser.tuning import ray_versions
from recbole_ser.tuning.resources import Resources


class WorkerFailed(Exception):
    """A worker met a ``UserError``, whose text this is."""


def launch_on_cluster(workers: int, address: str, arguments: dict[str, Any], use_gpu: bool) -> None:
    """Make one run in several processes of a Ray cluster that train together, and wait for them.

    Every machine must see the data set and the folder of the run under the same path.

    Args:
        arguments: those of ``runner.run`` or, with ``path``, of ``runner.resume``.
        use_gpu: whether each worker gets a GPU, if the cluster has any.

    Raises:
        UserError: there is no cluster, or a worker met such an error or died.
    """
    ray_versions.import_ray(loopback=False)
    from ray.train.torch import TorchConfig, TorchTrainer  # after ``import_ray``

    from recbole_ser.tuning.engine import cluster, has_gpus

    with cluster(Resources(address=address), show_output=True), tempfile.TemporaryDirectory() as scratch:
        logging.getLogger("ray").setLevel(logging.CRITICAL)
        gpus = use_gpu and has_gpus()
        trainer = TorchTrainer(
            _work,
            train_loop_config={"arguments": arguments, "folder": os.getcwd()},
            torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if gpus else "gloo"),
            **ray_versions.train_settings(workers, gpus, scratch),
        )
        try:
            trainer.fit()
        except Exception as error:  # its class is another one in every version of Ray
            raise UserError(_in_a_line(error)) from error


def _in_a_line(error: BaseException) -> str:
    """What a worker said, or that it died."""
    for cause in _causes(error):
        if isinstance(cause, WorkerFailed):
            return str(cause)
    return (
        f"a worker on the cluster died ({type(error.__cause__ or error).__name__}), and the others were ended: "
        "'recbole-ser run --resume=FOLDER' goes on after the last epoch"
    )


def _causes(error: Any) -> Iterator[BaseException]:
    """The error and all that Ray, whose versions differ in where they put them, has wrapped in it."""
    waiting, seen = [error], set()
    while waiting:
        current = waiting.pop(0)
        if isinstance(current, BaseException) and id(current) not in seen:
            seen.add(id(current))
            yield current
            waiting += [getattr(current, name, None) for name in ("cause", "_base_exc", "__cause__")]
            waiting += dict(getattr(current, "worker_failures", {})).values()


def _work(config: dict[str, Any]) -> None:
    """Ray Train calls this in every worker, which it has connected to the others."""
    os.chdir(config["folder"])
    sys.path.insert(0, config["folder"])
    from recbole_ser import runner

    try:
        (runner.resume if "path" in config["arguments"] else runner.run)(**config["arguments"])
    except UserError as error:
        raise WorkerFailed(str(error)) from error
