"""A data set that still knows the times of its events after loading."""

from __future__ import annotations

from typing import Any

import numpy as np

from recbole_ser.data.dataset import SERDataset
from recbole_ser.data.histories import EventLog


class TimedDataset(SERDataset):
    """A data set that keeps the times of its events, in the order of its log.

    Attributes:
        item_times, search_times: int64 or float64, the times of the events in ``log.items`` and in ``log.queries``.
    """

    also_kept = ("item_times", "search_times")

    item_times: np.ndarray
    search_times: np.ndarray

    def _build_log(self) -> EventLog:
        self.item_times = self._ordered_times(self.inter_feat)
        self.search_times = self._ordered_times(getattr(self, "search_feat", None))
        return super()._build_log()

    def _ordered_times(self, feat: Any) -> np.ndarray:
        if feat is None:
            return np.zeros(0, dtype=np.int64)
        times = feat[self.time_field].to_numpy()
        return times[np.lexsort((times, feat[self.uid_field].to_numpy()))]
