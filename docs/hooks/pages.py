"""Pages of the documentation that are made from the package itself, so that they cannot fall behind it.

Each registered model of ours gets a page with its docstring and its settings; each notebook gets one with its cells;
the results, the rules for contributors and the changes are the files of the repository.
"""

from __future__ import annotations

import inspect
import json
import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from recbole_ser.commands.run import settings_lists
from recbole_ser.registry import MODELS, ModelSpec
from recbole_ser.settings.run import FIXED
from recbole_ser.settings.wording import shown

ROOT = Path(__file__).parents[2]
_COPIES = {"results.md": "benchmarks/RESULTS.md", "contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}


def on_files(files: Files, config: Any) -> Files:
    """MkDocs calls this when it has listed the files of ``docs``."""
    for place, source in _COPIES.items():
        files.append(File.generated(config, place, content=(ROOT / source).read_text(encoding="utf-8")))
    os.chdir(ROOT)  # the bundled data set and properties are looked for from here
    for spec in _ours():
        files.append(File.generated(config, f"models/{spec.name}.md", content=_page(spec)))
    for path in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=_notebook(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """MkDocs calls this for each page: it fills in the table of keys, and links the names in the table of models."""
    markdown = markdown.replace("<!-- keys with one value -->", _keys_with_one_value())
    if page.file.src_uri == "models.md":
        for spec in _ours():
            markdown = markdown.replace(f"\n| `{spec.name}` |", f"\n| [`{spec.name}`](models/{spec.name}.md) |")
    return markdown


def _ours() -> list[ModelSpec]:
    return [spec for spec in MODELS.values() if spec.path.startswith("recbole_ser.")]


def _page(spec: ModelSpec) -> str:
    model = spec.load()
    home = inspect.getmodule(model)
    about = inspect.cleandoc(f"{home.__doc__ or ''}\n\n{inspect.getdoc(model) or ''}")
    reads = ", ".join(spec.reads) or "clicks alone"
    own, *_ = settings_lists(spec.name, None).items()
    rows = "".join(f"| `{key}` | `{default}` | {meaning} |\n" for key, default, meaning in map(_cells, own[1]))
    table = (
        f"\n## {own[0]}\n\n| key | default | what it means, and may be |\n|---|---|---|\n{rows}"
        if "of" in own[0]
        else ""
    )
    source = f"\nSource: `{home.__name__.replace('.', '/')}.py`.\n"
    return f"# {spec.name}\n\nReads: {reads}.\n\n{_as_markdown(about)}\n{source}{table}"


def _notebook(path: Path) -> str:
    """The cells of a notebook, which is kept without outputs, and a link to the file at its top."""
    title, *parts = map(_cell, json.loads(path.read_text(encoding="utf-8"))["cells"])
    return "\n\n".join([title, f"[Download this notebook]({path.name})", *parts]) + "\n"


def _cell(cell: dict[str, Any]) -> str:
    source = "".join(cell["source"])
    language = "bash" if source.startswith("!") else "python"
    return source if cell["cell_type"] == "markdown" else f"```{language}\n{source}\n```"


def _keys_with_one_value() -> str:
    rows = "".join(f"| `{key}` | `{shown(value)}` | {why} |\n" for key, (value, why) in FIXED.items())
    return f"| key | value | why, and what to do |\n|---|---|---|\n{rows}"


def _cells(entry: tuple[str, str]) -> tuple[str, ...]:
    (key, _, default), meaning = entry[0].partition("="), entry[1]
    return key, *(text.replace("|", "\\|") for text in (default, meaning))


def _as_markdown(docstring: str) -> str:
    """Docstrings have code in double backquotes, and sections with the name of Google's style."""
    text = re.sub(r"``([^`]+)``", r"`\1`", docstring)
    return re.sub(r"(?m)^(Args|Attributes|Raises|Returns):$", r"**\1**\n", text)
