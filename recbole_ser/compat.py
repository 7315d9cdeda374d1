"""Every workaround that RecBole 1.2.1 needs with current versions of its dependencies, one function each.

Each docstring gives the symptom, the cause, the versions concerned and the upstream report.  Nothing else in the
package works around RecBole, and nothing here changes RecBole's own modules for good.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.sparse import dok_matrix

# RecBole reads these names; NumPy dropped them in 1.24 (the first group) and 2.0 (the second).
_NUMPY_ALIASES = {
    "bool": np.bool_,
    "int": np.int_,
    "float": np.float64,
    "complex": np.complex128,
    "object": np.object_,
    "str": np.str_,
    "long": np.int_,
    "unicode": np.str_,
    "float_": np.float64,
    "complex_": np.complex128,
    "unicode_": np.str_,
}


def set_numpy_aliases() -> None:
    """Symptom: ``AttributeError: np.float_ was removed`` in ``Config``, ``np.float`` in ``Interaction``.

    Cause: RecBole assigns and reads aliases that NumPy removed.  Versions: numpy >= 1.24 for ``np.float``, >= 2.0 for
    ``np.float_``.  Report: RUCAIBox/RecBole#2078, #2187.  Names that NumPy has are left as they are.
    """
    for name, value in _NUMPY_ALIASES.items():
        if name not in vars(np):
            setattr(np, name, value)


def set_dok_update() -> None:
    """Symptom: ``AttributeError: dok_matrix has no attribute '_update'`` when LightGCN, NGCF, GCMC, ... are built.

    Cause: they fill their adjacency matrix by a private method of SciPy's.  Versions: scipy >= 1.13.  Report:
    RUCAIBox/RecBole#2162.  SciPy's class gets the method back if it has none.
    """
    if not hasattr(dok_matrix, "_update"):
        dok_matrix._update = lambda matrix, entries: matrix._dict.update(entries)


def fill_missing(feature: pd.DataFrame, token_fields: list[str], float_fields: list[str]) -> None:
    """Symptom: ``IndexError`` in embeddings, NaN in the padding row of float features.

    Cause: ``Dataset._fill_nan`` calls ``feat[field].fillna(inplace=True)``, which changes a copy under pandas 3.
    Versions: pandas >= 3.  Report: RUCAIBox/RecBole#2215.  Missing tokens become 0 (padding), missing floats the
    column's mean, as RecBole documents; ``feature`` is changed in place.
    """
    for field in token_fields:
        feature[field] = feature[field].fillna(0).astype(np.int64)
    for field in float_fields:
        feature[field] = feature[field].fillna(feature[field].mean())


class _NoWriter:
    """A TensorBoard writer that writes nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **kwargs: None


@contextmanager
def tensorboard_in(folder: str | Path | None) -> Iterator[None]:
    """Symptom: a folder ``log_tensorboard`` appears in the working directory of every run.

    Cause: ``Trainer.__init__`` opens a TensorBoard writer at a relative path.  Versions: RecBole 1.2.1.  Report:
    RUCAIBox/RecBole#1985.  Inside this block the writer is opened in ``folder`` instead; ``None``: nothing is written.
    """
    from recbole.trainer import trainer
    from torch.utils.tensorboard import SummaryWriter

    original = trainer.get_tensorboard
    trainer.get_tensorboard = lambda logger: _NoWriter() if folder is None else SummaryWriter(str(folder))
    try:
        yield
    finally:
        trainer.get_tensorboard = original


def visible_devices(gpu_id: object) -> object:
    """Symptom: a process that was given GPU 3 trains on GPU 0.

    Cause: ``Config._init_device`` overwrites ``CUDA_VISIBLE_DEVICES`` with ``gpu_id`` and then lets CUDA read it.
    Versions: RecBole 1.2.1.  Report: RUCAIBox/RecBole#1990.  This returns a ``gpu_id`` with which that changes nothing:
    the variable's value, if it is set.
    """
    return os.environ.get("CUDA_VISIBLE_DEVICES", gpu_id)


def cpu() -> torch.device:
    """Symptom: ``use_gpu: false`` trains on a GPU.

    Cause: ``Config._init_device`` never reads ``use_gpu``.  Versions: RecBole 1.2.1.  Report: none known.  This is the
    device to set in its place.
    """
    return torch.device("cpu")


@contextmanager
def keep_anomaly_mode() -> Iterator[None]:
    """Symptom: every training step of the process takes twice as long once a sequential model was imported.

    Cause: ``recbole/model/sequential_recommender/sine.py`` calls ``torch.autograd.set_detect_anomaly(True)`` when it is
    imported, which the package's ``__init__`` does.  Versions: RecBole 1.2.1.  Report: none known.  Models can be
    imported inside this block, at the end of which the mode is what it was before.
    """
    before = torch.is_anomaly_enabled()
    try:
        yield
    finally:
        torch.autograd.set_detect_anomaly(before)


def recbole_properties() -> Path:
    """The folder of RecBole's own YAML defaults, found from the package's path: RecBole has no function for it."""
    import recbole

    return Path(recbole.__file__).parent / "properties"


def known_incompatibilities(versions: dict[str, str | None]) -> list[tuple[str, str]]:
    """The known problems of the installed ``versions`` as pairs (problem, fix); a missing package has ``None``."""
    found = []
    recbole = versions.get("recbole")
    if recbole != "1.2.1":
        what = "recbole is not installed" if recbole is None else f"recbole {recbole} is installed"
        found.append((f"{what}; this package is written for 1.2.1", "pip install --no-deps recbole==1.2.1"))
    ray, setuptools = _major_minor(versions.get("ray")), _major_minor(versions.get("setuptools"))
    if ray is None:
        found.append(("ray is not installed: sweeps cannot run", 'pip install "ray[tune]"'))
    elif ray < (2, 7) and setuptools is not None and setuptools >= (82, 0):
        found.append(("ray before 2.7 needs pkg_resources, which setuptools 82 dropped", 'pip install "setuptools<82"'))
    numpy, pyarrow = _major_minor(versions.get("numpy")), _major_minor(versions.get("pyarrow"))
    if ray is not None and ray < (2, 7) and numpy is not None and numpy >= (2, 0):
        found.append(("ray before 2.7 does not run with NumPy 2: sweeps cannot run", 'pip install "ray[tune]>=2.9"'))
    if pyarrow is not None and pyarrow >= (26, 0) and numpy is not None and numpy < (2, 0):
        found.append(("pyarrow 26 needs NumPy 2", 'pip install "pyarrow<26"'))
    return found


def _major_minor(version: str | None) -> tuple[int, int] | None:
    if version is None:
        return None
    major, minor = (version.split("+")[0].split(".") + ["0"])[:2]
    return int(major), int(minor)
