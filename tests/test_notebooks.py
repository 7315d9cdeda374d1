"""The notebooks of the documentation: their cells run in order, and they are kept without outputs."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from recbole_ser.cli import main

NOTEBOOKS = sorted((Path(__file__).parent.parent / "docs" / "notebooks").glob("*.ipynb"))
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells_of(path: Path) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


@each
def test_a_notebook_is_kept_without_outputs(path: Path) -> None:
    for cell in cells_of(path):
        assert not cell["outputs"] and cell["execution_count"] is None, "clear all outputs before you save it"


@pytest.mark.slow
@each
def test_the_cells_of_a_notebook_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As IPython would run them: a cell is either Python or lines of ``!recbole-ser``, with values in braces."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(cells_of(path)):
        source = "".join(cell["source"])
        if not source.startswith("!"):
            exec(compile(source, f"{path.name}, code cell {number}", "exec", dont_inherit=True), names)
            continue
        for line in source.splitlines():
            command = re.sub(r"\{(.*?)\}", lambda found: str(eval(found[1], names)), line)
            program, *arguments = shlex.split(command.removeprefix("!"))
            assert program == "recbole-ser" and main(arguments) == 0, line
