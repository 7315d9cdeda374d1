"""The README's commands and examples are run, and the one for the tests is the one that CI calls."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from recbole_ser.registry import MODELS, ModelSpec

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
SHELL = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)


def example(name: str) -> str:
    (code,) = (block for block in PYTHON if block.startswith(f"# {name}\n"))
    return code


def test_ci_calls_the_command_for_the_tests() -> None:
    (command,) = (block.strip() for block in SHELL if "pytest" in block)
    assert command in (ROOT / ".ci" / "run").read_text()


def test_the_python_example_runs(tmp_path: Path) -> None:
    (code,) = (block for block in PYTHON if "from recbole_ser.runner import run" in block)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^0\.\d+ [0-9a-f]{12}$", done.stdout, re.MULTILINE)


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
def test_the_table_of_models_says_what_the_registry_says(spec: ModelSpec) -> None:
    (row,) = re.findall(rf"^\| `{spec.name}` \|(.*)\|$", README, re.MULTILINE)
    reads, paper, faithful = (cell.strip() for cell in row.split("|"))
    assert reads == (", ".join(spec.reads) or "–") and paper == (spec.paper or "–") and faithful


@pytest.mark.parametrize("path", re.findall(r"\]\((?!http)([^)#]+)\)", README))
def test_links_lead_somewhere(path: str) -> None:
    assert (ROOT / path).exists()
