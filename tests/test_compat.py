"""The workarounds: each is needed for what it says, and does it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import recbole.trainer.trainer as recbole_trainer
import torch

from recbole_ser import compat
from recbole_ser.config import SERConfig


def test_numpy_aliases_are_set_and_existing_names_kept() -> None:
    before = np.bool_
    compat.set_numpy_aliases()
    for name, value in {"float_": np.float64, "float": np.float64, "unicode_": np.str_, "bool": np.bool_}.items():
        assert getattr(np, name) is value
    assert np.bool_ is before


def test_missing_values_are_filled_in_place() -> None:
    frame = pd.DataFrame({"kind": [np.nan, 2.0, 1.0], "price": [np.nan, 2.0, 4.0]})
    compat.fill_missing(frame, ["kind"], ["price"])
    assert frame.kind.tolist() == [0, 2, 1] and frame.kind.dtype == np.int64
    assert frame.price.tolist() == [3.0, 2.0, 4.0]


def test_tensorboard_writes_into_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    original = recbole_trainer.get_tensorboard
    with compat.tensorboard_in(tmp_path / "here"):
        recbole_trainer.get_tensorboard(None).close()
    assert list((tmp_path / "here").iterdir()) and not (tmp_path / "log_tensorboard").exists()
    assert recbole_trainer.get_tensorboard is original


def test_importing_recboles_models_leaves_anomaly_detection_off() -> None:
    code = """
        import torch
        from recbole_ser.registry import find_model
        find_model("SASRec")
        assert not torch.is_anomaly_enabled()
        torch.autograd.set_detect_anomaly(True)
        find_model("GRU4Rec")
        assert torch.is_anomaly_enabled()
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_a_process_keeps_the_devices_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    seen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(seen.append(os.environ["CUDA_VISIBLE_DEVICES"])))
    config = SERConfig("SASRec", "ser-sample", None, {"gpu_id": "0"})
    assert set(seen) == {"3"} and os.environ["CUDA_VISIBLE_DEVICES"] == "3" and config["gpu_id"] == "3"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert SERConfig("SASRec", "ser-sample", None, {"gpu_id": "1"})["gpu_id"] == "1"


OLD = {"recbole": "1.2.1", "ray": "2.6.3", "setuptools": "81.0.0", "numpy": "1.26.4", "pyarrow": "25.0.1"}
NEW = {"recbole": "1.2.1", "ray": "2.60.0", "setuptools": "84.0.0", "numpy": "2.4.6", "pyarrow": "26.0.1"}


@pytest.mark.parametrize(
    ("versions", "words"),
    [
        (OLD, []),
        (NEW, []),
        ({**NEW, "recbole": "1.1.1"}, ["recbole 1.1.1"]),
        ({**NEW, "recbole": None}, ["recbole is not installed"]),
        ({**NEW, "ray": "2.6.3"}, ["pkg_resources", "NumPy 2"]),
        ({**OLD, "ray": None, "setuptools": None, "numpy": "1.26.4+local", "pyarrow": "26.0.1"}, ["ray", "pyarrow 26"]),
    ],
)
def test_known_incompatibilities(versions: dict[str, str | None], words: list[str]) -> None:
    found = compat.known_incompatibilities(versions)
    assert len(found) == len(words)
    for word, (problem, fix) in zip(words, found):
        assert word in problem and fix.startswith("pip install")


def test_recboles_own_defaults_are_where_they_are_looked_for() -> None:
    assert (compat.recbole_properties() / "overall.yaml").is_file()


def test_without_recbole_one_line_says_how_to_install_it() -> None:
    hidden = textwrap.dedent("""
        import sys
        class Hidden:
            def find_spec(self, name, *rest):
                if name == "recbole":
                    raise ModuleNotFoundError(name=name)
        sys.meta_path.insert(0, Hidden())
    """)
    code = hidden + "from recbole_ser.cli import main; sys.exit(main(['run', '-m', 'SESRec', '-d', 'ser-sample']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: RecBole is missing: pip install --no-deps recbole==1.2.1 ")
    done = subprocess.run(
        [sys.executable, "-c", hidden + "from recbole_ser import run"], capture_output=True, text=True
    )
    assert done.stderr.splitlines()[-1].startswith("ImportError: RecBole is missing: pip install --no-deps")
