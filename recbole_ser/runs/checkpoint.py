"""Checkpoints that hold tensors and plain values, are written whole or not at all, and run no code when read."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from recbole_ser.errors import UserError
from recbole_ser.files import atomic_write
from recbole_ser.model.foreign import training_state

_PLAIN = (bool, int, float, str, type(None))


def save_checkpoint(path: str | Path, state: dict[str, Any]) -> None:
    """Write ``state`` so that a crash at any moment leaves either the old file or the new one.

    Raises:
        UserError: ``state`` holds something other than tensors, numbers, strings, ``None`` and containers of them.
    """
    state = plain_state(state, "checkpoint")
    with atomic_write(path, "wb") as handle:
        keeping = _ErrorKeeper(handle)
        try:
            torch.save(state, cast(IO[bytes], keeping))
        except RuntimeError as error:  # PyTorch's own, about its place in the file, when the disk is full
            raise keeping.error or error from None


class _ErrorKeeper:
    """Writes to ``handle``, and keeps the error of a write that failed."""

    def __init__(self, handle: IO[bytes]) -> None:
        self.handle = handle
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self.handle.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.handle.flush()


WEIGHTS = ("state_dict", "other_parameter")  # what of a checkpoint makes a model


def load_checkpoint(path: str | Path, device: torch.device | str, keys: tuple[str, ...] = WEIGHTS) -> dict[str, Any]:
    """Read what ``save_checkpoint`` wrote, with its tensors on ``device``.  No code from the file is ever run.

    Raises:
        UserError: the file is missing or damaged, holds more than tensors and plain values, or lacks one of ``keys``.
    """
    if not Path(path).exists():
        raise UserError(f"{path}: there is no such checkpoint")
    try:
        with zipfile.ZipFile(path) as archive:  # PyTorch writes checksums into it, and does not compare them
            if (damaged := archive.testzip()) is not None:
                raise zipfile.BadZipFile(f"the checksum of {damaged} differs")
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # on damaged bytes the restricted unpickler raises nearly anything
        raise UserError(
            f"{path}: not a checkpoint of this package, or a damaged one; it was not loaded "
            f"({_first_sentence(error)}): restore it from a copy, or start a new run"
        ) from error
    missing = [key for key in keys if not isinstance(state, dict) or key not in state]
    if missing:
        raise UserError(f"{path}: not the checkpoint that is needed here: it holds no {', '.join(missing)}")
    try:
        return _restored(state)
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{path}: holds an array or a matrix that is none ({_first_sentence(error)})") from error


def other_parameters(model: Any) -> dict[str, Any]:
    """What a RecBole model keeps beside its ``state_dict`` (Pop: counts), without modules, which are in that already.

    To what the model itself names comes what it forgets, see ``training_state``.

    Raises:
        UserError: a value that a checkpoint of tensors and plain values cannot hold.
    """
    named = {**training_state(model), **model.other_parameter()}
    kept = {name: value for name, value in named.items() if not isinstance(value, nn.Module)}
    return plain_state(kept, type(model).__name__)


def plain_state(value: Any, where: str) -> Any:
    """``value`` with tensors detached and NumPy numbers converted to Python's; ``where`` names it in the error.

    Arrays of NumPy and sparse matrices of SciPy become dictionaries of tensors, which ``load_checkpoint`` turns back.

    Raises:
        UserError: a value of any other type.
    """
    if sparse.issparse(value):
        entries = value.tocoo()
        parts = {name: torch.from_numpy(getattr(entries, name)) for name in ("row", "col", "data")}
        return {"scipy.sparse": type(value).__name__, "shape": list(value.shape), **parts}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return {"numpy": type(value).__name__, "data": torch.from_numpy(np.array(value))}
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, np.generic):
        return value.item()
    if type(value) in _PLAIN:
        return value
    if isinstance(value, dict):
        return {plain_state(key, where): plain_state(item, f"{where}.{key}") for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(plain_state(item, f"{where}[{index}]") for index, item in enumerate(value))
    raise UserError(f"{where} is a {type(value).__name__}, which a checkpoint of tensors and plain values cannot hold")


def _restored(value: Any) -> Any:
    """``value`` with the arrays and sparse matrices that ``plain_state`` made plain.

    Raises:
        AttributeError, TypeError, ValueError: something looks like one of them, and is none.
    """
    if isinstance(value, dict):
        if value.keys() == {"scipy.sparse", "shape", "row", "col", "data"}:
            return _sparse_matrix(value)
        if value.keys() == {"numpy", "data"}:
            array = value["data"].cpu().numpy()
            return np.asmatrix(array) if value["numpy"] == "matrix" else array
        return {key: _restored(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_restored(item) for item in value)
    return value


def _sparse_matrix(parts: dict[str, Any]) -> Any:
    layout, _, kind = parts["scipy.sparse"].partition("_")  # as in csr_matrix, csr_array
    row, col, data = (parts[name].cpu().numpy() for name in ("row", "col", "data"))
    coo = sparse.coo_array if kind == "array" else sparse.coo_matrix
    return coo((data, (row, col)), shape=tuple(parts["shape"])).asformat(layout)


def _first_sentence(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].split(". ")[0][:200] if lines else "no details"
