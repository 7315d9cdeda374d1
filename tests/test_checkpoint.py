"""Checkpoints and the run folder: nothing torn, nothing executed, and a killed run that is resumed is the same run."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import random
import signal
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from killed_training import train, train_until_killed
from torch import nn
from training_fakes import FakeEvalLoader, FakeTrainLoader, Toy, toy_trainer

from recbole_ser.errors import UserError
from recbole_ser.runs.checkpoint import load_checkpoint, other_parameters, save_checkpoint
from recbole_ser.runs.claim import claim, claim_new
from recbole_ser.runs.folder import RunFolder
from recbole_ser.runs.result import RunResult

STATE: dict[str, Any] = {
    "state_dict": OrderedDict(weight=torch.arange(6.0)),
    "other_parameter": {},
    "best": float("-inf"),
}


class Exploit:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    state = {**STATE, "number": np.float32(0.5), "nested": [(1, None), {"a": torch.eye(2)}]}
    save_checkpoint(tmp_path / "a.pt", state)
    loaded = load_checkpoint(tmp_path / "a.pt", "cpu")
    assert torch.equal(loaded["state_dict"]["weight"], torch.arange(6.0))
    assert (loaded["best"], loaded["number"], loaded["nested"][0]) == (float("-inf"), 0.5, (1, None))
    assert torch.equal(loaded["nested"][1]["a"], torch.eye(2))


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_a_checkpoint_that_would_run_code_is_refused_and_does_not_run_it(tmp_path: Path, writer: str) -> None:
    path, marker = tmp_path / "best.pt", tmp_path / "executed"
    state = {**STATE, "other_parameter": {"x": Exploit(marker)}}
    if writer == "torch":
        torch.save(state, path)
    else:
        path.write_bytes(pickle.dumps(state, protocol=2))
    with pytest.raises(UserError, match=r"best\.pt: not a checkpoint"):
        load_checkpoint(path, "cpu")
    assert not marker.exists()
    torch.load(path, weights_only=False) if writer == "torch" else pickle.loads(path.read_bytes())
    assert marker.exists(), "the file was harmless: the test proves nothing"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "a.pt"
    save_checkpoint(path, STATE)
    return path.read_bytes()


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_a_cut_off_checkpoint_is_refused(whole: bytes, tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "cut.pt"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(UserError, match=r"cut\.pt: not a checkpoint"):
        load_checkpoint(path, "cpu")


@settings(deadline=None, max_examples=40)
@given(st.binary(max_size=200))
def test_garbage_is_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "garbage.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"garbage\.pt: not "):
        load_checkpoint(path, "cpu")


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_a_changed_bit_is_refused_or_means_nothing(
    whole: bytes, tmp_path_factory: pytest.TempPathFactory, data: Any
) -> None:
    path, changed = tmp_path_factory.getbasetemp() / "rotten.pt", bytearray(whole)
    changed[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(changed)
    try:
        state = load_checkpoint(path, "cpu")
    except UserError as error:
        assert "rotten.pt: not a checkpoint" in str(error) and "restore it from a copy" in str(error)
    else:
        assert torch.equal(state["state_dict"].pop("weight"), STATE["state_dict"]["weight"])
        assert {**state, "state_dict": {}} == {**STATE, "state_dict": {}}


def test_a_full_disk_is_named_as_what_it_is(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    path, limits = tmp_path / "a.pt", resource.getrlimit(resource.RLIMIT_FSIZE)
    save_checkpoint(path, STATE)
    before = path.read_bytes()
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))  # no file may be larger, as if the disk were full
    try:
        with pytest.raises(OSError, match="File too large") as error:
            save_checkpoint(path, {**STATE, "large": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.filename == str(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_missing_file_and_a_missing_part_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such checkpoint"):
        load_checkpoint(tmp_path / "none.pt", "cpu")
    save_checkpoint(tmp_path / "a.pt", STATE)
    with pytest.raises(UserError, match="holds no optimizer"):
        load_checkpoint(tmp_path / "a.pt", "cpu", ("state_dict", "optimizer"))


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, STATE)

    def full(*args: Any) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(OSError, match="disk full"):
            save_checkpoint(path, {"state_dict": {}, "other_parameter": {}})
    assert torch.equal(load_checkpoint(path, "cpu")["state_dict"]["weight"], torch.arange(6.0))
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


class Carrying(nn.Module):
    def __init__(self, **others: Any) -> None:
        super().__init__()
        self.others = others

    def other_parameter(self) -> dict[str, Any]:
        return self.others


def test_other_parameters_keep_values_and_leave_modules_to_the_state_dict() -> None:
    kept = other_parameters(Carrying(layer=nn.Linear(1, 1), count=torch.ones(2, requires_grad=True) * 2, best=3))
    assert kept.keys() == {"count", "best"} and not kept["count"].requires_grad


def test_an_other_parameter_that_cannot_be_stored_is_named() -> None:
    with pytest.raises(UserError, match=r"Carrying\.matrix\[1\] is a Exploit"):
        other_parameters(Carrying(matrix=[1, Exploit(Path())]))


# --- killed and resumed ---------------------------------------------------------------------------------------------


def outcome(folder: Path) -> dict[str, Any]:
    """Everything that a run leaves behind, but for time and memory."""
    measured = {"seconds", "cpu_seconds", "peak_memory_mib", "peak_gpu_memory_mib"}
    run = RunFolder(folder)
    files = {name: load_checkpoint(folder / name, "cpu") for name in ("best.pt", "last.pt")}
    tensors = {
        f"{name}.{key}": value
        for name, file in files.items()
        for key, value in {**file["state_dict"], **moments(file)}.items()
    }
    return {
        "metrics": [{key: line[key] for key in line.keys() - measured} for line in run.metrics()],
        "progress": files["last.pt"]["progress"],
        "result": {key: value for key, value in run.result().as_dict().items() if key not in measured},
        "ranks": (folder / "ranks.csv").read_bytes(),
        "tensors": {name: value.numpy().tobytes() for name, value in tensors.items()},
    }


def moments(file: dict[str, Any]) -> dict[str, torch.Tensor]:
    state = file.get("optimizer", {"state": {}})["state"]
    return {f"{index}.{name}": value for index, values in state.items() for name, value in values.items()}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train(folder)
    result = outcome(folder)
    assert len(result["metrics"]) > 2 and result["result"]["best_epoch"] >= 0
    return result


@pytest.mark.parametrize("seed", range(4))
def test_a_run_killed_again_and_again_is_the_same_run(tmp_path: Path, uninterrupted: dict[str, Any], seed: int) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["recbole_ser.train.trainer", "torch._dynamo"]
    )  # what a child would import for seconds
    rng, folder, kills = random.Random(seed), tmp_path / "run", 0
    while True:
        child = context.Process(target=train_until_killed, args=(folder, rng.randint(0, 45)))
        child.start()
        child.join()
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
        kills += 1
    assert kills >= 2
    assert outcome(folder) == uninterrupted
    assert not list(folder.glob(".*.tmp"))


def test_resuming_a_finished_run_trains_no_more_and_scores_again(tmp_path: Path, uninterrupted: dict[str, Any]) -> None:
    folder = tmp_path / "run"
    train(folder)
    (folder / "result.json").unlink()
    written = (folder / "last.pt").stat().st_mtime_ns
    train(folder)
    assert outcome(folder) == uninterrupted
    assert (folder / "last.pt").stat().st_mtime_ns == written


def test_a_run_can_be_given_more_epochs(tmp_path: Path) -> None:
    for folder, parts in (("long", [5]), ("short", [2, 5])):
        for epochs in parts:
            trainer = toy_trainer(tmp_path / folder, epochs=epochs)
            trainer.resume_checkpoint()
            trainer.fit(FakeTrainLoader(), FakeEvalLoader(), verbose=False)
    short, long = (load_checkpoint(tmp_path / name / "last.pt", "cpu") for name in ("short", "long"))
    assert short["progress"] == long["progress"]
    assert all(torch.equal(short["state_dict"][name], value) for name, value in long["state_dict"].items())


def test_other_settings_cannot_be_resumed_with(tmp_path: Path) -> None:
    toy_trainer(tmp_path, epochs=1).fit(FakeTrainLoader(), FakeEvalLoader(), verbose=False)
    with pytest.raises(UserError, match=r"last\.pt: .*learning_rate: 0\.01 -> 0\.5"):
        toy_trainer(tmp_path, learning_rate=0.5).resume_checkpoint()
    with pytest.raises(UserError, match=r"best\.pt: .*holds no progress"):
        toy_trainer(tmp_path).resume_checkpoint(tmp_path / "best.pt")


def test_metrics_other_than_those_written_are_refused(tmp_path: Path) -> None:
    toy_trainer(tmp_path, epochs=3).fit(FakeTrainLoader(), FakeEvalLoader(), verbose=False)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True)
    for kept in (lines[:1] + lines[2:], [], [lines[0].replace("0.", "1."), *lines[1:]]):
        (tmp_path / "metrics.jsonl").write_text("".join(kept))
        with pytest.raises(UserError, match=r"metrics\.jsonl: not the file that this run wrote up to epoch 2: restore"):
            toy_trainer(tmp_path).resume_checkpoint()
    (tmp_path / "metrics.jsonl").write_text("".join(lines) + lines[2].replace('"epoch": 2', '"epoch": 3'))
    toy_trainer(tmp_path).resume_checkpoint()
    assert (tmp_path / "metrics.jsonl").read_text() == "".join(lines)


def test_the_weights_of_another_epoch_are_refused(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, epochs=1)
    trainer.fit(FakeTrainLoader(), FakeEvalLoader(), verbose=False)
    save_checkpoint(tmp_path / "best.pt", {**trainer._weights(7)})
    with pytest.raises(UserError, match=r"best\.pt: holds the weights of epoch 7, and the best epoch was 0"):
        trainer.rank(FakeEvalLoader())


def test_weights_of_another_data_set_are_refused(tmp_path: Path) -> None:
    class Wider(Toy):
        def __init__(self, config: Any, dataset: Any) -> None:
            super().__init__(config, dataset)
            self.item_embedding = nn.Embedding(99, config["embedding_size"])

    toy_trainer(tmp_path, epochs=1).fit(FakeTrainLoader(), FakeEvalLoader(), verbose=False)
    with pytest.raises(UserError, match=r"best\.pt: holds the weights of another model or data set"):
        toy_trainer(tmp_path, Wider).rank(FakeEvalLoader())


def test_metrics_of_epochs_to_be_trained_again_are_dropped_with_a_torn_line(tmp_path: Path) -> None:
    folder, costs = RunFolder(tmp_path), {"learning_rate": 1, "seconds": 1, "cpu_seconds": 1}
    for epoch in range(4):
        folder.append_metrics({"epoch": epoch, "valid": {"mrr": 0.1}, "losses": {}, **costs})
    with (tmp_path / "metrics.jsonl").open("a") as handle:
        handle.write('{"epoch": 4, "val')
    assert [line["epoch"] for line in folder.metrics()] == [0, 1, 2, 3]
    folder.drop_metrics_after(1)
    assert [line["epoch"] for line in folder.metrics()] == [0, 1]
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 2


# --- the run folder -------------------------------------------------------------------------------------------------


def test_a_folder_that_holds_a_run_is_not_overwritten(tmp_path: Path) -> None:
    folder = RunFolder(claim(tmp_path / "run", "take another"))
    with pytest.raises(UserError, match="this folder is there already: take another"):
        claim(tmp_path / "run", "take another")
    assert [claim_new(tmp_path / "run").name for _ in range(2)] == ["run-2", "run-3"]
    (tmp_path / "run" / ".last.pt.x.tmp").write_text("torn")
    with folder.locked():
        assert [file.name for file in (tmp_path / "run").glob(".*.tmp")] == []
        with pytest.raises(UserError, match="another process is running in this folder"), folder.locked():
            pass
    with pytest.raises(UserError, match="not the folder of a run"):
        RunFolder.load(tmp_path)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    config = {"learning_rate": 1e-3, "topk": [1, 5], "lr_plateau": None, "train_neg_sample_args": {"sample_num": 4}}
    folder.write_config(config, {})
    folder.write_environment("cpu")
    ranks = folder.write_ranks(np.array(["NA", "a,b", "7"]), torch.tensor([3, 1, 2]))
    again = RunFolder.load(tmp_path)
    assert again.config() == config
    assert again.environment()["versions"]["torch"] == str(torch.__version__)
    assert again.environment()["threads"] == torch.get_num_threads()
    with pytest.raises(UserError, match=r"result\.json: file not found \('recbole-ser run --resume=FOLDER' finishes"):
        again.ranks()
    folder.write_result(RunResult("M", "d", 1, "full", 0, 1, {}, {}, {}, "h", 1, 1.0, 1.0, 1.0, ranks=ranks))
    assert again.ranks().to_dict("list") == {"user_id": ["NA", "a,b", "7"], "rank": [3, 1, 2]}
    (tmp_path / "ranks.csv").write_text("user_id,rank\nNA,1\n")
    with pytest.raises(UserError, match=r"ranks\.csv: missing or damaged: .* scores it again"):
        again.ranks()


def test_a_run_on_other_data_is_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_data("h1", "uni99", {"test": "c1"}, {"users": 3})
    folder.write_data("h1", "uni99", {"test": "c1"}, {"users": 3})
    with pytest.raises(UserError, match=r"other data \(hash, counts changed\)"):
        folder.write_data("h2", "uni99", {"test": "c1"}, {"users": 4})
    assert folder.data()["hash"] == "h1"
