"""A table for the terminal that says what the vectors of texts are made of."""

from __future__ import annotations

from typing import Any


def texts_table(dataset: str, manifest: dict[str, Any]) -> str:
    """A table of how many items and users have a text, from the manifest of the vectors."""
    rows = [
        f"{name:<12}{counts['all']:>12,}{counts['with_text']:>12,}{counts['distinct']:>12,}"
        f"  {manifest[name]['backend']}"
        for name, counts in manifest["report"].items()
    ]
    head = f"{'':<12}{'all':>12}{'with text':>12}{'distinct':>12}  made by"
    vectors = f"{manifest['dimension']:,} dimensions, {manifest['vectors']['backend']}"
    return "\n".join([f"texts of {dataset}", head, *rows, f"{'vectors':<12}{vectors}"])
