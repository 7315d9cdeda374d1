"""Starting the workers of one run on a Ray cluster, by Ray Train."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
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
        scaling = {"num_workers": workers, "use_gpu": gpus, "trainer_resources": {"CPU": 0}}
        trainer = TorchTrainer(
            _work,
            train_loop_config={"arguments": arguments, "folder": os.getcwd()},
            torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if gpus else "gloo"),
            scaling_config=ray_versions.of_train("ScalingConfig")(**scaling),
            run_config=ray_versions.of_train("RunConfig")(name="run", storage_path=scratch, verbose=0),
        )
        try:
            trainer.fit()
        except Exception as error:  # its class is another one in every version of Ray
            raise UserError(_in_a_line(error)) from error


def _in_a_line(error: BaseException) -> str:
    """What a worker said, or that it died."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(failure := getattr(cause, "cause", cause), WorkerFailed):
            return str(failure)
        cause = cause.__cause__
    return (
        f"a worker on the cluster died ({type(error.__cause__ or error).__name__}), and the others were ended: "
        "'recbole-ser run --resume=FOLDER' goes on after the last epoch"
    )


def _work(config: dict[str, Any]) -> None:
    """Ray Train calls this in every worker, which it has connected to the others."""
    os.chdir(config["folder"])
    sys.path.insert(0, config["folder"])
    from recbole_ser import runner

    try:
        (runner.resume if "path" in config["arguments"] else runner.run)(**config["arguments"])
    except UserError as error:
        raise WorkerFailed(str(error)) from error
