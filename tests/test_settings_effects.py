"""Every key of a run has an effect: with another value something else is seen.  A new key has to be added here too."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import SIZES, load_dataset, write_lines, write_toy
from tqdm import tqdm

from recbole_ser.codes.stage import build_codes
from recbole_ser.comparison.rows import read_rows
from recbole_ser.config import SERConfig
from recbole_ser.data import dataset as dataset_module
from recbole_ser.data.loader import EvalLoader, TrainLoader
from recbole_ser.inference import Recommender
from recbole_ser.runner import run
from recbole_ser.runs.folder import RunFolder
from recbole_ser.settings.run import AllSettings
from recbole_ser.texts.stage import build_texts
from recbole_ser.train import trainer as trainer_module

ALL = {"inter": "*", "search": "*", "query": "*", "item": "*", "user": "*"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy data set with repeated interactions, attributes of all types, and an added file of vectors."""
    folder = tmp_path_factory.mktemp("effects")
    users = [f"u{n}" for n in range(12)]
    rows = [
        f"{user} i{(3 * n + 5 * place) % 17} {10 * place + n % 3}" for n, user in enumerate(users) for place in range(9)
    ]
    searches = [
        f"{user} q{1 + (n + place) % 3} {10 * place + 5} i{place},x,i{n}"
        for n, user in enumerate(users)
        for place in range(4)
    ]
    base = write_toy(folder, inter=[*rows, "u0 i0 95", "u1 i3 96", "u1 i3 97"], search=searches)
    items = [f"i{n}\tt{n % 3}\tg{n % 2} g{n % 5} h\t{n / 2}\ti{(n + 1) % 17}" for n in range(16)]
    write_lines(base / "toy.item", "item_id:token\ttype:token\ttags:token_seq\tprice:float\tlike:token", *items)
    write_lines(base / "toy.user", "user_id:token\tlevel:token\tage:float\tfriend:token",
                *[f"{user}\tl{n % 2}\t{n}\tu{(n + 1) % 12}" for n, user in enumerate(users)])  # fmt: skip
    write_lines(base / "toy.vec", "iid:token\tvector:float_seq", *[f"i{n}\t{n} {n * n}" for n in range(16)])
    return folder


def values_of(folder: Path, values: dict[str, Any]) -> dict[str, Any]:
    return {"data_path": str(folder), "require_both_histories": False, "load_col": ALL, **values}


# --- what can be seen -----------------------------------------------------------------------------------------------


def log(folder: Path, values: dict[str, Any]) -> Any:
    """The events, the splits, the attributes and the numbers of ids of the loaded data set."""
    dataset = load_dataset(folder, "toy", "SESRec", **values_of(folder, values))
    split = dataset.split
    tables = {**dataset.item_attributes, **dataset.user_attributes, **dataset.item_numbers, **dataset.user_numbers}
    tensors = {"items": dataset.log.items, "queries": dataset.log.queries, "clicks": dataset.log.clicks,
               "sources": dataset.log.sources, "terms": dataset.query_terms, "train": split.train, "valid": split.valid,
               "test": split.test, **tables}  # fmt: skip
    counts = {field: dataset.num(field) for field in ("like", "friend") if field in dataset.field2id_token}
    return dataset.summary(), counts, {name: tensor.tolist() for name, tensor in tensors.items()}


def batch(folder: Path, values: dict[str, Any], model: str = "SESRec") -> Any:
    """The fields of the first training batch."""
    dataset = load_dataset(folder, "toy", model, **values_of(folder, values))
    first = next(iter(TrainLoader(dataset.config, dataset)))
    return {name: tensor.tolist() for name, tensor in first.interaction.items()}


def pointwise(folder: Path, values: dict[str, Any]) -> Any:
    """The names of the fields of a batch for a model of RecBole's that learns from labels."""
    return sorted(batch(folder, values, "recbole.model.sequential_recommender:DIN"))


def targets(folder: Path, values: dict[str, Any]) -> Any:
    """The number of evaluated batches, and the hash of the candidates."""
    dataset = load_dataset(folder, "toy", "SESRec", **values_of(folder, values))
    loader = EvalLoader(dataset.config, dataset, "test")
    return len(loader), None if loader.candidates is None else loader.candidates.hash


def trained(folder: Path, values: dict[str, Any], tmp_path: Path) -> Any:
    """Metrics of a short run and everything that its folder says of each epoch."""
    quick = {"epochs": 3, "hidden_size": 8, "embedding_size": 4, "alignment_negatives": 8, "mlp_hidden_size": [8],
             "eval_args.mode": "uni5", "show_progress": False,
             "state": "WARNING", "run_dir": str(tmp_path / f"run{len(list(tmp_path.iterdir()))}"), **SIZES}  # fmt: skip
    result = run("SESRec", "toy", config_dict=values_of(folder, {**quick, **values}))
    lines = trainer_module.RunFolder(result.folder).metrics()
    epochs = [{key: line[key] for key in ("epoch", "losses", "valid", "learning_rate")} for line in lines]
    return result.folder.name, result.test, result.valid, result.best_epoch, epochs


def placed(folder: Path, values: dict[str, Any], tmp_path: Path) -> Any:
    """The folder's name, without the number that tells runs apart here."""
    return trained(folder, {"epochs": 1, **values}, tmp_path)[0].rstrip("0123456789")


def device(folder: Path, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The device on a machine that seems to have GPUs, and which of them can be seen."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    config = SERConfig("SESRec", "toy", None, values_of(folder, values))
    import os

    return str(config["device"]), os.environ.get("CUDA_VISIBLE_DEVICES")


def kept_in(folder: Path, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Where a large data set is kept for the next run."""
    monkeypatch.setattr(dataset_module, "WORTH_BYTES", 0)
    dataset = load_dataset(folder, "toy", "SESRec", **values_of(folder, values))
    assert dataset.cache is not None and (dataset.cache.folder / ".lock").exists()
    return str(dataset.cache.folder)


def row(folder: Path, values: dict[str, Any], tmp_path: Path) -> Any:
    """The name of the run's row in a comparison."""
    run_dir = tmp_path / str(len(list(tmp_path.iterdir())))
    quick = {"epochs": 1, "eval_args.mode": "uni5", "show_progress": False, "run_dir": str(run_dir)}
    run("SASRec", "toy", config_dict=values_of(folder, {**SIZES, **quick, **values}))
    return read_rows([RunFolder(run_dir)])[0][0].name


def threads(folder: Path, values: dict[str, Any], tmp_path: Path) -> Any:
    before = torch.get_num_threads()
    try:
        trained(folder, {"epochs": 1, **values}, tmp_path)
        return torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def deterministic(folder: Path, values: dict[str, Any], tmp_path: Path) -> Any:
    trained(folder, {"epochs": 1, **values}, tmp_path)
    return torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark


def bars(folder: Path, values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Whether the progress bar of an epoch is disabled, which ``None`` leaves to the terminal."""
    seen = []
    monkeypatch.setattr(trainer_module, "tqdm", lambda *a, **k: seen.append(k["disable"]) or tqdm(*a, **k))
    trained(folder, {"epochs": 1, **values}, tmp_path)
    return seen[:1]


def messages(folder: Path, values: dict[str, Any], tmp_path: Path) -> Any:
    name = trained(folder, {"epochs": 1, **values}, tmp_path)[0]
    return [line.split(" ", 3)[2] for line in (tmp_path / name / "log.txt").read_text().splitlines()]


def tracked_by_mlflow(folder: Path, values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What reaches MLflow."""
    seen: list[Any] = []
    begun = SimpleNamespace(info=SimpleNamespace(run_id="r"))

    def log_batch(run_id: str, metrics: Any = (), params: Any = ()) -> None:
        assert run_id == "r"
        seen.append(sorted({key for key, *_ in metrics or params})[:3])

    client = SimpleNamespace(
        get_experiment_by_name=lambda name: None, create_experiment=lambda name: seen.append(name) or "e",
        create_run=lambda experiment, run_name: begun, log_batch=log_batch, set_terminated=seen.append,
    )  # fmt: skip
    mlflow = SimpleNamespace(MlflowClient=lambda: client, active_run=lambda: None, MlflowException=OSError)
    entities = SimpleNamespace(Metric=lambda *values: values, Param=lambda *values: values)
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    monkeypatch.setattr("recbole_ser.config.find_spec", lambda name: True)
    trained(folder, {"epochs": 1, **values}, tmp_path)
    return seen


def tracked(folder: Path, values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What reaches Weights & Biases."""
    wandb = SimpleNamespace(run=None, seen=[])

    def init(**arguments: Any) -> None:
        wandb.seen.append(arguments["project"])
        wandb.run = SimpleNamespace(summary={})

    def finish() -> None:
        wandb.seen.append(sorted(wandb.run.summary)[:2])
        wandb.run = None

    wandb.init, wandb.finish = init, finish
    wandb.define_metric = lambda *a, **k: None
    wandb.log = lambda metrics, commit=True: wandb.seen.append(sorted(metrics))
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setattr("recbole_ser.config.find_spec", lambda name: True)
    trained(folder, {"epochs": 1, **values}, tmp_path)
    return wandb.seen


def codes(folder: Path, values: dict[str, Any], tmp_path: Path) -> Any:
    """The codes that are made, and where they are read from."""
    few = {"codes": {"rqvae": {"epochs": 1, "users_per_code": 1}}, "codes_file": str(tmp_path / "x.codes"), **values}
    dataset = load_dataset(folder, "toy", "GSERec", **values_of(folder, few))
    build_codes(dataset, dataset.config["codes"], dataset.config["codes_file"])
    return dataset.config["codes_file"], dataset.user_codes.search.shape


def texts(folder: Path, values: dict[str, Any], tmp_path: Path) -> Any:
    """The vectors of texts that are made, and where they are read from."""
    values = {"texts_folder": str(tmp_path / "x.texts"), **values}
    dataset = load_dataset(folder, "toy", "SASRec", **values_of(folder, values))
    build_texts(dataset, dataset.config["texts"], dataset.config["texts_folder"])
    return dataset.config["texts_folder"], dataset.user_texts.vectors.shape


WITH_VECTORS = {"load_col": {**ALL, "vec": "*"}, "additional_feat_suffix": ["search", "query", "vec"],
                "alias_of_item_id": ["iid"]}  # fmt: skip
PLATEAU = {"factor": 0.1, "patience": 0, "min_lr": 0}

# For each key: another value, how to see it, and what else is set in both cases.
EFFECTS: dict[str, tuple[Any, Callable[..., Any], dict[str, Any]]] = {
    "load_col": ({**ALL, "item": ["item_id", "price"]}, log, {}),
    "unload_col": ({"item": ["tags"]}, log, {"load_col": None}),
    "additional_feat_suffix": (["query"], log, {}),
    "seq_len": ({"tags": 1}, log, {}),
    "rm_dup_inter": ("last", log, {}),
    "val_interval": ({"timestamp": "[20,inf)"}, log, {}),
    "filter_inter_by_user_or_item": (False, log, {}),
    "user_inter_num_interval": ("[10,inf)", log, {}),
    "item_inter_num_interval": ("[7,inf)", log, {}),
    "alias_of_user_id": (["friend"], log, {}),
    "alias_of_item_id": (["like"], log, {}),
    "preload_weight": ({"iid": "vector"}, log, WITH_VECTORS),
    "normalize_field": (["price"], log, {}),
    "normalize_all": (True, log, {}),
    "codes_file": ("{tmp}/y.codes", codes, {}),
    "texts_folder": ("{tmp}/y.texts", texts, {}),
    "texts": ({"vectors": {"backend": "tfidf_svd", "dimensions": 2}}, texts, {}),
    "codes": ({"rqvae": {"levels": 2, "epochs": 1, "users_per_code": 1}}, codes, {}),
    "MAX_ITEM_LIST_LENGTH": (2, batch, {}),
    "max_search_length": (1, batch, {}),
    "max_clicks_per_search": (1, batch, {}),
    "max_terms_per_query": (1, log, {}),
    "session_gap": (6, batch, {}),
    "require_both_histories": (True, log, {}),
    "NEG_PREFIX": ("negative_", batch, {}),
    "LABEL_FIELD": ("clicked", pointwise, {}),
    "LIST_SUFFIX": ("_history", batch, {}),
    "ITEM_LIST_LENGTH_FIELD": ("history_length", batch, {}),
    "epochs": (2, trained, {}),
    "train_batch_size": (7, batch, {}),
    "shuffle": (False, batch, {}),
    "learner": ("sgd", trained, {}),
    "learning_rate": (0.05, trained, {}),
    "weight_decay": (0.5, trained, {}),
    "train_neg_sample_args": ({"sample_num": 2}, batch, {}),
    "clip_grad_norm": ({"max_norm": 0.001}, trained, {"learner": "sgd"}),
    "lr_plateau": (PLATEAU, trained, {"learning_rate": 0.5, "epochs": 6}),
    "eval_step": (2, trained, {}),
    "stopping_step": (0, trained, {"learning_rate": 0.5, "epochs": 6}),
    "enable_amp": (True, trained, {}),
    "eval_args": ({"split": {"RS": [0.6, 0.2, 0.2]}}, log, {}),
    "candidate_seed": (1, targets, {"eval_args.mode": "uni5"}),
    "eval_batch_size": (5, targets, {"eval_args.mode": "uni5"}),
    "metrics": (["Hit"], trained, {"valid_metric": "Hit@5"}),
    "topk": ([3, 10], trained, {}),
    "valid_metric": ("Hit@10", trained, {"learning_rate": 0.05, "epochs": 8}),
    "average_over": ("users", trained, {"eval_args.split": {"RS": [0.4, 0.2, 0.4]}}),
    "seed": (3, trained, {}),
    "reproducibility": (False, deterministic, {}),
    "run_dir": ("{tmp}/mine", placed, {}),
    "row_name": ("mine", row, {}),
    "data_cache": ("{tmp}/kept", kept_in, {}),
    "num_threads": (2, threads, {}),
    "use_gpu": (False, device, {}),
    "gpu_id": (2, device, {}),
    "show_progress": (True, bars, {}),
    "state": ("INFO", messages, {}),
    "log_wandb": (True, tracked, {}),
    "wandb_project": ("mine", tracked, {"log_wandb": True}),
    "log_mlflow": (True, tracked_by_mlflow, {}),
    "mlflow_experiment": ("mine", tracked_by_mlflow, {"log_mlflow": True}),
}  # fmt: skip

NAMES = {  # names of columns and separators, which have one test for all of them
    "data_path", "field_separator", "seq_separator", "USER_ID_FIELD", "ITEM_ID_FIELD", "TIME_FIELD", "QUERY_ID_FIELD",
    "TERMS_FIELD", "CLICKED_ITEMS_FIELD", "CLICK_TIMES_FIELD", "SOURCE_FIELD",
}  # fmt: skip


def test_every_key_of_a_run_is_here() -> None:
    assert set(EFFECTS) | NAMES == set(AllSettings.model_fields)


@pytest.mark.parametrize("key", EFFECTS)
def test_another_value_has_an_effect(
    key: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    value, seen, common = EFFECTS[key]
    value = value.format(tmp=tmp_path) if isinstance(value, str) else value
    needs = {"tmp_path": tmp_path, "monkeypatch": monkeypatch}
    more = {name: needs[name] for name in seen.__annotations__ if name in needs}
    before, after = (seen(folder, {**common, **values}, **more) for values in ({}, {key: value}))
    if seen is trained:
        before, after = before[1:], after[1:]  # without the folder's name
    assert before != after
    again = seen(folder, common, **more)
    assert (again[1:] if seen is trained else again) == before, "nothing is left of it"


def test_names_of_columns_and_separators_change_nothing_but_the_names(folder: Path, tmp_path: Path) -> None:
    names = {"user_id": "uid", "item_id": "vid", "timestamp": "at", "query_id": "qid", "terms": "words",
             "clicked_items": "opened", "click_times": "opened_at", "source": "place"}  # fmt: skip
    plain, renamed = tmp_path / "plain" / "toy", tmp_path / "renamed" / "toy"
    for suffix in ("inter", "search", "query"):
        lines = (folder / f"toy/toy.{suffix}").read_text().splitlines()
        if suffix == "search":
            times = [" ".join([line.split("\t")[2]] * len(line.split("\t")[3].split())) for line in lines[1:]]
            lines = [lines[0] + "\tclick_times:float_seq\tsource:token",
                     *(f"{line}\t{time}\tp{len(line) % 2}" for line, time in zip(lines[1:], times))]  # fmt: skip
        write_lines(plain / f"toy.{suffix}", *lines)
        for old, new in names.items():
            lines[0] = lines[0].replace(f"{old}:", f"{new}:")
        write_lines(renamed / f"toy.{suffix}", *(line.replace(" ", "+").replace("\t", "|") for line in lines))
    keys = {"USER_ID_FIELD": "uid", "ITEM_ID_FIELD": "vid", "TIME_FIELD": "at", "QUERY_ID_FIELD": "qid",
            "TERMS_FIELD": "words", "CLICKED_ITEMS_FIELD": "opened", "CLICK_TIMES_FIELD": "opened_at",
            "SOURCE_FIELD": "place", "field_separator": "|", "seq_separator": "+", "LIST_SUFFIX": "_seq",
            "ITEM_LIST_LENGTH_FIELD": "many", "NEG_PREFIX": "other_", "LABEL_FIELD": "yes"}  # fmt: skip
    quick = {"epochs": 1, "eval_args.mode": "uni5", "show_progress": False, "state": "WARNING", "load_col": None,
             "require_both_histories": False, **SIZES}  # fmt: skip
    for model in ("SESRec", "JSR", "SASRec", "BPR", "recbole.model.sequential_recommender:DIN"):
        results = []
        for base, values in [(plain, {}), (renamed, keys)]:
            run_dir = tmp_path / f"{base.parent.name}-{model.rpartition(':')[2]}"
            result = run(
                model, "toy", config_dict={**quick, **values, "data_path": str(base.parent), "run_dir": str(run_dir)}
            )
            recommender = Recommender.load(run_dir)
            lists = recommender.recommend(recommender.users, k=3)
            results.append((result.test, lists["item_id"].tolist(), lists["score"].tolist()))
        assert results[0] == results[1], model
