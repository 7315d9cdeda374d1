"""Attacks on the package, each case made from a seed.  ``python tests/campaign --help`` runs them for as long as given.

Every module here is one class of attacks with a function ``prepare``.  It makes what is attacked, in an empty folder,
and returns the attack: a function that makes one case from random numbers, tries it, and names its outcome
(``refused``, ``unharmed``, ...).  The attack raises AssertionError if the package did not keep its promises, which
are: an error is one line and exit code 2, no result is silently wrong, no file is lost, nothing hangs.
"""

from __future__ import annotations

import contextlib
import io
import time
import traceback
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from random import Random

Attack = Callable[[Random], str]

CLASSES = (
    "atomic_files", "bit_rot", "codes_files", "events", "full_disks", "kills", "layouts", "mappings", "places",
    "run_folders", "servers", "sweep_folders",
)  # fmt: skip


def campaign(name: str, folder: Path, seed: int, cases: int | None = None, seconds: float | None = None) -> Counter:
    """Run cases ``seed``, ``seed + 1``, ... of class ``name``, and count their outcomes.

    Args:
        folder: an empty folder.
        cases, seconds: when to stop.

    Raises:
        AssertionError: a promise was broken; the message names class and seed, from which the case can be made again.
    """
    attack: Attack = import_module(f"campaign.{name}").prepare(folder)
    outcomes: Counter = Counter()
    end = time.monotonic() + (seconds or float("inf"))
    while outcomes.total() != cases and time.monotonic() < end:
        number = seed + outcomes.total()
        try:
            outcomes[attack(Random(number))] += 1
        except Exception as error:
            raise AssertionError(f"{name}, seed {number}: {error}") from error
    return outcomes


def command(*arguments: object) -> tuple[int, str]:
    """Run ``recbole-ser`` in this process.

    Returns:
        The exit status, and what was written to standard output and error.

    Raises:
        AssertionError: the command ended with a traceback, or in an error that is not one line.
    """
    from recbole_ser.cli import main

    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            status = main([str(argument) for argument in arguments])
        except BaseException as problem:
            text = "".join(traceback.format_exception(problem))
            raise AssertionError(f"recbole-ser {' '.join(map(str, arguments))}:\n{text}") from problem
    lines = [line for line in error.getvalue().splitlines() if line.startswith("error: ")]
    lines = lines or ["a report"] * (arguments[0] == "validate" and bool(out.getvalue()))
    assert status == 0 or (status == 2 and len(lines) == 1), (arguments, status, error.getvalue())
    return status, out.getvalue() + error.getvalue()
