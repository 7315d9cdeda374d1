"""Who gains from GSERec on the bundled sample, whose users search often or seldom and have the same tastes.

    python benchmarks/sparse_users.py --out=saved/sparse_users      # some minutes on one thread

Trains SESRec, GSERec, and GSERec with every user's codes dealt out anew between users, with several seeds.  Prints
NDCG@10 by how often the users search (the generator knows), and the lead over SESRec with its standard error over
users, whose metrics are first averaged over the seeds.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from measure import machine, print_table

from recbole_ser.bundled import package_folder
from recbole_ser.codes.stage import ensure_codes
from recbole_ser.config import SERConfig
from recbole_ser.convert.prepare import ensure_dataset
from recbole_ser.data.codes import read_codes, write_codes
from recbole_ser.data.dataset import SERDataset
from recbole_ser.runner import run

DATASET = "ser-sample"
LEVELS = ("rich", "sparse")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs; finished ones are not repeated")
    parser.add_argument("--seeds", type=int, nargs="+", default=[2023, 2024, 2025])
    arguments = parser.parse_args()
    real, dealt = arguments.out / "real.codes", arguments.out / "dealt.codes"
    prepare_codes(real, dealt)
    variants: dict[str, dict[str, Any]] = {
        "SESRec": {},
        "GSERec": {"codes_file": str(real)},
        "GSERec, codes dealt out anew": {"codes_file": str(dealt)},
    }
    values = {name: mean_ndcg(name, keys, arguments.out, arguments.seeds) for name, keys in variants.items()}
    print(machine())
    report(pd.DataFrame(values))


def prepare_codes(real: Path, dealt: Path) -> None:
    """Codes of the users, and the same with whole rows given to other users."""
    config = SERConfig("GSERec", DATASET, None, {"codes_file": str(real), "show_progress": False})
    ensure_dataset(config["data_path"], config.final_config_dict)
    dataset = SERDataset(config)
    ensure_codes(config, dataset)
    codes = read_codes(real, dataset)
    order = np.random.default_rng(0).permutation(dataset.user_num - 1)
    write_codes(dealt, dataset, codes.search[1:].numpy()[order], codes.rec[1:].numpy()[order], codes.origin)


def mean_ndcg(name: str, keys: dict[str, Any], out: Path, seeds: list[int]) -> pd.Series:
    """NDCG@10 of each user's test target, the mean over seeds."""
    ranks = []
    for seed in seeds:
        folder = out / f"{name}-{seed}"
        if not (folder / "result.json").is_file():
            settings = {**keys, "seed": seed, "run_dir": str(folder), "show_progress": False, "state": "WARNING"}
            run(name.partition(",")[0], DATASET, config_dict=settings)
        ranks.append(pd.read_csv(folder / "ranks.csv", dtype={"user_id": str}).set_index("user_id")["rank"])
    gains = [np.where(rank <= 10, 1 / np.log2(rank + 1), 0.0) for rank in ranks]
    return pd.Series(np.mean(gains, axis=0), index=ranks[0].index)


def report(ndcg: pd.DataFrame) -> None:
    users = pd.read_csv(package_folder("dataset_atomic") / DATASET / f"{DATASET}.user", sep="\t", index_col=0)
    level = users.iloc[:, 0].reindex(ndcg.index)
    groups = [ndcg[level == name] for name in LEVELS]
    rows = [["users", *map(len, groups), ""]]
    for name in ndcg:
        rows.append([name, *(f"{group[name].mean():.3f}" for group in groups), f"{ndcg[name].mean():.3f}"])
    for name in ndcg.columns[1:]:
        leads = [group[name] - group["SESRec"] for group in groups]
        means, errors = [lead.mean() for lead in leads], [lead.std() / len(lead) ** 0.5 for lead in leads]
        cells = [f"{mean:+.3f} +- {error:.3f}" for mean, error in zip(means, errors)]
        rows.append([f"lead of {name}", *cells, f"{means[1] - means[0]:+.3f} +- {np.hypot(*errors):.3f}"])
    print_table(["NDCG@10", *LEVELS, "all, or sparse - rich"], rows)


if __name__ == "__main__":
    main()
