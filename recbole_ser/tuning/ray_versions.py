"""The differences between the Ray that RecBole pins (2.6.3) and a current one, and settings that keep Ray quiet."""

from __future__ import annotations

import importlib
import os
import warnings
from typing import Any

import torch

# Environment variables that Ray reads when it is imported or started.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # no usage reports are sent
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune would print its own tables
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_worker_niceness": "0",  # trials have the priority that runs have, not next to the lowest
    "RAY_prestart_worker_first_driver": "0",  # Tune gives trials an environment, with which they start anew
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # a trial's folder has its metrics already
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial may fail before its first epoch
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
# Without this, Ray listens on all network interfaces even for one machine; on Linux no argument restricts it.
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


def import_ray(loopback: bool) -> None:
    """Set Ray up, and import it for the first time.

    Args:
        loopback: whether a cluster that is started from this process listens on 127.0.0.1 only.
    """
    for name, value in {**_ENVIRONMENT, **(_LOOPBACK if loopback else {})}.items():
        os.environ.setdefault(name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings come from packages that Ray 2.6.3 imports
        importlib.import_module("ray.tune")


def run_config(**values: Any) -> Any:
    """Ray's ``RunConfig``, which moved from ``ray.air`` to ``ray.tune``."""
    return _moved("RunConfig")(**values)


def failure_config(**values: Any) -> Any:
    """Ray's ``FailureConfig``, which moved from ``ray.air`` to ``ray.tune``."""
    return _moved("FailureConfig")(**values)


def of_train(name: str) -> Any:
    """Ray Train's ``ScalingConfig`` or ``RunConfig``, which moved from ``ray.air`` to ``ray.train``."""
    return getattr(importlib.import_module("ray.train"), name, None) or getattr(
        importlib.import_module("ray.air.config"), name
    )


def train_settings(workers: int, use_gpu: bool, storage: str) -> dict[str, Any]:
    """The ``scaling_config`` and ``run_config`` of a trainer of Ray Train, which is quiet and itself needs no CPU.

    Current versions of Ray have no settings for either, and refuse them by a ``DeprecationWarning``.
    """
    scaling = {"num_workers": workers, "use_gpu": use_gpu}
    running = {"name": "run", "storage_path": storage}
    try:
        with_more = of_train("ScalingConfig")(**scaling, trainer_resources={"CPU": 0})
        return {"scaling_config": with_more, "run_config": of_train("RunConfig")(**running, verbose=0)}
    except DeprecationWarning:
        return {"scaling_config": of_train("ScalingConfig")(**scaling), "run_config": of_train("RunConfig")(**running)}


def report(metrics: dict[str, Any]) -> None:
    """Report ``metrics`` from inside a trial, by the function that this version of Ray has for a mapping."""
    tune = importlib.import_module("ray.tune")
    if hasattr(tune, "RunConfig"):
        tune.report(metrics)
    else:
        importlib.import_module("ray.air.session").report(metrics)


def _moved(name: str) -> Any:
    tune = importlib.import_module("ray.tune")
    return getattr(tune, name, None) or getattr(importlib.import_module("ray.air"), name)


def put_tensors_once(ray: Any, value: Any) -> Any:
    """Put ``value`` into Ray's store so that all processes of a machine read the same memory, also for CPU tensors.

    Ray shares NumPy arrays between processes but copies tensors, so tensors are stored as arrays.  Tensors that are
    read back this way must not be written to.
    """
    ray.util.register_serializer(torch.Tensor, serializer=lambda tensor: tensor.numpy(), deserializer=_as_tensor)
    try:
        return ray.put(value)
    finally:
        ray.util.deregister_serializer(torch.Tensor)


def _as_tensor(array: Any) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the array is meant to be read-only
        return torch.from_numpy(array)
