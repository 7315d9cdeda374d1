"""One job of a study in a process of its own: ``jobs.py`` starts it, and writes what is to be done to its input."""

from __future__ import annotations

import json
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recbole_ser import runner
from recbole_ser.config import SERConfig
from recbole_ser.errors import UserError, one_line
from recbole_ser.study.jobs import ERROR
from recbole_ser.tuning import sweep
from recbole_ser.tuning.resources import Resources


def main() -> int:
    """Do the job on standard input; its last line of output says what failed, if something did."""
    try:
        do(**json.load(sys.stdin))
    except UserError as error:
        print(f"{ERROR}{one_line(str(error))}")
        return 1
    except KeyboardInterrupt:
        print(f"{ERROR}interrupted")
        return 130
    except Exception as error:  # whatever it is, the other jobs do not depend on it
        traceback.print_exc()
        sys.stderr.flush()
        print(f"{ERROR}{type(error).__name__}: {one_line(str(error))}")
        return 1
    return 0


def do(kind: str, arguments: dict[str, Any]) -> None:
    """Do a job of this kind: any of ``JOBS``."""
    JOBS[kind](**arguments)


def _run(model: str, dataset: str, config_dict: dict[str, Any]) -> None:
    """Train and test, or go on where it was interrupted."""
    folder = Path(config_dict["run_dir"])
    if (folder / "config.yaml").is_file():
        runner.resume(folder, model=_outside(model))
        return
    shutil.rmtree(folder, ignore_errors=True)  # a run that was killed before it wrote what it is has nothing to keep
    runner.run(model, dataset, config_dict=config_dict)


def _prepare(model: str, dataset: str, config_dict: dict[str, Any]) -> None:
    """Make the data set, and the codes and texts, that several runs read."""
    runner.prepare(SERConfig(model, dataset, None, config_dict))


def _tune(
    model: str,
    dataset: str,
    config_dict: dict[str, Any],
    storage: str,
    address: str | None,
    at_once: int | None,
    **options: Any,
) -> None:
    """Tune, or go on where it was interrupted."""
    resources = Resources(address, at_once)
    if (Path(storage) / "sweep.json").is_file():
        sweep.resume(storage, model=_outside(model), resources=resources)
        return
    shutil.rmtree(storage, ignore_errors=True)
    sweep.tune(model, dataset, storage=storage, resources=resources, config_dict=config_dict, **options)


def _outside(model: str) -> str | None:
    """The model, if it has to be named again: the study's file names it, so its code may run."""
    return model if ":" in model else None


JOBS: dict[str, Callable[..., None]] = {"run": _run, "prepare": _prepare, "tune": _tune}
