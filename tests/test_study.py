"""``recbole-ser study``: what is declared, what is run and where, going on, failures, and the papers' studies."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from conftest import SIZES, command, write_toy

from recbole_ser.bundled import package_folder
from recbole_ser.cli import main
from recbole_ser.errors import ConfigError, UserError
from recbole_ser.runs.folder import RunFolder
from recbole_ser.runs.sweep_folder import SweepFolder
from recbole_ser.study import estimate, jobs, worker
from recbole_ser.study.cells import FAILED, FINISHED, RUNNING, Cell, groups_of
from recbole_ser.study.declaration import read_study
from recbole_ser.study.jobs import Job, Process
from recbole_ser.study.progress import Progress
from recbole_ser.study.study import run_study

TESTS = Path(__file__).parent
INTERACTIONS = [f"u{k:02} i{(k + 2 * place) % 17} {10 * (place + 1)}" for k in range(12) for place in range(6)]
SEARCHES = [f"u{k:02} q{1 + k % 3} {time} i1" for k in range(12) for time in (5, 30)]
MODEL = "tune_models:Fated"
PRESETS = sorted(path.stem for path in (package_folder("properties") / "study").glob("*.yaml"))


class InThisProcess:
    """Does a job at once, in the process of the test, as ``jobs.Process`` does it in one of its own."""

    done: list[tuple[str, str]] = []

    def __init__(self, job: Job) -> None:
        self.job, self._error = job, ""
        place = job.arguments["config_dict"].get("run_dir") or job.arguments.get("storage") or ""
        self.done.append((job.kind, Path(place).name))
        try:
            worker.do(job.kind, job.arguments)
        except Exception as error:
            self._error = str(error)

    def is_over(self) -> bool:
        return True

    def error(self) -> str:
        return self._error

    def stop(self) -> None:
        """There is nothing left to stop."""


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The kinds and folders of the jobs that are done, in this process."""
    monkeypatch.setattr(jobs, "Process", InThisProcess)
    monkeypatch.setattr(jobs, "_PAUSE", 0)
    monkeypatch.setattr(InThisProcess, "done", [])
    return InThisProcess.done


@pytest.fixture
def declare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write a study of the toy data set, ``toy.yaml`` in the working folder, and return its path."""
    write_toy(tmp_path / "data", inter=INTERACTIONS, search=SEARCHES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(TESTS))
    quick = {"data_path": "data", "epochs": 1, "eval_args.mode": "uni5", "require_both_histories": False,
             "state": "WARNING", **SIZES}  # fmt: skip

    def write(models: Any, settings: Any = None, **keys: Any) -> Path:
        content = {"datasets": ["toy"], "models": models, "settings": {**quick, **(settings or {})}, **keys}
        Path("toy.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
        return Path("toy.yaml")

    return write


# --- what is declared -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"models": []}, "models is"),
        ({"models": [{"alpha": 1}]}, r"models: \{'alpha': 1\} has no model"),
        ({"models": ["SASrek"]}, "SASrek: there is no model 'SASrek': did you mean 'SASRec'"),
        ({"models": ["SASRec", "SASRec"]}, "two rows are 'SASRec'"),
        ({"models": [{"model": "Pop", "name": "?"}]}, "a name needs a letter"),
        ({"models": [{"model": "Pop", "name": "a\nb"}]}, "name is .a.nb.: it must be a short line"),
        ({"models": [{"model": "SASRec", "layers": 1}]}, "SASRec: .*SASRec has no key 'layers'"),
        ({"models": [{"model": "SASRec", "seed": 1}]}, "seed is decided by the study: give the list seeds"),
        ({"models": [{"model": "SASRec", "run_dir": "x"}]}, "run_dir is decided"),
        ({"models": [{"model": "SASRec", "tune": 3}]}, "tune is {trials: N"),
        ({"tune": {"trials": 3}}, "tune: epochs is missing"),
        ({"tune": {"trials": 3, "epochs": 1, "budget": 1}}, "tune has no key 'budget'|has no key 'budget'"),
        ({"tune": {"trials": 3, "epochs": 1, "space": {"layers": {"choice": [1]}}}}, "tune: space.*layers"),
        ({"seeds": [1, 1]}, "seeds: 1 is listed twice"),
        ({"seeds": [-1]}, "seeds is"),
        ({"datasets": ["a/b"]}, "dataset is 'a/b'"),
        ({"data": ["toy"]}, "has no key 'data'"),
        ({"settings": {"epochs": 0}}, "epochs is 0"),
    ],
)
def test_a_wrong_declaration_is_one_line_with_the_file(keys: Any, complaint: str, declare: Any) -> None:
    settings = keys.pop("settings", None)
    path = declare(keys.pop("models", ["SASRec"]), settings, **keys)
    with pytest.raises(ConfigError, match=rf"^toy\.yaml: .*({complaint})") as caught:
        run_study(path)
    assert "\n" not in str(caught.value) and not Path("saved").exists()


def test_a_study_without_a_file_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="there is no study 'sesrec-tabel2': did you mean 'sesrec-table2'"):
        read_study("sesrec-tabel2")
    with pytest.raises(ConfigError, match=r"mine\.yaml: cannot be read"):
        read_study("mine.yaml")
    with pytest.raises(ConfigError, match="jobs is a whole number from 1 on, not 0"):
        run_study("sesrec-table2", jobs=0)


def test_settings_of_all_rows_of_the_call_and_of_a_row(declare: Any) -> None:
    models = ["Pop", {"model": "BPR", "name": "w/o L_x (1)", "epochs": 7, "train_neg_sample_args": {"alpha": 0.5}}]
    common = {"stopping_step": 3, "train_neg_sample_args": {"distribution": "popularity"}}
    path = declare(models, common, seeds=[3, 4], tune={"trials": 5, "epochs": 2})
    study = read_study(path, ["other", "toy"], {"epochs": 9, "stopping_step": 4})
    assert [group.dataset for group in groups_of(study)] == ["other", "other", "toy", "toy"]
    pop, other = groups_of(study)[2:]
    assert [pop.config(3)[key] for key in ("seed", "stopping_step")] == [3, 4]
    assert [other.config(4)[key] for key in ("seed", "epochs", "row_name")] == [4, 7, "w/o L_x (1)"]
    negatives = other.config(3)["train_neg_sample_args"]
    assert negatives["distribution"] == "popularity" and negatives["alpha"] == 0.5
    assert Cell(other, 4).path == Path("saved/studies/toy/toy/w-o-L_x-1-4")
    tuning = other.row.tuning
    assert tuning is not None and other.sweep_config(tuning)["epochs"] == 2


def test_rows_that_make_codes_in_another_way_have_codes_of_their_own(declare: Any) -> None:
    other = {"model": "GSERec", "codes.rqvae.lambda_rq_cl": 0}
    names = [dict(other, name="a"), dict(other, name="b"), dict(other, name="c", codes_file="mine.codes"), "GSERec"]
    files = [Path(group.config(1)["codes_file"]) for group in groups_of(read_study(declare(names)))]
    assert files[0] == files[1] and [file.name for file in files[2:]] == ["mine.codes", "toy.codes"]
    assert files[0].parent == files[3].parent and files[0].name.startswith("toy-")
    shared = groups_of(read_study(declare(["SASRec", "GSERec"], {"codes": {"missing_side": "empty"}})))
    assert not shared[0].config(1)["codes_file"] and shared[1].config(1)["codes_file"].endswith(".codes")


def test_tuning_of_a_row_differs_where_it_says_so(declare: Any) -> None:
    models = ["Pop", {"model": "SASRec", "tune": {"trials": 9}}, {"model": "BPR", "tune": False}]
    rows = read_study(declare(models, tune={"trials": 5, "epochs": 2, "search": "random"})).rows
    budgets = [row.tuning and (row.tuning.trials, row.tuning.epochs, row.tuning.search) for row in rows]
    assert budgets == [(5, 2, "random"), (9, 2, "random"), None]


@pytest.mark.parametrize("name", PRESETS)
def test_the_papers_studies_run_on_any_data_set(name: str) -> None:
    study = read_study(name, ["ser-sample"], folder="nowhere")
    for group in groups_of(study):
        group.check()


def test_there_is_a_study_for_each_of_the_papers_tables() -> None:
    assert PRESETS == ["gserec-table2", "gserec-table3", "sesrec-table2", "sesrec-table3", "sesrec-table4"]


# --- what is run ------------------------------------------------------------------------------------------------------


def test_a_study_is_run_reports_failures_and_goes_on(
    declare: Any, done: list[tuple[str, str]], capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    models = ["Pop", {"model": MODEL, "name": "w/o luck", "fate": "nan"}, {"model": MODEL, "name": "fine"}]
    path = declare(models, {"epochs": 2}, seeds=[1, 2])
    assert command("study", path, "--jobs=2") == 1
    runs = [("run", f"{row}-{seed}") for row in ("Pop", "w-o-luck", "fine") for seed in (1, 2)]
    text = capsys.readouterr().out
    assert done == runs and text.count("failed: w/o luck on toy, seed 1: ") == 2 and "diverged" in text
    assert "over 2 seeds" in text and "fine " in text and "saved/studies/toy" in text

    folder = Path("saved/studies/toy/toy")
    (folder / "fine-2/result.json").unlink()
    done.clear()
    result = run_study(path)
    assert done == [run for run in runs if "luck" in run[1] or run[1] == "fine-2"]
    assert [cell.status for cell in result.cells] == [FINISHED, FINISHED, FAILED, FAILED, FINISHED, FINISHED]
    assert [model.name for model in result.comparisons["toy"].models] == ["Pop", "fine"] and not result.problems
    assert RunFolder(folder / "fine-2").result().epochs == 2

    assert command("compare", result.folder, "--metrics=mrr") == 0  # the failed runs are left out
    assert capsys.readouterr().out.count("fine ") > 0
    run_study(declare([models[0], models[2]], {"epochs": 2}, seeds=[2]))
    for given in (result.folder, folder):  # rows and seeds that were removed from the file
        assert command("compare", given, "--metrics=mrr") == 0
        text = capsys.readouterr().out
        assert "over 2 seeds" not in text and "fine " in text
        assert caplog.messages[-1].endswith("any more: Pop-1, fine-1, w-o-luck-1, w-o-luck-2")
        caplog.clear()
    path = declare(models, {"epochs": 2}, seeds=[1, 2])
    with pytest.raises(ConfigError, match="Pop-1 was made with another stopping_step: give the study another --folder"):
        run_study(path, settings={"stopping_step": 3})
    assert run_study(path, settings={"state": "ERROR"}).cells[0].status == FINISHED  # how it works is no matter


def test_what_runs_read_is_made_once_and_runs_that_lack_it_fail(declare: Any, done: list[tuple[str, str]]) -> None:
    codes = {"rqvae": {"epochs": 1, "users_per_code": 1, "levels": 1}}
    small = {"model": "GSERec", "embedding_size": 4, "hidden_size": 4, "mlp_hidden_size": [4], "codes": codes}
    path = declare(["Pop", small], seeds=[1, 2])
    result = run_study(path, datasets=["toy", "nothing"])
    kinds = [kind for kind, _ in done]
    assert kinds == ["prepare", "prepare", "prepare", "run", "run", "run", "run"]  # codes; nothing, with and without
    assert [cell.status for cell in result.cells] == [FINISHED] * 4 + [FAILED] * 4
    assert {cell.error[:32] for cell in result.cells[4:]} == {"there is no data set 'nothing': "}
    hashes = {(cell.path / "data.json").read_text().partition('"codes"')[2][:99] for cell in result.cells[2:4]}
    assert len(hashes) == 1 and list(result.comparisons) == ["toy"]


def test_a_dry_run_says_what_is_left_and_what_it_costs(
    declare: Any, done: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    path = declare(["BPR", {"model": "SASRec", "tune": {"trials": 3, "epochs": 2}}], {"epochs": 50}, seeds=[1, 2])
    run_study(declare(["BPR"], {"epochs": 50}, seeds=[1]))
    done.clear()
    capsys.readouterr()
    path = declare(["BPR", {"model": "SASRec", "tune": {"trials": 3, "epochs": 2}}], {"epochs": 50}, seeds=[1, 2])
    files = sorted(Path().rglob("*"))
    assert command("study", path, "--dry-run", "--jobs=3", "--dataset", "toy", "nothing") == 0
    text = capsys.readouterr().out
    rows = [line.split()[:4] for line in text.splitlines()]
    assert ["BPR", "toy", "1", "0"] in rows and ["SASRec", "toy", "2", "3"] in rows
    assert text.count("not there yet: ") == 2 and "and 2 rows that were not measured, 3 at once" in text
    assert not done and sorted(Path().rglob("*")) == files


def test_the_cost_counts_epochs_runs_and_trials(declare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "cpu_seconds", lambda config: (30.0, 60.0))
    models = ["BPR", {"model": "SASRec", "tune": {"trials": 4, "epochs": 3}}]
    study = read_study(declare(models, {"epochs": 10}, seeds=[1, 2]))
    minutes = [estimate.planned(study, group).minutes for group in groups_of(study)]
    assert minutes == [2 * (10 * 0.5 + 1), 2 * (10 * 0.5 + 1) + 4 * 3 * 0.5]


def test_runs_on_other_targets_are_finished_and_not_compared(declare: Any, done: list[tuple[str, str]]) -> None:
    path = declare(["Pop", {"model": "BPR", "eval_args.mode": "uni6"}])
    result = run_study(path)
    assert not result.failed and not result.comparisons and "protocols differ" in result.problems["toy"]


def test_an_interrupted_study_stops_what_it_has_started(declare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = []

    class Interrupted(InThisProcess):
        def is_over(self) -> bool:
            raise KeyboardInterrupt

        def stop(self) -> None:
            stopped.append(self.job.cells[0].title)

    monkeypatch.setattr(jobs, "Process", Interrupted)
    path = declare(["Pop", "BPR"])
    with pytest.raises(KeyboardInterrupt):
        run_study(path, jobs=2)
    assert stopped == ["Pop on toy, seed 2023", "BPR on toy, seed 2023"]
    with jobs_locked(), pytest.raises(UserError, match="another process is running this study"):
        run_study(path)


def jobs_locked() -> Any:
    from recbole_ser.files import exclusive

    return exclusive("saved/studies/toy/.lock", "busy")


def test_progress_in_a_terminal_and_elsewhere(declare: Any, capsys: pytest.CaptureFixture[str]) -> None:
    study = read_study(declare(["Pop", "SASRec", "BPR"], seeds=[1]))
    cells = [Cell(group, 1) for group in groups_of(study)]
    cells[0].status, cells[1].status, cells[2].status, cells[2].error = FINISHED, RUNNING, FAILED, "why " * 40
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    progress = Progress(cells, terminal)
    progress.say("not here")
    lines = progress.lines(80)
    assert lines[0].startswith("2 of 3 runs over after 0.0 s: 1 running, 1 failed") and max(map(len, lines)) == 80
    assert lines[1] == "running   SASRec on toy, seed 1" and lines[2].startswith(
        "failed    BPR on toy, seed 1: why why"
    )
    RunFolder(cells[1].path).append_metrics(
        {"epoch": 4, "losses": {}, "valid": {}, "learning_rate": 1.0, "seconds": 1.0, "cpu_seconds": 1.0}
    )
    assert progress.lines(80)[1] == "running   SASRec on toy, seed 1: 5 epochs"
    Progress(cells, io.StringIO()).say("here")
    assert capsys.readouterr().out == "here\n"


# --- in processes of their own ----------------------------------------------------------------------------------------


def test_a_process_says_what_failed(tmp_path: Path) -> None:
    arguments = {"model": "SASRec", "dataset": "toy", "config_dict": {"data_path": str(tmp_path), "epochs": 0}}
    log = tmp_path / "of/a.log"
    log.parent.mkdir()
    log.write_text("error: of an earlier time\n")
    process = Process(Job("prepare", arguments, log, []))
    while not process.is_over():
        time.sleep(0.1)
    assert process.error().startswith("argument: epochs is 0") and log.read_text().startswith("error: of an earlier")


def start(*arguments: str) -> subprocess.Popen[bytes]:
    code = f"import sys; sys.path[:0] = [{str(TESTS)!r}]; from recbole_ser.cli import main; sys.exit(main())"
    return subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.mark.slow
def test_killed_and_interrupted_runs_go_on_to_the_same_result(declare: Any) -> None:
    models = [
        {"model": MODEL, "name": "unlucky", "fate": "dies once"},
        {"model": MODEL, "name": "slow", "seconds": 0.5},
    ]
    path = declare(models, {"epochs": 6})
    folder = Path("saved/studies/toy/toy")
    study = start("study", str(path), "--jobs=2")
    line = folder / "slow-2023/metrics.jsonl"
    deaths = folder / "unlucky-2023/deaths"
    deadline = time.monotonic() + 120
    while not (line.exists() and deaths.exists()):
        assert study.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    children = psutil.Process(study.pid).children(recursive=True)
    study.send_signal(signal.SIGINT)
    assert study.wait(60) == 130 and not psutil.wait_procs(children, timeout=30)[1]
    study = start("study", str(path), "--jobs=2")
    output = study.communicate(timeout=200)[0].decode()
    assert study.returncode == 0 and "failed" not in output, output
    whole = run_study(path, folder="whole", jobs=2)
    assert [cell.error for cell in whole.cells] == [
        "its process was killed (signal 9), as happens when memory is short", ""
    ]  # fmt: skip
    results = [RunFolder(place / "slow-2023").result() for place in (folder, Path("whole/toy"))]
    assert results[0].test == results[1].test and results[0].epochs == results[1].epochs == 6


def test_a_process_of_a_cluster_works_where_the_study_is_and_says_what_failed(
    declare: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    arguments = {"model": "SASRec", "dataset": "toy", "config_dict": {"data_path": "data", "epochs": 0}}
    assert jobs.do_there("prepare", arguments, "a.log", str(tmp_path)).startswith("argument: epochs is 0")
    assert sys.path[0] == str(tmp_path) and (tmp_path / "a.log").read_text().startswith("error: argument")
    missing = jobs.do_there("prepare", arguments, "a.log", str(tmp_path / "nowhere"))
    assert missing.endswith(f"does not see {tmp_path}/nowhere: all machines need the same working folder")


# Two machines with a CPU each; Ctrl-C once two runs are under way, as "interrupted" says.
ON_TWO_MACHINES = f"""
import os, signal, sys, threading, time
from pathlib import Path

sys.path[:0] = [{str(TESTS)!r}]
from recbole_ser.tuning import ray_versions
ray_versions.import_ray(loopback=True)
from ray.cluster_utils import Cluster
from recbole_ser.cli import main

def interrupt():
    while sum(path.stat().st_size > 0 for path in Path("saved/studies/toy/toy").glob("*/metrics.jsonl")) < 2:
        time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGINT)

cluster = Cluster(initialize_head=True, head_node_args={{"num_cpus": 1}})
cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()
if sys.argv[1] == "interrupted":
    threading.Thread(target=interrupt, daemon=True).start()
status = main(["study", "toy.yaml", f"--address={{cluster.address}}"])
cluster.shutdown()
sys.exit(status)
"""


@pytest.mark.slow
def test_on_a_cluster(declare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), *sys.path]))
    rows = [{"model": MODEL, "name": "a", "seconds": 0.5}, {"model": MODEL, "name": "b", "seconds": 0.5},
            {"model": MODEL, "name": "unlucky", "fate": "dies once"}]  # fmt: skip
    declare(rows, {"epochs": 6})
    folders = [Path(f"saved/studies/toy/toy/{name}-2023") for name in "ab"]
    texts, first_epochs = [], []
    for how, status in (("interrupted", 130), ("whole", 1)):
        line = [sys.executable, "-W", "ignore", "-c", ON_TWO_MACHINES, how]
        done = subprocess.run(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=200)
        assert done.returncode == status, done.stdout
        texts.append(done.stdout)
        first_epochs.append([RunFolder(folder).metrics()[0] for folder in folders])
    told = [line for line in texts[1].splitlines() if line.startswith(("running", "finished", "failed: unlucky"))]
    assert [line[:7] for line in told[:2]] == ["running"] * 2, "both machines work at once"
    assert sum("its process was killed (signal 9)" in line for line in told) == 2  # when it happens, and at the end
    assert [RunFolder(folder).result().epochs for folder in folders] == [6, 6]
    assert first_epochs[0] == first_epochs[1], "the second time they went on from where they were"


@pytest.mark.slow
def test_rows_are_tuned_first_with_the_same_budget(declare: Any, capsys: pytest.CaptureFixture[str]) -> None:
    space = {"learning_rate": {"choice": [0.001, 0.1]}}
    row = {"model": "BPR", "name": "tuned"}
    path = declare([row, {"model": "Pop", "tune": False}], seeds=[1, 2], settings={"epochs": 3},
                   tune={"trials": 2, "epochs": 2, "space": space, "search": "grid", "scheduler": "none"})  # fmt: skip
    assert main(["study", str(path), "--jobs=2"]) == 0, capsys.readouterr()
    sweep = SweepFolder.load("saved/studies/toy/toy/tuning/tuned")
    chosen = sweep.trial(sweep.result()[0]).values()
    assert [trial.read("ndcg@10").epochs for trial in sweep.trials()] == [2, 2]
    for seed in (1, 2):
        run = RunFolder(Path(f"saved/studies/toy/toy/tuned-{seed}"))
        assert run.config()["learning_rate"] == chosen["learning_rate"] and run.result().epochs == 3
    assert run_study(path).failed == []
    with pytest.raises(ConfigError, match="tuned was tuned with another space"):
        run_study(declare([row], settings={"epochs": 3}, tune={"trials": 1, "epochs": 2, "search": "grid",
                          "scheduler": "none", "space": {"learning_rate": {"choice": [0.1]}}}))  # fmt: skip
    with pytest.raises(ConfigError, match="tuned was made with another epochs"):
        run_study(declare([row], settings={"epochs": 3}, tune={"trials": 2, "epochs": 1, "search": "grid",
                          "scheduler": "none", "space": space}))  # fmt: skip
