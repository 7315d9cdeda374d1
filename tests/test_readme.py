"""Commands and examples of README and documentation are run, and the one for the tests is the one that CI calls."""

from __future__ import annotations

import gzip
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recbole_ser.cli import commands, main
from recbole_ser.commands.arguments import parse_arguments
from recbole_ser.config import SERConfig
from recbole_ser.registry import MODELS, ModelSpec
from recbole_ser.runner import run
from recbole_ser.settings.run import AllSettings
from recbole_ser.study.cells import groups_of
from recbole_ser.study.declaration import read_study
from recbole_ser.tuning.plan import read_plan
from recbole_ser.tuning.trial import trial_config

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = "\n".join(path.read_text(encoding="utf-8") for path in PAGES)
README = PAGES[0].read_text(encoding="utf-8")
MODEL_PAGE = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
T = 1_700_000_000_000


def blocks(language: str) -> list[str]:
    """The distinct blocks of code in ``language``: some stand in the README and on a page."""
    return list(dict.fromkeys(re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)))


PYTHON, YAML, SHELL = blocks("python"), blocks("yaml"), blocks("bash")
COMMANDS = sorted(
    {line.partition(" #")[0] for block in SHELL for line in block.splitlines() if line.startswith("recbole-ser ")}
)


def example(name: str) -> str:
    (code,) = (block for block in PYTHON if block.startswith(f"# {name}\n"))
    return code


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_has_the_options_that_it_is_given(line: str) -> None:
    name, *arguments = shlex.split(line)[1:]
    command, context = commands.get_command(None, name), None
    while isinstance(command, click.Group):
        command = command.get_command(context, arguments.pop(0))
    context = command.make_context(name, arguments, resilient_parsing=True)
    values, model = parse_arguments(context.args), context.params.get("model")
    if model in MODELS:
        SERConfig(model, context.params["dataset"] or "any", None, values)
    else:
        assert {key.partition(".")[0] for key in values} <= AllSettings.model_fields.keys()


def test_ci_calls_the_command_for_the_tests() -> None:
    (command,) = (block.strip() for block in SHELL if "pytest" in block)
    assert command in (ROOT / ".ci" / "run").read_text()


def test_the_python_example_runs(tmp_path: Path) -> None:
    (code,) = (block for block in PYTHON if "from recbole_ser import run\n" in block)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^0\.\d+ [0-9a-f]{12} saved/ser-sample/SESRec-", done.stdout, re.MULTILINE)


def test_the_example_by_hand_runs(tmp_path: Path) -> None:
    (code,) = (block for block in PYTHON if "build_trainer" in block)
    assert len([line for line in code.splitlines() if line]) <= 10
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^torch.Size\(\[\d+, \d+\]\) 0\.\d+$", done.stdout, re.MULTILINE)
    assert len(list((tmp_path / "saved" / "ser-sample").glob("SESRec-*/result.json"))) == 1


def test_the_mapping_converts_logs(tmp_path: Path) -> None:
    (mapping,) = (block for block in YAML if block.startswith("# shop.yaml"))
    (tmp_path / "logs").mkdir()
    (tmp_path / "shop.yaml").write_text(mapping)
    clicks = {"uid": ["u1"] * 3, "product": ["p1", "p1", "p2"], "action": ["view", "click", "buy"]}
    pq.write_table(pa.table({**clicks, "at": [T, T + 10_000, T + 20_000]}), tmp_path / "logs" / "clicks-1.parquet")
    shown = [("p2", False, T + 15_000), ("p3", True, T + 19_000)]
    with gzip.open(tmp_path / "logs" / "shown.jsonl.gz", "wt") as handle:
        for product, clicked, at in shown:
            row = {"uid": "u1", "product": product, "clicked": clicked, "at": at}
            handle.write(json.dumps({**row, "search_id": 7, "text": "Red Shoes", "page": "home"}) + "\n")
    (tmp_path / "products.csv").write_text("product,category,title,price\np1,shoes,Red shoe,9.5\np3,hats,Blue hat,\n")
    lines = [line for block in SHELL for line in block.splitlines()]
    (command,) = {line for line in lines if line.startswith("recbole-ser convert table") and "--engine" not in line}
    arguments = command.split()[1:]
    arguments[-1], arguments[arguments.index("shop.yaml")] = str(tmp_path / "shop"), str(tmp_path / "shop.yaml")
    assert main(arguments) == 0
    seconds = T // 1000
    assert (tmp_path / "shop" / "shop.inter").read_text().splitlines()[1:] == [
        f"u1\tp1\t{seconds + 10}", f"u1\tp2\t{seconds + 20}"
    ]  # fmt: skip
    (search,) = (tmp_path / "shop" / "shop.search").read_text().splitlines()[1:]
    assert search.split("\t")[2:] == [str(seconds + 15), "p3", str(seconds + 19), "home"]
    assert main(["validate", str(tmp_path / "shop")]) == 0


def test_the_recommending_example_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = (block for block in PYTHON if "Recommender.load" in block)
    values = {"epochs": 1, "show_progress": False, "run_dir": str(tmp_path / "run")}
    run("SASRec", "ser-sample", config_dict=values)
    capsys.readouterr()
    exec(re.sub(r'load\("[^"]*"\)', f"load({str(tmp_path / 'run')!r})", code), {})
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in printed if re.match(r"\d+ +u1 ", line)] == ["u1"] * 3
    assert sum(bool(re.match(r"\d+ +new ", line)) for line in printed) == 10


@pytest.mark.slow
def test_the_tuning_example_runs(tmp_path: Path) -> None:
    (code,) = (block for block in PYTHON if "from recbole_ser import tune" in block)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^\{'alpha': 0\.\d+\} 0\.\d+$", done.stdout, re.MULTILINE)


def test_the_study_file_is_one(tmp_path: Path) -> None:
    (text,) = (block for block in YAML if block.startswith("# ours.yaml"))
    (tmp_path / "ours.yaml").write_text(text)
    groups = groups_of(read_study(tmp_path / "ours.yaml", folder=tmp_path / "study"))
    for group in groups:
        group.check()
    assert [group.row.title for group in groups] == ["Pop", "SASRec", "SESRec", "w/o alignment"]


def test_the_sweep_file_is_one(tmp_path: Path) -> None:
    (text,) = (block for block in YAML if block.startswith("# mine.yaml"))
    (tmp_path / "mine.yaml").write_text(text)
    plan, where = read_plan("SASRec", str(tmp_path / "mine.yaml"))
    config = SERConfig("SASRec", "ser-sample")
    plan.check(config, where)
    for loss in plan.space[2].values:
        trial_config(config.arguments(), {"learning_rate": 0.01, "n_layers": 2, "loss_type": loss})
    assert plan.name == "wide" and plan.trials == 20 and len(plan.space) == 3


def test_a_model_of_ones_own_trains_from_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "my_model.py").write_text(example("my_model.py"))
    (command,) = (block for block in SHELL if "my_model:LastWords" in block)
    arguments = command.split()[2:]
    done = subprocess.run(
        [sys.executable, "-m", "recbole_ser.cli", "run", *arguments], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "LastWords on ser-sample" in done.stdout


def test_a_model_of_ones_own_passes_the_contract(tmp_path: Path) -> None:
    (tmp_path / "my_model.py").write_text(example("my_model.py"))
    (tmp_path / "test_my_model.py").write_text(example("test_my_model.py"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", str(tmp_path)], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    assert "10 passed" in done.stdout


@pytest.mark.parametrize("spec", MODELS.values(), ids=MODELS)
def test_the_tables_of_models_say_what_the_registry_says(spec: ModelSpec) -> None:
    (row,) = re.findall(rf"^\| `{spec.name}` \|([^|]*\|[^|]*\|[^|]*)\|$", MODEL_PAGE, re.MULTILINE)
    reads, paper, faithful = (cell.strip() for cell in row.split("|"))
    assert reads == (", ".join(spec.reads) or "–") and paper == (spec.paper or "–") and faithful
    assert f"| `{spec.name}` | {reads} | {paper} |\n" in README


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    made = {"results.md", "contributing.md", "changelog.md"}  # by docs/hooks/pages.py
    for link in re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists() or link in made, link
