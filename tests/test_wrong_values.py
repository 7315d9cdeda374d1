"""The campaign of wrong values: every key of every model with values of all kinds is refused in one line, or trains."""

from __future__ import annotations

import copy
import datetime
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SIZES, write_toy

from recbole_ser.config import SERConfig
from recbole_ser.data.dataset import SERDataset
from recbole_ser.data.loader import TrainLoader
from recbole_ser.errors import UserError
from recbole_ser.evaluation.evaluator import RankEvaluator
from recbole_ser.registry import MODELS
from recbole_ser.runner import Prepared, build_trainer, claim_folder
from recbole_ser.settings.run import FIXED, AllSettings
from recbole_ser.testing import write_random_codes, write_random_texts

WRONG: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 0.5, -0.5, 1e30, -1e30, 10**12, 100_000, math.nan, math.inf, "", "abc", "false",
    "1", "[1", [], [0], [-1], ["a"], [[1]], {}, {"a": 1}, {"max_norm": -1}, (1, 2), datetime.date(2014, 5, 1),
)  # fmt: skip

# Places to write to, where any text but one without a character is right.
PATHS = {"data_path", "run_dir", "codes_file", "texts_folder"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("campaign")
    rows = [f"u{n} i{(3 * n + 5 * place) % 17} {10 * place + n % 3}" for n in range(12) for place in range(9)]
    searches = [f"u{n} q{1 + (n + place) % 3} {10 * place + 5} i{place},x" for n in range(12) for place in range(4)]
    write_toy(folder, inter=rows, search=searches)
    return folder


def keys_of(model: str) -> Iterator[str]:
    """The model's own keys; with the first model also all others, and the parts of the mappings among them."""
    config = SERConfig(model, "toy")
    yield from sorted(config.model_keys)
    if model != next(iter(MODELS)):
        return
    yield from sorted(set(AllSettings.model_fields) | {path for path in FIXED if "." not in path})
    for key in ("eval_args", "train_neg_sample_args", "codes", "texts"):
        yield from (f"{key}.{part}" for part in config[key])
    yield from ("codes.rqvae.levels", "codes.rqvae.hidden", "eval_args.split.TS", "eval_args.mode.test", "no_such_key")


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_a_wrong_value_is_one_line_and_any_other_trains(model: str, folder: Path, tmp_path: Path) -> None:
    tried = refused = 0
    for key in keys_of(model):
        for number, value in enumerate(WRONG):
            if key in PATHS and isinstance(value, str) and value:
                continue
            tried += 1
            try:
                one_step(model, folder, tmp_path / f"{key}-{number}", {key: copy.copy(value)})
            except UserError as error:
                refused += 1
                assert "\n" not in str(error) and len(str(error)) < 700, (key, value)
            except BaseException as error:
                raise AssertionError(f"{model}: {key}={value!r}: {type(error).__name__}: {error}") from error
    print(f"{model}: {tried} values, {refused} refused")
    assert refused > tried / 2 or not SERConfig(model, "toy").model_keys


def one_step(model: str, folder: Path, run_dir: Path, values: dict[str, Any]) -> None:
    """One step of training, and the metrics of some ranks, as far as ``values`` let it come."""
    common = {"data_path": str(folder), "run_dir": str(run_dir), "require_both_histories": False, "state": "CRITICAL",
              "eval_args.mode": "uni5", "show_progress": False, "train_batch_size": 16, **SIZES}  # fmt: skip
    config = SERConfig(model, "toy", None, {**common, **values})
    dataset = SERDataset(config)
    if getattr(config.model_class, "reads_codes", False):
        config["codes_file"] = f"{run_dir}.codes"
        write_random_codes(config["codes_file"], dataset)
    if getattr(config.model_class, "reads_texts", False):
        config["texts_folder"] = f"{run_dir}.texts"
        write_random_texts(config["texts_folder"], dataset)
    RankEvaluator(config).evaluate(torch.tensor([1, 2, 9]), torch.tensor([1, 1, 2]))
    config["run_dir"] = str(run_dir)
    trainer = build_trainer(config, claim_folder(config), Prepared(dataset, {}, None))
    batch = next(iter(TrainLoader(config, dataset)))
    trainer.model.train()
    losses = trainer._losses(batch.to(trainer.device))
    trainer._step(losses)
    assert all(torch.isfinite(loss) for loss in losses.values())
