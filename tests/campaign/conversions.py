"""Trying a conversion that was attacked, and judging what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

from campaign import command

_OLD = "user_id:token\titem_id:token\ttimestamp:float\nold\told\t1\n"


def outcome_of(random: Random, work: Path, arguments: Sequence[object]) -> str:
    """Run ``recbole-ser convert`` with ``arguments``, into a folder that perhaps holds a data set.

    A refused conversion leaves that data set, and says in one line why.  A finished one passes ``validate``.
    """
    out = work / "out" / "X"
    before: dict[str, bytes] = {}
    if random.random() < 0.2:
        out.mkdir(parents=True)
        (out / "X.inter").write_text(_OLD)
        (out / "X.codes").write_text("mine")
        before = _files(out)
    skipping = ["--on-error=skip"] * (random.random() < 0.5)
    status, text = command("convert", *arguments, "--out", out, *skipping)
    if status:
        assert len(text.splitlines()) == 1 and len(text) < 1000, text
        assert _files(out) == before, "the old data set changed"
        return "refused"
    from recbole_ser.validation.report import validate

    report = validate(out)
    assert report.clean(), f"converted, but {report}"
    assert before.get("X.codes") == _files(out).get("X.codes")
    return "converted"


def _files(out: Path) -> dict[str, bytes]:
    found = out.iterdir() if out.is_dir() else []
    return {path.name: path.read_bytes() for path in found if not path.name.startswith(".")}
