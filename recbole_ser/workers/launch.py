"""Starting the workers of a run on this machine, by PyTorch's own launcher, which ``torchrun`` is the command of."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Sequence
from typing import Any

from recbole_ser.errors import ConfigError, UserError
from recbole_ser.workers.started import LAUNCHED, started_as_several


def launch(workers: int, arguments: Sequence[str]) -> int:
    """Run ``recbole-ser`` with ``arguments`` in several processes that train together, and wait for them.

    If one of them ends with an error or is killed, the others are ended, too.

    Returns:
        The exit status: 0, or that of the worker that failed first.

    Raises:
        ConfigError: this process is a worker itself.
        UserError: a worker met it, or was killed.
    """
    if started_as_several():
        raise ConfigError("--workers starts workers, and torchrun has started some already: give one of both")
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    os.environ[LAUNCHED] = "1"
    with tempfile.TemporaryDirectory() as scratch:
        config = LaunchConfig(
            min_nodes=1, max_nodes=1, nproc_per_node=workers, max_restarts=0, run_id=uuid.uuid4().hex,
            rdzv_backend="c10d", rdzv_endpoint="localhost:0", logs_specs=DefaultLogsSpecs(log_dir=scratch),
        )  # fmt: skip
        try:
            elastic_launch(config, sys.executable)("-m", "recbole_ser.cli", *arguments)
        except SignalException as stopped:
            return 128 + int(stopped.sigval)
        except ChildFailedError as error:
            return _status(error)
        finally:
            del os.environ[LAUNCHED]
    return 0


def _status(error: Any) -> int:
    """The exit status of the worker that failed first; ``Error: text`` is how PyTorch hands an exception over."""
    number, failure = error.get_first_failure()
    if failure.exitcode == 2:
        raise UserError(failure.message.partition(": ")[2])
    if failure.exitcode > 0:
        return failure.exitcode
    raise UserError(
        f"worker {number} was killed ({signal.Signals(-failure.exitcode).name}; out of memory?), and the others were "
        "ended: 'recbole-ser run --resume=FOLDER' goes on after the last epoch"
    )
