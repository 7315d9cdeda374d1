"""Time and memory of a run."""

from __future__ import annotations

import sys
import time

import torch


class Stopwatch:
    """Measures wall-clock and CPU seconds (of all threads) since it was made or last read."""

    def __init__(self) -> None:
        self._started = (time.perf_counter(), time.process_time())

    def lap(self) -> dict[str, float]:
        """``seconds`` (wall-clock) and ``cpu_seconds`` since the last reading."""
        now = (time.perf_counter(), time.process_time())
        seconds, cpu_seconds = (after - before for after, before in zip(now, self._started))
        self._started = now
        return {"seconds": round(seconds, 3), "cpu_seconds": round(cpu_seconds, 3)}


def peak_memory_mib() -> dict[str, float]:
    """The largest resident memory of this process so far and, with a GPU, the largest that tensors took there, in MiB.

    On Windows the first is not available, and left out.
    """
    memory = {}
    try:
        import resource
    except ImportError:
        pass
    else:
        unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, other systems KiB
        memory["peak_memory_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20, 1)
    if torch.cuda.is_available():
        memory["peak_gpu_memory_mib"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return memory
