"""What is kept of a loaded data set: the same as loading anew gives, and never what no longer fits the files."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SIZES, write_lines, write_toy
from recbole.data.interaction import Interaction

from recbole_ser.config import SERConfig
from recbole_ser.data import cache as cache_module
from recbole_ser.data import dataset as dataset_module
from recbole_ser.data.cache import DataCache, Kept
from recbole_ser.data.dataset import SERDataset
from recbole_ser.data.loader import EvalLoader, TrainLoader
from recbole_ser.data.timed_dataset import TimedDataset
from recbole_ser.runner import run
from recbole_ser.runs.folder import RunFolder
from recbole_ser.runs.loading import load_run

ALL = {"inter": "*", "search": "*", "query": "*", "item": "*", "user": "*"}
WITH_ATTRIBUTES = {
    "load_col": ALL, "preload_weight": {"item_id": "price"}, "normalize_field": ["age"], "session_gap": 6,
    "seq_len": {"tags": 1},
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "leave one out": {},
    "attributes, sessions": WITH_ATTRIBUTES,
    "points in time": {"eval_args.split": {"TS": [0.6, 0.8]}, "require_both_histories": False},
    "no searches": {"additional_feat_suffix": None, "require_both_histories": False},
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set with attributes of all types and clicks with times; data sets of any size are kept."""
    monkeypatch.setattr(dataset_module, "WORTH_BYTES", 0)
    users = [f"ü{n}" for n in range(8)]
    rows = [f"{user} i{(3 * n + 5 * k) % 17} {10 * k + n % 3}" for n, user in enumerate(users) for k in range(9)]
    base = write_toy(tmp_path, inter=rows)
    header = "user_id:token\tquery_id:token\ttimestamp:float\tclicked_items:token_seq\tclick_times:float_seq"
    searches = [
        f"{user}\tq{1 + (n + k) % 3}\t{10 * k + 5}\ti{k} x\t{10 * k + 7} {10 * k + 6}"
        for n, user in enumerate(users)
        for k in range(4)
    ]
    write_lines(base / "toy.search", header, *searches)
    items = [f"i{n}\tt{n % 3}\tg{n % 2} h\t{n / 2}" for n in range(16)]
    write_lines(base / "toy.item", "item_id:token\ttype:token\ttags:token_seq\tprice:float", *items)
    write_lines(base / "toy.user", "user_id:token\tlevel:token\tage:float", *[f"{u}\tl\t{len(u)}" for u in users])
    write_lines(base / "toy.vec", "iid:token\tvector:float_seq", *[f"i{n}\t{n} {n * n}" for n in range(16)])
    return tmp_path


def load(folder: Path, kind: type[SERDataset] = SERDataset, **values: Any) -> Any:
    given = {"data_path": str(folder), "eval_args.mode": "uni3", "train_batch_size": 8, **SIZES, **values}
    return kind(SERConfig("SESRec", "toy", None, given))


def plain(value: Any) -> Any:
    """``value`` in plain types that can be compared, with the types of arrays."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), value.tolist()
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.tolist()
    if isinstance(value, Interaction):
        return plain(value.interaction)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if hasattr(value, "items"):
        return {key: plain(part) for key, part in value.items()}
    return value


def seen(dataset: SERDataset) -> dict[str, Any]:
    """All that a loaded data set has, the batches of an epoch and the evaluated candidates."""
    own = {"config", "cache", "_is_loaded", "logger", "data_hash", "training_pairs", "training_clicks"}
    attributes = {name: plain(value) for name, value in vars(dataset).items() if name not in own}
    targets = {phase: EvalLoader(dataset.config, dataset, phase) for phase in ("valid", "test")}
    return attributes | {
        "pairs": plain(dataset.training_pairs),
        "hash": dataset.data_hash,
        "batches": [plain(batch) for batch in TrainLoader(dataset.config, dataset)],
        "targets": {phase: (loader.candidates.hash, dataset.target_hash(phase)) for phase, loader in targets.items()},
        "inter_feat": plain(dataset.inter_feat),
    }


def entries(folder: Path) -> list[Path]:
    return sorted(path.parent for path in (folder / "toy" / ".cache").glob("*/manifest.json"))


def of_data(folder: Path) -> Path:
    """The entry of the loaded data, among those of candidates."""
    (found,) = [path for path in entries(folder) if json.loads((path / "manifest.json").read_text())["facts"]]
    return found


@pytest.mark.parametrize("case", CASES)
def test_kept_data_are_those_that_are_loaded(folder: Path, case: str, caplog: pytest.LogCaptureFixture) -> None:
    without = seen(load(folder, data_cache=False, **CASES[case]))
    assert not (folder / "toy" / ".cache").exists()
    with caplog.at_level(logging.INFO):
        first = load(folder, **CASES[case])
    line = next(record.getMessage() for record in caplog.records if "kept for the next run" in record.getMessage())
    assert str(folder / "toy" / ".cache") in line and line.endswith("MiB")
    assert seen(first) == without
    again = load(folder, **CASES[case])
    assert not again._is_loaded and seen(again) == without
    assert len(entries(folder)) == 3  # the data, and the candidates of two splits
    assert (folder / "toy/.cache/.gitignore").read_text() == "*\n"


def test_metrics_are_the_same_and_times_are_kept_too(folder: Path) -> None:
    results = []
    for name, place in [("none", False), ("first", str(folder / "elsewhere")), ("second", str(folder / "elsewhere"))]:
        values = {"data_path": str(folder), "data_cache": place, "run_dir": str(folder / name), "epochs": 1, **SIZES,
                  "eval_args.mode": "uni3", "state": "ERROR", "show_progress": False}  # fmt: skip
        result = run("SASRec", "toy", config_dict=values)
        results.append((result.test, result.valid, RunFolder(result.folder).data()))
    assert results[0] == results[1] == results[2]
    assert not (folder / "toy" / ".cache").exists()
    assert [path.name[:4] for path in (folder / "elsewhere").iterdir()] == ["toy-"]
    timed = [load_run(RunFolder(folder / name), TimedDataset)[1] for name in ("none", "first", "second")]
    assert [dataset._is_loaded for dataset in timed] == [False, True, False]
    assert plain(timed[0].item_times) == plain(timed[1].item_times) == plain(timed[2].item_times)
    assert plain(timed[0].search_times) == plain(timed[2].search_times)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "a changed bit": lambda entry: flip(entry / "000.npy"),
    "a cut file": lambda entry: os.truncate(entry / "001.npy", 100),
    "a missing file": lambda entry: (entry / "002.npy").unlink(),
    "another file": lambda entry: shutil.copy(entry / "003.npy", entry / "000.npy"),
    "no manifest": lambda entry: (entry / "manifest.json").write_text("{}"),
    "a changed manifest": lambda entry: (entry / "manifest.json").write_text(
        (entry / "manifest.json").read_text().replace('"target_num": 1', '"target_num": 2')
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_noticed(folder: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    expected = seen(load(folder))
    DAMAGES[damage](of_data(folder))
    with caplog.at_level(logging.INFO):
        again = load(folder)
    lines = [record.getMessage() for record in caplog.records if "anew" in record.getMessage()]
    assert again._is_loaded and len(lines) == 1 and str(folder) in lines[0]
    assert seen(again) == expected
    assert not load(folder)._is_loaded


def test_a_foreign_entry_is_noticed(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected = seen(load(folder, data_cache=False, max_terms_per_query=1))
    load(folder)
    foreign = of_data(folder)
    load(folder, max_terms_per_query=1)
    own = next(entry for entry in entries(folder) if entry != foreign)
    shutil.rmtree(own)
    shutil.copytree(foreign, own)
    with caplog.at_level(logging.INFO):
        assert seen(load(folder, max_terms_per_query=1)) == expected
    assert "made of other files or settings" in caplog.text


def test_an_edited_file_replaces_what_was_kept(folder: Path) -> None:
    path = folder / "toy" / "toy.inter"
    before = seen(load(folder))
    assert len(entries(folder)) == 3
    status = path.stat()
    path.write_text(path.read_text().replace("i3\t", "i2\t"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    after = load(folder)
    assert after._is_loaded and after.data_hash != before["hash"]
    assert len(entries(folder)) == 1, "what was made of the old file is gone"
    assert seen(after) == seen(load(folder, data_cache=False))
    (folder / "toy" / "toy.search").unlink()
    assert load(folder, require_both_histories=False).summary()["searches"] == 0


def test_a_file_that_is_replaced_meanwhile(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = seen(load(folder, data_cache=False))
    monkeypatch.setattr(dataset_module, "sha256", lambda path: "of the file before")
    assert seen(load(folder)) == expected
    assert entries(folder) == []


def test_where_nothing_can_be_written_data_are_loaded(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected = seen(load(folder, data_cache=False))
    (folder / "file").write_text("")
    with caplog.at_level(logging.INFO):
        found = seen(load(folder, data_cache=str(folder / "file")))
    assert found == expected
    lines = [record.getMessage() for record in caplog.records if "data_cache" in record.getMessage()]
    assert len(lines) == 1 and "cannot be written (Not a directory)" in lines[0]


def test_a_full_disk_leaves_nothing_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    expected = seen(load(folder, data_cache=False))
    monkeypatch.setattr(np, "save", full)
    assert seen(load(folder)) == expected
    assert [path.name for path in (folder / "toy/.cache").iterdir() if path.is_dir()] == []


def test_what_is_not_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(SERDataset):
        """It may load in another way."""

    load(folder, Own)
    with_vectors = {"load_col": {**ALL, "vec": "*"}, "additional_feat_suffix": ["search", "query", "vec"]}
    load(folder, **with_vectors, alias_of_item_id=["iid"], preload_weight={"iid": "vector"})  # its frame is the user's
    monkeypatch.undo()
    load(folder)  # small
    assert not (folder / "toy" / ".cache").exists()


def test_the_log_says_the_second_time_what_it_said_the_first(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = folder / "toy" / "toy.item"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-3]))
    said = []
    for _ in range(2):
        caplog.clear()
        load(folder, load_col=ALL, filter_inter_by_user_or_item=True)
        said.append([record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING])
    assert said[0] == said[1] and "interactions are left out" in said[0][0]


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[DataCache]:
    yield DataCache(tmp_path / "cache", {"x.inter": "1"})


def test_one_of_several_processes_makes_it(cache: DataCache) -> None:
    made = []

    def make() -> Kept:
        made.append(1)
        return Kept({"numbers": np.arange(5)})

    caches = [DataCache(cache.folder, cache.files) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda one: one.get("numbers", {}, make).arrays["numbers"].tolist(), caches))
    assert found == [[0, 1, 2, 3, 4]] * 4 and len(made) == 1


def test_what_a_process_writes_to_mapped_arrays_stays_there(cache: DataCache) -> None:
    def get() -> np.ndarray:
        return cache.get("numbers", {}, lambda: Kept({"numbers": np.arange(5), "none": np.zeros((0, 2))})).arrays[
            "numbers"
        ]

    get()[0] = 7
    assert get().tolist() == [0, 1, 2, 3, 4]


def test_the_oldest_entries_go(cache: DataCache, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache.folder / f"{cache_module._NEW}1").mkdir(parents=True)  # of a killed process
    for number in range(12):
        cache.get("number", {"number": number}, lambda: Kept({"number": np.array([number])}))  # noqa: B023
    assert len([path for path in cache.folder.iterdir() if path.is_dir()]) == 8
    assert cache.get("number", {"number": 11}, lambda: Kept({})).arrays["number"].tolist() == [11]
    monkeypatch.setattr(cache_module, "_code_hash", lambda: "other code")
    cache.get("number", {"number": 0}, lambda: Kept({}))
    assert len([path for path in cache.folder.iterdir() if path.is_dir()]) == 1
