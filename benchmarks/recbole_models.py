"""Every sequential and general model of RecBole, tried on one data set.

    python benchmarks/recbole_models.py --dataset=ser-sample
    python benchmarks/recbole_models.py --dataset=ser-sample --models CORE EASE --epochs=5

Each model is trained with the defaults, but for the settings in ``NEEDED``, which it cannot do without; a second run of
it is interrupted after its first epoch and resumed.  Both must come to the same result, and the first, loaded again,
must give the same ranks and recommend.  A model that is refused must be refused in one line.  Arguments that the script
does not know go to every run.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import pkgutil
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import recbole
import torch

from recbole_ser import Recommender, resume, run
from recbole_ser.commands.arguments import parse_arguments
from recbole_ser.compat import keep_anomaly_mode
from recbole_ser.data.loader import EvalLoader
from recbole_ser.errors import UserError
from recbole_ser.evaluation.ranking import rank_targets
from recbole_ser.registry import is_model

PACKAGES = ("recbole.model.sequential_recommender", "recbole.model.general_recommender")

# What a model needs to be run on the bundled sample.
NEEDED: dict[str, dict[str, Any]] = {
    "ConvNCF": {"embedding_size": 64},  # its kernels fit no other width
    "FDSA": {"selected_features": ["category"]},
    "GRU4RecF": {"selected_features": ["category"]},
    "SASRecF": {"selected_features": ["category"]},
}
NOISY = frozenset(["ADMMSLIM", "Random"])  # their scores are new at every call


class Outcome(NamedTuple):
    """What came of trying one model: it ``runs``, or is ``refused``, or has ``failed``."""

    kind: str
    line: str
    seconds: float


class Interrupted(Exception):
    """Ends a run after its first epoch."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--models", nargs="+", help="default: all")
    arguments, settings = parser.parse_known_args()
    torch.set_num_threads(1)
    values = {"epochs": 2, **parse_arguments(settings)}
    kinds = []
    print("| model | outcome | CPU s | |\n|---|---|---:|---|")
    for path in map(model_in, modules()):
        name = path.rpartition(":")[2]
        if arguments.models is None or name in arguments.models:
            with tempfile.TemporaryDirectory() as folder:
                outcome = tried(path, arguments.dataset, Path(folder), {**NEEDED.get(name, {}), **values})
            kinds.append(outcome.kind)
            print(f"| {name} | {outcome.kind} | {outcome.seconds:.1f} | {outcome.line} |", flush=True)
    print("\n" + ", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds))) + f", of {len(kinds)}")


def modules() -> list[str]:
    """The modules of ``PACKAGES``, each of which holds one model; none of them is imported."""
    folders = [Path(recbole.__file__).parent.joinpath(*package.split(".")[1:]) for package in PACKAGES]
    return [
        f"{package}.{module.name}" for package, folder in zip(PACKAGES, folders)
        for module in pkgutil.iter_modules([str(folder)])
    ]  # fmt: skip


def model_in(module: str) -> str:
    """The path ``module:Class`` of the model that ``module`` defines."""
    with keep_anomaly_mode():
        members = vars(importlib.import_module(module))
    (name,) = (name for name, value in members.items() if is_model(value) and value.__module__ == module)
    return f"{module}:{name}"


def tried(path: str, dataset: str, folder: Path, values: dict[str, Any]) -> Outcome:
    """Train, resume and load the model ``path``, with its runs in ``folder``."""
    start = time.process_time()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            kind, line = "runs", _trained(path, dataset, folder, {"show_progress": False, "state": "ERROR", **values})
    except UserError as error:
        kind, line = ("failed" if "\n" in str(error) else "refused"), str(error)
    except Exception as error:  # what must not happen is what this script looks for
        kind, line = "failed", f"{type(error).__name__}: {error}"
    return Outcome(kind, line, time.process_time() - start)


def _trained(path: str, dataset: str, folder: Path, values: dict[str, Any]) -> str:
    """The result of the model ``path`` in one line, after all checks."""

    def interrupt(epoch: int, valid: dict[str, float]) -> None:
        raise Interrupted

    whole = run(path, dataset, config_dict={**values, "run_dir": str(folder / "whole")})
    with contextlib.suppress(Interrupted):
        run(path, dataset, config_dict={**values, "run_dir": str(folder / "halves")}, callback=interrupt)
    resumed = resume(folder / "halves")
    recommender = Recommender.load(folder / "whole")
    assert len(recommender.recommend(recommender.users[:3], k=2)) == 6
    assert (resumed.test, resumed.ranks) == (whole.test, whole.ranks), "the resumed run has another result"
    if whole.model not in NOISY:
        assert np.array_equal(_ranks(recommender), _ranks_written(folder / "whole")), "loaded, it ranks differently"
    return f"NDCG@10 {whole.test['ndcg@10']:.3f}"


def _ranks(recommender: Any) -> np.ndarray:
    loader = EvalLoader(recommender.config, recommender.dataset, "test")
    return rank_targets(recommender.scorer, loader, recommender.device, "it").numpy()


def _ranks_written(folder: Path) -> np.ndarray:
    lines = (folder / "ranks.csv").read_text(encoding="utf-8").splitlines()[1:]
    return np.array([int(line.rpartition(",")[2]) for line in lines])


if __name__ == "__main__":
    main()
