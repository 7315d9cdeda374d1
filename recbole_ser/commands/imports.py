"""How commands import what has thousands of modules."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def lasting_imports() -> Iterator[None]:
    """Import in this block what takes seconds: PyTorch, RecBole and what is built on them.

    Modules stay as long as the process, and Python's garbage collector would look through all of them again and again,
    when they are imported and later in training: a fifth of the CPU time of a short run.  It is off in this block, and
    what the block has imported is out of its sight from then on.
    """
    before, collecting = len(sys.modules), gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
        if len(sys.modules) > before:
            gc.freeze()
