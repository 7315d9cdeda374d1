"""Sweeps on Ray: what they find, how they go on after kills and failures, two machines, and loopback only."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("ray", reason="sweeps need Ray")

from recbole_ser.cli import main
from recbole_ser.errors import ConfigError, UserError
from recbole_ser.runner import run
from recbole_ser.runs.folder import RunFolder
from recbole_ser.runs.sweep_folder import SweepFolder
from recbole_ser.tuning import SweepResult, ray_versions, resume, tune
from recbole_ser.tuning.resources import Resources
from recbole_ser.yaml_values import read_yaml

TESTS = Path(__file__).parent
QUIET = {"show_progress": False, "state": "WARNING"}
MODEL, TWO = "tune_models:Fated", Resources(concurrent=2)

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def models_are_where_the_sweep_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(TESTS)


@pytest.fixture(scope="module", autouse=True)
def ray_is_there() -> Iterator[None]:
    """One Ray for all sweeps in this process; those in processes of their own start theirs."""
    ray_versions.import_ray(loopback=True)
    from recbole_ser.tuning import engine

    with engine.cluster(Resources()):
        yield


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> SweepResult:
    """Six trials of SESRec, three epochs at most."""
    space = {"alpha": {"loguniform": [0.01, 1.0]}, "beta": {"choice": [0.001, 0.1]}, "margin": {"uniform": [0.1, 0.3]}}
    return tune(
        "SESRec", "ser-sample", space=space, trials=6, grace_period=1, resources=TWO,
        storage=tmp_path_factory.mktemp("sweeps") / "sweep", config_dict={**QUIET, "epochs": 3},
    )  # fmt: skip


def test_a_sweep_leaves_tables_that_other_tools_read(sweep: SweepResult) -> None:
    with (sweep.folder / "trials.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    lines = [json.loads(line) for line in (sweep.folder / "trials.jsonl").read_text().splitlines()]
    assert [int(row["trial"]) for row in rows] == [line["trial"] for line in lines] == list(range(6))
    for row, line, trial in zip(rows, lines, sweep.trials):
        assert row["status"] == line["status"] == trial.status in ("finished", "stopped")
        assert {"alpha", "beta", "margin", "epochs", "seconds", "cpu_seconds", "ndcg@10", "mrr"} <= line.keys()
        assert float(row["ndcg@10"]) == line["ndcg@10"] == max(trial.scores)
    assert [line["status"] == "finished" for line in lines] == [line["epochs"] == 3 for line in lines]
    assert lines[0]["status"] == "finished" or lines[1]["status"] == "finished"
    assert not (sweep.folder / ".ray").exists()


def test_the_best_in_validation_is_tested_and_no_other(sweep: SweepResult) -> None:
    best = max(sweep.trials, key=lambda trial: trial.score or 0.0)
    assert sweep.chosen.number == best.number and sweep.test.valid["ndcg@10"] == best.score
    tested = [path.parent.name for path in sorted(sweep.folder.glob("trials/*/ranks.csv"))]
    assert tested == [f"{best.number:03d}"]
    result = json.loads((sweep.folder / "result.json").read_text())
    assert result["trial"] == best.number and result["test"] == sweep.test.test and result["values"] == best.values


def test_only_the_best_weights_are_kept(sweep: SweepResult) -> None:
    (kept,) = sweep.folder.glob("trials/*/*.pt")
    assert kept.parent.name == f"{sweep.chosen.number:03d}" and kept.name == "best.pt"


def test_best_yaml_is_run_to_the_same_result(sweep: SweepResult, tmp_path: Path) -> None:
    best = sweep.folder / "best.yaml"
    assert all(read_yaml(best)[key] == value for key, value in sweep.chosen.values.items())
    epochs = sweep.chosen.epochs
    again = run("SESRec", "ser-sample", config_files=[str(best)],
                config_dict={"run_dir": str(tmp_path / "again"), "epochs": epochs})  # fmt: skip
    assert again.valid == sweep.test.valid and again.test == sweep.test.test
    assert again.candidates == sweep.test.candidates and again.data == sweep.test.data


def test_trials_share_data_and_candidates_and_report_every_epoch(sweep: SweepResult) -> None:
    folders = [RunFolder.load(path) for path in sorted(sweep.folder.glob("trials/*"))]
    assert all(folder.data() == folders[0].data() for folder in folders)
    assert folders[0].data()["candidates"] == sweep.test.candidates
    for folder, trial in zip(folders, sweep.trials):
        assert [line["epoch"] for line in folder.metrics()] == list(range(trial.epochs))
        assert folder.config()["alpha"] == trial.values["alpha"]


def test_plots_are_drawn(sweep: SweepResult) -> None:
    pytest.importorskip("matplotlib", reason="plots need matplotlib")
    assert {path.name for path in (sweep.folder / "plots").iterdir()} == {
        "alpha.png", "beta.png", "margin.png", "parallel.png"
    }  # fmt: skip


def test_resuming_a_finished_sweep_trains_and_tests_nothing_again(sweep: SweepResult) -> None:
    before = {path: path.stat().st_mtime_ns for path in sweep.folder.glob("trials/*/*") if path.suffix != ".txt"}
    assert main(["tune", f"--resume={sweep.folder}", "--concurrent=2"]) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_tensors_are_shared_and_not_copied() -> None:
    """In a process of its own: the tensor that a worker reads lies in the object store, which is shared memory."""
    code = """
        import torch
        from recbole_ser.tuning import ray_versions
        ray_versions.import_ray(loopback=True)
        import ray
        ray.init(address="local", num_cpus=1, include_dashboard=False, logging_level="ERROR")
        value = {"many": torch.arange(1_000_000), "none": torch.zeros(0), "truth": torch.tensor([True, False])}
        reference = ray_versions.put_tensors_once(ray, value)

        @ray.remote
        def where(references):
            tensors = ray.get(references[0])
            address = tensors["many"].data_ptr()
            for line in open("/proc/self/maps"):
                low, high = (int(end, 16) for end in line.split()[0].split("-"))
                if low <= address < high:
                    return line, int(tensors["many"].sum()), tensors["none"].shape, tensors["truth"].tolist()

        line, total, shape, truth = ray.get(where.remote([reference]))
        assert "plasma" in line or "/dev/shm" in line, line
        assert total == 499_999_500_000 and shape == (0,) and truth == [True, False]
        other = ray.get(ray.put(torch.ones(3)))  # tensors are pickled as before
        other += 1
        assert other.tolist() == [2, 2, 2]
    """
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --- kills ------------------------------------------------------------------------------------------------------------


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "ignore", "-m", "recbole_ser.cli", "tune", *arguments]
    log = (folder.parent / f"{folder.name}.out").open("a")
    return subprocess.Popen(
        command, cwd=TESTS, stdout=log, stderr=subprocess.STDOUT, text=True, preexec_fn=_hear_interrupts
    )


def _hear_interrupts() -> None:
    """Where the tests run in the background of a shell, what they start would ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_until(condition: Callable[[], Any], process: subprocess.Popen[str]) -> None:
    began = time.monotonic()
    while not condition():
        assert process.poll() is None, "the sweep ended early"
        assert time.monotonic() - began < 240, "nothing happened"
        time.sleep(0.05)


def trial_processes(family: list[psutil.Process]) -> list[psutil.Process]:
    found = []
    for process in family:
        with suppress(psutil.NoSuchProcess):
            if "ImplicitFunc" in process.name():  # what Ray calls them
                found.append(process)
    return found


def epochs_of(folder: Path) -> list[int]:
    return [len(trial.lines()) for trial in SweepFolder(folder).trials()]


def test_a_killed_and_an_interrupted_driver_resume_to_the_same_result(tmp_path: Path) -> None:
    folder, rates = tmp_path / "sweep", [0.003, 0.01, 0.03]
    space = f"{{learning_rate: {{choice: {rates}}}}}"
    settings = {**QUIET, "epochs": 4, "seconds": 1.0}
    given = [f"--{key}={json.dumps(value)}" for key, value in settings.items()]
    sweep = start(
        folder, f"--model={MODEL}", "--dataset=ser-sample", f"--space={space}", "--search=grid", "--scheduler=none",
        f"--storage={folder}", "--concurrent=2", *given,
    )  # fmt: skip
    wait_until(lambda: len(epochs_of(folder)) > 1 and min(epochs_of(folder)[:2]) > 0, sweep)
    family = psutil.Process(sweep.pid).children(recursive=True)
    assert_loopback_only([psutil.Process(sweep.pid), *family])
    with pytest.raises(UserError, match="another process is running this sweep"):
        resume(folder, model=MODEL)
    trainers = trial_processes(family)
    sweep.send_signal(signal.SIGKILL)
    sweep.wait()
    _, alive = psutil.wait_procs(trainers, timeout=30)
    assert trainers and not alive, "trials outlive the driver"

    # One trial at a time, so that the last comes after the others.
    again = start(folder, f"--resume={folder}", f"--model={MODEL}", "--concurrent=1")
    wait_until(lambda: SweepFolder(folder).trial(0).outcome and SweepFolder(folder).trial(1).outcome, again)
    wait_until(lambda: len(epochs_of(folder)) == 3 and epochs_of(folder)[2] > 0, again)
    kept = {path: path.read_bytes() for path in folder.glob("trials/00[01]/metrics.jsonl")}
    again.send_signal(signal.SIGINT)
    assert again.wait(60) == 130
    said = (tmp_path / "sweep.out").read_text()
    assert f"go on with: recbole-ser tune --resume={folder} --model={MODEL}" in said and "Traceback" not in said
    assert (folder / "trials.csv").is_file() and not (folder / "result.json").exists()

    assert start(folder, f"--resume={folder}", f"--model={MODEL}").wait(240) == 0
    assert {path: path.read_bytes() for path in kept} == kept, "a finished trial was trained again"
    for number, rate in enumerate(rates):
        alone = tmp_path / f"alone-{number}"
        run(MODEL, "ser-sample", config_dict={**settings, "seconds": 0.0, "learning_rate": rate, "run_dir": str(alone)})
        mine, undisturbed = (RunFolder.load(path).metrics() for path in (folder / f"trials/{number:03d}", alone))
        assert [(line["epoch"], line["losses"], line["valid"]) for line in mine] == [
            (line["epoch"], line["losses"], line["valid"]) for line in undisturbed
        ]


def assert_loopback_only(processes: list[psutil.Process]) -> None:
    listening = []
    for process in processes:
        try:
            sockets = getattr(process, "net_connections", process.connections)(kind="inet")
        except psutil.Error:
            continue
        listening += [socket.laddr.ip for socket in sockets if socket.status == psutil.CONN_LISTEN]
    assert listening and {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}


def test_trials_that_fail_or_die_do_not_end_the_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fates = ["fine", "dies once", "dies twice", "nan", "memory"]
    result = tune(
        MODEL, "ser-sample", space={"fate": {"choice": fates}}, search="grid", scheduler="none", resources=TWO,
        storage=tmp_path / "sweep", config_dict={**QUIET, "epochs": 2},
    )  # fmt: skip
    fine, once, dies, nan, memory = result.trials
    assert [trial.status for trial in result.trials] == ["finished", "finished", "killed", "failed", "failed"]
    assert once.scores == fine.scores, "the trial did not go on from its checkpoint"
    assert "is nan in epoch 1" in nan.error and "CUDA out of memory" in memory.error and "died" in dies.error
    assert [trial.epochs for trial in (dies, nan, memory)] == [1, 1, 1]
    assert result.chosen.number == 0
    assert f"run --model={MODEL} --dataset=ser-sample" in (result.folder / "best.yaml").read_text()
    printed = capsys.readouterr().out
    assert "trial 4 failed (fate=memory): OutOfMemoryError: CUDA out of memory" in printed
    assert "Traceback" in (tmp_path / "sweep" / "trials" / "004" / "error.txt").read_text()

    resumed = resume(result.folder, model=MODEL, resources=TWO)
    assert [trial.status for trial in resumed.trials] == ["finished", "finished", "finished", "failed", "failed"]
    assert resumed.trials[2].scores == fine.scores and resumed.chosen.number == 0


def test_a_sweep_in_which_nothing_ends_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no trial came to an end; the first: trial 0 failed \(fate=nan\): .* nan"):
        tune(MODEL, "ser-sample", space={"fate": {"choice": ["nan"]}}, search="grid", storage=tmp_path / "sweep",
             config_dict={**QUIET, "epochs": 2})  # fmt: skip


# --- clusters ---------------------------------------------------------------------------------------------------------


def test_two_machines_and_shared_gpus(tmp_path: Path) -> None:
    """Three trials with half a GPU each on two nodes with one each: all at once, two of them on one GPU."""
    (tmp_path / "notes").mkdir()
    code = f"""
        import sys
        from recbole_ser.tuning import ray_versions
        ray_versions.import_ray(loopback=True)
        from ray.cluster_utils import Cluster
        from recbole_ser.cli import main

        cluster = Cluster(initialize_head=True, head_node_args={{"num_cpus": 1, "num_gpus": 1}})
        cluster.add_node(num_cpus=1, num_gpus=1)
        cluster.wait_for_nodes()
        status = main([
            "tune", "--model={MODEL}", "--dataset=ser-sample", "--search=grid",
            "--space={{learning_rate: {{choice: [0.001, 0.01, 0.1]}}}}", "--scheduler=none", "--epochs=1",
            "--notes={tmp_path / "notes"}", "--together=3", "--show_progress=false",
            "--storage={tmp_path / "sweep"}", f"--address={{cluster.address}}",
            "--gpus_per_trial=0.5", "--cpus_per_trial=0.5",
        ])
        cluster.shutdown()
        sys.exit(status)
    """
    environment = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)], cwd=TESTS, env=environment,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    notes = [json.loads(path.read_text()) for path in sorted((tmp_path / "notes").iterdir())]
    assert len(notes) == 3 and len({note["node"] for note in notes}) == 2
    assert all(note["devices"] == "0" for note in notes)
    trials = SweepFolder(tmp_path / "sweep").read_trials("ndcg@10")
    assert [(trial.status, trial.error) for trial in trials] == [("finished", "")] * 3  # they waited for each other


def test_what_cannot_be_given_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="gpus_per_trial: 4 are wanted, and no machine has more than"):
        tune("SASRec", "ser-sample", resources=Resources(gpus_per_trial=4), storage=tmp_path / "sweep",
             config_dict=QUIET)  # fmt: skip


# --- codes ------------------------------------------------------------------------------------------------------------


def test_codes_are_made_once_for_each_value(tmp_path: Path) -> None:
    space = {"codes.rqvae.lambda_rq_cl": {"choice": [0.0, 0.1]}, "history_contrast_weight": {"choice": [0.0, 0.1]}}
    result = tune(
        "GSERec", "ser-sample", space=space, search="grid", scheduler="none", resources=TWO, storage=tmp_path / "sweep",
        config_dict={**QUIET, "epochs": 1, "codes": {"rqvae": {"levels": 2, "epochs": 2}}},
    )  # fmt: skip
    hashes = [RunFolder.load(tmp_path / "sweep" / "trials" / f"{n:03d}").data()["codes"]["hash"] for n in range(4)]
    assert hashes[0] == hashes[1] != hashes[2] == hashes[3]
    made = sorted((tmp_path / "sweep" / "codes").glob("*.codes"))
    assert [path.name for path in made] == ["000.codes", "001.codes"]
    again = run("GSERec", "ser-sample", config_files=[str(tmp_path / "sweep" / "best.yaml")],
                config_dict={"run_dir": str(tmp_path / "again")})  # fmt: skip
    assert again.test == result.test.test and again.codes == result.test.codes
