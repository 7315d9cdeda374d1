"""Damage to files, whatever they hold."""

from __future__ import annotations

import gzip
import os
import shutil
from pathlib import Path
from random import Random

JUNK = [
    b"", b"\t", b"\n", b"\r", b"\r\n", b"\n\n", b" ", b"\0", b"\xff", b"\xed\xa0\x80", b'"', b"'", b",", b":", b"|",
    b"-", b"\xef\xbb\xbf", b"\x1f\x8b", b"nan", b"NaN", b"-inf", b"Infinity", b"1e400", b"1e-400", b".5", b"0x1F",
    b"1_0", b"9" * 30, b"1" + b"0" * 400, b"9" * 5000, b"[" * 100_000, b'{"a":' * 20_000, b"[]", b"{}", b"null",
    b"true", b"[PAD]", "é".encode(), "٣".encode(), "\u2028".encode(), b"\x85", b"\\ud800", b"x" * 100_000, b":token",
    b":float_seq",
]  # fmt: skip
ENCODINGS = ["utf-16", "utf-16-le", "utf-8-sig", "latin-1", "utf-32"]


def damaged(random: Random, content: bytes) -> bytes:
    """``content`` with one change."""
    lines = content.splitlines(keepends=True) or [b""]
    at, line, other = random.randint(0, len(content)), random.randrange(len(lines)), random.randrange(len(lines))
    junk, length = random.choice(JUNK), random.choice([1, 2, 5, 12, 100])
    kind = random.randrange(10)
    if kind == 0:
        return content[:at] + junk + content[at:]
    if kind == 1:
        return content[:at] + content[at + length :]
    if kind == 2:
        return content[:at] + junk + content[at + len(junk) :]
    if kind == 3:
        return content[:at]
    if kind == 4:
        return b"".join([*lines[:other], lines[line], *lines[other:]])
    if kind == 5:
        return b"".join(lines[:line] + lines[line + 1 :])
    if kind == 6:
        return random.choice(
            [b"", junk, random.randbytes(length), gzip.compress(content), content.replace(b"\n", b"\r\n")]
        )
    if kind == 7:
        return content.decode("utf-8", "replace").encode(random.choice(ENCODINGS), "replace")
    if kind == 8:
        return b"".join(lines[:line] + [junk + b"\n"] + lines[line:])
    return content[:at] + random.randbytes(length) + content[at + length :]


def displace(random: Random, path: Path) -> None:
    """Put something else in the place of a file."""
    path.unlink()
    kind = random.randrange(4)
    if kind == 0:
        path.mkdir()
    elif kind == 1:
        path.symlink_to(random.choice([path.name, "nowhere", os.devnull, "/proc/self/mem", ".", "x" * 300]))
    elif kind == 2:
        path.mkdir()
        (path / path.name).write_text("")


def emptied(folder: Path) -> Path:
    """``folder``, new and empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
