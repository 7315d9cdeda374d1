"""Folders of runs: claimed by one, locked while it runs, and loaded with a class that nobody can import."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import command, write_toy
from filelock import FileLock
from torch import Tensor, nn

import recbole_ser
from recbole_ser.cli import main
from recbole_ser.errors import ConfigError, UserError
from recbole_ser.files import exclusive
from recbole_ser.model.base import SearchRecommender
from recbole_ser.runs.claim import claim, claim_new
from recbole_ser.runs.folder import RunFolder
from recbole_ser.runs.loading import finished_run
from recbole_ser.runs.sweep_folder import SweepFolder
from recbole_ser.train.trainer import SERTrainer
from recbole_ser.tuning.plan import read_plan

ROOT = Path(__file__).parent.parent


def values(folder: Path, **more: Any) -> dict[str, Any]:
    return {
        "data_path": str(folder), "require_both_histories": False, "eval_args.mode": "full", "epochs": 1,
        "show_progress": False, "state": "WARNING", **more,
    }  # fmt: skip


def local_model() -> type[SearchRecommender]:
    class Local(SearchRecommender):
        """A model that is no attribute of a module, as those of a notebook are in another process."""

        def __init__(self, config: Any, dataset: Any) -> None:
            super().__init__(config, dataset)
            self.items = nn.Embedding(self.n_items, 4, padding_idx=0)

        def encode(self, interaction: Any) -> Tensor:
            return self.items(interaction["item_id_list"]).sum(1)

        def score(self, state: Tensor, items: Tensor) -> Tensor:
            return torch.einsum("bd,bcd->bc", state, self.items(items))

    return Local


@pytest.fixture
def toy_folder(tmp_path: Path) -> Path:
    write_toy(tmp_path / "data")
    return tmp_path / "data"


def test_a_name_is_given_to_one_alone(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: claim_new(tmp_path / "saved" / "run"), range(40)))
    assert len(set(folders)) == 40 and all(folder.is_dir() for folder in folders)

    def wins(number: int) -> bool:
        try:
            return bool(claim(tmp_path / "saved" / "mine", "take another"))
        except UserError:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(wins, range(40))) == 1


@pytest.mark.parametrize("error", [NotImplementedError("no flock"), OSError(errno.ENOLCK, "no locks available")])
def test_where_files_cannot_be_locked_it_is_said(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(FileLock, "acquire", fail)
    with exclusive(tmp_path / ".lock", "busy"):
        assert "cannot be locked" in caplog.text
    error = PermissionError(errno.EACCES, "denied")
    with pytest.raises(PermissionError), exclusive(tmp_path / ".lock", "busy"):
        pass


@pytest.mark.slow
def test_runs_that_are_started_at_once_all_end(toy_folder: Path, tmp_path: Path) -> None:
    arguments = [f"--{key}={value}" for key, value in values(toy_folder).items()]
    start = [sys.executable, ROOT / "run_recbole_ser.py", "--model=Pop", "--dataset=toy", *arguments]
    runs = [subprocess.Popen(start, cwd=tmp_path, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    errors = [run.communicate()[1] for run in runs]
    assert [run.returncode for run in runs] == [0] * 4, errors
    assert len(list((tmp_path / "saved" / "toy").glob("Pop-*/result.json"))) == 4


def test_a_result_knows_its_folder(toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = recbole_ser.run("Pop", "toy", config_dict=values(toy_folder))
    assert result.folder is not None and result.folder.parent == Path("saved/toy")
    assert RunFolder.load(result.folder).result() == result
    assert "folder" not in (result.folder / "result.json").read_text()
    with pytest.raises(UserError, match=f"{result.folder}: this folder is there already: go on with the run in it by"):
        recbole_ser.run("Pop", "toy", config_dict=values(toy_folder, run_dir=str(result.folder)))
    assert RunFolder.load(result.folder).result() == result


def test_a_run_that_is_running_is_not_resumed(toy_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    result = recbole_ser.run("Pop", "toy", config_dict=values(toy_folder, run_dir=str(path)))
    with RunFolder.load(path).locked(), pytest.raises(UserError, match="another process is running in this folder"):
        recbole_ser.resume(path)
    assert recbole_ser.resume(path) == result


def test_a_class_that_cannot_be_imported_is_given(toy_folder: Path, tmp_path: Path) -> None:
    result = recbole_ser.run(local_model(), "toy", config_dict=values(toy_folder, run_dir=str(tmp_path / "run")))
    assert result.folder is not None
    for load in (recbole_ser.resume, recbole_ser.Recommender.load):
        with pytest.raises(UserError, match=r"its model is .*<locals>\.Local, which no installed package registers"):
            load(result.folder)
    assert recbole_ser.resume(result.folder, model=local_model()).test == result.test
    found = recbole_ser.Recommender.load(result.folder, model=local_model()).recommend(["a"], 2)
    assert found["user_id"].tolist() == ["a", "a"]
    with pytest.raises(UserError, match="its model is Local, not SESRec"):
        recbole_ser.Recommender.load(result.folder, model=type("SESRec", (local_model(),), {}))


def test_of_a_sweep_the_chosen_trial_is_taken(
    toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = SweepFolder.start(tmp_path / "sweep", {})
    with pytest.raises(UserError, match="this sweep is not finished: go on with 'recbole-ser tune --resume="):
        finished_run(sweep.path)
    trial = sweep.add_trial(3, {"seed": 1})
    result = recbole_ser.run("Pop", "toy", config_dict=values(toy_folder, run_dir=str(tmp_path / "run")))
    for file in (tmp_path / "run").iterdir():
        if file.is_file():
            (trial.path / file.name).write_bytes(file.read_bytes())
    sweep.write_result(trial.read("ndcg@10"), result)
    assert finished_run(sweep.path).path == trial.path and finished_run(tmp_path / "run").path == tmp_path / "run"
    capsys.readouterr()
    assert command("recommend", sweep.path, "--users", "a", "-k", 1) == 0
    of_sweep = capsys.readouterr().out
    assert command("recommend", tmp_path / "run", "--users", "a", "-k", 1) == 0
    assert capsys.readouterr().out == of_sweep


# --- what only a folder names is not run ------------------------------------------------------------------------------


@pytest.fixture
def planted(toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A finished run of ``planted:Planted``, whose module leaves a mark when it is imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "planted.py").write_text(
        "from pathlib import Path\nfrom recbole_ser.model.general.pop import Pop\nPath('mark').touch()\n"
        "class Planted(Pop):\n    pass\n"
    )
    recbole_ser.run("planted:Planted", "toy", config_dict=values(toy_folder, run_dir="run"))
    sweep = SweepFolder.start(
        "sweep",
        {
            "plan": read_plan("Pop", {"seed": {"choice": [1]}})[0].to_json(),
            "arguments": dict(RunFolder.load("run").arguments()),
        },
    )
    assert RunFolder.load("run").arguments()["model"] == "planted:Planted" and sweep.path.is_dir()
    del sys.modules["planted"]
    (tmp_path / "mark").unlink()
    yield tmp_path
    sys.modules.pop("planted", None)


@pytest.mark.parametrize(
    "asked", [("run", "--resume=run"), ("recommend", "run", "--all"), ("groups", "run"), ("tune", "--resume=sweep")]
)
def test_code_that_only_a_folder_names_is_not_run(
    asked: tuple[str, ...], planted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(asked) == 2 and not (planted / "mark").exists()
    error = capsys.readouterr().err
    assert "its model is planted:Planted, which no installed package registers" in error
    assert "--model=planted:Planted" in error
    if asked[0] != "tune":
        assert main([*asked, "--model=planted:Planted"]) == 0 and (planted / "mark").exists()


# --- a start that fails leaves nothing --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dataset", ["../../x", "/etc", "..", ".", "", "a/b", "a\\b", "-x", ".hidden", "a\nb", "toy/", "nowhere"]
)
def test_a_start_that_fails_leaves_nothing(
    dataset: str, toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for run_dir in (None, "mine"):
        with pytest.raises(UserError, match=r"dataset is .*: it must be the name of a folder|there is no data set"):
            recbole_ser.run("Pop", dataset, config_dict=values(toy_folder, run_dir=run_dir))
    assert list((tmp_path / "here").iterdir()) == []


def test_nothing_is_made_before_data_and_model_are_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(SearchRecommender):
        def __init__(self, config: Any, dataset: Any) -> None:
            raise ConfigError("this model wants something else")

    monkeypatch.chdir(tmp_path)
    write_toy(tmp_path / "data")
    with pytest.raises(ConfigError, match="something else"):
        recbole_ser.run(Broken, "toy", config_dict=values(tmp_path / "data"))
    write_toy(tmp_path / "data", inter=["a i1 1", "b i2 1", "c i3 5", "d i4 1"])
    with pytest.raises(UserError, match="the validation split has no targets"):
        recbole_ser.run("Pop", "toy", config_dict=values(tmp_path / "data"))
    (tmp_path / "data" / "toy" / "toy.inter").write_text("user_id:token\n")
    with pytest.raises(UserError, match=r"toy\.inter"):
        recbole_ser.run("Pop", "toy", config_dict=values(tmp_path / "data"))
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_folder_of_any_name_below_saved_is_in_nobodys_way(
    toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for run_dir in ("saved/toy/run", "saved/toy/new", None, None):
        assert recbole_ser.run("Pop", "toy", config_dict=values(toy_folder, run_dir=run_dir)).folder is not None


@pytest.mark.parametrize("name", ["2019_01", "no", "010", "1e3", "~", "a b"])
def test_names_of_data_sets_stay_text(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_toy(tmp_path / "data", name)
    arguments = [f"--{key}={value}" for key, value in values(tmp_path / "data", run_dir=tmp_path / "run").items()]
    assert main(["run", "--model=Pop", f"--dataset={name}", *arguments]) == 0
    assert RunFolder.load(tmp_path / "run").result().dataset == name
    assert main(["run", f"--resume={tmp_path / 'run'}"]) == 0


@pytest.mark.parametrize("model", ["os:system", "os:path", "pathlib:Path", ":", "os:", ":x", "nowhere:X", "a:b:c"])
def test_what_is_no_model_is_refused(model: str, toy_folder: Path) -> None:
    with pytest.raises(UserError, match=r"is no model|cannot be imported|there is no model"):
        recbole_ser.run(model, "toy", config_dict=values(toy_folder))


def test_an_interrupted_run_says_how_to_go_on(
    toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(SERTrainer, "fit", interrupted)
    given = [f"--{key}={value}" for key, value in values(toy_folder).items()]
    assert main(["run", "--model=SASRec", "--dataset=toy", *given, f"--run_dir={tmp_path / 'a run'}"]) == 130
    monkeypatch.undo()
    lines = capsys.readouterr().err.splitlines()
    assert lines[-2:] == [
        f"Finished epochs are kept; to go on: recbole-ser run --resume='{tmp_path / 'a run'}'",
        "interrupted",
    ]
    assert main(["run", f"--resume={tmp_path / 'a run'}"]) == 0
    assert f"recbole-ser compare {tmp_path}" in capsys.readouterr().err


def test_an_epoch_says_what_is_to_come() -> None:
    trainer = object.__new__(SERTrainer)
    for name, value in {"cur_step": 2, "stopping_step": 5, "best_valid_score": 0.25, "best_epoch": 1, "epochs": 10,
                        "eval_step": 1}.items():  # fmt: skip
        setattr(trainer, name, value)
    assert trainer._outlook(3, 60.0) == "best 0.2500 in epoch 1, patience 3, 6 to go, at most 6 min 0 s"
    trainer.cur_step = 6
    assert trainer._outlook(7, 60.0) == "best 0.2500 in epoch 1, no patience left"
    trainer.cur_step, trainer.stopping_step = 0, float("inf")
    assert trainer._outlook(9, 60.0) == "the best so far"
