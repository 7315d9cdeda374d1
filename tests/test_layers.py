"""The layers of the package, as pyproject.toml declares them, hold."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAZY = ["recbole", "torch", "ray", "matplotlib", "transformers"]


def test_imports_go_down_and_in_no_circle() -> None:
    pytest.importorskip("importlinter", reason="import-linter is not installed: the layers are not checked")
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize(
    "code",
    [
        "import recbole_ser",
        "from recbole_ser.cli import main; main(['--help'])",
        "from recbole_ser.cli import main; main(['run', '--help'])",
        "from recbole_ser.cli import main; main(['tune', '--help'])",
        "from recbole_ser.cli import main; main(['convert', 'table', '--help'])",
    ],
)
def test_what_takes_seconds_to_import_is_imported_when_it_is_needed(code: str) -> None:
    code += f"; import sys; sys.exit(' '.join(name for name in {LAZY} if name in sys.modules) or 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_public_names_are_there() -> None:
    code = (
        "import recbole_ser; [getattr(recbole_ser, name) for name in recbole_ser.__all__]; from recbole_ser import tune"
    )
    done = subprocess.run([sys.executable, "-c", f"{code}; tune.__call__"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
