"""The cache of answers: what was put stays, whatever happens to the process."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from recbole_ser.errors import DataError, UserError
from recbole_ser.text.cache import Cache, key_of

ONE, TWO = key_of(text="one"), key_of(text="two")


def test_what_was_put_is_there_at_once_and_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "new" / "cache.jsonl"
    values = ["text", "", "två \ud800 \n \u2028 运动", {"a": [1, None]}, [0.1, 1e-30, -3.0], 0, False]
    with Cache(path) as cache:
        for number, value in enumerate(values):
            assert cache.get(key_of(n=number)) is None
            cache.put(key_of(n=number), value)
            assert cache.get(key_of(n=number)) == value
            assert path.read_bytes().count(b"\n") == number + 1, "written and flushed as it arrives"
    with Cache(path) as cache:
        assert [cache.get(key_of(n=number)) for number in range(len(values))] == values
        assert len(cache) == len(values)
        assert cache.get(key_of(n=-1)) is None


def test_the_last_value_of_a_key_counts(tmp_path: Path) -> None:
    with Cache(tmp_path / "cache") as cache:
        cache.put(ONE, 1)
        cache.put(TWO, 2)
        cache.put(ONE, 3)
        assert cache.get(ONE) == 3
    with Cache(tmp_path / "cache") as cache:
        assert (cache.get(ONE), cache.get(TWO), len(cache)) == (3, 2, 2)


def test_a_key_is_of_the_content_alone() -> None:
    assert key_of(a=1, b={"x": 1, "y": [2]}) == key_of(b={"y": [2], "x": 1}, a=1)
    assert len({key_of(a=1), key_of(a="1"), key_of(a=1.5), key_of(b=1), key_of(a=[1]), key_of(a=None), key_of()}) == 7
    for part in (float("nan"), object()):
        with pytest.raises((ValueError, TypeError)):
            key_of(a=part)


@pytest.mark.parametrize("kept", [0, 1, 40, 100])
def test_a_line_that_was_cut_off_is_dropped(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "cache"
    with Cache(path) as cache:
        cache.put(ONE, "first")
        size = path.stat().st_size
        cache.put(TWO, "a second one that is longer than the others")
    os.truncate(path, size + kept)
    with Cache(path) as cache:
        assert cache.get(ONE) == "first"
        assert cache.get(TWO) is None
        assert path.stat().st_size == size
        cache.put(TWO, "again")
        assert cache.get(TWO) == "again"
    with Cache(path) as cache:
        assert (cache.get(ONE), cache.get(TWO)) == ("first", "again")


def test_a_killed_process_loses_nothing_that_was_put(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\n"
        "from recbole_ser.text.cache import Cache, key_of\n"
        "cache = Cache(sys.argv[1])\n"
        "for number in range(50):\n"
        "    cache.put(key_of(n=number), [number] * 1000)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "cache")], timeout=60)
    assert done.returncode == -signal.SIGKILL
    with Cache(tmp_path / "cache") as cache:
        assert [cache.get(key_of(n=number)) for number in range(50)] == [[number] * 1000 for number in range(50)]


def test_another_file_is_refused_with_the_line(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    with Cache(path) as cache:
        cache.put(ONE, 1)
    path.write_bytes(path.read_bytes() + b'{"key": "short", "value": 1}\n')
    with pytest.raises(DataError, match=r"cache:2: .*no cached answer"):
        Cache(path)
    path.write_bytes(path.read_bytes().split(b"\n")[0].replace(b": 1}", b": broken}") + b"\n")
    with Cache(path) as cache, pytest.raises(DataError, match=r"cache:1: no cached answer.*remove this line"):
        cache.get(ONE)


@pytest.mark.parametrize("value", ["[" * 100_000, "1" * 5000, "}", '"\xff"', '"a" "b"'])
def test_a_damaged_value_is_named_by_its_line(tmp_path: Path, value: str) -> None:
    line = f'{{"key": "{ONE}", "value": {value}}}\n'.encode("latin-1")
    with Cache(tmp_path / "cache") as cache:
        cache.put(TWO, 2)
    with (tmp_path / "cache").open("ab") as handle:
        handle.write(line)
    with Cache(tmp_path / "cache") as cache:
        with pytest.raises(DataError, match=r"cache:2: no cached answer: .*remove this line") as caught:
            cache.get(ONE)
        assert str(caught.value).isprintable() and cache.get(TWO) == 2
        cache.put(ONE, "asked again")
        assert cache.get(ONE) == "asked again"


def test_a_place_without_a_cache_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").write_text("")
    for path in (tmp_path / "folder", tmp_path / "text" / "cache", tmp_path / ("x" * 300)):
        with pytest.raises(UserError, match="the cache cannot be opened: "):
            Cache(path)


def test_a_full_disk_loses_nothing_that_was_put(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Cache(path) as cache:
        cache.put(ONE, "first")
        size = path.stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, hard))
        try:
            with pytest.raises(UserError, match=r"cache: cannot be written: .* \(the answers so far are kept"):
                cache.put(TWO, "second")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert path.stat().st_size == size and cache.get(ONE) == "first" and cache.get(TWO) is None
        cache.put(TWO, "second")
    with Cache(path) as cache:
        assert (cache.get(ONE), cache.get(TWO)) == ("first", "second")


def test_two_processes_do_not_share_it(tmp_path: Path) -> None:
    pytest.importorskip("fcntl", reason="this system has no locks that end with their process")
    with Cache(tmp_path / "cache"), pytest.raises(UserError, match="another process uses this cache"):
        Cache(tmp_path / "cache")
    with Cache(tmp_path / "cache") as cache:
        cache.put(ONE, 1)


@pytest.mark.parametrize(("key", "value"), [("short", 1), (ONE, None), (ONE, float("inf"))])
def test_what_cannot_be_kept_is_refused(tmp_path: Path, key: str, value: object) -> None:
    with Cache(tmp_path / "cache") as cache:
        with pytest.raises(ValueError):
            cache.put(key, value)
        assert len(cache) == 0
        cache.put(ONE, 1)
    with Cache(tmp_path / "cache") as cache:
        assert cache.get(ONE) == 1
