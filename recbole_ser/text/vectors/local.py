"""Vectors by a transformer model in a folder on this machine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbole_ser.errors import ConfigError, DataError, one_line
from recbole_ser.files import sha256
from recbole_ser.records import read_record
from recbole_ser.text.model_folder import in_model_folder
from recbole_ser.text.vectors.cached import cached_vectors
from recbole_ser.text.vectors.distinct import encode_distinct

POOLINGS = ("auto", "mean", "cls")
_FILES = ("*.json", "*.txt", "*.model", "*.safetensors", "*.bin", "*/config.json")  # all that decides the vectors
_REMEDY = "get the folder of the model again"
_TOKENISED_AT_ONCE = 1024


class LocalEncoder:
    """Encodes texts with a model in a folder that transformers (``save_pretrained``) or sentence-transformers wrote.

    Only transformers is needed.  Nothing is downloaded, and no code in the folder is run: weights are safetensors, or
    files of PyTorch that hold tensors only.  A text that is longer than ``max_length`` tokens is read up to there.
    Every vector goes into ``cache`` once its batch is done, so an interrupted encoding goes on where it was.

    Args:
        cache: file of vectors, see ``text.cache``.
        path: the folder.
        pooling: ``mean`` for the mean of the last layer's states, ``cls`` for the first state, ``auto`` for what a
            folder of sentence-transformers says, or else ``mean``.
        max_length: how many tokens of a text are read, unless the folder says fewer.
        batch_size: number of texts that are encoded together.
        device: PyTorch's name of the device; by default a GPU if there is one.

    Raises:
        ConfigError: the pooling is unknown, or ``batch_size`` is less than 1.
        DataError: the folder holds no such model, or a sentence-transformers model with more than pooling and scaling.
    """

    def __init__(
        self,
        cache: str | Path,
        path: str | Path,
        pooling: str = "auto",
        max_length: int = 512,
        batch_size: int = 32,
        device: str | None = None,
    ) -> None:
        if pooling not in POOLINGS:
            raise ConfigError(f"pooling '{pooling}' is not known: use any of {', '.join(POOLINGS)}")
        if batch_size < 1:
            raise ConfigError(f"batch_size: {batch_size} is not a positive number")
        self.cache, self.path, self.batch_size = Path(cache), Path(path), batch_size
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if not (self.path / "config.json").is_file():
            raise DataError(self.path, "holds no model: there is no config.json", hint="give a folder, not a name")
        declared = _sentence_transformer(self.path)
        self.pooling = declared.get("pooling", "mean") if pooling == "auto" else pooling
        self.max_length = min(max_length, declared.get("max_length", max_length))

    def describe(self) -> dict[str, Any]:
        """The name of the model, the hash of its files, and the settings."""
        model = {"model": self.path.resolve().name, "sha256": self._fingerprint}
        return {"backend": "local", **model, "pooling": self.pooling, "max_length": self.max_length}

    @cached_property
    def _fingerprint(self) -> str:
        files = sorted({file for pattern in _FILES for file in self.path.glob(pattern)})
        listing = "".join(f"{file.relative_to(self.path).as_posix()} {sha256(file)}\n" for file in files)
        return hashlib.sha256(listing.encode()).hexdigest()

    def encode(self, texts: Sequence[str], progress: bool = False) -> np.ndarray:
        """See ``TextEncoder``.

        Raises:
            UserError: transformers is not installed, cannot read the folder, or fails with the model in it.
            DataError: the cache is damaged.
        """
        return encode_distinct(
            texts, lambda distinct: cached_vectors(self.cache, self.describe(), distinct, self._arriving, progress)
        )

    def _arriving(self, texts: list[str]) -> Iterator[tuple[Sequence[int], np.ndarray]]:
        with in_model_folder(self.path), torch.no_grad():
            tokenizer, model = self._load()
            cut = {"truncation": True, "max_length": min(self.max_length, tokenizer.model_max_length)}
            order = np.argsort(_token_counts(tokenizer, texts, cut), kind="stable").tolist()  # hardly any padding
            for start in range(0, len(texts), self.batch_size):
                rows = order[start : start + self.batch_size]
                batch = tokenizer([texts[row] for row in rows], padding=True, return_tensors="pt", **cut)
                batch = batch.to(self.device)
                states = model(**batch).last_hidden_state  # [b, tokens, d]
                yield rows, _pool(states, batch["attention_mask"], self.pooling).float().cpu().numpy()

    def _load(self) -> tuple[Any, Any]:
        from transformers import AutoModel, AutoTokenizer

        settings = {"local_files_only": True, "trust_remote_code": False}
        tokenizer = AutoTokenizer.from_pretrained(self.path, **settings)
        model = AutoModel.from_pretrained(self.path, **settings)
        tokenizer.padding_side = "right"  # so that the first token belongs to the text
        return tokenizer, model.eval().to(self.device)


def _token_counts(tokenizer: Any, texts: list[str], cut: dict[str, Any]) -> list[int]:
    """How many tokens of each text are read; a few texts at a time, since their tokens take much memory."""
    parts = (texts[start : start + _TOKENISED_AT_ONCE] for start in range(0, len(texts), _TOKENISED_AT_ONCE))
    return [len(tokens) for part in parts for tokens in tokenizer(part, **cut)["input_ids"]]


def _pool(states: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """Pool ``states [b, tokens, d]`` to ``[b, d]``, leaving out padding."""
    if pooling == "cls":
        return states[:, 0]
    weight = mask.unsqueeze(-1).to(states.dtype)  # [b, tokens, 1]
    return (states * weight).sum(dim=1) / weight.sum(dim=1)


@dataclass
class _Module:
    type: str
    path: str


@dataclass
class _Limit:
    max_seq_length: int | None = None


def _sentence_transformer(folder: Path) -> dict[str, Any]:
    """``pooling`` and ``max_length``, as far as the files of sentence-transformers in ``folder`` give them."""
    if not (folder / "modules.json").is_file():
        return {}
    declared: dict[str, Any] = {}
    for module in read_record(folder / "modules.json", list[_Module], _REMEDY):
        kind = module.type.rpartition(".")[2]
        if kind == "Pooling":
            declared["pooling"] = _declared_pooling(folder / module.path / "config.json")
        elif kind not in ("Transformer", "Normalize"):
            raise DataError(
                folder / "modules.json", f"the module {kind} is not supported", hint="use precomputed vectors"
            )
    settings = folder / "sentence_bert_config.json"
    limit = read_record(settings, _Limit, _REMEDY).max_seq_length if settings.is_file() else None
    return declared if limit is None else {**declared, "max_length": limit}


def _declared_pooling(path: Path) -> str:
    """The pooling in a file that has a switch for each pooling or, in recent versions, the name of one."""
    settings = read_record(path, dict[str, Any], _REMEDY)
    switched_on = [name for name, on in settings.items() if name.startswith("pooling_mode_") and on]
    declared = switched_on or [str(settings.get("pooling_mode"))]
    names = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "mean": "mean", "cls": "cls"}
    if len(declared) != 1 or declared[0] not in names:
        problem = f"pools by {one_line(', '.join(declared))}, not by mean or cls"
        raise DataError(path, problem, hint="use precomputed vectors")
    return names[declared[0]]
