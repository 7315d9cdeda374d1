"""Converting again into a folder: the old data set or the new one is there, and nothing else is touched."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import load_dataset

from recbole_ser.atomic import publishing
from recbole_ser.atomic.location import dataset_folder, find_dataset
from recbole_ser.atomic.schema import CLICKED_ITEMS, FILES
from recbole_ser.convert import conversion
from recbole_ser.convert.conversion import STAGING_PREFIX, Conversion
from recbole_ser.convert.prepare import ensure_dataset
from recbole_ser.errors import DataError, UserError
from recbole_ser.files import atomic_write
from recbole_ser.validation.report import validate

OWN = {"X.codes": "codes", "notes.txt": "notes", "raw/log.csv": "log", "codes_cache/c": "cache", "X.items": "mine"}


def convert(folder: Path | str, mark: str, *suffixes: str) -> None:
    """Write a data set whose ids hold ``mark``, with X.inter and the files ``suffixes``."""
    columns = {"search": (*FILES["search"].required, CLICKED_ITEMS)}
    rows = {
        "inter": [(f"u{mark}", f"i{n}{mark}", str(n)) for n in range(4)],
        "search": [(f"u{mark}", f"q{mark}", "1", f"i0{mark}")],
        "query": [(f"q{mark}", "red")],
        "item": [(f"i{n}{mark}",) for n in range(4)],
        "user": [(f"u{mark}",)],
    }
    with Conversion(folder) as made:
        for suffix in ("inter", *suffixes):
            made.write(suffix, columns.get(suffix, FILES[suffix].columns), rows[suffix])
        made.publish("test", {"mark": mark}, {})


def data_set(folder: Path) -> dict[str, bytes]:
    names = [*(f"{folder.name}.{suffix}" for suffix in FILES), publishing.MANIFEST]
    return {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}


def add_own(folder: Path) -> None:
    for name, text in OWN.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def assert_own(folder: Path) -> None:
    assert {name: (folder / name).read_text() for name in OWN} == OWN


def killed(step: int, work: Callable[[], Any]) -> bool:
    """Do ``work`` in a child that gets SIGKILL before its ``step``-th change of a folder; whether it got that far."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    steps = iter(range(step))

    def dying(function: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            if next(steps, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call

    for name in ("replace", "rename", "unlink", "rmdir", "mkdir"):
        setattr(os, name, dying(getattr(os, name)))
    try:
        work()
    finally:
        os._exit(0)


def read_by_loader(folder: Path) -> None:
    load_dataset(folder.parent, "X", require_both_histories=False)


def read_by_name(folder: Path) -> None:
    ensure_dataset(folder, {})
    assert dataset_folder("X", folder.parent) == folder and find_dataset("X", folder.parent) == folder
    assert validate(folder).clean()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(
    ("old", "new"), [(("search", "query", "item"), ("search", "user")), (("user",), ("search", "query", "item"))]
)
def test_killed_at_any_step_the_folder_holds_the_old_or_the_new_data_set(
    tmp_path: Path, old: tuple[str, ...], new: tuple[str, ...]
) -> None:
    convert(tmp_path / "old" / "X", "A", *old)
    convert(tmp_path / "new" / "X", "B", *new)
    before, after = data_set(tmp_path / "old" / "X"), data_set(tmp_path / "new" / "X")
    step, found = 0, []
    alive = False
    while not alive:
        folder = tmp_path / str(step) / "X"
        convert(folder, "A", *old)
        add_own(folder)
        alive = not killed(step, lambda folder=folder: convert(folder, "B", *new))
        if (folder / "X.inter").exists():  # what programs see that do not know about us
            seen = {name: text for name, text in data_set(folder).items() if name != publishing.MANIFEST}
            assert any(seen.items() <= whole.items() and len(seen) == len(whole) - 1 for whole in (before, after))
        if step % 7 == 0:
            read_by_loader(folder)
        elif step % 2:
            read_by_name(folder)
        else:
            with Conversion(folder):  # which gives up at once
                pass
        found.append(data_set(folder))
        assert_own(folder)
        step += 1
    assert before in found and after in found and found[-1] == after
    assert all(files in (before, after) for files in found)
    assert len(found) > 12
    assert {name for name in os.listdir(folder) if name.startswith(".")} == {publishing.LOCK}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_what_killed_processes_left_is_cleared_away(tmp_path: Path) -> None:
    folder = tmp_path / "X"
    convert(folder, "A")
    add_own(folder)
    (folder / ".partial-of-a-killed-one" / "work").mkdir(parents=True)
    (folder / ".X.codes.a1_b2c3d.tmp").write_text("half")
    (folder / ".notes.abcdefgh.tmp").write_text("mine")
    with atomic_write(folder / "X.codes") as handle:  # of a living process
        convert(folder, "B")
        handle.write("codes")
    hidden = {name for name in os.listdir(folder) if name.startswith(".")}
    assert hidden == {publishing.LOCK, ".notes.abcdefgh.tmp"}
    assert_own(folder)


def test_only_files_of_a_data_set_are_replaced_whatever_the_manifest_lists(tmp_path: Path) -> None:
    folder = tmp_path / "X"
    convert(folder, "A", "item")
    add_own(folder)
    (folder / "X.user").write_text("user_id:token\nuB\n")  # the user's own: no conversion wrote it
    manifest = json.loads((folder / "manifest.json").read_text())
    names = ["notes.txt", ".", "..", "raw", "X.codes", "raw/log.csv", "../old", "/", "", "X.item"]
    manifest["outputs"] = [{"file": name} for name in names]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    convert(folder, "B")
    assert_own(folder)
    assert set(data_set(folder)) == {"X.inter", "X.user", "manifest.json"}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": "my own"}', '{"outputs": [1]}', "[" * 100_000, "\0", "nul"])
def test_a_manifest_of_someone_else_is_refused_and_stays(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "X"
    convert(folder, "A", "item")
    (folder / "manifest.json").write_text(text)
    before = data_set(folder)
    with pytest.raises(DataError, match=r"manifest\.json: damaged.*move it away"):
        convert(folder, "B")
    assert data_set(folder) == before


@pytest.mark.parametrize("name", ["X.inter", "X.user", "manifest.json"])
def test_a_folder_in_the_place_of_a_file_is_refused_before_anything_is_done(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "X"
    convert(folder, "A", "item")
    (folder / name).unlink(missing_ok=True)
    (folder / name).mkdir()
    with pytest.raises(DataError, match=f"{name}: a folder is where"):
        convert(folder, "B")
    assert (folder / "X.item").exists() and (folder / name).is_dir()


def test_a_second_conversion_into_the_folder_is_refused(tmp_path: Path) -> None:
    with Conversion(tmp_path / "X") as first:
        with pytest.raises(UserError, match="another process is converting into this folder"):
            convert(tmp_path / "X", "B")
        assert first.staging.name.startswith(STAGING_PREFIX) and first.staging.is_dir()
    convert(tmp_path / "X", "B")


def no_space(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("place", ["write_json", "_describe", "atomic_write"])
def test_a_full_disk_is_one_line_and_leaves_the_old_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    folder = tmp_path / "X"
    convert(folder, "A", "item")
    before = data_set(folder)
    monkeypatch.setattr(conversion, place, no_space)
    with pytest.raises(UserError, match="X: No space left on device: the data set cannot be written"):
        convert(folder, "B")
    assert data_set(folder) == before
    assert {name for name in os.listdir(folder) if name.startswith(".")} == {publishing.LOCK}


def test_an_error_of_a_write_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as error, atomic_write(tmp_path / "file"):
        no_space()
    assert error.value.filename == str(tmp_path / "file")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("out", "problem"),
    [
        ("", "has no name"),
        ("file", "file is not a folder"),
        ("file/X", "file/X: Not a directory"),
        ("n" * 300, "File name too long"),
        ("n" * 254, "File name too long"),
        ("loop/X", "Too many levels of symbolic links"),
        ("loop", "loop is not a folder"),
        ("new\nline", "cannot have the name"),
        ("/", "cannot have the name"),
        ("/proc/X", "/proc/X: "),
        (os.fsdecode(b"\xff"), "cannot have the name"),
    ],
)
def test_places_where_no_data_set_can_be_are_one_line(tmp_path: Path, out: str, problem: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UserError, match=problem) as error:
        convert(tmp_path / out if out else out, "A")
    assert "\n" not in str(error.value)
