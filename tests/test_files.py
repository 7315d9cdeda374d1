"""Writing files: all or nothing, and whether there is a point in trying."""

from __future__ import annotations

import errno
import os
import resource
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from recbole_ser.errors import UserError
from recbole_ser.files import atomic_write, check_writable
from recbole_ser.runs.claim import claim


def everything_in(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


@pytest.mark.parametrize("name", ["new", "old", "a/b/c/new"])
def test_a_place_that_can_be_written_stays_as_it_is(tmp_path: Path, name: str) -> None:
    (tmp_path / "old").write_text("mine")
    before = everything_in(tmp_path)
    check_writable(tmp_path / name)
    assert everything_in(tmp_path) == before and (tmp_path / "old").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("folder", "Is a directory"), ("text/new", "File exists|Not a directory"), ("a/text/../../text/x/new", "."),
        ("x" * 300, "File name too long"), (f"a/b/{'x' * 300}/new", "File name too long"), ("a\0b", "null byte"),
        ("a/b\0c/d", "null byte"), ("broken/new", "File exists"), ("x" * 250, "File name too long"),
    ],
)  # fmt: skip
def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path, name: str, problem: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").write_text("")
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    before = everything_in(tmp_path)
    with pytest.raises(UserError, match=f"cannot be written: .*({problem})") as caught:
        check_writable(tmp_path / name)
    assert "\n" not in str(caught.value) and everything_in(tmp_path) == before


@pytest.mark.skipif(os.name != "posix" or os.getuid() == 0, reason="who is root may write anywhere")
def test_a_folder_without_permission_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(UserError, match="locked/new: cannot be written: Permission denied"):
        check_writable(tmp_path / "locked" / "new")


def test_a_full_disk_is_named_by_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("whole")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError) as caught, atomic_write(tmp_path / "file") as handle:
            handle.write("x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "whole" and everything_in(tmp_path) == [tmp_path / "file"]


def test_folders_are_checked_and_made_at_once(tmp_path: Path) -> None:
    def check(number: int) -> None:
        for turn in range(100):
            check_writable(tmp_path / "a" / "b" / "file")
            if number == 0 and turn % 10 == 0:
                claim(tmp_path / "a" / "b" / "run", "").rmdir()
                with suppress(OSError):  # the others may be in there
                    (tmp_path / "a" / "b").rmdir()
                    (tmp_path / "a").rmdir()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(check, range(4)))
