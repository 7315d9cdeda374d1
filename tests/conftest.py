"""Shared by all tests: tiny data sets written as atomic files, and the folder of real data, where there is one."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from recbole_ser.cli import commands
from recbole_ser.compat import keep_anomaly_mode
from recbole_ser.config import SERConfig
from recbole_ser.data.dataset import SERDataset
from recbole_ser.text.item_texts import item_texts, query_texts
from recbole_ser.text.user_histories import UserHistory, as_texts, training_events

torch.set_num_threads(1)
with keep_anomaly_mode():  # which would make every backward pass of the tests several times as slow
    importlib.import_module("recbole.model.sequential_recommender")

SIZES = {"MAX_ITEM_LIST_LENGTH": 4, "max_search_length": 3, "max_clicks_per_search": 2, "max_terms_per_query": 3}


def command(*arguments: object) -> int:
    """Run ``recbole-ser`` with ``arguments``; what is wrong with them is raised, not printed."""
    return commands.main(args=list(map(str, arguments)), prog_name="recbole-ser", standalone_mode=False) or 0


def write_lines(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def write_toy(
    folder: Path, name: str = "toy", *, inter: list[str] | None = None, search: list[str] | None = None
) -> Path:
    """Users ``a`` with ties in time, ``b`` with few targets, ``c`` who never searched; item ``x`` was only clicked."""
    inter = inter if inter is not None else [
        "a i1 10", "a i2 20", "a i3 20", "a i4 30", "a i5 40", "a i6 50", "a i7 60",
        "b i2 15", "b i1 25", "b i3 35",
        "c i4 11", "c i5 12", "c i6 13", "c i7 14",
    ]  # fmt: skip
    search = search if search is not None else [
        "a q1 20 i2", "a q2 5 i3,x,i1", "a q1 40 ", "a q3 45 i6",
        "b q2 20 x",
    ]  # fmt: skip
    base = folder / name
    write_lines(
        base / f"{name}.inter",
        "user_id:token\titem_id:token\ttimestamp:float",
        *("\t".join(row.split(" ")) for row in inter),
    )
    rows = [row.split(" ") for row in search]
    write_lines(
        base / f"{name}.search",
        "user_id:token\tquery_id:token\ttimestamp:float\tclicked_items:token_seq",
        *("\t".join([user, query, time, clicks.replace(",", " ")]) for user, query, time, clicks in rows),
    )
    write_lines(
        base / f"{name}.query", "query_id:token\tterms:token_seq", "q1\tred shoe", "q2\tblue", "q3\tred hat big wool"
    )
    return base


@pytest.fixture
def toy(tmp_path: Path) -> Callable[..., SERDataset]:
    """Load the toy data set, with other rows (``inter``, ``search``) or other configuration values."""

    def load(model: str = "SASRec", inter: Any = None, search: Any = None, **values: Any) -> SERDataset:
        write_toy(tmp_path, inter=inter, search=search)
        return load_dataset(tmp_path, "toy", model, **values)

    return load


def load_dataset(folder: Path, name: str, model: str = "SASRec", **values: Any) -> SERDataset:
    config = SERConfig(model, name, None, {"data_path": str(folder), **SIZES, **values})
    return SERDataset(config)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data that ``RECBOLE_SER_DATA`` names; tests that need it are skipped without."""
    folder = os.environ.get("RECBOLE_SER_DATA")
    if not folder:
        pytest.skip("RECBOLE_SER_DATA is not set: tests on real data are left out")
    return Path(folder)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with random weights and a vocabulary of words."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra llm)")
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing

    folder = tmp_path_factory.mktemp("model")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "blue", "shoe", "hat", "wool", "big"]
    inner = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = Whitespace()
    inner.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=16, **special).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=16,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(folder)
    return folder


def training_histories(
    dataset: SERDataset, max_records: int = 20, max_clicks: int = 1, until: float = 1.0
) -> list[UserHistory]:
    """What each user searched for and chose in the training period, as text."""
    queries = query_texts(dataset)
    events = training_events(dataset, max_records, max_clicks, until)
    return as_texts(events, item_texts(dataset, queries), queries)
