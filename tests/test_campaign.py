"""A short form of the campaign in ``tests/campaign``, with the same seeds every time."""

from __future__ import annotations

import pytest
from campaign import CLASSES, campaign

CASES = {"servers": 40, "events": 200, "codes_files": 150}


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSES)
def test_the_package_keeps_its_promises(name, tmp_path):
    assert campaign(name, tmp_path, seed=0, cases=CASES[name]).total() == CASES[name]
