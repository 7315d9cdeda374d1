"""The commands as a user meets them: what they print, what they return, and one clear line where input is wrong."""

from __future__ import annotations

import gc
import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from conftest import write_lines, write_toy

from recbole_ser.cli import COMMANDS, main
from recbole_ser.commands.convert import SOURCES
from recbole_ser.commands.imports import lasting_imports
from recbole_ser.runs.folder import RunFolder

ROOT = Path(__file__).parent.parent


def test_run_without_arguments_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run"]) == 0
    text = capsys.readouterr().out
    assert "--model=SESRec --dataset=ser-sample" in text and "SIGIR'23" in text and "--resume=" in text


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--model=SASRec"], "--dataset is missing"),
        (["--dataset=toy"], "--model is missing"),
        (["--model=SASRek", "--dataset=toy"], "did you mean 'SASRec'"),
        (["--model=SASRec", "--dataset=toy", "--epoch=3"], "did you mean 'epochs'"),
        (["--model=SASRec", "--dataset=toy", "--config_files=none.yaml"], "none.yaml: cannot be read"),
        (["--model=SASRec", "--dataset=nowhere"], "there is no data set 'nowhere'"),
        (["--resume=nowhere"], "not the folder of a run"),
        (["--resume=x", "--epochs=3"], "leave out --epochs"),
        (["model=SASRec"], "write --key=value"),
    ],
)
def test_wrong_input_is_one_line_and_exit_status_2(
    arguments: list[str],
    complaint: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["run", *arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and complaint in error


@pytest.mark.parametrize(
    "arguments",
    ["run --model=Pop --dataset=ser-sample --run_dir=file/x", "describe ser-sample --json=file/x.json",
     "validate ser-sample --json=file/x.json"],
)  # fmt: skip
def test_what_the_system_refuses_is_one_line(
    arguments: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("in the way")
    assert main(arguments.split()) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: file") and error.endswith(("Not a directory", "File exists"))
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("validate nowhere", "there is no data set 'nowhere'"),
        ("describe nowhere", "there is no data set 'nowhere'"),
        ("recommend nowhere --all", "nowhere: not the folder of a run"),
        ("recommend nowhere", "nobody is asked for"),
        ("explain nowhere", "Missing option '--user'"),
        ("explain nowhere --user u1", "nowhere: not the folder of a run"),
        ("convert table --out X", "give --spec FILE, or --interactions FILE"),
        ("convert table --spec none.yaml --out X", "none.yaml: cannot be read"),
        ("convert kuaisar --logs nowhere --out X", "nowhere holds no rec_inter.csv"),
        ("convert qilin --tables nowhere --out X", "nowhere holds neither recommendation_train.parquet"),
        ("convert trivago --log none.csv --out X", "none.csv: there is no such file"),
        ("describe toy --plto=x", "No such option"),
        ("describe toy toys", "unexpected extra argument"),
        ("validate toy -n many", "'many' is not a valid integer"),
        ("convert table", "Missing option '--out'"),
        ("convert tables", "No such command 'tables'"),
        ("compare", "Missing argument 'RUN...'"),
        ("compare nowhere", "nowhere: not the folder of a run"),
        ("compare a --metrics=ndcg", "metric 'ndcg' is not known"),
        ("groups", "Missing argument 'RUN...'"),
        ("groups a b --seed=1 --seed=2", "--seed is given twice"),
        ("groups a b --groups=2 --edges=1", "leave one of them out"),
        ("recommend run --users u1 --all", "give one of them"),
        ("run -m SASRec --model=SASRec -d toy", "--model is given twice"),
        ("run -m SASRec -d toy -x 1", "cannot read argument '-x'"),
        ("run -m SASRec -d toy --codes.rqvae.levels", "has no value"),
        ("run -m SASRec -d toy --eval_arg.mode=full", "did you mean 'eval_args'"),
        ("run -m SASRec -d toy --eval_args.mod=full", "did you mean 'mode'"),
    ],
)
def test_wrong_input_of_other_commands(
    command: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(command.split()) == 2
    (error,) = capsys.readouterr().err.strip().splitlines()
    assert error.startswith("error: ") and complaint in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("--model=SESRec", "--dataset is missing"),
        ("--model=SESRec --dataset=toy --space=alfa", "did you mean 'alpha'"),
        ("--model=SESRec --dataset=toy --trails=3", "did you mean"),
        ("--model=SESRec --dataset=toy --space={alfa:{choice:[1]}}", "did you mean 'alpha'"),
        ("--model=SESRec --dataset=toy --space={alpha:{choices:[1]}}", "write {choice: [...]}"),
        ("--model=SESRec --dataset=toy --space=alpha --alpha=1", "alpha is swept and given as well"),
        ("--model=SESRec --dataset=toy --space=alpha --trials=3", "its grid has 5 points"),
        ("--model=SESRec --dataset=toy --scheduler=hyperband", "scheduler is any of asha, none"),
        ("--model=SESRec --dataset=toy --gpus_per_trial=1.5", "only whole numbers"),
        ("--resume=nowhere", "not the folder of a sweep"),
        ("--resume=x --epochs=3", "leave out --epochs"),
    ],
)
def test_wrong_input_of_a_sweep(
    arguments: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["tune", *arguments.split()]) == 2
    (error,) = capsys.readouterr().err.strip().splitlines()
    assert error.startswith("error: ") and complaint in error
    assert not list(tmp_path.iterdir())


def test_short_options_dots_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_toy(tmp_path)
    write_lines(tmp_path / "one.yaml", "epochs: 3", "eval_args: {mode: uni99}", "state: WARNING")
    write_lines(tmp_path / "two.yaml", "epochs: 1")
    files = f"-c {tmp_path / 'one.yaml'} {tmp_path / 'two.yaml'}"
    options = (
        f"--data_path={tmp_path} --require_both_histories=false --eval_args.mode=full --run_dir {tmp_path / 'run'}"
    )
    assert main(f"run -m Pop -d toy {files} {options}".split()) == 0
    assert "Pop on toy, full" in capsys.readouterr().out
    config = RunFolder.load(tmp_path / "run").config()
    assert config["epochs"] == 1 and config["eval_args"]["mode"] == {"valid": "full", "test": "full"}


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("recbole-ser va", "validate"),
        ("recbole-ser convert t", "trivago"),
        ("recbole-ser run --model SES", "SESRec"),
        ("recbole-ser run --dataset ser", "ser-sample"),
        ("recbole-ser run --model SESRec --tempe", "--temperature="),
        ("recbole-ser run --learn", "--learning_rate="),
        ("recbole-ser describe --spont", "--spontaneous"),
    ],
)
def test_the_shell_completes(words: str, offered: str) -> None:
    environment = {"_RECBOLE_SER_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    code = "import sys; sys.argv = ['recbole-ser']; from recbole_ser.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert offered in [line.rpartition(",")[2] for line in done.stdout.splitlines()], done.stdout + done.stderr


def test_tune_without_arguments_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune"]) == 0
    text = capsys.readouterr().out
    assert "--space=alpha" in text and "--resume=" in text and max(map(len, text.splitlines())) <= 120


def test_a_malformed_file_is_named_with_its_line(tmp_path: Path) -> None:
    base = write_toy(tmp_path)
    with (base / "toy.search").open("a") as handle:
        handle.write("a\tq1\tyesterday\ti1\n")
    command = [
        sys.executable,
        ROOT / "run_recbole_ser.py",
        "--model=SASRec",
        "--dataset=toy",
        f"--data_path={tmp_path}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert "toy.search:7: column 'timestamp': 'yesterday': not a number" in done.stderr
    assert "Traceback" not in done.stderr


def test_doctor_prints_versions_and_devices(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["doctor"])
    text = capsys.readouterr().out
    assert "recbole       1.2.1" in text and "cpu: " in text
    assert status == (1 if "problem:" in text else 0)


@pytest.mark.parametrize("command", ["", *COMMANDS, *(f"convert {source}" for source in SOURCES)])
def test_help_of_every_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert f"Usage: recbole-ser {command}".strip() in text and max(map(len, text.splitlines())) <= 120


def test_help_for_a_model_lists_all_its_keys(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--model=SESRec", "--help"], ["--help", "-m", "SESRec", "--dataset", "kindle"]):
        assert main(["run", *arguments]) == 0
        text = " ".join(capsys.readouterr().out.split())
        assert "Settings of SESRec: alpha=0.1 weight of the query-item alignment; 0: none [a number from 0" in text
        assert "learning_rate=0.001 step size of the optimiser [a number above 0 up to 10]" in text
        assert "eval_args.split.TS=~" in text and "codes.rqvae.levels=4 L, levels of codes" in text
    assert "MAX_ITEM_LIST_LENGTH=15" in text and "max_terms_per_query=15" in text
    assert main(["run", "--help", "--model=SASRek"]) == 2
    assert "did you mean 'SASRec'" in capsys.readouterr().err


def test_a_run_imports_nothing_that_it_does_not_need() -> None:
    unneeded = ["ray", "matplotlib", "duckdb", "pyspark", "optuna", "transformers", "hyperopt", "thop", "plotly"]
    compiler = ["torch._dynamo", "torch._inductor", "sympy"]  # with which PyTorch's own optimisers step
    code = (
        "import sys, torch, recbole_ser.cli, recbole_ser.runner, recbole_ser.tuning, recbole_ser.tuning.trial\n"
        "from recbole_ser.train.optimization import build_adam\n"
        "layer = torch.nn.Linear(2, 1)\n"
        "optimizer = build_adam(layer, 'adam', 0.1, 0.0)\n"
        "layer(torch.ones(1, 2)).sum().backward()\n"
        "optimizer.step(), optimizer.zero_grad(), optimizer.load_state_dict(optimizer.state_dict())\n"
        f"sys.exit(' '.join(name for name in {unneeded + compiler} if name in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_collector_passes_over_what_commands_import(monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = gc.get_freeze_count()
    try:
        with pytest.raises(ImportError), lasting_imports():
            assert not gc.isenabled()
            importlib.import_module("there_is_no_such_module")
        assert gc.isenabled() and gc.get_freeze_count() == frozen
        with lasting_imports():
            monkeypatch.setitem(sys.modules, "planted_module", ModuleType("planted_module"))
        assert gc.isenabled() and gc.get_freeze_count() > frozen
    finally:
        gc.unfreeze()
