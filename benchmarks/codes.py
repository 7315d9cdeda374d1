"""The codes of generated users: CPU seconds, memory beyond the vectors, and how training went.

python benchmarks/codes.py 75258               # some minutes, one thread
python benchmarks/codes.py 192403 --width 1024 --steps 200
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import torch
from measure import cpu_seconds, machine, peak_memory_mib, reset_peak_memory

from recbole_ser.codes.rqvae import Codes, fit_codes
from recbole_ser.settings.codes import RQVAESpec

TASTES, OF_A_USER = 200, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("users", type=int)
    parser.add_argument("--width", type=int, default=128, help="of the vectors (%(default)s)")
    parser.add_argument("--steps", type=int, default=RQVAESpec().max_steps, help="budget of training (%(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    search, rec = user_vectors(arguments.users, arguments.width)
    results: list[Codes] = []
    reset_peak_memory()
    before = peak_memory_mib()
    spec = RQVAESpec(max_steps=arguments.steps)
    seconds = cpu_seconds(lambda: results.append(fit_codes(search, rec, spec, progress=True)))
    print(machine())
    print(f"{arguments.users:,} users, width {arguments.width}: {seconds:,.0f} CPU s")
    print(f"{peak_memory_mib() - before:,.0f} MiB beyond the vectors")
    print(json.dumps(results[0].report, indent=1))


def user_vectors(users: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors of both sides: each user mixes the same few of all tastes on both, in other shares, with noise."""
    generator = np.random.default_rng(0)
    tastes = generator.normal(size=(TASTES, width)).astype(np.float32)
    mixed = generator.integers(TASTES, size=(users, OF_A_USER))
    sides = []
    for _ in range(2):
        vectors = generator.standard_normal((users, width), dtype=np.float32)
        vectors *= 0.2
        for taste, share in zip(mixed.T, generator.dirichlet(np.ones(OF_A_USER), size=users).T.astype(np.float32)):
            vectors += share[:, None] * tastes[taste]
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        sides.append(vectors)
    return sides[0], sides[1]


if __name__ == "__main__":
    main()
