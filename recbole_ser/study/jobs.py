"""Doing the jobs of a study: several at a time, each in a process of its own, on this machine or in a cluster.

Sweeps run their trials on Ray, which keeps data and processes between trials that differ in a few values.  The runs of
a study differ in model and data, few of them read what another has loaded, and none is ever given up for another; what
counts is that each reports its own time and peak memory, and that one that is killed takes no other with it.  So each
has a process, which loads its data itself, in seconds; what is dear to make is made before, once.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # so that a process that starts a job in a cluster stays small
    from recbole_ser.study.cells import Cell

ERROR = "error: "  # what the line begins with that says why a job failed
_PAUSE = 0.1  # seconds between two looks at the processes


@dataclass(frozen=True)
class Job:
    """Something to do, and for whom.

    Args:
        kind: what it is, one of ``worker.JOBS``.
        arguments: the arguments of that function.
        log: file that the job's output is added to.
        cells: the runs that need it.
    """

    kind: str
    arguments: dict[str, Any]
    log: Path
    cells: Sequence[Cell]


class Running(Protocol):
    """A job that was started."""

    job: Job

    def is_over(self) -> bool: ...

    def error(self) -> str:
        """Why the job failed, in one line; empty if it did not.  Only a job that is over is asked."""
        ...

    def stop(self) -> None:
        """End it; its run can be resumed from its last epoch."""
        ...


class Process:
    """A job that was started on this machine."""

    def __init__(self, job: Job) -> None:
        self.job = job
        job.log.parent.mkdir(parents=True, exist_ok=True)
        self._log_starts = job.log.stat().st_size if job.log.exists() else 0
        code = f"import sys; sys.path[:] = {sys.path!r}; from recbole_ser.study.worker import main; sys.exit(main())"
        with job.log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT
            )
        assert self._process.stdin is not None
        with suppress(BrokenPipeError), self._process.stdin as stdin:  # broken if the process has died already
            stdin.write(json.dumps({"kind": job.kind, "arguments": job.arguments}).encode())

    def is_over(self) -> bool:
        return self._process.poll() is not None

    def error(self) -> str:
        status = self._process.wait()
        if status < 0:
            return f"its process was killed (signal {-status}), as happens when memory is short"
        with self.job.log.open("rb") as log:
            log.seek(self._log_starts)
            lines = log.read().decode(errors="replace").splitlines()
        said = next((line for line in reversed(lines) if line.startswith(ERROR)), "")
        return "" if status == 0 else said.removeprefix(ERROR) or f"exit status {status}, see {self.job.log}"

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()


def do_there(kind: str, arguments: dict[str, Any], log: str, folder: str) -> str:
    """Do a job in ``folder``, from a process of a cluster; returns its error, which is empty if it went well."""
    if not Path(folder).is_dir():
        return f"{socket.gethostname()} does not see {folder}: all machines need the same working folder"
    os.chdir(folder)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    process = Process(Job(kind, arguments, Path(log), []))
    try:
        while not process.is_over():
            time.sleep(_PAUSE)
    except KeyboardInterrupt:  # this is how Ray cancels
        process.stop()
        raise
    return process.error()


def do_all(
    jobs: Sequence[Job],
    at_once: int,
    began: Callable[[Job], None],
    ended: Callable[[Job, str], None],
    looked: Callable[[], None],
    start: Callable[[Job], Running] | None = None,
) -> None:
    """Do all jobs, in their order, so many at once; if this process is interrupted, those that are running are stopped.

    Args:
        began: is called when a job has been started.
        ended: is called when it is over, with its error, which is empty if it went well.
        looked: is called every moment.
        start: starts a job; by default in a process of this machine.
    """
    start = start or Process
    waiting, running = deque(jobs), list[Running]()
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                running.append(start(waiting.popleft()))
                began(running[-1].job)
            for process in [process for process in running if process.is_over()]:
                running.remove(process)
                ended(process.job, process.error())
            looked()
            time.sleep(_PAUSE)
    finally:
        for process in running:
            process.stop()
