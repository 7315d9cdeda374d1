"""A short form of the campaign in ``tests/campaign``, with the same seeds every time."""

from __future__ import annotations

import pytest
from campaign import CLASSES, campaign

CASES = {
    "atomic_files": 40, "bit_rot": 25, "codes_files": 100, "events": 150, "full_disks": 12, "kills": 1, "layouts": 25,
    "mappings": 60, "places": 20, "run_folders": 25, "servers": 40, "sweep_folders": 80,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSES)
def test_the_package_keeps_its_promises(name, tmp_path):
    assert campaign(name, tmp_path, seed=0, cases=CASES[name]).total() == CASES[name]
