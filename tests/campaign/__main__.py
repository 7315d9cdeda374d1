"""``python tests/campaign``: attack the package for as long as given."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from campaign import CLASSES, campaign


def main() -> None:
    parser = argparse.ArgumentParser(prog="python tests/campaign", description=__doc__)
    parser.add_argument("classes", nargs="*", metavar="CLASS", help=f"{', '.join(CLASSES)} (default: all)")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to attack with each class (default: 60)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first case; the next has the next seed")
    given = parser.parse_args()
    for name in given.classes or CLASSES:
        with tempfile.TemporaryDirectory() as folder:
            outcomes = campaign(name, Path(folder), given.seed, seconds=given.seconds)
        listed = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(outcomes.items()))
        print(f"{name:<16}{outcomes.total():>8,} cases: {listed}", flush=True)


if __name__ == "__main__":
    main()
