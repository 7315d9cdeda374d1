"""How this process was started: alone, or as one of several workers by ``torchrun`` or whoever sets its variables."""

from __future__ import annotations

import os

# Set by ``launch``, which says on behalf of all workers what went wrong.
LAUNCHED = "RECBOLE_SER_LAUNCHED"


def started_as_several() -> bool:
    """Whether this process is one of several workers."""
    return {"RANK", "MASTER_ADDR", "MASTER_PORT"} <= set(os.environ) and int(os.environ.get("WORLD_SIZE", "1")) > 1


def told_launcher(error: Exception) -> bool:
    """Tell ``launch`` about ``error``, if it has started this process; all workers may meet the same one."""
    if LAUNCHED not in os.environ or not started_as_several():
        return False
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler  # slow to import

    get_error_handler().record_exception(error)
    return True
