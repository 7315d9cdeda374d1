"""The folder of a sweep: what is read from trials that were left in any state, and what is written beside them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recbole_ser import tune
from recbole_ser.config import SERConfig
from recbole_ser.errors import ConfigError, UserError
from recbole_ser.runs.folder import RunFolder
from recbole_ser.runs.result import RunResult
from recbole_ser.runs.sweep_folder import (
    FAILED,
    FINISHED,
    KILLED,
    RUNNING,
    STOPPED,
    WAITING,
    SweepFolder,
    Trial,
    best_trial,
)
from recbole_ser.tuning.plan import read_plan
from recbole_ser.tuning.sweep import resume

VALUES: dict[str, Any] = {"alpha": 1e-05, "codes.rqvae.levels": 3, "mlp_hidden_size": [200, 80], "loss": None}
RESULT = RunResult(
    "SESRec", "ser-sample", 2023, "uni99", 3, 5, {"mrr": 0.25}, {"mrr": 0.1 + 0.2}, {"test": "c0ffee"}, "beef", 1234,
    10.5, 9.25, 256.0,
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    return SweepFolder.start(tmp_path / "sweep", {"plan": {"name": "joint"}, "arguments": {"model": "SESRec"}})


def add(folder: SweepFolder, number: int, scores: list[float], first: int = 0, step: int = 1, **more: Any) -> Path:
    """A trial with one line for each score, in epochs ``first``, ``first + step`` ..."""
    trial = folder.add_trial(number, VALUES)
    for place, score in enumerate(scores):
        line = {
            "epoch": first + place * step,
            "losses": {"train": 1.5},
            "valid": {"mrr": score, "hit@1": score / 2, "ndcg@10": 1 - score},
            "learning_rate": 0.001,
            "seconds": 1.5 + place,
            "cpu_seconds": 2.25,
            "peak_memory_mib": 100.0 + 10 * (place == 1),
            **more,
        }
        RunFolder(trial.path).append_metrics(line)
    return trial.path


def trial_of(number: int, scores: tuple[float, ...], status: str = FINISHED) -> Trial:
    return Trial(number, {"alpha": 0.1}, status, "", len(scores), 0, {}, scores, 1.0, 1.0, 1.0)


# --- reading a trial --------------------------------------------------------------------------------------------------


def test_a_trial_is_read_from_its_folder(folder: SweepFolder) -> None:
    path = add(folder, 7, [0.25, 0.5, 0.375])
    assert path == folder.path / "trials" / "007"
    folder.trial(7).end(STOPPED)
    assert folder.trial(7).read("mrr") == Trial(
        number=7, values=VALUES, status=STOPPED, error="", epochs=3, best_epoch=1,
        valid={"mrr": 0.5, "hit@1": 0.25, "ndcg@10": 0.5}, scores=(0.25, 0.5, 0.375),
        seconds=7.5, cpu_seconds=6.75, peak_memory_mib=110.0,
    )  # fmt: skip
    other = folder.trial(7).read("ndcg@10")
    assert other.scores == (0.75, 0.5, 0.625) and other.best_epoch == 0 and other.valid["mrr"] == 0.25
    assert other.score == 0.75


def test_the_best_epoch_is_the_earliest_of_equals(folder: SweepFolder) -> None:
    add(folder, 0, [0.25, 0.5, 0.125, 0.5])
    assert folder.trial(0).read("mrr").best_epoch == 1


def test_epochs_that_were_not_evaluated_count_as_trained(folder: SweepFolder) -> None:
    add(folder, 0, [0.25, 0.5, 0.375], first=2, step=3)
    trial = folder.trial(0).read("mrr")
    assert trial.epochs == 9 and trial.best_epoch == 5 and len(trial.scores) == 3


def test_lines_without_memory_are_read(folder: SweepFolder) -> None:
    path = add(folder, 0, [0.25])
    line = json.loads((path / "metrics.jsonl").read_text())
    del line["peak_memory_mib"]
    (path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    assert folder.trial(0).read("mrr").peak_memory_mib == 0.0


@pytest.mark.parametrize("kept", [1, 20, -1])
def test_a_line_that_was_cut_off_is_not_read(kept: int, folder: SweepFolder) -> None:
    path = add(folder, 0, [0.25, 0.5]) / "metrics.jsonl"
    first, last = path.read_text().splitlines(keepends=True)
    path.write_text(first + last[:kept])
    trial = folder.trial(0).read("mrr")
    assert (trial.epochs, trial.best_epoch, trial.scores, trial.seconds) == (1, 0, (0.25,), 1.5)


def test_statuses(folder: SweepFolder) -> None:
    add(folder, 0, [])
    waiting = folder.trial(0).read("mrr")
    assert waiting == Trial(0, VALUES, WAITING, "", 0, -1, {}, (), 0, 0, 0.0) and waiting.score is None
    add(folder, 0, [0.5])
    assert folder.trial(0).read("mrr").status == RUNNING and folder.trial(0).outcome == {}
    for status, error in [(FINISHED, ""), (STOPPED, ""), (FAILED, "ValueError: größer"), (KILLED, "died twice")]:
        folder.trial(0).end(status, error)
        assert folder.trial(0).outcome.items() >= {"status": status, "error": error}.items()
        trial = folder.trial(0).read("mrr")
        assert (trial.status, trial.error, trial.epochs) == (status, error, 1)
    folder.trial(0).reopen()
    folder.trial(0).reopen()
    assert folder.trial(0).read("mrr").status == RUNNING


def test_a_trial_that_failed_before_its_first_epoch(folder: SweepFolder) -> None:
    add(folder, 0, [])
    folder.trial(0).end(FAILED, "out of memory")
    trial = folder.trial(0).read("mrr")
    assert (trial.status, trial.error, trial.epochs, trial.best_epoch, trial.valid) == (
        FAILED,
        "out of memory",
        0,
        -1,
        {},
    )


def test_values_are_what_was_proposed(folder: SweepFolder) -> None:
    values = {"a": 0.1 + 0.2, "b": 1e-300, "c": True, "d": 1, "e": 1.0, "f": None, "g": "ä\n", "h": {"x": [1, {}]}}
    trial = folder.add_trial(3, values)
    assert trial.values() == values and list(trial.values()) == list(values)
    assert [type(value) for value in trial.values().values()] == [type(value) for value in values.values()]
    written = json.loads((trial.path / "trial.json").read_text())
    assert {key: written[key] for key in ("number", "values")} == {"number": 3, "values": values}


def test_a_row_of_the_table(folder: SweepFolder) -> None:
    add(folder, 7, [0.25, 0.5], seconds=1.2345, cpu_seconds=0.06)
    folder.trial(7).end(FAILED, "broken")
    row = folder.trial(7).read("mrr").row()
    assert list(row.items()) == [
        ("trial", 7), *VALUES.items(), ("status", "failed"), ("epochs", 2), ("best_epoch", 1),
        ("mrr", 0.5), ("hit@1", 0.25), ("ndcg@10", 0.5),
        ("seconds", 2.5), ("cpu_seconds", 0.1), ("peak_memory_mib", 110.0), ("error", "broken"),
    ]  # fmt: skip


@pytest.mark.parametrize(("best", "left"), [(True, []), (False, ["best.pt"])])
def test_dropping_weights(best: bool, left: list[str], folder: SweepFolder) -> None:
    path = add(folder, 0, [0.5])
    for name in ("last.pt", "best.pt"):
        (path / name).write_bytes(b"weights")
    folder.trial(0).drop_weights(best)
    assert [file.name for file in path.glob("*.pt")] == left
    folder.trial(0).drop_weights(best)
    assert sorted(file.name for file in path.iterdir()) == [*left, "metrics.jsonl", "trial.json"]


# --- the best of them -------------------------------------------------------------------------------------------------


def test_the_best_trial_is_the_earliest_of_equals() -> None:
    trials = [trial_of(0, (0.1,)), trial_of(2, (0.1, 0.5)), trial_of(1, (0.5, 0.2)), trial_of(3, (0.4,))]
    assert best_trial(trials) == trials[2] and best_trial(trials[::-1]) == trials[2]


@pytest.mark.parametrize("status", [FAILED, KILLED])
def test_failed_and_killed_trials_are_never_the_best(status: str) -> None:
    trials = [trial_of(0, (0.9,), status), trial_of(1, (0.1,), STOPPED), trial_of(2, (), FINISHED)]
    assert best_trial(trials) == trials[1]
    assert best_trial([trials[0], trials[2]]) is None and best_trial([]) is None


def test_scores_below_zero_can_be_the_best() -> None:
    trials = [trial_of(0, (-3.0,)), trial_of(1, (-1.0, -2.0)), trial_of(2, ())]
    assert best_trial(trials) == trials[1]


# --- the folder of the sweep ------------------------------------------------------------------------------------------


def test_a_sweep_starts_in_a_new_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = SweepFolder.start("new/sweep", {"plan": {"trials": 3, "name": "ä"}, "arguments": {}})
    assert folder.path == tmp_path / "new" / "sweep" and folder.trials_path.is_dir()
    assert folder.content() == {"plan": {"trials": 3, "name": "ä"}, "arguments": {}} and folder.trials() == []
    assert SweepFolder.load("new/sweep").content() == folder.content()
    folder.update({"plan": {"trials": 4}, "arguments": {}})
    assert SweepFolder.load(str(folder.path)).content() == {"plan": {"trials": 4}, "arguments": {}}


def test_a_folder_that_is_there_is_not_overwritten(folder: SweepFolder) -> None:
    with pytest.raises(UserError, match="this folder is there already: go on with the sweep in it by"):
        tune("SESRec", "ser-sample", space="alpha", storage=folder.path)
    assert folder.content() == {"plan": {"name": "joint"}, "arguments": {"model": "SESRec"}}


def test_only_a_sweep_can_be_loaded(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run").write_config({}, {})
    for path in (tmp_path / "nowhere", tmp_path / "run", str(tmp_path)):
        with pytest.raises(UserError) as error:
            SweepFolder.load(path)
        assert str(error.value) == f"{path}: not the folder of a sweep: it has no sweep.json"
    assert not (tmp_path / "nowhere").exists()


def test_a_damaged_sweep_is_named(folder: SweepFolder) -> None:
    (folder.path / "sweep.json").write_text('{"plan": ')
    with pytest.raises(UserError, match=r"sweep\.json: damaged: .* or start a new sweep"):
        SweepFolder.load(folder.path).content()


def test_a_damaged_trial_is_named_and_how_to_train_it_again(folder: SweepFolder) -> None:
    path = add(folder, 0, [0.25, 0.5])
    folder.trial(0).end(FINISHED)
    whole = {name: (path / name).read_text() for name in ("trial.json", "outcome.json", "metrics.jsonl")}
    for name, damaged, problem in [
        ("trial.json", whole["trial.json"].replace("1e-05", "1e-04"), "its checksum .* start a new sweep"),
        ("outcome.json", "[", "Invalid JSON: .*remove it: resuming the sweep goes on with this trial"),
        ("metrics.jsonl", whole["metrics.jsonl"].replace("0.25", "0.75"), "its checksum .* trains it again"),
        ("metrics.jsonl", whole["metrics.jsonl"].splitlines(keepends=True)[0], "its checksum .* trains it again"),
    ]:
        (path / name).write_text(damaged)
        with pytest.raises(UserError, match=rf"000/{name}: .*{problem}"):
            folder.read_trials("mrr")
        (path / name).write_text(whole[name])
    assert folder.read_trials("mrr")[0].score == 0.5
    with pytest.raises(UserError, match=r"metrics\.jsonl: a line has no valid hit@7"):
        folder.read_trials("hit@7")


def test_trials_are_listed_by_number(folder: SweepFolder) -> None:
    for number in (1234, 10, 999, 2, 0):
        add(folder, number, [number / 2000])
    (folder.trials_path / "005").mkdir()  # nothing was proposed yet
    (folder.trials_path / "notes.txt").write_text("mine")
    numbers = [0, 2, 10, 999, 1234]
    assert [trial.number for trial in folder.trials()] == numbers
    assert [trial.path.name for trial in folder.trials()] == ["000", "002", "010", "999", "1234"]
    trials = SweepFolder.load(folder.path).read_trials("mrr")
    assert [trial.number for trial in trials] == numbers and [trial.score for trial in trials] == [
        number / 2000 for number in numbers
    ]


@pytest.mark.parametrize("codes", [None, {"hash": "abc", "summaries": "template", "vectors": "tfidf_svd"}])
def test_the_result_is_read_as_it_was_written(codes: dict[str, str] | None, folder: SweepFolder) -> None:
    assert folder.result() is None
    add(folder, 4, [0.5])
    result = replace(RESULT, codes=codes)
    folder.write_result(folder.trial(4).read("mrr"), result)
    assert folder.result() == (4, result) == SweepFolder.load(folder.path).result()
    content = json.loads((folder.path / "result.json").read_text())
    assert content["trial"] == 4 and content["values"] == VALUES and content["test"] == {"mrr": 0.1 + 0.2}


def test_other_folders_beside_the_trials_are_left_alone(tmp_path: Path) -> None:
    folder = SweepFolder.start(tmp_path / "sweep", {})
    folder.add_trial(0, {"alpha": 0.1})
    shutil.copytree(folder.trial(0).path, folder.trials_path / "000.old")
    assert [trial.number for trial in folder.trials()] == [0]


def test_a_sweep_runs_in_one_process_at_a_time(tmp_path: Path) -> None:
    folder = SweepFolder.start(tmp_path / "sweep", {})
    with folder.locked(), pytest.raises(UserError, match="another process is running this sweep"):
        SweepFolder(folder.path).locked().__enter__()
    with folder.locked():
        pass


@pytest.mark.parametrize("trials", [25.5, "abc", 1, 0])
def test_a_wrong_number_of_trials_leaves_the_sweep_as_it_was(tmp_path: Path, trials: Any) -> None:
    plan, _ = read_plan("SESRec", {"alpha": {"uniform": [0.1, 0.2]}}, trials=3)
    content = {"plan": plan.to_json(), "arguments": SERConfig("SESRec", "ser-sample").arguments()}
    folder = SweepFolder.start(tmp_path / "sweep", content)
    folder.add_trial(0, {"alpha": 0.1})
    folder.add_trial(1, {"alpha": 0.2})
    with pytest.raises(ConfigError, match="trials"):
        resume(folder.path, trials=trials)
    assert folder.content() == json.loads(json.dumps(content))
